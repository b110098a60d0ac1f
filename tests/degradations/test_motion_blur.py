from dataclasses import dataclass

import numpy as np
import pytest
import scipy.ndimage
import torch
from test_degradation import clean, seeded
from torch import Tensor

from pellucid.degradations.camera_shake import CameraShake, MeasuredShake
from pellucid.degradations.cameras import Sensor
from pellucid.degradations.degradation import footprint
from pellucid.degradations.motion_blur import MotionBlur
from pellucid.degradations.raw_synthesis import SensorNoise


def test_a_camera_that_does_not_move_does_not_blur() -> None:
    still = MotionBlur(CameraShake(0.0, 9))
    torch.testing.assert_close(still(clean(), seeded(0)), clean(), rtol=0, atol=1e-6)


def test_motion_blur_is_a_convolution_of_linear_light() -> None:
    """Against SciPy, in double precision, with an asymmetric kernel."""
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


def test_a_white_line_fades_in_linear_light() -> None:
    """In sRGB, a fraction of the light is brighter than that fraction of white."""
    line = torch.zeros(1, 1, 41, 41)
    line[..., 20] = 1
    blurred = MotionBlur(CameraShake(15.0, 21, 0.0))(line, seeded(1))
    assert blurred.amax() < 0.95
    light = torch.where(blurred <= 0.04045, blurred / 12.92, ((blurred + 0.055) / 1.055) ** 2.4)
    assert light.sum().item() == pytest.approx(41, rel=1e-4)
    assert blurred.sum() > 1.3 * 41


def test_blurred_highlights_stay_white() -> None:
    lamp = torch.full((1, 1, 31, 31), 0.2)
    lamp[..., 14:17, 14:17] = 1
    shake = CameraShake(8.0, 15, 0.0)
    plain, bright = (MotionBlur(shake, highlights=beyond)(lamp, seeded(2)) for beyond in (0.0, 5.0))
    assert bright.max().item() == pytest.approx(1, abs=1e-6)  # clipped, as by a saturated sensor
    assert plain.max() < 0.9
    assert (bright > 0.9999).sum() > 14  # wider than the lamp
    dim = torch.full((1, 1, 31, 31), 0.9)  # below white, nothing changes
    torch.testing.assert_close(MotionBlur(shake, highlights=5.0)(dim, seeded(2)), dim)


def test_noise_is_added_after_the_blur() -> None:
    flat = torch.full((1, 1, 300, 300), 0.5)
    light = ((0.5 + 0.055) / 1.055) ** 2.4
    noise = SensorNoise(Sensor(1e-4, 2e-5), num_levels=None)
    result = MotionBlur(CameraShake(20.0), noise=noise)(flat, seeded(0))
    back = ((result + 0.055) / 1.055) ** 2.4
    assert (back - light).var().item() == pytest.approx(1e-4 * light + 2e-5, rel=0.05)
    assert torch.corrcoef(torch.stack([back[..., 1:].flatten(), back[..., :-1].flatten()]))[0, 1].abs() < 0.02


@dataclass(frozen=True, eq=False)
class FixedShake:
    """Always the same kernel."""

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
        alone = MotionBlur(FixedShake(kernel))(batch[i : i + 1], seeded(0))[0]
        torch.testing.assert_close(together[i], alone, rtol=0, atol=1e-6)


def test_motion_blur_reads_no_further_than_its_footprint() -> None:
    whole, blur = torch.rand(1, 3, 60, 60, generator=seeded(3)), MotionBlur(CameraShake(40.0, 11))
    reach = footprint(blur).reach_px
    window = whole[..., 20 - reach : 40 + reach, 20 - reach : 40 + reach]
    expected = blur(whole, seeded(0))[..., 20:40, 20:40]
    torch.testing.assert_close(blur(window, seeded(0))[..., reach:-reach, reach:-reach], expected)


def test_motion_blur_mirrors_beyond_the_edges() -> None:
    flat = torch.full((2, 3, 5, 6), 0.25)
    torch.testing.assert_close(MotionBlur(CameraShake(20.0))(flat, seeded(0)), flat)
