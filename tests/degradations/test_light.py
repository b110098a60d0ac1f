from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from test_degradation import clean, seeded
from torch import Tensor

from pellucid.degradations.camera_shake import CameraShake, MeasuredShake
from pellucid.degradations.cameras import NUM_LEVELS, Sensor
from pellucid.degradations.degradation import footprint
from pellucid.degradations.motion_blur import MotionBlur
from pellucid.degradations.raw_synthesis import SensorNoise, SyntheticRaw, Unprocess
from pellucid.domains import PackedRaw
from pellucid.pictures.packing import BAYER


def noisy(shot: float, read: float = 0.0, row: float = 0.0, num_levels: int | None = None) -> SensorNoise:
    return SensorNoise(Sensor(shot, read, row), num_levels)


def test_sensor_noise_has_the_variance_of_its_light() -> None:
    light = torch.linspace(0.2, 0.8, 4).reshape(4, 1, 1, 1).expand(-1, -1, 400, 500)
    noise = noisy(1e-3, 2e-4)(light, seeded(0)) - light
    # Of 200,000 samples: the variance is known to 0.3 %, the mean to 0.03 / 447.
    assert noise.mean(dim=(1, 2, 3)).abs().max() < 4e-4
    expected = 1e-3 * light[:, 0, 0, 0] + 2e-4
    torch.testing.assert_close(noise.var(dim=(1, 2, 3)), expected, rtol=0.02, atol=0)


def test_shot_noise_is_counted_in_whole_electrons() -> None:
    """A sensor without other noise sees multiples of one electron, as often as Poisson says."""
    electrons = noisy(0.1)(torch.full((1, 1, 400, 500), 0.25), seeded(0)) * 10
    torch.testing.assert_close(electrons, electrons.round(), rtol=0, atol=1e-4)
    shares = torch.bincount(electrons.round().int().flatten(), minlength=6)[:6] / electrons.numel()
    np.testing.assert_allclose(shares, scipy.stats.poisson.pmf(np.arange(6), 2.5), atol=0.004)


def test_a_row_of_a_sensor_shares_its_offset() -> None:
    light = torch.full((1, 1, 300, 400), 0.5)
    noise = noisy(1e-8, row=1e-4)(light, seeded(0)) - light
    assert noise.std(dim=-1).max() < 2e-4
    assert noise.mean(dim=-1).std().item() == pytest.approx(0.01, rel=0.15)  # of 300 rows: 4 %


def test_a_sensor_counts_in_whole_numbers_between_black_and_white() -> None:
    light = torch.rand(2, 1, 60, 60, generator=seeded(1))
    counted = noisy(0.01, 1e-3, num_levels=100)(light, seeded(0)) * 100
    torch.testing.assert_close(counted, counted.round(), rtol=0, atol=1e-4)
    assert (counted.min().item(), counted.max().item()) == (0, 100)


def test_unprocessing_undoes_development() -> None:
    """A gray ramp: the color matrix keeps gray, so each filter sees its share of the linear light."""
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


def test_what_was_unprocessed_can_be_processed_again() -> None:
    """Flat colors, so that no demosaicking is needed: gain, matrix, gamma and tone curve give them back."""
    srgb = 0.2 + 0.5 * torch.rand(40, 3, generator=seeded(5))
    unprocess = Unprocess()
    mosaic, gains = unprocess.exposed(srgb[..., None, None].expand(-1, -1, 2, 2), seeded(9))
    matrix, also_gains, brightness = unprocess.cameras(40, seeded(9))
    assert torch.equal(gains, also_gains)
    colors = torch.stack([mosaic[:, 0, 0, 0], mosaic[:, 0, 0, 1], mosaic[:, 0, 1, 1]], dim=1).double()
    balanced = colors * gains / brightness[:, None]
    light = torch.linalg.solve(matrix.double(), balanced[..., None])[..., 0]
    toned = light.clamp(min=0) ** (1 / 2.2)
    torch.testing.assert_close((3 * toned**2 - 2 * toned**3).float(), srgb, rtol=0, atol=2e-4)
    assert not torch.equal(matrix[0], matrix[1])  # another camera for each


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
def test_networks_learn_from_what_restoration_shows_them(white_balanced: bool, seed: int) -> None:
    exposed = replace(EXPOSED, white_balanced=white_balanced)
    domain = PackedRaw(white_balanced=white_balanced)
    planes = domain.encode(exposed(clean(1, 3), seeded(seed)))
    torch.testing.assert_close(
        domain.to_input(exposed.mosaic(clean(1, 3), seeded(seed))), planes, rtol=0, atol=2e-5
    )


def test_a_synthetic_exposure_is_dark_in_its_file_and_as_bright_as_the_picture_afterwards() -> None:
    mosaic = replace(EXPOSED, exposure_ratio=100.0).mosaic(torch.full((1, 3, 200, 200), 0.5), seeded(3))
    assert (mosaic.samples.dtype.name, mosaic.exposure_ratio, mosaic.pattern) == ("uint16", 100, BAYER)
    light = 0.5**2.2  # the tone curve keeps the middle
    for row, col, color in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        assert mosaic.white_balance is not None
        share = (mosaic.samples[row::2, col::2].mean() - 512) / NUM_LEVELS * 100 * mosaic.white_balance[color]
        assert share == pytest.approx(light, rel=0.03)
    gray = PackedRaw(white_balanced=True).to_input(mosaic).mean(dim=(2, 3))[0]
    assert gray.tolist() == pytest.approx([light] * 4, rel=0.03)


