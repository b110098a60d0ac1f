"""Losses that more than one network uses: (network, degraded, target) -> a scalar."""

from torch import Tensor, nn
from torch.nn import functional as F


def half_sum_of_squares(network: nn.Module, degraded: Tensor, target: Tensor) -> Tensor:
    """Sum of squared errors / (2 N), as Caffe's and MatConvNet's Euclidean loss: not a mean over pixels."""
    return F.mse_loss(network(degraded), target, reduction="sum") / (2 * len(target))


def mean_absolute(network: nn.Module, degraded: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over all samples."""
    return F.l1_loss(network(degraded), target)
