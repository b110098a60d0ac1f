"""How libvips decodes the samples of a TIFF page.

libvips guesses what channels mean from their number, does not know packed samples of 10 to 14 bits, 64-bit
floating point and palettes of 16-bit colors, and does not report damaged tiles. So it gets a directory (see
`directories.PageFile`) that leaves nothing to guess: channels without a meaning, the bytes of rows where it does
not know the samples, tiles as strips of an image that is as wide as one tile, and channels that are stored one
after the other (of which it mixes up some) as images of their own.
"""

from collections.abc import Sequence

import numpy as np

from pellucid.errors import PictureError
from pellucid.pictures.levels import stretch
from pellucid.pictures.samples import Samples
from pellucid.pictures.tiff import directories
from pellucid.pictures.tiff.interpretation import (
    BLACK_IS_0,
    CMYK,
    NONE,
    PALETTE,
    UNSIGNED,
    WHITE_IS_0,
    YCBCR,
    TiffSamples,
)
from pellucid.system.wording import format_count

Changes = dict[int, Sequence[int] | None]
"""See `directories.PageFile`."""

_DECODING_TAGS = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 338, 339, 347}
_TAGS_OF_COLORS = {PALETTE: {320}, CMYK: {34675}, YCBCR: {512, 513, 514, 519, 520, 521, 529, 530, 531, 532}}
"""What libvips sees, for all colors and for some: a palette, the profile to convert CMYK, the coding of YCbCr.

Other tags, if they are odd, would only make it refuse a file whose samples are intact.
"""

_MAX_TILE_PX = 2**15
"""Longest side of a tile that exceeds the picture."""
_MAX_TILE_PIXELS = 2**24
"""A row of tiles may have so many pixels, whatever the size of the picture."""

_OF_BYTES = {1, 5, 8, 32946, 32773}
"""Compressions of bytes, whatever they mean: none, LZW, deflate, PackBits."""

_LARGE_STRIP_BYTES = 2**22
"""Shorter strips are part of the memory that every picture needs."""


