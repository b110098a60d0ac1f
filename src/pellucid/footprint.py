"""How much memory a network needs for an input of some size, found out without computing anything."""

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from pellucid.recipe import Network


def activation_bytes(network: Network, shape: Sequence[int]) -> int:
    """The most that input, features and output of a network take at one time, in float32.

    shape: (N, C, H, W) of the input. Without the weights and what the kernels need for themselves. The network
    runs on tensors that have a shape but no samples.
    """
    shadow = copy.deepcopy(network).to("meta").float()
    with torch.inference_mode(), _Ledger() as ledger:
        shadow(torch.empty(tuple(shape), device="meta").contiguous(memory_format=torch.channels_last))
    return ledger.most


class _Ledger(TorchDispatchMode):
    """Adds up the memory of all tensors that live, after each operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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
