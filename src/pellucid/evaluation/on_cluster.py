"""Score pictures on a cluster: this process plans, records and reports; Ray's processes restore and score.

Only numbers of samples and their scores pass through Ray. Each process there finds the samples by itself, and
checks that they are those of this process.
"""

import platform
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pellucid.clusters.connection import check_reachable
from pellucid.clusters.inputs import SharedInput, no_access, to_absolute
from pellucid.clusters.team import MIN_PROCESS_BYTES, LostItem, Requirements, run_team
from pellucid.data.eval_samples import EvalSample
from pellucid.errors import ClusterError, OutputError, PellucidError
from pellucid.evaluation.evaluate import Evaluation, plan_evaluation, plan_score
from pellucid.evaluation.report import Report
from pellucid.evaluation.running import Finish, Missing, Progress, Scoring
from pellucid.pictures import images
from pellucid.restoration.entries import Stamp, stamp
from pellucid.restoration.loading import Loading
from pellucid.restoration.restorer import Restorer
from pellucid.storage.urls import Location
from pellucid.system import memory
from pellucid.system.files import make_folder

_MAX_CANDIDATES = 1000
"""Up to this many samples are compared by size to find the largest one."""

_BYTES_PER_PIXEL = 200
"""Of samples in floating point: degraded, target and restored pictures, and what scores are computed from."""


