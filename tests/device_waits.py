"""Finds what would wait for a GPU, on machines without one."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pellucid.system import devices

META = torch.device("meta")
"""A device without values: whatever would read one, and so wait for a GPU, raises an error."""


class ForbidWaits(TorchDispatchMode):
    """Fails in operations that need values of a tensor on the CPU, and so would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's class has no types

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal"), name
        return func(*args, **(kwargs or {}))


class RefuseWaitingCopies(TorchDispatchMode):
    """Raises an error for copies to the device, except by `devices.to_device`, which does not wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # that of torch has no types
        self._allows = False
        self.dtypes: set[torch.dtype] = set()
        """Types of the tensors that were copied."""
        monkeypatch.setattr(devices, "to_device", self._copy)

    def _copy(self, tensor: Tensor, device: torch.device) -> Tensor:
        self._allows = True
        self.dtypes.add(tensor.dtype)
        try:
            return tensor.to(device)
        finally:
            self._allows = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        copies = func.__name__.partition(".")[0] in ("_to_copy", "copy_")
        sources = [arg for arg in args if isinstance(arg, Tensor) and arg.device != META]
        assert not copies or not sources or result.device != META or self._allows, "a copy that waits"
        return result
