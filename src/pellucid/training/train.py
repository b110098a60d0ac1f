"""Train a recipe: batches -> loss -> backward -> step -> average -> validate -> checkpoint.

The same call resumes an interrupted training, whatever interrupted it: batches and dropout are functions of
(seed, step), and a checkpoint contains the rest. On a CPU the resulting weights are those of an uninterrupted
training, bit for bit.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pellucid.backends.backend import allocation
from pellucid.data import preparing
from pellucid.data.store import Store
from pellucid.errors import DataError, PellucidError
from pellucid.recipes.changes import check_usable, describe_changes, describe_part
from pellucid.recipes.overrides import check_patches, check_steps, check_training_values, training_values
from pellucid.recipes.recipe import Recipe
from pellucid.storage import cache, objects
from pellucid.storage.urls import Location, Url, locate
from pellucid.system import devices, heap
from pellucid.system.arguments import check_number, checks_types
from pellucid.system.wording import format_count
from pellucid.training import distributed, run_folder, tuning
from pellucid.training.batches import Batches
from pellucid.training.bucket_run import BucketRun, local_folder, open_bucket_run
from pellucid.training.distributed import Group
from pellucid.training.initialization import Log, build_network, load_pretrained
from pellucid.training.learner import ExecutionMode, Learner, StepResult
from pellucid.training.mixing import MixedStore, Shares, check_shares, name_of, open_sources
from pellucid.training.optimization import TensorsByName
from pellucid.training.patches import learns_from_pairs
from pellucid.training.recorder import Recorder, Validation, command_line
from pellucid.training.run_folder import Checkpoint, Json, Run
from pellucid.training.stopping import StopSignals, catch_stop_signals
from pellucid.training.tensorboard import TensorboardWriter, check_available
from pellucid.weights.checkpoint import fingerprint

MAX_SKIPPED_IN_A_ROW = 20
"""After this many batches in a row whose loss or gradient is not finite, a training ends with an error."""
_STABLE_HINT = "train with a lower lr, clip_norm=1 or precision=float32"
PROFILED_STEPS = {"wait": 5, "warmup": 2, "active": 10}


@dataclass(frozen=True)
class Status:
    """The progress of a training after a step."""

    step: int
    """Number of steps done."""
    num_steps: int
    loss: float
    """The loss of this step's batch, before the step; not finite if the batch was skipped."""
    lr: float
    images_per_s: float
    waiting: float
    """Fraction of the time that was spent waiting for data, from 0 to 1."""
    seconds_left: float
    psnr_db: float | None
    """The PSNR of the last validation."""
    behind_s: float = 0.0
    """The age of the state in the bucket, in seconds; 0 if everything is uploaded, or without a bucket."""


def _ignore(_: Any) -> None:
    pass


