"""What the samples of a TIFF page mean, by its own tags: colors, alpha, other channels, their bits, and white."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import numpy as np

from pellucid.errors import PictureError
from pellucid.pictures.picture import Encoding
from pellucid.pictures.records import descriptions
from pellucid.pictures.samples import Samples
from pellucid.pictures.tiff import directories
from pellucid.pictures.tiff.channels import ASSOCIATED, UNASSOCIATED, find_alpha
from pellucid.pictures.tiff.directories import Directory, Page
from pellucid.system.wording import format_count

WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
_NUM_COLORS = {WHITE_IS_0: 1, BLACK_IS_0: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
_OTHER_COLORS = {
    4: "a mask", 8: "CIELab colors", 9: "ICCLab colors", 10: "ITULab colors", 32803: "a camera mosaic",
    32844: "LogL light values", 32845: "LogLuv colors", 34892: "linear camera RAW",
}  # fmt: skip

NONE, JPEG = 1, 7
_COMPRESSIONS = {NONE: "none", 5: "lzw", JPEG: "jpeg", 8: "deflate", 32946: "deflate", 32773: "packbits"}
_WITHOUT_PREDICTOR = (NONE, JPEG, 32773)
_MAX_CHANNELS = 65535
# libvips fails, or decodes nothing and reports no error.
_OTHER_COMPRESSIONS = {
    6: "old-style JPEG", 34661: "JBIG", 34676: "SGI Log", 34677: "SGI Log", 34712: "JPEG 2000", 33003: "JPEG 2000",
    33005: "JPEG 2000", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL", 34892: "lossy JPEG",
    34925: "LZMA", 50000: "Zstandard", 34933: "PNG", 34934: "JPEG XR", 22610: "JPEG XR",
}  # fmt: skip

UNSIGNED, SIGNED, FLOAT, _UNDEFINED = 1, 2, 3, 4
_OTHER_TYPES = {SIGNED: "signed integer", 5: "complex integer", 6: "complex floating-point"}


@dataclass(frozen=True)
class TiffSamples:
    """How the samples of a page are stored.

    num_channels: colors and all others. color: PhotometricInterpretation. bits: per sample.
    kind: SampleFormat, UNSIGNED or FLOAT.
    """

    page: Page
    num_channels: int
    color: int
    compression: int
    bits: int
    kind: int

    @property
    def directory(self) -> Directory:
        """The tags of the page."""
        return self.page.directory

    @property
    def is_float(self) -> bool:
        """Whether the samples are floating-point numbers."""
        return self.kind == FLOAT

    @property
    def is_planar(self) -> bool:
        """Whether the channels are stored one after the other."""
        return self.num_channels > 1 and self.directory.number(directories.PLANAR, 1) == 2

    @property
    def has_predictor(self) -> bool:
        """Whether differences of samples are stored."""
        return self.directory.number(directories.PREDICTOR, 1) != 1

    @property
    def num_stored_colors(self) -> int:
        """1 for gray and palettes, 3, or 4 for CMYK."""
        return _NUM_COLORS[self.color]

    @property
    def num_colors(self) -> int:
        """The same after looking up the palette."""
        return 3 if self.color == PALETTE else self.num_stored_colors

    @cached_property
    def extra_samples(self) -> tuple[int, ...]:
        """What each of the channels after the colors is: unspecified (0) unless the file says that it is alpha."""
        found = [int(kind) for kind in self.directory.numbers(directories.EXTRA_SAMPLES)]
        known = {ASSOCIATED: ASSOCIATED, UNASSOCIATED: UNASSOCIATED, 999: UNASSOCIATED}  # 999 is an older code
        count = self.num_channels - self.num_stored_colors
        return tuple(known.get(kind, 0) for kind in [*found, *[0] * count][:count])

    @property
    def alpha_index(self) -> int | None:
        """Which of the channels after the colors is alpha; None if there is none."""
        return find_alpha(self.extra_samples)

    @property
    def is_associated(self) -> bool:
        """Whether colors are multiplied by alpha."""
        index = self.alpha_index
        return index is not None and self.extra_samples[index] == ASSOCIATED

    @property
    def orientation(self) -> int:
        """0 if the file specifies none, or one that does not exist."""
        found = self.directory.number(directories.ORIENTATION, 0)
        return found if 1 <= found <= 8 else 0

    @cached_property
    def palette(self) -> Samples | None:
        """(number of colors, 3), of 8 bits, or of 16 if 8 are not enough; None if there is none."""
        return _parse_palette(self.directory, self.bits) if self.color == PALETTE else None

    @property
    def dtype(self) -> str:
        """Type of the samples of a `Picture` from this page."""
        return self.encoding.dtype if self.palette is None else self.palette.dtype.name

    @cached_property
    def white(self) -> tuple[float | None, str]:
        """(white, what specifies it: a tag or OME-XML); (None, "") if it is that of the type."""
        if self.color in (PALETTE, CMYK):
            return None, ""
        for tag, name in (
            (directories.LARGEST_SAMPLE, "SMaxSampleValue"),
            (directories.MAX_SAMPLE, "MaxSampleValue"),
        ):
            values = [value for value in self.directory.numbers(tag)[: self.num_colors] if isfinite(value)]
            white = max(values, default=0.0)
            # A floating-point maximum below 1 is that of the samples, and white is 1 by convention.
            if white > 1 if self.is_float else 0 < white < 2**self.bits - 1:
                return white, name
        significant = descriptions.find_significant_bits(self.page.of_file)
        if not self.is_float and 0 < significant < self.bits:
            return 2.0**significant - 1, "SignificantBits of OME"
        return None, ""

    @property
    def encoding(self) -> Encoding:
        """How the page is stored; white is still in units of the file."""
        compression = _COMPRESSIONS.get(self.compression)
        return Encoding(
            "TIFF",
            32 if self.is_float else self.bits,
            palette=self.color == PALETTE,
            compression=compression,
            lossless=compression != "jpeg",
            white=self.white[0],
            extra_samples=self.extra_samples,
            notes=tuple(self._describe()),
        )

    def _describe(self) -> Iterator[str]:
        """What the user should know about the samples."""
        if self.is_float and self.bits != 32:
            yield f"{self.bits}-bit floating-point samples become 32-bit"
        if any(self.directory.numbers(directories.MIN_SAMPLE)):
            yield "MinSampleValue is not kept: black is 0"
        if no_data := self.directory.text(GDAL_NODATA).strip("\0 "):
            yield f"pixels without data ({no_data[:20]}, says GDAL_NODATA) are restored like the others"
        count = len(self.extra_samples) - (self.alpha_index is not None)
        if count:
            channels = "1 channel that is" if count == 1 else f"{count} channels that are"
            yield f"{channels} neither color nor alpha: kept, but not restored"


GDAL_NODATA = 42113
"""The value of pixels that contain no data, as a text; GeoTIFF files of GDAL have it."""

_DOT_RANGE = 336
"""The values of no ink and of full ink, for each channel or for all."""


def parse(page: Page) -> TiffSamples:
    """How a page stores its samples. Raises PictureError, which names what was found, if it is not supported."""
    directory = page.directory
    num_channels = directory.number(directories.SAMPLES_PER_PIXEL, 1)
    color = directory.number(directories.PHOTOMETRIC, RGB if num_channels > 2 else BLACK_IS_0)
    compression = directory.number(directories.COMPRESSION, 1)
    bits, kind = _parse_type(directory)
    stored = TiffSamples(page, num_channels, color, compression, bits, kind)
    _check_color(stored)
    _check_compression(stored)
    _check_type(stored)
    _check_size(stored)
    return stored


def _parse_type(directory: Directory) -> tuple[int, int]:
    """(bits, format) of all samples. Raises PictureError if they differ."""
    all_bits = {int(bits) for bits in directory.numbers(directories.BITS)} or {1}
    kinds = {int(kind) for kind in directory.numbers(directories.SAMPLE_FORMAT)} or {UNSIGNED}
    if len(all_bits) > 1 or len(kinds) > 1:
        what = f"{', '.join(map(str, sorted(all_bits)))} bits" if len(all_bits) > 1 else "different types"
        raise PictureError(f"{directory.path} has samples of {what}; all must be of the same type")
    kind = kinds.pop()
    return all_bits.pop(), UNSIGNED if kind == _UNDEFINED else kind


def _check_color(stored: TiffSamples) -> None:
    path, color, num_channels = stored.page.path, stored.color, stored.num_channels
    if color not in _NUM_COLORS or (color == YCBCR and stored.compression != JPEG):
        found = _OTHER_COLORS.get(color, f"colors of type {color}")
        found = "YCbCr colors without JPEG compression" if color == YCBCR else found
        raise PictureError(
            f"{path} contains {found}; gray, RGB, palette or CMYK is needed", hint="convert it to RGB first"
        )
    if num_channels > _MAX_CHANNELS:
        raise PictureError(f"{path} has {num_channels} channels; at most {_MAX_CHANNELS} are possible")
    if num_channels < stored.num_stored_colors:
        raise PictureError(
            f"{path} has {format_count(num_channels, 'channel')}; its colors need {stored.num_stored_colors}"
        )
    if color == CMYK and stored.directory.number(directories.INK_SET, 1) != 1:
        raise PictureError(
            f"{path} contains {num_channels} inks that are not CMYK", hint="convert it to RGB first"
        )
    dots = stored.directory.numbers(_DOT_RANGE)
    if color == CMYK and any(none > full for none, full in zip(dots[::2], dots[1::2], strict=False)):
        raise PictureError(f"{path} contains inverted CMYK (DotRange)", hint="convert it to RGB first")
    if color == PALETTE and num_channels > 1:
        raise PictureError(f"{path} has a palette and {num_channels - 1} more channels, which is not supported")


def _check_compression(stored: TiffSamples) -> None:
    path = stored.page.path
    if stored.compression in _OTHER_COMPRESSIONS:
        raise PictureError(
            f"{path} is compressed by {_OTHER_COMPRESSIONS[stored.compression]}, which is not supported in TIFF",
            hint="save it with LZW or deflate",
        )
    if stored.has_predictor and stored.compression in _WITHOUT_PREDICTOR:
        raise PictureError(
            f"{path} has a predictor with a compression that has none, so that programs read different samples",
            hint="save it with LZW or deflate",
        )


def _check_type(stored: TiffSamples) -> None:
    bits, kind = stored.bits, stored.kind
    if stored.is_float and stored.color == CMYK:
        raise PictureError(
            f"{stored.page.path} contains floating-point CMYK, which is not supported",
            hint="convert it to RGB, or to 8-bit or 16-bit CMYK first",
        )
    if (kind == UNSIGNED and 1 <= bits <= 16) or (kind == FLOAT and bits in (16, 32, 64)):
        return
    name = _OTHER_TYPES.get(kind, "floating-point" if kind == FLOAT else "integer")
    raise PictureError(
        f"{stored.page.path} has {bits}-bit {name} samples; unsigned integers of up to 16 bits or floating-point "
        f"samples are needed",
        hint="convert it to 16-bit or 32-bit floating-point TIFF",
    )


def _check_size(stored: TiffSamples) -> None:
    """Raise PictureError if samples are missing, as far as that is known before decoding."""
    path, (width, height) = stored.page.path, stored.directory.size
    if width < 1 or height < 1:
        raise directories.damaged(path, f"its size is {width} x {height}")
    num_channels, num_planes = (1, stored.num_channels) if stored.is_planar else (stored.num_channels, 1)
    needed = height * num_planes * -(-width * num_channels * stored.bits // 8)
    if stored.compression == NONE and stored.page.shift + needed > path.stat().st_size:
        raise directories.damaged(path, f"it is truncated: its samples need {needed} bytes")


def _parse_palette(directory: Directory, bits: int) -> Samples:
    """(2**bits, 3) colors of 8 bits, or of 16 if 8 are not enough."""
    colors = np.array(directory.numbers(directories.COLOR_MAP), np.uint16)
    if len(colors) != 3 * 2**bits:
        raise PictureError(
            f"{directory.path} has a palette of {format_count(len(colors), 'value')}; {3 * 2**bits} are needed"
        )
    colors = colors.reshape(3, -1).T
    high, low = colors >> 8, colors & 255
    if not high.any():  # some programs write 8-bit values
        return np.ascontiguousarray(low.astype(np.uint8))
    fits_8_bits = not low.any() or bool((high == low).all())
    return np.ascontiguousarray(high.astype(np.uint8) if fits_8_bits else colors)
