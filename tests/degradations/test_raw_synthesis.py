from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from test_degradation import clean, seeded

from pellucid.degradations.cameras import NUM_LEVELS, Sensor
from pellucid.degradations.raw_synthesis import SensorNoise, SyntheticRaw, Unprocess
from pellucid.domains import PackedRaw
from pellucid.pictures.camera.exposure import MAX_EXPOSURE_RATIO
from pellucid.pictures.camera.packing import BAYER
from pellucid.recipes import registry


def noisy(gain: float, read: float = 0.0, row: float = 0.0, num_levels: int | None = None) -> SensorNoise:
    return SensorNoise(Sensor(gain, read, row), num_levels)


def test_sensor_noise_variance_grows_with_the_light() -> None:
    light = torch.linspace(0.2, 0.8, 4).reshape(4, 1, 1, 1).expand(-1, -1, 400, 500)
    noise = noisy(1e-3, 2e-4)(light, seeded(0)) - light
    # Of 200,000 samples: the variance is known to 0.3 %, the mean to 0.03 / 447.
    assert noise.mean(dim=(1, 2, 3)).abs().max() < 4e-4
    expected = 1e-3 * light[:, 0, 0, 0] + 2e-4
    torch.testing.assert_close(noise.var(dim=(1, 2, 3)), expected, rtol=0.02, atol=0)


def test_shot_noise_comes_in_whole_electrons() -> None:
    """Without other noise, samples are multiples of one electron, with Poisson's frequencies."""
    electrons = noisy(0.1)(torch.full((1, 1, 400, 500), 0.25), seeded(0)) * 10
    torch.testing.assert_close(electrons, electrons.round(), rtol=0, atol=1e-4)
    shares = torch.bincount(electrons.round().int().flatten(), minlength=6)[:6] / electrons.numel()
    np.testing.assert_allclose(shares, scipy.stats.poisson.pmf(np.arange(6), 2.5), atol=0.004)


def test_the_samples_of_a_row_share_an_offset() -> None:
    light = torch.full((1, 1, 300, 400), 0.5)
    noise = noisy(1e-8, row=1e-4)(light, seeded(0)) - light
    assert noise.std(dim=-1).max() < 2e-4
    assert noise.mean(dim=-1).std().item() == pytest.approx(0.01, rel=0.15)  # of 300 rows: 4 %


def test_sensor_noise_is_quantized_and_clipped() -> None:
    light = torch.rand(2, 1, 60, 60, generator=seeded(1))
    counted = noisy(0.01, 1e-3, num_levels=100)(light, seeded(0)) * 100
    torch.testing.assert_close(counted, counted.round(), rtol=0, atol=1e-4)
    assert (counted.min().item(), counted.max().item()) == (0, 100)


def test_unprocessing_inverts_development() -> None:
    """A gray ramp: the color matrix keeps gray, so that each filter records a fraction of the linear light."""
    linear = torch.linspace(0.01, 0.6, 50, dtype=torch.float64)
    toned = linear ** (1 / 2.2)
    developed = 3 * toned**2 - 2 * toned**3
    ramp = developed.reshape(1, 1, 1, -1).expand(1, 3, 2, -1).repeat_interleave(2, dim=-1).float()
    mosaic = Unprocess(red_gain=2.0, blue_gain=1.6)(ramp, seeded(0))[0, 0].double()
    red, green, other, blue = mosaic[0, 0::2], mosaic[0, 1::2], mosaic[1, 0::2], mosaic[1, 1::2]
    dimmed = green / linear
    assert 0.4 < dimmed[0] < 1.2
    for share in (dimmed, other / linear, 2.0 * red / linear, 1.6 * blue / linear):
        torch.testing.assert_close(share, dimmed[:1].expand(50), rtol=1e-4, atol=0)


