from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pellucid.pictures import resize as resize_module
from pellucid.pictures.resize import reach, resize, resize_8bit, resize_to

SCALES = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(2), Fraction(3), Fraction(4)]
any_scale = st.sampled_from([*SCALES, Fraction(1), Fraction(3, 2), Fraction(2, 3)])


def noise(seed: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(1, 1, height, width, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def mirror(image: Tensor, margin: int) -> Tensor:
    """Pad by mirroring including the border pixel: numpy's symmetric."""
    return torch.from_numpy(np.pad(image[0, 0].numpy(), margin, mode="symmetric"))[None, None]


def scale_slice(side: slice, scale: Fraction) -> slice:
    return slice(int(side.start * scale), int(side.stop * scale))


def samples(path: Path) -> Tensor:
    array = np.array(Image.open(path))
    return torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(2, 0, 1)


@pytest.mark.golden
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("name", "num_pictures"), [("Set5", 5), ("Set14", 14)])
def test_results_equal_matlab_bit_for_bit(data: Path, name: str, num_pictures: int, scale: int) -> None:
    folder = data / "super_resolution" / "matlab_lr" / f"{name}_SRF{scale}"
    large = sorted(folder.glob("*_HR.png"))
    assert len(large) == num_pictures
    for path in large:
        expected = samples(path.with_name(path.name.replace("_HR", "_LR")))
        assert torch.equal(resize_8bit(samples(path), Fraction(1, scale)), expected), path.name


@pytest.mark.parametrize("scale", SCALES)
@given(seed=st.integers(0, 10**6), height=st.integers(5, 9), width=st.integers(5, 12))
def test_results_equal_torch_on_a_mirrored_picture(scale: Fraction, seed: int, height: int, width: int) -> None:
    # torch's antialiased bicubic equals MATLAB's except at the border, so the border is moved away.
    image = noise(seed, height * scale.denominator, width * scale.denominator, torch.float64)
    margin = 4 * scale.denominator
    padded = mirror(image, margin)
    size = [int(n * scale) for n in padded.shape[-2:]]
    enlarged = F.interpolate(padded, size=size, mode="bicubic", antialias=True)
    cut = int(margin * scale)
    expected = enlarged[..., cut:-cut, cut:-cut]
    torch.testing.assert_close(resize(image, scale), expected, rtol=0, atol=1e-12)


def test_a_step() -> None:
    # Keys' kernel at a = -1/2 gives the two middle outputs of an enlarged step: the taps of phase 1/4 are
    # -0.0703125, 0.8671875, 0.2265625, -0.0234375.
    step = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    expected = [0.0, 0.0, 0.0, -0.0234375, -0.0703125, 0.203125, 0.796875, 1.0703125, 1.0234375, 1.0, 1.0, 1.0]
    assert resize(step, 2)[0].tolist() == pytest.approx(expected, abs=1e-15)


@given(any_scale, st.integers(1, 9), st.integers(1, 9), st.sampled_from([torch.float32, torch.float64]))
def test_constants_are_kept_and_sizes_round_up(
    scale: Fraction, height: int, width: int, dtype: torch.dtype
) -> None:
    result = resize(torch.full((2, 3, height, width), 0.75, dtype=dtype), scale)
    assert result.shape == (2, 3, ceil(height * scale), ceil(width * scale))
    assert result.dtype == dtype
    torch.testing.assert_close(result, torch.full_like(result, 0.75), rtol=0, atol=1e-6)


@given(any_scale, st.integers(1, 5), st.integers(1, 5), st.integers(0, 255))
def test_constants_are_kept_at_8_bit(scale: Fraction, height: int, width: int, value: int) -> None:
    result = resize_8bit(torch.full((1, height, width), value, dtype=torch.uint8), scale)
    assert result.shape == (1, ceil(height * scale), ceil(width * scale))
    assert result.dtype == torch.uint8
    assert (result == value).all()


@st.composite
def parts(draw: st.DrawFn, scale: Fraction) -> tuple[int, slice, slice]:
    """(size of a side, a part on the grid of the scale, the inner part that no cut affects)."""
    down = scale.denominator
    before, count, after = draw(st.integers(0, 8)), draw(st.integers(1, 12)), draw(st.integers(0, 8))
    # The widened kernel reaches 2 / scale, less than 4 steps of the grid. Borders of the image need no margin.
    kept = slice(before and before + 4, (before and before + 4) + count)
    stop = kept.stop + (4 if after else 0)
    size = stop + after
    start = before
    return size * down, slice(start * down, stop * down), slice(kept.start * down, kept.stop * down)


@given(any_scale, st.integers(0, 10**6), st.data())
def test_a_crop_has_the_bits_of_the_whole(scale: Fraction, seed: int, data: st.DataObject) -> None:
    height, rows, kept_rows = data.draw(parts(scale))
    width, cols, kept_cols = data.draw(parts(scale))
    image = noise(seed, height, width)
    whole = resize(image, scale)[..., scale_slice(kept_rows, scale), scale_slice(kept_cols, scale)]
    part = resize(image[..., rows, cols], scale)
    in_rows = scale_slice(slice(kept_rows.start - rows.start, kept_rows.stop - rows.start), scale)
    in_cols = scale_slice(slice(kept_cols.start - cols.start, kept_cols.stop - cols.start), scale)
    assert whole.numel() > 0
    assert torch.equal(part[..., in_rows, in_cols], whole)


@given(st.integers(2, 4), st.integers(0, 10**6), st.integers(1, 20), st.integers(0, 15))
def test_an_enlarged_crop_equals_the_whole_beyond_its_reach(scale: int, seed: int, size: int, start: int) -> None:
    image = noise(seed, 3, 16 + size)
    kept = start + (reach(scale) if start else 0)
    part = resize(image[..., start:], scale)[..., (kept - start) * scale :]
    assert torch.equal(part, resize(image, scale)[..., kept * scale :])


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("beyond", [0, 1, 2, 3, 5, 8, 17, 20])
def test_reach_agrees_with_gradients(scale: int, beyond: int) -> None:
    center = beyond + 6
    row = torch.zeros(1, 2 * center + 1, dtype=torch.float64, requires_grad=True)
    enlarged = resize(row, scale)[0, center * scale - beyond : (center + 1) * scale + beyond]
    # Positive random factors, so that taps of opposite signs do not cancel.
    factors = 1 + torch.rand(len(enlarged), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((enlarged * factors).sum(), row)
    seen = gradient[0].nonzero().flatten() - center
    assert reach(scale, beyond=beyond) == int(seen.abs().max())


def test_gradients_work_after_inference() -> None:
    """Tensors cached in inference mode must work in training too."""
    with torch.inference_mode():
        expected = resize(torch.ones(1, 37), 2)
    row = torch.ones(1, 37, requires_grad=True)
    result = resize(row, 2)
    torch.autograd.backward(result.sum())
    assert torch.equal(result.detach(), expected)
    assert row.grad is not None
    assert row.grad.sum().item() == pytest.approx(4 * 37)


def test_the_border_is_mirrored_or_clamped() -> None:
    row = torch.tensor([[0.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    mirror = resize(torch.tensor([[3.0, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0]], dtype=torch.float64), 2)[:, 8:16]
    clamp = resize(torch.tensor([[0.0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 3]], dtype=torch.float64), 2)[:, 8:16]
    torch.testing.assert_close(resize(row, 2), mirror, rtol=0, atol=1e-15)
    torch.testing.assert_close(resize(row, 2, border="clamp"), clamp, rtol=0, atol=1e-15)
    assert not torch.equal(mirror, clamp)


def test_8_bit_is_rounded_and_clamped_after_each_pass() -> None:
    """An edge between black and white overshoots on both sides and is clamped."""
    image = torch.tensor([[0, 0, 0, 255, 255, 255]] * 2, dtype=torch.uint8)
    assert resize_8bit(image, 2)[0].tolist() == [0, 0, 0, 0, 0, 52, 203, 255, 255, 255, 255, 255]


def test_half_the_size_at_8_bit() -> None:
    # Keys' kernel at 1/4, 3/4, 5/4 and 7/4, divided by 2: exact weights, and exact halves before rounding.
    one_side = [0.43359375, 0.11328125, -0.03515625, -0.01171875]
    weights = np.array([*reversed(one_side), *one_side])

    def halve(samples: NDArray[Any], axis: int) -> NDArray[Any]:
        lines = np.moveaxis(samples, axis, 0)
        padded = np.concatenate([lines[:1].repeat(3, 0), lines, lines[-1:].repeat(3, 0)]).astype(float)
        sums = [np.tensordot(weights, padded[i : i + 8], 1) for i in range(0, len(lines), 2)]
        return np.moveaxis(np.floor(np.stack(sums) + 0.5).clip(0, 255), 0, axis)

    # Few gray levels, so that sums are often halves.
    samples = 64 * np.random.default_rng(0).integers(0, 4, (60, 80))
    expected = halve(halve(samples, 0), 1)
    assert (expected != halve(halve(samples, 1), 0)).any()  # the order of the passes matters
    result = resize_8bit(torch.from_numpy(samples.astype(np.uint8)), Fraction(1, 2))
    np.testing.assert_array_equal(result.numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_default_type_of_pytorch_changes_nothing(dtype: torch.dtype) -> None:
    image = noise(0, 3, 1200)
    expected = resize_to(image, 3, 1644)
    try:
        torch.set_default_dtype(dtype)
        resize_module._contributions.cache_clear()
        resize_module._contributions_on.cache_clear()
        assert torch.equal(resize_to(image, 3, 1644), expected)
    finally:
        torch.set_default_dtype(torch.float32)
