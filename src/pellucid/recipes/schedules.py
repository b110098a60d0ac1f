"""Learning rate schedules as values. `factor(step, num_steps)` is the factor on the learning rate at a step.

Steps count from 0 to num_steps - 1. A field with a description is also a training keyword, see `overrides`.
"""

from dataclasses import dataclass
from math import cos, pi
from typing import Annotated, cast

from pydantic import Field

from pellucid.system.keywords import Count, Positive, WholeNumber

WarmupSteps = Annotated[WholeNumber, Field(description="steps of linear warmup of the learning rate")]
DropSteps = Annotated[tuple[Count, ...], Field(description="drops: steps at which the learning rate drops")]
DropFactor = Annotated[
    Positive | tuple[Positive, ...],
    Field(description="drops: factor on the learning rate; one number, or one for each of at_steps"),
]
LastFactor = Annotated[Positive, Field(description="exponential: factor on the learning rate at the last step")]


@dataclass(frozen=True)
class Constant:
    """The learning rate stays the same."""

    warmup_steps: WarmupSteps = 0

    def factor(self, step: int, num_steps: int) -> float:
        return _warmup(step, self.warmup_steps)


@dataclass(frozen=True)
class Drops:
    """The learning rate is multiplied by `gamma` at each of `at_steps`; a tuple has one gamma for each of them."""

    at_steps: DropSteps
    gamma: DropFactor
    warmup_steps: WarmupSteps = 0

    def factor(self, step: int, num_steps: int) -> float:
        gammas = self.gamma if isinstance(self.gamma, tuple) else (self.gamma,) * len(self.at_steps)
        factor = 1.0
        for at_step, gamma in zip(self.at_steps, gammas, strict=True):
            factor *= gamma if step >= at_step else 1
        return _warmup(step, self.warmup_steps) * factor


@dataclass(frozen=True)
class Exponential:
    """The learning rate falls by the same factor at each step, to `last` times its first value."""

    last: LastFactor
    warmup_steps: WarmupSteps = 0

    def factor(self, step: int, num_steps: int) -> float:
        fall = cast(float, self.last ** (step / max(1, num_steps - 1)))
        return _warmup(step, self.warmup_steps) * fall


@dataclass(frozen=True)
class Cosine:
    """Linear warmup, then half a cosine down to zero over the remaining steps."""

    warmup_steps: WarmupSteps = 0

    def factor(self, step: int, num_steps: int) -> float:
        if step < self.warmup_steps:
            return _warmup(step, self.warmup_steps)
        return 0.5 + 0.5 * cos(pi * (step - self.warmup_steps) / max(1, num_steps - self.warmup_steps))


Schedule = Constant | Drops | Exponential | Cosine


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / max(1, warmup_steps))
