"""Three stages that overlap: while one picture is in the network, others are decoded and encoded.

No more pictures are on their way than memory holds, and what goes wrong with one stays with that one.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from pellucid.domains import Degraded
from pellucid.errors import NotEnoughMemoryError, PellucidError
from pellucid.pictures.picture import Picture
from pellucid.restoration.manifest import Stamp
from pellucid.restoration.planning import Job
from pellucid.restoration.restorer import Progress
from pellucid.system import memory

FAULT = "a fault of pellucid's own; please report it"


@dataclass(frozen=True)
class InFlightItem:
    """A job on its way: degraded once it is read, restored once it went through the network."""

    job: Job
    degraded: Degraded | None = None
    restored: Picture | None = None
    megapixels: float = 0.0
    seconds: float = 0.0
    skipped: bool = False
    error: PellucidError | None = None
    notes: tuple[str, ...] = ()
    source_stamp: Stamp = field(default_factory=list)


Stage = Callable[[InFlightItem], InFlightItem]


class Budget:
    """How many pictures may be on their way: so many to be read ahead, and no more than memory holds.

    One alone is always let in, or refused where even that is too much.
    """

    def __init__(self, ceiling: int, workers: int, needed_bytes: Callable[[Job], int]) -> None:
        self.ceiling, self.workers, self.needed_bytes = ceiling, workers, needed_bytes
        self._shared_bytes = max(0, ceiling - memory.used_bytes()) // 2
        self._taken: dict[Job, int] = {}
        self._waiting: dict[Job, int] = {}

    @property
    def taken_bytes(self) -> int:
        """What all that are on their way take to be decoded and encoded."""
        return sum(self._taken.values())

    def lets_in(self, job: Job) -> bool:
        """Whether this one may be on its way now, too; if so, it is from here on."""
        if job not in self._waiting:
            self._waiting[job] = self.needed_bytes(job)
        if self._taken and self.taken_bytes + self._waiting[job] > self._shared_bytes:
            return False
        self._taken[job] = self._waiting.pop(job)
        return True

    def check(self, job: Job) -> None:
        """Raise NotEnoughMemoryError for one that does not fit even alone."""
        least = memory.used_bytes() + self._taken[job]
        if len(self._taken) == 1 and least > self.ceiling:
            raise NotEnoughMemoryError(
                f"{job.source} needs more than the {self.ceiling // 10**6} MB that may be taken to be decoded and "
                f"encoded",
                hint="{memory_bytes} is enough",
                memory_bytes=memory.enough_bytes(least),
            )

    def leave(self, job: Job) -> None:
        del self._taken[job]


def run_overlapped(
    jobs: Sequence[Job],
    read: Stage,
    run: Callable[[Progress, int, InFlightItem], InFlightItem],
    write: Stage,
    *,
    budget: Budget,
    progress: Callable[[float], None] | None,
) -> Iterator[InFlightItem]:
    """All jobs through three stages, in order: reading and writing in threads, running here."""
    waiting = deque(jobs)
    reading: deque[Future[InFlightItem]] = deque()
    writing: deque[Future[InFlightItem]] = deque()

    def checked_read(work: InFlightItem) -> InFlightItem:
        budget.check(work.job)
        return read(work)

    def written() -> InFlightItem:
        work = writing.popleft().result()
        budget.leave(work.job)
        return work

    with _pool(budget.workers) as readers, _pool(budget.workers) as writers:
        for done in range(len(jobs)):
            while not reading and not budget.lets_in(waiting[0]):
                yield written()
            if not reading:
                reading.append(readers.submit(_attempt, checked_read, InFlightItem(waiting.popleft())))
            while waiting and len(reading) <= budget.workers and budget.lets_in(waiting[0]):
                reading.append(readers.submit(_attempt, checked_read, InFlightItem(waiting.popleft())))
            work = reading.popleft().result()
            work = _attempt(partial(run, _shifted(progress, done), budget.taken_bytes), work)
            writing.append(writers.submit(_attempt, write, work))
            del work  # or its picture would stay until the next one is restored
            while writing and (writing[0].done() or len(writing) > budget.workers):
                yield written()
        while writing:
            yield written()


def _attempt(stage: Stage, work: InFlightItem) -> InFlightItem:
    """One stage, unless there is nothing left to do; its failure is kept with the job."""
    if work.skipped or work.error is not None:
        return work
    try:
        return stage(work)
    except PellucidError as error:
        failure = error.about(work.job.source)
    except MemoryError:
        failure = NotEnoughMemoryError(f"{work.job.source}: not enough memory; --memory sets a ceiling")
    except OSError as error:  # what nothing below expected: a lost share, a disk that fails
        failure = PellucidError(f"{work.job.source}: {error.strerror or error}")
    except Exception as error:  # one odd file among thousands shall not end the work of a night
        failure = PellucidError(f"{work.job.source}: {FAULT} ({type(error).__name__}: {str(error)[:200]})")
    return InFlightItem(work.job, error=failure)


def _shifted(progress: Callable[[float], None] | None, done: int) -> Progress:
    """Progress within one picture as progress in all of them."""
    return lambda pixels, all_pixels: progress(done + pixels / all_pixels) if progress else None


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that, on the way out, finish what they are at and begin nothing new."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