class TiffDecoder:
    """Decodes the samples of a page. Raises PictureError if they are stored in a way that is not supported.

    plane: which channel, if the channels are stored one after the other.
    tile: (width, height) of the tiles, which libvips gets one below the other; None if the page has strips.
    changes: of the directory that libvips gets.
    """

    def __init__(self, stored: TiffSamples, plane: int | None = None) -> None:
        self._stored, self._plane = stored, plane
        self._num_channels = stored.num_channels if plane is None else 1
        self.tile = _find_tile(stored)
        self._gets_bytes = not self._is_known_to_libvips()
        if self._gets_bytes:
            _check_bytes(stored)
        self.changes = self._change_directory() | self._change_places()

    @property
    def working_bytes(self) -> int:
        """Memory that decoding needs: a large compressed strip or tile, and two copies of a row of tiles."""
        stored, (width, _) = self._stored, self._stored.directory.size
        tag = directories.STRIP_LENGTHS if self.tile is None else directories.TILE_LENGTHS
        longest = int(min(max(stored.directory.numbers(tag), default=0), stored.page.path.stat().st_size))
        is_large = longest > _LARGE_STRIP_BYTES and stored.compression != NONE
        tile_width, tile_height = self.tile or (width, 0)
        num_pixels = tile_height * -(-width // tile_width) * tile_width
        return (longest if is_large else 0) + 2 * num_pixels * stored.num_channels * np.dtype(
            stored.dtype
        ).itemsize

    @property
    def is_inverted(self) -> bool:
        """Whether the decoded samples have white at 0. libvips inverts those of less than 8 bits."""
        return self._stored.color == WHITE_IS_0 and (self._stored.bits >= 8 or self._gets_bytes)

    def decode(self, strip: Samples, width: int) -> Samples:
        """Rows as libvips returns them -> (rows, width, channels) of 8 or 16 bits or floating point."""
        stored = self._stored
        if not self._gets_bytes:
            return strip
        if stored.bits in (16, 64):
            numbers = np.ascontiguousarray(strip[..., 0]).view(self._dtype_in_file)
            with np.errstate(over="ignore", invalid="ignore"):  # infinite ones are refused later
                strip = numbers.astype(np.float32 if stored.is_float else np.uint16)
        elif stored.bits != 8:
            strip = _unpack_bits(strip[..., 0], width * self._num_channels, stored.bits)
        strip = strip.reshape(len(strip), width, -1)
        if stored.palette is not None:
            return stored.palette[strip[..., 0]]
        return strip if stored.bits in (8, 16, 64) else stretch(strip, 2**stored.bits - 1)

    @property
    def _dtype_in_file(self) -> str:
        stored = self._stored
        return f"{stored.directory.layout.order}{'f' if stored.is_float else 'u'}{stored.bits // 8}"

    def _change_directory(self) -> Changes:
        stored = self._stored
        seen = _DECODING_TAGS | _TAGS_OF_COLORS.get(stored.color, set())
        changes: Changes = dict.fromkeys(stored.directory.entries.keys() - seen)
        if self._gets_bytes:
            return changes | {
                directories.WIDTH: [self._row_bytes(stored.directory.size[0])],
                directories.BITS: [8],
                directories.SAMPLES_PER_PIXEL: [1],
                directories.SAMPLE_FORMAT: [UNSIGNED],
                directories.PHOTOMETRIC: [BLACK_IS_0],
                directories.EXTRA_SAMPLES: None,
                directories.COLOR_MAP: None,
            }
        others = () if self._plane is not None else stored.extra_samples
        return changes | {
            directories.BITS: [stored.bits] * self._num_channels,
            directories.SAMPLES_PER_PIXEL: [self._num_channels],
            directories.SAMPLE_FORMAT: [stored.kind] * self._num_channels,
            directories.PHOTOMETRIC: [BLACK_IS_0 if self.is_inverted or self._plane is not None else stored.color],
            directories.EXTRA_SAMPLES: [0] * len(others) or None,
        }

    def _change_places(self) -> Changes:
        """Tiles as strips of an image that is as wide as one tile, and one plane as an image of its own."""
        if self.tile is None:
            lengths = self._places(directories.STRIP_LENGTHS) or self._compute_strip_lengths()
            changes: Changes = {directories.STRIP_LENGTHS: lengths}
            if self._plane is not None:
                changes |= {
                    directories.PLANAR: [1],
                    directories.STRIP_OFFSETS: self._places(directories.STRIP_OFFSETS),
                }
            return changes
        (width, height), (tile_width, tile_height) = self._stored.directory.size, self.tile
        num_tiles = -(-width // tile_width) * -(-height // tile_height)
        return {
            directories.PLANAR: [2 if self._stored.is_planar and self._plane is None else 1],
            directories.WIDTH: [self._row_bytes(tile_width) if self._gets_bytes else tile_width],
            directories.HEIGHT: [tile_height * num_tiles],
            directories.ROWS_PER_STRIP: [tile_height],
            directories.STRIP_OFFSETS: self._places(directories.TILE_OFFSETS),
            directories.STRIP_LENGTHS: self._places(directories.TILE_LENGTHS),
        }

    def _places(self, tag: int) -> list[int]:
        """Offsets or lengths of the strips or tiles, those of the plane if there is one."""
        found = [int(place) for place in self._stored.directory.numbers(tag)]
        if self._plane is None:
            return found
        count = len(found) // self._stored.num_channels
        return found[self._plane * count : (self._plane + 1) * count]

    def _compute_strip_lengths(self) -> list[int]:
        """Bytes of each strip, which old programs do not state. Raises PictureError if they are compressed."""
        stored, (width, height) = self._stored, self._stored.directory.size
        if stored.compression != NONE:
            raise directories.damaged(stored.page.path, "the lengths of its strips (StripByteCounts) are missing")
        num_rows, row_bytes = _find_strip_height(stored), self._row_bytes(width)
        return [row_bytes * min(num_rows, height - top) for top in range(0, height, num_rows)]

    def _row_bytes(self, width: int) -> int:
        return -(-width * self._num_channels * self._stored.bits // 8)

    def _is_known_to_libvips(self) -> bool:
        stored = self._stored
        if stored.color == PALETTE:
            return False
        if stored.is_float:
            return stored.bits in (16, 32)
        return stored.bits in ((8, 16) if self._num_channels > 1 else (1, 2, 4, 8, 16))


def _check_bytes(stored: TiffSamples) -> None:
    is_differenced = stored.has_predictor and stored.bits != 8
    if is_differenced or stored.compression not in _OF_BYTES:
        raise PictureError(
            f"{stored.page.path} has samples of {stored.bits} bits, compressed in a way that is not supported",
            hint="save it as 16-bit TIFF",
        )


def _find_strip_height(stored: TiffSamples) -> int:
    """Rows of each strip but the last one: all, unless the file says otherwise."""
    height = stored.directory.size[1]
    return min(max(0, stored.directory.number(directories.ROWS_PER_STRIP, height)), height) or height


def find_strip_damage(stored: TiffSamples) -> str:
    """What is wrong with the strips of a page that cannot be decoded; "" if they are as they should be."""
    if directories.TILE_OFFSETS in stored.directory.entries:
        return ""
    width, height = stored.directory.size
    num_planes = stored.num_channels if stored.is_planar else 1
    num_strips = num_planes * -(-height // _find_strip_height(stored))
    places = [stored.directory.numbers(tag) for tag in (directories.STRIP_OFFSETS, directories.STRIP_LENGTHS)]
    num_found = min(map(len, places))
    if num_found < num_strips:
        return f"it has {num_found} strips of {num_strips}"
    offsets, lengths = (map(int, values[:num_strips]) for values in places)
    ends = [offset + length for offset, length in zip(offsets, lengths, strict=True)]
    if max(ends) > stored.page.path.stat().st_size:
        return f"a strip ends at byte {max(ends):,}, after the end of the file"
    num_bytes = sum(map(int, places[1][:num_strips]))
    needed = num_planes * height * -(-width * stored.num_channels // num_planes * stored.bits // 8)
    if stored.compression == NONE and num_bytes < needed:
        return f"its strips have {format_count(num_bytes, 'byte')}; its samples need {needed:,}"
    return ""


def _find_tile(stored: TiffSamples) -> tuple[int, int] | None:
    """(width, height) of the tiles; None if there are strips. Raises PictureError if tiles are missing."""
    directory = stored.directory
    if directories.TILE_OFFSETS not in directory.entries:
        return None
    tile_width, tile_height = (
        directory.number(directories.TILE_WIDTH, 0),
        directory.number(directories.TILE_HEIGHT, 0),
    )
    width, height = directory.size
    is_valid = tile_width > 0 and tile_height > 0
    num_tiles = -(-width // tile_width) * -(-height // tile_height) if is_valid else 0
    num_tiles *= stored.num_channels if stored.is_planar else 1
    num_found = min(len(directory.numbers(tag)) for tag in (directories.TILE_OFFSETS, directories.TILE_LENGTHS))
    # Tiles may be larger than the picture, but a damaged number must not fill the memory, or hours.
    is_large = tile_width > max(_MAX_TILE_PX, width + 16) or tile_height > max(_MAX_TILE_PX, height + 16)
    num_pixels = tile_height * -(-width // tile_width) * tile_width if is_valid else 0
    if is_large or num_pixels > max(_MAX_TILE_PIXELS, 4 * width * height):
        raise PictureError(
            f"{directory.path} is a damaged TIFF: tiles of {tile_width} x {tile_height} px for a picture of "
            f"{width} x {height} px"
        )
    if not is_valid or num_found < num_tiles:
        raise PictureError(
            f"{directory.path} is a damaged TIFF: it has {num_found} of {format_count(num_tiles, 'tile')}"
        )
    return tile_width, tile_height


def _unpack_bits(rows: Samples, num_samples: int, bits: int) -> Samples:
    """(rows, bytes) -> (rows, samples); the first sample is in the highest bits."""
    ones = np.unpackbits(rows, axis=1)[:, : num_samples * bits].reshape(len(rows), num_samples, bits)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
    return (ones.astype(np.uint16) * weights).sum(axis=2, dtype=np.uint16)


def list_decoders(stored: TiffSamples) -> list[TiffDecoder]:
    """One for all channels, or one for each of those that are stored one after the other."""
    if not stored.is_planar or stored.color == CMYK:  # CMYK is converted as a whole
        return [TiffDecoder(stored)]
    return [TiffDecoder(stored, plane) for plane in range(stored.num_channels)]
