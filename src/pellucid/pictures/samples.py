"""Samples of files, and planes for networks: the conversion in both directions.

Samples are arrays (H, W, any number of channels) of uint8, uint16 or float32, planes are tensors
(1, channels, H, W) of float32. White is 255, 65535 or 1, see PEAKS; in planes, it is 1.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.system import devices, memory
from pellucid.system.devices import Download

Samples = NDArray[Any]

PEAKS: dict[str, float] = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""The value of white, by the dtype of the samples."""

CPU = torch.device("cpu")


def to_planes(samples: Samples, device: torch.device = CPU, *, channels_last: bool = False) -> Tensor:
    """A copy as float32 on a device; integers are divided by their white.

    channels_last: the order in memory, as in `torch.channels_last`. It takes less time for several channels,
        because nothing is reordered.
    """
    if device.type != "cpu":
        return _move_to(device, samples, channels_last=channels_last)
    if channels_last:
        return torch.from_numpy(_divide(samples)).permute(2, 0, 1)[None]
    planes = np.empty((samples.shape[2], *samples.shape[:2]), np.float32)
    if samples.shape[2] > 1 and samples[:1].flags.c_contiguous:
        # Each channel is read by itself, which takes less time without the gaps between the rows of a part.
        samples = np.ascontiguousarray(samples)
    for channel, plane in enumerate(planes):  # faster than all at once
        _divide(samples[..., channel], out=plane)
    return torch.from_numpy(planes)[None]


def to_samples(planes: Tensor, dtype: str) -> Samples:
    """Planes of any floating-point type, on any device, as samples of this type.

    Integers are clamped and rounded half up; float32 keeps values as they are.
    """
    return download_samples(planes, dtype).wait().numpy()


def download_samples(planes: Tensor, dtype: str) -> Download:
    """The same, (H, W, channels), converted where the planes are; does not wait for a device."""
    image = planes[0].detach().resolve_neg().to(torch.promote_types(planes.dtype, torch.float32))
    if dtype == "float32":
        return Download(image.float().permute(1, 2, 0).contiguous())
    # 65535 is infinite in float16. Converting to integers cuts off decimals.
    scaled = (image * PEAKS[dtype]).add_(0.5).clamp_(0, PEAKS[dtype] + 0.5)
    if image.device.type != "cpu":
        return Download(scaled.permute(1, 2, 0).to(getattr(torch, dtype)).contiguous())
    samples = np.empty((*scaled.shape[1:], len(scaled)), dtype)
    if scaled.stride(0) == 1:
        np.copyto(samples, scaled.permute(1, 2, 0).numpy(), casting="unsafe")
    else:
        for channel, plane in enumerate(scaled.numpy()):  # faster than all at once
            np.copyto(samples[..., channel], plane, casting="unsafe")
    return Download(torch.from_numpy(samples))


def to_depth(samples: Samples, dtype: str) -> Samples:
    """Samples of another type; white stays white."""
    converted = memory.allocate(samples.shape, dtype)
    for rows in memory.strips(samples, converted):
        converted[rows] = to_samples(to_planes(samples[rows], channels_last=True), dtype)
    return converted


def _divide(samples: Samples, out: Samples | None = None) -> Samples:
    """Divided by white, in one pass over the memory."""
    return np.divide(samples, np.float32(PEAKS[samples.dtype.name]), out=out, dtype=np.float32)


def _move_to(device: torch.device, samples: Samples, *, channels_last: bool) -> Tensor:
    """The conversion on the device, which receives samples as they are in the file."""
    moved = upload_samples(samples, device).float()
    planes = moved.div_(PEAKS[samples.dtype.name]).permute(2, 0, 1)[None]
    return planes if channels_last else planes.contiguous()


def upload_samples(samples: Samples, device: torch.device) -> Tensor:
    """A copy of samples on a device, of the same type and shape; does not wait for the device."""
    copy = torch.empty(samples.shape, dtype=getattr(torch, samples.dtype.name), pin_memory=device.type == "cuda")
    np.copyto(copy.numpy(), samples)
    return devices.to_device(copy, device)
