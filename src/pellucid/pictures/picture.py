"""Pictures as their files hold them, and camera mosaics as the sensor read them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import PictureError
from pellucid.system import memory

Samples = NDArray[Any]

PEAKS: dict[str, float] = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""The value of white, by the dtype of the samples."""


@dataclass(frozen=True)
class Encoding:
    """How a file held its picture: what is needed to write a result in the same way.

    format: PNG, JPEG, TIFF, WebP, AVIF or BMP.
    bits: of one sample as it was stored, 1 to 32; a `Picture` holds 8, 16 or 32.
    palette: the samples were places in a list of colors.
    quality: of a JPEG, as the encoder of the Independent JPEG Group counts it: 1 to 100.
    subsampling: of a JPEG's color, as "4:2:0".
    compression: of a TIFF: none, lzw, deflate, packbits, zstd or jpeg; None where it is another one.
    lossless: no sample was changed to make the file smaller.
    progressive: in several passes over the whole picture, which takes the whole in memory to decode.
    notes: what else is worth telling people, a line each.
    """

    format: str
    bits: int = 8
    palette: bool = False
    quality: int | None = None
    subsampling: str | None = None
    compression: str | None = None
    lossless: bool = True
    progressive: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Picture:
    """One picture at its file's own depth.

    samples: (H, W, 1) gray or (H, W, 3) RGB; uint8, uint16, or float32 nominally in [0, 1].
    alpha: (H, W, 1) of the same dtype, or None. It is not restored, only enlarged where the picture is.
    metadata: what else the file carries (ICC profile, EXIF, XMP, ...), by libvips field name.
    encoding: how its file held it; None for a picture that came from no file.
    """

    samples: Samples
    alpha: Samples | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    encoding: Encoding | None = None

    def __post_init__(self) -> None:
        shape, dtype = self.samples.shape, self.samples.dtype
        if len(shape) != 3 or shape[2] not in (1, 3):
            raise PictureError(f"samples of shape {shape}; a picture is (H, W, 1) gray or (H, W, 3) RGB")
        if shape[0] == 0 or shape[1] == 0:
            raise PictureError(f"a picture of {shape[1]} x {shape[0]} px; at least 1 x 1 is needed")
        if dtype.name not in PEAKS:
            raise PictureError(f"samples of type {dtype}; a picture holds {', '.join(PEAKS)}")
        if self.alpha is not None and (self.alpha.shape != (*shape[:2], 1) or self.alpha.dtype != dtype):
            raise PictureError(
                f"alpha of {self.alpha.dtype} {self.alpha.shape} for samples of {dtype} {shape}; "
                f"alpha is (H, W, 1) of the samples' type"
            )

    def __repr__(self) -> str:
        colors = "gray" if self.channels == 1 else "RGB"
        alpha = "" if self.alpha is None else ", alpha"
        return f"<Picture {self.width} x {self.height} px, {colors}, {self.dtype}{alpha}>"

    @property
    def height(self) -> int:
        return int(self.samples.shape[0])

    @property
    def width(self) -> int:
        return int(self.samples.shape[1])

    @property
    def channels(self) -> int:
        """1 for gray, 3 for RGB; alpha does not count."""
        return int(self.samples.shape[2])

    @property
    def dtype(self) -> str:
        return self.samples.dtype.name

    @property
    def planes(self) -> tuple[Samples, ...]:
        """Samples, and alpha where there is one."""
        return (self.samples,) if self.alpha is None else (self.samples, self.alpha)

    def as_depth(self, dtype: str) -> Self:
        """The same picture with samples of another type: white stays white."""
        if dtype == self.dtype:
            return self
        return self._changed(lambda plane: _converted(plane, dtype))

    def upright(self, orientation: int) -> Self:
        """Turned and mirrored as an EXIF orientation (1 to 8) says, sharing memory."""
        if orientation not in range(1, 9):
            raise PictureError(f"orientation {orientation}; EXIF has 1 to 8")
        return self._changed(lambda plane: _upright(plane, orientation))

    def filled(self, reach_px: int) -> Self:
        """With the colors that full transparency hides replaced by those of the nearest visible pixels.

        What looks reach_px far at a picture then sees no hidden color from any visible pixel. The color of a
        pixel depends on pixels up to reach_px away and on no others, so that the inner part of a crop with a
        margin of reach_px equals the whole. Hidden colors farther off stay. Alpha stays.
        """
        known = None if self.alpha is None else self.alpha[..., 0] > 0
        if known is None or known.all():
            return self
        return replace(self, samples=_filled(self.samples, known, reach_px))

    def blank(self, height: int, width: int) -> Self:
        """A picture of this kind and another size, its samples not yet set; see `paste`."""
        return self._changed(lambda plane: memory.empty((height, width, plane.shape[2]), self.dtype))

    def paste(self, part: "Picture", rows: slice, cols: slice) -> None:
        """Set the samples inside. The one thing that changes a picture; for building one up."""
        self.samples[rows, cols] = part.samples
        if self.alpha is not None:
            self.alpha[rows, cols] = part.alpha

    def crop(self, rows: slice, cols: slice) -> Self:
        """The part inside, sharing memory."""
        return self._changed(lambda plane: plane[rows, cols])

    def to_tensor(self) -> Tensor:
        """(1, C, H, W) float32; white is 1."""
        return _to_tensor(self.samples)

    def alpha_to_tensor(self) -> Tensor | None:
        """(1, 1, H, W) float32; opaque is 1. None without alpha."""
        return None if self.alpha is None else _to_tensor(self.alpha)

    @classmethod
    def from_tensor(cls, samples: Tensor, dtype: str = "float32") -> Self:
        """A picture from (1, C, H, W), white is 1.

        Integer depths clamp and round half up; float32 keeps values as they are.
        """
        return cls(_from_tensor(samples, dtype))

    def with_tensor(self, samples: Tensor, alpha: Tensor | None = None) -> Self:
        """The same kind of picture, depth and metadata, with other contents: (1, C, H, W) and (1, 1, H, W)."""
        return replace(
            self,
            samples=_from_tensor(samples, self.dtype),
            alpha=None if alpha is None else _from_tensor(alpha, self.dtype),
        )

    def _changed(self, change: Callable[[Samples], Samples]) -> Self:
        """Samples and alpha changed in the same way."""
        alpha = None if self.alpha is None else change(self.alpha)
        return replace(self, samples=change(self.samples), alpha=alpha)