def test_exposures_of_a_batch_differ() -> None:
    bright = EXPOSED(torch.full((60, 3, 20, 20), 0.5), seeded(0))
    noise = bright[:, 0, 0::2, 1::2].var(dim=(1, 2))  # of green, which is multiplied with the ratio alone
    # As many times as large as the ratio, 50 to 300: 1e-4 * light a time, read noise by its square.
    assert 3 < noise.max() / noise.min() < 40


def test_a_longer_exposure_is_less_noisy() -> None:
    gray = torch.full((1, 3, 100, 100), 0.5)
    deviations = [
        replace(EXPOSED, exposure_ratio=ratio)(gray, seeded(0)).std().item() for ratio in (1.0, 50.0, 300.0)
    ]
    assert 3 * deviations[0] < deviations[1] < deviations[2] / 2


def test_no_motion_is_no_blur() -> None:
    still = MotionBlur(CameraShake(0.0, 9))
    torch.testing.assert_close(still(clean(), seeded(0)), clean(), rtol=0, atol=1e-6)


def test_motion_blur_is_a_convolution_of_linear_light() -> None:
    """Against SciPy, in double precision, with a kernel that is no mirror image of itself."""
    kernel = np.array([[0.0, 3.0, 1.0], [0.0, 2.0, 0.0], [4.0, 0.0, 0.0]])
    picture = clean(1, 3)
    blurred = MotionBlur(MeasuredShake([kernel], kernel_px=9))(picture, seeded(0))[0].double().numpy()
    drawn = MeasuredShake([kernel], kernel_px=9).kernels(1, seeded(0))[0].double().numpy()
    srgb = picture[0].double().numpy()
    light = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    spread = np.stack([scipy.ndimage.convolve(plane, drawn, mode="reflect") for plane in light])
    expected = np.where(spread <= 0.0031308, 12.92 * spread, 1.055 * spread ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(blurred, expected, atol=2e-6)
    assert np.abs(blurred - srgb).max() > 0.05


def test_a_white_line_fades_as_light_does() -> None:
    """Spread over many pixels, a share of the light looks brighter than that share of white."""
    line = torch.zeros(1, 1, 41, 41)
    line[..., 20] = 1
    blurred = MotionBlur(CameraShake(15.0, 21, 0.0))(line, seeded(1))
    assert blurred.amax() < 0.95
    light = torch.where(blurred <= 0.04045, blurred / 12.92, ((blurred + 0.055) / 1.055) ** 2.4)
    assert light.sum().item() == pytest.approx(41, rel=1e-4)
    assert blurred.sum() > 1.3 * 41


def test_highlights_outshine_their_blur() -> None:
    lamp = torch.full((1, 1, 31, 31), 0.2)
    lamp[..., 14:17, 14:17] = 1
    shake = CameraShake(8.0, 15, 0.0)
    plain, bright = (MotionBlur(shake, highlights=beyond)(lamp, seeded(2)) for beyond in (0.0, 5.0))
    assert bright.max().item() == pytest.approx(1, abs=1e-6)  # clipped where the sensor is full
    assert plain.max() < 0.9
    assert (bright > 0.9999).sum() > 14  # wider than the lamp
    dim = torch.full((1, 1, 31, 31), 0.9)  # below white, nothing shines more than it shows
    torch.testing.assert_close(MotionBlur(shake, highlights=5.0)(dim, seeded(2)), dim)


def test_noise_comes_after_the_blur() -> None:
    flat = torch.full((1, 1, 300, 300), 0.5)
    light = ((0.5 + 0.055) / 1.055) ** 2.4
    noise = noisy(1e-4, 2e-5)
    result = MotionBlur(CameraShake(20.0), noise=noise)(flat, seeded(0))
    back = ((result + 0.055) / 1.055) ** 2.4
    assert (back - light).var().item() == pytest.approx(1e-4 * light + 2e-5, rel=0.05)
    assert torch.corrcoef(torch.stack([back[..., 1:].flatten(), back[..., :-1].flatten()]))[0, 1].abs() < 0.02


@dataclass(frozen=True, eq=False)
class Fixed:
    """A shake that is always the same."""

    kernel: Tensor

    @property
    def kernel_px(self) -> int:
        return len(self.kernel)

    def kernels(self, count: int, generator: torch.Generator) -> Tensor:
        return self.kernel.expand(count, -1, -1)


def test_each_picture_of_a_batch_is_blurred_by_its_own_kernel() -> None:
    batch, shake = clean(4, 3), CameraShake((2.0, 12.0), 9)
    together = MotionBlur(shake)(batch, seeded(6))
    for i, kernel in enumerate(shake.kernels(4, seeded(6))):
        alone = MotionBlur(Fixed(kernel))(batch[i : i + 1], seeded(0))[0]
        torch.testing.assert_close(together[i], alone, rtol=0, atol=1e-6)


def test_motion_blur_sees_as_far_as_it_says() -> None:
    whole, blur = torch.rand(1, 3, 60, 60, generator=seeded(3)), MotionBlur(CameraShake(40.0, 11))
    reach = footprint(blur).reach_px
    window = whole[..., 20 - reach : 40 + reach, 20 - reach : 40 + reach]
    expected = blur(whole, seeded(0))[..., 20:40, 20:40]
    torch.testing.assert_close(blur(window, seeded(0))[..., reach:-reach, reach:-reach], expected)


def test_motion_blur_mirrors_beyond_the_edges() -> None:
    flat = torch.full((2, 3, 5, 6), 0.25)
    torch.testing.assert_close(MotionBlur(CameraShake(20.0))(flat, seeded(0)), flat)
