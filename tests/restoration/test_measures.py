"""The measurement of noise, against noise of known strength."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.pictures.picture import Picture
from pellucid.restoration import measures
from pellucid.restoration.measures import estimate_noise


@given(st.floats(3, 30), st.sampled_from([1, 3]), st.sampled_from(["uint8", "uint16"]), st.integers(0, 100))
def test_white_noise_is_measured(sigma_255: float, channels: int, dtype: str, seed: int) -> None:
    rows, cols = np.mgrid[:200, :200]
    smooth = 128 + 40 * np.sin(rows / 30) * np.cos(cols / 25)
    rng = np.random.default_rng(seed)
    noisy = np.clip(smooth[:, :, None] + rng.normal(0, sigma_255, (200, 200, channels)), 0, 255)
    scale = 1 if dtype == "uint8" else 257
    measured = estimate_noise(Picture((noisy * scale).round().astype(dtype)))
    assert measured == pytest.approx(sigma_255, rel=0.1)


@pytest.mark.parametrize("sigma_255", [0.05, 0.3, 1.1])
def test_noise_below_the_steps_of_8_bits_is_measured(sigma_255: float) -> None:
    samples = 0.5 + np.random.default_rng(0).normal(0, sigma_255 / 255, (200, 200, 1))
    assert estimate_noise(Picture(samples.astype(np.float32))) == pytest.approx(sigma_255, rel=0.05)


def test_clean_pictures_have_little_noise() -> None:
    rows, cols = np.mgrid[:100, :100]
    assert estimate_noise(Picture(((rows + cols) % 256).astype(np.uint8)[:, :, None])) < 1
    assert estimate_noise(Picture(np.zeros((2, 2, 1), np.uint8))) == 0


@given(st.lists(st.floats(0, 1e4, width=32), min_size=1, max_size=50))
def test_the_median_is_that_of_numpy(values: list[float]) -> None:
    array = np.array(values, np.float32)
    assert measures._find_median(array) == np.median(array)
