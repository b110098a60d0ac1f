"""Random numbers for each picture of a batch, drawn on the device of the generator."""

from math import log

import torch
from torch import Tensor

Range = float | tuple[float, float]
"""Always this number, or uniformly between two, drawn for each picture."""


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
