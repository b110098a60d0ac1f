"""Exposure ratios: from two exposures, and estimated from the brightness of one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_raw import noise, real_frame

from pellucid.errors import PictureError
from pellucid.pictures.camera import raw
from pellucid.pictures.camera.exposure import compute_exposure_ratio, estimate_exposure_ratio
from pellucid.pictures.camera.packing import BAYER, XTRANS
from pellucid.pictures.picture import Exposure, Mosaic


def mosaic_with_exposure(**known: float) -> Mosaic:
    return Mosaic(noise(4, 4), BAYER, 0, 16383, exposure=Exposure(**known))


@pytest.mark.parametrize(
    ("short", "long", "ratio"),
    [
        ({"time_s": 0.1}, {"time_s": 10}, 100),
        ({"time_s": 0.04}, {"time_s": 10}, 250),
        ({"time_s": 0.033}, {"time_s": 10}, 300),  # 303: clamped, as in the lists of the paper
        ({"time_s": 0.1}, {"time_s": 30}, 300),
        ({"time_s": 0.1, "iso": 100}, {"time_s": 1, "iso": 400}, 40),
        ({"time_s": 0.1, "f_number": 4}, {"time_s": 1, "f_number": 2}, 40),
        ({"time_s": 0.1, "iso": 100, "f_number": 2}, {"time_s": 1, "iso": 400, "f_number": 4}, 10),
        ({"time_s": 0.1, "iso": 100, "f_number": 2}, {"time_s": 1}, 10),
        ({"time_s": 2}, {"time_s": 2}, 1),
    ],
)
def test_exposure_ratios(short: dict[str, float], long: dict[str, float], ratio: float) -> None:
    assert compute_exposure_ratio(mosaic_with_exposure(**short), mosaic_with_exposure(**long)) == pytest.approx(
        ratio
    )


def test_impossible_exposure_ratios_are_refused() -> None:
    for short, long in (({"iso": 100}, {"time_s": 1}), ({"time_s": 1}, {"iso": 100, "f_number": 2})):
        with pytest.raises(PictureError, match="exposure time is missing"):
            compute_exposure_ratio(mosaic_with_exposure(**short), mosaic_with_exposure(**long))
    with pytest.raises(PictureError, match="10 times less light than the short one; swap"):
        compute_exposure_ratio(mosaic_with_exposure(time_s=1), mosaic_with_exposure(time_s=0.1))


def darken(given_mosaic: Mosaic, times: float, *, read_noise: float = 5, num_hot: int = 0) -> Mosaic:
    """The mosaic of a darker exposure: shot noise, read noise, 14 bit."""
    rng = np.random.default_rng(0)
    electrons = (given_mosaic.samples.astype(float) - 600).clip(0) / times
    samples = rng.poisson(electrons) + rng.normal(0, read_noise, electrons.shape) + 600
    hot = rng.choice(samples.size, num_hot, replace=False)
    samples.flat[hot] = rng.uniform(3000, 16383, num_hot)
    return replace(given_mosaic, samples=samples.round().clip(0, 16383).astype(np.uint16))


@pytest.mark.parametrize("times", [1, 10, 30, 100, 250])
@pytest.mark.parametrize("faults", [{}, {"read_noise": 20}, {"num_hot": 800}])
def test_the_estimate_is_proportional_to_darkness(data: Path, times: float, faults: dict[str, Any]) -> None:
    frame = real_frame(data)
    bright = estimate_exposure_ratio(frame)
    assert 1 < bright < 3  # a photograph in daylight, exposed for the sky
    estimate = estimate_exposure_ratio(darken(frame, times, **faults))
    expected = min(bright * times, 300)
    assert expected / 1.1 < estimate < expected * 1.1


def test_the_estimate_has_the_brightness_of_a_photograph(data: Path) -> None:
    frame = darken(real_frame(data), 50, read_noise=0)
    ratio = estimate_exposure_ratio(frame)
    above = (frame.samples.astype(float) - 600).clip(0) * ratio
    amplified = replace(frame, samples=(above + 600).clip(0, 15520).astype(np.uint16))
    developed = raw.develop_mosaic(amplified).samples / 65535
    assert 0.25 < developed.mean() < 0.55
    assert (developed.max(axis=2) > 0.999).mean() < 0.2


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
def test_a_uniform_gray_becomes_the_documented_brightness(pattern: tuple[str, ...]) -> None:
    # Gray is 0.4 after gamma 2.2 if the light is 0.4**2.2 of white.
    even = Mosaic(np.full((61, 73), 600 + 100, np.uint16), pattern, 600, 15600)
    assert estimate_exposure_ratio(even) == pytest.approx(0.4**2.2 / (100 / 15000), rel=1e-3)


def test_the_estimate_uses_the_white_balance() -> None:
    # The same gray in a light with little red and blue.
    light = np.array([[100 / 2, 100], [100, 100 / 5]])
    gray = Mosaic((600 + np.tile(light, (30, 30))).astype(np.uint16), BAYER, 600, 15600, white_balance=(2, 1, 5))
    assert estimate_exposure_ratio(gray) == pytest.approx(0.4**2.2 / (100 / 15000), rel=1e-3)


@pytest.mark.parametrize(("level", "ratio"), [(0, 300), (600, 300), (603, 300), (10000, 1), (16383, 1)])
def test_the_estimate_stays_within_its_limits(level: int, ratio: float) -> None:
    even = Mosaic(np.full((30, 40), level, np.uint16), BAYER, 600, 15600)
    assert estimate_exposure_ratio(even) == pytest.approx(ratio, rel=1e-3)


def test_highlights_limit_the_estimate() -> None:
    # A bright window on a fifth of a black picture: brightness alone would give 300.
    samples = np.full((100, 100), 600, np.uint16)
    samples[:, :20] = 600 + 1500
    window = Mosaic(samples, BAYER, 600, 15600)
    assert estimate_exposure_ratio(window) == pytest.approx(15000 / 1500, rel=1e-3)


@given(st.integers(1, 13), st.integers(1, 13), st.sampled_from([BAYER, XTRANS]))
def test_small_mosaics_are_estimated_or_refused(height: int, width: int, pattern: tuple[str, ...]) -> None:
    small = Mosaic(np.full((height, width), 700, np.uint16), pattern, 600, 15600)
    if min(height, width) < len(pattern):
        with pytest.raises(PictureError, match=f"at least {len(pattern)} x {len(pattern)}"):
            estimate_exposure_ratio(small)
    else:
        assert estimate_exposure_ratio(small) == pytest.approx(0.4**2.2 * 150, rel=1e-3)
