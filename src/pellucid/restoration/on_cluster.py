"""Restore files in several processes: this process plans; the others read, restore and write.

Ray starts them on a cluster; on this computer, there is one for each device. Only names pass between processes.
Each one loads the model; on a cluster, it writes its own manifest. This process checks which results exist, first
for all files, and again for those of a process that has died.
"""

import copy
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import torch

from pellucid.backends.backend import check_device
from pellucid.backends.eager import TorchBackend
from pellucid.clusters.connection import check_reachable
from pellucid.clusters.inputs import no_access, to_absolute
from pellucid.clusters.team import MIN_PROCESS_BYTES, LostItem, Requirements, run_local_team, run_team
from pellucid.errors import ArgumentError, PellucidError
from pellucid.restoration.entries import Entry, manifest_path
from pellucid.restoration.loading import Loading
from pellucid.restoration.manifest import Manifests, Request, State
from pellucid.restoration.planning import Job
from pellucid.restoration.position import Position
from pellucid.restoration.preview import name_sheets
from pellucid.restoration.restore import open_manifests, settle_names
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.sessions import Outcome, Session
from pellucid.restoration.settings import Settings
from pellucid.restoration.stages import codec_bytes, read_first_page
from pellucid.storage.objects import local_copy
from pellucid.storage.urls import Location, Url
from pellucid.system import memory

_MAX_CANDIDATES = 1000
"""Up to this many files are compared by size to find the largest one."""


def iter_restore_on(
    cluster: str,
    jobs: Sequence[Job],
    restorer: Restorer,
    loading: Loading,
    settings: Settings,
    *,
    workers: int = 2,
    processes: int | None = None,
    overwrite: bool = False,
    progress: Callable[[Position], None] | None = None,
) -> Generator[Outcome, None, None]:
    """`iter_restore` on a cluster; yields outcomes in the order in which they are known.

    cluster: see `connection.connect`. jobs: as `plan` returns them; local folders of results must be shared with
        all computers of the cluster, under the same path. restorer: loaded in this process, by the same `loading`.
        processes: the largest number of processes; default: as many as fit.
    settings: `memory_bytes` is the limit of each process. Default: as much as the largest file needs.

    Raises ArgumentError for a result without a folder, ClusterError, and the errors of `load` in the processes.
    """
    for job in jobs:
        if job.root is None:
            raise ArgumentError(f"{job.target} is a single file", hint="omit {on}, or choose a folder by {out}")
    check_reachable(cluster)  # before anything is written
    team = f"ray-{secrets.token_hex(4)}"
    manifests = open_manifests(jobs, restorer, settings, overwrite, journal=team)
    with closing(manifests):
        named, targets = settle_names(jobs, manifests)
        request = manifests.request
        assignment = _Assignment(team, loading, restorer, settings, request, overwrite, workers)
        run = _Run(manifests, named, name_sheets(targets), progress)
        yield from run.restore(_StartOnCluster(cluster, assignment, processes), overwrite=overwrite)


def iter_restore_on_devices(
    devices: Sequence[str],
    jobs: Sequence[Job],
    restorer: Restorer,
    loading: Loading,
    settings: Settings,
    *,
    workers: int = 2,
    overwrite: bool = False,
    progress: Callable[[Position], None] | None = None,
) -> Generator[Outcome, None, None]:
    """`iter_restore` in one process for each device; yields outcomes in the order in which they are known.

    Each process gets pictures as it finishes others, so a faster device restores more of them. A device that is
    given twice has two processes. They share the threads and, by default, the memory of this process.

    devices: as `load` takes them. jobs: as `plan` returns them. restorer: loaded in this process, by the same
        `loading`, whose device does not count.
    settings: `memory_bytes` is the limit of each process.

    Raises OutputError if the results cannot be written, and the errors of `load` in the processes.
    """
    if any(isinstance(model.backend, TorchBackend) for model in restorer.models):
        for device in devices:
            check_device(device)
    manifests = open_manifests(jobs, restorer, settings, overwrite)
    with closing(manifests):
        manifests.check_folders(jobs)
        named, targets = settle_names(jobs, manifests)
        team = f"devices-{secrets.token_hex(4)}"
        assignment = _Assignment(team, loading, restorer, settings, manifests.request, overwrite, workers)
        run = _Run(manifests, named, name_sheets(targets), progress)
        yield from run.restore(_StartOnDevices(devices, assignment), overwrite=overwrite)


@dataclass(frozen=True)
class _Item:
    """A job for a process. sheet: the file for --compare. entry: the manifest entry of an existing result."""

    job: Job
    sheet: Location
    entry: Entry | None


