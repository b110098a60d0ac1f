"""Three stages that overlap: while one picture is in the network, others are decoded and encoded.

No more pictures are in flight than fit the memory, and a failure affects only its own picture.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from PIL.Image import Image

from pellucid.domains import Degraded
from pellucid.errors import NotEnoughMemoryError, PellucidError
from pellucid.pictures.picture import Picture
from pellucid.pictures.tiff.directories import Pages
from pellucid.restoration.chaining import Progress
from pellucid.restoration.planning import Job
from pellucid.restoration.position import Position
from pellucid.restoration.transfers import LocalFiles
from pellucid.system import memory

FAULT = "a fault of pellucid"
"""How the message of an error begins that users cannot cause, and should report."""


@dataclass(frozen=True)
class InFlightItem:
    """A job in one of the stages. degraded: set when it has been read. restored: set by the network.

    files: those of the job on this computer, set before it is read.

    pages: of a file that has several, which are read and written in the second stage, one at a time.
    mask: of the job, if it has one. sheet: the comparison of a picture and its result, if it is wanted.
    is_deferred: another process is making the result. reading_s: how long reading took.
    """

    job: Job
    files: LocalFiles | None = None
    pages: Pages | None = None
    degraded: Degraded | None = None
    mask: Picture | None = None
    restored: Picture | None = None
    sheet: Image | None = None
    megapixels: float = 0.0
    seconds: float = 0.0
    is_skipped: bool = False
    is_deferred: bool = False
    reading_s: float = 0.0
    error: PellucidError | None = None
    info: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


Stage = Callable[[InFlightItem], InFlightItem]


class Budget:
    """How many pictures may be in flight: a number of them is read ahead, as far as memory permits.

    A single one is always admitted; `check` refuses it if even that is too much.
    """

    def __init__(self, ceiling: int, workers: int, needed_bytes: Callable[[Job], int]) -> None:
        self.ceiling, self.workers, self.needed_bytes = ceiling, workers, needed_bytes
        # Half of the free memory is for decoding and encoding, the other half for the tiles in the network.
        self._shared_bytes = max(0, ceiling - memory.used_bytes()) // 2
        self._taken: dict[Job, int] = {}
        self._waiting: dict[Job, int] = {}

    @property
    def taken_bytes(self) -> int:
        """Memory for decoding and encoding everything in flight."""
        return sum(self._taken.values())

    def admit(self, job: Job) -> bool:
        """Count this job as in flight, if it fits. Returns whether it does."""
        if job not in self._waiting:
            self._waiting[job] = self.needed_bytes(job)
        if self._taken and self.taken_bytes + self._waiting[job] > self._shared_bytes:
            return False
        self._taken[job] = self._waiting.pop(job)
        return True

    def check(self, job: Job) -> None:
        """Raise NotEnoughMemoryError for an admitted job that does not fit even alone."""
        needed = memory.used_bytes() + self._taken[job]
        if len(self._taken) == 1 and needed > self.ceiling:
            raise NotEnoughMemoryError(
                f"decoding and encoding {job.source} needs more than the memory limit of "
                f"{self.ceiling // 10**6} MB",
                hint="{memory_bytes} is enough",
                memory_bytes=memory.enough_bytes(needed),
            )

    def release(self, job: Job) -> None:
        """Count this job as finished."""
        del self._taken[job]


class Tracker:
    """Reports positions of a run, if anyone wants to know them."""

    def __init__(self, num_pictures: int, progress: Callable[[Position], None] | None) -> None:
        self._num_pictures, self._progress = num_pictures, progress
        self._num_done = self._num_skipped = 0
        self._megapixels = 0.0

    def within(self, item: InFlightItem) -> Progress:
        """Progress within a picture as a position of the run."""
        return lambda pixels, all_pixels: self._report(item, pixels / all_pixels)

    def finish(self, item: InFlightItem) -> None:
        """A picture has left the network, was skipped or failed; or it is deferred, which does not count."""
        if item.is_deferred:
            return
        self._num_skipped += item.is_skipped
        self._report(item, 1.0)
        self._num_done += 1
        self._megapixels += item.megapixels

    def _report(self, item: InFlightItem, part: float) -> None:
        if self._progress is None:
            return
        position = Position(
            self._num_done + part,
            self._num_pictures,
            item.job.source,
            item.megapixels,
            self._megapixels + part * item.megapixels,
            self._num_skipped,
        )
        try:
            self._progress(position)
        except Exception as error:  # the caller's own, raised to the caller instead of failing the picture
            raise _ProgressError(error) from error


def run_overlapped(
    jobs: Sequence[Job],
    read: Stage,
    run: Callable[[Progress, int, InFlightItem], InFlightItem],
    write: Stage,
    *,
    budget: Budget,
    tracker: Tracker,
) -> Generator[InFlightItem, None, None]:
    """All jobs through three stages, in order: `read` and `write` run in threads, `run` in this one.

    run: called with (progress within the picture, bytes reserved for the other stages, item).
    An exception raised by the function of the tracker stops the run and is raised here: it is not about a picture.
    """
    try:
        yield from _run_overlapped(jobs, read, run, write, budget=budget, tracker=tracker)
    except _ProgressError as error:
        raise error.cause from None


def _run_overlapped(
    jobs: Sequence[Job],
    read: Stage,
    run: Callable[[Progress, int, InFlightItem], InFlightItem],
    write: Stage,
    *,
    budget: Budget,
    tracker: Tracker,
) -> Generator[InFlightItem, None, None]:
    waiting = deque(jobs)
    reading: deque[Future[InFlightItem]] = deque()
    writing: deque[Future[InFlightItem]] = deque()

    def check_and_read(item: InFlightItem) -> InFlightItem:
        budget.check(item.job)
        return read(item)

    def start_reading() -> None:
        reading.append(readers.submit(_attempt, check_and_read, InFlightItem(waiting.popleft())))

    def finish_writing() -> InFlightItem:
        item = writing.popleft().result()
        budget.release(item.job)
        return item

    with _pool(budget.workers) as readers, _pool(budget.workers) as writers:
        for _ in jobs:
            while not reading and not budget.admit(waiting[0]):
                yield finish_writing()
            if not reading:
                start_reading()
            while waiting and len(reading) <= budget.workers and budget.admit(waiting[0]):
                start_reading()
            item = reading.popleft().result()
            item = _attempt(partial(run, tracker.within(item), budget.taken_bytes), item)
            tracker.finish(item)
            writing.append(writers.submit(_attempt, write, item))
            del item  # its picture would stay in memory until the next one is restored
            while writing and (writing[0].done() or len(writing) > budget.workers):
                yield finish_writing()
        while writing:
            yield finish_writing()


def to_pellucid_error(error: Exception, source: object) -> PellucidError:
    """Any failure as one line about its picture, so that the other pictures of a long run are still restored.

    Raises KeyboardInterrupt if that is the cause: C code may turn it into a SystemError.
    """
    if isinstance(error.__context__, KeyboardInterrupt):
        raise KeyboardInterrupt from error
    if isinstance(error, PellucidError):
        return error.about(source)
    if isinstance(error, MemoryError):
        return NotEnoughMemoryError(
            f"{source}: not enough memory", hint="{memory_bytes} limits what the tiles use"
        )
    if isinstance(error, OSError):  # e.g. a network drive that disconnects, or a failing disk
        return PellucidError(f"{source}: {error.strerror or error}")
    found = f"{type(error).__name__}: {str(error)[:200]}"
    return PellucidError(f"{source}: {FAULT} ({found})", hint="please report it")


def _attempt(stage: Stage, item: InFlightItem) -> InFlightItem:
    """Run one stage, unless the item is finished; a failure becomes the item's error."""
    if item.is_skipped or item.is_deferred or item.error is not None:
        return item
    try:
        return stage(item)
    except Exception as error:  # any failure of one picture is reported, and the others continue
        return InFlightItem(item.job, error=to_pellucid_error(error, item.job.source))


class _ProgressError(BaseException):
    """An exception of the caller's own function. Not an Exception, so that it does not fail only one picture."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that finish their current task on exit, and start no other."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
