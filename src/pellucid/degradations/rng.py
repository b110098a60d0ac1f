"""Random numbers for each picture of a batch, drawn on the device of the generator.

Numbers that decide what the CPU does, e.g. which degradation a picture gets, are drawn on the CPU: for those of a
device it would wait, and so for all that the device does before them.
"""

from math import log

import torch
from torch import Tensor

Range = float | tuple[float, float]
"""Always this number, or uniformly between two, drawn for each picture."""


class DeviceGenerator(torch.Generator):
    """A generator of a device. companion: the generator for numbers that the CPU needs."""

    companion: torch.Generator


def build_generator(device: torch.device, seed: int) -> torch.Generator:
    """A generator of the device; on other devices than a CPU, with a companion of the same seed."""
    if device.type == "cpu":
        return torch.Generator().manual_seed(seed)
    generator = DeviceGenerator(device)
    generator.manual_seed(seed)
    generator.companion = torch.Generator().manual_seed(seed)
    return generator


def get_cpu_generator(generator: torch.Generator) -> torch.Generator:
    """A generator for numbers that the CPU needs: the same one on a CPU, otherwise its companion.

    A generator of PyTorch has no companion; its seed is then drawn, for which the CPU waits.
    """
    if generator.device.type == "cpu":
        return generator
    if isinstance(generator, DeviceGenerator):
        return generator.companion
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(seed))


def uniform(value: Range, count: int, generator: torch.Generator) -> Tensor:
    """(count,) numbers, uniform between the two."""
    if isinstance(value, tuple):
        low, high = value
        return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)
    return torch.full((count,), float(value), device=generator.device)


def log_uniform(value: Range, count: int, generator: torch.Generator) -> Tensor:
    """(count,) numbers above 0, uniform on a logarithmic scale."""
    if isinstance(value, tuple):
        low, high = value
        return uniform((log(low), log(high)), count, generator).exp()
    return uniform(value, count, generator)