class _Assignment:
    """Everything that a process needs to restore: pickled, and called there to make the worker.

    restorer: of this process; not pickled, only its fingerprint is. has_own_manifest: whether each process writes
        a manifest of its own; otherwise, all add to that of this process.
    """

    has_own_manifest = True

    def __init__(
        self,
        team: str,
        loading: Loading,
        restorer: Restorer,
        settings: Settings,
        request: Request,
        overwrite: bool,
        workers: int,
    ) -> None:
        self.team, self.overwrite, self.workers, self.request = team, overwrite, workers, request
        self.loading, self.restorer = loading.settle(restorer), restorer
        exposure = settings.exposure
        self.settings = replace(
            settings, exposure=to_absolute(exposure) if isinstance(exposure, Path) else exposure
        )
        self.folders: tuple[Path, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "restorer"}

    def on_device(self, device: str) -> Self:
        """The assignment of a process on this computer."""
        assignment = copy.copy(self)
        assignment.loading = replace(self.loading, device=device)
        assignment.has_own_manifest = False
        return assignment

    def __call__(self) -> "_SessionWorker":
        for folder in self.folders:
            if not manifest_path(folder, self.team).exists():
                raise no_access(folder)
        restorer = self.loading.load()
        request = self.request
        if self.has_own_manifest:
            request = replace(request, journal=f"{self.team}-{secrets.token_hex(4)}")
        manifests = Manifests(request, self.overwrite, team=self.team)
        return _SessionWorker(manifests, Session(restorer, self.settings, manifests, self.workers))


class _SessionWorker:
    """Restores the files that one process is given; see `member.MemberWorker`."""

    def __init__(self, manifests: Manifests, session: Session) -> None:
        self._manifests, self._session = manifests, session

    def work(self, items: Sequence[_Item]) -> Iterator[tuple[int, Outcome]]:
        for item in items:
            if item.entry is not None:
                self._manifests.learn_entry(item.job, item.entry)
        indices = {item.job.target: index for index, item in enumerate(items)}
        sheets = {item.job.target: item.sheet for item in items}
        with closing(self._session.restore([item.job for item in items], sheets)) as outcomes:
            for outcome in outcomes:
                assert outcome.target is not None
                yield indices[outcome.target], outcome

    def close(self) -> None:
        self._session.close()


class _Run:
    """A run, as seen by the process that plans."""

    def __init__(
        self,
        manifests: Manifests,
        jobs: Sequence[Job],
        sheets: Mapping[Location, Location],
        progress: Callable[[Position], None] | None,
    ) -> None:
        self._manifests, self._jobs, self._sheets, self._progress = manifests, jobs, sheets, progress
        self._num_done = self._num_skipped = 0
        self._megapixels = 0.0

    def restore(self, start: "_Start", *, overwrite: bool) -> Generator[Outcome, None, None]:
        """The outcomes of all jobs, starting with those that are already done. start: starts the processes."""
        waiting = []
        for job in self._jobs:
            outcome = self._find_done(job)
            if outcome is None:
                waiting.append(job)
            else:
                yield self._count(outcome)
        if not waiting:
            return
        items = [self._to_item(job, start.to_place) for job in waiting]

        def recover(index: int) -> Outcome | None:
            return None if overwrite else self._recover(waiting[index])

        with closing(start(self._manifests, waiting, items, recover)) as results:
            for index, result in results:
                yield self._count(self._to_outcome(waiting[index], result))

    def _find_done(self, job: Job) -> Outcome | None:
        """The outcome of a job that is done or cannot be done; None if it must be restored."""
        outcome = Outcome(job.source, job.target)
        try:
            return replace(outcome, is_skipped=True) if self._manifests.is_done(job) else None
        except PellucidError as error:
            return replace(outcome, error=error.about(job.source))

    def _to_item(self, job: Job, to_place: Callable[[Path], Path]) -> _Item:
        """An item for a process that finds a file of this one by `to_place`."""
        places = {name: getattr(job, name) for name in ("source", "target", "root", "mask")}
        found = {name: to_place(place) for name, place in places.items() if isinstance(place, Path)}
        sheet = self._sheets[job.target]
        return _Item(
            replace(job, **found),
            to_place(sheet) if isinstance(sheet, Path) else sheet,
            self._manifests.find_entry(job),
        )

    def _recover(self, job: Job) -> Outcome | None:
        """The outcome of a job if its process finished it before it died; otherwise None."""
        self._manifests.refresh(job)
        if self._manifests.state(job) is not State.DONE:
            return None
        found = self._manifests.find_outcome(job) or {}
        return Outcome(
            job.source,
            job.target,
            megapixels=found.get("megapixels", 0.0),
            seconds=found.get("network_s", 0.0),
            info=tuple(found.get("notes", ())),
        )

    def _to_outcome(self, job: Job, result: Outcome | LostItem) -> Outcome:
        if isinstance(result, Outcome):
            return replace(result, source=job.source, target=job.target)
        error = result.to_error(job.source, "restored", hint="increase {memory_bytes}, the limit of each process")
        outcome = {"outcome": "failed", "error": str(error), "notes": [], "megapixels": 0.0, "network_s": 0.0}
        self._manifests.record_outcome(job, outcome)
        return Outcome(job.source, job.target, error=error)

    def _count(self, outcome: Outcome) -> Outcome:
        """Count an outcome, and report the progress."""
        self._num_done += 1
        self._num_skipped += outcome.is_skipped
        self._megapixels += outcome.megapixels
        if self._progress is not None:
            self._progress(
                Position(
                    self._num_done,
                    len(self._jobs),
                    outcome.source,
                    outcome.megapixels,
                    self._megapixels,
                    self._num_skipped,
                )
            )
        return outcome