@checks_types()
def train(
    recipe: Recipe,
    data: str | Location,
    out: str | Location,
    *,
    target: str | Location | None = None,
    mix: Mapping[str, float] | None = None,
    seed: int = 0,
    device: str = "auto",
    start_from: str | Path | None = None,
    tune: bool = True,
    validation: Validation | None = None,
    limit: int | None = None,
    save_every_s: float = 300.0,
    profile: bool = False,
    tensorboard: bool = False,
    progress: Callable[[Status], None] = _ignore,
    log: Log = _ignore,
) -> Path:
    """Train a recipe, or resume a training that was interrupted. Returns the path of the weights on this computer.

    To resume, call it again with the same recipe, data, mix, seed, limit, start_from and tune; all other arguments
    may change, and so may the number of processes. If all steps are done, it returns at once.

    Parts of the recipe may be your own, with `dataclasses.replace`, except for its network and domain: the weights
    contain its name and keywords only.

    recipe: what to train, from `pellucid.find(name, **keywords)`.
    data: a store from `prepare`, or a folder of pictures, from which a store is made in the user's cache. Without
        targets, the pictures must be clean, and the recipe degrades them. Pairs, and camera RAW files with long
        exposures, are used as they are, unless the recipe has learn_from="targets".
    out: the run folder. It gets checkpoints, metrics, validation strips and the resulting `weights.safetensors`.
        For a run in a bucket, the folder is in the cache of this computer and is uploaded in the background;
        another machine resumes from the bucket.
    target: a folder of targets, matched by name, or in sorted order if no names agree; `data` is then a folder of
        degraded pictures.
    mix: more stores, or folders of clean pictures, each with its share of the patches, above 0, e.g.
        {"gopro.store": 0.4, "reds.store": 0.2}; the rest of the patches is from `data`. Each is used in the same
        way as `data`: pairs as they are, and clean pictures degraded by the recipe.
    seed: 0 or more; determines the initial weights, the patches, the noise and dropout.
    device: "auto", "cpu", "cuda", "cuda:1", "mps", ... Under torchrun, all processes train together.
    start_from: name of a model, or a weight file; tensors with matching name and shape initialize the network.
    tune: first measure several execution modes, and use the fastest (bfloat16 or TF32 only if the recipe's
        precision is "auto"); if False, use the recipe's precision (float32 for "auto") without compilation.
    validation: what to score every `recipe.validate_every` steps. The resulting weights are then those with the
        best score; without validation, the last ones.
    limit: use only this many pictures, the first of the data, and of each mixed store.
    save_every_s: longest time between two checkpoints, in seconds.
    profile: trace a few early steps into `out`/trace.json.
    tensorboard: also write metrics and validation strips to `out`/tensorboard.
    progress: called for each step when its loss is known, in the first process only.
    log: called with a line of text for each event: results of tuning, resuming, skipped batches, damaged
        checkpoints. In the first process only.

    Raises OutputError if `out` is in use or is not a run folder of this training; DataError if the recipe cannot
    learn from the data; RecipeError if sizes or steps do not fit; NotEnoughMemoryError if a batch does not fit the
    memory; WeightsError if no tensor of `start_from` fits; MissingExtraError if tensorboard is not installed;
    PellucidError if 20 batches in a row, most batches, or the weights, are not finite; and Stopped, a
    KeyboardInterrupt, after Ctrl-C or SIGTERM, which save a checkpoint first.
    """
    _check_numbers(seed, limit)
    check_number("save_every_s", save_every_s, 0, is_whole=False)
    place = locate(out)
    if isinstance(place, Url):
        objects.check_can_write(place)
    check_training_values(recipe)
    check_steps(recipe)
    changes = describe_changes(recipe)
    check_usable(recipe, changes)
    check_shares(mix or {})
    given, data, target = str(data), cache.as_local(data), None if target is None else cache.as_local(target)
    warnings = () if validation is None else validation.check(recipe)  # now, not at the first validation
    if tensorboard:
        check_available()
    with ExitStack() as stack:
        stack.enter_context(heap.keeping())
        group = stack.enter_context(distributed.join_group(device, log))
        log = log if group.is_first else _ignore
        for warning in warnings:
            log(warning)
        store = _open_store(data, target, limit, log)
        _check_kind(recipe, store, given)
        mixed = open_sources(mix or {}, store, limit, log)
        batches = stack.enter_context(closing(_build_batches(recipe, store, mixed, seed, group)))
        pretrained = load_pretrained(start_from, recipe)
        run: Run | None = None
        bucket_run: BucketRun | None = None
        folder = local_folder(place) if isinstance(place, Url) else place
        if group.is_first:
            identity = _build_identity(recipe, store, mixed, pretrained, seed=seed, limit=limit, tune=tune)
            identity |= changes
            if isinstance(place, Url):
                bucket_run = stack.enter_context(open_bucket_run(place, log))
            run = stack.enter_context(
                run_folder.open_run(folder, identity, _describe(recipe, given, store, mixed))
            )
            _log_sources(recipe, given, store, mixed, log)
        stack.enter_context(allocation("a step of this training", hint="lower batch_size= or patch_px="))
        mode = group.broadcast(_choose_mode(run, recipe, batches, tune, log))
        learner = Learner(recipe, build_network(recipe, seed, pretrained, log), mode, seed=seed, group=group)
        start = group.broadcast(_load_checkpoint(run, log))
        if start is not None:
            learner.load(start.step, start.tensors, start.metadata)
        recorder: Recorder | None = None
        if run is not None:
            writer = stack.enter_context(closing(TensorboardWriter(folder))) if tensorboard else None
            origin = f"trained on {_format_sources(data.name, store, mixed)}, seed {seed}"
            stores = store, *(one.store for one in mixed)
            from_pairs = all(learns_from_pairs(recipe, each) for each in stores)
            recorder = Recorder(
                run,
                learner,
                validation,
                origin=origin,
                from_pairs=from_pairs,
                degradation=None if from_pairs else changes.get("degradation"),
                save_every_s=save_every_s,
                tensorboard=writer,
                bucket_run=bucket_run,
                log=log,
            )
            _record_start(run, recorder, start, group)
            if writer is not None:
                writer.catch_up()
            if bucket_run is not None and start is not None:
                # Even if the bucket has this step: the process that stored it may have been killed before it
                # replaced the copies for users.
                bucket_run.save(start.step)
        if learner.step == recipe.num_steps:
            log(f"{place}: all steps are done ({recipe.num_steps})")
        num_left = recipe.num_steps - learner.step
        profiler = _start_profiler(run, num_left, stack, log) if profile else None
        stack.enter_context(distributed.explain_lost_processes(group))
        stop_signals = stack.enter_context(catch_stop_signals())
        validates = validation is not None
        loop = _Loop(
            learner, batches, group, recorder, validates, profiler, stop_signals, seed, progress=progress, log=log
        )
        loop.run()
        return folder / "weights.safetensors"


