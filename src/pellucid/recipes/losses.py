"""Losses that more than one network uses: (network, degraded, target) -> a scalar, see `network.Loss`."""

from torch import Tensor, nn
from torch.nn import functional as F

MIN_DEVIATION = 1e-3
"""A quarter of a step of 8 bits: pictures that are restored better than that count less and less."""


def half_sum_of_squares(network: nn.Module, degraded: Tensor, target: Tensor) -> Tensor:
    """Sum of squared errors / (2 N), N the batch size: the Euclidean loss of Caffe and MatConvNet.

    It is not a mean over pixels, so it grows with the size of patches.
    """
    return F.mse_loss(network(degraded), target, reduction="sum") / (2 * len(target))


def mean_absolute(network: nn.Module, degraded: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over pictures, planes and pixels."""
    return F.l1_loss(network(degraded), target)


def mean_deviation(network: nn.Module, degraded: Tensor, target: Tensor) -> Tensor:
    """Mean over pictures of the root mean squared error.

    Each picture counts by its ratio, as in PSNR; a sum of squares mostly learns from the most degraded ones.
    """
    squared = (network(degraded) - target).square().mean(dim=(1, 2, 3))
    return (squared + MIN_DEVIATION**2).sqrt().mean()
