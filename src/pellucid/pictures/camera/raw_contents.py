"""What a camera RAW file contains and LibRaw ignores: corrections, masks, depth maps and other pictures.

Source: DNG specification 1.7.1: NewSubFileType, and chapter 7.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import IO

from pellucid.pictures.contents.heif import count_frames
from pellucid.pictures.contents.parts import DEPTH_MAP
from pellucid.pictures.structures import ifd
from pellucid.pictures.structures.boxes import iterate_boxes
from pellucid.pictures.structures.ifd import Value

_DNG_VERSION, _SUBFILE_TYPE, _PHOTOMETRIC = 0xC612, 0x00FE, 0x0106
_RAW_PHOTOMETRICS = (32803, 34892)
"""A color filter array, and LinearRaw."""

_PARTS = {
    4: "the mask of transparency",
    8: DEPTH_MAP,
    16: "the enhanced picture (LibRaw develops the original one)",
    0x10004: "masks of parts of the picture",
}
"""Values of NewSubFileType that are neither the picture nor a preview."""

_COMPRESSION, _LOSSY_JPEG = 0x0103, 34892
_OPCODE_LISTS = (0xC740, 0xC741, 0xC74E)
_MAP_POLYNOMIAL = 8
_NAMES = {
    1: "distortion",
    2: "distortion",
    3: "shading",
    4: "bad pixels",
    5: "bad pixels",
    6: "a crop",
    7: "tone curves",
    _MAP_POLYNOMIAL: "tone curves",
    9: "shading",
    **dict.fromkeys(range(10, 14), "differences of rows and columns"),
    14: "distortion",
}
_MAX_OPCODES = 1000


def describe_raw_contents(file: IO[bytes]) -> tuple[str, ...]:
    """What is ignored, one line each. Nothing for damaged files, which decoding reports."""
    try:
        directories = [*ifd.iterate_directories(file)]
        if not directories:
            return tuple(_describe_burst(file))
    except (ValueError, IndexError, struct.error):
        return ()
    return tuple(_describe_dng(directories)) if _DNG_VERSION in directories[0] else ()


def _describe_burst(file: IO[bytes]) -> Iterator[str]:
    """CR3: several exposures are samples of one track."""
    boxes = [*iterate_boxes(file)]
    if boxes and boxes[0].kind == b"ftyp" and (num_frames := count_frames(file, boxes)) > 1:
        yield f"the first of {num_frames} exposures in the file; the others are not kept"


def _describe_dng(directories: Sequence[dict[int, Value]]) -> Iterator[str]:
    types = [ifd.number(tags, _SUBFILE_TYPE) or 0 for tags in directories]
    photometrics = [ifd.number(tags, _PHOTOMETRIC) for tags in directories]
    num_raw = sum(
        kind == 0 and photometric in _RAW_PHOTOMETRICS
        for kind, photometric in zip(types, photometrics, strict=True)
    )
    if num_raw > 1:
        yield f"one of {num_raw} RAW pictures in the file; the others are not kept"
    if names := dict.fromkeys(name for tags in directories for name in _list_corrections(tags)):
        yield f"corrections that the DNG contains are not applied: {', '.join(names)}"
    if parts := [name for kind, name in _PARTS.items() if kind in types]:
        yield f"not kept: {', '.join(parts)}"


def _list_corrections(tags: dict[int, Value]) -> Iterator[str]:
    for tag in _OPCODE_LISTS:
        for number in _parse_list(tags.get(tag, (0, 0, b""))[2]):
            # Only in lossy JPEG, where LibRaw applies it.
            is_applied = number == _MAP_POLYNOMIAL and ifd.number(tags, _COMPRESSION) == _LOSSY_JPEG
            if not is_applied:
                yield _NAMES.get(number, f"opcode {number}")


def _parse_list(content: bytes) -> Iterator[int]:
    """The numbers of opcodes; stops where the list is damaged."""
    offset, count = 4, int.from_bytes(content[:4], "big")
    for _ in range(min(count, _MAX_OPCODES)):
        if offset + 16 > len(content):
            return
        number, _, _, size = struct.unpack_from(">4I", content, offset)
        yield number
        offset += 16 + size
