"""Find the fastest way to train this network on this machine: a few steps in each mode, on a batch of the run.

Tuning never changes what was requested: a precision that the recipe names is kept. TF32 and bfloat16 are tried
only if the recipe's precision is "auto".
"""

import time
import warnings
from dataclasses import replace
from typing import Any

import torch

from pellucid.recipes.recipe import Recipe
from pellucid.training.distributed import Group
from pellucid.training.initialization import Log
from pellucid.training.learner import ExecutionMode, Learner
from pellucid.training.patches import Batch

NUM_STEPS = 8
MAX_MEASURED_S = 4.0
MIN_SPEEDUP = 1.05
"""A mode is used if it is faster than the best mode so far by more than this factor."""
COMPILING_S = 60.0
"""Typical cost of compiling; it is tried in trainings that take at least ten times as long."""


def default_mode(recipe: Recipe) -> ExecutionMode:
    """The mode without tuning."""
    return ExecutionMode("float32" if recipe.precision == "auto" else recipe.precision)


def tune(recipe: Recipe, batch: Batch, device: torch.device, log: Log) -> ExecutionMode:
    """The fastest mode. Changes are tried one after the other, each on top of the best mode so far.

    batch: (degraded, target) on the device. log: called with each measurement.
    """
    best = default_mode(recipe)
    best_s = measure_step_s(recipe, best, batch, device)
    log(f"tuning: {best}: {_format_time(best_s)} per step")
    for change in _changes(recipe, device):
        if "compiled" in change and best_s * recipe.num_steps < 10 * COMPILING_S:
            log(f"tuning: compilation not tried: the training takes only about {best_s * recipe.num_steps:.0f} s")
            continue
        mode = replace(best, **change)
        try:
            with warnings.catch_warnings(action="ignore"):  # about performance, which is measured here
                step_s = measure_step_s(recipe, mode, batch, device)
        except Exception as error:  # whatever a compiler or a kernel does not support, the other modes remain
            log(f"tuning: {mode}: does not run here ({' '.join(str(error).split())[:120]})")
            continue
        is_faster = step_s * MIN_SPEEDUP < best_s
        log(f"tuning: {mode}: {_format_time(step_s)} per step, {'used' if is_faster else 'not used'}")
        best, best_s = (mode, step_s) if is_faster else (best, best_s)
    log(f"tuned: {best}")
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


def measure_step_s(recipe: Recipe, mode: ExecutionMode, batch: Batch, device: torch.device) -> float:
    """Seconds of a step on this batch: the shortest of a few, because other load only makes a step longer."""
    learner = Learner(recipe, recipe.network(), mode, seed=0, group=Group(device))
    for _ in range(2):  # selects kernels, compiles; from the second step on, a GPU works on the step before
        learner.learn(*batch)
    steps_s: list[float] = []
    while len(steps_s) < NUM_STEPS and sum(steps_s) < MAX_MEASURED_S:
        started = time.perf_counter()
        learner.learn(*batch)  # returns when a step is done: this one, or on a GPU the one before
        steps_s.append(time.perf_counter() - started)
    learner.settle()
    return min(steps_s)


def _format_time(time_s: float) -> str:
    return f"{time_s:.3g} s" if time_s >= 1 else f"{1000 * time_s:.3g} ms"
