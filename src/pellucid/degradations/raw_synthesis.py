"""Synthetic camera RAW: a developed picture -> the mosaic that a sensor could have recorded, with its noise."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.degradations.cameras import (
    BLACK_LEVEL,
    NUM_LEVELS,
    PHONES,
    RAW_CAMERAS,
    RGB_TO_XYZ,
    XYZ_TO_CAMERA,
    Sensor,
)
from pellucid.degradations.degradation import Degradation, Footprint, apply, footprint, join_footprints
from pellucid.degradations.rng import (
    Generator,
    Range,
    accepts_shards,
    draw_integers,
    draw_normal,
    draw_poisson,
    draw_uniform,
    log_uniform,
    uniform,
)
from pellucid.pictures.camera.packing import BAYER, apply_gains
from pellucid.pictures.camera.raw import develop_mosaic
from pellucid.pictures.camera.stabilizing import stabilize
from pellucid.pictures.picture import Mosaic, NoiseLevel, Picture
from pellucid.system import devices


class Cameras(NamedTuple):
    """How a camera sees and develops each picture of a batch.

    matrix: (N, 3, 3) from linear sRGB to the camera's colors, white to white. gains: (N, 3) of the white balance,
    1 for green. brightness: (N,) of green, relative to the linear picture.
    """

    matrix: Tensor
    gains: Tensor
    brightness: Tensor


@dataclass(frozen=True)
class Unprocess:
    """The mosaic that a camera could have developed into this sRGB picture.

    (N, 3, H, W) sRGB -> (N, 1, H, W), linear, white is 1. This inverts the tone curve, gamma, the color matrix (a
    random mixture of those of four cameras), brightening, and white balance. Saturated pixels stay saturated.
    pattern: of the color filters, row by row, from the corner. red_gain, blue_gain: of the white balance.
    brightness: of green, relative to the linear picture; None: drawn from a normal distribution, 0.8 +- 0.1.
    Source: Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019, and its released code.
    """

    pattern: tuple[str, ...] = BAYER
    red_gain: Range = (1.9, 2.4)
    blue_gain: Range = (1.5, 1.9)
    brightness: float | None = None

    draws = accepts_shards = True

    @property
    def footprint(self) -> Footprint:
        return Footprint(grid_px=len(self.pattern))

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        return self.expose(clean, generator)[0]

    def expose(self, clean: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """The mosaic, and its white balance: (N, 3) gains of red, green and blue, 1 for green."""
        cameras = self.draw_cameras(len(clean), generator)
        return self.record(clean, cameras), cameras.gains

    def record(self, clean: Tensor, cameras: Cameras) -> Tensor:
        """The mosaic that these cameras record, (N, 1, H, W)."""
        matrix, gains, brightness = cameras
        toned = 0.5 - torch.sin(torch.asin(1 - 2 * clean.clamp(0, 1)) / 3)
        light = toned.clamp(min=1e-8) ** 2.2
        colors = torch.einsum("nij,njhw->nihw", matrix.to(light), light)
        shares = (brightness[:, None] / gains)[..., None, None].to(light)
        near_white = ((colors.mean(dim=1, keepdim=True) - 0.9).clamp(min=0) / 0.1) ** 2
        shares = torch.maximum(near_white + (1 - near_white) * shares, shares)
        return _apply_filters((colors * shares).clamp(0, 1), self.pattern)

    def draw_cameras(self, count: int, generator: Generator) -> Cameras:
        """A camera for each of `count` pictures."""
        weights = draw_uniform((count, 4, 1, 1), generator).double()
        cameras, to_xyz = (devices.to_device(matrix, weights.device) for matrix in (XYZ_TO_CAMERA, RGB_TO_XYZ))
        to_camera = (weights * cameras.to(weights)).sum(dim=1) @ to_xyz.to(weights)
        dimmed = 0.8 + 0.1 * draw_normal((count,), generator)
        red, blue = (uniform(gain, count, generator) for gain in (self.red_gain, self.blue_gain))
        gains = torch.stack([red, torch.ones_like(red), blue], dim=1)
        brightness = dimmed if self.brightness is None else torch.full_like(dimmed, self.brightness)
        return Cameras(to_camera / to_camera.sum(dim=-1, keepdim=True), gains, brightness)


@dataclass(frozen=True)
class SensorNoise:
    """The noise of a sensor in linear light: Poisson shot noise, Gaussian read noise, row noise, quantization.

    (N, C, H, W) mosaics or planes -> the same. Black is 0 and white is 1; the result is clipped to that range.
    sensor: how strong the noise is. num_levels: from black to white; None: no quantization.
    Source: Wei et al., "A Physics-based Noise Formation Model for Extreme Low-light Raw Denoising", CVPR 2020.
    """

    sensor: Sensor = PHONES
    num_levels: int | None = NUM_LEVELS

    draws = True
    footprint = Footprint()

    @property
    def accepts_shards(self) -> bool:
        return accepts_shards(self.sensor)

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        light = clean.to(generator.device)
        signal = _add_noise(light, *self.sensor.draw(len(light), generator), generator).clamp(0, 1)
        return _quantize(signal, self.num_levels).to(clean.device)


@dataclass(frozen=True)
class SyntheticRaw:
    """A dark, noisy camera RAW exposure of the scene in a developed picture, made as bright as that picture.

    (N, 3, H, W) sRGB -> (N, 1, H, W) linear, not clipped at white: what PackedRaw makes of the `mosaic` of the
    same exposure, so that training and restoration agree.
    exposure_ratio: how many times shorter the exposure is. noise: of the dark exposure, e.g. SensorNoise.
    white_balanced: whether the samples of each filter are multiplied by the camera's white balance.
    """

    unprocess: Unprocess = Unprocess(brightness=1.0)
    noise: Degradation = SensorNoise()
    exposure_ratio: Range = (50.0, 300.0)
    white_balanced: bool = True

    draws = True

    @property
    def accepts_shards(self) -> bool:
        return accepts_shards(self.unprocess)

    @property
    def footprint(self) -> Footprint:
        return join_footprints(footprint(self.unprocess), footprint(self.noise))

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        signal, ratio, gains = self._expose(clean, generator)
        bright = signal * ratio.to(signal).reshape(-1, 1, 1, 1)
        return apply_gains(bright, gains.to(signal), self.unprocess.pattern) if self.white_balanced else bright

    def mosaic(self, clean: Tensor, generator: Generator) -> Mosaic:
        """The exposure of one picture, (1, 3, H, W), as in a camera's file: 14 bits, black 512, white 16383."""
        signal, ratio, gains = self._expose(clean, generator)
        red, green, blue = gains[0].tolist()
        return Mosaic(
            _to_levels(signal),
            self.unprocess.pattern,
            float(BLACK_LEVEL),
            float(BLACK_LEVEL + NUM_LEVELS),
            exposure_ratio=ratio.item(),
            white_balance=(red, green, blue),
        )

    def warnings_for(self, degraded: Picture | Mosaic) -> Iterator[str]:
        """Why a network that learned from these exposures may restore this one badly."""
        if isinstance(self.exposure_ratio, tuple) and isinstance(degraded, Mosaic):
            low, high = self.exposure_ratio
            if not low <= degraded.exposure_ratio <= high:
                yield (
                    f"the exposure ratio is {degraded.exposure_ratio:.3g}, but the weights were trained for "
                    f"{low:g} to {high:g}: for pictures that are much too dark"
                )

    def _expose(self, clean: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        ratio = uniform(self.exposure_ratio, len(clean), generator)
        light, gains = self.unprocess.expose(clean, generator)
        return apply(self.noise, light / ratio.to(light).reshape(-1, 1, 1, 1), generator), ratio, gains


@dataclass(frozen=True)
class NoisyRaw:
    """A camera RAW exposure with the noise of its sensor. The target is the same exposure without noise.

    (N, 3, H, W) sRGB -> (N, 3, H, W): the linear mosaic, and the shot and the read part of its `NoiseLevel` in
    each pixel, as `StableRaw` makes it of a mosaic. The target is (N, 1, H, W), on the scale of `stabilize`.
    Samples below black are kept, as in RAW files, and the offset of rows counts as read noise.

    sensors: one of them for each picture, all equally likely. exposure: factor on the light, uniform on a
    logarithmic scale. num_levels: from black to white.
    """

    unprocess: Unprocess = Unprocess()
    sensors: tuple[Sensor, ...] = (RAW_CAMERAS,)
    exposure: Range = (0.1, 1.0)
    num_levels: int = NUM_LEVELS

    draws = True

    @property
    def accepts_shards(self) -> bool:
        return all(map(accepts_shards, (self.unprocess, *self.sensors)))

    @property
    def footprint(self) -> Footprint:
        return footprint(self.unprocess)

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        return self.make_pair(clean, generator)[0]

    def make_pair(self, clean: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """(degraded, target)."""
        noisy, light, shot, read, _ = self._expose(clean, generator)
        levels = [level.to(light).expand_as(light) for level in (shot, read)]
        return torch.cat([noisy, *levels], dim=1), stabilize(light, *levels)

    def degrade_whole(self, clean: Tensor, generator: Generator) -> tuple[Mosaic, Tensor]:
        """One picture, (1, 3, H, W), as in a camera's file, and the mosaic without noise developed by LibRaw.

        The file has 14 bits, black 512 and white 16383.
        """
        noisy, light, shot, read, gains = self._expose(clean, generator)
        red, green, blue = gains[0].tolist()
        mosaic = Mosaic(
            _to_levels(noisy),
            self.unprocess.pattern,
            float(BLACK_LEVEL),
            float(BLACK_LEVEL + NUM_LEVELS),
            white_balance=(red, green, blue),
            noise=NoiseLevel(shot.item(), read.item()),
        )
        clean_mosaic = replace(mosaic, samples=_to_levels(light))
        return mosaic, develop_mosaic(clean_mosaic, keeps_white=True).to_tensor()

    def _expose(self, clean: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Mosaics with and without noise, shot and read noise of each, (N, 1, 1, 1), and white balances."""
        exposure = log_uniform(self.exposure, len(clean), generator)
        light, gains = self.unprocess.expose(clean, generator)
        light = light * exposure.to(light).reshape(-1, 1, 1, 1)
        gain, read, row = self._draw_sensors(len(light), generator)
        noisy = _add_noise(light.to(generator.device), gain, read, row, generator).clamp(max=1)
        shot, read = (part.to(light).reshape(-1, 1, 1, 1) for part in (gain, read + row))
        return _quantize(noisy, self.num_levels).to(clean.device), light, shot, read, gains

    def _draw_sensors(self, count: int, generator: Generator) -> Tensor:
        """(3, count): gain, read and row variance of each picture."""
        drawn = torch.stack([torch.stack(sensor.draw(count, generator)) for sensor in self.sensors])
        which = draw_integers(len(self.sensors), (count,), generator)
        return drawn[which, :, torch.arange(count, device=which.device)].T


def _add_noise(light: Tensor, gain: Tensor, read: Tensor, row: Tensor, generator: Generator) -> Tensor:
    """(N, C, H, W) light with the noise of each picture's (N,) gain, read and row variance; not clipped."""
    gain, read, row = (part.to(light).reshape(-1, 1, 1, 1) for part in (gain, read, row))

    def normal(*shape: int) -> Tensor:
        return draw_normal(shape, generator, dtype=light.dtype)

    electrons = draw_poisson(light.clamp(min=0) / gain, generator)
    offset = row.sqrt() * normal(len(light), 1, light.shape[-2], 1)
    return gain * electrons + read.sqrt() * normal(*light.shape) + offset


def _to_levels(linear: Tensor) -> NDArray[np.uint16]:
    """A linear mosaic, (1, 1, H, W), in the levels of the Sony camera of See in the Dark."""
    return (linear[0, 0] * NUM_LEVELS + BLACK_LEVEL).round().clamp(min=0).cpu().numpy().astype(np.uint16)


def _apply_filters(colors: Tensor, pattern: tuple[str, ...]) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W): the color of each pixel's filter."""
    period, mosaic = len(pattern), colors.new_empty(len(colors), 1, *colors.shape[-2:])
    for row, filters in enumerate(pattern):
        for col, name in enumerate(filters):
            mosaic[:, 0, row::period, col::period] = colors[:, "RGB".index(name), row::period, col::period]
    return mosaic


def _quantize(signal: Tensor, num_levels: int | None) -> Tensor:
    return signal if num_levels is None else (signal * num_levels).round() / num_levels