@dataclass(frozen=True)
class _Loop:
    """The steps of a training.

    recorder: None in all processes but the first. validates: whether there is a validation; the same in all.
    """

    learner: Learner
    batches: Batches
    group: Group
    recorder: Recorder | None
    validates: bool
    profiler: torch.profiler.profile | None
    stop_signals: StopSignals
    seed: int
    progress: Callable[[Status], None]
    log: Log

    def run(self) -> None:
        """Do all remaining steps. Raises Stopped after a signal, and PellucidError as `train` does."""
        recipe, learner = self.learner.recipe, self.learner
        validate_every = recipe.validate_every or max(1, recipe.num_steps // 50)
        pace = _Pace(self.batches)
        while learner.step < recipe.num_steps:
            results = learner.learn(*self.batches.batch(learner.step))
            pace.tick()
            is_last = learner.step == recipe.num_steps
            validates = self.validates and (learner.step % validate_every == 0 or is_last)
            stops = self._must_stop()
            logs, saves = self._is_logged(), validates or is_last or stops or self._is_save_due()
            if logs or saves:
                results += learner.settle()
            for result in results:
                _check_skipped(result, recipe.num_steps, self.seed, self.log)
            if self.recorder is not None:
                self._record(self.recorder, results, pace, logs=logs, validates=validates, saves=saves)
            if validates:
                self.group.wait()
                pace.restart()
            if self.profiler is not None:
                self.profiler.step()
            if stops and not is_last:
                raise self.stop_signals.stop(learner.step)

    def _must_stop(self) -> bool:
        """Whether any process has received a signal. Asking the others takes a wait for the device."""
        if self.group.world_size > 1 and devices.is_asynchronous(self.group.device) and self.learner.step % 10:
            return False
        return self.group.any(bool(self.stop_signals))

    def _is_logged(self) -> bool:
        step, num_steps = self.learner.step, self.learner.recipe.num_steps
        return step % max(1, min(100, num_steps // 100)) == 0 or step == num_steps

    def _is_save_due(self) -> bool:
        return self.recorder is not None and self.recorder.is_due()

    def _record(
        self,
        recorder: Recorder,
        results: list[StepResult],
        pace: "_Pace",
        *,
        logs: bool,
        validates: bool,
        saves: bool,
    ) -> None:
        for result in results:
            recorder.history.add(result.loss)
        if logs:
            recorder.record_metrics(lr=results[-1].lr, images_per_s=pace.images_per_s, waiting=pace.waiting)
        if validates:
            recorder.validate()
        if saves:
            recorder.save()
        for result in results:
            self.progress(_build_status(self.learner, result, pace, recorder))


@dataclass(frozen=True)
class Speed:
    """The speed of a training. waiting: fraction of the time spent waiting for data, from 0 to 1."""

    images_per_s: float
    waiting: float
    mode: ExecutionMode


@checks_types()
def measure(
    recipe: Recipe,
    data: str | Location,
    *,
    target: str | Location | None = None,
    mix: Mapping[str, float] | None = None,
    num_steps: int = 300,
    seed: int = 0,
    device: str = "auto",
    tune: bool = True,
    limit: int | None = None,
    log: Log = _ignore,
) -> Speed:
    """Train for `num_steps` steps (2 or more), write nothing, and return the speed of the second half of them.

    Arguments and errors are those of `train`.
    """
    _check_numbers(seed, limit)
    check_number("num_steps", num_steps, 2)
    check_training_values(recipe)
    check_shares(mix or {})
    data, target = cache.as_local(data), None if target is None else cache.as_local(target)
    with ExitStack() as stack:
        stack.enter_context(heap.keeping())
        group = stack.enter_context(distributed.join_group(device, log))
        log = log if group.is_first else _ignore
        store = _open_store(data, target, limit, log)
        mixed = open_sources(mix or {}, store, limit, log)
        batches = stack.enter_context(closing(_build_batches(recipe, store, mixed, seed, group)))
        mode = tuning.tune(recipe, batches.batch(0), group.device, log) if tune else tuning.default_mode(recipe)
        mode = group.broadcast(mode)
        learner = Learner(recipe, build_network(recipe, seed, None, log), mode, seed=seed, group=group)
        started, waited_s = time.perf_counter(), batches.waited_s
        while learner.step < num_steps:
            if learner.step == num_steps // 2:
                started, waited_s = time.perf_counter(), batches.waited_s
            learner.learn(*batches.batch(learner.step))
        learner.settle()
        took_s = time.perf_counter() - started
        num_images = (num_steps - num_steps // 2) * batches.batch_size
        return Speed(num_images / took_s, (batches.waited_s - waited_s) / took_s, mode)


def _check_numbers(seed: int, limit: int | None) -> None:
    check_number("seed", seed, 0)
    if limit is not None:
        check_number("limit", limit, 1)


def _open_store(data: str | Path, target: str | Path | None, limit: int | None, log: Log) -> Store:
    store = preparing.open_data(data, target=target, log=log)
    return store if limit is None else store.take(limit)


def _check_kind(recipe: Recipe, store: Store, name: str) -> None:
    """Raise DataError if the recipe cannot learn from this kind of data."""
    try:
        learns_from_pairs(recipe, store)
    except DataError as error:
        raise error.about(name) from error


def _build_batches(recipe: Recipe, store: Store, mixed: Sequence[MixedStore], seed: int, group: Group) -> Batches:
    check_patches(recipe)
    return Batches(
        recipe, store, mixed=mixed, seed=seed, device=group.device, rank=group.rank, world_size=group.world_size
    )


def _list_sources(data: str, store: Store, mixed: Sequence[MixedStore]) -> list[tuple[str, Store, float]]:
    """(name, store, share) of the data and all mixed sources. data: the name of the data."""
    shares = map(float, Shares([source.share for source in mixed]).all)
    stores = [(data, store), *((source.name, source.store) for source in mixed)]
    return [(name, each, share) for (name, each), share in zip(stores, shares, strict=True)]


def _format_sources(data: str, store: Store, mixed: Sequence[MixedStore]) -> str:
    """The data and all mixed sources with their shares, e.g. "photos (90 pictures, share 0.6), ..."."""
    return ", ".join(
        f"{name_of(name)} ({format_count(len(each), 'picture')}{f', share {share:g}' if mixed else ''})"
        for name, each, share in _list_sources(data, store, mixed)
    )


def _log_sources(recipe: Recipe, data: str, store: Store, mixed: Sequence[MixedStore], log: Log) -> None:
    """Log what a mixed training learns from, and how."""
    for name, each, share in _list_sources(data, store, mixed) if mixed else ():
        way = "as they are" if learns_from_pairs(recipe, each) else "degraded by the recipe"
        log(f"{name}: {share:.1%} of the patches, {format_count(len(each), 'picture')}, {way}")


def _build_identity(
    recipe: Recipe,
    store: Store,
    mixed: Sequence[MixedStore],
    pretrained: TensorsByName | None,
    *,
    seed: int,
    limit: int | None,
    tune: bool,
) -> Json:
    """What must be equal to resume a run."""
    mix = ",".join(f"{source.store.fingerprint[:16]}={source.share:.12g}" for source in mixed)
    return {
        "recipe": recipe.name,
        **recipe.parameters,
        **({} if recipe.network_sha256 is None else {"network": recipe.network_sha256[:16]}),
        "optimizer": type(recipe.optimizer).__name__.lower(),  # no other optimizer can load its state
        **({"pairs": True} if recipe.degradation is not None and learns_from_pairs(recipe, store) else {}),
        "seed": seed,
        "data": store.fingerprint[:16],
        **({"mix": mix} if mixed else {}),
        "limit": limit,
        "from": None if pretrained is None else fingerprint(pretrained)[:16],
        "tune": "auto" if tune else "off",
    }


def _describe(recipe: Recipe, data: str, store: Store, mixed: Sequence[MixedStore]) -> Json:
    """What run.json contains for its readers."""
    sources = [
        {"folder": name, "kind": each.kind, "num_pictures": len(each), "share": share}
        for name, each, share in _list_sources(data, store, mixed)
    ]
    if not mixed:
        del sources[0]["share"]
    return {
        "training": training_values(recipe),
        "domain": describe_part(recipe.domain),
        "degradation": describe_part(recipe.degradation),
        "protocol": describe_part(recipe.protocol),
        "data": sources[0],
        **({"mix": sources[1:]} if mixed else {}),
    }


def _choose_mode(run: Run | None, recipe: Recipe, batches: Batches, tune: bool, log: Log) -> ExecutionMode:
    """The mode with which the run was started; for a new run, the result of tuning. The first process decides."""
    if run is None or not tune:
        return tuning.default_mode(recipe)
    recorded = run_folder.describe_run(run.folder).get("choice")
    if recorded is not None:
        mode = ExecutionMode(**recorded)
        log(f"tuned: {mode}, when this run was started")
        return mode
    mode = tuning.tune(recipe, batches.batch(0), batches.device, log)
    run.update_description(choice=asdict(mode))
    return mode


def _load_checkpoint(run: Run | None, log: Log) -> Checkpoint | None:
    if run is None:
        return None
    newest, problems = run.load_newest()
    for problem in problems:
        log(f"{problem}; renamed to .refused")
    if problems or newest is not None:
        log(f"{run.folder}: resuming from step {0 if newest is None else newest.step}")
    return newest


def _record_start(run: Run, recorder: Recorder, checkpoint: Checkpoint | None, group: Group) -> None:
    step = 0 if checkpoint is None else checkpoint.step
    if checkpoint is not None:
        recorder.load(checkpoint.metadata)
    run.drop_metrics_after(step)
    start = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "command": command_line(),
        "device": str(group.device),
        "hardware": tuning.describe_hardware(group.device),
        "num_processes": group.world_size,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("pellucid", "torch")},
        },
    }
    run.update_description(starts=[*run_folder.describe_run(run.folder).get("starts", []), start])


def _start_profiler(run: Run | None, num_left: int, stack: ExitStack, log: Log) -> torch.profiler.profile | None:
    """A profiler of a few early steps, which writes its trace into the run folder, if enough steps are left."""
    if run is None:
        return None
    if num_left < 2:
        log(f"{run.folder}: no trace is written, as that needs 2 more steps; only {num_left} left")
        return None
    # Else the profiler prints lines about its start and stop.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    path = run.folder / "trace.json"
    is_enough = num_left >= sum(PROFILED_STEPS.values())
    steps = PROFILED_STEPS if is_enough else {"wait": 0, "warmup": 1, "active": num_left - 1}
    return stack.enter_context(
        torch.profiler.profile(
            schedule=torch.profiler.schedule(**steps, repeat=1),
            on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(path)),
        )
    )


