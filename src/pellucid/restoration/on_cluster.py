"""Restore files on a cluster: this process plans, Ray's processes read, restore and write.

Only names travel through Ray. Each process there has the model, and a manifest of its own; this one looks at what
exists before, and again at what a process that ended may have finished.
"""

import os
import platform
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pellucid.clusters.team import MAX_ENDS, Lost, Needs, run_team
from pellucid.errors import ClusterError, NotEnoughMemoryError, OutputError, PellucidError
from pellucid.recipes import network_files
from pellucid.restoration import restorer as restorers
from pellucid.restoration.entries import Entry, manifest_path
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
from pellucid.storage.urls import Location, Url, is_url
from pellucid.system import memory

MIN_PROCESS_BYTES = 10**9
"""Memory that a process gets at least, if none is chosen: pictures differ, and one of them is measured."""

_NUM_MEASURED = 1000


@dataclass(frozen=True)
class Loading:
    """How each process loads the model; see `restorer.load`. networks: files with networks of its own."""

    model: str
    device: str = "auto"
    backend: str | None = None
    precision: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    networks: Sequence[str] = ()

    def load(self) -> Restorer:
        """In a process of the cluster."""
        for path in self.networks:
            network_files.add_network(path)
        return restorers.load(
            self.model, device=self.device, backend=self.backend, precision=self.precision, **self.parameters
        )


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
    """`iter_restore` on a cluster; outcomes come in the order in which they are known.

    cluster: see `connection.connect`. jobs: as `plan` returns them; folders of results on this computer must be
        shared with all computers of the cluster, under the same path. restorer: of this process, by the same
        `loading`. processes: how many at most; default: as many as fit.
    settings: with `memory_bytes` of each process. Default: what the largest of the files needs.

    Raises OutputError for a result without a folder, and ClusterError and the errors of `load` in processes.
    """
    for job in jobs:
        if job.root is None:
            raise OutputError(f"{job.target} is a single file", hint="omit {on}, or choose a folder by {out}")
    team = f"ray-{secrets.token_hex(4)}"
    manifests = open_manifests(jobs, restorer, settings, overwrite, journal=team)
    with closing(manifests):
        named, targets = settle_names(jobs, manifests)
        request = manifests.request
        assignment = _Assignment(team, loading, restorer, settings, request, overwrite, workers)
        run = _Run(manifests, named, name_sheets(targets), progress)
        yield from run.restore(cluster, assignment, processes)


@dataclass(frozen=True)
class _Item:
    """A job for a process. sheet: where the comparison goes. entry: of the result that exists, if it has one."""

    job: Job
    sheet: Location
    entry: Entry | None


class _Assignment:
    """What a process must know to restore; makes its worker when it is called there.

    restorer: of this process; only its fingerprint and name travel.
    """

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
        self.loading = replace(
            loading,
            model=_to_absolute_model(loading.model),
            networks=[str(_absolute(Path(path))) for path in loading.networks],
            **_settle_backend(restorer, loading),
        )
        self.restorer, self.fingerprint = restorer, restorer.fingerprint()
        exposure = settings.exposure
        self.settings = replace(settings, exposure=_absolute(exposure) if isinstance(exposure, Path) else exposure)
        self.folders: tuple[Path, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "restorer"}

    def __call__(self) -> "_SessionWorker":
        for folder in self.folders:
            if not manifest_path(folder, self.team).exists():
                raise ClusterError(
                    f"{platform.node()} does not see the folder {folder} of this computer",
                    hint="use a folder that all computers share under the same path, or a bucket",
                )
        restorer = self.loading.load()
        if restorer.fingerprint() != self.fingerprint:
            raise ClusterError(
                f"{platform.node()} has another model of the name {self.request.model}, or runs it otherwise",
                hint="install the same versions on all computers",
            )
        request = replace(self.request, journal=f"{self.team}-{secrets.token_hex(4)}")
        manifests = Manifests(request, self.overwrite, team=self.team)
        return _SessionWorker(manifests, Session(restorer, self.settings, manifests, self.workers))


def _settle_backend(restorer: Restorer, loading: Loading) -> dict[str, Any]:
    """What "auto" chose here: on another computer, another backend may be the fastest.

    For a chain, each of whose models has its own, processes choose again, and fingerprints are compared.
    """
    if "auto" not in (loading.backend, loading.precision) or len(restorer.models) > 1:
        return {}
    choice = restorer.choice
    return {} if choice is None else {"backend": choice.backend, "precision": choice.precision}


