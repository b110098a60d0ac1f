"""The contract of networks and losses."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from torch import Tensor, nn


class Network(nn.Module):
    """Base class of all networks: (N, C, H, W) -> (N, C', scale * H, scale * W) for any H and W from 1.

    C is `num_planes` of the recipe's domain, and C' is its `num_results`. The three attributes let tiles reproduce
    the whole picture exactly; tests measure them.
    """

    scale: int
    """Output pixels per input pixel, along each axis."""
    multiple: int
    """Grid of the strided layers: tiles start at multiples of this, in input pixels; 1 without such layers."""
    halo: int
    """Receptive radius: the largest distance, in input pixels, from which an output pixel is influenced."""

    if TYPE_CHECKING:

        def __call__(self, degraded: Tensor) -> Tensor: ...

    def optimize_for_inference(self) -> Self:
        """A network of the same function that is cheaper to run, if there is one; otherwise the network itself.

        The network itself does not change. Only for evaluation mode.
        """
        return self


Loss = Callable[[Network, Tensor, Tensor], Tensor]
"""(network, degraded, target) -> a scalar. The loss calls the network, as `network(degraded)` or otherwise."""
