from collections.abc import Callable

import numpy as np
import pytest
import skimage.color
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pellucid.pictures.color import (
    linear_to_srgb,
    rgb_to_gray,
    rgb_to_luma,
    rgb_to_ycbcr,
    srgb_to_linear,
    ycbcr_to_rgb,
)

# Results of MATLAB's rgb2ycbcr at a peak of 255 (documented: Y from 16 to 235, chroma from 16 to 240).
KNOWN = [
    ((1, 1, 1), (235.0, 128.0, 128.0)),
    ((0, 0, 0), (16.0, 128.0, 128.0)),
    ((1, 0, 0), (81.481, 90.203, 240.0)),
    ((0, 1, 0), (144.553, 53.797, 34.214)),
    ((0, 0, 1), (40.966, 240.0, 109.786)),
]


def pixel(rgb: tuple[float, float, float]) -> Tensor:
    return torch.tensor(rgb, dtype=torch.float64).reshape(1, 3, 1, 1)


def photo(seed: int, height: int = 5, width: int = 7) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rgb", "expected"), KNOWN)
def test_known_colors(rgb: tuple[float, float, float], expected: tuple[float, float, float]) -> None:
    ycbcr = 255 * rgb_to_ycbcr(pixel(rgb)).flatten()
    assert ycbcr.tolist() == pytest.approx(expected, abs=1e-9)
    assert 255 * rgb_to_luma(pixel(rgb)).item() == pytest.approx(expected[0], abs=1e-9)


@given(st.integers(0, 10**6))
def test_ycbcr_agrees_with_skimage(seed: int) -> None:
    rgb = photo(seed).double()
    expected = skimage.color.rgb2ycbcr(rgb[0].permute(1, 2, 0).numpy()) / 255
    np.testing.assert_allclose(rgb_to_ycbcr(rgb)[0].permute(1, 2, 0).numpy(), expected, atol=1e-12)


@given(st.integers(0, 10**6))
def test_ycbcr_round_trips(seed: int) -> None:
    rgb = photo(seed)
    torch.testing.assert_close(ycbcr_to_rgb(rgb_to_ycbcr(rgb)), rgb, rtol=0, atol=1e-6)
    torch.testing.assert_close(ycbcr_to_rgb(rgb_to_ycbcr(rgb.double())), rgb.double(), rtol=0, atol=1e-14)


def test_luma_is_the_first_plane_of_ycbcr() -> None:
    rgb = photo(0)
    assert torch.equal(rgb_to_luma(rgb), rgb_to_ycbcr(rgb)[:, :1])


def test_values_beyond_the_range_are_not_clamped() -> None:
    assert 255 * rgb_to_luma(pixel((2, 2, 2))).item() == pytest.approx(16 + 2 * 219)


def test_gray_has_the_weights_of_matlab() -> None:
    # rgb2gray uses the first row of inv([1 .956 .621; 1 -.272 -.647; 1 -1.106 1.703]).
    from_yiq = np.array([[1, 0.956, 0.621], [1, -0.272, -0.647], [1, -1.106, 1.703]])
    expected = np.linalg.inv(from_yiq)[0]
    weights = [rgb_to_gray(pixel(rgb)).item() for rgb in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert weights == pytest.approx(expected.tolist(), abs=1e-4)


def test_gray_keeps_white() -> None:
    # MATLAB's weights add up to 1; otherwise a 16-bit gray of 65535 would become 65528.
    assert rgb_to_gray(pixel((1, 1, 1))).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("convert", [rgb_to_gray, rgb_to_luma, rgb_to_ycbcr, ycbcr_to_rgb])
@given(seed=st.integers(0, 10**6), top=st.integers(0, 8), left=st.integers(0, 40))
def test_a_crop_has_the_bits_of_the_whole(
    convert: Callable[[Tensor], Tensor], seed: int, top: int, left: int
) -> None:
    whole = photo(seed, 9, 41)
    assert torch.equal(convert(whole[..., top:, left:]), convert(whole)[..., top:, left:])


@pytest.mark.parametrize("convert", [rgb_to_gray, rgb_to_luma, rgb_to_ycbcr, ycbcr_to_rgb])
def test_any_leading_dimensions(convert: Callable[[Tensor], Tensor]) -> None:
    rgb = photo(1)
    assert torch.equal(convert(rgb[0]), convert(rgb)[0])
    assert convert(rgb).dtype == torch.float32


def test_the_srgb_curve_agrees_with_skimage() -> None:
    """In scikit-image, the XYZ of a gray is its linear light times the white point."""
    levels = np.concatenate([np.arange(256) / 255, [0.04045, 0.0404, 0.0405]])
    gray = np.repeat(levels[:, None], 3, axis=1)
    expected = skimage.color.rgb2xyz(gray)[:, 1] / skimage.color.rgb2xyz(np.ones((1, 3)))[0, 1]
    light = srgb_to_linear(torch.from_numpy(levels))
    np.testing.assert_allclose(light.numpy(), expected, atol=1e-7)
    np.testing.assert_allclose(linear_to_srgb(light).numpy(), levels, atol=1e-7)


def test_linear_light_has_finite_gradients() -> None:
    for curve in (srgb_to_linear, linear_to_srgb):
        values = torch.tensor([0.0, 1e-3, 0.5, 1.0], requires_grad=True)
        (slope,) = torch.autograd.grad(curve(values).sum(), values)
        assert slope.isfinite().all() and (slope > 0).all()
