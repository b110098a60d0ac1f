"""Batches: folders and buckets that `pellucid restore` restores in a process of its own, one after the other.

What is done is in the folder of results: a batch that runs again, e.g. after a restart of the service, skips it.
"""

import asyncio
import contextlib
import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from typing import Any

from pellucid.errors import ArgumentError, OutputError
from pellucid.serving.limits import Limits, Setup
from pellucid.serving.monitoring import Monitor, log
from pellucid.serving.problems import Problem
from pellucid.serving.records import FINISHED, BatchRecord, Records, new_id
from pellucid.serving.workers.batch_program import END_S
from pellucid.serving.workers.worker_processes import own_bytes, resident_bytes, worker_environment

MAX_ATTEMPTS = 3
"""A batch is given up after its process, or the whole service, has ended this often without a new result."""

MAX_LINES = 1000
"""How many failures are kept, and how many warnings. All are in the report."""

STATUS_EVERY_S = 1.0
WATCH_EVERY_S = 0.5
_MAX_LINE_BYTES = 2**24
_MAX_CHARACTERS = 2000
_EXIT_CODES = (0, 1, 2)  # of a command that has done all it can; others mean that it was ended


class BatchQueue:
    """The queue of batches, and the process of the one that runs. Its methods run in the event loop."""

    def __init__(self, setup: Setup, limits: Limits, records: Records, monitor: Monitor) -> None:
        self._setup, self._limits, self._records, self._monitor = setup, limits, records, monitor
        self.places = setup.make_places()
        self._is_draining = False
        self._added = asyncio.Event()
        self._running: BatchRecord | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ending: asyncio.Task[None] | None = None
        self._death: str | None = None

    @property
    def is_running(self) -> bool:
        return self._running is not None

    def check_enabled(self) -> None:
        """Raises Problem 403 if the operator has allowed no place."""
        if not self.places:
            raise Problem(
                403, "no batches", "this service has no batches; its operator enables them by --allow-urls"
            )

    def list_batches(self) -> list[BatchRecord]:
        """All batches, the newest first."""
        return sorted(self._records.batches.values(), key=lambda batch: -batch.created_s)

    def find(self, batch_id: str) -> BatchRecord:
        """Raises Problem 404."""
        batch = self._records.batches.get(batch_id)
        if batch is None:
            raise Problem(404, "no such batch", "it never existed, or has expired")
        return batch

    def queue_position(self, batch: BatchRecord) -> int | None:
        """How many batches run before this one; None if it does not wait."""
        if batch.state != "queued":
            return None
        waiting = self._list_waiting()
        return (waiting.index(batch) if batch in waiting else 0) + self.is_running

    def add(self, source: str, out: str, model: str, options: dict[str, Any], client: str) -> BatchRecord:
        """Queue a batch. Raises Problem 400 or 403 for places, and 429 if the queue is full."""
        try:
            places = (self.places.check_input(source), self.places.check_results(out))
        except ArgumentError as error:
            raise Problem(400, "an option that is not possible", error.describe(lambda name, _: name)) from None
        except OutputError as error:
            raise Problem(403, "not allowed", str(error)) from None
        num_unfinished = sum(batch.state not in FINISHED for batch in self._records.batches.values())
        if num_unfinished >= self._limits.max_batches:
            raise Problem(429, "the queue is full", f"{num_unfinished} batches are unfinished", retry_after_s=300)
        batch = BatchRecord(new_id(), client, *places, model, options)
        self._records.save_batch(batch)
        self._added.set()
        return batch

    def cancel(self, batch: BatchRecord) -> None:
        """Cancel a batch. One that runs finishes its pictures in progress first; finished results stay."""
        if batch.state in FINISHED:
            return
        batch.is_cancelled = True
        if batch is self._running:
            self._end_soon()
        else:
            self._finish(batch, "cancelled")
        self._save(batch)

    async def run(self) -> None:
        """Run batches until the service stops."""
        while True:
            self._added.clear()
            waiting = self._list_waiting()
            if waiting and not self._is_draining:
                await self._run(waiting[0])
            else:
                await self._added.wait()

    def drain(self) -> None:
        """Start no more batches. The one that runs finishes its pictures in progress, and waits for a restart."""
        self._is_draining = True
        self._end_soon()

    def _list_waiting(self) -> list[BatchRecord]:
        waiting = (batch for batch in self._records.batches.values() if batch.state == "queued")
        return sorted(waiting, key=lambda batch: batch.created_s)

    # The process

    async def _run(self, batch: BatchRecord) -> None:
        """One run of a batch, from its start to the end of its process."""
        if batch.attempts >= MAX_ATTEMPTS:
            self._give_up(batch, "the whole service")
            return
        batch.reset()
        batch.state, batch.attempts = "running", batch.attempts + 1
        batch.started_s = batch.started_s or time.time()
        self._save(batch)
        self._running, self._death = batch, None
        try:
            self._check_again(batch)
            code = await self._call(batch)
        except asyncio.CancelledError:  # the service stops; the batch is not the cause
            batch.state, batch.attempts = "queued", max(0, batch.attempts - 1)
            raise
        except Exception as error:  # of one batch: the queue continues
            log(level="error", batch=batch.id, error=f"{type(error).__name__}: {error}")
            self._add_failure(batch, getattr(error, "strerror", None) or str(error))
            self._finish(batch, "failed")
        else:
            self._settle(batch, code)
        finally:
            self._running = None
            self._save(batch)

    def _settle(self, batch: BatchRecord, code: int) -> None:
        """The state after the end of a process. code: its exit code, or minus the number of a signal."""
        with contextlib.suppress(OSError):
            batch.report_bytes = self._records.report_path(batch).stat().st_size
        if code in _EXIT_CODES:
            if code != 0 and not batch.failures:
                self._add_failure(batch, f"the process ended with exit code {code}")
            self._finish(batch, "done" if code == 0 else "failed")
        elif batch.is_cancelled:
            self._finish(batch, "cancelled")
        elif self._is_draining and self._death is None:
            batch.state, batch.attempts = "queued", max(0, batch.attempts - 1)
        else:
            reason = self._death or (f"signal {-code}" if code < 0 else f"exit code {code}")
            log(level="error", batch=batch.id, attempt=batch.attempts, error=reason)
            batch.state = "queued"
            if batch.attempts >= MAX_ATTEMPTS:
                self._give_up(batch, reason)

    def _give_up(self, batch: BatchRecord, reason: str) -> None:
        last = "" if batch.picture is None else f", near {batch.picture}"
        ended = f"its process ended {batch.attempts} times without a new result ({reason}{last})"
        self._add_failure(batch, f"{ended}; finished results stay, and the same request resumes")
        self._finish(batch, "failed")
        self._save(batch)

    def _check_again(self, batch: BatchRecord) -> None:
        """Raises an error if a place is not allowed any more: links or options of the service may have changed."""
        if (
            self.places.check_input(batch.source) != batch.source
            or self.places.check_results(batch.out) != batch.out
        ):
            raise OutputError(f"{batch.source} or {batch.out} is another place since the request")

    async def _call(self, batch: BatchRecord) -> int:
        """Start the process, follow it, and return its exit code."""
        report, folder = self._records.report_path(batch), self._records.temporary / "batch"
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)  # of a process that was killed
        folder.mkdir(parents=True, exist_ok=True)
        report.parent.mkdir(exist_ok=True)
        report.unlink(missing_ok=True)
        self._process = process = await asyncio.create_subprocess_exec(
            *batch_command(),
            *self._make_arguments(batch),
            stdin=asyncio.subprocess.PIPE,  # it ends with the service
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=worker_environment(folder) | {"PELLUCID_STATUS_EVERY": str(STATUS_EVERY_S)},
            start_new_session=True,  # Ctrl-C reaches the service only
            limit=_MAX_LINE_BYTES,
        )
        watching = asyncio.create_task(self._watch(process))
        try:
            if batch.is_cancelled or self._is_draining:  # while it started
                self._end_soon()
            await self._follow(batch, process)
            return await process.wait()
        finally:
            watching.cancel()
            if self._ending is not None:
                self._ending.cancel()
            _kill(process)
            await process.wait()
            self._process = self._ending = None
            self._monitor.memory.labels("batch").set(0)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _make_arguments(self, batch: BatchRecord) -> Iterator[str]:
        """Of the command line. Values of clients are never arguments of their own, except after --."""
        setup = self._setup
        yield from ("restore", f"--out={batch.out}", f"--model={batch.model}", "--log-format=json")
        yield f"--json={self._records.report_path(batch)}"
        yield f"--memory={self._limits.batch_bytes // 10**6}MB"
        yield f"--max-pixels={self._limits.max_pixels}"
        yield f"--device={setup.device}"
        for name, value in (("backend", setup.backend), ("precision", setup.precision), *batch.options.items()):
            option = f"--{name.replace('_', '-')}"
            for one in value if isinstance(value, list) else [value]:
                if one is True:
                    yield option
                elif one not in (None, False):
                    yield f"{option}={one}"
        yield from ("--", batch.source)

    async def _follow(self, batch: BatchRecord, process: asyncio.subprocess.Process) -> None:
        """Read what the process reports until its end."""
        assert process.stderr is not None
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:  # longer than the limit: dropped
                continue
            if not line:
                return
            try:
                message = json.loads(line)
                level, text = message["level"], str(message["message"])
            except (ValueError, TypeError, KeyError):  # of a library
                log(level="warning", batch=batch.id, message=line[:500].decode(errors="replace").strip())
                continue
            if level == "error":
                self._add_failure(batch, text)
            elif level == "warning" and len(batch.warnings) < MAX_LINES:
                batch.warnings.append(_clean(text))
            elif isinstance(message.get("progress"), dict):
                self._count(batch, message["progress"])

    def _count(self, batch: BatchRecord, progress: dict[str, Any]) -> None:
        """Take over the numbers of a run. The first new result is recorded: the next attempt has a new chance."""
        for failure in progress.pop("failures"):
            self._add_failure(batch, failure)
        for name, value in progress.items():
            if hasattr(batch, name):
                setattr(batch, name, _clean(value) if isinstance(value, str) else value)
        if batch.num_restored and batch.attempts:
            batch.attempts = 0
            self._save(batch)

    def _add_failure(self, batch: BatchRecord, text: str) -> None:
        """Keep one line; the program prints failures of pictures a second time at its end."""
        line = _clean(text)
        if len(batch.failures) < MAX_LINES and line not in batch.failures:
            batch.failures.append(line)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Kill the process if it exceeds its memory limit, as a worker."""
        limit = self._limits.batch_bytes * 1.25
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            self._monitor.memory.labels("batch").set(resident_bytes(process.pid))
            used = own_bytes(process.pid)
            if used > limit:
                self._death = f"used {used / 1e6:.0f} MB of memory; the limit is {limit / 1e6:.0f} MB"
                _kill(process)

    def _end_soon(self) -> None:
        """Ask the process to finish its pictures in progress, and kill it if that takes too long."""
        if self._process is not None and self._ending is None:
            self._ending = asyncio.create_task(_end(self._process))

    # Records

    def _finish(self, batch: BatchRecord, state: Any) -> None:
        batch.state, batch.finished_s, batch.left_s, batch.picture = state, time.time(), None, None

    def _save(self, batch: BatchRecord) -> None:
        """Record a change. If that is impossible, e.g. on a full disk, the batch still runs."""
        if batch.id not in self._records.batches:
            return
        try:
            self._records.save_batch(batch)
        except sqlite3.Error as error:
            log(level="error", batch=batch.id, error=f"its state cannot be recorded: {error}")


def batch_command() -> list[str]:
    """Starts the command line of pellucid as a process of the service; its arguments follow."""
    return [sys.executable, "-P", "-m", "pellucid.serving.workers.batch_program"]


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    await asyncio.sleep(END_S)
    _kill(process)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def _clean(text: str) -> str:
    """One line of valid Unicode: names of files can contain other bytes."""
    line = " ".join(text.split())[:_MAX_CHARACTERS]
    return line.encode(errors="backslashreplace").decode()
