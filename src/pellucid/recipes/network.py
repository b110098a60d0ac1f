"""The contract of a network: what it states about itself, and the type of a loss."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from torch import Tensor, nn


class Network(nn.Module):
    """Base class of all networks: (N, C, H, W) -> (N, C', scale * H, scale * W), any H and W from 1 up."""

    scale: int
    """Output pixels per input pixel, along one side."""
    multiple: int
    """Grid of the strided layers: tiles must start on multiples of this."""
    halo: int
    """Receptive radius: how many input pixels away an output pixel sees."""

    if TYPE_CHECKING:

        def __call__(self, degraded: Tensor) -> Tensor: ...

    def folded(self) -> Self:
        """An equivalent network that is cheaper to run, if there is one; otherwise the network itself."""
        return self


Loss = Callable[[Network, Tensor, Tensor], Tensor]
"""(network, degraded, target) -> a scalar. The loss calls the network."""
