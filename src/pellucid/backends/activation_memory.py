"""How much memory a network needs for an input of a given size, without running it."""

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from pellucid.backends.backend import Shape
from pellucid.recipes.network import Network
from pellucid.system.signals import defer_sigint

OVERHEAD = 1.5
"""Memory of a backend per byte of activations: kernels and the allocator take more than the tensors. Measured for
PyTorch: 1.0 for SRCNN and DnCNN, 1.1 for MIMO-UNet, 1.45 for SID U-Net, whose transposed convolutions need
workspace (benchmarks/memory.py). ONNX Runtime takes 0.7 to 1.25, OpenVINO 0.7 to 1.1."""

ROUGH_FACTOR = 4
"""Rough bound per byte of all convolutions' outputs: these may be padded, activated, joined or computed twice."""


class ActivationMemory:
    """What a network takes in addition to its weights, found with tensors that have a shape but no samples.

    All sizes are for float32, which is an upper bound for other precisions.
    """

    def __init__(self, network: Network) -> None:
        self._meta_network = copy.deepcopy(network).to("meta").float()
        layers = [
            layer for layer in self._meta_network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        ]
        self._channels = sum(layer.out_channels for layer in layers)
        self._padding_px = max([network.multiple, *(max(layer.kernel_size) for layer in layers)])
        self._peaks: dict[Shape, int] = {}  # pictures and their tiles have few different sizes

    def working_bytes(self, shape: Shape, *, available_bytes: int = 0) -> int:
        """An upper bound of the memory that a backend takes for an input of this shape; see `Backend`."""
        return int(OVERHEAD * self.activation_bytes(shape, available_bytes=available_bytes / OVERHEAD))

    def activation_bytes(self, shape: Shape, *, available_bytes: float = 0) -> int:
        """Peak of the input (N, C, H, W), the features and the output that exist at one time.

        available_bytes: if a rough bound is not above this, it is returned. The first exact count takes 1 to 2 s,
        as PyTorch loads half of its compiler for it.
        """
        if (rough := self._rough_bytes(shape)) <= available_bytes:
            return rough
        if shape not in self._peaks:
            self._peaks[shape] = self._count(shape)
        return self._peaks[shape]

    def _rough_bytes(self, shape: Shape) -> int:
        """Never below the exact count, usually far above it: the outputs of all layers together, at full size."""
        count, channels, height, width = shape
        num_pixels = (height + self._padding_px) * (width + self._padding_px)
        return ROUGH_FACTOR * 4 * count * num_pixels * (channels + self._channels)

    def _count(self, shape: Shape) -> int:
        # An interruption in the finalizers of tensors would be lost.
        with defer_sigint(), torch.inference_mode(), _PeakCounter() as counter:
            self._meta_network(torch.empty(shape, device="meta").contiguous(memory_format=torch.channels_last))
        return counter.peak_bytes


class _PeakCounter(TorchDispatchMode):
    """Adds up the memory of all living tensors after each operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's class has no types
        self.peak_bytes = 0
        self._living: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        self.peak_bytes = max(self.peak_bytes, sum(self._living.values()))
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self._living:
            self._living[id(storage)] = storage.nbytes()
            weakref.finalize(storage, self._living.pop, id(storage))
