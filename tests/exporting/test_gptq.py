"""Rounded together, weights do what they did on what they will read."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pellucid.exporting import gptq


def _drawn(rows: int, taps: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, steps, and inputs that go together, as neighbouring pixels do."""
    rng = torch.Generator().manual_seed(seed)
    weights = torch.randn(rows, taps, generator=rng)
    inputs = torch.rand(2000, 1, generator=rng) + 0.05 * torch.randn(2000, taps, generator=rng)
    return weights, weights.abs().amax(1, keepdim=True).double() / 127, inputs.double()


@settings(max_examples=20, deadline=None)
@given(st.integers(16, 64), st.integers(16, 90), st.integers(0, 10**6))
def test_errors_cancel(rows: int, taps: int, seed: int) -> None:
    weights, steps, inputs = _drawn(rows, taps, seed)
    together = gptq.round_jointly(weights, steps, inputs.T @ inputs / len(inputs), 127)
    nearest = (weights / steps).round()
    assert torch.equal(together, together.round()) and together.abs().max() <= 127
    lost = [((whole * steps - weights) @ inputs.T).square().mean() for whole in (together, nearest)]
    assert lost[0] < lost[1] / 2


def test_without_correlation_each_goes_to_its_nearest() -> None:
    weights, steps, _ = _drawn(5, 40, 0)
    for moments in (torch.eye(40).double(), torch.zeros(40, 40).double()):
        assert torch.equal(gptq.round_jointly(weights, steps, moments, 127), (weights / steps).round())


def test_no_number_is_larger_than_it_may_be() -> None:
    weights, steps, inputs = _drawn(5, 40, 1)
    assert gptq.round_jointly(weights, steps / 3, inputs.T @ inputs, 63).abs().max() == 63


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_moments_tell_how_loud_a_convolution_is(
    stride: int, dilation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gptq, "STRIDE", 1)
    features, weights = torch.rand(2, 3, 13, 17), torch.randn(4, 3, 3, 5)
    moments = gptq.second_moments(features, (3, 5), (stride, stride), (dilation, dilation))
    loudness = F.conv2d(features, weights, stride=stride, dilation=dilation).square().mean((0, 2, 3))
    rows = weights.flatten(1).double()
    torch.testing.assert_close(((rows @ moments) * rows).sum(1).float(), loudness, rtol=1e-4, atol=1e-5)
