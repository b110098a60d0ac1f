"""Metadata of AVIF and other HEIF files, and how their colors are coded.

CICP numbers and brightness become chunks of a PNG.

Source: ISO/IEC 23008-12 (HEIF).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np

from pellucid.pictures.chroma import interpolate_chroma
from pellucid.pictures.contents.heif import find_coded_item, find_records
from pellucid.pictures.levels import expand_chroma_as_color, expand_limited
from pellucid.pictures.records import exif, xmp
from pellucid.pictures.samples import Samples
from pellucid.pictures.structures import chunks
from pellucid.pictures.structures.boxes import find_box, iterate_boxes
from pellucid.pictures.white import change_samples


def read(file: IO[bytes]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata, what is not kept) of the main picture."""
    found, dropped = {"icc-profile-data": _read_profile(file)}, [*_list_dropped(file)]
    if not found["icc-profile-data"]:
        found["png-chunks"] = read_colors(file)
    try:
        records = find_records(file)
    except (struct.error, IndexError):
        return found, (*dropped, "EXIF and XMP, which are damaged")
    blocks = [*dict.fromkeys(map(exif.parse_exif_box, records.blocks))]
    others = [block for block in blocks[1:] if not exif.contains(blocks[0], block)]
    found["exif-data"] = blocks[0] if blocks else b""
    found["xmp-data"], conflicts = xmp.join(records.packets)
    dropped += [*records.dropped, *(["a second EXIF block"] if others else []), *conflicts]
    return found, tuple(dict.fromkeys(dropped))


def _read_profile(file: IO[bytes]) -> bytes:
    try:
        properties = _main_properties(file)
    except (struct.error, IndexError):
        return b""
    profiles = (content[4:] for kind, content in properties if kind == b"colr" and content[:4] in _PROFILES)
    return next(profiles, b"")


_PROFILES = (b"prof", b"rICC")


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

    is_rgb: whether its planes are green, blue and red, not brightness and chroma. matrix: of brightness and chroma
    (ITU-T H.273). chroma_steps: how many pixels share a chroma sample, across and down.
    """

    is_gray: bool = False
    is_limited: bool = False
    is_rgb: bool = False
    matrix: int = 2
    chroma_steps: tuple[int, int] = (1, 1)


def read_coding(file: IO[bytes]) -> Coding:
    """What libheif ignores, see `complete_colors`: it also decodes gray as three channels."""
    coding = Coding()
    try:
        for kind, content in _main_properties(file, find_coded_item(file)):
            if kind == b"av1C":
                is_halved = content[2] >> 3 & 1, content[2] >> 2 & 1
                coding = replace(coding, is_gray=bool(content[2] & 0x10), chroma_steps=_to_steps(*is_halved))
            elif kind == b"hvcC":
                chroma = content[16] & 3  # none, 4:2:0, 4:2:2, 4:4:4
                is_halved = chroma in (1, 2), chroma == 1
                coding = replace(coding, is_gray=chroma == 0, chroma_steps=_to_steps(*is_halved))
        for kind, content in _main_properties(file):
            if kind == b"colr" and content[:4] == b"nclx":
                (matrix,) = struct.unpack_from(">H", content, 8)
                coding = replace(coding, is_limited=content[10] < 0x80, matrix=matrix, is_rgb=matrix == 0)
    except (struct.error, IndexError):
        return Coding()
    return coding


def _to_steps(is_halved_across: int, is_halved_down: int) -> tuple[int, int]:
    return 1 + is_halved_across, 1 + is_halved_down


def complete_colors(samples: Samples, coding: Coding, bits: int) -> None:
    """Change colors in place: with interpolated chroma, and over the full range."""
    if samples.shape[2] == 3 and not coding.is_rgb and max(coding.chroma_steps) > 1:
        interpolate_chroma(samples, bits, coding.chroma_steps, coding.matrix)
    if coding.is_limited:
        change_samples(samples, lambda strip: _complete_range(strip, coding, bits))


def _complete_range(samples: Samples, coding: Coding, bits: int) -> Samples:
    """Colors over the full range. libheif does not expand gray, and expands red and blue as chroma."""
    if coding.is_gray:
        return expand_limited(samples, bits)
    if not coding.is_rgb:
        return samples
    red, green, blue = (samples[..., channel] for channel in range(3))
    return np.stack([expand_chroma_as_color(red), green, expand_chroma_as_color(blue)], axis=-1)


def has_associated_alpha(file: IO[bytes]) -> bool:
    """Whether the colors of a picture are multiplied by its alpha."""
    return find_box(file, b"meta", b"iref", b"prem") is not None


def _list_dropped(file: IO[bytes]) -> Iterator[str]:
    """What is not kept of the properties of the main picture."""
    try:
        properties = _main_properties(file)
        shapes = [struct.unpack_from(">II", content) for kind, content in properties if kind == b"pasp"]
        sizes = [struct.unpack_from(">4xII", content) for kind, content in properties if kind == b"ispe"]
    except (struct.error, IndexError):
        return
    yield from (f"the shape of the pixels ({width}:{height})" for width, height in shapes if width != height)
    is_turned = any(kind == b"imir" or (kind == b"irot" and content[0] & 3) for kind, content in properties)
    if (
        is_turned
        and any(width % 2 or height % 2 for width, height in sizes)
        and max(read_coding(file).chroma_steps) > 1
    ):
        # libheif turns chroma of half resolution after it has interpolated it, with wrong first and last samples.
        yield "exact colors of the outermost pixels (a turned picture with an odd side)"


def _main_properties(file: IO[bytes], number: int | None = None) -> list[tuple[bytes, bytes]]:
    """(type, content) of each property of the main picture, or of the item of a number."""
    main, links = find_box(file, b"meta", b"pitm"), find_box(file, b"meta", b"iprp", b"ipma")
    store = find_box(file, b"meta", b"iprp", b"ipco")
    if store is None or links is None:
        return []
    properties = [(box.kind, box.read(file)) for box in iterate_boxes(file, store.start, store.stop)]
    if number is None:
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
