"""A session restores files with one model, any number of times, and keeps its manifests open in between."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pellucid.errors import PellucidError
from pellucid.restoration.manifest import Manifests
from pellucid.restoration.pipeline import Budget, InFlightItem, Tracker, run_overlapped
from pellucid.restoration.planning import Job
from pellucid.restoration.position import Position
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.settings import Settings
from pellucid.restoration.stages import Stages
from pellucid.restoration.transfers import Transfers
from pellucid.storage.urls import Location, Url
from pellucid.system import memory

CLAIM_EVERY_S, CLAIM_IN_BUCKET_EVERY_S = 0.2, 2.0
"""How often to look whether another process has finished a result."""


@dataclass(frozen=True)
class Outcome:
    """What happened to one picture: it was restored, or it was skipped, or it failed.

    source: the file; None for a picture in memory. target: where the result is; None if it was not written.
    restored: the result of a picture in memory, in the same form; None for files and failures.
    megapixels: of the degraded picture. seconds: in the network.
    is_skipped: the result already existed, made from the same input in the same way.
    error: why it failed; None if it did not. See `raise_error`.
    info: how the picture was read, and which metadata are not kept. warnings: why the result may be worse than
        expected.
    """

    source: Location | None
    target: Location | None
    restored: Any = None
    megapixels: float = 0.0
    seconds: float = 0.0
    is_skipped: bool = False
    error: PellucidError | None = None
    info: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def raise_error(self) -> None:
        """Raise the error, if there is one."""
        if self.error is not None:
            raise self.error


class Session:
    """Restores files with one model and the same settings.

    manifests: closed by `close`. workers: see `restore`.
    """

    def __init__(self, restorer: Restorer, settings: Settings, manifests: Manifests, workers: int) -> None:
        self._restorer, self._settings, self._workers = restorer, settings, workers
        self._manifests = manifests

    def restore(
        self,
        jobs: Sequence[Job],
        sheets: Mapping[Location, Location],
        progress: Callable[[Position], None] | None = None,
    ) -> Generator[Outcome, None, None]:
        """The outcomes of jobs, in order; those of results that other processes were making come last.

        sheets: where the comparison of each result goes. Closing it stops after the pictures in flight.
        """
        limit = memory.RecentLimit(self._settings.memory_bytes)
        with memory.sharing_free_memory(limit.measure()):
            yield from self._restore(jobs, sheets, progress, limit)

    def _restore(
        self,
        jobs: Sequence[Job],
        sheets: Mapping[Location, Location],
        progress: Callable[[Position], None] | None,
        limit: memory.RecentLimit,
    ) -> Generator[Outcome, None, None]:
        transfers = Transfers(jobs, self._manifests.is_done)
        stages = Stages(self._restorer, self._settings, self._manifests, transfers, sheets, limit)
        budget = Budget(limit.measure(), self._workers, stages.needed_bytes)
        tracker = Tracker(len(jobs), progress)
        deferred: list[Job] = []

        def run(jobs: Sequence[Job]) -> Generator[Outcome, None, None]:
            stops = run_overlapped(jobs, stages.read, stages.run, stages.write, budget=budget, tracker=tracker)
            with closing(stops) as items:
                for item in items:
                    if item.is_deferred:
                        deferred.append(item.job)
                    else:
                        self._record_outcome(item)
                    self._manifests.release(item.job)
                    transfers.close_job(item.job)
                    if not item.is_deferred:
                        yield _to_outcome(item)

        try:
            self._manifests.check_folders(jobs)
            yield from run(jobs)
            while deferred:  # until other processes have made them, or ended
                ready = [job for job in deferred if self._may_begin(job)]
                deferred[:] = [job for job in deferred if job not in ready]
                yield from run(ready)
                if not ready:
                    is_bucket = any(isinstance(job.root, Url) for job in deferred)
                    time.sleep(CLAIM_IN_BUCKET_EVERY_S if is_bucket else CLAIM_EVERY_S)
        finally:
            transfers.close()

    def close(self) -> None:
        """Store all entries, and release all claims."""
        self._manifests.close()

    def _may_begin(self, job: Job) -> bool:
        """Whether a result can be claimed, or whether trying it again tells the user why not."""
        try:
            return self._manifests.claim(job)
        except PellucidError:
            return True

    def _record_outcome(self, item: InFlightItem) -> None:
        """For `pellucid status`. Results that existed before have one from the run that made them."""
        if item.is_skipped:
            return
        outcome = {
            "outcome": "restored" if item.error is None else "failed",
            "error": None if item.error is None else str(item.error),
            "notes": [*item.info, *item.warnings],
            "megapixels": item.megapixels,
            "network_s": item.seconds,
        }
        self._manifests.record_outcome(item.job, outcome)


def _to_outcome(item: InFlightItem) -> Outcome:
    return Outcome(
        item.job.source,
        item.job.target,
        megapixels=item.megapixels,
        seconds=item.seconds,
        is_skipped=item.is_skipped,
        error=item.error,
        info=item.info,
        warnings=item.warnings,
    )
