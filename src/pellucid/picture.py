"""Pictures as their files hold them, and camera mosaics as the sensor read them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import PictureError

Samples = NDArray[Any]

PEAKS: dict[str, float] = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""The value of white, by the dtype of the samples."""


@dataclass(frozen=True, eq=False, repr=False)
class Picture:
    """One picture at its file's own depth.

    samples: (H, W, 1) gray or (H, W, 3) RGB; uint8, uint16, or float32 nominally in [0, 1].
    alpha: (H, W, 1) of the same dtype, or None. It is not restored, only enlarged where the picture is.
    metadata: what else the file carries (ICC profile, EXIF, XMP, ...), by libvips field name.
    """

    samples: Samples
    alpha: Samples | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

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

    def as_depth(self, dtype: str) -> Self:
        """The same picture with samples of another type: white stays white."""
        if dtype == self.dtype:
            return self
        alpha = self.alpha_to_tensor()
        return replace(
            self,
            samples=_from_tensor(self.to_tensor(), dtype),
            alpha=None if alpha is None else _from_tensor(alpha, dtype),
        )

    def blank(self, height: int, width: int) -> Self:
        """A picture of this kind and another size, its samples not yet set; see `paste`."""
        alpha = None if self.alpha is None else np.empty((height, width, 1), self.dtype)
        return replace(self, samples=np.empty((height, width, self.channels), self.dtype), alpha=alpha)

    def paste(self, part: "Picture", rows: slice, cols: slice) -> None:
        """Set the samples inside. The one thing that changes a picture; for building one up."""
        self.samples[rows, cols] = part.samples
        if self.alpha is not None:
            self.alpha[rows, cols] = part.alpha

    def crop(self, rows: slice, cols: slice) -> Self:
        """The part inside, sharing memory."""
        alpha = None if self.alpha is None else self.alpha[rows, cols]
        return replace(self, samples=self.samples[rows, cols], alpha=alpha)

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


@dataclass(frozen=True, eq=False)
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
    orientation: EXIF's 1 to 8: how the developed picture is to be turned, see `upright`.
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

    @property
    def height(self) -> int:
        return int(self.samples.shape[0])

    @property
    def width(self) -> int:
        return int(self.samples.shape[1])

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


def upright(picture: Picture, orientation: int) -> Picture:
    """The picture turned and mirrored as an EXIF orientation, 1 to 8, asks for; a copy unless it is 1."""
    alpha = picture.alpha
    return replace(
        picture,
        samples=_turned(picture.samples, orientation),
        alpha=None if alpha is None else _turned(alpha, orientation),
    )


def _turned(samples: Samples, orientation: int) -> Samples:
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)


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
