"""Metadata in GIF files, in extensions between the frames: comments, XMP and ICC profiles.

Sources: GIF89a specification, XMP specification part 3 (1.1.2), ICC.1:2022 annex B.
"""

from collections.abc import Iterator
from typing import IO, Any

_COMMENT, _APPLICATION = 0xFE, 0xFF
_MAX_BYTES = 2**26
_SQUARE_PIXELS = (0, 49)
"""The ratio of the sides of a pixel is (value + 15) / 64; 0 states none."""


def read(file: IO[bytes]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata, what is not kept); without damaged parts."""
    file.seek(0)
    content = file.read(_MAX_BYTES)
    comments, found = list[bytes](), dict[str, Any]()
    for label, blocks, stored in _iterate_extensions(content):
        if label == _COMMENT:
            comments.append(b"".join(blocks))
        elif label == _APPLICATION and blocks[:1] == [b"XMP DataXMP"]:
            # XMP is not in blocks. What makes it look like blocks follows it, and starts with 1 and 255.
            found["xmp-data"] = stored[12:].partition(b"\x01\xff\xfe")[0]
        elif label == _APPLICATION and blocks[:1] == [b"ICCRGBG1012"]:
            found["icc-profile-data"] = b"".join(blocks[1:])
    if comments:
        found["jpeg-comments"] = tuple(comments)
    aspect = content[12] if len(content) > 12 else 0
    return found, () if aspect in _SQUARE_PIXELS else (f"the shape of the pixels ({aspect + 15}:64)",)


def _iterate_extensions(content: bytes) -> Iterator[tuple[int, list[bytes], bytes]]:
    """(label, content in blocks, stored content) of each extension."""
    try:
        offset = 13 + _palette_bytes(content[10])
        while (kind := content[offset]) in (0x21, 0x2C):
            start = offset + 2
            if kind == 0x2C:
                start = offset + 11 + _palette_bytes(content[offset + 9])
            blocks, stop = _split_blocks(content, start)
            if kind == 0x21:
                yield content[offset + 1], blocks, content[start:stop]
            offset = stop
    except IndexError:
        return


def _split_blocks(content: bytes, offset: int) -> tuple[list[bytes], int]:
    """Blocks, each after its length, and where they end. Raises IndexError if the end is missing."""
    blocks = []
    while length := content[offset]:
        blocks.append(content[offset + 1 : offset + 1 + length])
        offset += 1 + length
    return blocks, offset + 1


def _palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
