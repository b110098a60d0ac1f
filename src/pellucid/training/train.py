"""Train a recipe: batches -> loss -> backward -> step -> average -> validate -> checkpoint.

The same call goes on where it was broken off, however that happened: batches and dropout are functions of
(seed, step), and a checkpoint holds the rest. On a CPU the weights are those of a training that ran through,
to the last bit.
"""

import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import torch

from pellucid.data import preparing
from pellucid.data.store import Store
from pellucid.errors import PellucidError, WeightsError
from pellucid.recipes.network import Network
from pellucid.recipes.overrides import training_values
from pellucid.recipes.recipe import Recipe
from pellucid.training import distributed, run_folder, tuning
from pellucid.training.batches import Batches
from pellucid.training.distributed import Group
from pellucid.training.learner import ExecutionMode, Learner
from pellucid.training.optimization import TensorsByName
from pellucid.training.recorder import Recorder, Validation, command_line
from pellucid.training.run_folder import Checkpoint, Json, Run
from pellucid.training.tensorboard import TensorboardWriter, check_available
from pellucid.weights import checkpoint, models
from pellucid.weights.checkpoint import fingerprint

MAX_SKIPPED = 20
"""So many batches in a row without a finite loss and gradient end a training."""
PROFILED_STEPS = {"wait": 5, "warmup": 2, "active": 10}

Note = Callable[[str], None]


