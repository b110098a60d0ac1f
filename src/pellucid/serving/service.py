"""The service without HTTP: accepts pictures and jobs, runs them in worker processes, and stores results."""

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pellucid.errors import ArgumentError, ClusterError, PellucidError, suggest
from pellucid.serving.batch_queue import BatchQueue
from pellucid.serving.limits import Limits, Setup
from pellucid.serving.monitoring import Monitor, log
from pellucid.serving.problems import Problem
from pellucid.serving.records import FINISHED, JobRecord, Records, Task, Upload, new_id
from pellucid.serving.workers.worker_processes import (
    CommandCancelledError,
    CommandFailedError,
    WorkerDiedError,
    WorkerProcess,
    resident_bytes,
)
from pellucid.system.wording import format_count

MAX_ATTEMPTS = 2
"""A picture is given up after this many worker processes have died while restoring it.

One more is allowed if the service itself was killed: at the next start, the picture may not have been the cause.
"""

INSPECT_S = 60.0
EXPIRE_EVERY_S = 5.0
WATCH_EVERY_S = 0.5
MIN_PROGRESS = 0.004
"""Smaller steps of progress are not reported."""

RECYCLE_SHARE = 0.6
"""A worker is replaced if, after a picture, it still uses more than this fraction of its memory limit."""


MAX_OVERTAKEN = 8
"""How often pictures for already loaded models may overtake the first picture in the queue."""


MakeWorkerProcess = Callable[[str, dict[str, Any], Path], WorkerProcess]
"""Arguments: name, options and folder, see `WorkerProcess`."""


@dataclass(eq=False)
class _QueuedPicture:
    """A picture in the queue."""

    job: JobRecord
    number: int
    times_overtaken: int = 0

    @property
    def task(self) -> Task:
        return self.job.tasks[self.number]