_Results = Generator[tuple[int, Outcome | LostItem], None, None]
_Recover = Callable[[int], Outcome | None]


class _Start(Protocol):
    """Gives jobs, as items, to processes; see `run_team`."""

    def to_place(self, path: Path) -> Path:
        """The path of a file for the processes."""
        ...

    def __call__(
        self, manifests: Manifests, jobs: Sequence[Job], items: Sequence[_Item], recover: _Recover
    ) -> _Results: ...


@dataclass(frozen=True)
class _StartOnCluster:
    """Starts processes of Ray. max_processes: None for as many as fit."""

    cluster: str
    assignment: _Assignment
    max_processes: int | None

    def to_place(self, path: Path) -> Path:
        """An absolute path, because processes of a cluster run in other folders."""
        return to_absolute(path)

    def __call__(
        self, manifests: Manifests, jobs: Sequence[Job], items: Sequence[_Item], recover: _Recover
    ) -> _Results:
        assignment = self.assignment
        manifests.announce(jobs)
        assignment.folders = tuple({to_absolute(job.root): None for job in jobs if isinstance(job.root, Path)})
        resources = _estimate_resources(jobs, assignment)
        assignment.settings = replace(assignment.settings, memory_bytes=resources.memory_bytes)
        return run_team(
            self.cluster, assignment, items, resources, max_processes=self.max_processes, recover=recover
        )


@dataclass(frozen=True)
class _StartOnDevices:
    """Starts processes of this computer, one for each device."""

    devices: Sequence[str]
    assignment: _Assignment

    def to_place(self, path: Path) -> Path:
        """The same path, for the same messages as in one process."""
        return path

    def __call__(
        self, manifests: Manifests, jobs: Sequence[Job], items: Sequence[_Item], recover: _Recover
    ) -> _Results:
        assignment, num_processes = self.assignment, min(len(self.devices), len(jobs))
        if assignment.settings.memory_bytes is None:
            num_bytes = memory.used_bytes() + memory.free_bytes() // (2 * num_processes)
            assignment.settings = replace(assignment.settings, memory_bytes=num_bytes)
        makes = [assignment.on_device(device) for device in self.devices[:num_processes]]
        num_threads = max(1, torch.get_num_threads() // num_processes)
        return run_local_team(makes, items, environment={"OMP_NUM_THREADS": str(num_threads)}, recover=recover)


def _estimate_resources(jobs: Sequence[Job], assignment: _Assignment) -> Requirements:
    """The resources of each process: the chosen memory, or enough for the largest file, and perhaps a GPU."""
    chosen = assignment.settings.memory_bytes
    num_bytes = _estimate_bytes(jobs, assignment) if chosen is None else chosen
    return Requirements(num_bytes, num_gpus=assignment.loading.num_gpus)


def _estimate_bytes(jobs: Sequence[Job], assignment: _Assignment) -> int:
    """Memory for the largest file, estimated as for a memory limit of this process.

    If there are very many files, only a sample of them is considered. A larger file is restored in smaller tiles,
    or fails with its own error.
    """
    settings, restorer = assignment.settings, assignment.restorer
    largest = max(jobs[:: -(-len(jobs) // _MAX_CANDIDATES)], key=lambda job: _size_bytes(job.source))
    try:
        with local_copy(largest.source) as source:
            coding = codec_bytes(source, Path(largest.target.name), restorer, settings)
            degraded = read_first_page(source, restorer.recipe.domain, settings)
        network = restorer.working_bytes(degraded, tile_px=settings.tile_px, halo_px=settings.halo_px)
    except PellucidError:  # its own process reports it
        return MIN_PROCESS_BYTES
    # `Budget` gives one half to files, of which one more than `workers` are read ahead, and one to the network.
    free = 2 * max((assignment.workers + 1) * coding, network)
    return max(MIN_PROCESS_BYTES, memory.enough_bytes(memory.used_bytes() + free))


def _size_bytes(place: Location) -> int:
    if isinstance(place, Url):
        return 0 if place.tag is None else place.tag.size_bytes
    try:
        return place.stat().st_size
    except OSError:
        return 0