def _to_absolute_model(model: str) -> str:
    """The same model for a process in another folder: names and URLs stay."""
    whole = Path(model)
    parts = [model] if is_url(model) or whole.is_file() else model.split("+")
    return "+".join(str(_absolute(Path(part))) if Path(part).is_file() else part for part in parts)


def _absolute(place: Path) -> Path:
    return Path(os.path.abspath(place))  # noqa: PTH100  # Path's own resolves links


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
    """The side of the process that plans."""

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

    def restore(
        self, cluster: str, assignment: _Assignment, processes: int | None
    ) -> Generator[Outcome, None, None]:
        """The outcomes of all jobs: first those that need no work."""
        waiting = []
        for job in self._jobs:
            outcome = self._look(job)
            if outcome is None:
                waiting.append(job)
            else:
                yield self._count(outcome)
        if not waiting:
            return
        self._manifests.announce(waiting)
        assignment.folders = tuple({_absolute(job.root): None for job in waiting if isinstance(job.root, Path)})
        needs = _estimate_needs(waiting, assignment)
        assignment.settings = replace(assignment.settings, memory_bytes=needs.memory_bytes)

        def recover(place: int) -> Outcome | None:
            return None if assignment.overwrite else self._recover(waiting[place])

        items = [self._to_item(job) for job in waiting]
        with closing(
            run_team(cluster, assignment, items, needs, max_processes=processes, recover=recover)
        ) as results:
            for place, result in results:
                yield self._count(self._to_outcome(waiting[place], result))

    def _look(self, job: Job) -> Outcome | None:
        """The outcome of a job without work to do."""
        outcome = Outcome(job.source, job.target)
        try:
            return replace(outcome, is_skipped=True) if self._manifests.is_done(job) else None
        except PellucidError as error:
            return replace(outcome, error=error.about(job.source))

    def _to_item(self, job: Job) -> _Item:
        """With absolute paths: processes of a cluster run in other folders."""
        places = {name: getattr(job, name) for name in ("source", "target", "root", "mask")}
        absolute = {name: _absolute(place) for name, place in places.items() if isinstance(place, Path)}
        sheet = self._sheets[job.target]
        return _Item(
            replace(job, **absolute),
            _absolute(sheet) if isinstance(sheet, Path) else sheet,
            self._manifests.find_entry(job),
        )

    def _recover(self, job: Job) -> Outcome | None:
        """The outcome of a job that a process had finished when it ended."""
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

    def _to_outcome(self, job: Job, result: Outcome | Lost) -> Outcome:
        if isinstance(result, Outcome):
            return replace(result, source=job.source, target=job.target)
        kind = NotEnoughMemoryError if result.is_out_of_memory else PellucidError
        hint = "give each process more by {memory_bytes}" if result.is_out_of_memory else ""
        facts = f"{job.source}: the process that restored it has ended {MAX_ENDS} times: {result.reason}"
        error = kind(facts, hint=hint)
        outcome = {"outcome": "failed", "error": str(error), "notes": [], "megapixels": 0.0, "network_s": 0.0}
        self._manifests.record_outcome(job, outcome)
        return Outcome(job.source, job.target, error=error)

    def _count(self, outcome: Outcome) -> Outcome:
        """Count an outcome, and report the position."""
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


def _estimate_needs(jobs: Sequence[Job], assignment: _Assignment) -> Needs:
    """What a process needs: the memory that was chosen, or enough for the largest file; and perhaps a GPU."""
    device, chosen = assignment.loading.device, assignment.settings.memory_bytes
    num_gpus = None if device == "auto" else int(device.startswith("cuda"))
    return Needs(_estimate_bytes(jobs, assignment) if chosen is None else chosen, num_gpus=num_gpus)


def _estimate_bytes(jobs: Sequence[Job], assignment: _Assignment) -> int:
    """Memory for the largest file, by the estimates that a memory limit of this process uses.

    Of very many files, some are looked at. A larger one is restored in smaller tiles, or fails with its own error.
    """
    settings, restorer = assignment.settings, assignment.restorer
    largest = max(jobs[:: -(-len(jobs) // _NUM_MEASURED)], key=lambda job: _size_bytes(job.source))
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
