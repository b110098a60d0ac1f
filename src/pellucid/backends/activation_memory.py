"""How much memory a network needs for an input of some size, found out without computing anything."""

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from pellucid.recipes.network import Network

ROUGHLY = 4
"""Times the outputs of all convolutions: what is padded, activated, joined or computed twice on the way."""


class ActivationMemory:
    """What a network takes beside its weights, by a twin that runs on tensors of a shape but no samples."""

    def __init__(self, network: Network) -> None:
        self._twin = copy.deepcopy(network).to("meta").float()
        layers = [layer for layer in self._twin.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
        self._channels = sum(layer.out_channels for layer in layers)
        self._padding_px = max([network.multiple, *(max(layer.kernel_size) for layer in layers)])
        self._counted: dict[tuple[int, int, int, int], int] = {}  # pictures and their tiles are of few sizes

    def activation_bytes(self, shape: tuple[int, int, int, int], *, room: float = 0) -> int:
        """The most that input (N, C, H, W), features and output take at one time, in float32.

        Without what the kernels need for themselves. room: where even a rough bound is no more than this, that is
        the answer. The first exact one takes a second or two, as PyTorch loads half of its compiler to count.
        """
        if (rough := self._rough_bytes(shape)) <= room:
            return rough
        if shape not in self._counted:
            self._counted[shape] = self._count(shape)
        return self._counted[shape]

    def _rough_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """Never less than the exact answer, mostly far more: the outputs of all layers at once, at full size."""
        count, channels, height, width = shape
        num_pixels = (height + self._padding_px) * (width + self._padding_px)
        return ROUGHLY * 4 * count * num_pixels * (channels + self._channels)

    def _count(self, shape: tuple[int, int, int, int]) -> int:
        with torch.inference_mode(), _Ledger() as ledger:
            self._twin(torch.empty(shape, device="meta").contiguous(memory_format=torch.channels_last))
        return ledger.most


class _Ledger(TorchDispatchMode):
    """Adds up the memory of all tensors that live, after each operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own has no types
        self.most = 0
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
                self._enter(tensor.untyped_storage())
        self.most = max(self.most, sum(self._living.values()))
        return result

    def _enter(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self._living:
            self._living[id(storage)] = storage.nbytes()
            weakref.finalize(storage, self._living.pop, id(storage))
