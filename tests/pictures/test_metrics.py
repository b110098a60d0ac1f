"""Metrics, compared with scikit-image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pellucid.pictures import metrics


@given(
    height=st.integers(11, 40),
    width=st.integers(11, 40),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_scores_agree_with_scikit_image(height: int, width: int, channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.random((height, width, channels))
    restored = np.clip(target + rng.normal(0, 0.1, target.shape), 0, 1)
    planes = [torch.from_numpy(x).permute(2, 0, 1)[None] for x in (restored, target)]
    assert metrics.psnr(*planes) == pytest.approx(
        peak_signal_noise_ratio(target, restored, data_range=1), abs=1e-9
    )
    # scikit-image also filters beyond the border, but its mean excludes 5 px, so it covers the valid area.
    expected = structural_similarity(
        target,
        restored,
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2,
    )
    assert metrics.ssim(*planes) == pytest.approx(expected, abs=1e-9)


def test_equal_pictures_have_infinite_psnr_and_ssim_1() -> None:
    picture = torch.rand(1, 1, 16, 16)
    assert metrics.psnr(picture, picture) == math.inf
    assert metrics.ssim(picture, picture) == pytest.approx(1)


def test_a_known_error_has_a_known_psnr() -> None:
    target = torch.zeros(1, 1, 4, 4)
    assert metrics.psnr(target + 0.1, target) == pytest.approx(20, abs=1e-5)


def test_a_picture_smaller_than_the_window_has_no_ssim() -> None:
    assert metrics.ssim(torch.rand(1, 1, 10, 30), torch.rand(1, 1, 10, 30)) is None
