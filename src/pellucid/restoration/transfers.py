"""Objects of jobs on this computer: fetched ahead, while earlier pictures are restored.

Every reader and writer of pictures works on files, so an object is copied into a temporary file and read from
there, and a result is written into one before it is stored.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from threading import Lock

from pellucid.errors import PellucidError
from pellucid.restoration.entries import Stamp, stamp
from pellucid.restoration.planning import Job
from pellucid.storage import objects
from pellucid.storage.urls import Location, Url
from pellucid.system.files import temporary_folder

MAX_AHEAD = 8
"""How many jobs are fetched ahead, and at the same time."""

MAX_AHEAD_BYTES = 2**30
"""No more than this is fetched ahead, as far as sizes are known."""

_MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class LocalFiles:
    """The files of a job on this computer: its own, or copies.

    target: where to write the result, which `Manifests.record` stores elsewhere if it is not the job's own.
    stamp: of the source, and of the mask if there is one, taken before they are read.
    """

    source: Path
    target: Path
    mask: Path | None
    stamp: Stamp


class Transfers:
    """Copies of the objects of all jobs of a run, a few at a time.

    is_done: whether nothing has to be fetched for a job. Closing it removes all copies.
    """

    def __init__(self, jobs: Sequence[Job], is_done: Callable[[Job], bool]) -> None:
        self._jobs, self._is_done = jobs, is_done
        self._places = {job: i for i, job in enumerate(jobs) if not job.is_local}
        self._copies: dict[Job, Future[LocalFiles]] = {}
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(MAX_AHEAD) if self._places else None
        self._stack = ExitStack()
        self._folder = self._stack.enter_context(temporary_folder()) if self._places else None

    def open(self, job: Job) -> LocalFiles:
        """The files of a job; waits until they are fetched, and starts fetching those of the next jobs.

        Raises StorageError if they cannot be fetched.
        """
        if isinstance(job.source, Path) and isinstance(job.target, Path) and not isinstance(job.mask, Url):
            inputs = [job.source] if job.mask is None else [job.source, job.mask]
            return LocalFiles(job.source, job.target, job.mask, stamp(*inputs))
        with self._lock:
            copy = self._start(job)
            self._start_following(job)
        return copy.result()

    def close_job(self, job: Job) -> None:
        """Remove the copies of a job."""
        with self._lock:
            copy = self._copies.pop(job, None)
        if copy is not None and not copy.cancel():
            with suppress(PellucidError, OSError):
                copy.result()
            rmtree(self._folder_of(job), ignore_errors=True)

    @contextmanager
    def naming(self, job: Job) -> Iterator[None]:
        """Errors name the objects of a job, not their copies."""
        try:
            yield
        except PellucidError as error:
            if not job.is_local:
                self._rename(error, job)
            raise

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._stack.close()

    def _start(self, job: Job) -> Future[LocalFiles]:
        assert self._pool is not None
        if job not in self._copies:
            self._copies[job] = self._pool.submit(self._fetch, job)
        return self._copies[job]

    def _start_following(self, job: Job) -> None:
        place = self._places[job]
        num_bytes = 0
        for following in self._jobs[place + 1 : place + 1 + MAX_AHEAD]:
            num_bytes += _size_bytes(following)
            if num_bytes > MAX_AHEAD_BYTES:
                return
            if not following.is_local and following not in self._copies and not self._needs_nothing(following):
                self._start(following)

    def _needs_nothing(self, job: Job) -> bool:
        try:
            return self._is_done(job)
        except PellucidError:  # reported when it is the job's turn
            return True

    def _folder_of(self, job: Job) -> Path:
        assert self._folder is not None
        return self._folder / str(self._places[job])

    def _fetch(self, job: Job) -> LocalFiles:
        folder = self._folder_of(job)
        (folder / "result").mkdir(parents=True)
        source, mask = _copy_path(job.source, folder / "input"), None
        source_stamp = _copy(job.source, source)
        if job.mask is not None:
            mask = _copy_path(job.mask, folder / "mask")
            source_stamp = [*source_stamp, *_copy(job.mask, mask)]
        target = job.target if isinstance(job.target, Path) else folder / "result" / _short_name(job.target)
        return LocalFiles(source, target, mask, source_stamp)

    def _rename(self, error: PellucidError, job: Job) -> None:
        folder = self._folder_of(job)
        for place, kind in ((job.source, "input"), (job.mask, "mask"), (job.target, "result")):
            if isinstance(place, Url):
                error.facts = error.facts.replace(str(folder / kind / _short_name(place)), str(place))
        error.args = (error.facts,)


def _copy_path(place: Location, folder: Path) -> Path:
    return folder / _short_name(place) if isinstance(place, Url) else place


def _copy(place: Location, path: Path) -> Stamp:
    """Fetch an object, and return its stamp; a file of this computer only gets its stamp."""
    if not isinstance(place, Url):
        return stamp(place)
    path.parent.mkdir(exist_ok=True)
    return [*objects.fetch(place, path)]


def _short_name(url: Url) -> str:
    """The name of an object, if files can have it."""
    is_usable = len(os.fsencode(url.name)) <= _MAX_NAME_BYTES and not {*url.name} & {*'\\:*?"<>|'}
    return url.name if is_usable else f"picture{url.suffix[:10]}"


def _size_bytes(job: Job) -> int:
    return sum(place.tag.size_bytes for place in (job.source, job.mask) if isinstance(place, Url) and place.tag)
