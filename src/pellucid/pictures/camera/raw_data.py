"""Whether the samples of a camera RAW file are complete, which LibRaw does not report for most of them.

LibRaw decodes what it finds and leaves the rest black or random. This checks, without decoding: that all parts
that a file announces are in it, and that compressed parts of DNG and CR2 files end where they must.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import IO

from pellucid.errors import PictureError
from pellucid.pictures import vips
from pellucid.pictures.camera import lossless_jpeg
from pellucid.pictures.structures import ifd
from pellucid.pictures.structures.ifd import Value
from pellucid.pictures.vips import pyvips
from pellucid.system.signals import defer_sigint
from pellucid.system.wording import format_count

_COLOR_FILTERS, _LINEAR_RAW = 32803, 34892  # values of PhotometricInterpretation
_NONE, _JPEG, _DEFLATE, _LOSSY_JPEG = 1, 7, 8, 34892  # values of Compression
_MAKERS_COMPRESSIONS = {32767, 32769, 32770, 34316, 34713, 65000, 65535}
_REDUCED = 1  # a bit of NewSubfileType

_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 0x00FE, 0x0100, 0x0101, 0x0102, 0x0103, 0x0106
_SAMPLES_PER_PIXEL, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT = 0x0115, 0x0116, 0x0142, 0x0143
_MAKE, _MODEL, _DNG_VERSION = 0x010F, 0x0110, 0xC612
_PARTS = ((0x0111, 0x0117), (0x0144, 0x0145))
"""Tags of the offsets and lengths of strips, and of tiles."""

_SAMPLE_FORMAT, _WHITE_LEVEL, _FLOAT, _FLOATS = 0x0153, 0xC61D, 3, (11, 12)
_DNG_1_1 = bytes([1, 1])

_PANASONIC_OFFSET = 0x0118

_CR2_MAGIC = b"CR"
_CR2_DIRECTORY = 3
"""Canon puts the mosaic into the fourth directory, whose tags do not say what it is."""

_UNRELIABLE = ("Kodak", "EASTMAN", "DSLR-A100")
"""Makers and models whose lengths are not those of the data."""

_RAF_PLACES = (84, 92, 100)
"""Offsets of (offset, length) of the preview, the header of the mosaic, and the mosaic."""


@dataclass(frozen=True)
class _Part:
    """A strip or tile. num_samples: at least so many are needed, of so many bits each; 0 if it is not known."""

    offset: int
    length: int
    num_samples: int = 0
    bits: int = 0


def check_complete(path: Path) -> None:
    """Raise PictureError if LibRaw would decode only a part of the samples. Files of unknown structure pass."""
    with path.open("rb") as file:
        try:
            _find_check(file.read(16))(file, path.stat().st_size)
        except PictureError as error:
            raise error.about(path) from error
        except ValueError as error:
            raise PictureError(
                f"{path} is damaged or truncated ({error})", hint="copy it from the camera again"
            ) from error


def _find_check(head: bytes) -> Callable[[IO[bytes], int], None]:
    if head[4:8] == b"ftyp":
        return _check_boxes
    if head.startswith(b"FUJIFILMCCD-RAW"):
        return _check_fuji
    if head[:2] in (b"II", b"MM") and head[6:10] != b"HEAP":
        return _check_cr2 if head[8:10] == _CR2_MAGIC else _check_tiff
    return lambda file, size: None


def _check_boxes(file: IO[bytes], size: int) -> None:
    """CR3: a sequence of boxes; the last one contains the samples."""
    offset = 0
    while offset < size:
        file.seek(offset)
        length, _, long_length = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        length = {0: size - offset, 1: long_length}.get(length, length)
        if length < 8:
            raise ValueError("a box of impossible length")
        _check_place(offset, length, size)
        offset += length


def _check_fuji(file: IO[bytes], size: int) -> None:
    for place in _RAF_PLACES:
        file.seek(place)
        offset, length = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
        _check_place(offset, length, size)


def _check_cr2(file: IO[bytes], size: int) -> None:
    directories = list(ifd.iterate_directories(file))
    if len(directories) <= _CR2_DIRECTORY:
        raise ValueError("the directory of the samples is missing")
    for part in _list_parts(directories[_CR2_DIRECTORY]):
        _check_jpeg(_read(file, part, size), part)


def _check_tiff(file: IO[bytes], size: int) -> None:
    directories = list(ifd.iterate_directories(file))
    first = directories[0] if directories else {}
    if any(name in _text(first, _MAKE) + _text(first, _MODEL) for name in _UNRELIABLE):
        return
    for tags in directories:
        is_dng = _DNG_VERSION in first
        if not _is_mosaic(tags, is_dng=is_dng):
            continue
        compression = ifd.number(tags, _COMPRESSION) or 1
        parts = _list_parts(tags)
        if is_dng:
            _check_layout(parts, compression, has_tiles=_TILE_WIDTH in tags)
            _check_numbers(tags, compression)
        for part in parts:
            if is_dng:
                _check_dng_part(file, part, size, compression, is_old=first[_DNG_VERSION][2] < _DNG_1_1)
            else:
                _check_place(part.offset, part.length, size)


def _is_mosaic(tags: dict[int, Value], *, is_dng: bool) -> bool:
    """Whether a directory describes the samples of the sensor, not a preview."""
    photometric = ifd.number(tags, _PHOTOMETRIC)
    if is_dng:
        is_reduced = (ifd.number(tags, _SUBFILE_TYPE) or 0) & _REDUCED
        return photometric in (_COLOR_FILTERS, _LINEAR_RAW) and not is_reduced
    return (
        photometric == _COLOR_FILTERS
        or _PANASONIC_OFFSET in tags
        or ifd.number(tags, _COMPRESSION) in _MAKERS_COMPRESSIONS
    )


def _list_parts(tags: dict[int, Value]) -> list[_Part]:
    """The strips or tiles of a directory; none if the numbers of offsets and lengths differ."""
    offsets, lengths = next(
        ((ifd.numbers(tags, place), ifd.numbers(tags, length)) for place, length in _PARTS if place in tags),
        ([], []),
    )
    if _PANASONIC_OFFSET in tags:
        offsets = ifd.numbers(tags, _PANASONIC_OFFSET)
    if len(offsets) != len(lengths):
        return []
    bits = ifd.number(tags, _BITS) or 1
    counts = chain(_count_samples(tags), repeat(0))
    return [_Part(*part, bits) for part in zip(offsets, lengths, counts, strict=False)]


def _count_samples(tags: dict[int, Value]) -> Iterator[int]:
    """The samples of each strip or tile that are inside of the picture."""
    width, height = ifd.number(tags, _WIDTH) or 0, ifd.number(tags, _HEIGHT) or 0
    part_width = ifd.number(tags, _TILE_WIDTH) or width
    part_height = ifd.number(tags, _TILE_HEIGHT) or min(ifd.number(tags, _ROWS_PER_STRIP) or height, height)
    if not (part_width and part_height) or width * height > part_width * part_height * 2**20:
        return
    channels = ifd.number(tags, _SAMPLES_PER_PIXEL) or 1
    for top in range(0, height, part_height):
        for left in range(0, width, part_width):
            yield min(part_width, width - left) * min(part_height, height - top) * channels


def _check_layout(parts: list[_Part], compression: int, *, has_tiles: bool) -> None:
    """Raise PictureError for strips that the standard allows, but of which LibRaw reads only the first."""
    if not parts:
        raise ValueError("no offsets of samples")
    is_contiguous = all(part.offset + part.length == after.offset for part, after in pairwise(parts))
    if has_tiles or compression == _DEFLATE or len(parts) == 1 or (compression == _NONE and is_contiguous):
        return
    raise PictureError(
        f"its samples are in {len(parts)} separate strips, which LibRaw does not read correctly",
        hint="convert it to a DNG with tiles, e.g. with Adobe's DNG Converter",
    )


def _check_numbers(tags: dict[int, Value], compression: int) -> None:
    """Raise PictureError for floating-point samples and levels that LibRaw reads as 0."""
    bits = ifd.number(tags, _BITS)
    if ifd.number(tags, _SAMPLE_FORMAT) != _FLOAT:
        return
    if compression == _NONE and bits != 32:
        raise PictureError(
            f"its samples are {bits}-bit floating-point without compression, which LibRaw does not read correctly",
            hint="convert it to a compressed DNG, e.g. with Adobe's DNG Converter",
        )
    if tags.get(_WHITE_LEVEL, (0,))[0] in _FLOATS:
        raise PictureError(
            "its level of white is a floating-point number, which DNG does not allow and LibRaw does not read",
            hint="convert it, e.g. with Adobe's DNG Converter",
        )


def _check_dng_part(file: IO[bytes], part: _Part, size: int, compression: int, *, is_old: bool) -> None:
    if compression == _DEFLATE:
        _check_deflate(_read(file, part, size))
    elif compression in (_JPEG, _LOSSY_JPEG):
        _check_jpeg(_read(file, part, size), part, bits_after_16=16 if is_old else 0)
    else:
        needed = part.num_samples * part.bits // 8 if compression == _NONE else 0
        _check_place(part.offset, max(part.length, needed), size)
        if part.offset == 0:
            raise ValueError("a part without samples")


def _check_place(offset: int, length: int, size: int) -> None:
    if offset + length > size:
        raise ValueError(f"samples up to byte {offset + length:,}, but the file has {size:,} bytes")


def _read(file: IO[bytes], part: _Part, size: int) -> bytes:
    _check_place(part.offset, part.length, size)
    file.seek(part.offset)
    return file.read(part.length)


def _check_jpeg(stream: bytes, part: _Part, *, bits_after_16: int = 0) -> None:
    header = lossless_jpeg.parse_markers(stream, bits_after_16=bits_after_16)
    if not header.is_lossless:
        _check_lossy_jpeg(stream)
        return
    if header.num_values < part.num_samples:
        raise ValueError(f"{format_count(header.num_values, 'sample')} in a part of {part.num_samples}")
    lossless_jpeg.check_values(stream, header)


def _check_lossy_jpeg(stream: bytes) -> None:
    vips.begin(PictureError)
    try:
        with defer_sigint():
            # The strictest: what is missing is only a warning of its decoder.
            pyvips.Image.jpegload_buffer(stream, access="sequential", fail_on="warning").avg()
    except pyvips.Error as error:
        raise ValueError(vips.reason(error) or str(error.message)) from error


def _check_deflate(stream: bytes) -> None:
    decoder = zlib.decompressobj()
    try:
        while stream and not decoder.eof:
            decoder.decompress(stream, 2**20)
            stream = decoder.unconsumed_tail
    except zlib.error as error:
        raise ValueError("damaged deflate data") from error
    if not decoder.eof:
        raise ValueError("deflate data that is cut short")


def _text(tags: dict[int, Value], tag: int) -> str:
    return tags.get(tag, (0, 0, b""))[2].decode("latin-1")
