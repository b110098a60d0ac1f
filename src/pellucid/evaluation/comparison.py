"""How a picture is compared with its target: color space, border and rounding."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pellucid.errors import ArgumentError, NotEnoughMemoryError, PictureError, suggest
from pellucid.evaluation.report import Score
from pellucid.pictures import metrics
from pellucid.pictures.color import rgb_to_gray, rgb_to_luma
from pellucid.pictures.picture import Picture
from pellucid.system import memory

COLORS = {
    "gray": "gray",
    "y": "luma (Y of BT.601, 16..235, as MATLAB's rgb2ycbcr; gray pictures as they are)",
    "rgb": "RGB, all channels together",
}

_CONVERSIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gray": lambda planes: planes if planes.shape[1] == 1 else rgb_to_gray(planes),
    "y": lambda planes: planes if planes.shape[1] == 1 else rgb_to_luma(planes),
    "rgb": lambda planes: planes.expand(-1, 3, -1, -1),
}

_BYTES_PER_SAMPLE = 45
"""Memory for a pixel of one compared plane: all pictures in floating point, and what SSIM computes. In addition to
the planes that are read, 40 were measured for luma, and 36 for RGB."""

_KINDS = {1: "gray", 3: "in color"}


@dataclass(frozen=True)
class Comparison:
    """How a picture is compared with its target.

    colors: gray, y or rgb. border_px: width of the border that is not scored. rounds: whether the restored picture
    is rounded to 8 bits first.
    """

    colors: str
    border_px: int
    rounds: bool

    def convert(self, planes: Tensor) -> Tensor:
        """Gray or RGB planes, (N, 1 or 3, H, W), in the colors that are compared."""
        return _CONVERSIONS[self.colors](planes)

    def check(self, name: str, restored: Tensor, target: Tensor) -> None:
        """Raise PictureError unless a picture and its target, (N, C, H, W), can be compared."""
        if restored.shape[-2:] != target.shape[-2:]:
            raise PictureError(
                f"the result for {name} has {restored.shape[-1]} x {restored.shape[-2]} px, "
                f"but its target has {target.shape[-1]} x {target.shape[-2]}"
            )
        self.check_size(name, target)

    def check_channels(self, name: str, given: int, target: int) -> None:
        """Raise PictureError if the numbers of channels of a picture and its target do not fit each other."""
        if self.colors == "y" and given != target:
            raise PictureError(
                f"{name} is {_KINDS[given]}, but its target is {_KINDS[target]}; the luma of color pictures has "
                f"another range than gray",
                hint="score them with {colors} gray or rgb",
            )

    def warn_of_channels(self, given: int, target: int) -> Iterator[str]:
        """One line if the numbers of channels differ, so that missing color counts as an error."""
        if self.colors == "rgb" and given != target:
            yield f"it is {_KINDS[given]}, but its target is {_KINDS[target]}; in gray, only brightness counts"

    def check_memory(self, target: Picture) -> None:
        """Raise NotEnoughMemoryError if a picture is too large to be scored with the memory that is free."""
        per_pixel = 4 * 3 * target.channels + _BYTES_PER_SAMPLE * (3 if self.colors == "rgb" else 1)
        needed, free = per_pixel * target.width * target.height, memory.free_bytes()
        if needed > free:
            raise NotEnoughMemoryError(
                f"scoring {target.width} x {target.height} px needs {needed / 1e6:,.0f} MB; "
                f"{free / 1e6:,.0f} MB are free",
                hint="score parts of the picture",
            )

    def check_size(self, name: object, target: Tensor, *, crop_multiple: int = 1) -> None:
        """Raise PictureError for a picture of which nothing remains without the border."""
        if min(target.shape[-2:]) <= 2 * self.border_px:
            cropped = "" if crop_multiple == 1 else f" after cropping to multiples of {crop_multiple}"
            raise PictureError(
                f"{name} is too small to be scored: {target.shape[-1]} x {target.shape[-2]} px{cropped}; "
                f"{self.border_px} px on each side are not scored"
            )

    def score(self, name: str, restored: Tensor, target: Tensor, baseline: Tensor | None = None) -> Score:
        """Score converted planes, (1, C, H, W)."""
        restored = restored.clamp(0, 1)
        if self.rounds:
            restored, baseline = to_8_bits(restored), None if baseline is None else to_8_bits(baseline)
        side = slice(self.border_px, -self.border_px) if self.border_px else slice(None)
        inner = (..., side, side)
        return Score(
            name=name,
            psnr_db=metrics.psnr(restored[inner], target[inner]),
            ssim=metrics.ssim(restored[inner], target[inner]),
            degraded_psnr_db=None if baseline is None else metrics.psnr(baseline[inner], target[inner]),
        )

    def describe(self, rounding: str) -> dict[str, Any]:
        """The facts of the protocol that do not depend on how pictures are degraded."""
        return {
            "border_px_left_out": self.border_px,
            "rounding": rounding,
            "peak": "white (255 of 8 bit)",
            "ssim": "Gaussian window 11 px, deviation 1.5, K 0.01 and 0.03, valid area",
            "mean": "of the pictures' values",
        }


def check_colors(colors: str) -> str:
    """The name of a color space. Raises ArgumentError if it is unknown."""
    if colors not in COLORS:
        raise ArgumentError(f"colors {colors[:40]!r} are unknown; {suggest(colors, COLORS)}")
    return colors


def to_8_bits(planes: Tensor) -> Tensor:
    """Planes from 0 to 1, rounded as MATLAB rounds to uint8."""
    return (planes.clamp(0, 1) * 255 + 0.5).floor() / 255