def _check_skipped(result: StepResult, num_steps: int, seed: int, log: Log) -> None:
    num, step = result.num_skipped_in_a_row, result.step
    if num:
        log(f"loss or gradient not finite at step {step} (seed {seed}); batch skipped")
    if num == MAX_SKIPPED_IN_A_ROW:
        raise PellucidError(
            f"loss or gradient not finite in {num} batches in a row, steps {step - num + 1} to {step} of "
            f"seed {seed}; earlier checkpoints are kept",
            hint=_STABLE_HINT,
        )
    if result.step == num_steps and result.num_skipped > num_steps / 2:
        raise PellucidError(
            f"loss or gradient not finite in {result.num_skipped} of {num_steps} batches, so the weights are "
            "not saved; earlier checkpoints are kept",
            hint=_STABLE_HINT,
        )


class _Pace:
    """Moving averages of the time per step and of the wait for data, without pauses that end with `restart`."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self.step_s = 0.0
        self._waited_s = 0.0
        self._num_ticks = 0
        self.restart()

    def restart(self) -> None:
        self._last = time.perf_counter(), self._batches.waited_s

    def tick(self) -> None:
        """Count the time since the last call, or since `restart`, as one step."""
        step_s, waited_s = time.perf_counter() - self._last[0], self._batches.waited_s - self._last[1]
        self._num_ticks += 1
        weight = max(0.02, 1 / self._num_ticks)
        self.step_s += weight * (step_s - self.step_s)
        self._waited_s += weight * (waited_s - self._waited_s)
        self.restart()

    @property
    def images_per_s(self) -> float:
        return self._batches.batch_size / self.step_s

    @property
    def waiting(self) -> float:
        return self._waited_s / self.step_s


def _build_status(learner: Learner, result: StepResult, pace: _Pace, recorder: Recorder) -> Status:
    num_steps = learner.recipe.num_steps
    return Status(
        step=result.step,
        num_steps=num_steps,
        loss=result.loss,
        lr=result.lr,
        images_per_s=pace.images_per_s,
        waiting=pace.waiting,
        seconds_left=(num_steps - result.step) * pace.step_s,
        psnr_db=recorder.history.psnr_db,
        behind_s=recorder.behind_s,
    )
