"""Noise of cameras in finished pictures: demosaicing, development, and likeness to measured noise."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_degradation import PixelByPixel, clean, seeded
from torch import Tensor

from pellucid.degradations.camera_noise import CameraNoise, demosaic, render, smooth
from pellucid.degradations.degradation import Chain, Degradation, OneOf, footprint, make_pair
from pellucid.degradations.raw_synthesis import Cameras, Unprocess
from pellucid.degradations.standard import Jpeg, Rounding, ShiftedJpeg
from pellucid.errors import RecipeError
from pellucid.pictures import images

BRIGHTER = PixelByPixel(lambda mosaic: mosaic * 1.1)
"""In the place of noise, so that only the camera is drawn."""


def photo(count: int = 1, height: int = 96, width: int = 128) -> Tensor:
    return clean(count, 3, height, width) * 0.8 + 0.1


@given(st.tuples(*[st.floats(-0.02, 0.02)] * 2), st.tuples(*[st.floats(0.2, 0.8)] * 3))
def test_ramps_are_interpolated_exactly(slopes: tuple[float, float], levels: tuple[float, float, float]) -> None:
    """The filters of Malvar et al. are exact if colors have constant differences and luma is linear."""
    rows, cols = torch.meshgrid(torch.arange(12.0), torch.arange(14.0), indexing="ij")
    colors = torch.tensor(levels)[:, None, None] + slopes[0] * rows + slopes[1] * cols
    mosaic = torch.empty(12, 14)
    for row, filters in enumerate(("RG", "GB")):
        for col, name in enumerate(filters):
            mosaic[row::2, col::2] = colors["RGB".index(name), row::2, col::2]
    inner = slice(2, -2)
    interpolated = demosaic(mosaic[None, None])[0]
    torch.testing.assert_close(interpolated[:, inner, inner], colors[:, inner, inner], rtol=0, atol=1e-5)


def test_interpolated_colors_keep_the_samples_of_the_mosaic() -> None:
    mosaic = torch.rand(2, 1, 11, 13, generator=seeded(1))
    colors = demosaic(mosaic)
    for color, (row, col) in ((0, (0, 0)), (1, (0, 1)), (1, (1, 0)), (2, (1, 1))):
        assert torch.equal(colors[:, color, row::2, col::2], mosaic[:, 0, row::2, col::2])


def test_development_is_the_reverse_of_unprocessing() -> None:
    unprocess, pictures = Unprocess(), photo(4).mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    cameras = unprocess.draw_cameras(4, seeded(2))
    developed = render(unprocess.record(pictures, cameras), cameras, torch.ones(4))
    # What is left is demosaicing, which is nearly exact for gray pictures.
    assert (developed - pictures)[..., 4:-4, 4:-4].abs().mean() < 2 / 255


def test_without_tone_curve_only_gamma_is_applied() -> None:
    gray = torch.full((1, 1, 8, 8), 0.25)
    neutral = Cameras(torch.eye(3).double()[None], torch.ones(1, 3), torch.ones(1))
    assert render(gray, neutral, torch.zeros(1)).mean().item() == pytest.approx(0.25 ** (1 / 2.2), abs=1e-5)


def test_smoothing_is_a_gaussian() -> None:
    impulse = torch.zeros(2, 1, 41, 41)
    impulse[..., 20, 20] = 1
    spread = smooth(impulse, torch.tensor([1.0, 2.0]), 12)
    distance = (torch.arange(41) - 20.0) ** 2
    for blurred, expected in zip(spread, (1, 4), strict=True):
        assert blurred.sum().item() == pytest.approx(1, abs=1e-4)
        assert (blurred[0].sum(dim=0) * distance).sum().item() == pytest.approx(expected, rel=0.01)


def test_a_deviation_of_zero_changes_nothing() -> None:
    torch.testing.assert_close(smooth(photo(), torch.zeros(1), 3), photo())


def test_the_target_has_neither_noise_nor_compression() -> None:
    """It depends on the camera alone: another sensor or file gives the same target."""
    pairs = [
        make_pair(CameraNoise(noise=noise, compression=compression), photo(), seeded(3))
        for noise, compression in ((BRIGHTER, Jpeg(10)), (PixelByPixel(torch.sqrt), Rounding()))
    ]
    assert torch.equal(pairs[0][1], pairs[1][1])
    assert not torch.equal(pairs[0][0], pairs[1][0])
    torch.testing.assert_close(CameraNoise()(photo(), seeded(4)), make_pair(CameraNoise(), photo(), seeded(4))[0])


def test_without_noise_and_compression_the_picture_is_its_target() -> None:
    unchanged = PixelByPixel(lambda planes: planes)
    degraded, target = CameraNoise(noise=unchanged, compression=unchanged).make_pair(photo(), seeded(5))
    torch.testing.assert_close(degraded, target, rtol=0, atol=1e-6)


@pytest.mark.parametrize("compression", [Rounding(), Jpeg(90), ShiftedJpeg(90)], ids=repr)
def test_the_footprint_is_wide_enough(compression: Degradation) -> None:
    """The same camera is drawn for a whole picture and for the part of it that the footprint tells."""
    noise = CameraNoise(noise=BRIGHTER, compression=compression)
    grid, reach = footprint(noise).grid_px, footprint(noise).reach_px
    start = 112
    first = (start - reach) // grid * grid
    picture = photo(1, 256, 272)
    pictures = (picture, picture[..., first : 160 + reach, first : 160 + reach])
    whole, part = (noise.make_pair(planes, seeded(6)) for planes in pictures)
    inner, in_part = slice(start, 160), slice(start - first, 160 - first)
    for planes, planes_of_part in zip(whole, part, strict=True):
        difference = (planes[..., inner, inner] - planes_of_part[..., in_part, in_part]).abs()
        assert difference.max() <= 1.01 / 255  # a difference in the last bit may be rounded to the next level
        assert (difference > 1e-5).double().mean() < 0.01


@pytest.mark.parametrize("join", [Chain, OneOf])
def test_its_target_cannot_be_lost_in_another_degradation(join: type[Chain | OneOf]) -> None:
    with pytest.raises(RecipeError, match="makes its own target, so it cannot be a part"):
        join((CameraNoise(), Jpeg(50)))


@dataclass(frozen=True)
class Noise:
    """Deviation where white is 255, and correlation with the pixel to the right and the one after the next."""

    deviation_255: float
    correlation: float
    correlation_2: float


def measure_noise(noise: NDArray[np.float64]) -> tuple[Noise, Noise]:
    """Of (H, W, 3): its luma, and the mean of both chroma planes. Source of the weights: JFIF."""
    luma = noise @ [0.299, 0.587, 0.114]
    blue, red = noise[..., 2] - luma, noise[..., 0] - luma
    found = []
    for planes in ([luma], [blue / 1.772, red / 1.402]):
        centered = [plane - plane.mean() for plane in planes]
        variance = float(np.mean([(plane**2).mean() for plane in centered]))
        shifted = [
            float(np.mean([(plane[:, :-lag] * plane[:, lag:]).mean() for plane in centered])) / variance
            for lag in (1, 2)
        ]
        found.append(Noise(variance**0.5, *shifted))
    return found[0], found[1]


def average(measured: list[Noise]) -> NDArray[np.float64]:
    return np.mean([list(vars(noise).values()) for noise in measured], axis=0)


def test_uncompressed_noise_is_like_that_of_real_pictures(data: Path) -> None:
    """PolyU's cameras make JPEGs of high quality: luma is correlated over a pixel, chroma over several."""
    real = []
    for path in sorted((data / "denoising" / "PolyU").glob("*_real.JPG"))[::10]:
        noisy, mean = (
            images.read(p).samples.astype(float)
            for p in (path, path.with_name(path.name.replace("_real", "_mean")))
        )
        real.append(measure_noise(noisy - mean))
    synthetic = []
    for i, path in enumerate(sorted((data / "training" / "photos").iterdir())[::2]):
        picture = images.read(path).as_depth("float32").to_tensor()[..., :160, :160]
        degraded, target = CameraNoise(compression=Rounding()).make_pair(picture, seeded(i))
        synthetic.append(measure_noise((degraded - target)[0].permute(1, 2, 0).double().numpy() * 255))
    for of_real, of_synthetic in zip(zip(*real, strict=True), zip(*synthetic, strict=True), strict=True):
        expected, found = average(list(of_real)), average(list(of_synthetic))
        assert 0.5 < found[0] / expected[0] < 2
        # White noise has none, and without smoothing chroma has half of it.
        np.testing.assert_allclose(found[1:], expected[1:], rtol=0, atol=0.25)


def test_a_share_of_the_pictures_stays_clean() -> None:
    pictures = photo().repeat(40, 1, 1, 1)
    degraded, target = CameraNoise(clean_share=0.5).make_pair(pictures, seeded(6))
    is_clean = (target == pictures).flatten(1).all(dim=1)
    assert 10 <= int(is_clean.sum()) <= 30
    torch.testing.assert_close(degraded[is_clean], (pictures[is_clean] * 255).round() / 255)
    assert ((degraded - pictures)[~is_clean].flatten(1).abs().amax(dim=1) > 0.02).all()
    clean, _ = CameraNoise(clean_share=1.0).make_pair(pictures[:2], seeded(7))
    torch.testing.assert_close(clean, (pictures[:2] * 255).round() / 255)