@dataclass(frozen=True)
class Status:
    """How far a training is, after a step. waiting: share of the time that went into waiting for data."""

    step: int
    num_steps: int
    loss: float
    lr: float
    images_per_s: float
    waiting: float
    seconds_left: float
    psnr_db: float | None


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM asked to stop, and all is saved; the same call goes on."""

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step, self.signal_number = step, signal_number


def _ignore(_: Any) -> None:
    pass


def train(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    *,
    target: str | Path | None = None,
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
    note: Note = _ignore,
) -> Path:
    """Train a recipe, or go on where the same call was broken off. Returns the weight file.

    data: a store, or a folder that is made one; with target, degraded pictures, whose clean partners lie there.
    out: the run folder. start_from: a model, or a weight file, to begin with; what does not fit is left out,
    and said. tune: False is plain float32, not compiled.
    limit: the first so many pictures of the data. save_every_s: a checkpoint at least so often.
    profile: trace some steps into `out`/trace.json. tensorboard: write `out`/tensorboard, too.
    progress: called after each step. note: called with what people should know, a line each.

    Raises OutputError when the folder is of another training or in use, DataError when the data is not what
    the recipe learns from, PellucidError when the numbers do not stay finite, and Stopped, a KeyboardInterrupt,
    after Ctrl-C or SIGTERM.
    """
    out = Path(out)
    if validation is not None:
        validation.check(recipe)  # not after the first thousand steps
    if tensorboard:
        check_available()
    with ExitStack() as stack:
        group = stack.enter_context(distributed.join_group(device))
        note = note if group.is_first else _ignore
        pictures = _opened(data, target, limit)
        batches = stack.enter_context(closing(_batches(recipe, pictures, seed, group)))
        pretrained = _pretrained(start_from)
        run: Run | None = None
        if group.is_first:
            identity = _identity(recipe, pictures, pretrained, seed=seed, limit=limit, tune=tune)
            run = stack.enter_context(run_folder.open_run(out, identity, _facts(recipe, data, pictures)))
        choice = group.from_first(_chosen(run, recipe, batches, tune, note))
        learner = Learner(recipe, _begun(recipe, seed, pretrained, note), choice, seed=seed, group=group)
        start = group.from_first(_newest(run, note))
        if start is not None:
            learner.go_on_from(start.step, start.tensors, start.facts)
        keeper: Recorder | None = None
        if run is not None:
            about = f"trained on {Path(data).name} ({len(pictures)} pictures), seed {seed}"
            shown = stack.enter_context(closing(TensorboardWriter(out))) if tensorboard else None
            keeper = Recorder(run, learner, validation, about=about, every_s=save_every_s, board=shown)
            _resume(run, keeper, start, group)
            if shown is not None:
                shown.catch_up()
        if learner.step == recipe.num_steps:
            note(f"{out}: all {recipe.num_steps} steps are done")
        profiler = _profiler(run, stack) if profile else None
        stack.enter_context(distributed.name_lost_processes(group))
        stopping = stack.enter_context(_stopping())
        validate_every = recipe.validate_every or max(1, recipe.num_steps // 50)
        log_every = max(1, min(100, recipe.num_steps // 100))
        pace = _Pace(batches)

        while learner.step < recipe.num_steps:
            lr = learner.lr
            loss = learner.learn(*batches.batch(learner.step))
            _complain_of_skipped(learner, seed, note)
            pace.tick()

            step, is_last = learner.step, learner.step == recipe.num_steps
            validates = validation is not None and (step % validate_every == 0 or is_last)
            stops = group.any(bool(stopping))
            if keeper is not None:
                keeper.history.add(loss)
                if step % log_every == 0 or is_last:
                    keeper.log(lr=lr, images_per_s=pace.images_per_s, waiting=pace.waiting)
                if validates:
                    keeper.validate()
                if validates or is_last or stops or keeper.is_due():
                    keeper.save()
                progress(_status(learner, loss, lr, pace, keeper))
            if validates:
                group.wait()
                pace.restart()
            if profiler is not None:
                profiler.step()
            if stops and not is_last:
                raise Stopped(step, stopping[0] if stopping else signal.SIGTERM)
        return out / "weights.safetensors"


@dataclass(frozen=True)
class Speed:
    """Of a training: how many images a second, which share of the time it waited for data, and how it was run."""

    images_per_s: float
    waiting: float
    choice: ExecutionMode


def measure(
    recipe: Recipe,
    data: str | Path,
    *,
    target: str | Path | None = None,
    num_steps: int = 300,
    seed: int = 0,
    device: str = "auto",
    tune: bool = True,
    limit: int | None = None,
    note: Note = _ignore,
) -> Speed:
    """Train for so many steps and keep nothing but the speed, of the second half of them."""
    with ExitStack() as stack:
        group = stack.enter_context(distributed.join_group(device))
        note = note if group.is_first else _ignore
        batches = stack.enter_context(closing(_batches(recipe, _opened(data, target, limit), seed, group)))
        choice = tuning.tune(recipe, batches.batch(0), group.device, note) if tune else tuning.default_mode(recipe)
        choice = group.from_first(choice)
        learner = Learner(recipe, _begun(recipe, seed, None, note), choice, seed=seed, group=group)
        started, waited_s = time.perf_counter(), batches.waited_s
        while learner.step < num_steps:
            if learner.step == num_steps // 2:
                started, waited_s = time.perf_counter(), batches.waited_s
            learner.learn(*batches.batch(learner.step))
        lasted_s = time.perf_counter() - started
        num_images = (num_steps - num_steps // 2) * batches.batch_size
        return Speed(num_images / lasted_s, (batches.waited_s - waited_s) / lasted_s, choice)


def _opened(data: str | Path, target: str | Path | None, limit: int | None) -> Store:
    found = preparing.open_data(data, target=target)
    return found if limit is None else found.take(limit)


def _batches(recipe: Recipe, pictures: Store, seed: int, group: Group) -> Batches:
    return Batches(recipe, pictures, seed=seed, device=group.device, rank=group.rank, world_size=group.world_size)


def _pretrained(start_from: str | Path | None) -> TensorsByName | None:
    return None if start_from is None else checkpoint.load(models.find(start_from))[0].state_dict()


def _identity(
    recipe: Recipe, pictures: Store, pretrained: TensorsByName | None, *, seed: int, limit: int | None, tune: bool
) -> Json:
    """What must agree for a run to go on."""
    return {
        "recipe": recipe.name,
        **recipe.parameters,
        "optimizer": type(recipe.optimizer).__name__.lower(),  # whose state no other kind understands
        "seed": seed,
        "data": pictures.fingerprint[:16],
        "limit": limit,
        "from": None if pretrained is None else fingerprint(pretrained)[:16],
        "tune": "auto" if tune else "off",
    }


def _facts(recipe: Recipe, data: str | Path, pictures: Store) -> Json:
    """What run.json tells people."""
    return {
        "training": training_values(recipe),
        "domain": repr(recipe.domain),
        "degradation": repr(recipe.degradation),
        "protocol": repr(recipe.protocol),
        "data": {"folder": str(data), "kind": pictures.kind, "num_pictures": len(pictures)},
    }


def _chosen(run: Run | None, recipe: Recipe, batches: Batches, tune: bool, note: Note) -> ExecutionMode:
    """As the run was begun; else what tuning finds. Only the first process's is taken."""
    if run is None or not tune:
        return tuning.default_mode(recipe)
    before = run_folder.describe_run(run.folder).get("choice")
    if before is not None:
        choice = ExecutionMode(**before)
        note(f"tuned: {choice}, as this run was begun")
        return choice
    choice = tuning.tune(recipe, batches.batch(0), batches.device, note)
    run.note(choice=asdict(choice))
    return choice


