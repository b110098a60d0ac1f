"""Find the fastest way to train this network on this machine: a few steps in each mode, on a batch of the run.

Tuning never changes what was requested: a precision that the recipe names is kept. TF32 and bfloat16 are tried
only if the recipe's precision is "auto".

What a mode takes on this machine is kept in the cache folder, for each network and shape of its batches, unless
other programs used the processors meanwhile.
"""

import json
import platform
import time
import warnings
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import torch

from pellucid.errors import OutputError
from pellucid.recipes.overrides import training_keywords
from pellucid.recipes.recipe import Recipe
from pellucid.system import files
from pellucid.system.other_load import OtherLoad
from pellucid.training.distributed import Group
from pellucid.training.initialization import Log
from pellucid.training.learner import ExecutionMode, Learner
from pellucid.training.patches import Batch

NUM_WARM_UP_STEPS, NUM_STEPS = 2, 8
MAX_MEASURED_S = 4.0
MIN_SPEEDUP = 1.05
"""A mode is used if it is faster than the best mode so far by more than this factor."""
MAX_SHARE = 0.03
"""Largest part of the time of a training that tuning takes."""
COMPILING_S = 60.0
"""Typical cost of compiling, until it is known for this network and machine."""
MAX_OTHER_LOAD = 0.15
"""Part of the processors that others may use while a mode is measured on the CPU, if it is to be remembered."""
MAX_REMEMBERED = 500
"""Measurements in the cache. Older ones are forgotten."""

Change = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """What a mode takes: for a step, and before the first steps are done, e.g. to compile."""

    step_s: float
    start_s: float = 0.0


class _TooLongError(Exception):
    """A mode is not measured, because that would take too long."""


def default_mode(recipe: Recipe) -> ExecutionMode:
    """The mode without tuning."""
    return ExecutionMode("float32" if recipe.precision == "auto" else recipe.precision)


def tune(recipe: Recipe, batch: Batch, device: torch.device, log: Log) -> ExecutionMode:
    """The fastest mode. What goes together is tried together, each group on top of the best mode so far.

    batch: (degraded, target) on the device. log: called with each measurement.
    """
    tuner = _Tuner(recipe, batch, device, log)
    if recipe.num_steps * MAX_SHARE < NUM_WARM_UP_STEPS + NUM_STEPS:
        log(f"tuning: not tried in a training of {recipe.num_steps} steps")
    else:
        tuner.try_all()
        tuner.check_remembered()
        tuner.report_load()
    log(f"tuned: {tuner.best}")
    return tuner.best


class _Tuner:
    """The best mode so far, and the time that was spent to find it."""

    def __init__(self, recipe: Recipe, batch: Batch, device: torch.device, log: Log) -> None:
        self._recipe, self._batch, self._device, self._log = recipe, batch, device, log
        self._memory = _Memory(_describe_task(recipe, batch, device))
        self._spent_s = 0.0
        self._other_load = 0.0
        self.best = default_mode(recipe)

    def try_all(self) -> None:
        self._best_s = float("inf")
        self._try(self.best)
        for group in _groups(self._recipe, self._device):
            for change in group:
                if self._try(replace(self.best, **change)):
                    break

    def check_remembered(self) -> None:
        """Run the best mode, if it was not run now: the network, or what compiles it, may have changed."""
        if not self._memory.knew(self.best) or self.best == default_mode(self._recipe):
            return
        try:
            self.measure_now(self.best)
        except Exception as error:  # as in `_try`
            self._log(f"tuning: {self.best}: does not run any more ({' '.join(str(error).split())[:120]})")
            self._memory.forget()
            self.best = default_mode(self._recipe)
            self.try_all()

    def _try(self, mode: ExecutionMode) -> bool:
        """Whether the mode is used now."""
        try:
            measured, source = self._measure(mode)
        except _TooLongError as reason:
            self._log(f"tuning: {mode}: not tried, {reason}")
            return False
        except Exception as error:  # whatever a compiler or a kernel does not support, the other modes remain
            self._log(f"tuning: {mode}: does not run here ({' '.join(str(error).split())[:120]})")
            return False
        is_first = self._best_s == float("inf")
        is_used = is_first or self._pays(mode, measured)
        verdict = "" if is_first else f", {'used' if is_used else 'not used'}"
        self._log(f"tuning: {mode}: {_format_time(measured.step_s)} per step{source}{verdict}")
        if is_used:
            self.best, self._best_s = mode, measured.step_s
        return is_used

    def _measure(self, mode: ExecutionMode) -> tuple[Measurement, str]:
        """What the mode takes, and how it is known. Raises _TooLongError if that is not worth its time."""
        known = self._memory.recall(mode)
        if known is not None:
            return known, " when it was measured before"
        if self._best_s < float("inf"):
            expected_s = (NUM_WARM_UP_STEPS + NUM_STEPS) * self._best_s + self._expect_start_s(mode)
            training_s = self._best_s * self._recipe.num_steps
            if self._spent_s + expected_s > MAX_SHARE * training_s:
                raise _TooLongError(
                    f"tuning would take {_format_time(self._spent_s + expected_s)} in all, more than "
                    f"{MAX_SHARE:.0%} of the training's {_format_time(training_s)}"
                )
        return self.measure_now(mode), ""

    def measure_now(self, mode: ExecutionMode) -> Measurement:
        started, load = time.perf_counter(), OtherLoad()
        try:
            with warnings.catch_warnings(action="ignore"):  # about performance, which is measured here
                measured = measure_mode(self._recipe, mode, self._batch, self._device)
        finally:
            self._spent_s += time.perf_counter() - started
        other_load = load.share() if self._device.type == "cpu" else 0.0
        if other_load <= MAX_OTHER_LOAD:
            self._memory.keep(mode, measured)
        self._other_load = max(self._other_load, other_load)
        return measured

    def report_load(self) -> None:
        """Log that results are not remembered, if that is the case."""
        if self._other_load > MAX_OTHER_LOAD:
            self._log(f"tuning: not remembered, other programs used {self._other_load:.0%} of the processors")

    def _expect_start_s(self, mode: ExecutionMode) -> float:
        """Seconds for compiling, if the mode needs it: as long as another mode took here, or typically."""
        return 0.0 if not mode.compiled else self._memory.longest_start_s() or COMPILING_S

    def _pays(self, mode: ExecutionMode, measured: Measurement) -> bool:
        gained_s = (self._best_s - measured.step_s) * self._recipe.num_steps
        return measured.step_s * MIN_SPEEDUP < self._best_s and gained_s > (measured.start_s * mode.compiled)


