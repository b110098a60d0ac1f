"""The noise of a mosaic, measured from its samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pellucid.backends.parity import dead_leaves
from pellucid.degradations.cameras import Sensor
from pellucid.degradations.raw_synthesis import NoisyRaw
from pellucid.pictures.camera.photon_transfer import MIN_LEVEL, measure_noise_level
from pellucid.pictures.picture import Exposure, Mosaic, NoiseLevel


def take(shot: float, read: float, photo: torch.Tensor) -> Mosaic:
    noisy = NoisyRaw(sensors=(Sensor(shot, read),), exposure=0.6)
    return replace(noisy.degrade_whole(photo, torch.Generator().manual_seed(0))[0], noise=None)


def deviation(noise: NoiseLevel, light: float) -> float:
    return float((noise.shot * light + noise.read) ** 0.5)


@pytest.mark.parametrize(("shot", "read"), [(1e-4, 1e-7), (1e-3, 2e-6), (6e-3, 3e-5)])
def test_noise_on_a_ramp_is_measured(shot: float, read: float) -> None:
    ramp = torch.linspace(0, 1, 640).expand(1, 3, 512, 640)
    found = measure_noise_level(take(shot, read, ramp))
    for light in (0.005, 0.05, 0.4):
        assert deviation(found, light) == pytest.approx(deviation(NoiseLevel(shot, read), light), rel=0.15)


def test_texture_hardly_counts_as_noise() -> None:
    leaves = dead_leaves(512, torch.Generator().manual_seed(0))[None]
    found = measure_noise_level(take(2e-3, 5e-6, leaves))
    for light in (0.05, 0.4):
        assert 0.85 < deviation(found, light) / deviation(NoiseLevel(2e-3, 5e-6), light) < 1.4


def test_the_iso_limits_what_texture_may_be_taken_for() -> None:
    rng = np.random.default_rng(0)
    mosaic = Mosaic(rng.integers(512, 9000, (300, 300)).astype(np.uint16), ("RG", "GB"), 512.0, 16383.0)
    assert measure_noise_level(mosaic).shot > 0.01
    assert measure_noise_level(replace(mosaic, exposure=Exposure(iso=100))).shot == pytest.approx(1e-4)


@pytest.mark.parametrize("size", [(2, 2), (16, 400)])
def test_mosaics_without_squares_have_the_smallest_noise(size: tuple[int, int]) -> None:
    mosaic = Mosaic(np.full(size, 700, np.uint16), ("RG", "GB"), 512.0, 16383.0)
    assert measure_noise_level(mosaic) == MIN_LEVEL
