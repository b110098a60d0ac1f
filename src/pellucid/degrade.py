"""Degradations: a clean batch and a generator in, a degraded batch out.

Every degradation takes (N, C, H, W) in [0, 1] and draws chance from the generator alone, so that the same
seed gives the same picture anywhere. A number says "always this"; a pair says "uniformly between, anew for
each picture of the batch".
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pellucid.resize import resize

T = TypeVar("T")

Degradation = Callable[[Tensor, torch.Generator], Tensor]
"""(clean, generator) -> degraded."""


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

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return resize(clean, Fraction(1, self.scale))


@dataclass(frozen=True)
class Jpeg:
    """Rounded to 8 bit and compressed by libjpeg: gray as gray, RGB with 4:2:0 chroma.

    quality: 1..100, or the (lowest, highest) of a uniform draw.
    """

    quality: int | tuple[int, int]

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        qualities = _draw(self.quality, len(clean), generator).round().int().tolist()
        pairs = zip(clean.cpu(), qualities, strict=True)
        return torch.stack([_compress(picture, quality) for picture, quality in pairs]).to(clean)


@dataclass(frozen=True)
class Chain:
    """One degradation after the other."""

    steps: tuple[Degradation, ...]

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

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        drawn = _choose(self.choices, len(clean), generator)
        pairs = zip(clean, drawn, strict=True)
        return torch.cat([degradation(picture[None], generator) for picture, degradation in pairs])


@dataclass(frozen=True)
class ShrinkAndEnlarge:
    """MATLAB's bicubic down and up again, by a scale drawn anew for each picture; the size stays.

    Sizes that are no multiple of the scale lose nothing: the enlarged picture is cut to the size it had.
    """

    scales: tuple[int, ...]

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        height, width = clean.shape[-2:]
        pictures = []
        for picture, scale in zip(clean, _choose(self.scales, len(clean), generator), strict=True):
            enlarged = resize(resize(picture[None], Fraction(1, scale)), scale)
            pictures.append(enlarged[..., :height, :width])
        return torch.cat(pictures)


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
