"""Degradations: a clean batch and a generator in, a degraded batch out.

Every degradation takes (N, C, H, W) in [0, 1] and draws chance from the generator alone, so that the same
seed gives the same picture anywhere. A number says "always this"; a pair says "uniformly between, anew for
each picture of the batch". Chance is drawn on the generator's device: a seed means the same pictures on all
CPUs, and others on an accelerator.

A degradation that looks further than one pixel says so in its `footprint`, so that a patch can be degraded as
the part of the whole picture that it is.
"""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from math import lcm, log
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pellucid.resize import reach, resize

T = TypeVar("T")

Degradation = Callable[[Tensor, torch.Generator], Tensor]
"""(clean, generator) -> degraded."""


@dataclass(frozen=True)
class Footprint:
    """What must surround a patch for it to be degraded as in its picture. The default: nothing.

    scale: how many times shorter the sides become.
    grid_px: cells, counted from the picture's corner, that are degraded as one.
    reach_px: how far beyond the patch clean pixels are seen; all of a cell that is seen at all.
    """

    scale: int = 1
    grid_px: int = 1
    reach_px: int = 0


def draws(degradation: Degradation) -> bool:
    """Whether it draws from the generator; one that does not say is taken to."""
    return getattr(degradation, "draws", True)


def footprint(degradation: Degradation) -> Footprint:
    """The degradation's own `footprint`; one that states none works on each pixel by itself."""
    return getattr(degradation, "footprint", Footprint())


@dataclass(frozen=True)
class GaussianNoise:
    """White Gaussian noise, neither clipped nor rounded.

    sigma_255: standard deviation on the 0..255 scale, or the (lowest, highest) of a uniform draw.
    """

    sigma_255: float | tuple[float, float]

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        sigma = _draw(self.sigma_255, len(clean), generator).to(clean.dtype).to(clean.device)
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype, device=generator.device)
        return clean + noise.to(clean.device) * (sigma / 255).reshape(-1, 1, 1, 1)


@dataclass(frozen=True)
class Shrink:
    """MATLAB's antialiased bicubic by 1/scale, in floating point; sizes should be multiples of scale."""

    scale: int

    draws = False

    @property
    def footprint(self) -> Footprint:
        return Footprint(self.scale, self.scale, 2 * self.scale)  # the kernel, widened: two cells a side

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return resize(clean, Fraction(1, self.scale))


@dataclass(frozen=True)
class Jpeg:
    """Rounded to 8 bit and compressed by libjpeg: gray as gray, RGB with 4:2:0 chroma.

    quality: 1..100, or the (lowest, highest) of a uniform draw.
    """

    quality: int | tuple[int, int]

    # Blocks of 8 x 8, with 4:2:0 chroma of 16 x 16; enlarged chroma looks one of its samples further.
    footprint = Footprint(grid_px=16, reach_px=2)

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        qualities = _draw(self.quality, len(clean), generator).round().int().tolist()
        num_threads = max(1, min(len(clean), torch.get_num_threads()))
        with ThreadPoolExecutor(num_threads) as pool:  # libjpeg works without the interpreter's lock
            return torch.stack(list(pool.map(_compress, clean.cpu(), qualities))).to(clean)


@dataclass(frozen=True)
class Chain:
    """One degradation after the other."""

    steps: tuple[Degradation, ...]

    @property
    def footprint(self) -> Footprint:
        whole = Footprint()
        for part in map(footprint, self.steps):
            beyond_px = part.reach_px + part.grid_px - 1  # a cell of this step may stand across one of the last
            whole = Footprint(
                whole.scale * part.scale,
                lcm(whole.grid_px, whole.scale * part.grid_px),
                whole.reach_px + whole.scale * beyond_px,
            )
        return whole

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        for step in self.steps:
            clean = step(clean, generator)
        return clean


@dataclass(frozen=True)
class OneOf:
    """One of several degradations, each as likely, drawn anew for each picture of the batch.

    All of them must keep the size.
    """

    choices: tuple[Degradation, ...]

    @property
    def footprint(self) -> Footprint:
        parts = [footprint(degradation) for degradation in self.choices]
        return Footprint(1, lcm(*(part.grid_px for part in parts)), max(part.reach_px for part in parts))

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        def apply(degradation: Degradation, pictures: Tensor) -> Tensor:
            return degradation(pictures, generator)

        return _each_by_one(self.choices, apply, clean, generator)


@dataclass(frozen=True)
class ShrinkAndEnlarge:
    """MATLAB's bicubic down and up again, by a scale drawn anew for each picture; the size stays.

    Sizes that are no multiple of the scale lose nothing: the enlarged picture is cut to the size it had.
    """

    scales: tuple[int, ...]

    @property
    def footprint(self) -> Footprint:
        return Footprint(1, lcm(*self.scales), max((reach(scale) + 2) * scale for scale in self.scales))

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        height, width = clean.shape[-2:]

        def apply(scale: int, pictures: Tensor) -> Tensor:
            return resize(resize(pictures, Fraction(1, scale)), scale)[..., :height, :width]

        return _each_by_one(self.scales, apply, clean, generator)