class Service:
    """All state of the service. Its methods run in the event loop and never block it for long.

    make_worker: makes the processes that restore; by default on this computer.
    """

    def __init__(self, setup: Setup, limits: Limits, make_worker: MakeWorkerProcess = WorkerProcess) -> None:
        self.setup, self.limits = setup, limits
        self.records = Records(setup.data)
        self.monitor = Monitor()
        self.batches = BatchQueue(setup, limits, self.records, self.monitor)
        self.models: dict[str, dict[str, Any]] = {}
        self.is_ready = self.is_draining = self.is_stopping = False
        self.num_streams = 0
        self._queue: deque[_QueuedPicture] = deque()
        self._changed = asyncio.Condition()
        self._running: dict[str, dict[int, WorkerProcess]] = {}
        options = {
            "device": setup.device,
            "backend": setup.backend,
            "precision": setup.precision,
            "max_pixels": limits.max_pixels,
        }
        temporary = self.records.temporary
        self._workers = [
            make_worker(f"worker {i}", options | {"memory_bytes": limits.worker_bytes}, temporary / f"worker{i}")
            for i in range(1, limits.workers + 1)
        ]
        inspecting = options | {"memory_bytes": limits.inspector_bytes}
        self._inspector = WorkerProcess("inspector", inspecting, temporary / "inspector")
        self._inspecting = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    # Start and stop

    async def start(self) -> None:
        """Start the processes and continue unfinished jobs.

        Raises PellucidError for models that do not exist, and for a device, backend or precision that cannot be
        used.
        """
        if self.setup.cluster is not None:
            try:
                await self._workers[0].start()
            except WorkerDiedError as error:
                raise ClusterError(f"no worker can be started on the cluster: {error}") from None
        try:
            found = {model["name"]: model for model in await self._inspect("list_models")}
            problem = await self._check_options()
        except (WorkerDiedError, CommandFailedError) as error:
            raise PellucidError(f"the process that reads pictures does not work: {error}") from None
        if problem is not None:
            raise (ArgumentError if problem.pop("is_argument") else PellucidError)(problem.pop("facts"), **problem)
        missing = [name for name in self.setup.models if name not in found]
        if missing:
            raise PellucidError(f"no model {missing[0]!r}; {suggest(missing[0], found)}")
        self.models = {name: found[name] for name in self.setup.models or found}
        for job in sorted(self.records.jobs.values(), key=lambda job: job.created_s):
            await self._continue(job)
        loops = [
            *(lambda worker=worker: self._work(worker) for worker in self._workers),
            self._expire,
            self._watch,
            self.batches.run,
        ]
        self._tasks = [asyncio.create_task(_repeat(loop)) for loop in loops]
        self.is_ready = True

    async def _check_options(self) -> dict[str, Any] | None:
        """The error of device, backend or precision, or None. Loads PyTorch, which is slow, if one is given."""
        setup = self.setup
        if setup.device == "auto" and setup.backend in (None, "auto") and setup.precision is None:
            return None
        return cast("dict[str, Any] | None", await self._workers[0].call("check_options", limit_s=INSPECT_S))

    async def _continue(self, job: JobRecord) -> None:
        """Queue the unfinished pictures of a job from before a restart."""
        waiting = [number for number, task in enumerate(job.tasks) if task.state == "queued"]
        for number in waiting:
            task = job.tasks[number]
            try:
                self.check_model(job.model)
            except Problem as problem:
                self._fail(task, problem.detail, "picture")
            else:
                if task.attempts > MAX_ATTEMPTS:
                    ended = f"{task.attempts} times, restoring it ended a worker process or the whole service"
                    self._fail(task, f"{task.name}: {ended}", "fault")
                else:
                    self._queue.append(_QueuedPicture(job, number))
        if waiting:
            await self._finish(job)

    async def drain(self) -> None:
        """Accept no new work, and wait for running work. Queued jobs stay in the records for the next start."""
        self.is_draining = True
        self.batches.drain()
        await self.announce()
        end = time.monotonic() + self.limits.drain_s
        while (self._running or self.batches.is_running) and time.monotonic() < end and not self.is_stopping:
            await asyncio.sleep(0.05)
        self.is_stopping = True
        await self.announce()

    async def stop(self) -> None:
        """End all processes."""
        self.is_ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in (*self._workers, self._inspector):
            await worker.stop()
        self.records.close()

    # Uploads

    async def add_upload(
        self, content: Path, name: str, client: str, *, is_temporary: bool, with_advice: bool
    ) -> Upload:
        """Move a complete file into the records, and read its header; with advice, its samples, too.

        is_temporary: see `Upload`. Raises Problem if it is not a picture.
        """
        num_bytes = content.stat().st_size
        if not self._make_room(num_bytes):
            kept = f"{self.limits.keep_bytes / 1e9:.1f} GB are used for pictures and results that are not finished"
            raise Problem(507, "no space", kept)
        about = (_safe_suffix(name), is_temporary)
        upload = Upload(new_id(), _safe_name(name), client, time.time(), num_bytes, *about)
        try:
            self.records.take_file(upload, content)
            upload.about = await self._read_header(upload, with_advice=with_advice)
            self.records.save_upload(upload)
        except CommandFailedError as error:
            self.records.remove(upload)
            raise _problem_of(error) from None
        except WorkerDiedError as error:
            self.records.remove(upload)
            raise _problem_of_death(error, f"reading {upload.name}") from None
        except BaseException:
            self.records.remove(upload)
            raise
        return upload

    async def _read_header(self, upload: Upload, *, with_advice: bool) -> dict[str, Any]:
        """Read the header of a file. After a crash, try once more: the cause may be outside of the file."""
        known: dict[str, Any] = {
            "source": self.records.upload_path(upload),
            "name": upload.name,
            "advise_among": [*self.models.values()] if with_advice else None,
        }
        try:
            return dict(await self._inspect("inspect", **known))
        except WorkerDiedError as error:
            log(level="error", picture=upload.id, error=error.reason)
            if error.cause != "crash":
                raise
            return dict(await self._inspect("inspect", **known))

    def find_upload(self, upload_id: str) -> Upload:
        """Raises Problem 404."""
        upload = self.records.uploads.get(upload_id)
        if upload is None:
            raise Problem(404, "no such picture", "it never existed, or has expired")
        return upload

    @contextlib.asynccontextmanager
    async def draw_view(
        self,
        source: Path,
        name: str,
        box: tuple[int, int, int, int] | None,
        longest_px: int,
        check_wanted: Callable[[], None],
    ) -> AsyncIterator[tuple[Path, dict[str, Any]]]:
        """A part of a picture as PNG, in a file that is deleted afterwards, and the size of the whole.

        check_wanted: raises an error if the client has disconnected while others were served.
        """
        target = self.records.temporary / f"{secrets.token_hex(8)}.png"
        try:
            yield (
                target,
                await self._inspect(
                    "view",
                    check_wanted,
                    source=source,
                    target=str(target),
                    name=name,
                    box=box,
                    longest_px=longest_px,
                ),
            )
        except CommandFailedError as error:
            if not source.exists():
                raise Problem(404, "no such picture", "it was deleted, or has expired") from None
            raise _problem_of(error) from None
        except WorkerDiedError as error:
            raise _problem_of_death(error, f"showing {name}") from None
        finally:
            target.unlink(missing_ok=True)

    async def _inspect(
        self,
        do: str,
        check_wanted: Callable[[], None] = lambda: None,
        *,
        source: Path | None = None,
        **content: Any,
    ) -> Any:
        given = content if source is None else content | {"source": str(source)}
        async with self._inspecting:
            check_wanted()
            result = await self._inspector.call(do, limit_s=INSPECT_S, **given)
            if self._inspector.rss_bytes > self.limits.inspector_bytes:
                await self._inspector.stop()
            return result

    # Jobs

    def check_ready(self) -> None:
        """Raises Problem 503 while starting or draining."""
        if not self.is_ready or self.is_draining:
            raise Problem(503, "not ready", "the service is starting or stopping", retry_after_s=5)

    def check_accepts_work(self, client: str, num_new: int = 1) -> None:
        """Raises Problem 503 while starting or draining, and 429 if the queue or the client's share is full."""
        self.check_ready()
        if len(self._queue) + num_new > self.limits.max_queue:
            raise Problem(
                429,
                "the queue is full",
                f"{format_count(len(self._queue), 'picture')} waiting",
                retry_after_s=self._wait_s(),
            )
        own = sum(waiting.job.client == client for waiting in self._queue)
        own += sum(len(tasks) for key, tasks in self._running.items() if self.records.jobs[key].client == client)
        if own + num_new > self.limits.max_files_per_client:
            raise Problem(
                429, "too many pictures", f"{own} of your pictures are unfinished", retry_after_s=self._wait_s()
            )

    def list_models(self) -> list[dict[str, Any]]:
        """The models that are offered. Raises Problem 503 before they are known."""
        if not self.models:
            self.check_ready()
        return [*self.models.values()]

    def check_model(self, model: str) -> int:
        """The scale factor of a model or a chain, e.g. a+b.

        Raises Problem 400 if a model is not offered or cannot have this place in a chain, and 503 before the
        models are known.
        """
        self.list_models()
        scale, names = 1, model.split("+")
        for place, name in enumerate(names):
            if name not in self.models:
                raise Problem(400, "no such model", f"no model {name[:80]!r}; {suggest(name[:80], self.models)}")
            if len(names) > 1 and (
                self.models[name]["gives_raw"] or (place and self.models[name]["takes_raw_only"])
            ):
                raise Problem(
                    400, "no such chain", f"{name} is for camera RAW files, and cannot be at this place of a chain"
                )
            scale *= int(self.models[name]["scale"])
        return scale

    def _count_passes(self, job: JobRecord, task: Task) -> int:
        """How many pixels networks process for each pixel of the picture. They are repeated to enlarge more."""
        wanted, count, scale = _wanted_scale(job.options, task.pixels), 0, 1
        while True:
            for name in job.model.split("+"):
                count += scale**2
                scale *= int(self.models[name]["scale"])
            if scale >= wanted or scale <= 1:
                return count * (8 if job.options.get("ensemble") else 1)

    async def add_job(
        self,
        uploads: list[Upload],
        model: str,
        options: dict[str, Any],
        client: str,
        *,
        is_kept: bool,
    ) -> JobRecord:
        """Queue a job. is_kept: see `JobRecord`. Raises the Problems of `check_accepts_work`."""
        tasks = [Task(upload.id, upload.name, int(upload.about["pixels"])) for upload in uploads]
        job = JobRecord(new_id(), client, model, options, tasks, is_kept=is_kept)
        try:
            self.check_model(model)
            self.check_accepts_work(client, len(uploads))
            self.records.save_job(job)
        except BaseException:
            self.remove_temporary(uploads)
            raise
        self._queue.extend(_QueuedPicture(job, number) for number in range(len(tasks)))
        await self.announce()
        return job

    def remove_temporary(self, uploads: list[Upload]) -> None:
        """Delete the temporary ones among these uploads: those of a single request or job."""
        for upload in uploads:
            if upload.is_temporary:
                self.records.remove(upload)

    def find_job(self, job_id: str) -> JobRecord:
        """Raises Problem 404."""
        job = self.records.jobs.get(job_id)
        if job is None:
            raise Problem(404, "no such job", "it never existed, or has expired")
        return job

    def queue_position(self, job: JobRecord) -> int | None:
        """How many pictures are ahead of the first queued one of this job; None if none is queued."""
        return next((i for i, waiting in enumerate(self._queue) if waiting.job is job), None)

    async def cancel(self, job: JobRecord) -> None:
        """Stop the unfinished pictures of a job, within a second."""
        self._queue = deque(waiting for waiting in self._queue if waiting.job is not job)
        for task in job.tasks:
            if task.state == "queued":
                task.state = "cancelled"
        workers = list(self._running.get(job.id, {}).values())
        await asyncio.gather(*(worker.cancel() for worker in workers))
        await self._finish(job)

    async def remove_job(self, job: JobRecord) -> None:
        """Cancel a job and delete its results."""
        await self.cancel(job)
        while job.id in self._running:
            await asyncio.sleep(0.02)
        self.records.remove(job)

    async def follow(self, job: JobRecord) -> AsyncIterator[JobRecord]:
        """Yield the job immediately and after each change, until it is finished or the service drains."""
        while True:
            yield job
            if job.state in FINISHED or self.is_draining:
                return
            before = (job.state, job.progress, self.queue_position(job))
            async with self._changed:
                while (
                    job.state, job.progress, self.queue_position(job)
                ) == before and not self.is_draining:  # fmt: skip
                    await self._changed.wait()

    async def wait(self, job: JobRecord) -> None:
        """Wait until a job is finished. Raises Problem 503 if the service stops before."""

        def is_over() -> bool:
            is_left = self.is_stopping or (self.is_draining and job.id not in self._running)
            return job.state in FINISHED or is_left

        async with self._changed:
            await self._changed.wait_for(is_over)
        if job.state not in FINISHED:
            raise Problem(503, "not ready", "the service is stopping", retry_after_s=5)

    async def announce(self) -> None:
        """Wake all tasks that wait for a change."""
        async with self._changed:
            self._changed.notify_all()

    # Work

    async def _work(self, worker: WorkerProcess) -> None:
        """One worker's loop: start, take a picture, restore it, and replace the process when necessary."""
        while True:
            try:
                await worker.start()
                await worker.call("warm_up", limit_s=120)
            except (WorkerDiedError, CommandFailedError) as error:
                log(level="error", process=worker.name, error=str(error))
                self.monitor.restarts.inc()
                await asyncio.sleep(1.0)
                continue
            while (waiting := await self._take(worker)) is not None:
                await self._restore(worker, waiting)
                if worker.rss_bytes > RECYCLE_SHARE * self.limits.worker_bytes:
                    await worker.stop()
            self.monitor.restarts.inc()

    async def _take(self, worker: WorkerProcess) -> _QueuedPicture | None:
        """The next picture for a worker: one for a model that it has loaded, or the first in the queue.

        None if the process ended.
        """
        async with self._changed:
            while worker.is_alive:
                chosen = None if self.is_draining else self._choose(worker)
                if chosen is not None:
                    self._queue.remove(chosen)
                    chosen.task.state = "running"
                    chosen.task.attempts += 1
                    self._running.setdefault(chosen.job.id, {})[chosen.number] = worker
                    return chosen
                await self._changed.wait()
        return None

    def _choose(self, worker: WorkerProcess) -> _QueuedPicture | None:
        if not self._queue:
            return None
        first = self._queue[0]
        if first.times_overtaken >= MAX_OVERTAKEN:
            return first
        chosen = next((waiting for waiting in self._queue if waiting.job.model in worker.models), first)
        first.times_overtaken += chosen is not first
        return chosen

    async def _restore(self, worker: WorkerProcess, waiting: _QueuedPicture) -> None:
        job, task, number = waiting.job, waiting.task, waiting.number
        self.monitor.wait_s.observe(time.time() - job.created_s)
        start = time.monotonic()
        try:
            self._save(job)
            about = await self._call_restore(worker, waiting)
            about["bytes"] = (self.records.result_folder(job, number) / about["file"]).stat().st_size
        except asyncio.CancelledError:  # the service stops; the picture is not the cause
            task.attempts -= 1
            self._save(job)
            raise
        except CommandCancelledError:
            task.state = "cancelled"
        except CommandFailedError as error:
            self._fail(task, error.message, error.kind)
        except WorkerDiedError as error:
            self._handle_death(waiting, error)
        except Exception as error:  # of one picture: the loop continues
            text = f"{task.name}: {getattr(error, 'strerror', None) or error}"
            self._fail(task, text, "storage" if is_storage_error(error) else "fault")
        else:
            task.about, task.state = about, "done"
            self.monitor.count_restored(job.model, task.about["megapixels"], time.monotonic() - start)
        finally:
            running = self._running[job.id]
            del running[number]
            if not running:
                del self._running[job.id]
        if task.state != "done":  # a process that was killed leaves incomplete files
            shutil.rmtree(self.records.result_folder(job, number), ignore_errors=True)
        await self._finish(job)

    async def _call_restore(self, worker: WorkerProcess, waiting: _QueuedPicture) -> dict[str, Any]:
        job, task = waiting.job, waiting.task
        folder = self.records.result_folder(job, waiting.number)
        folder.mkdir(parents=True, exist_ok=True)
        return dict(
            await worker.call(
                "restore",
                limit_s=self.limits.longest_s(task.pixels, self._count_passes(job, task)),
                progress=lambda done: self._advance(task, done),
                source=str(self.records.upload_path(self.find_upload(task.upload))),
                folder=str(folder),
                name=task.name,
                model=job.model,
                options=job.options,
            )
        )

    def _handle_death(self, waiting: _QueuedPicture, error: WorkerDiedError) -> None:
        task = waiting.task
        log(level="error", picture=task.upload, attempt=task.attempts, error=error.reason)
        if task.attempts < MAX_ATTEMPTS and error.cause != "time":
            task.state, task.progress = "queued", 0.0
            self._queue.appendleft(waiting)
            return
        count = "a worker process" if task.attempts == 1 else f"{task.attempts} worker processes"
        ended = f"restoring it ended {count} ({error.reason})"
        self._fail(task, f"{task.name}: {ended}", "memory" if error.cause == "memory" else "fault")

    def _fail(self, task: Task, error: str, kind: str) -> None:
        task.state, task.error, task.error_kind = "failed", error, kind
        if kind in ("fault", "model", "storage"):  # not caused by the client
            log(level="error", picture=task.upload, kind=kind, error=error)

    def _advance(self, task: Task, done: float) -> None:
        if done - task.progress < MIN_PROGRESS:
            return
        task.progress = done
        _keep_alive.add(announcing := asyncio.ensure_future(self.announce()))
        announcing.add_done_callback(_keep_alive.discard)

    async def _finish(self, job: JobRecord) -> None:
        if job.state in FINISHED and job.finished_s is None:
            job.finished_s = time.time()
            uploads = (self.records.uploads.get(task.upload) for task in job.tasks)
            self.remove_temporary([upload for upload in uploads if upload is not None])
        if job.id in self.records.jobs:
            self._save(job)
        await self.announce()

    def _save(self, job: JobRecord) -> None:
        """Record a change of a job. If that is impossible, e.g. on a full disk, the job still runs.

        After a restart, it is then in an earlier state, and runs again.
        """
        try:
            self.records.save_job(job)
        except sqlite3.Error as error:
            log(level="error", job=job.id, error=f"its state cannot be recorded: {error}")

    def _wait_s(self) -> int:
        """When to try again if the queue is full: twice the mean time of a picture, from 1 to 300 s."""
        return max(1, min(300, round(self.monitor.mean_s() * 2)))

    # Housekeeping

    async def _watch(self) -> None:
        """Kill processes that exceed their memory limit; wake workers, which replace processes that have died."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            for worker in (*self._workers, self._inspector):
                if worker.is_alive:
                    rss, used = worker.measure_memory()
                    self.monitor.memory.labels(worker.name).set(rss)
                    limit = worker.options["memory_bytes"] * 1.25
                    if used > limit:
                        reason = f"used {used / 1e6:.0f} MB of memory; the limit is {limit / 1e6:.0f} MB"
                        worker.kill(reason, "memory")
            self.monitor.memory.labels("service").set(resident_bytes(os.getpid()))
            self.monitor.queued.set(len(self._queue))
            await self.announce()

    async def _expire(self) -> None:
        """Delete expired uploads and results, and the oldest ones if there are too many."""
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            self._make_room(0)

    def _make_room(self, num_bytes: int) -> bool:
        """Delete expired files, and the oldest if space is needed; returns whether a file of this size fits."""
        removable = self.records.list_removable()
        num_too_many = len(removable) - self.limits.max_kept
        surplus_bytes = self.records.kept_bytes() + num_bytes - self.limits.keep_bytes
        oldest_s = time.time() - self.limits.keep_s
        for index, (time_s, record) in enumerate(removable):
            if time_s >= oldest_s and surplus_bytes <= 0 and index >= num_too_many:
                break
            surplus_bytes -= record.num_bytes
            self.records.remove(record)
        return surplus_bytes <= 0


async def _repeat(loop: Callable[[], Awaitable[None]]) -> None:
    """Run an endless loop, and restart it after an error, because the service cannot work without it."""
    while True:
        try:
            await loop()
        except Exception as error:  # of any class: it is logged, and the loop starts again
            log(level="error", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(1.0)


_keep_alive: set[asyncio.Future[None]] = set()
"""References to tasks, which could otherwise be garbage-collected before they run."""


def _problem_of(error: CommandFailedError) -> Problem:
    if error.kind == "option":
        return Problem(400, "an option that is not possible", error.message)
    if error.kind == "storage":
        return Problem(507, "no space", error.message)
    if "not a file of a known picture format" in error.message:
        return Problem(400, "not a picture", error.message)
    if error.kind == "memory" or "pixels; the limit is" in error.message:
        return Problem(413, "the picture is too large", error.message)
    if error.kind == "fault":
        return Problem(500, "a fault of pellucid", error.message)
    return Problem(422, "the picture cannot be read", error.message)


def _problem_of_death(error: WorkerDiedError, doing: str) -> Problem:
    if error.cause == "memory":
        return Problem(413, "the picture is too large", f"{doing} {error.reason}")
    return Problem(422, "the picture cannot be read", f"{doing} ended a process ({error.reason})")


def is_storage_error(error: Exception) -> bool:
    """Whether an error of the file system or of the database means that nothing more can be stored."""
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY) or "I/O" in str(error)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _wanted_scale(options: Mapping[str, Any], num_pixels: int) -> float:
    """How many times as long the sides become, at most; 1 without a request. Of one side: as if of a square."""
    sides = [side for side in options.get("size") or () if side is not None]
    if not sides:
        return float(options.get("scale") or 1)
    return float((sides[0] * sides[-1] / num_pixels) ** 0.5)


def _safe_suffix(name: str) -> str:
    """The suffix of a name if it is a short word; it decides which RAW formats are tried."""
    suffix = Path(name).suffix.lower()
    return suffix if 1 < len(suffix) <= 6 and suffix[1:].isascii() and suffix[1:].isalnum() else ""


def _safe_name(name: str) -> str:
    """A name for messages and downloads: without folders and control characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(char for char in last if char.isprintable())[:200] or "picture"
