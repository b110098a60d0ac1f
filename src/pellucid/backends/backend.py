"""The contract of a backend, which runs a network, and how a device is found."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from pellucid.backends.fixed_shape import FixedShape
from pellucid.errors import ArgumentError, NotEnoughMemoryError, PellucidError
from pellucid.system.device_names import names_several
from pellucid.system.memory import is_memory_error

Shape = tuple[int, int, int, int]
"""(N, C, H, W)."""

WHOLE_PX = 2**20
"""The halo of a network whose output pixels depend on the whole picture."""


class Backend(Protocol):
    """Runs a network. Inputs may be on any device of `device` or the CPU; outputs are on `device`.

    scale, multiple, halo: of the network; see `recipes.network.Network`.
    fixed_shape: of a graph that takes one shape only, from which inputs of other sizes are joined; otherwise None.
    frees_activations: whether each call gets memory for its activations from the C library, and frees it.
    """

    scale: int
    multiple: int
    halo: int
    fixed_shape: FixedShape | None
    frees_activations: bool

    @property
    def name(self) -> str:
        """Runtime, precision and device, e.g. "openvino bfloat16 on cpu"."""

    @property
    def device(self) -> torch.device:
        """Where the network runs."""

    @property
    def note(self) -> str | None:
        """What the user should know, e.g. that it computes in another precision than requested; or None."""

    def __call__(self, degraded: Tensor) -> Tensor:
        """(N, C, H, W) float32 -> (N, C', scale * H, scale * W) float32.

        Raises NotEnoughMemoryError if memory runs out.
        """

    def working_bytes(self, shape: Shape, *, available_bytes: int = 0) -> int:
        """An upper bound of the main memory that a call with an input of this shape takes.

        available_bytes: if a rough bound, which takes no time to compute, is not above this, it is returned.
        """

    def device_bytes(self, shape: Shape, *, available_bytes: int = 0) -> int:
        """The same for the memory of `device`, if it has its own; 0 if it has not.

        Unlike main memory, it is not limited by the user: tiles are made smaller if it runs out anyway.
        """

    def fingerprint(self) -> str:
        """Differs if the weights, the runtime or the precision differ."""


@contextmanager
def allocation(purpose: str, *, hint: str = "use smaller tiles ({tile_px})") -> Iterator[None]:
    """Raise NotEnoughMemoryError if PyTorch runs out of memory inside, which has no exception class on CPUs."""
    try:
        yield
    except RuntimeError as error:
        if not is_memory_error(error):
            raise
        raise NotEnoughMemoryError(f"not enough memory for {purpose}", hint=hint) from error


def check_single(name: str) -> None:
    """Raise ArgumentError for the names of several devices."""
    if names_several(name):
        raise ArgumentError(
            f"device {name[:80]!r} means several devices, which only `pellucid restore` uses",
            hint="{device} must be one of them",
        )


def list_devices(names: str) -> list[str]:
    """The devices in a list such as "cuda:0,cuda:1"; for "all", all accelerators of this computer.

    Raises ArgumentError for an empty name in the list, or "all" among others, and PellucidError for "all" if there
    is no accelerator.
    """
    if names == "all":
        best = torch.accelerator.current_accelerator(check_available=True)
        if best is None:
            raise PellucidError("no accelerator was found on this computer", hint="{device} can be cpu")
        num_found = torch.accelerator.device_count()
        return [f"{best.type}:{index}" for index in range(num_found)] if num_found > 1 else [best.type]
    listed = [name.strip() for name in names.split(",")]
    if len(listed) > 1 and not {"", "all"}.isdisjoint(listed):
        raise ArgumentError(
            f"{names[:80]!r} is not a list of devices", hint="{device} can be all, or a list like cuda:0,cuda:1"
        )
    return listed


def check_device(name: str) -> None:
    """Raise the errors of `find_device`; accelerators are only counted, because using one takes memory there."""
    best = torch.accelerator.current_accelerator(check_available=True)
    if best is not None and name in (f"{best.type}:{index}" for index in range(torch.accelerator.device_count())):
        return
    find_device(name)


def find_device(name: str) -> torch.device:
    """The device of this name; for "auto", the accelerator if there is one, otherwise the CPU.

    Raises PellucidError if the device is unknown or cannot be used, and ArgumentError for several devices.
    """
    check_single(name)
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        with warnings.catch_warnings(action="ignore"):  # about deprecated device types
            device = torch.device(name)
            torch.empty(1, device=device)
        if device.type == "cpu" and device.index:  # torch ignores the number
            raise RuntimeError
    except (
        RuntimeError,
        AssertionError,
        ImportError,
        TypeError,
    ) as error:  # a bad name; CUDA not built in; a plugin missing
        best = torch.accelerator.current_accelerator(check_available=True)
        available = "cpu" if best is None else f"cpu, {best}"
        raise PellucidError(f"device {name!r} cannot be used here; available: {available}") from error
    if device.type == "meta":
        raise PellucidError("device 'meta' does not compute anything", hint="{device} can be cpu or auto")
    return device
