"""IPTC captions and keywords: the same records, stored in a different way by each format.

TIFF stores the records themselves, JPEG stores them as one of Photoshop's image resources, PNG as a text of
hexadecimal digits of such a resource. `Picture.metadata` has the records, and separately the other resources.
"""

import struct
from dataclasses import dataclass

from pellucid.pictures.geometry import Change

PNG_KEY = "Raw profile type iptc"

_JPEG_HEAD = b"Photoshop 3.0\0"
_SIGNATURES = (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR")
_RECORDS = 0x0404
_RECORD_START = b"\x1c"
_EXIF, _XMP = (0x0422, 0x0423), 0x0424
_REPLACED = {_RECORDS, 0x0409, 0x040C, *_EXIF, _XMP}
"""Resources that are not kept with the others: the records, thumbnails, EXIF and XMP."""

_PATHS = range(0x07D0, 0x0BB7)
_IN_PIXELS = {0x0408: "guides", 0x041A: "slices"}
_RESOLUTION, _RESOLUTION_BYTES = 0x03ED, 16


@dataclass(frozen=True)
class Resources:
    """Photoshop's image resources: IPTC records, EXIF without its header, XMP, and all others but thumbnails."""

    records: bytes = b""
    exif: bytes = b""
    packet: bytes = b""
    others: bytes = b""


def parse_resources(content: bytes) -> Resources:
    """Those in the APP13 segment of a JPEG, or in a tag of a TIFF. Stops at damaged ones."""
    resources = _split_resources(content.removeprefix(_JPEG_HEAD))
    contents = {number: data for number, _, data, _ in reversed(resources)}
    return Resources(
        b"".join(data for number, _, data, _ in resources if number == _RECORDS),
        next((contents[number] for number in _EXIF if number in contents), b""),
        contents.get(_XMP, b""),
        b"".join(_build_resource(*resource) for resource in resources if resource[0] not in _REPLACED),
    )


def as_resources(content: bytes) -> bytes:
    """Photoshop's resources, from those with the header of JPEG, or from records alone."""
    content = content.removeprefix(_JPEG_HEAD)
    return build_resources(content) if content.startswith(_RECORD_START) else content


def build_resources(records: bytes, others: bytes = b"") -> bytes:
    """Photoshop's image resources with the records among them."""
    return others + (_build_resource(_RECORDS, b"\0\0", records) if records else b"")


def adapt_resources(content: bytes, change: Change) -> tuple[bytes, tuple[str, ...]]:
    """(the resources that are true for a turned and scaled picture, what was removed).

    Paths are in fractions of the picture, guides and slices in pixels. The resolution is that of both axes.
    """
    resources, removed = _split_resources(content), list[str]()
    is_changed = change.swaps_axes and any(number == _RESOLUTION for number, *_ in resources)
    if is_changed:
        resources = [(number, name, _swap(number, data), mark) for number, name, data, mark in resources]
    if change.is_turned and any(number in _PATHS for number, *_ in resources):
        resources = [resource for resource in resources if resource[0] not in _PATHS]
        removed.append("paths of Photoshop, because the picture was turned")
    if change.is_turned or change.is_scaled:
        removed += [f"{_IN_PIXELS[number]} of Photoshop" for number, *_ in resources if number in _IN_PIXELS]
        resources = [resource for resource in resources if resource[0] not in _IN_PIXELS]
    if is_changed or removed:
        content = b"".join(_build_resource(*resource) for resource in resources)
    return content, tuple(removed)


def _swap(number: int, data: bytes) -> bytes:
    """The resolution with exchanged axes; other resources as they are."""
    half = _RESOLUTION_BYTES // 2
    return data[half:] + data[:half] if number == _RESOLUTION and len(data) == _RESOLUTION_BYTES else data


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
