"""EXIF, XMP and IPTC in the boxes of JPEG XL and JPEG 2000, in plain boxes that every program reads.

JPEG XL has boxes of its own for them; JPEG 2000 has UUID boxes, as ExifTool and Adobe write them.
"""

import struct
from collections import Counter
from collections.abc import Mapping
from typing import IO, Any

from pellucid.pictures.contents.parts import GEOGRAPHIC
from pellucid.pictures.records import exif, xmp
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
_READ = (b"Exif", b"xml ", b"uuid", b"brob")
_COMPRESSED = {b"Exif": "exif-data", b"xml ": "xmp-data"}
_NAMES = {"exif-data": "EXIF block", "xmp-data": "XMP packet", "iptc-data": "IPTC block"}
_NAMES_IN_XMP = (b"xmpmeta", b"rdf:RDF")

_JXL_SIGNATURE = build_box(b"JXL ", b"\r\n\x87\n")
_JXL_TYPE = build_box(b"ftyp", b"jxl \0\0\0\0jxl ")


def read(file: IO[bytes]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata, what is not kept) of the outermost boxes of a file.

    Also of those after an appended video, where ExifTool puts its boxes. Compressed boxes are only counted; the
    codec of JPEG XL decompresses one of each type.
    """
    contents, dropped, num_compressed = dict[str, list[bytes]](), list[str](), Counter[str]()
    for box in iterate_boxes(file):
        name, content = _identify(box.kind, box.read(file) if box.kind in _READ else b"")
        if box.kind == b"brob":
            num_compressed[name] += 1
        elif name in _NAMES:
            contents.setdefault(name, []).append(content)
        elif name:
            dropped.append(name)
    packet, conflicts = xmp.join(contents.pop("xmp-data", []))
    found: dict[str, Any] = {name: blocks[0] for name, blocks in contents.items()}
    dropped += [f"a second {_NAMES[name]}" for name, blocks in contents.items() if len({*blocks}) > 1]
    found |= {"xmp-data": packet} if packet else {}
    dropped += [
        f"a second {_NAMES[name]}" for name, count in num_compressed.items() if count + (name in found) > 1
    ]
    return found, tuple(dict.fromkeys((*dropped, *conflicts)))


def _identify(kind: bytes, content: bytes) -> tuple[str, bytes]:
    """(key of the metadata in a box, its value); or (what it is, b""), or ("", b"") if nothing is lost with it."""
    if kind == b"brob":
        return _COMPRESSED.get(content[:4], ""), b""
    if kind == b"Exif":
        return "exif-data", exif.parse_exif_box(content)
    if kind == b"xml ":  # others are e.g. GML of geographic data
        is_xmp = any(name in content for name in _NAMES_IN_XMP)
        return ("xmp-data", content) if is_xmp else ("XML other than XMP", b"")
    if kind != b"uuid":
        return "", b""
    number, value = content[:16], content[16:]
    name = _UUIDS.get(number)
    if name is None:
        return _OTHER_UUIDS.get(number, f"the box of UUID {number.hex()}"), b""
    return name, exif.HEADER + value.removeprefix(exif.HEADER) if name == "exif-data" else value


def put_into_jxl(content: bytes, metadata: Mapping[str, Any]) -> bytes:
    """A JPEG XL file, or its codestream alone, with EXIF and XMP in boxes before the samples."""
    boxes = b""
    if block := exif.add_resolution(metadata.get("exif-data", b""), metadata).removeprefix(exif.HEADER):
        boxes += build_box(b"Exif", bytes(4) + block)
    if packet := metadata.get("xmp-data"):
        boxes += build_box(b"xml ", packet)
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