def involves(degradation: Degradation | None, kind: type) -> bool:
    """Whether a degradation is of this kind, or one of its parts is."""
    if isinstance(degradation, Chain | OneOf):
        parts = degradation.steps if isinstance(degradation, Chain) else degradation.choices
        return any(involves(part, kind) for part in parts)
    return isinstance(degradation, kind)


def _choose(options: Sequence[T], count: int, generator: torch.Generator) -> list[T]:
    """One of the options for each picture, each as likely."""
    drawn = torch.randint(len(options), (count,), generator=generator, device=generator.device)
    return [options[i] for i in drawn.tolist()]


@dataclass(frozen=True)
class Unprocess:
    """The mosaic that a camera could have developed to this sRGB picture.

    (N, 3, H, W) -> (N, 1, H, W), linear, white is 1. Undone are the tone curve, gamma, the color matrix (a mixture
    of those of four cameras), brightening and white balance, but in saturated pixels.
    pattern: of the filters, row by row; it begins in the corner. red_gain, blue_gain: of the white balance.
    Source: Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019, and its released code.
    """

    pattern: tuple[str, ...] = ("RG", "GB")
    red_gain: float | tuple[float, float] = (1.9, 2.4)
    blue_gain: float | tuple[float, float] = (1.5, 1.9)

    @property
    def footprint(self) -> Footprint:
        return Footprint(grid_px=len(self.pattern))

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        toned = 0.5 - torch.sin(torch.asin(1 - 2 * clean.clamp(0, 1)) / 3)
        light = toned.clamp(min=1e-8) ** 2.2
        colors = torch.einsum("nij,njhw->nihw", self._matrix(len(clean), generator).to(light), light)
        return _filtered((colors * self._gains(colors, generator)).clamp(0, 1), self.pattern)

    def _matrix(self, count: int, generator: torch.Generator) -> Tensor:
        """sRGB to the colors of a camera, one for each picture; white stays white."""
        weights = torch.rand(count, 4, 1, 1, generator=generator, device=generator.device, dtype=torch.float64)
        to_camera = (weights * _XYZ_TO_CAMERA.to(weights)).sum(dim=1) @ _RGB_TO_XYZ.to(weights)
        return to_camera / to_camera.sum(dim=-1, keepdim=True)

    def _gains(self, colors: Tensor, generator: torch.Generator) -> Tensor:
        count = len(colors)
        dimmed = 0.8 + 0.1 * torch.randn(count, generator=generator, device=generator.device)
        red, blue = (1 / _draw(gain, count, generator) for gain in (self.red_gain, self.blue_gain))
        gains = (torch.stack([red, torch.ones_like(red), blue]) * dimmed).T[..., None, None].to(colors)
        near_white = ((colors.mean(dim=1, keepdim=True) - 0.9).clamp(min=0) / 0.1) ** 2
        return torch.maximum(near_white + (1 - near_white) * gains, gains)


@dataclass(frozen=True)
class SensorNoise:
    """What a sensor makes of linear light: shot noise, read noise, an offset for each row, whole numbers.

    Takes and gives mosaics or planes, black is 0 and white is 1; what falls below or above is cut off.
    shot: the light of one electron, so that its noise has the variance shot * light. A pair is drawn evenly on a
        logarithmic scale. read: the variance without light; None goes with shot as it does in real cameras.
    row: the variance of the offset that all of a row has. num_levels: from black to white, None for no rounding.
    exposure_ratio: how many times shorter the exposure is; the result is as many times brighter again.
    Source: Brooks et al., CVPR 2019, of which the levels are; shot noise is Poisson's here, Gaussian there.
    """

    shot: float | tuple[float, float] = (1e-4, 0.012)
    read: float | None = None
    row: float = 0.0
    num_levels: int | None = 16383 - 512
    exposure_ratio: float | tuple[float, float] = 1.0

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        light = clean.to(generator.device)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=light.dtype, device=light.device)

        def each(numbers: Tensor) -> Tensor:
            return numbers.to(light).reshape(-1, 1, 1, 1)

        ratio = each(_draw(self.exposure_ratio, len(light), generator))
        shot = each(_draw_log(self.shot, len(light), generator))
        read = 3.32 * shot**2.18 * (0.26 * normal(len(light), 1, 1, 1)).exp() if self.read is None else self.read
        counted = shot * torch.poisson((light / ratio).clamp(min=0) / shot, generator=generator)
        offset = self.row**0.5 * normal(len(light), 1, light.shape[-2], 1)
        signal = (counted + read**0.5 * normal(*light.shape) + offset).clamp(0, 1)
        return (_rounded(signal, self.num_levels) * ratio).to(clean.device)


