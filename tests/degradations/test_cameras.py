import math

import numpy as np
import pytest
import torch

from pellucid.degradations.cameras import (
    NIKON_D850,
    NUM_LEVELS,
    PHONES,
    RGB_TO_XYZ,
    SONY_A7S2_HIGH,
    SONY_A7S2_LOW,
    XYZ_TO_CAMERA,
    Sensor,
    ShotDependentVariance,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_read_noise_of_phones_follows_the_published_fit() -> None:
    """Brooks et al., released code: log read = 2.18 log shot + 1.20 +- 0.26. Our gain is their shot."""
    gain, read, row = PHONES.draw(4000, seeded(0))
    difference = read.log() - (2.18 * gain.log() + 1.20)
    assert difference.mean().item() == pytest.approx(0, abs=0.02)
    assert difference.std().item() == pytest.approx(0.26, rel=0.05)
    assert row.max() == 0


def test_gains_are_uniform_on_a_logarithmic_scale() -> None:
    gain, _, _ = PHONES.draw(4000, seeded(0))
    counts, _ = np.histogram(gain.log().numpy(), bins=8, range=(math.log(1e-4), math.log(0.012)))
    assert counts.sum() == 4000
    assert all(abs(count - 500) < 100 for count in counts)  # deviation 21


def test_fixed_numbers_are_not_drawn() -> None:
    gain, read, row = Sensor(1e-3, 2e-4, 3e-6).draw(3, seeded(0))
    assert [part.tolist() for part in (gain, read, row)] == [pytest.approx([x] * 3) for x in (1e-3, 2e-4, 3e-6)]
    _, _, row = Sensor(1e-3, 2e-4, ShotDependentVariance(2, 0)).draw(3, seeded(0))
    assert row.tolist() == pytest.approx([1e-6] * 3)


@pytest.mark.parametrize(
    ("sensor", "levels_per_electron", "read_levels", "row_levels"),
    # Measurements at ISO 200, 1600, 3200 and 12800, in 14-bit levels: published along with the fits.
    [
        (SONY_A7S2_LOW, 0.19126, 1.2926, 0.2282),
        (SONY_A7S2_LOW, 1.53008, 6.2993, 0.9888),
        (SONY_A7S2_HIGH, 3.06016, 3.9194, 0.4454),
        (SONY_A7S2_HIGH, 12.24064, 14.2459, 1.2750),
    ],
)
def test_fits_agree_with_measurements(
    sensor: Sensor, levels_per_electron: float, read_levels: float, row_levels: float
) -> None:
    gains = torch.full((500,), levels_per_electron / NUM_LEVELS)
    for part, expected in ((sensor.read, read_levels), (sensor.row, row_levels)):
        assert isinstance(part, ShotDependentVariance)
        levels = part.draw(gains, seeded(0)).sqrt() * NUM_LEVELS
        assert levels.mean().item() == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("sensor", [SONY_A7S2_LOW, SONY_A7S2_HIGH, NIKON_D850])
def test_gains_are_within_the_range_of_the_sensor(sensor: Sensor) -> None:
    gain, _, _ = sensor.draw(1000, seeded(0))
    assert isinstance(sensor.gain, tuple)
    assert sensor.gain[0] <= gain.min() and gain.max() <= sensor.gain[1] * (1 + 1e-6)


def test_white_is_white_for_every_camera() -> None:
    """Each row of the matrix from sRGB has a sum above 0; otherwise white could not be balanced."""
    to_camera = XYZ_TO_CAMERA @ RGB_TO_XYZ
    assert to_camera.shape == (4, 3, 3)
    assert (to_camera.sum(dim=-1) > 0.3).all()
    # D65 of sRGB, IEC 61966-2-1.
    np.testing.assert_allclose(RGB_TO_XYZ.sum(dim=1), [0.9505, 1.0, 1.089], atol=1e-3)


def test_published_sensors_are_represented_by_their_names() -> None:
    assert repr(SONY_A7S2_LOW) == "SONY_A7S2_LOW"
    assert repr(Sensor(1e-3, 1e-4)) == "Sensor(gain=0.001, read=0.0001, row=0.0)"
