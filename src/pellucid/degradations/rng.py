"""Numbers drawn for each picture of a batch, on the device of the generator they come from."""

from math import log

import torch
from torch import Tensor

Range = float | tuple[float, float]
"""Always this number, or uniformly between two, anew for each picture."""


def uniform(value: Range, count: int, generator: torch.Generator) -> Tensor:
    """(count,) numbers, evenly between the two."""
    if isinstance(value, tuple):
        low, high = value
        return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)
    return torch.full((count,), float(value), device=generator.device)


def log_uniform(value: Range, count: int, generator: torch.Generator) -> Tensor:
    """(count,) numbers above 0, evenly on a logarithmic scale."""
    if isinstance(value, tuple):
        low, high = value
        return uniform((log(low), log(high)), count, generator).exp()
    return uniform(value, count, generator)
