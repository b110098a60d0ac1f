"""IPTC captions and keywords: the same records, stored in a different way by each format.

TIFF stores the records themselves, JPEG stores them as one of Photoshop's image resources, PNG as a text of
hexadecimal digits of such a resource. `Picture.metadata` has the records, and separately the other resources.
"""

import struct

from pellucid.pictures.geometry import Change

PNG_KEY = "Raw profile type iptc"

_JPEG_HEAD = b"Photoshop 3.0\0"
_SIGNATURES = (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR")
_RECORDS = 0x0404
_RECORD_START = b"\x1c"
_REPLACED = {_RECORDS, 0x0409, 0x040C}
"""Resources that are not kept with the others: the records and thumbnails."""

_PATHS = range(0x07D0, 0x0BB7)
_IN_PIXELS = {0x0408: "guides", 0x041A: "slices"}


def parse_resources(content: bytes) -> tuple[bytes, bytes]:
    """(records, other resources without thumbnails) of the APP13 segment of a JPEG, or of Photoshop's resources.

    Stops at damaged resources.
    """
    resources = _split_resources(content.removeprefix(_JPEG_HEAD))
    others = b"".join(_build_resource(*resource) for resource in resources if resource[0] not in _REPLACED)
    return b"".join(data for number, _, data, _ in resources if number == _RECORDS), others


def as_resources(content: bytes) -> bytes:
    """Photoshop's resources, from those with the header of JPEG, or from records alone."""
    content = content.removeprefix(_JPEG_HEAD)
    return build_resources(content) if content.startswith(_RECORD_START) else content


def build_resources(records: bytes, others: bytes = b"") -> bytes:
    """Photoshop's image resources with the records among them."""
    return others + (_build_resource(_RECORDS, b"\0\0", records) if records else b"")


def adapt_resources(content: bytes, change: Change) -> tuple[bytes, tuple[str, ...]]:
    """(the resources that are true for a turned and scaled picture, what was removed).

    Paths are in fractions of the picture, guides and slices in pixels.
    """
    resources, removed = _split_resources(content), []
    if change.is_turned and any(number in _PATHS for number, *_ in resources):
        resources = [resource for resource in resources if resource[0] not in _PATHS]
        removed.append("paths of Photoshop, because the picture was turned")
    if change.is_turned or change.is_scaled:
        removed += [f"{_IN_PIXELS[number]} of Photoshop" for number, *_ in resources if number in _IN_PIXELS]
        resources = [resource for resource in resources if resource[0] not in _IN_PIXELS]
    return b"".join(_build_resource(*resource) for resource in resources) if removed else content, tuple(removed)


def build_png_text(records: bytes, others: bytes = b"") -> str:
    """A "Raw profile" text as written by ImageMagick and ExifTool."""
    content = build_resources(records, others)
    return f"\niptc\n{len(content):8}\n{content.hex()}\n"


def _split_resources(content: bytes) -> list[tuple[int, bytes, bytes, bytes]]:
    """(number, name as stored, data, signature) of each resource."""
    found, offset = [], 0
    while content[offset : offset + 4] in _SIGNATURES and len(content) >= offset + 12:
        (number,) = struct.unpack_from(">H", content, offset + 4)
        name_end = offset + 6 + (content[offset + 6] + 2) // 2 * 2
        if len(content) < name_end + 4:
            break
        (length,) = struct.unpack_from(">I", content, name_end)
        data = content[name_end + 4 : name_end + 4 + length]
        if len(data) < length:
            break
        found.append((number, content[offset + 6 : name_end], data, content[offset : offset + 4]))
        offset = name_end + 4 + length + length % 2
    return found


def _build_resource(number: int, name: bytes, data: bytes, signature: bytes = b"8BIM") -> bytes:
    return (
        signature + struct.pack(">H", number) + name + struct.pack(">I", len(data)) + data + bytes(len(data) % 2)
    )
