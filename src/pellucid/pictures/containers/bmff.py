"""EXIF, XMP and IPTC in the boxes of JPEG XL and JPEG 2000, in plain boxes that every program reads.

JPEG XL has boxes of its own for them; JPEG 2000 has UUID boxes, as ExifTool and Adobe write them.
"""

import struct
from collections.abc import Mapping
from typing import IO, Any

from pellucid.pictures.contents.parts import GEOGRAPHIC
from pellucid.pictures.records import exif
from pellucid.pictures.structures.boxes import XMP_UUID, build_box, iterate_boxes

JXL_STORED = frozenset({"exif-data", "xmp-data", "icc-profile-data", "xres", "yres"})
JP2_STORED = JXL_STORED | {"iptc-data"}
"""Metadata that a JPEG XL and a JP2 file store."""

_UUIDS = {
    XMP_UUID: "xmp-data",
    bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"): "iptc-data",
    b"JpgTiffExif->JP2": "exif-data",
}
_OTHER_UUIDS = {
    bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"): GEOGRAPHIC,
    bytes.fromhex("96a9f1f1dc98402da7aed68e34451809"): GEOGRAPHIC,  # MSI, the world file in a box
}
_NAMES_IN_XMP = (b"xmpmeta", b"rdf:RDF")

_JXL_SIGNATURE = build_box(b"JXL ", b"\r\n\x87\n")
_JXL_TYPE = build_box(b"ftyp", b"jxl \0\0\0\0jxl ")


def read(file: IO[bytes]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata, what is not kept) of the outermost boxes of a file."""
    found, dropped = dict[str, Any](), list[str]()
    for box in iterate_boxes(file):
        if box.kind == b"Exif":
            found["exif-data"] = parse_exif_box(box.read(file))
            found |= exif.read_resolution(found["exif-data"])
        elif box.kind == b"xml ":
            content = box.read(file)
            if any(name in content for name in _NAMES_IN_XMP):
                found.setdefault("xmp-data", content)
            else:  # e.g. GML of geographic data
                dropped.append("XML other than XMP")
        elif box.kind == b"uuid":
            content = box.read(file)
            if name := _UUIDS.get(content[:16]):
                header = exif.HEADER if name == "exif-data" else b""
                found[name] = header + content[16:].removeprefix(header)
            else:
                dropped.append(_OTHER_UUIDS.get(content[:16], f"the box of UUID {content[:16].hex()}"))
    return found, tuple(dict.fromkeys(dropped))


def parse_exif_box(content: bytes) -> bytes:
    """The EXIF block in the content of a box, whose first four bytes say how far after them the TIFF starts."""
    start = 4 + int.from_bytes(content[:4], "big")
    return exif.HEADER + content[start:].removeprefix(exif.HEADER)


def put_into_jxl(content: bytes, metadata: Mapping[str, Any]) -> bytes:
    """A JPEG XL file, or its codestream alone, with EXIF and XMP in boxes before the samples."""
    boxes = b""
    if block := exif.add_resolution(metadata.get("exif-data", b""), metadata).removeprefix(exif.HEADER):
        boxes += build_box(b"Exif", bytes(4) + block)
    if xmp := metadata.get("xmp-data"):
        boxes += build_box(b"xml ", xmp)
    if not boxes:
        return content
    if not content.startswith(_JXL_SIGNATURE):
        return _JXL_SIGNATURE + _JXL_TYPE + boxes + build_box(b"jxlc", content)
    head, offset = b"", 0
    while content[offset + 4 : offset + 8] in (b"JXL ", b"ftyp", b"jxll"):
        (length,) = struct.unpack_from(">I", content, offset)
        head += content[offset : offset + length]
        offset += length
    return head + boxes + content[offset:]


def build_uuid_boxes(metadata: Mapping[str, Any]) -> bytes:
    """EXIF, XMP and IPTC as boxes of JPEG 2000."""
    boxes = b""
    for uuid, name in _UUIDS.items():
        if value := metadata.get(name):
            boxes += build_box(b"uuid", uuid + (value.removeprefix(exif.HEADER) if name == "exif-data" else value))
    return boxes
