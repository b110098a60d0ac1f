"""Find out how this machine trains this network fastest: a few steps each way, on a batch of the run itself.

Never changes what is asked: a precision that the recipe names is kept; TF32 and bfloat16 are tried only where
the recipe leaves it open.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pellucid.recipes.recipe import Recipe
from pellucid.training.distributed import Group
from pellucid.training.learner import ExecutionMode, Learner

NUM_STEPS = 8
ENOUGH_S = 4.0
MIN_SPEEDUP = 0.95
"""A way is taken when it needs less than this share of the plainer one's time."""
COMPILING_S = 60.0
"""About what compiling costs; it is tried in trainings that last ten times as long."""

Batch = tuple[Tensor, Tensor]
Note = Callable[[str], None]


def default_mode(recipe: Recipe) -> ExecutionMode:
    """What `--tune off` runs."""
    return ExecutionMode("float32" if recipe.precision == "auto" else recipe.precision)


def tune(recipe: Recipe, batch: Batch, device: torch.device, note: Note) -> ExecutionMode:
    """The fastest way to train, found by adding one thing after the other; each comparison is told."""
    best = default_mode(recipe)
    best_s = _step_s(recipe, best, batch, device)
    note(f"tuning: {best}: {1000 * best_s:.3g} ms a step")
    for change in _changes(recipe, device):
        if "compiled" in change and best_s * recipe.num_steps < 10 * COMPILING_S:
            note(f"tuning: not compiled, as the training lasts about {best_s * recipe.num_steps:.0f} s only")
            continue
        other = replace(best, **change)
        try:
            with warnings.catch_warnings(action="ignore"):  # what a compiler does not do well, its time tells
                other_s = _step_s(recipe, other, batch, device)
        except Exception as error:  # whatever a compiler or a kernel lacks here, the plain way remains
            note(f"tuning: {other}: does not run here ({' '.join(str(error).split())[:120]})")
            continue
        taken = other_s < MIN_SPEEDUP * best_s
        note(f"tuning: {other}: {1000 * other_s:.3g} ms a step, {'taken' if taken else 'not taken'}")
        best, best_s = (other, other_s) if taken else (best, best_s)
    note(f"tuned: {best}")
    return best


def _changes(recipe: Recipe, device: torch.device) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = [{"channels_last": True}]
    if recipe.precision == "auto":
        changes.append({"precision": "bfloat16"})
        if device.type == "cuda":
            changes.append({"tf32": True})
    changes.append({"compiled": True})
    if device.type == "cuda":
        changes.append({"compiled": True, "graphs": True})
    return changes


def _step_s(recipe: Recipe, choice: ExecutionMode, batch: Batch, device: torch.device) -> float:
    """The shortest of some steps: what else the machine does only makes one longer."""
    learner = Learner(recipe, recipe.network(), choice, seed=0, group=Group(device))
    learner.learn(*batch)  # finds kernels, compiles
    steps_s: list[float] = []
    while len(steps_s) < NUM_STEPS and sum(steps_s) < ENOUGH_S:
        started = time.perf_counter()
        learner.learn(*batch)  # waits for the device, as it returns the loss
        steps_s.append(time.perf_counter() - started)
    return min(steps_s)
