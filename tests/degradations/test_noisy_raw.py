"""RAW exposures with noise, and the same without."""

import numpy as np
import pytest
import torch
from test_degradation import seeded

from pellucid.degradations.cameras import NUM_LEVELS, Sensor, find_noise
from pellucid.degradations.raw_synthesis import NoisyRaw
from pellucid.domains import StableRaw
from pellucid.pictures.camera.packing import BAYER, pack_bayer

DIM = NoisyRaw(sensors=(Sensor(1e-3, 2e-5, 1e-5),), exposure=(0.2, 0.3))


def gray(count: int = 1, level: float = 0.5) -> torch.Tensor:
    return torch.full((count, 3, 200, 240), level)


def test_the_noise_has_the_variance_that_the_network_is_told() -> None:
    degraded, _ = DIM.make_pair(gray(4), seeded(0))
    samples, shot, read = degraded.split(1, dim=1)
    assert torch.all(shot == 1e-3) and torch.allclose(read, torch.tensor(3e-5))  # 2e-5 of samples, 1e-5 of rows
    for site in pack_bayer(samples).flatten(0, 1):
        expected = 1e-3 * site.mean() + 3e-5
        assert site.var().item() == pytest.approx(expected.item(), rel=0.1)


def test_samples_below_black_are_kept() -> None:
    degraded, target = DIM.make_pair(torch.zeros(1, 3, 200, 240), seeded(0))
    assert degraded[:, :1].mean().abs() < 1e-3 and degraded[:, :1].min() < -0.01
    assert target.abs().max() < 1e-3
    mosaic, _ = DIM.degrade_whole(torch.zeros(1, 3, 200, 240), seeded(0))
    assert mosaic.samples.min() < 512 - 100


def test_training_and_restoration_see_the_same_samples() -> None:
    """The same seed: the planes of training, rounded to levels, are those of the file."""
    photo = torch.rand(1, 3, 40, 60, generator=seeded(1))
    domain, (mosaic, _) = StableRaw(), DIM.degrade_whole(photo, seeded(0))
    trained, restored = domain.encode(DIM(photo, seeded(0))), domain.to_input(domain.accept(mosaic))
    assert mosaic.pattern == BAYER and mosaic.noise is not None
    torch.testing.assert_close(restored, trained, rtol=0, atol=1e-5)


def test_the_target_of_a_whole_picture_is_developed_without_noise() -> None:
    _, target = DIM.degrade_whole(gray(), seeded(0))
    assert target.shape == (1, 3, 200, 240)
    inner = target[..., 20:-20, 20:-20]
    assert inner.std(dim=(2, 3)).max() < 0.002
    channels = inner.mean(dim=(0, 2, 3))
    assert channels.max() - channels.min() < 0.01  # gray stays gray
    assert target.mean() > 0.05


def test_each_picture_has_a_sensor_of_its_own() -> None:
    both = NoisyRaw(sensors=(Sensor(1e-4, 1e-8), Sensor(1e-2, 1e-4)))
    shots = both(gray(16), seeded(0))[:, 1, 0, 0]
    assert set(np.round(shots.tolist(), 6)) == {1e-4, 1e-2}


@pytest.mark.parametrize(
    ("model", "iso", "electron"),
    # 14-bit levels per electron: Wei et al. at ISO 100, times ISO / 100; Feng et al. at ISO 2000, times 2.
    [("NIKON D850", 3200, 0.41504 * 32), ("Canon EOS 70D", 800, 0.40750 * 8), ("ILCE-7SM2", 4000, 2 * 1.90722)],
)
def test_the_noise_of_measured_cameras_is_known(model: str, iso: float, electron: float) -> None:
    found = find_noise(model, iso)
    assert found is not None
    shot, read = found
    assert shot * NUM_LEVELS == pytest.approx(electron, rel=1e-3)
    assert 0.3 < read**0.5 / shot < 5  # electrons
    assert find_noise("Pinhole", iso) is None
