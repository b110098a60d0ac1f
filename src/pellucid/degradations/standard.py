"""The degradations of common benchmarks: Gaussian noise, bicubic downscaling, JPEG; and JPEG as files have it."""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pellucid.degradations.degradation import Footprint, apply_one_each
from pellucid.degradations.device_jpeg import compress_on_device
from pellucid.degradations.rng import (
    Generator,
    Range,
    draw_integers,
    draw_normal,
    get_cpu_generator,
    uniform,
)
from pellucid.pictures.resize import reach, resize


@dataclass(frozen=True)
class GaussianNoise:
    """White Gaussian noise, neither clipped nor rounded.

    sigma_255: standard deviation on the 0..255 scale, or the (lowest, highest) of a uniform draw.
    """

    sigma_255: Range

    draws = accepts_shards = True
    footprint = Footprint()

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        sigma = uniform(self.sigma_255, len(clean), generator).to(clean.dtype).to(clean.device)
        noise = draw_normal(clean.shape, generator, dtype=clean.dtype)
        return clean + noise.to(clean.device) * (sigma / 255).reshape(-1, 1, 1, 1)


@dataclass(frozen=True)
class Shrink:
    """Downscaling by MATLAB's antialiased bicubic, without rounding. Sizes should be multiples of `scale`."""

    scale: int

    draws, accepts_shards = False, True

    @property
    def footprint(self) -> Footprint:
        return Footprint(self.scale, self.scale, 2 * self.scale)  # the kernel reads two cells to each side

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        return resize(clean, Fraction(1, self.scale))


@dataclass(frozen=True)
class ShrinkAndEnlarge:
    """Downscaling with MATLAB's bicubic kernel and upscaling to the same size, by a scale drawn for each picture.

    Sizes need not be multiples of the scale: the enlarged picture is cropped.
    """

    scales: tuple[int, ...]

    draws = accepts_shards = True

    @property
    def footprint(self) -> Footprint:
        return Footprint(1, lcm(*self.scales), max((reach(scale) + 2) * scale for scale in self.scales))

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        height, width = clean.shape[-2:]

        def shrink_and_enlarge(scale: int, pictures: Tensor, _: Generator) -> Tensor:
            return resize(resize(pictures, Fraction(1, scale)), scale)[..., :height, :width]

        return apply_one_each(self.scales, shrink_and_enlarge, clean, generator)


@dataclass(frozen=True)
class Jpeg:
    """Rounding to 8 bits and compression by libjpeg: gray as gray, RGB with 4:2:0 chroma.

    quality: 1 to 100, or the (lowest, highest) of a uniform draw.
    """

    quality: int | tuple[int, int]

    @property
    def draws(self) -> bool:
        return isinstance(self.quality, tuple)

    accepts_shards = True
    # Blocks have 8 x 8 px, those of 4:2:0 chroma 16 x 16; upsampling chroma reads one more sample on each side.
    footprint = Footprint(grid_px=16, reach_px=2)

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        qualities = _draw_qualities(self.quality, len(clean), generator)
        return _compress_each(clean, qualities, ["4:2:0"] * len(clean), [(0, 0)] * len(clean))


@dataclass(frozen=True)
class ShiftedJpeg:
    """JPEG as files have it: with any chroma sampling, and cropped after it was compressed.

    The grid of blocks starts at a pixel that is drawn for each picture, and not in its corner.
    quality: 1 to 100, or the (lowest, highest) of a uniform draw. chroma: samplings of RGB, equally likely; 4:2:0
    halves both axes, 4:2:2 the width, 4:4:4 none.
    """

    quality: int | tuple[int, int]
    chroma: tuple[str, ...] = ("4:2:0", "4:2:2", "4:4:4")

    draws = accepts_shards = True
    # A cell of the shifted grid ends in the next one, and upsampling chroma reads one more sample on each side.
    footprint = Footprint(grid_px=16, reach_px=16 + 2)

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        count, cpu_generator = len(clean), get_cpu_generator(generator)
        qualities = _draw_qualities(self.quality, count, generator)
        drawn = draw_integers(len(self.chroma), (count,), cpu_generator)
        shifts = draw_integers(16, (count, 2), cpu_generator)
        samplings = [self.chroma[i] for i in drawn.tolist()]
        return _compress_each(clean, qualities, samplings, [(down, right) for down, right in shifts.tolist()])


JPEG_COMPRESSION = (Jpeg, ShiftedJpeg)
"""All degradations that compress by JPEG."""


@dataclass(frozen=True)
class Rounding:
    """Rounding to 8 bits, as in a file without lossy compression."""

    draws, accepts_shards = False, True
    footprint = Footprint()

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        return (clean.clamp(0, 1) * 255).round() / 255


def _draw_qualities(quality: int | tuple[int, int], count: int, generator: Generator) -> list[int]:
    qualities: list[int] = uniform(quality, count, get_cpu_generator(generator)).round().int().tolist()
    return qualities


def _compress_each(
    clean: Tensor, qualities: list[int], samplings: list[str], shifts: list[tuple[int, int]]
) -> Tensor:
    if clean.device.type != "cpu":  # libjpeg would wait for the device, and the device for libjpeg
        return compress_on_device(clean, qualities, samplings, shifts)
    num_threads = max(1, min(len(clean), torch.get_num_threads()))
    with ThreadPoolExecutor(num_threads) as pool:  # libjpeg releases Python's global lock
        compressed = torch.stack(list(pool.map(_compress, clean, qualities, samplings, shifts)))
    return compressed.to(clean.dtype)


def _compress(picture: Tensor, quality: int, sampling: str, shift: tuple[int, int]) -> Tensor:
    """(C, H, W) through libjpeg. shift: rows and columns from the corner of the grid to that of the picture."""
    down, right = shift
    samples = (picture.clamp(0, 1) * 255 + 0.5).floor().byte().permute(1, 2, 0).numpy()
    canvas = np.pad(samples, ((down, 0), (right, 0), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    Image.fromarray(canvas.squeeze(-1) if canvas.shape[-1] == 1 else canvas).save(
        buffer, "JPEG", quality=quality, subsampling=sampling
    )
    decoded = np.array(Image.open(buffer)).reshape(canvas.shape)[down:, right:]
    return torch.from_numpy(decoded).permute(2, 0, 1).float() / 255
