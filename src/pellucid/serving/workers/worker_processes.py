"""Worker processes from the side of the service: starting, calling, cancelling and replacing them."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

import psutil

START_S = 120.0
CANCEL_S = 0.8
"""How long a worker may take to stop a picture; after that, it is killed, so that it stops within a second."""

_MAX_LINE_BYTES = 2**24


Cause = Literal["crash", "time", "memory"]


class WorkerDiedError(Exception):
    """A process ended in the middle of a command. reason: in words. cause: or which limit it exceeded."""

    def __init__(self, reason: str, cause: Cause = "crash") -> None:
        super().__init__(reason)
        self.reason, self.cause = reason, cause


class CommandFailedError(Exception):
    """A command failed, and its process is well. kind: see `worker`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


class CommandCancelledError(Exception):
    """A command was cancelled by its owner."""


@dataclass
class WorkerProcess:
    """One process, or none between two of them. It runs one command at a time.

    options: see `worker.Worker`. folder: for temporary files, e.g. of large pictures.
    """

    name: str
    options: dict[str, Any]
    folder: Path
    models: list[str] = field(default_factory=list)
    rss_bytes: int = 0
    num_starts: int = 0
    _process: asyncio.subprocess.Process | None = None
    _numbers: Any = field(default_factory=count)
    _running: int | None = None
    _cancelling: bool = False
    _death: WorkerDiedError | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return None if self._process is None else self._process.pid

    @property
    def start_limit_s(self) -> float:
        """How long the process may take until it is ready."""
        return START_S

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start a process, if none is running, and wait until it is ready. Raises WorkerDiedError."""
        if self.is_alive:
            return
        self.num_starts += 1
        self.models, self._death = [], None
        try:
            async with asyncio.timeout(self.start_limit_s):
                await self._create()
                await self._read_event()
        except TimeoutError:
            await self.stop()
            raise WorkerDiedError("did not start") from None
        except OSError as error:  # e.g. no more processes or descriptors, or a full disk
            raise WorkerDiedError(f"could not be started: {error.strerror or error}") from None

    async def _create(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)  # of a process that was killed
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *worker_command(self.options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=worker_environment(self.folder),
            start_new_session=True,  # Ctrl-C reaches the service only
            limit=_MAX_LINE_BYTES,
        )

    async def call(
        self,
        do: str,
        *,
        limit_s: float,
        progress: Callable[[float], None] | None = None,
        **content: Any,
    ) -> Any:
        """Run one command and return its result.

        limit_s: after this time the process is killed. Raises WorkerDiedError, CommandFailedError or
        CommandCancelledError.
        """
        self._running, self._cancelling = next(self._numbers), False
        try:
            await self.start()
            if self._cancelling:
                raise CommandCancelledError
            async with asyncio.timeout(limit_s):
                return await self._run({"do": do, "id": self._running, **content}, progress)
        except WorkerDiedError:
            if self._cancelling:
                raise CommandCancelledError from None
            raise
        except TimeoutError:
            await self.stop()
            raise WorkerDiedError(f"needed more than {limit_s:.0f} s", "time") from None
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            self._running = None

    async def _run(self, command: dict[str, Any], progress: Callable[[float], None] | None) -> Any:
        """Send a command, and return its result when there is one."""
        self._send(command)
        while True:
            event = await self._read_event()
            if event.get("id") != command["id"]:
                continue
            if event["event"] == "progress":
                if progress is not None:
                    progress(event["done"])
                continue
            self.rss_bytes, self.models = event["rss_bytes"], event["models"]
            if not event["is_sound"]:
                await self.stop()
            if event["event"] == "done":
                return event["result"]
            if event["event"] == "cancelled":
                raise CommandCancelledError
            raise CommandFailedError(event["kind"], event["message"])

    async def cancel(self) -> None:
        """Stop the running command, or the start of its process; kill the process if it does not stop soon."""
        number = self._running
        if number is None or self._cancelling:
            return
        self._cancelling = True
        if self.is_alive:
            self._send({"do": "cancel", "id": number})
        end = time.monotonic() + CANCEL_S
        while self._running == number:
            if time.monotonic() > end:
                self.kill("did not stop")
                break
            await asyncio.sleep(0.02)

    def kill(self, reason: str, cause: Cause = "crash") -> None:
        """End the process without waiting for it; a running command raises WorkerDiedError with the reason."""
        self._death = WorkerDiedError(reason, cause)
        self._kill()

    async def stop(self) -> None:
        """End the process now, and wait for its end."""
        self._kill()
        if self._process is not None:
            await self._process.wait()
        self._process, self.models = None, []

    def measure_memory(self) -> tuple[int, int]:
        """(resident memory, memory without pages of files) of the process in bytes; 0 if it is not running."""
        pid = self.pid
        return (0, 0) if pid is None or not self.is_alive else (resident_bytes(pid), own_bytes(pid))

    def _kill(self) -> None:
        if self.is_alive:
            assert self._process is not None
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):  # died: reading reports it
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _read_event(self) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdout is not None
        try:
            line = await process.stdout.readline()
            if line.endswith(b"\n"):
                return json.loads(line)
        except ValueError:  # too long, or not JSON
            self.kill("its answer cannot be read")
        code = await process.wait()
        self._process, self.models = None, []
        raise self._death or WorkerDiedError(f"signal {-code}" if code < 0 else f"exit status {code}")


def worker_command(options: dict[str, Any]) -> list[str]:
    """Starts a worker. options: see `worker.Worker`."""
    return [sys.executable, "-P", "-m", "pellucid.serving.workers.worker", json.dumps(options)]


def worker_environment(folder: Path) -> dict[str, str]:
    """The environment of a worker. folder: for its temporary files."""
    return os.environ | {"TMPDIR": str(folder), "VIPS_BLOCK_UNTRUSTED": "1"}


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 if it has ended."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def own_bytes(pid: int) -> int:
    """Memory of a process, without pages of files, e.g. of decoded pictures, which the system frees on demand."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return sum(int(status[key].split()[0]) * 1024 for key in ("RssAnon", "RssShmem"))
    except (OSError, KeyError, ValueError):  # it has just ended, or not Linux
        return resident_bytes(pid)
