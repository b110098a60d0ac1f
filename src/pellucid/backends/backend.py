"""What a restorer needs of whatever runs its network, and of devices."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from pellucid.errors import NotEnoughMemoryError, PellucidError

Shape = tuple[int, int, int, int]
"""(N, C, H, W)."""


class Backend(Protocol):
    """What a restorer needs of whatever runs its network: on the CPU, from tensors there to tensors there.

    scale, multiple, halo: as `Network` states them. name: what runs it, in words.
    """

    scale: int
    multiple: int
    halo: int

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    def __call__(self, degraded: Tensor) -> Tensor:
        """(N, C, H, W) float32 -> (N, C', scale * H, scale * W) float32."""

    def working_bytes(self, shape: Shape, *, room: int = 0) -> int:
        """Memory of this machine that a call with (N, C, H, W) takes, at most.

        room: where even a rough bound is no more than this, that is the answer, which takes no time.
        """

    def fingerprint(self) -> str:
        """Tells one set of weights, and another way to compute with them, from another."""


# How PyTorch and oneDNN say that an allocation failed.
_MEMORY_SIGNS = ("memory", "could not create a primitive", "could not execute a primitive")


@contextmanager
def allocation(purpose: str) -> Iterator[None]:
    """PyTorch inside raises NotEnoughMemoryError when it gets no memory; on CPUs it has no class of its own."""
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _MEMORY_SIGNS):
            raise
        raise NotEnoughMemoryError(f"not enough memory for {purpose}; take smaller tiles") from error


def find_device(name: str) -> torch.device:
    """The device of this name, or for "auto" the best there is. Raises PellucidError where it cannot be used."""
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        with warnings.catch_warnings(action="ignore"):  # of device types on their way out
            device = torch.device(name)
            torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:  # a bad name; CUDA not built in; a plugin missing
        best = torch.accelerator.current_accelerator(check_available=True)
        available = "cpu" if best is None else f"cpu, {best}"
        raise PellucidError(f"device {name!r} cannot be used here; available: {available}") from error
    if device.type == "meta":
        raise PellucidError("device 'meta' computes nothing; use cpu or auto")
    return device
