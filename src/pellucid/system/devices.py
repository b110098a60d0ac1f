"""Copies between the CPU and a device, during which neither waits for what the device is doing."""

from functools import cache

import torch
from torch import Tensor


def is_asynchronous(device: torch.device) -> bool:
    """Whether the device computes while the CPU does something else, and copies to and from pinned memory."""
    return device.type == "cuda"


def free_device_bytes(device: torch.device) -> int | None:
    """Memory of a GPU that this process can use: free, or cached by PyTorch. None where that is not known."""
    if device.type != "cuda":
        return None
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + cached


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, with the same type.

    A GPU copies from pinned memory while it computes. From other memory, PyTorch waits until the copy is done, and
    so for everything that the stream does before it.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


class Download:
    """A tensor on its way to the CPU, copied as soon as the device has computed it; only `wait` waits for that."""

    def __init__(self, tensor: Tensor) -> None:
        self._copied: torch.Event | None = None
        self._tensor = tensor
        if tensor.device.type == "cuda":
            self._tensor = torch.empty_like(tensor, device="cpu", pin_memory=True)
            copies = _copy_stream(tensor.device)
            copies.wait_stream(torch.accelerator.current_stream(tensor.device))
            with copies:
                self._tensor.copy_(tensor, non_blocking=True)
            tensor.record_stream(copies)  # so that its memory is not reused before
            self._copied = copies.record_event()

    def wait(self) -> Tensor:
        """The tensor on the CPU."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._tensor.cpu()


@cache
def _copy_stream(device: torch.device) -> torch.Stream:
    return torch.Stream(device)
