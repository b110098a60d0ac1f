"""The service without HTTP: takes pictures and jobs, gives them to worker processes, keeps results, and drains."""

import asyncio
import contextlib
import os
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pellucid.errors import PellucidError, suggest
from pellucid.serving.limits import INSPECTOR_BYTES, Limits, Setup
from pellucid.serving.monitoring import Monitor
from pellucid.serving.problems import Problem
from pellucid.serving.processes import (
    CommandCancelledError,
    CommandFailedError,
    WorkerDiedError,
    WorkerProcess,
)
from pellucid.serving.records import FINISHED, JobRecord, Records, Task, Upload, new_id

MAX_ATTEMPTS = 2
"""A picture that ends two workers is not given to a third."""

INSPECT_S = 60.0
EXPIRE_EVERY_S = 5.0
WATCH_EVERY_S = 0.5
RECYCLE_SHARE = 0.6
"""A worker that still uses more than this share of its memory after a picture is replaced."""


@dataclass(order=True)
class _Waiting:
    """A picture in the queue."""

    created_s: float
    job: JobRecord = field(compare=False)
    number: int = field(compare=False)

    @property
    def task(self) -> Task:
        return self.job.tasks[self.number]


class Service:
    """All state of the service. Its methods run in the event loop and never block it for long."""

    def __init__(self, setup: Setup, limits: Limits) -> None:
        self.setup, self.limits = setup, limits
        self.records = Records(setup.data)
        self.monitor = Monitor()
        self.models: dict[str, dict[str, Any]] = {}
        self.is_ready = self.is_draining = False
        self.num_streams = 0
        self._queue: deque[_Waiting] = deque()
        self._news = asyncio.Condition()
        self._running: dict[str, dict[int, WorkerProcess]] = {}
        self._loading: set[str] = set()
        self._kept_bytes = 0
        options = {
            "device": setup.device,
            "backend": setup.backend,
            "precision": setup.precision,
            "max_pixels": limits.max_pixels,
        }
        temporary = self.records.temporary
        self._workers = [
            WorkerProcess(f"worker {i}", options | {"memory_bytes": limits.worker_bytes}, temporary / f"worker{i}")
            for i in range(1, limits.workers + 1)
        ]
        inspecting = options | {"memory_bytes": INSPECTOR_BYTES}
        self._inspector = WorkerProcess("inspector", inspecting, temporary / "inspector")
        self._inspecting = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    # Life

    async def start(self) -> None:
        """Start the processes and continue unfinished jobs. Raises PellucidError for models that do not exist."""
        found = {model["name"]: model for model in await self._inspect("list_models")}
        missing = [name for name in self.setup.models if name not in found]
        if missing:
            raise PellucidError(f"no model {missing[0]!r}; {suggest(missing[0], found)}")
        self.models = {name: found[name] for name in self.setup.models or found}
        for job in sorted(self.records.jobs.values(), key=lambda job: job.created_s):
            for number, task in enumerate(job.tasks):
                if task.state == "queued":
                    self._queue.append(_Waiting(job.created_s, job, number))
        self._kept_bytes = self.records.kept_bytes()
        self._tasks = [asyncio.create_task(self._work(worker)) for worker in self._workers]
        self._tasks += [asyncio.create_task(self._expire()), asyncio.create_task(self._watch())]
        self.is_ready = True

    async def drain(self) -> None:
        """Accept no work, and wait for what is running. Waiting jobs stay in the records for the next start."""
        self.is_draining = True
        await self.announce()
        end = time.monotonic() + self.limits.drain_s
        while self._running and time.monotonic() < end:
            await asyncio.sleep(0.05)

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

    async def add_upload(self, content: Path, name: str, client: str, *, with_advice: bool) -> Upload:
        """Take over a complete file, and read its header; to advise, its samples too.

        Raises Problem if it is not a picture.
        """
        suffix = _safe_suffix(name)
        upload = Upload(new_id(), _safe_name(name), client, time.time(), content.stat().st_size, suffix)
        self.records.add_upload(upload, content)
        try:
            upload.about = await self._inspect(
                "inspect", source=self.records.upload_path(upload), name=upload.name, with_advice=with_advice
            )
        except CommandFailedError as error:
            self.records.remove_upload(upload)
            raise _problem_of(error) from None
        except WorkerDiedError as error:
            self.records.remove_upload(upload)
            reason = f"reading the header of {upload.name} ended a process ({error.reason})"
            raise Problem(422, "the picture cannot be read", reason) from None
        except BaseException:
            self.records.remove_upload(upload)
            raise
        self.records.save_upload(upload)
        self._kept_bytes += upload.num_bytes
        return upload

    def find_upload(self, upload_id: str) -> Upload:
        """Raises Problem 404."""
        upload = self.records.uploads.get(upload_id)
        if upload is None:
            raise Problem(404, "no such picture", "it never existed, or was not kept any longer")
        return upload

    async def draw_view(
        self, source: Path, name: str, box: tuple[int, int, int, int] | None, longest_px: int
    ) -> tuple[bytes, dict[str, Any]]:
        """A part of a picture as PNG, and the size of the whole."""
        target = self.records.temporary / f"{secrets.token_hex(8)}.png"
        try:
            size = await self._inspect(
                "view", source=source, target=str(target), name=name, box=box, longest_px=longest_px
            )
            return target.read_bytes(), size
        except CommandFailedError as error:
            raise _problem_of(error) from None
        except WorkerDiedError as error:
            raise Problem(422, "the picture cannot be shown", error.reason) from None
        finally:
            target.unlink(missing_ok=True)

    async def _inspect(self, do: str, source: Path | None = None, **content: Any) -> Any:
        given = content if source is None else content | {"source": str(source)}
        async with self._inspecting:
            result = await self._inspector.call(do, limit_s=INSPECT_S, **given)
            if self._inspector.rss_bytes > INSPECTOR_BYTES:
                await self._inspector.stop()
            return result

    # Jobs

    def check_accepts_work(self, client: str, num_new: int = 1) -> None:
        """Raises Problem 503 while starting or draining, and 429 if the queue or the client's share is full."""
        if not self.is_ready or self.is_draining:
            raise Problem(503, "not ready", "the service is starting or stopping", retry_after_s=5)
        if len(self._queue) + num_new > self.limits.max_queue:
            raise Problem(
                429, "the queue is full", f"{len(self._queue)} pictures are waiting", retry_after_s=self._wait_s()
            )
        own = sum(
            task.state not in FINISHED
            for job in self.records.jobs.values()
            if job.client == client
            for task in job.tasks
        )
        if own + num_new > self.limits.max_jobs_per_client:
            raise Problem(
                429, "too many jobs", f"{own} of your pictures are unfinished", retry_after_s=self._wait_s()
            )

    def check_model(self, model: str) -> int:
        """The factor of enlargement of a model or a chain, e.g. a+b. Raises Problem 400 if one is not served."""
        scale = 1
        for name in model.split("+"):
            if name not in self.models:
                raise Problem(400, "no such model", f"no model {name[:80]!r}; {suggest(name[:80], self.models)}")
            scale *= int(self.models[name]["scale"])
        return scale

    async def add_job(
        self,
        uploads: list[Upload],
        model: str,
        options: dict[str, Any],
        client: str,
        *,
        is_kept: bool,
        owns_uploads: bool,
    ) -> JobRecord:
        """Queue a job. is_kept, owns_uploads: see `JobRecord`. Raises the Problems of `check_accepts_work`."""
        try:
            self.check_model(model)
            self.check_accepts_work(client, len(uploads))
        except Problem:
            for upload in uploads if owns_uploads else ():
                self.records.remove_upload(upload)
            raise
        tasks = [Task(upload.id, upload.name, int(upload.about["pixels"])) for upload in uploads]
        job = JobRecord(new_id(), client, model, options, tasks, is_kept=is_kept, owns_uploads=owns_uploads)
        self.records.save_job(job)
        self._queue.extend(_Waiting(job.created_s, job, number) for number in range(len(tasks)))
        await self.announce()
        return job

    def find_job(self, job_id: str) -> JobRecord:
        """Raises Problem 404."""
        job = self.records.jobs.get(job_id)
        if job is None:
            raise Problem(404, "no such job", "it never existed, or was not kept any longer")
        return job

    def queue_position(self, job: JobRecord) -> int | None:
        """How many pictures are before the first waiting one of this job; None if none waits."""
        return next((i for i, waiting in enumerate(self._queue) if waiting.job is job), None)

    async def cancel(self, job: JobRecord) -> None:
        """Stop all that is unfinished of a job, within a second."""
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
        self._kept_bytes -= self.records.result_bytes(job)
        self.records.remove_job(job)

    async def follow(self, job: JobRecord) -> AsyncIterator[JobRecord]:
        """The job at once, after each change, and the last time when it is finished or the service drains."""
        while True:
            yield job
            if job.state in FINISHED or self.is_draining:
                return
            before = (job.state, job.progress)
            async with self._news:
                while (job.state, job.progress) == before and not self.is_draining:
                    await self._news.wait()

    async def wait(self, job: JobRecord) -> None:
        """Until a job is finished."""
        async with self._news:
            await self._news.wait_for(lambda: job.state in FINISHED)

    async def announce(self) -> None:
        """Wake everybody who waits for news."""
        async with self._news:
            self._news.notify_all()

    # Work

    async def _work(self, worker: WorkerProcess) -> None:
        """One worker's loop: start, take a picture, restore it, and replace the process when necessary."""
        while True:
            try:
                await worker.start()
                await worker.call("warm_up", limit_s=120)
            except (WorkerDiedError, CommandFailedError):
                self.monitor.restarts.inc()
                await asyncio.sleep(1.0)
                continue
            while (waiting := await self._take(worker)) is not None:
                await self._restore(worker, waiting)
                if worker.rss_bytes > RECYCLE_SHARE * self.limits.worker_bytes:
                    await worker.stop()
            self.monitor.restarts.inc()

    async def _take(self, worker: WorkerProcess) -> _Waiting | None:
        """The next picture for a worker: one for a model that it has loaded, or the first in the queue.

        Only the first few are looked at, so that none waits for long. A model that another worker is loading is
        left to it. None if the process ended.
        """
        async with self._news:
            while worker.is_alive:
                chosen = None if self.is_draining else self._choose(worker)
                if chosen is not None:
                    self._queue.remove(chosen)
                    chosen.task.state = "running"
                    chosen.task.attempts += 1
                    self._running.setdefault(chosen.job.id, {})[chosen.number] = worker
                    return chosen
                await self._news.wait()
        return None

    def _choose(self, worker: WorkerProcess) -> _Waiting | None:
        near = [self._queue[i] for i in range(min(8, len(self._queue)))]
        loaded = (waiting for waiting in near if waiting.job.model in worker.models)
        others = (waiting for waiting in near if waiting.job.model not in self._loading)
        return next(loaded, None) or next(others, None)

    async def _restore(self, worker: WorkerProcess, waiting: _Waiting) -> None:
        job, task, number = waiting.job, waiting.task, waiting.number
        self.monitor.wait_s.observe(time.time() - job.created_s)
        is_loading = job.model not in worker.models
        if is_loading:
            self._loading.add(job.model)
        start = time.monotonic()
        folder = self.records.result_folder(job, number)
        try:
            self.records.save_job(job)
            folder.mkdir(parents=True, exist_ok=True)
            upload = self.records.uploads[task.upload]
            task.about = await worker.call(
                "restore",
                limit_s=self.limits.longest_s(task.pixels),
                progress=lambda done: self._advance(task, done),
                source=str(self.records.upload_path(upload)),
                folder=str(folder),
                name=task.name,
                model=job.model,
                options=job.options,
            )
        except CommandCancelledError:
            task.state = "cancelled"
        except CommandFailedError as error:
            task.state, task.error, task.error_kind = "failed", error.message, error.kind
        except WorkerDiedError as error:
            self._handle_death(waiting, error)
        except (OSError, KeyError) as error:
            task.state, task.error_kind = "failed", "fault"
            task.error = f"{task.name}: {getattr(error, 'strerror', None) or 'its upload is gone'}"
        else:
            task.state = "done"
            self._kept_bytes += self.records.result_path(job, number).stat().st_size
            self.monitor.count_restored(job.model, task.about["megapixels"], time.monotonic() - start)
        finally:
            if is_loading:
                self._loading.discard(job.model)
            running = self._running[job.id]
            del running[number]
            if not running:
                del self._running[job.id]
        await self._finish(job)

    def _handle_death(self, waiting: _Waiting, error: WorkerDiedError) -> None:
        task = waiting.task
        if task.attempts < MAX_ATTEMPTS and "needed more than" not in error.reason:
            task.state, task.progress = "queued", 0.0
            self._queue.appendleft(waiting)
            return
        task.state, task.error_kind = "failed", "fault"
        task.error = f"{task.name}: restoring it ended {task.attempts} worker processes ({error.reason})"

    def _advance(self, task: Task, done: float) -> None:
        task.progress = done
        _keep_alive.add(announcing := asyncio.ensure_future(self.announce()))
        announcing.add_done_callback(_keep_alive.discard)

    async def _finish(self, job: JobRecord) -> None:
        if job.state in FINISHED and job.finished_s is None:
            job.finished_s = time.time()
            for task in job.tasks if job.owns_uploads else ():
                if task.upload in self.records.uploads:
                    upload = self.records.uploads[task.upload]
                    self._kept_bytes -= upload.num_bytes
                    self.records.remove_upload(upload)
        if job.id in self.records.jobs:
            self.records.save_job(job)
        await self.announce()

    def _wait_s(self) -> int:
        """When there may be space in the queue: the time that a few pictures took on average."""
        return max(1, min(300, round(self.monitor.mean_s() * 2)))

    # Housekeeping

    async def _watch(self) -> None:
        """Kill processes that exceed their memory, and replace idle ones that ended."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            for worker in (*self._workers, self._inspector):
                if worker.is_alive and worker.pid is not None:
                    rss = _resident_bytes(worker.pid)
                    self.monitor.memory.labels(worker.name).set(rss)
                    if rss > worker.options["memory_bytes"] * 1.25:
                        await worker.stop()
            self.monitor.memory.labels("service").set(_resident_bytes(os.getpid()))
            self.monitor.queued.set(len(self._queue))
            await self.announce()

    async def _expire(self) -> None:
        """Delete what is old, and the oldest if the disk space is used up."""
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            oldest_s = time.time() - self.limits.keep_s
            finished = [job for job in self.records.jobs.values() if job.finished_s is not None and job.is_kept]
            for job in sorted(finished, key=lambda job: job.finished_s or 0):
                if (job.finished_s or 0) > oldest_s and self._kept_bytes <= self.limits.keep_bytes:
                    break
                self._kept_bytes -= self.records.result_bytes(job)
                self.records.remove_job(job)
            for upload in sorted(self.records.uploads.values(), key=lambda upload: upload.created_s):
                is_full = self._kept_bytes > self.limits.keep_bytes
                if (upload.created_s < oldest_s or is_full) and not self.records.is_used(upload):
                    self.records.remove_upload(upload)
                    self._kept_bytes -= upload.num_bytes


_keep_alive: set[asyncio.Future[None]] = set()
"""Otherwise a task may be collected before it runs."""


def _problem_of(error: CommandFailedError) -> Problem:
    if "not a file of a known picture format" in error.message:
        return Problem(400, "not a picture", error.message)
    if error.kind == "memory" or "megapixels; the limit is" in error.message:
        return Problem(413, "the picture is too large", error.message)
    if error.kind == "fault":
        return Problem(500, "a fault of pellucid", error.message)
    return Problem(422, "the picture cannot be read", error.message)


def _safe_suffix(name: str) -> str:
    """The suffix of a name if it is a short word; it decides which RAW formats are tried."""
    suffix = Path(name).suffix.lower()
    return suffix if 1 < len(suffix) <= 6 and suffix[1:].isascii() and suffix[1:].isalnum() else ""


def _safe_name(name: str) -> str:
    """A name for messages and downloads: without folders and control characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(char for char in last if char.isprintable())[:200] or "picture"


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0
