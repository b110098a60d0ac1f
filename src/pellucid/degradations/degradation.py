"""Degradations: a clean batch and a generator in, a degraded batch out.

Every degradation takes (N, C, H, W) in [0, 1] and draws random numbers from the generator only, so that the same
seed always gives the same pictures. As a parameter, a number means "always this", and a pair "uniformly between
these, drawn for each picture of the batch". Numbers are drawn on the device of the generator: a seed gives the
same pictures on all CPUs, but others on an accelerator.

A degradation states its `footprint`, so that a patch can be degraded exactly as in the whole picture.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor

from pellucid.degradations.rng import Generator, ShardGenerators, accepts_shards, draw_integers, get_cpu_generator
from pellucid.errors import RecipeError
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.system import devices

T = TypeVar("T")


@dataclass(frozen=True)
class Footprint:
    """What must surround a patch so that it is degraded as in its picture. By default nothing: pixel by pixel.

    scale: by which the sides of the picture are divided.
    grid_px: side of the cells, counted from the picture's corner, that are degraded together.
    reach_px: how far beyond the patch the degradation reads clean pixels, up to the edge of their cell.
    """

    scale: int = 1
    grid_px: int = 1
    reach_px: int = 0


class Degradation(Protocol):
    """Turns clean pictures into degraded ones."""

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers."""

    @property
    def footprint(self) -> Footprint:
        """What it reads around each pixel."""

    def __call__(self, clean: Tensor, generator: torch.Generator, /) -> Tensor:
        """(N, C, H, W) in [0, 1] -> (N, C, H / scale, W / scale)."""


def draws(degradation: Degradation) -> bool:
    """Whether it draws random numbers. Raises RecipeError if the degradation does not state it."""
    return bool(_read_statement(degradation, "draws", "True if it draws from its generator, else False"))


def footprint(degradation: Degradation) -> Footprint:
    """What it reads around each pixel. Raises RecipeError if the degradation does not state it.

    There is no default: patches with borders that are too narrow would silently be trained on.
    """
    statement = _read_statement(degradation, "footprint", "Footprint() if it works on each pixel separately")
    assert isinstance(statement, Footprint)
    return statement


def _read_statement(degradation: Degradation, name: str, example: str) -> object:
    statement = getattr(degradation, name, None)
    if statement is None:
        called = getattr(degradation, "__name__", repr(degradation))
        raise RecipeError(f"the degradation {called} has no attribute '{name}'", hint=f"add it: {example}")
    return statement


def makes_target(degradation: Degradation | None) -> bool:
    """Whether `make_pair` returns a target of its own: the degradation then has a method `make_pair`."""
    return hasattr(degradation, "make_pair")


def apply(degradation: Degradation, clean: Tensor, generator: Generator) -> Tensor:
    """The degraded batch. If the degradation accepts only generators of PyTorch, it is called for each shard."""
    if isinstance(generator, torch.Generator) or accepts_shards(degradation):
        return degradation(clean, cast(torch.Generator, generator))
    return torch.cat([degradation(*shard) for shard in generator.split(clean)])


