"""IPTC captions and keywords: the same records, stored in a different way by each format.

TIFF stores the records themselves, JPEG stores them as one of Photoshop's image resources, PNG as a text of
hexadecimal digits of such a resource. `Picture.metadata` has the records, and separately the other resources.
"""

import struct

PNG_KEY = "Raw profile type iptc"

_JPEG_HEAD = b"Photoshop 3.0\0"
_RECORDS = 0x0404
_REPLACED = {_RECORDS, 0x0409, 0x040C, 0x0425}
"""Resources that are not kept with the others: the records, thumbnails, the checksum of the records."""


def parse_resources(content: bytes) -> tuple[bytes, bytes]:
    """(records, other resources without thumbnails) of the APP13 segment of a JPEG, or of Photoshop's resources.

    Stops at damaged resources.
    """
    resources = _split_resources(content.removeprefix(_JPEG_HEAD))
    others = b"".join(_build_resource(*resource) for resource in resources if resource[0] not in _REPLACED)
    return b"".join(data for number, _, data in resources if number == _RECORDS), others


def build_segment(records: bytes, others: bytes = b"") -> bytes:
    """An APP13 segment for a JPEG."""
    return _JPEG_HEAD + others + (_build_resource(_RECORDS, b"\0\0", records) if records else b"")


def parse_png_text(text: str) -> bytes:
    """The records in a "Raw profile" text, or b"" if it contains none."""
    lines = text.split("\n", 3)
    if len(lines) < 4 or lines[1] != "iptc":
        return b""
    try:
        content = bytes.fromhex(lines[3])
    except ValueError:
        return b""
    return parse_resources(content)[0]


def build_png_text(records: bytes) -> str:
    """A "Raw profile" text as written by ImageMagick and ExifTool."""
    content = build_segment(records).removeprefix(_JPEG_HEAD)
    return f"\niptc\n{len(content):8}\n{content.hex()}\n"


def _split_resources(content: bytes) -> list[tuple[int, bytes, bytes]]:
    """(number, name as stored, data) of each resource."""
    found, offset = [], 0
    while content[offset : offset + 4] == b"8BIM" and len(content) >= offset + 12:
        (number,) = struct.unpack_from(">H", content, offset + 4)
        name_end = offset + 6 + (content[offset + 6] + 2) // 2 * 2
        if len(content) < name_end + 4:
            break
        (length,) = struct.unpack_from(">I", content, name_end)
        data = content[name_end + 4 : name_end + 4 + length]
        if len(data) < length:
            break
        found.append((number, content[offset + 6 : name_end], data))
        offset = name_end + 4 + length + length % 2
    return found


def _build_resource(number: int, name: bytes, data: bytes) -> bytes:
    return b"8BIM" + struct.pack(">H", number) + name + struct.pack(">I", len(data)) + data + bytes(len(data) % 2)
