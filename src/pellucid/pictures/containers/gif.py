"""Metadata in GIF files, in extensions between the frames: comments, XMP and ICC profiles.

Sources: GIF89a specification, XMP specification part 3 (1.1.2), ICC.1:2022 annex B.
"""

import struct
from typing import IO, Any

from pellucid.pictures.records import exif, iptc, xmp
from pellucid.pictures.structures.chunks import GIF_END, GIF_FRAME, iterate_gif, split_gif_blocks

_CONTROL, _COMMENT, _APPLICATION, _PLAIN_TEXT = 0xF9, 0xFE, 0xFF, 0x01
_BY_IMAGEMAGICK = (b"MGKIPTC0000", b"MGK8BIM0000")
_ABOUT_FRAMES = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
"""Extensions about the repetition of an animation."""

_MAX_BYTES = 2**26
_SQUARE_PIXELS = (0, 49)
"""The ratio of the sides of a pixel is (value + 15) / 64; 0 states none."""


def read(file: IO[bytes]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata, what is not kept); without damaged parts."""
    comments, packets, dropped = list[bytes](), list[bytes](), _list_dropped(file)
    profile, resources = b"", b""
    for kind, start, stop in iterate_gif(file):
        if kind == _PLAIN_TEXT:
            dropped.append("text that is drawn over the picture")
        if kind not in (_COMMENT, _APPLICATION):
            continue
        file.seek(start)
        content = file.read(min(stop - start, _MAX_BYTES))
        name, *blocks = split_gif_blocks(content) or [b""]
        if kind == _COMMENT:
            comments.append(name + b"".join(blocks))
        elif name == b"XMP DataXMP":
            # XMP is not in blocks. What makes it look like blocks follows it, and starts with 1 and 255.
            packets.append(content[12:].partition(b"\x01\xff\xfe")[0])
        elif name == b"ICCRGBG1012":
            profile = b"".join(blocks)
        elif name in _BY_IMAGEMAGICK:
            added = iptc.as_resources(b"".join(blocks))
            resources += b"" if added in resources else added  # it writes captions twice
        elif name not in _ABOUT_FRAMES:
            dropped.append(f"the extension {ascii(name)[1:]}")
    parsed = iptc.parse_resources(resources)
    packet, conflicts = xmp.join([*packets, parsed.packet])
    found: dict[str, Any] = {
        "jpeg-comments": tuple(comments),
        "exif-data": exif.HEADER + parsed.exif if parsed.exif else b"",
        "xmp-data": packet,
        "icc-profile-data": profile,
        "iptc-data": parsed.records,
        "photoshop-data": parsed.others,
    }
    return {key: value for key, value in found.items() if value}, (*dropped, *conflicts)


def _list_dropped(file: IO[bytes]) -> list[str]:
    dropped, blocks = list[str](), [*iterate_gif(file)]
    file.seek(6)
    width, height, _, aspect = struct.unpack("<HHHB", file.read(7).ljust(7, b"\0"))
    if aspect not in _SQUARE_PIXELS:
        dropped.append(f"the shape of the pixels ({aspect + 15}:64)")
    is_transparent = False
    for kind, start, _ in blocks:
        file.seek(start)
        if kind == _CONTROL:
            is_transparent = bool(file.read(2).ljust(2, b"\0")[1] & 1)
        if kind == GIF_FRAME and not is_transparent:  # otherwise the canvas is transparent, too
            place = struct.unpack("<4H", file.read(8))
            if place != (0, 0, width, height):
                dropped.append("the transparency around a picture that is smaller than its canvas")
    if not blocks or blocks[-1][0] != GIF_END:
        dropped.append("metadata at the end of the file, which is missing")
    return dropped