@dataclass(frozen=True)
class Exposure:
    """How a camera took a picture; None for what its file does not say.

    time_s: how long the shutter was open. iso: the sensitivity. f_number: focal length by aperture.
    """

    time_s: float | None = None
    iso: float | None = None
    f_number: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not 0 < value < float("inf"):
                raise PictureError(f"exposure {name} {value:g}; a number above 0 is needed, or None if unknown")


@dataclass(frozen=True, eq=False, repr=False)
class Mosaic:
    """What a camera's sensor read, one sample a pixel, before any development.

    samples: (H, W) uint16 or float32 in the file's own units.
    pattern: color of the filter on each pixel of the repeating block, row by row: 2 rows of "RG", "GB" for
        Bayer, 6 rows of 6 for X-Trans.
    black_level: in the samples' units, one number for each pixel of the pattern's block, or one for all.
    white_level: in the samples' units.
    exposure_ratio: how many times longer an exposure the result should look like.
    metadata: what else the file says (EXIF), by libvips field name, as in `Picture`.
    white_balance: gains of red, green and blue, green being 1, that make the light of the scene white, as the
        camera set them; None where it did not. The samples are without them.
    exposure: how it was taken.
    orientation: EXIF's 1 to 8: how the developed picture is to be turned, see `Picture.upright`.
    """

    samples: Samples
    pattern: tuple[str, ...]
    black_level: float | tuple[tuple[float, ...], ...]
    white_level: float
    exposure_ratio: float = 1.0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    white_balance: tuple[float, float, float] | None = None
    exposure: Exposure = Exposure()
    orientation: int = 1

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or 0 in self.samples.shape:
            raise PictureError(f"mosaic samples of shape {self.samples.shape}; (H, W) is needed")
        period = len(self.pattern)
        if period == 0 or any(len(row) != period or set(row) - set("RGB") for row in self.pattern):
            raise PictureError(f"filter pattern {self.pattern}; rows of R, G and B as wide as high are needed")
        black = np.asarray(self.black_level)
        if black.shape not in ((), (period, period)):
            raise PictureError(f"black level of shape {black.shape}; one number or one for each of the pattern")
        if not float(black.max()) < self.white_level:
            raise PictureError(f"black level {black.max():g} is not below the white level {self.white_level:g}")
        if not 0 < self.exposure_ratio < float("inf"):
            raise PictureError(f"exposure ratio {self.exposure_ratio:g}; a number above 0 is needed")
        gains = (1.0, 1.0, 1.0) if self.white_balance is None else self.white_balance
        if len(gains) != 3 or gains[1] != 1 or not all(0 < gain < float("inf") for gain in gains):
            raise PictureError(f"white balance {gains}; gains above 0 of R, G and B are needed, G being 1")
        if self.orientation not in range(1, 9):
            raise PictureError(f"orientation {self.orientation}; one of EXIF's 1 to 8 is needed")

    def __repr__(self) -> str:
        return f"<Mosaic {self.width} x {self.height} px, {'/'.join(self.pattern)}, {self.samples.dtype}>"

    @property
    def height(self) -> int:
        return int(self.samples.shape[0])

    @property
    def width(self) -> int:
        return int(self.samples.shape[1])

    @property
    def planes(self) -> tuple[Samples, ...]:
        """The one plane of samples; see `Picture.planes`."""
        return (self.samples,)

    @property
    def site_black_levels(self) -> NDArray[np.float32]:
        """(period, period): the black level of each pixel of the pattern's block."""
        return np.broadcast_to(np.asarray(self.black_level, np.float32), (self.period, self.period))

    @property
    def dtype(self) -> str:
        """The depth of the picture that this is developed to: uint16, or float32 for float samples."""
        return "float32" if self.samples.dtype.kind == "f" else "uint16"

    @property
    def period(self) -> int:
        """2 for Bayer, 6 for X-Trans."""
        return len(self.pattern)

    def as_depth(self, dtype: str) -> Self:
        """The same mosaic with samples of another type, in the same units."""
        return replace(self, samples=self.samples.astype(dtype))

    def crop(self, rows: slice, cols: slice) -> Self:
        """The part inside, sharing memory. It must start on the pattern's grid."""
        if (rows.start or 0) % self.period or (cols.start or 0) % self.period:
            raise PictureError(
                f"a crop at row {rows.start}, column {cols.start}; a mosaic is cut at multiples of {self.period}"
            )
        return replace(self, samples=self.samples[rows, cols])

    def to_tensor(self) -> Tensor:
        """(1, 1, H, W) float32, linear; black is 0, white is 1; below black is cut off."""
        repeats = (-(-self.height // self.period), -(-self.width // self.period))
        black = np.tile(self.site_black_levels, repeats)[: self.height, : self.width]
        above = np.maximum(self.samples.astype(np.float32) - black, 0)
        return torch.from_numpy(above / (np.float32(self.white_level) - black))[None, None]


def _to_tensor(samples: Samples) -> Tensor:
    planes = np.array(samples.transpose(2, 0, 1), dtype=np.float32, order="C")  # a copy, whatever the type
    if samples.dtype.name != "float32":
        planes /= np.float32(PEAKS[samples.dtype.name])
    return torch.from_numpy(planes)[None]


def _from_tensor(planes: Tensor, dtype: str) -> Samples:
    samples = planes[0].detach().permute(1, 2, 0).cpu()
    if dtype == "float32":
        return samples.float().contiguous().numpy()
    rounded = (samples.clamp(0, 1) * PEAKS[dtype] + 0.5).floor()
    return rounded.contiguous().numpy().astype(dtype)


def _converted(samples: Samples, dtype: str) -> Samples:
    converted = memory.empty(samples.shape, dtype)
    for rows in memory.strips(samples, converted):
        converted[rows] = _from_tensor(_to_tensor(samples[rows]), dtype)
    return converted


def _upright(plane: Samples, orientation: int) -> Samples:
    # 5 to 8 lie on their side; what is mirrored then, is mirrored after rows and columns were swapped.
    turned = plane.swapaxes(0, 1) if orientation > 4 else plane
    flip_cols, flip_rows = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    return turned[:: -1 if flip_rows else 1, :: -1 if flip_cols else 1]


def _filled(samples: Samples, known: NDArray[np.bool_], reach_px: int) -> Samples:
    """Round by round, each unknown pixel with known ones among its eight neighbors becomes their mean."""
    height, width, channels = samples.shape
    colors = np.pad(samples, ((1, 1), (1, 1), (0, 0))).astype(np.float32).reshape(-1, channels)
    unknown = np.flatnonzero(np.pad(~known, 1))
    weights = np.pad(known, 1).astype(np.float32).reshape(-1, 1)
    neighbors = [row * (width + 2) + col for row in (-1, 0, 1) for col in (-1, 0, 1) if row or col]
    for _ in range(reach_px):
        # Sums in one fixed order, so that a pixel is the same to the last bit in every crop.
        counts = reduce(np.add, [weights[unknown + step] for step in neighbors])[:, 0]
        edge = unknown[counts > 0]
        if not len(edge):
            break
        sums = reduce(np.add, [colors[edge + step] * weights[edge + step] for step in neighbors])
        colors[edge] = sums / counts[counts > 0, None]
        weights[edge] = 1
        unknown = unknown[counts == 0]
    filled = colors.reshape(height + 2, width + 2, channels)[1:-1, 1:-1]
    return filled if samples.dtype.kind == "f" else (filled + np.float32(0.5)).astype(samples.dtype)
