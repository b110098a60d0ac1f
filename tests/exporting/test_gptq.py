"""Jointly rounded weights give nearly the same outputs on their inputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pellucid.exporting import gptq


def _draw(rows: int, taps: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, steps, and correlated inputs, like neighboring pixels."""
    rng = torch.Generator().manual_seed(seed)
    weights = torch.randn(rows, taps, generator=rng)
    inputs = torch.rand(2000, 1, generator=rng) + 0.05 * torch.randn(2000, taps, generator=rng)
    return weights, weights.abs().amax(1, keepdim=True).double() / 127, inputs.double()


@settings(max_examples=20, deadline=None)
@given(st.integers(16, 64), st.integers(16, 90), st.integers(0, 10**6))
def test_errors_cancel(rows: int, taps: int, seed: int) -> None:
    weights, steps, inputs = _draw(rows, taps, seed)
    joint = gptq.round_jointly(weights, steps, inputs.T @ inputs / len(inputs), 127)
    nearest = (weights / steps).round()
    assert torch.equal(joint, joint.round()) and joint.abs().max() <= 127
    errors = [((integers * steps - weights) @ inputs.T).square().mean() for integers in (joint, nearest)]
    assert errors[0] < errors[1] / 2


def test_without_correlation_each_weight_is_rounded_to_the_nearest() -> None:
    weights, steps, _ = _draw(5, 40, 0)
    for moments in (torch.eye(40).double(), torch.zeros(40, 40).double()):
        assert torch.equal(gptq.round_jointly(weights, steps, moments, 127), (weights / steps).round())


def test_integers_stay_in_range() -> None:
    weights, steps, inputs = _draw(5, 40, 1)
    assert gptq.round_jointly(weights, steps / 3, inputs.T @ inputs, 63).abs().max() == 63


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_moments_predict_the_power_of_outputs(stride: int, dilation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gptq, "STRIDE", 1)
    features, weights = torch.rand(2, 3, 13, 17), torch.randn(4, 3, 3, 5)
    moments = gptq.second_moments(features, (3, 5), (stride, stride), (dilation, dilation))
    power = F.conv2d(features, weights, stride=stride, dilation=dilation).square().mean((0, 2, 3))
    rows = weights.flatten(1).double()
    torch.testing.assert_close(((rows @ moments) * rows).sum(1).float(), power, rtol=1e-4, atol=1e-5)
