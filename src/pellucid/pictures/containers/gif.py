"""Metadata in GIF files, in extensions between the frames: comments, XMP and ICC profiles.

Sources: GIF89a specification, XMP specification part 3 (1.1.2), ICC.1:2022 annex B.
"""

import struct
from typing import IO, Any

from pellucid.pictures.structures.chunks import GIF_END, GIF_FRAME, iterate_gif, split_gif_blocks

_COMMENT, _APPLICATION = 0xFE, 0xFF
_MAX_BYTES = 2**26
_SQUARE_PIXELS = (0, 49)
"""The ratio of the sides of a pixel is (value + 15) / 64; 0 states none."""


def read(file: IO[bytes]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata, what is not kept); without damaged parts."""
    comments, found, dropped = list[bytes](), dict[str, Any](), _list_dropped(file)
    for kind, start, stop in iterate_gif(file):
        if kind not in (_COMMENT, _APPLICATION):
            continue
        file.seek(start)
        content = file.read(min(stop - start, _MAX_BYTES))
        name, *blocks = split_gif_blocks(content) or [b""]
        if kind == _COMMENT:
            comments.append(name + b"".join(blocks))
        elif name == b"XMP DataXMP":
            # XMP is not in blocks. What makes it look like blocks follows it, and starts with 1 and 255.
            found["xmp-data"] = content[12:].partition(b"\x01\xff\xfe")[0]
        elif name == b"ICCRGBG1012":
            found["icc-profile-data"] = b"".join(blocks)
    if comments:
        found["jpeg-comments"] = tuple(comments)
    return found, tuple(dropped)


def _list_dropped(file: IO[bytes]) -> list[str]:
    dropped, blocks = list[str](), [*iterate_gif(file)]
    file.seek(6)
    width, height, _, aspect = struct.unpack("<HHHB", file.read(7).ljust(7, b"\0"))
    if aspect not in _SQUARE_PIXELS:
        dropped.append(f"the shape of the pixels ({aspect + 15}:64)")
    for kind, start, _ in blocks:
        if kind == GIF_FRAME:
            file.seek(start)
            place = struct.unpack("<4H", file.read(8))
            if place != (0, 0, width, height):
                dropped.append("the transparency around a picture that is smaller than its canvas")
    if not blocks or blocks[-1][0] != GIF_END:
        dropped.append("what is missing at the end of the file")
    return dropped
