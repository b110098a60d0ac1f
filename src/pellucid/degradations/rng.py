"""Random numbers for each picture of a batch, drawn on the device of the generator.

Numbers that decide what the CPU does, e.g. which degradation a picture gets, are drawn on the CPU: for those of a
device it would wait, and so for all that the device does before them.

A batch may consist of shards with a generator each, so that several processes can share it. On a GPU, only the
numbers are then drawn shard by shard; all else is computed for the whole batch at once, in far fewer operations.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor

Range = float | tuple[float, float]
"""Always this number, or uniformly between two, drawn for each picture."""


class DeviceGenerator(torch.Generator):
    """A generator of a device. companion: the generator for numbers that the CPU needs."""

    companion: torch.Generator


@dataclass(frozen=True)
class ShardGenerators:
    """A generator for each shard of a batch, in the order of the pictures. counts: pictures of each shard.

    Each picture gets the numbers that it would get if its shard were made alone.
    """

    generators: tuple[torch.Generator, ...]
    counts: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        return self.generators[0].device

    def select(self, members: Tensor) -> "ShardGenerators":
        """The generators for these pictures of the batch: increasing numbers, on the CPU."""
        shards = torch.bucketize(members, torch.tensor(self.counts).cumsum(0), right=True)
        counts = torch.bincount(shards, minlength=len(self.counts)).tolist()
        chosen = [(generator, n) for generator, n in zip(self.generators, counts, strict=True) if n]
        generators, sizes = zip(*chosen, strict=True)
        return ShardGenerators(generators, sizes)

    def split(self, pictures: Tensor) -> Iterator[tuple[Tensor, torch.Generator]]:
        """The pictures of each shard, and its generator."""
        return zip(pictures.split(self.counts), self.generators, strict=True)


Generator = torch.Generator | ShardGenerators
"""Where the random numbers of a batch come from."""


def join_generators(generators: Sequence[torch.Generator], count: int) -> Generator:
    """The generators of shards of `count` pictures each."""
    return (
        generators[0] if len(generators) == 1 else ShardGenerators(tuple(generators), (count,) * len(generators))
    )


def accepts_shards(part: Any) -> bool:
    """Whether a degradation, or a part of one, draws with the functions below, and so accepts `ShardGenerators`.

    Its class itself must say so by an attribute of this name: a subclass may draw in another way.
    """
    return "accepts_shards" in vars(type(part)) and bool(part.accepts_shards)


def build_generator(device: torch.device, seed: int) -> torch.Generator:
    """A generator of the device; on other devices than a CPU, with a companion of the same seed."""
    if device.type == "cpu":
        return torch.Generator().manual_seed(seed)
    generator = DeviceGenerator(device)
    generator.manual_seed(seed)
    generator.companion = torch.Generator().manual_seed(seed)
    return generator


def get_cpu_generator(generator: Generator) -> Generator:
    """A generator for numbers that the CPU needs: the same one on a CPU, otherwise its companion.

    A generator of PyTorch has no companion; its seed is then drawn, for which the CPU waits.
    """
    if generator.device.type == "cpu":
        return generator
    if isinstance(generator, ShardGenerators):
        return ShardGenerators(tuple(map(_get_companion, generator.generators)), generator.counts)
    return _get_companion(generator)


def _get_companion(generator: torch.Generator) -> torch.Generator:
    if isinstance(generator, DeviceGenerator):
        return generator.companion
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(seed))


def uniform(value: Range, count: int, generator: Generator) -> Tensor:
    """(count,) numbers, uniform between the two."""
    if isinstance(value, tuple):
        low, high = value
        return low + (high - low) * draw_uniform((count,), generator)
    return torch.full((count,), float(value), device=generator.device)


def log_uniform(value: Range, count: int, generator: Generator) -> Tensor:
    """(count,) numbers above 0, uniform on a logarithmic scale."""
    if isinstance(value, tuple):
        low, high = value
        return uniform((log(low), log(high)), count, generator).exp()
    return uniform(value, count, generator)


def draw_uniform(shape: tuple[int, ...], generator: Generator, axis: int = 0) -> Tensor:
    """Numbers between 0 and 1. axis: of the pictures."""

    def draw(count: int, one: torch.Generator) -> Tensor:
        return torch.rand(_replace(shape, axis, count), generator=one, device=one.device)

    return draw_by_shard(draw, shape[axis], generator, axis)


def draw_normal(
    shape: tuple[int, ...], generator: Generator, axis: int = 0, dtype: torch.dtype | None = None
) -> Tensor:
    """Numbers of mean 0 and variance 1. axis: of the pictures."""

    def draw(count: int, one: torch.Generator) -> Tensor:
        return torch.randn(_replace(shape, axis, count), generator=one, dtype=dtype, device=one.device)

    return draw_by_shard(draw, shape[axis], generator, axis)


def draw_integers(limit: int, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Integers from 0 to limit - 1, all equally likely; the first axis is that of the pictures."""

    def draw(count: int, one: torch.Generator) -> Tensor:
        return torch.randint(limit, (count, *shape[1:]), generator=one, device=one.device)

    return draw_by_shard(draw, shape[0], generator)


def draw_poisson(rates: Tensor, generator: Generator) -> Tensor:
    """Poisson numbers of these rates, (N, ...), on the generator's device."""
    if isinstance(generator, torch.Generator):
        return torch.poisson(rates, generator=generator)
    return torch.cat([torch.poisson(part, generator=one) for part, one in generator.split(rates)])


def draw_by_shard(
    draw: Callable[[int, torch.Generator], Tensor], count: int, generator: Generator, axis: int = 0
) -> Tensor:
    """What `draw` returns for `count` pictures, or for those of each shard, joined along the axis of pictures."""
    if isinstance(generator, torch.Generator):
        return draw(count, generator)
    if sum(generator.counts) != count:
        raise ValueError(f"{count} pictures, but shards of {generator.counts}")
    parts = [draw(*shard) for shard in zip(generator.counts, generator.generators, strict=True)]
    return torch.cat(parts, axis)


def _replace(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])
