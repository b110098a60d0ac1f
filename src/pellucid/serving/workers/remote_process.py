"""A worker process on a cluster, seen from its own computer: starts it, and passes lines and files on."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import psutil

from pellucid.clusters.member import describe_versions
from pellucid.errors import ClusterError, PellucidError
from pellucid.serving.workers.worker_processes import own_bytes, resident_bytes, worker_command, worker_environment

POLL_S = 0.2
"""A call returns after this time at the latest, even without events: the next one can be a file, or the end."""

_PREFIX = "pellucid-serve-"


@dataclass(frozen=True)
class Opened:
    """A worker that has started.

    computer: its name. folder: for files that are sent. is_shared: whether it can write to the service's folder.
    """

    computer: str
    folder: Path
    is_shared: bool


@dataclass(frozen=True)
class Reply:
    """What has happened since the last call.

    lines: events of the worker. exit_code: None while it runs. used_bytes, own_bytes: its memory, see
        `WorkerProcess.measure_memory`.
    """

    lines: list[str]
    exit_code: int | None
    used_bytes: int
    own_bytes: int


class RemoteProcess:
    """The class of the Ray actor. Ray runs its calls one at a time, and each returns quickly."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._folder: Path | None = None

    def open(self, versions: str, options: dict[str, Any], marker: Path) -> Opened | PellucidError:
        """Start the worker. Returns the error if that fails.

        versions: those of the service. marker: a file in the service's folder.
        """
        if versions != describe_versions():
            return ClusterError(f"{platform.node()} has {describe_versions()}, but the service {versions}")
        try:
            _remove_left_over()
            self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
            temporary = self._folder / "temporary"
            temporary.mkdir()
            self._process = subprocess.Popen(
                worker_command(options),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                env=worker_environment(temporary),
                start_new_session=True,
            )
        except OSError as error:
            return ClusterError(f"{platform.node()} cannot start a worker: {error.strerror or error}")
        Thread(target=self._read, daemon=True).start()
        return Opened(platform.node(), self._folder, _can_write(marker))

    def exchange(self, lines: Sequence[str]) -> Reply:
        """Pass commands to the worker, and return its events. Waits, up to POLL_S, until there is one."""
        assert self._process is not None and self._process.stdin is not None
        with suppress(OSError, ValueError):  # it has ended: the reply says so
            for line in lines:
                self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        found, exit_code = list[str](), None
        with suppress(Empty):
            line_or_end = self._lines.get(timeout=POLL_S)
            while line_or_end is not None:
                found.append(line_or_end)
                line_or_end = self._lines.get_nowait()
            exit_code = self._process.wait()
        pid = self._process.pid
        return Reply(found, exit_code, resident_bytes(pid), own_bytes(pid))

    def put_piece(self, name: str, piece: bytes) -> str | None:
        """Add a piece to a file. Returns the reason if that fails, e.g. on a full disk."""
        assert self._folder is not None
        try:
            with (self._folder / name).open("ab") as file:
                file.write(piece)
        except OSError as error:
            return error.strerror or str(error)
        return None

    def get_piece(self, name: str, start: int, num_bytes: int) -> bytes:
        """A piece of a file; fewer bytes at its end, and none after it."""
        assert self._folder is not None
        with (self._folder / name).open("rb") as file:
            file.seek(start)
            return file.read(num_bytes)

    def remove_files(self) -> None:
        """Delete the files of the last command."""
        assert self._folder is not None
        for path in self._folder.iterdir():
            if path.name == "temporary":
                continue
            if path.is_dir():  # finished tiles of a picture that was canceled
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def end(self) -> None:
        """End the worker, and delete its files."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def pid(self) -> int:
        """The id of the worker on its computer."""
        assert self._process is not None
        return self._process.pid

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        with suppress(ValueError):  # not text: the end of the process, too
            for line in self._process.stdout:
                self._lines.put(line)
        self._process.kill()
        self._lines.put(None)


def _can_write(marker: Path) -> bool:
    """Whether this process can use the folder of the service: it contains the marker, and can be written to."""
    try:
        return marker.exists() and os.access(marker.parent, os.W_OK)
    except OSError:  # of a folder of another user
        return False


def _remove_left_over() -> None:
    """Delete the folders of processes that were killed before they could do it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        number = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)
