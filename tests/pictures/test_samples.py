"""Samples as planes and back, compared with the definition in double precision."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.pictures.samples import PEAKS, Samples, to_depth, to_planes, to_samples


def draw(dtype: str, height: int, width: int, channels: int, seed: int = 0) -> Samples:
    return (np.random.default_rng(seed).random((height, width, channels)) * PEAKS[dtype]).astype(dtype)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", PEAKS)
@given(height=st.integers(1, 9), width=st.integers(1, 9), channels=st.integers(1, 5))
def test_planes_are_the_samples_divided_by_white(
    dtype: str, channels_last: bool, height: int, width: int, channels: int
) -> None:
    samples = draw(dtype, height, width, channels)
    planes = to_planes(samples, channels_last=channels_last)
    expected = (samples.transpose(2, 0, 1)[None].astype(np.float64) / PEAKS[dtype]).astype(np.float32)
    assert planes.dtype == torch.float32 and np.array_equal(planes.numpy(), expected)
    assert planes.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize("dtype", PEAKS)
def test_planes_share_no_memory_and_take_views_and_read_only_samples(dtype: str) -> None:
    samples = draw(dtype, 8, 6, 3)
    before = samples.copy()
    mirrored = samples[::-1, ::-1].swapaxes(0, 1)
    mirrored.flags.writeable = False
    for channels_last in (False, True):
        planes = to_planes(mirrored, channels_last=channels_last)
        assert np.array_equal(to_samples(planes, dtype), mirrored)
        planes.zero_()
    assert np.array_equal(samples, before)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_integers_are_clamped_and_rounded_half_up(dtype: str, kind: torch.dtype, channels_last: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    planes = torch.empty(1, 3, 40, 50).uniform_(-0.3, 1.3, generator=generator).to(kind)
    planes.view(-1)[:5] = torch.tensor([-torch.inf, torch.inf, 0.5, 1.0, 0.0])
    if channels_last:
        planes = planes.contiguous(memory_format=torch.channels_last)
    exact = planes[0].permute(1, 2, 0).double().clamp(0, 1).numpy() * PEAKS[dtype]
    found = to_samples(planes[..., 3:, 5:], dtype)
    assert found.dtype == dtype and found.shape == (37, 45, 3)
    wanted = np.floor(exact + 0.5)[3:, 5:]
    is_near_half = abs(exact[3:, 5:] % 1 - 0.5) < 0.01  # computed in single precision
    assert np.array_equal(found[~is_near_half], wanted[~is_near_half].astype(dtype))
    assert (abs(found - wanted) <= 1).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_halves_are_rounded_up(dtype: str) -> None:
    steps = torch.tensor([0, 1, 2, 63, 127]).double()
    planes = ((steps + 0.5) / PEAKS[dtype]).reshape(1, 1, 1, 5)
    assert to_samples(planes, dtype).ravel().tolist() == (steps + 1).tolist()


@pytest.mark.parametrize("given_dtype", PEAKS)
@pytest.mark.parametrize("dtype", PEAKS)
def test_white_and_black_stay_at_every_depth(given_dtype: str, dtype: str) -> None:
    samples = np.array([0, PEAKS[given_dtype]], given_dtype).reshape(1, 2, 1)
    assert to_depth(samples, dtype).ravel().tolist() == [0, PEAKS[dtype]]


def test_8_bits_survive_16_bits_and_floats() -> None:
    samples = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert np.array_equal(to_depth(samples, "uint16"), samples.astype(np.uint16) * 257)
    for dtype in ("uint16", "float32"):
        assert np.array_equal(to_depth(to_depth(samples, dtype), "uint8"), samples)
