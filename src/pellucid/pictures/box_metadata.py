"""EXIF, XMP and IPTC in the boxes of JPEG XL and JPEG 2000, in plain boxes that every program reads.

JPEG XL has boxes of its own for them; JPEG 2000 has UUID boxes, as ExifTool and Adobe write them.
"""

import struct
from typing import IO, Any

from pellucid.pictures import exif
from pellucid.pictures.boxes import build_box, iterate_boxes

_EXIF_HEAD = b"Exif\0\0"
_ORIENTATION = 0x0112
_UUIDS = {
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "xmp-data",
    bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"): "iptc-data",
    b"JpgTiffExif->JP2": "exif-data",
}
JXL_SIGNATURE = build_box(b"JXL ", b"\r\n\x87\n")
_JXL_TYPE = build_box(b"ftyp", b"jxl \0\0\0\0jxl ")


def read_metadata(file: IO[bytes]) -> dict[str, Any]:
    """The metadata in the outermost boxes of a file."""
    found: dict[str, Any] = {}
    for box in iterate_boxes(file):
        if box.kind == b"Exif":
            content = box.read(file)
            start = 4 + int.from_bytes(content[:4], "big")  # where the TIFF is, after these four bytes
            found["exif-data"] = content[start:]
        elif box.kind == b"xml ":
            found.setdefault("xmp-data", box.read(file))
        elif box.kind == b"uuid":
            content = box.read(file)
            if content[:16] in _UUIDS:
                found[_UUIDS[content[:16]]] = content[16:]
    if b"xmpmeta" not in found.get("xmp-data", b"xmpmeta"):
        del found["xmp-data"]  # other XML, e.g. GML of geographic data
    return {name: value for name, value in found.items() if value}


def put_metadata(content: bytes, metadata: dict[str, Any]) -> bytes:
    """A JPEG XL file, or its codestream alone, with EXIF and XMP in boxes before the samples."""
    boxes = b""
    if block := metadata.get("exif-data", b"").removeprefix(_EXIF_HEAD):
        boxes += build_box(b"Exif", bytes(4) + block)
    if xmp := metadata.get("xmp-data"):
        boxes += build_box(b"xml ", xmp)
    if not boxes:
        return content
    if not content.startswith(JXL_SIGNATURE):
        return JXL_SIGNATURE + _JXL_TYPE + boxes + build_box(b"jxlc", content)
    head, offset = b"", 0
    while content[offset + 4 : offset + 8] in (b"JXL ", b"ftyp", b"jxll"):
        (length,) = struct.unpack_from(">I", content, offset)
        head += content[offset : offset + length]
        offset += length
    return head + boxes + content[offset:]


def build_uuid_boxes(metadata: dict[str, Any]) -> bytes:
    """EXIF, XMP and IPTC as boxes of JPEG 2000."""
    boxes = b""
    for uuid, name in _UUIDS.items():
        if value := metadata.get(name):
            boxes += build_box(b"uuid", uuid + (value.removeprefix(_EXIF_HEAD) if name == "exif-data" else value))
    return boxes


def as_upright(block: bytes) -> bytes:
    """EXIF with the header of JPEG's blocks, and the orientation 1: the samples are upright already."""
    content = bytearray(block.removeprefix(_EXIF_HEAD))
    order = {b"II": "<", b"MM": ">"}.get(bytes(content[:2]))
    if order is None or len(content) < 10:
        return b""
    (directory,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, directory) if directory + 2 <= len(content) else (0,)
    for at in range(directory + 2, min(directory + 2 + 12 * count, len(content) - 11), 12):
        if struct.unpack_from(f"{order}HH", content, at) == (_ORIENTATION, 3):
            struct.pack_into(f"{order}H", content, at + 8, 1)
    return _EXIF_HEAD + bytes(content)


def find_orientation(block: bytes) -> int:
    """The orientation in an EXIF block: 1 to 8; 1 if there is none, or another number."""
    found = exif.number(exif.parse_first(block), _ORIENTATION)
    return found if found is not None and 1 <= found <= 8 else 1