def make_pair(degradation: Degradation, clean: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """(degraded, target). The target is the clean batch, unless the degradation makes its own."""
    own: Callable[[Tensor, Generator], tuple[Tensor, Tensor]] | None
    own = getattr(degradation, "make_pair", None)
    if own is None:
        return apply(degradation, clean, generator), clean
    if isinstance(generator, torch.Generator) or accepts_shards(degradation):
        return own(clean, generator)
    degraded, target = zip(*(own(*shard) for shard in generator.split(clean)), strict=True)
    return torch.cat(degraded), torch.cat(target)


def makes_mosaic(degradation: Degradation | None) -> bool:
    """Whether `degrade` returns a mosaic: the degradation then has a method `mosaic` or `degrade_whole`."""
    return hasattr(degradation, "mosaic") or hasattr(degradation, "degrade_whole")


def degrade(
    degradation: Degradation, clean: Tensor, generator: torch.Generator
) -> tuple[Picture | Mosaic, Tensor]:
    """One clean picture, (1, C, H, W), degraded into what a restorer takes, and its target.

    A degradation with a method `degrade_whole` makes both.
    """
    whole: Callable[[Tensor, torch.Generator], tuple[Mosaic, Tensor]] | None
    whole = getattr(degradation, "degrade_whole", None)
    if whole is not None:
        return whole(clean, generator)
    own: Callable[[Tensor, torch.Generator], Mosaic] | None = getattr(degradation, "mosaic", None)
    if own is not None:
        return own(clean, generator), clean
    degraded, target = make_pair(degradation, clean, generator)
    return Picture.from_tensor(degraded), target


def warnings_for(degradation: Degradation | None, degraded: Picture | Mosaic) -> Iterator[str]:
    """Why a network that learned from this degradation may restore a picture badly, if the degradation knows."""
    own: Callable[[Picture | Mosaic], Iterator[str]] | None = getattr(degradation, "warnings_for", None)
    return iter(()) if own is None else own(degraded)


@dataclass(frozen=True)
class Chain:
    """Several degradations, one after the other."""

    steps: tuple[Degradation, ...]

    def __post_init__(self) -> None:
        _refuse_own_targets(self.steps)

    @property
    def draws(self) -> bool:
        return any(map(draws, self.steps))

    @property
    def footprint(self) -> Footprint:
        return join_footprints(*map(footprint, self.steps))

    accepts_shards = True

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        for step in self.steps:
            clean = apply(step, clean, generator)
        return clean


def _refuse_own_targets(parts: Sequence[Degradation]) -> None:
    """Their targets would be lost, and the clean picture differs from what they degrade."""
    for part in parts:
        if makes_target(part):
            raise RecipeError(f"{part!r} makes its own target, so it cannot be a part of another degradation")


def join_footprints(*footprints: Footprint) -> Footprint:
    """The footprint of several steps, in their order."""
    whole = Footprint()
    for step in footprints:
        reach_px = step.reach_px + step.grid_px - 1  # a cell of this step may overlap two cells of earlier ones
        whole = Footprint(
            whole.scale * step.scale,
            lcm(whole.grid_px, whole.scale * step.grid_px),
            whole.reach_px + whole.scale * reach_px,
        )
    return whole


@dataclass(frozen=True)
class OneOf:
    """One of several degradations for each picture of the batch, all equally likely.

    None of them may change the size.
    """

    choices: tuple[Degradation, ...]

    draws = accepts_shards = True

    def __post_init__(self) -> None:
        _refuse_own_targets(self.choices)

    @property
    def footprint(self) -> Footprint:
        parts = [footprint(degradation) for degradation in self.choices]
        return Footprint(1, lcm(*(part.grid_px for part in parts)), max(part.reach_px for part in parts))

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        return apply_one_each(self.choices, apply, clean, generator)


def involves(degradation: Degradation | None, kind: type | tuple[type, ...]) -> bool:
    """Whether a degradation is of this class, or of one of these, or a part of it is."""
    if isinstance(degradation, Chain | OneOf):
        parts = degradation.steps if isinstance(degradation, Chain) else degradation.choices
        return any(involves(part, kind) for part in parts)
    return isinstance(degradation, kind)


def apply_one_each(
    options: Sequence[T],
    degrade_with: Callable[[T, Tensor, Generator], Tensor],
    clean: Tensor,
    generator: Generator,
) -> Tensor:
    """Apply one of the options to each picture, all equally likely; pictures with the same option as one batch."""
    drawn = draw_integers(len(options), (len(clean),), get_cpu_generator(generator))
    degraded = torch.empty_like(clean)
    for i, option in enumerate(options):
        members = (drawn == i).nonzero()[:, 0]
        if len(members):
            own = generator.select(members) if isinstance(generator, ShardGenerators) else generator
            members = devices.to_device(members, clean.device)
            degraded[members] = degrade_with(option, clean[members], own)
    return degraded
