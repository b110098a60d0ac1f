"""Copies from the CPU to a device that do not wait for what the device is doing."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, with the same type.

    A GPU copies from pinned memory while it computes. From other memory, PyTorch waits until the copy is done, and
    so for everything that the stream does before it.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)