@dataclass(frozen=True)
class MotionBlur:
    """The blur of a shaken camera, in linear light: another random trajectory for each picture.

    kernel_px: side of the kernel, odd. length_px: of the trajectory, or the (lowest, highest) of a uniform draw;
        as it winds, 60 px stray 2.6 px from their middle on average, and up to 17.
    Source: Boracchi and Foi, "Modeling the Performance of Image Restoration from Motion Blur", IEEE TIP 2012, with
    its random impulses, pull to the center and jerks.
    """

    kernel_px: int = 31
    length_px: float | tuple[float, float] = (10.0, 100.0)

    @property
    def footprint(self) -> Footprint:
        return Footprint(reach_px=self.kernel_px // 2)

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        count, channels, height, width = clean.shape
        kernels = self.kernels(count, generator).to(clean).repeat_interleave(channels, 0)[:, None]
        light = clean.clamp(min=0) ** 2.2
        for axis in (-2, -1):
            light = _with_mirrored(light, axis, self.kernel_px // 2)
        blurred = F.conv2d(light.reshape(1, count * channels, *light.shape[-2:]), kernels, groups=count * channels)
        return blurred.reshape(count, channels, height, width).clamp(min=0) ** (1 / 2.2)

    def kernels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, kernel_px, kernel_px), each of sum 1 with its center of mass in the middle."""
        path = _trajectories(_draw(self.length_px, count, generator), generator)
        middle = self.kernel_px // 2
        path = (path - path.mean(dim=1, keepdim=True)).clamp(-middle, middle)
        places = torch.arange(self.kernel_px, device=path.device) - middle
        rows, cols = ((1 - (path[..., axis, None] - places).abs()).clamp(min=0) for axis in (0, 1))
        return torch.einsum("ntk,ntl->nkl", rows, cols) / path.shape[1]


def _trajectories(length_px: Tensor, generator: torch.Generator, num_points: int = 128) -> Tensor:
    """(N, num_points, 2) rows and columns along N ways of these lengths."""

    def uniform(high: float) -> Tensor:
        return high * torch.rand(len(length_px), 1, generator=generator, device=generator.device)

    def normal() -> Tensor:
        return torch.randn(len(length_px), 2, generator=generator, device=generator.device)

    step_px = length_px[:, None] / (num_points - 1)
    anxiety, pull, jerk, impulse = uniform(0.1), uniform(0.7), uniform(10.0), uniform(0.2)
    # The original's 2000 points are these 128: what happens at each is made as much stronger, or likelier.
    rate = 2000 / num_points
    place, direction = torch.zeros_like(normal()), F.normalize(normal())
    path = [place]
    for _ in range(num_points - 1):
        turns_back = uniform(1.0) < impulse * anxiety * rate
        change = anxiety * (rate**0.5 * jerk * normal() - rate * pull * place) + turns_back * (
            normal() - 2 * direction
        )
        direction = F.normalize(direction + change)
        place = place + step_px * direction
        path.append(place)
    return torch.stack(path, dim=1)


def _with_mirrored(planes: Tensor, axis: int, margin_px: int) -> Tensor:
    """With so much more on both sides, the edge itself mirrored as well, as often as it takes."""
    size = planes.shape[axis]
    folded = torch.arange(-margin_px, size + margin_px, device=planes.device) % (2 * size)
    return planes.index_select(axis, torch.minimum(folded, 2 * size - 1 - folded))


_XYZ_TO_CAMERA = torch.tensor(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.613, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.838, -0.263, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.097, 0.1581, 0.5181]],
    ],
    dtype=torch.float64,
)
_RGB_TO_XYZ = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=torch.float64,
)


def _filtered(colors: Tensor, pattern: tuple[str, ...]) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W): of each pixel the color of its filter."""
    period, mosaic = len(pattern), colors.new_empty(len(colors), 1, *colors.shape[-2:])
    for row, filters in enumerate(pattern):
        for col, name in enumerate(filters):
            mosaic[:, 0, row::period, col::period] = colors[:, "RGB".index(name), row::period, col::period]
    return mosaic


def _rounded(signal: Tensor, num_levels: int | None) -> Tensor:
    return signal if num_levels is None else (signal * num_levels).round() / num_levels


def _draw_log(value: float | tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    if isinstance(value, tuple):
        low, high = value
        return _draw((log(low), log(high)), count, generator).exp()
    return _draw(value, count, generator)


def _each_by_one(
    options: Sequence[T], apply: Callable[[T, Tensor], Tensor], clean: Tensor, generator: torch.Generator
) -> Tensor:
    """Every picture by one of the options, each as likely; those that drew the same one go together."""
    drawn = torch.randint(len(options), (len(clean),), generator=generator, device=generator.device)
    drawn, degraded = drawn.to(clean.device), torch.empty_like(clean)
    for i, option in enumerate(options):
        members = (drawn == i).nonzero()[:, 0]
        if len(members):
            degraded[members] = apply(option, clean[members])
    return degraded


def _draw(value: float | tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    if isinstance(value, tuple):
        low, high = value
        return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)
    return torch.full((count,), float(value), device=generator.device)


def _compress(picture: Tensor, quality: int) -> Tensor:
    samples = (picture.clamp(0, 1) * 255 + 0.5).floor().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(samples.squeeze(-1) if samples.shape[-1] == 1 else samples).save(
        buffer, "JPEG", quality=quality, subsampling="4:2:0"
    )
    decoded = np.array(Image.open(buffer))
    return torch.from_numpy(decoded.reshape(samples.shape)).permute(2, 0, 1).float() / 255
