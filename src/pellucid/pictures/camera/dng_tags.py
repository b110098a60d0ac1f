"""Tags of DNG files that are true for all of their samples, so that another DNG with these samples needs them too.

Source: Adobe, "Digital Negative Specification" 1.7.1 (2023).
"""

import struct
from collections.abc import Mapping
from typing import IO

from pellucid.pictures.picture import NoiseLevel
from pellucid.pictures.structures import ifd
from pellucid.pictures.structures.ifd import Value

COLOR_MATRIX = 0xC621

_DNG_VERSION, _SUBFILE_TYPE, _PHOTOMETRIC, _COLOR_FILTERS = 0xC612, 0x00FE, 0x0106, 32803
_WIDTH, _HEIGHT, _ACTIVE_AREA, _NOISE_PROFILE = 0x0100, 0x0101, 0xC68D, 0xC761

_OF_COLORS = frozenset(
    {0xC614, 0xC615, *range(0xC621, 0xC62D), 0xC62E, 0xC62F, 0xC630, 0xC633, 0xC635, 0xC65A, 0xC65B, 0xC68B}
    # models, matrices, balance, exposure, noise, sharpness, limits, serial number, lens, illuminants, first name
    | {0xC6F3, 0xC6F4, *range(0xC6F6, 0xC6FF), 0xC714, 0xC715, 0xC725, 0xC726}
    # signatures, profile with its tables, forward matrices
    | {0xC763, 0xC764, 0xC772, 0xC789, 0xC7A1, 0xC7A3, 0xC7A4, 0xC7A5, 0xC7A6}
    # film, encodings of the tables, exposure offset, black rendering
    | set(range(0xCD31, 0xCD38))  # the third illuminant
)
"""Tags of the main directory about the camera and its colors."""

_OF_MOSAIC = frozenset({0xC61E, 0xC62D, 0xC631, 0xC632, 0xC65C, 0xC741, 0xC74E})
"""Tags of the mosaic's directory: scales, differences of greens, filters; and corrections, whose places are
relative to the active area."""

_OF_CROP = frozenset({0xC61F, 0xC620, 0xC7B5})
"""Tags of the mosaic's directory: parts of the active area."""


def read(file: IO[bytes], width: int, height: int) -> tuple[dict[int, Value], NoiseLevel | None, tuple[str, ...]]:
    """(tags, noise of the samples, what is not kept) of a DNG; nothing of other and damaged files.

    width, height: of the samples that are kept, which should be those of the active area.
    """
    try:
        directories = [*ifd.iterate_directories(file)]
    except (ValueError, IndexError, struct.error):
        return {}, None, ()
    mosaics = [tags for tags in directories if _is_mosaic(tags)]
    if not mosaics or _DNG_VERSION not in directories[0]:
        return {}, None, ()
    main, mosaic, wanted, lost = directories[0], mosaics[0], _OF_MOSAIC, tuple[str, ...]()
    if _find_active_size(mosaic) == (width, height):
        wanted |= _OF_CROP
    elif _OF_CROP & mosaic.keys():
        lost = ("the default crop",)
    found = {tag: value for tag, value in main.items() if tag in _OF_COLORS}
    found |= {tag: value for tag, value in mosaic.items() if tag in wanted}
    return found, _read_noise(main.get(_NOISE_PROFILE) or mosaic.get(_NOISE_PROFILE)), lost


def _is_mosaic(tags: Mapping[int, Value]) -> bool:
    kind = ifd.number(dict(tags), _SUBFILE_TYPE)
    return kind in (None, 0) and ifd.number(dict(tags), _PHOTOMETRIC) == _COLOR_FILTERS


def _find_active_size(tags: dict[int, Value]) -> tuple[int, int] | None:
    """Width and height of the part of the sensor that sees the picture."""
    area = ifd.numbers(tags, _ACTIVE_AREA)
    if len(area) == 4:
        top, left, bottom, right = area
        return right - left, bottom - top
    width, height = (ifd.number(tags, tag) for tag in (_WIDTH, _HEIGHT))
    return None if width is None or height is None else (width, height)


def _read_noise(value: Value | None) -> NoiseLevel | None:
    """The mean of all colors; None if it is missing or impossible."""
    content = b"" if value is None else value[2]
    if not content or len(content) % 16:
        return None
    numbers = struct.unpack(f"<{len(content) // 8}d", content)
    shot, read = (sum(numbers[start::2]) / (len(numbers) // 2) for start in (0, 1))
    is_possible = 0 < shot < 1 and 0 <= read < 1
    return NoiseLevel(shot, read) if is_possible else None
