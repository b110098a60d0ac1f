"""Colors in AVIF and other HEIF files: CICP numbers and brightness, as chunks of a PNG.

Source: ISO/IEC 23008-12 (HEIF).
"""

import struct
from dataclasses import dataclass
from typing import IO

import numpy as np

from pellucid.pictures.levels import expand_chroma_as_color, expand_limited
from pellucid.pictures.picture import Samples
from pellucid.pictures.structures import chunks
from pellucid.pictures.structures.boxes import find_box, iterate_boxes


def read_colors(file: IO[bytes]) -> bytes:
    """The description of colors of the main picture, as chunks of a PNG; b"" if there is none."""
    try:
        properties = _main_properties(file)
    except (struct.error, IndexError):
        return b""
    found = b""
    for kind, content in properties:
        if kind == b"colr" and content[:4] == b"nclx" and len(content) >= 11:
            primaries, transfer = struct.unpack(">HH", content[4:8])
            if (primaries, transfer) != (2, 2) and max(primaries, transfer) < 256:
                # RGB: the matrix is the identity, and a limited range is expanded.
                found += chunks.build_chunk(b"cICP", bytes([primaries, transfer, 0, 1]))
        elif kind == b"clli" and len(content) == 4:
            brightest, mean = struct.unpack(">HH", content)
            found += chunks.build_chunk(b"cLLI", struct.pack(">II", brightest * 10_000, mean * 10_000))
        elif kind == b"mdcv" and len(content) == 24:
            x = struct.unpack(">8H", content[:16])
            red_first = (*x[4:6], *x[0:2], *x[2:4], *x[6:8])  # HEIF has green, blue, red
            found += chunks.build_chunk(b"mDCV", struct.pack(">8H", *red_first) + content[16:])
    return found


@dataclass(frozen=True)
class Coding:
    """How the main picture is coded. is_limited: black is 16 and white is 235 (with 8 bits).

    is_rgb: whether its planes are green, blue and red, not brightness and chroma.
    """

    is_gray: bool = False
    is_limited: bool = False
    is_rgb: bool = False


def read_coding(file: IO[bytes]) -> Coding:
    """What libheif ignores, see `complete_range`: it also decodes gray as three channels."""
    is_gray, has_codec, is_limited, is_rgb = False, False, False, False
    try:
        for kind, content in _main_properties(file):
            if kind == b"av1C":
                is_gray, has_codec = bool(content[2] & 0x10), True
            elif kind == b"hvcC":
                is_gray, has_codec = content[16] & 3 == 0, True
            elif kind == b"pixi" and not has_codec:
                is_gray = content[4] == 1
            elif kind == b"colr" and content[:4] == b"nclx":
                is_limited, is_rgb = content[10] < 0x80, content[8:10] == _IDENTITY
    except (struct.error, IndexError):
        return Coding()
    return Coding(is_gray, is_limited, is_rgb)


_IDENTITY = b"\0\0"
"""The matrix of RGB."""


def complete_range(samples: Samples, coding: Coding, bits: int) -> Samples:
    """Colors over the full range. libheif does not expand gray, and expands red and blue as chroma."""
    if not coding.is_limited:
        return samples
    if coding.is_gray:
        return expand_limited(samples, bits)
    if not coding.is_rgb:
        return samples
    red, green, blue = (samples[..., channel] for channel in range(3))
    return np.stack([expand_chroma_as_color(red), green, expand_chroma_as_color(blue)], axis=-1)


def has_associated_alpha(file: IO[bytes]) -> bool:
    """Whether the colors of a picture are multiplied by its alpha."""
    return find_box(file, b"meta", b"iref", b"prem") is not None


def list_dropped(file: IO[bytes]) -> tuple[str, ...]:
    """What is not kept of the properties of the main picture."""
    try:
        shapes = [content for kind, content in _main_properties(file) if kind == b"pasp"]
        pairs = [struct.unpack_from(">II", content) for content in shapes]
    except (struct.error, IndexError):
        return ()
    return tuple(f"the shape of the pixels ({width}:{height})" for width, height in pairs if width != height)


def _main_properties(file: IO[bytes]) -> list[tuple[bytes, bytes]]:
    """(type, content) of each property of the main picture."""
    main, links = find_box(file, b"meta", b"pitm"), find_box(file, b"meta", b"iprp", b"ipma")
    store = find_box(file, b"meta", b"iprp", b"ipco")
    if store is None or links is None:
        return []
    properties = [(box.kind, box.read(file)) for box in iterate_boxes(file, store.start, store.stop)]
    number = int.from_bytes(main.read(file)[4:], "big") if main else 1
    indices = _associations(links.read(file)).get(number, [])
    return [properties[index - 1] for index in indices if 0 < index <= len(properties)]


def _associations(content: bytes) -> dict[int, list[int]]:
    """Item -> numbers of its properties, from 1."""
    if len(content) < 8:
        return {}
    version, is_long = content[0], bool(content[3] & 1)
    (count,) = struct.unpack_from(">I", content, 4)
    found, offset = dict[int, list[int]](), 8
    for _ in range(min(count, 10_000)):
        (item,) = struct.unpack_from(">I" if version else ">H", content, offset)
        offset += 4 if version else 2
        num, offset = content[offset], offset + 1
        step = 2 if is_long else 1
        raw = [int.from_bytes(content[offset + step * i : offset + step * (i + 1)], "big") for i in range(num)]
        found[item] = [index & (0x7FFF if is_long else 0x7F) for index in raw]
        offset += step * num
    return found
