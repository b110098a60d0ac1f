"""What light goes through: a shaken camera, its filters, its sensor. In linear light, and batched."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pellucid.degradations.cameras import BLACK_LEVEL, NUM_LEVELS, PHONES, RGB_TO_XYZ, XYZ_TO_CAMERA, Sensor
from pellucid.degradations.degradation import Chain, Degradation, Footprint, footprint
from pellucid.degradations.rng import Range, uniform
from pellucid.pictures.packing import BAYER, apply_gains
from pellucid.pictures.picture import Mosaic


@dataclass(frozen=True)
class Unprocess:
    """The mosaic that a camera could have developed to this sRGB picture.

    (N, 3, H, W) -> (N, 1, H, W), linear, white is 1. Undone are the tone curve, gamma, the color matrix (a mixture
    of those of four cameras), brightening and white balance, but in saturated pixels.
    pattern: of the filters, row by row; it begins in the corner. red_gain, blue_gain: of the white balance.
    brightness: of green, against the picture's light; None draws it from a normal of mean 0.8, deviation 0.1.
    Source: Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019, and its released code.
    """

    pattern: tuple[str, ...] = BAYER
    red_gain: Range = (1.9, 2.4)
    blue_gain: Range = (1.5, 1.9)
    brightness: float | None = None

    @property
    def footprint(self) -> Footprint:
        return Footprint(grid_px=len(self.pattern))

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return self.exposed(clean, generator)[0]

    def exposed(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The mosaic, and the (N, 3) gains of red, green and blue that balance it, green being 1."""
        matrix, gains, brightness = self.cameras(len(clean), generator)
        toned = 0.5 - torch.sin(torch.asin(1 - 2 * clean.clamp(0, 1)) / 3)
        light = toned.clamp(min=1e-8) ** 2.2
        colors = torch.einsum("nij,njhw->nihw", matrix.to(light), light)
        shares = (brightness[:, None] / gains)[..., None, None].to(light)
        near_white = ((colors.mean(dim=1, keepdim=True) - 0.9).clamp(min=0) / 0.1) ** 2
        shares = torch.maximum(near_white + (1 - near_white) * shares, shares)
        return _mosaicked((colors * shares).clamp(0, 1), self.pattern), gains

    def cameras(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3, 3) from linear sRGB to the camera's colors, white staying white; gains as above; brightness."""
        weights = torch.rand(count, 4, 1, 1, generator=generator, device=generator.device).double()
        to_camera = (weights * XYZ_TO_CAMERA.to(weights)).sum(dim=1) @ RGB_TO_XYZ.to(weights)
        dimmed = 0.8 + 0.1 * torch.randn(count, generator=generator, device=generator.device)
        red, blue = (uniform(gain, count, generator) for gain in (self.red_gain, self.blue_gain))
        gains = torch.stack([red, torch.ones_like(red), blue], dim=1)
        brightness = dimmed if self.brightness is None else torch.full_like(dimmed, self.brightness)
        return to_camera / to_camera.sum(dim=-1, keepdim=True), gains, brightness


@dataclass(frozen=True)
class SensorNoise:
    """What a sensor makes of linear light: shot noise, read noise, an offset for each row, whole numbers.

    Takes and gives mosaics or planes, black is 0 and white is 1; what falls below or above is cut off.
    sensor: how strong each is. num_levels: from black to white, None for no rounding.
    Source: Wei et al., "A Physics-based Noise Formation Model for Extreme Low-light Raw Denoising", CVPR 2020:
    Poisson's shot noise, Gaussian read noise, rows, quantization.
    """

    sensor: Sensor = PHONES
    num_levels: int | None = NUM_LEVELS

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        light = clean.to(generator.device)
        shot, read, row = (part.to(light).reshape(-1, 1, 1, 1) for part in self.sensor.draw(len(light), generator))

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=light.dtype, device=light.device)

        counted = shot * torch.poisson(light.clamp(min=0) / shot, generator=generator)
        offset = row.sqrt() * normal(len(light), 1, light.shape[-2], 1)
        signal = (counted + read.sqrt() * normal(*light.shape) + offset).clamp(0, 1)
        return _rounded(signal, self.num_levels).to(clean.device)


@dataclass(frozen=True)
class SyntheticRaw:
    """A dark, noisy camera RAW exposure of what a developed picture shows, made as bright as the picture.

    (N, 3, H, W) sRGB -> (N, 1, H, W) linear, before it is cut off at white: what PackedRaw makes of the same
    exposure's `mosaic`, so that networks learn from what they will see.
    exposure_ratio: how many times shorter the exposure is. noise: on its light; such as SensorNoise.
    white_balanced: whether each filter's samples are multiplied with the camera's gain.
    """

    unprocess: Unprocess = Unprocess(brightness=1.0)
    noise: Degradation = SensorNoise()
    exposure_ratio: Range = (50.0, 300.0)
    white_balanced: bool = True

    @property
    def footprint(self) -> Footprint:
        return footprint(Chain((self.unprocess, self.noise)))

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        signal, ratio, gains = self._exposed(clean, generator)
        bright = signal * ratio.to(signal).reshape(-1, 1, 1, 1)
        return apply_gains(bright, gains.to(signal), self.unprocess.pattern) if self.white_balanced else bright

    def mosaic(self, clean: Tensor, generator: torch.Generator) -> Mosaic:
        """The exposure of one picture, (1, 3, H, W), as its file would hold it: 14 bit, black 512, white 16383."""
        signal, ratio, gains = self._exposed(clean, generator)
        samples = (signal[0, 0] * NUM_LEVELS + BLACK_LEVEL).round().cpu().numpy().astype(np.uint16)
        red, green, blue = gains[0].tolist()
        return Mosaic(
            samples,
            self.unprocess.pattern,
            float(BLACK_LEVEL),
            float(BLACK_LEVEL + NUM_LEVELS),
            exposure_ratio=ratio.item(),
            white_balance=(red, green, blue),
        )

    def _exposed(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        ratio = uniform(self.exposure_ratio, len(clean), generator)
        light, gains = self.unprocess.exposed(clean, generator)
        return self.noise(light / ratio.to(light).reshape(-1, 1, 1, 1), generator), ratio, gains


def _mosaicked(colors: Tensor, pattern: tuple[str, ...]) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W): of each pixel the color of its filter."""
    period, mosaic = len(pattern), colors.new_empty(len(colors), 1, *colors.shape[-2:])
    for row, filters in enumerate(pattern):
        for col, name in enumerate(filters):
            mosaic[:, 0, row::period, col::period] = colors[:, "RGB".index(name), row::period, col::period]
    return mosaic


def _rounded(signal: Tensor, num_levels: int | None) -> Tensor:
    return signal if num_levels is None else (signal * num_levels).round() / num_levels
