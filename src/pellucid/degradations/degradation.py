"""Degradations: a clean batch and a generator in, a degraded batch out.

Every degradation takes (N, C, H, W) in [0, 1] and draws chance from the generator alone, so that the same
seed gives the same picture anywhere. A number says "always this"; a pair says "uniformly between, anew for
each picture of the batch". Chance is drawn on the generator's device: a seed means the same pictures on all
CPUs, and others on an accelerator.

A degradation that looks further than one pixel says so in its `footprint`, so that a patch can be degraded as
the part of the whole picture that it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import lcm
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

Degradation = Callable[[Tensor, torch.Generator], Tensor]
"""(clean, generator) -> degraded."""


@dataclass(frozen=True)
class Footprint:
    """What must surround a patch for it to be degraded as in its picture. The default: nothing.

    scale: how many times shorter the sides become.
    grid_px: cells, counted from the picture's corner, that are degraded as one.
    reach_px: how far beyond the patch clean pixels are seen; all of a cell that is seen at all.
    """

    scale: int = 1
    grid_px: int = 1
    reach_px: int = 0


def draws(degradation: Degradation) -> bool:
    """Whether it draws from the generator; one that does not say is taken to."""
    return getattr(degradation, "draws", True)


def footprint(degradation: Degradation) -> Footprint:
    """The degradation's own `footprint`; one that states none works on each pixel by itself."""
    return getattr(degradation, "footprint", Footprint())


@dataclass(frozen=True)
class Chain:
    """One degradation after the other."""

    steps: tuple[Degradation, ...]

    @property
    def draws(self) -> bool:
        return any(map(draws, self.steps))

    @property
    def footprint(self) -> Footprint:
        whole = Footprint()
        for part in map(footprint, self.steps):
            beyond_px = part.reach_px + part.grid_px - 1  # a cell of this step may stand across one of the last
            whole = Footprint(
                whole.scale * part.scale,
                lcm(whole.grid_px, whole.scale * part.grid_px),
                whole.reach_px + whole.scale * beyond_px,
            )
        return whole

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        for step in self.steps:
            clean = step(clean, generator)
        return clean


@dataclass(frozen=True)
class OneOf:
    """One of several degradations, each as likely, drawn anew for each picture of the batch.

    All of them must keep the size.
    """

    choices: tuple[Degradation, ...]

    @property
    def footprint(self) -> Footprint:
        parts = [footprint(degradation) for degradation in self.choices]
        return Footprint(1, lcm(*(part.grid_px for part in parts)), max(part.reach_px for part in parts))

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        def apply(degradation: Degradation, pictures: Tensor) -> Tensor:
            return degradation(pictures, generator)

        return each_by_one(self.choices, apply, clean, generator)


def involves(degradation: Degradation | None, kind: type) -> bool:
    """Whether a degradation is of this kind, or one of its parts is."""
    if isinstance(degradation, Chain | OneOf):
        parts = degradation.steps if isinstance(degradation, Chain) else degradation.choices
        return any(involves(part, kind) for part in parts)
    return isinstance(degradation, kind)


def each_by_one(
    options: Sequence[T], apply: Callable[[T, Tensor], Tensor], clean: Tensor, generator: torch.Generator
) -> Tensor:
    """Every picture by one of the options, each as likely; those that drew the same one go together."""
    drawn = torch.randint(len(options), (len(clean),), generator=generator, device=generator.device)
    drawn, degraded = drawn.to(clean.device), torch.empty_like(clean)
    for i, option in enumerate(options):
        members = (drawn == i).nonzero()[:, 0]
        if len(members):
            degraded[members] = apply(option, clean[members])
    return degraded