def _groups(recipe: Recipe, device: torch.device) -> list[list[Change]]:
    """Changes, in groups of alternatives: the first one that makes training faster is used.

    A GPU multiplies bfloat16 fast only with channels last, and compiled code is slow there without CUDA graphs.
    """
    is_free = recipe.precision == "auto"
    layout: Change = {"channels_last": True}
    if device.type == "cuda":
        low = [{"precision": "bfloat16", **layout}, {"tf32": True, **layout}] if is_free else []
        return [[*low, layout], [{"compiled": True, "graphs": True}, {"compiled": True}]]
    return [[layout], *([[{"precision": "bfloat16"}]] if is_free else []), [{"compiled": True}]]


def measure_mode(recipe: Recipe, mode: ExecutionMode, batch: Batch, device: torch.device) -> Measurement:
    """What this mode takes on this batch; a step is the shortest of a few: other load only makes it longer."""
    learner = Learner(recipe, recipe.network(), mode, seed=0, group=Group(device))
    started = time.perf_counter()
    for _ in range(NUM_WARM_UP_STEPS):  # selects kernels, compiles; then a GPU works on the step before
        learner.learn(*batch)
    start_s = time.perf_counter() - started
    steps_s: list[float] = []
    while len(steps_s) < NUM_STEPS and sum(steps_s) < MAX_MEASURED_S:
        started = time.perf_counter()
        learner.learn(*batch)  # returns when a step is done: this one, or on a GPU the one before
        steps_s.append(time.perf_counter() - started)
    learner.settle()
    return Measurement(min(steps_s), start_s)


class _Memory:
    """Measurements of earlier trainings, for one task. If the cache folder cannot be written, it forgets."""

    def __init__(self, task: str) -> None:
        self._task, self._path = task, files.cache_folder() / "tuning.json"
        self._recalled = set[ExecutionMode]()

    def recall(self, mode: ExecutionMode) -> Measurement | None:
        kept = self._read().get(f"{self._task} {mode}")
        if kept is None:
            return None
        self._recalled.add(mode)
        return Measurement(*kept)

    def knew(self, mode: ExecutionMode) -> bool:
        """Whether `recall` has returned a measurement of this mode."""
        return mode in self._recalled

    def forget(self) -> None:
        """Forget this task."""
        self._recalled.clear()
        self._write({key: kept for key, kept in self._read().items() if not key.startswith(self._task)})

    def longest_start_s(self) -> float:
        """The longest start of a compiled mode; 0 if none is known."""
        known = [
            kept[1] for key, kept in self._read().items() if key.startswith(self._task) and ", compiled" in key
        ]
        return max(known, default=0.0)

    def keep(self, mode: ExecutionMode, measured: Measurement) -> None:
        kept = self._read() | {f"{self._task} {mode}": [measured.step_s, measured.start_s]}
        self._write(dict(list(kept.items())[-MAX_REMEMBERED:]))

    def _write(self, content: dict[str, list[float]]) -> None:
        try:
            files.write_atomic(self._path, json.dumps(content, indent=1).encode(), overwrite=True)
        except OutputError:  # no cache: the next training measures again
            return

    def _read(self) -> dict[str, list[float]]:
        try:
            kept = json.loads(self._path.read_bytes())
            return {key: [float(step_s), float(start_s)] for key, (step_s, start_s) in kept.items()}
        except (
            OSError,
            ValueError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ):  # missing, or damaged
            return {}


def _describe_task(recipe: Recipe, batch: Batch, device: torch.device) -> str:
    """A hash of what decides how long a step takes: the network, its optimizer, the batch and the machine."""
    own = {key: value for key, value in recipe.parameters.items() if key not in training_keywords()}
    shapes = [list(planes.shape) for planes in batch]
    # A cache may be shared by computers whose processors differ; equal GPUs are equally fast.
    place = "" if device.type == "cuda" else platform.node()
    machine = device.type, describe_hardware(device), place, torch.__version__, version("pellucid")
    network = recipe.name, own, recipe.network_sha256
    described = [*network, type(recipe.optimizer).__name__, recipe.precision, shapes, machine]
    return sha256(json.dumps(described, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def describe_hardware(device: torch.device) -> str:
    """The name of the GPU; of other processors the kind, and how many threads are used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def _format_time(time_s: float) -> str:
    return f"{time_s:.3g} s" if time_s >= 1 else f"{1000 * time_s:.3g} ms"
