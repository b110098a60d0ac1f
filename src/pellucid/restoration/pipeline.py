"""Three stages that overlap: while one picture is in the network, others are decoded and encoded.

No more pictures are in flight than fit the memory, and a failure affects only its own picture.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from PIL.Image import Image

from pellucid.domains import Degraded
from pellucid.errors import NotEnoughMemoryError, PellucidError
from pellucid.pictures.picture import Picture
from pellucid.pictures.tiff.directories import Pages
from pellucid.restoration.chaining import Progress
from pellucid.restoration.kept_tiles import KeptTiles
from pellucid.restoration.planning import Job
from pellucid.restoration.position import Position
from pellucid.restoration.transfers import LocalFiles
from pellucid.system import heap, memory
from pellucid.system.wording import format_bytes

BASE_BYTES = 20 * 10**6
"""Memory that decoding and encoding take for any picture, besides that for its pixels."""

SMALL_BYTES = BASE_BYTES + 10**6
"""Pictures that take no more memory to decode and encode are small: results of about 30,000 pixels."""

WAIT_S, NUM_AHEAD = 0.002, 20
"""If reading a small picture waits longer, e.g. for a network drive, the next NUM_AHEAD small ones are read ahead;
twice as many if the one after them waits, too."""

FAULT = "a fault of pellucid"
"""The start of messages about bugs, which users should report."""


@dataclass(frozen=True)
class InFlightItem:
    """A job in one of the stages.

    files: the local files of the job, set before it is read. degraded: set when it has been read. restored: set by
        the network.
    pages: set for a file with several pages, which the second stage reads, restores and writes one at a time.
    mask: the mask of the job, if any. sheet: the comparison of a picture and its result, if requested.
    is_deferred: whether another process is making the result. reading_s: how long reading took.
    kept: tiles of this result that earlier runs have made, and that the next one can use.
    """

    job: Job
    files: LocalFiles | None = None
    pages: Pages | None = None
    degraded: Degraded | None = None
    mask: Picture | None = None
    restored: Degraded | None = None
    sheet: Image | None = None
    megapixels: float = 0.0
    seconds: float = 0.0
    is_skipped: bool = False
    is_deferred: bool = False
    reading_s: float = 0.0
    error: PellucidError | None = None
    info: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    kept: KeptTiles = field(default_factory=KeptTiles)


Stage = Callable[[InFlightItem], InFlightItem]


class Budget:
    """Limits the pictures in flight, by number and by memory.

    A single picture is always admitted; `check` rejects it if it exceeds the limit alone. Half of the free memory
    is for decoding, encoding and large arrays (see `memory.sharing_free_memory`), the other half for the tiles in
    the network.
    """

    def __init__(self, ceiling: int, workers: int, needed_bytes: Callable[[Job], int]) -> None:
        self.ceiling, self.workers, self.needed_bytes = ceiling, workers, needed_bytes
        self._coding_bytes = max(0, ceiling - memory.used_bytes()) // 2 - memory.share_bytes()
        self._taken: dict[Job, int] = {}
        self._waiting: dict[Job, int] = {}

    @property
    def taken_bytes(self) -> int:
        """Memory for decoding and encoding everything in flight."""
        return sum(self._taken.values())

    def admit(self, job: Job) -> bool:
        """Count this job as in flight if it fits; returns whether it fits."""
        if job not in self._waiting:
            self._waiting[job] = self.needed_bytes(job)
        if self.taken_bytes + self._waiting[job] > self._coding_bytes:
            if self._taken:
                return False
            memory.stop_sharing()
        self._taken[job] = self._waiting.pop(job)
        return True

    def check(self, job: Job) -> None:
        """Raise NotEnoughMemoryError for an admitted job that exceeds the limit even alone."""
        if len(self._taken) > 1:
            return
        needed = memory.used_bytes() + self._taken[job]
        if needed > self.ceiling:
            heap.trim()
            needed = memory.used_bytes() + self._taken[job]
        if needed > self.ceiling:
            raise NotEnoughMemoryError(
                f"decoding and encoding {job.source} needs more than the memory limit of "
                f"{format_bytes(self.ceiling)}",
                **memory.hint_at(needed),
            )

    def is_small(self, job: Job) -> bool:
        """Whether an admitted job takes little memory, because its picture is small, or need not be read."""
        return self._taken[job] <= SMALL_BYTES

    def release(self, job: Job) -> None:
        """Count this job as finished."""
        del self._taken[job]


class Tracker:
    """Reports the progress of a run, if there is a callback."""

    def __init__(self, num_pictures: int, progress: Callable[[Position], None] | None) -> None:
        self._num_pictures, self._progress = num_pictures, progress
        self._num_done, self._num_skipped, self._megapixels = 0, 0.0, 0.0
        self._found_part = 0.0

    def within(self, item: InFlightItem) -> Progress:
        """A callback for the progress within a picture, which reports that of the run."""
        part_before = 0.0

        def report(pixels: int, all_pixels: int) -> None:
            nonlocal part_before
            part = pixels / all_pixels
            if item.kept.was_found:
                self._found_part += part - part_before
            part_before = part
            self._report(item, part)

        return report

    def finish(self, item: InFlightItem) -> None:
        """Count a picture that has left the network, was skipped, or failed. Deferred ones do not count."""
        if item.is_deferred:
            return
        self._num_skipped += item.is_skipped
        self._report(item, 1.0)
        self._num_done += 1
        self._num_skipped += self._found_part
        self._megapixels += item.megapixels * (1 - self._found_part)
        self._found_part = 0.0

    def _report(self, item: InFlightItem, part: float) -> None:
        if self._progress is None:
            return
        position = Position(
            self._num_done + part,
            self._num_pictures,
            item.job.source,
            item.megapixels,
            self._megapixels + (part - self._found_part) * item.megapixels,
            self._num_skipped + self._found_part,
            item.kept.kept_s,
        )
        try:
            self._progress(position)
        except Exception as error:  # from the callback: it is raised to the caller, and does not fail the picture
            raise _ProgressError(error) from error


class _Reading:
    """The pictures that are being read: in other threads, but small ones in this thread when they are needed.

    Python runs one thread at a time: for small pictures, threads spend more time in waiting for each other than
    they save, unless reading itself waits.
    """

    def __init__(self, pool: ThreadPoolExecutor, read: Stage) -> None:
        self._pool, self._read = pool, read
        self._items: deque[InFlightItem | Future[InFlightItem]] = deque()
        self._num_ahead, self._next_num_ahead = 0, NUM_AHEAD

    def __len__(self) -> int:
        return len(self._items)

    def add(self, job: Job, *, is_small: bool) -> None:
        """Add a job, which is not read yet if it is small."""
        item = InFlightItem(job)
        is_here = is_small and self._num_ahead == 0
        self._items.append(item if is_here else self._start(item))
        if is_small and not is_here:
            self._num_ahead -= 1

    def take(self) -> InFlightItem:
        """The first picture, as soon as it has been read."""
        first = self._items.popleft()
        return first.result() if isinstance(first, Future) else self._read_here(first)

    def _start(self, item: InFlightItem) -> Future[InFlightItem]:
        return self._pool.submit(_attempt, self._read, item)

    def _read_here(self, item: InFlightItem) -> InFlightItem:
        start_s, start_cpu_s = time.monotonic(), time.thread_time()
        item = _attempt(self._read, item)
        waited_s = time.monotonic() - start_s - (time.thread_time() - start_cpu_s)
        if waited_s <= WAIT_S:
            self._next_num_ahead = NUM_AHEAD
            return item
        self._num_ahead, self._next_num_ahead = self._next_num_ahead, 2 * self._next_num_ahead
        self._items = deque(one if isinstance(one, Future) else self._start(one) for one in self._items)
        return item


def run_overlapped(
    jobs: Sequence[Job],
    read: Stage,
    run: Callable[[Progress, int, InFlightItem], InFlightItem],
    write: Stage,
    *,
    budget: Budget,
    tracker: Tracker,
) -> Generator[InFlightItem, None, None]:
    """Run all jobs through three stages, in order: `read` and `write` in other threads, `run` in this one.

    Small pictures may be read in this one, too, see `_Reading`.
    run: called with (progress within the picture, bytes reserved for the other stages, item).
    An exception in the callback of the tracker stops the run and is raised here, because it is not about a
    picture.
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
    writing: deque[Future[InFlightItem]] = deque()

    def check_and_read(item: InFlightItem) -> InFlightItem:
        budget.check(item.job)
        return read(item)

    def start_reading() -> None:
        job = waiting.popleft()
        reading.add(job, is_small=budget.is_small(job))

    def finish_writing() -> InFlightItem:
        item = writing.popleft().result()
        budget.release(item.job)
        return item

    with heap.keeping(), _pool(budget.workers) as readers, _pool(budget.workers) as writers:
        reading = _Reading(readers, check_and_read)
        try:
            for _ in jobs:
                while not reading and not budget.admit(waiting[0]):
                    yield finish_writing()
                if not reading:
                    start_reading()
                while waiting and len(reading) <= budget.workers and budget.admit(waiting[0]):
                    start_reading()
                item = reading.take()
                item = _attempt(partial(run, tracker.within(item), budget.taken_bytes), item)
                tracker.finish(item)
                writing.append(writers.submit(_attempt, write, item))
                del item  # otherwise its picture would stay in memory until the next one is restored
                while writing and (writing[0].done() or len(writing) > budget.workers):
                    yield finish_writing()
        except KeyboardInterrupt:
            # These are restored, and will be written: they must be counted.
            while writing:
                yield finish_writing()
            raise
        while writing:
            yield finish_writing()


def to_pellucid_error(error: Exception, source: object) -> PellucidError:
    """Any exception as a one-line error about its picture, so that a long run continues with the others.

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
        info = ("its finished tiles are kept, and the same command resumes",) if item.kept.kept_s else ()
        return InFlightItem(item.job, error=to_pellucid_error(error, item.job.source), info=info)


class _ProgressError(BaseException):
    """An exception in the caller's callback. Not an Exception, so that it is not handled as a failed picture."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A thread pool that finishes running tasks on exit, and cancels all others."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