def evaluate_on(
    cluster: str,
    restorer: Restorer,
    loading: Loading,
    data: str | Location,
    *,
    target: str | Location | None = None,
    save: str | Path | None = None,
    overwrite: bool = False,
    record: str | Path | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Report:
    """`evaluate` on a cluster; the report is the same.

    cluster: see `connection.connect`. restorer: loaded in this process, by the same `loading`.
    data, target, save: local folders must be shared with all computers of the cluster, under the same path.
        Folders in buckets are copied into the cache of each computer.
    processes: the largest number of processes; default: as many as fit.
    settings: the other arguments of `evaluate`.
    Raises ClusterError, and the errors of `evaluate` and of `load` in the processes. A picture whose process dies
    three times is among the failures of the report.
    """
    check_reachable(cluster)  # before anything is written
    settled = loading.settle(restorer)
    assignment, paths = _assign(settled, data, target, settings)
    planned = plan_evaluation(restorer, paths[0], target=paths[1], save=save, **settings)
    score_all = partial(_score_on, cluster, assignment, planned, processes, None if save is None else Path(save))
    return planned.run(record, overwrite=overwrite, progress=progress, score_all=score_all)


def score_on(
    cluster: str,
    results: str | Location,
    target: str | Location,
    *,
    record: str | Path | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Report:
    """`score` on a cluster. Arguments are those of `evaluate_on` and `score`."""
    assignment, paths = _assign(None, results, target, settings)
    assert paths[1] is not None
    planned = plan_score(paths[0], paths[1], **settings)
    score_all = partial(_score_on, cluster, assignment, planned, processes, None)
    return planned.run(record, progress=progress, score_all=score_all)


@dataclass(frozen=True)
class _Item:
    """What is missing of a sample. name: of the sample. stamps: of its files; None for copies of objects."""

    missing: Missing
    name: str
    stamps: tuple[Stamp | None, ...]


@dataclass
class _Assignment:
    """Everything that a process needs to score: pickled, and called there to make the worker.

    loading: None for given results. settings: arguments of the plan. marker: a file in the folder for restored
    pictures, which must be shared.
    """

    loading: Loading | None
    data: SharedInput
    target: SharedInput | None
    settings: Mapping[str, Any]
    marker: Path | None = None

    def __call__(self) -> "_ScoringWorker":
        if self.marker is not None and not self.marker.exists():
            raise no_access(self.marker.parent)
        data, target = self.data.as_local(), None if self.target is None else self.target.as_local()
        if self.loading is not None:
            planned = plan_evaluation(self.loading.load(), data, target=target, **self.settings)
        else:
            assert target is not None
            planned = plan_score(data, target, **self.settings)
        return _ScoringWorker(planned.scoring)


class _ScoringWorker:
    """Scores the samples that one process is given; see `member.MemberWorker`."""

    def __init__(self, scoring: Scoring) -> None:
        self._scoring = scoring

    def work(self, items: Sequence[_Item]) -> Iterator[tuple[int, list[Finish]]]:
        for index, item in enumerate(items):
            self._check(item)
            yield index, list(self._scoring.score_all([item.missing]))

    def close(self) -> None:
        """Nothing is left to store: the process that directs the run records the scores."""

    def _check(self, item: _Item) -> None:
        """Raise ClusterError if the sample is another one than that of the process that directs the run."""
        samples, number = self._scoring.collection.samples, item.missing.number
        if number < len(samples) and samples[number].name == item.name:
            pairs = zip(item.stamps, samples[number].files, strict=True)
            if all(expected in (None, stamp(path)) for expected, path in pairs):
                return
        raise ClusterError(
            f"{platform.node()} has other data than this computer, e.g. another {item.name}",
            hint="use folders that all computers share, and change nothing in them during a run",
        )


def _assign(
    loading: Loading | None, data: str | Location, target: str | Location | None, settings: Mapping[str, Any]
) -> tuple[_Assignment, tuple[Path, Path | None]]:
    """The assignment of the processes, and the paths of data and target on this computer."""
    shared, path = SharedInput.prepare(data)
    shared_target, target_path = (None, None) if target is None else SharedInput.prepare(target)
    return _Assignment(loading, shared, shared_target, settings), (path, target_path)


def _score_on(
    cluster: str,
    assignment: _Assignment,
    planned: Evaluation,
    processes: int | None,
    save: Path | None,
    missing: Sequence[Missing],
) -> Generator[Finish, None, None]:
    """`Scoring.score_all` on a cluster."""
    if not missing:
        return
    samples = planned.scoring.collection.samples
    items = [_to_item(one, samples[one.number], assignment) for one in missing]

    def recover(index: int) -> None:
        # There was no file at the start, so the process that has died has written it.
        items[index] = replace(items[index], missing=replace(items[index].missing, may_replace=True))

    resources = _estimate_resources(planned, missing, assignment)
    with _marked(save) as marker:
        assignment.marker = marker
        team = run_team(cluster, assignment, items, resources, max_processes=processes, recover=recover)
        with closing(team) as results:
            for index, result in results:
                if isinstance(result, LostItem):
                    one, sample = missing[index], samples[missing[index].number]
                    yield one.number, one.seeds[0], result.to_error(sample.path, "scored")
                else:
                    yield from result


@contextmanager
def _marked(folder: Path | None) -> Iterator[Path | None]:
    """A file in a folder, by which the processes find out whether they share it; None without a folder."""
    if folder is None:
        yield None
        return
    make_folder(folder)
    try:
        marker = tempfile.NamedTemporaryFile(dir=to_absolute(folder), prefix=".pellucid-")  # noqa: SIM115  # below
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    with marker:
        yield Path(marker.name)


def _to_item(missing: Missing, sample: EvalSample, assignment: _Assignment) -> _Item:
    """An item with absolute paths, because processes of a cluster run in other folders."""
    result = None if missing.result is None else to_absolute(missing.result)
    inputs = (assignment.data, assignment.target)
    stamps = [
        None if shared is not None and shared.fingerprint else stamp(path)
        for path, shared in zip(sample.files, inputs, strict=False)
    ]
    return _Item(replace(missing, result=result), sample.name, tuple(stamps))


def _estimate_resources(planned: Evaluation, missing: Sequence[Missing], assignment: _Assignment) -> Requirements:
    """The resources of each process: memory for the largest sample, and perhaps a GPU."""
    samples = planned.scoring.collection.samples
    candidates = [samples[one.number] for one in missing[:: -(-len(missing) // _MAX_CANDIDATES)]]
    largest = max(candidates, key=lambda sample: sum(_size_bytes(path) for path in sample.files))
    try:
        num_bytes = _estimate_bytes(planned, largest)
    except PellucidError:  # its own process reports it
        num_bytes = MIN_PROCESS_BYTES
    num_gpus = 0 if assignment.loading is None else assignment.loading.num_gpus
    return Requirements(max(MIN_PROCESS_BYTES, num_bytes), num_gpus=num_gpus)


def _estimate_bytes(planned: Evaluation, sample: EvalSample) -> int:
    clean = sample.read_target()
    needed = _BYTES_PER_PIXEL * clean.height * clean.width
    needed += sum(images.decoding_cost(path)[1] for path in sample.files)
    if planned.restorer is not None:
        degraded = clean if sample.read_degraded is None else sample.read_degraded()
        needed += planned.restorer.working_bytes(degraded)
    return memory.enough_bytes(memory.used_bytes() + needed)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
