from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.networks.mimo_unet import MIMOUNet, multi_scale
from pellucid.networks.srcnn import inner_squares
from pellucid.recipes.losses import half_sum_of_squares, mean_absolute
from pellucid.recipes.network import Network


class Half(Network):
    """Halves its input, and sees one pixel around."""

    scale = 1
    multiple = 1
    halo = 1

    def forward(self, degraded: Tensor) -> Tensor:
        return degraded / 2


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_half_sum_of_squares_by_hand() -> None:
    degraded = torch.tensor([[[[2.0, 4.0, 0.0]]], [[[6.0, 8.0, 2.0]]]])
    target = torch.tensor([[[[0.0, 0.0, 0.0]]], [[[1.0, 6.0, 1.0]]]])
    # Errors 1, 2, 0 and 2, -2, 0: squares 1 + 4 + 4 + 4 = 13, over twice the 2 pictures.
    assert half_sum_of_squares(Half(), degraded, target).item() == 13 / 4


def test_half_sum_of_squares_grows_with_the_pixels_not_with_the_batch() -> None:
    one = half_sum_of_squares(Half(), torch.full((1, 1, 3, 5), 2.0), torch.zeros(1, 1, 3, 5))
    four = half_sum_of_squares(Half(), torch.full((4, 1, 3, 5), 2.0), torch.zeros(4, 1, 3, 5))
    assert one.item() == four.item() == 15 / 2


def test_mean_absolute_by_hand() -> None:
    degraded = torch.tensor([[[[2.0, 4.0], [6.0, 8.0]]]])
    target = torch.tensor([[[[0.0, 3.0], [3.0, 8.0]]]])
    assert mean_absolute(Half(), degraded, target).item() == (1 + 1 + 0 + 4) / 4


def test_inner_squares_leave_out_what_padding_reaches() -> None:
    degraded = torch.full((2, 1, 4, 5), 2.0)
    target = torch.zeros(2, 1, 4, 5)
    target[:, :, 1:3, 1:4] = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 3.0]])
    # Inside: errors 0, 0, 1, 0, 0, -2 in each of two pictures: (5 + 5) / 4. The border's errors of 1 do not count.
    assert inner_squares(Half(), degraded, target).item() == 2.5


def spectral_distance(restored: NDArray[Any], wanted: NDArray[Any]) -> float:
    difference = np.fft.fft2(restored.astype(np.float64)) - np.fft.fft2(wanted.astype(np.float64))
    return float((np.abs(difference.real) + np.abs(difference.imag)).mean() / 2)


@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
def test_the_mimo_loss_recomputed(weight: float) -> None:
    torch.manual_seed(0)
    network = MIMOUNet(num_blocks=1)
    degraded, target = noise(2, 3, 8, 12), noise(2, 3, 8, 12, seed=1)
    with torch.no_grad():
        scales = [restored.numpy() for restored in network.restore_scales(degraded)]
        loss = multi_scale(network, degraded, target, frequency_weight=weight).item()
    full = target.numpy()
    half = full.reshape(2, 3, 4, 2, 6, 2).mean(axis=(3, 5))
    # A quarter by bilinear sampling without antialiasing: the mean of the central 2 x 2 of each 4 x 4.
    quarter = full.reshape(2, 3, 2, 4, 3, 4)[:, :, :, 1:3, :, 1:3].mean(axis=(3, 5))
    pairs = list(zip(scales, (quarter, half, full), strict=True))
    content = sum(float(np.abs(restored - wanted).mean()) for restored, wanted in pairs)
    spectral = sum(spectral_distance(restored, wanted) for restored, wanted in pairs)
    assert loss == pytest.approx(content + weight * spectral, rel=1e-5)


def test_the_mimo_loss_weighs_spectra_by_a_tenth_unless_told() -> None:
    network = MIMOUNet(num_blocks=1)
    degraded, target = noise(1, 3, 8, 8), noise(1, 3, 8, 8, seed=1)
    with torch.no_grad():
        default = multi_scale(network, degraded, target)
        assert torch.equal(default, multi_scale(network, degraded, target, frequency_weight=0.1))


def test_every_part_of_mimo_learns() -> None:
    network = MIMOUNet(num_blocks=1)
    multi_scale(network, noise(1, 3, 16, 16), noise(1, 3, 16, 16, seed=1)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
