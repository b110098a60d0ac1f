"""IPTC captions and keywords: the same records, packed in another way by each format.

TIFF holds the records bare, JPEG as one of Photoshop's resources, PNG as a text of hexadecimal digits
around those. A `Picture` carries the bare records, and Photoshop's other resources apart from them.
"""

import struct

PNG_KEY = "Raw profile type iptc"

_JPEG_HEAD = b"Photoshop 3.0\0"
_RECORDS = 0x0404
_STALE = {_RECORDS, 0x0409, 0x040C, 0x0425}
"""What is not one of the others: the records, previews of the old picture, the checksum of the old records."""


def from_jpeg(content: bytes) -> tuple[bytes, bytes]:
    """(records, the other resources but previews) of a JPEG's APP13 segment, or of Photoshop's resources.

    What cannot be taken apart is left out.
    """
    resources = _resources(content.removeprefix(_JPEG_HEAD))
    others = b"".join(_resource(*resource) for resource in resources if resource[0] not in _STALE)
    return b"".join(data for kind, _, data in resources if kind == _RECORDS), others


def to_jpeg(records: bytes, others: bytes = b"") -> bytes:
    """An APP13 segment."""
    return _JPEG_HEAD + others + (_resource(_RECORDS, b"\0\0", records) if records else b"")


def from_png(text: str) -> bytes:
    """The records of a "Raw profile" text; b"" for another text."""
    lines = text.split("\n", 3)
    if len(lines) < 4 or lines[1] != "iptc":
        return b""
    try:
        content = bytes.fromhex(lines[3])
    except ValueError:
        return b""
    return from_jpeg(content)[0]


def to_png(records: bytes) -> str:
    """A "Raw profile" text, as ImageMagick and ExifTool have it."""
    content = to_jpeg(records).removeprefix(_JPEG_HEAD)
    return f"\niptc\n{len(content):8}\n{content.hex()}\n"


def _resources(content: bytes) -> list[tuple[int, bytes, bytes]]:
    """Number, name as stored, and data of each."""
    found, place = [], 0
    while content[place : place + 4] == b"8BIM" and len(content) >= place + 12:
        (kind,) = struct.unpack_from(">H", content, place + 4)
        name_end = place + 6 + (content[place + 6] + 2) // 2 * 2
        if len(content) < name_end + 4:
            break
        (length,) = struct.unpack_from(">I", content, name_end)
        data = content[name_end + 4 : name_end + 4 + length]
        if len(data) < length:
            break
        found.append((kind, content[place + 6 : name_end], data))
        place = name_end + 4 + length + length % 2
    return found


def _resource(kind: int, name: bytes, data: bytes) -> bytes:
    return b"8BIM" + struct.pack(">H", kind) + name + struct.pack(">I", len(data)) + data + bytes(len(data) % 2)