def _begun(recipe: Recipe, seed: int, pretrained: TensorsByName | None, note: Note) -> Network:
    """The network before its first step."""
    torch.manual_seed(seed)
    network = recipe.network()
    if recipe.initialize is not None:
        recipe.initialize(network)
    if pretrained is not None:
        _take_over(network, pretrained, note)
    return network


def _take_over(network: Network, pretrained: TensorsByName, note: Note) -> None:
    """Load what fits, and say what does not."""
    own = network.state_dict()
    fitting = {name: t for name, t in pretrained.items() if name in own and own[name].shape == t.shape}
    if not fitting:
        raise WeightsError("--from: none of these weights fits the recipe; take those of the same network")
    network.load_state_dict(fitting, strict=False)
    unused, fresh = sorted(pretrained.keys() - fitting.keys()), sorted(own.keys() - fitting.keys())
    if unused or fresh:
        note(f"--from: {len(fitting)} tensors taken; left out: {_some(unused)}; begun anew: {_some(fresh)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "none"


def _newest(run: Run | None, note: Note) -> Checkpoint | None:
    if run is None:
        return None
    start, refused = run.newest()
    for reason in refused:
        note(f"{reason}; set aside")
    if refused or start is not None:
        note(f"{run.folder}: goes on from step {0 if start is None else start.step}")
    return start


def _resume(run: Run, keeper: Recorder, start: Checkpoint | None, group: Group) -> None:
    step = 0 if start is None else start.step
    if start is not None:
        keeper.go_on_from(start.facts)
    run.begin_at(step)
    begun = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "command": command_line(),
        "device": str(group.device),
        "hardware": _hardware(group.device),
        "num_processes": group.world_size,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("pellucid", "torch")},
        },
    }
    run.note(starts=[*run_folder.describe_run(run.folder).get("starts", []), begun])


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def _profiler(run: Run | None, stack: ExitStack) -> torch.profiler.profile | None:
    """Of a few early steps; the trace goes into the run folder."""
    if run is None:
        return None
    path = run.folder / "trace.json"
    return stack.enter_context(
        torch.profiler.profile(
            schedule=torch.profiler.schedule(**PROFILED_STEPS, repeat=1),
            on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(path)),
        )
    )


def _complain_of_skipped(learner: Learner, seed: int, note: Note) -> None:
    num, step = learner.num_skipped_in_a_row, learner.step - 1
    if num:
        note(f"loss or gradient not finite at step {step} (seed {seed}); this batch changes nothing")
    if num == MAX_SKIPPED:
        raise PellucidError(
            f"loss or gradient not finite in {num} batches in a row, steps {step - num + 1} to {step} of "
            f"seed {seed}; the last checkpoint stays. Train with a lower lr, clip_norm=1 or precision=float32"
        )


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """The signals that ask to stop, as they come. The second Ctrl-C interrupts at once."""
    if current_thread() is not main_thread():
        yield []
        return
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        if number in asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Pace:
    """How fast training goes lately; what `restart` skips does not count."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self.step_s = 0.0
        self._waited_s = 0.0
        self._num_ticks = 0
        self.restart()

    def restart(self) -> None:
        self._last = time.perf_counter(), self._batches.waited_s

    def tick(self) -> None:
        """A step is done."""
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


def _status(learner: Learner, loss: float, lr: float, pace: _Pace, keeper: Recorder) -> Status:
    num_steps = learner.recipe.num_steps
    return Status(
        step=learner.step,
        num_steps=num_steps,
        loss=loss,
        lr=lr,
        images_per_s=pace.images_per_s,
        waiting=pace.waiting,
        seconds_left=(num_steps - learner.step) * pace.step_s,
        psnr_db=keeper.history.psnr_db,
    )