def test_unprocessed_pictures_can_be_processed_again() -> None:
    """Flat colors, so that no demosaicking is needed: gain, matrix, gamma and tone curve restore them."""
    srgb = 0.2 + 0.5 * torch.rand(40, 3, generator=seeded(5))
    unprocess = Unprocess()
    mosaic, gains = unprocess.expose(srgb[..., None, None].expand(-1, -1, 2, 2), seeded(9))
    matrix, also_gains, brightness = unprocess.draw_cameras(40, seeded(9))
    assert torch.equal(gains, also_gains)
    colors = torch.stack([mosaic[:, 0, 0, 0], mosaic[:, 0, 0, 1], mosaic[:, 0, 1, 1]], dim=1).double()
    balanced = colors * gains / brightness[:, None]
    light = torch.linalg.solve(matrix.double(), balanced[..., None])[..., 0]
    toned = light.clamp(min=0) ** (1 / 2.2)
    torch.testing.assert_close((3 * toned**2 - 2 * toned**3).float(), srgb, rtol=0, atol=2e-4)
    assert not torch.equal(matrix[0], matrix[1])  # a new camera for each picture


def test_saturated_pixels_stay_saturated() -> None:
    assert Unprocess()(torch.ones(3, 3, 4, 4), seeded(0)).min().item() == pytest.approx(1, abs=1e-5)


def test_each_pixel_keeps_the_color_of_its_filter() -> None:
    pattern = ("RGB", "GBR", "BRG")
    red = torch.zeros(1, 3, 6, 6)
    red[:, 0] = 0.5
    mosaic = Unprocess(pattern)(red, seeded(0))[0, 0]
    brightest = torch.tensor([[name == "R" for name in row * 2] for row in pattern * 2])
    assert torch.equal(mosaic > 0.6 * mosaic.max(), brightest)


EXPOSED = SyntheticRaw(noise=noisy(1e-4, 1e-7, 1e-8, NUM_LEVELS))


@pytest.mark.parametrize("white_balanced", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_and_restoration_give_networks_the_same_planes(white_balanced: bool, seed: int) -> None:
    exposed = replace(EXPOSED, white_balanced=white_balanced)
    domain = PackedRaw(white_balanced=white_balanced)
    planes = domain.encode(exposed(clean(1, 3), seeded(seed)))
    torch.testing.assert_close(
        domain.to_input(exposed.mosaic(clean(1, 3), seeded(seed))), planes, rtol=0, atol=2e-5
    )


def test_a_synthetic_exposure_is_dark_in_its_file_and_bright_for_the_network() -> None:
    mosaic = replace(EXPOSED, exposure_ratio=100.0).mosaic(torch.full((1, 3, 200, 200), 0.5), seeded(3))
    assert (mosaic.samples.dtype.name, mosaic.exposure_ratio, mosaic.pattern) == ("uint16", 100, BAYER)
    light = 0.5**2.2  # the tone curve does not change 0.5
    for row, col, color in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        assert mosaic.white_balance is not None
        share = (mosaic.samples[row::2, col::2].mean() - 512) / NUM_LEVELS * 100 * mosaic.white_balance[color]
        assert share == pytest.approx(light, rel=0.03)
    gray = PackedRaw(white_balanced=True).to_input(mosaic).mean(dim=(2, 3))[0]
    assert gray.tolist() == pytest.approx([light] * 4, rel=0.03)


def test_exposures_of_a_batch_differ() -> None:
    bright = EXPOSED(torch.full((60, 3, 20, 20), 0.5), seeded(0))
    noise = bright[:, 0, 0::2, 1::2].var(dim=(1, 2))  # of green, which is multiplied by the ratio only
    # Proportional to the ratio, 50 to 300, for shot noise; to its square for read noise.
    assert 3 < noise.max() / noise.min() < 40


def test_the_darkest_exposures_are_the_darkest_that_are_brightened() -> None:
    """A camera RAW file is multiplied by MAX_EXPOSURE_RATIO at most, so networks learn up to it."""
    assert SyntheticRaw().exposure_ratio == (50, MAX_EXPOSURE_RATIO)
    assert registry.find("sid_unet.any_camera").parameters["exposure_ratio"] == (50, MAX_EXPOSURE_RATIO)


def test_a_longer_exposure_is_less_noisy() -> None:
    gray = torch.full((1, 3, 100, 100), 0.5)
    deviations = [
        replace(EXPOSED, exposure_ratio=ratio)(gray, seeded(0)).std().item() for ratio in (1.0, 50.0, 300.0)
    ]
    assert 3 * deviations[0] < deviations[1] < deviations[2] / 2
