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
from math import lcm
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

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
    return torch.full((count,), float(value))


def _compress(picture: Tensor, quality: int) -> Tensor:
    samples = (picture.clamp(0, 1) * 255 + 0.5).floor().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(samples.squeeze(-1) if samples.shape[-1] == 1 else samples).save(
        buffer, "JPEG", quality=quality, subsampling="4:2:0"
    )
    decoded = np.array(Image.open(buffer))
    return torch.from_numpy(decoded.reshape(samples.shape)).permute(2, 0, 1).float() / 255
