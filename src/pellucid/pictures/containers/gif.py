"""Metadata in GIF files, in extensions between the frames: comments, XMP and ICC profiles.

Sources: GIF89a specification, XMP specification part 3 (1.1.2), ICC.1:2022 annex B.
"""

from collections.abc import Iterator
from typing import IO, Any

from pellucid.pictures.structures.chunks import GIF_END, iterate_gif, split_gif_blocks

_COMMENT, _APPLICATION = 0xFE, 0xFF
_MAX_BYTES = 2**26
_SQUARE_PIXELS = (0, 49)
"""The ratio of the sides of a pixel is (value + 15) / 64; 0 states none."""


def read(file: IO[bytes]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata, what is not kept); without damaged parts."""
    comments, found, is_complete = list[bytes](), dict[str, Any](), False
    for kind, start, stop in iterate_gif(file):
        is_complete |= kind == GIF_END
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
    return found, tuple(_list_dropped(file, is_complete=is_complete))


def _list_dropped(file: IO[bytes], *, is_complete: bool) -> Iterator[str]:
    file.seek(12)
    aspect = int.from_bytes(file.read(1), "big")
    if aspect not in _SQUARE_PIXELS:
        yield f"the shape of the pixels ({aspect + 15}:64)"
    if not is_complete:
        yield "what is missing at the end of the file"
