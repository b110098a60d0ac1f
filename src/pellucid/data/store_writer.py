"""Making a store: arrays are appended as they come, and noted; the index comes last.

What is noted survives `kill -9` and a power failure: samples are on the disk before the note is. Whoever begins
again with the same request goes on from there.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from filelock import lock_descriptor

from pellucid.data import store
from pellucid.data.store import FORMAT, INDEX, SOURCES, VERSION, Array, Item, Kind, Store
from pellucid.errors import OutputError
from pellucid.pictures.picture import Samples
from pellucid.system.files import write_atomic

SHARD_BYTES = 2**31
"""A file of samples is full at this size; a larger array has one of its own."""

SYNC_S = 2.0
"""How much work a kill may cost, in seconds: notes wait so long for their samples to reach the disk."""

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a source file was when it was decoded."""

    num_bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Noted:
    """One array in the making of a store: what it came from, where it lies, and what was changed on the way."""

    stamp: Stamp
    array: Array
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    """An item before its arrays have numbers: they go by the keys they were put under."""

    name: str
    target: str
    degraded: str | None = None
    exposure_ratio: float | None = None
    misaligned: bool = False


class StoreWriter:
    """A store in the making. Several threads may `put`; one process at a time may write.

    request: what the store is to hold, JSON; another request never goes on with what is there.
    wait: for another process to finish, where one writes; else that is an error.
    Raises OutputError when the folder holds something else, or a store of another request.
    """

    def __init__(
        self, folder: Path, request: Mapping[str, Any], *, overwrite: bool = False, wait: bool = False
    ) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._synced_at = time.monotonic()
        self._samples: IO[bytes] | None = None
        try:
            _check_ours(folder)
            folder.mkdir(parents=True, exist_ok=True)
            self._notes = (folder / SOURCES).open("a+b")
        except OSError as error:
            raise _cannot(folder, error) from error
        try:
            _lock_file(self._notes, folder, wait=wait)
            if overwrite:
                _erase(self._notes, folder)
            self.noted = _read_notes(self._notes, folder, request)
        except BaseException:
            self._notes.close()
            raise
        ends = [(noted.array.shard, noted.array.offset + noted.array.num_bytes) for noted in self.noted.values()]
        self._shard, self._end = max(ends, default=(0, 0))

    @property
    def is_finished(self) -> bool:
        return (self.folder / INDEX).exists()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        try:
            self._sync()
        except OSError as failure:
            if error is None:
                raise _cannot(self.folder, failure) from failure
        finally:
            self._notes.close()
            if self._samples is not None:
                self._samples.close()

    def put(
        self,
        key: str,
        stamp: Stamp,
        samples: Samples,
        *,
        facts: Mapping[str, Any] | None = None,
        changes: Sequence[str] = (),
    ) -> None:
        """Append an array under a key, replacing what was noted under it. Raises OutputError on a full disk."""
        content = np.ascontiguousarray(samples.astype(store.DTYPES[samples.dtype.name], copy=False))
        sha256 = store.digest(content)
        with self._lock:
            try:
                shard, offset = self._append(content)
                array = Array(shard, offset, content.dtype.name, content.shape, sha256, facts)
                self.noted[key] = Noted(stamp, array, tuple(changes))
                self._waiting.append(_note(key, self.noted[key]))
                if time.monotonic() - self._synced_at >= SYNC_S:
                    self._sync()
            except OSError as error:
                raise _cannot(self.folder, error) from error

    def finish(self, kind: Kind, items: Sequence[Planned], left_out: Sequence[tuple[str, str]]) -> Store:
        """Write the index: the store is whole from now on. left_out: names, each with the reason."""
        keys = dict.fromkeys(key for item in items for key in (item.target, item.degraded) if key is not None)
        number = {key: i for i, key in enumerate(keys)}
        arrays = [self.noted[key].array for key in keys]
        rows = [
            Item(
                item.name,
                number[item.target],
                None if item.degraded is None else number[item.degraded],
                item.exposure_ratio,
                item.misaligned,
            ).to_json()
            for item in items
        ]
        try:
            self._sync()
            shards = [store.shard_path(self.folder, i).stat().st_size for i in range(self._shard + 1)]
        except OSError as error:
            raise _cannot(self.folder, error) from error
        index = {"format": FORMAT, "version": VERSION, "kind": kind, "shards": shards}
        index |= {"arrays": [array.to_json() for array in arrays], "items": rows, "left_out": list(left_out)}
        write_atomic(self.folder / INDEX, _rows_on_lines(index).encode(), overwrite=False)
        return store.open(self.folder)

    def _append(self, content: Samples) -> tuple[int, int]:
        offset = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        if offset and offset + content.nbytes > SHARD_BYTES:
            self._sync()
            self._close_samples()
            self._shard, offset = self._shard + 1, 0
        file = self._open_samples()
        file.seek(offset)
        try:
            _write_all(file, content)
        except OSError:
            file.truncate(self._end)  # room on a full disk for the notes of what is done
            raise
        self._end = offset + content.nbytes
        return self._shard, offset

    def _open_samples(self) -> IO[bytes]:
        if self._samples is None:
            path = store.shard_path(self.folder, self._shard)
            path.touch()
            self._samples = path.open("r+b", buffering=0)
            self._samples.truncate(self._end)
        return self._samples

    def _close_samples(self) -> None:
        if self._samples is not None:
            self._samples.close()
        self._samples = None
        self._end = 0

    def _sync(self) -> None:
        if self._waiting and self._samples is not None:
            os.fsync(self._samples.fileno())
        self._notes.write("".join(self._waiting).encode())
        self._notes.flush()
        os.fsync(self._notes.fileno())
        self._waiting.clear()
        self._synced_at = time.monotonic()


def _write_all(file: IO[bytes], content: Samples) -> None:
    """A disk that is nearly full, and arrays of more than 2 GB, are written in parts."""
    left = memoryview(content.data).cast("B")
    while left:
        left = left[file.write(left) :]


def is_unfinished(folder: Path) -> bool:
    return (folder / SOURCES).exists() and not (folder / INDEX).exists()


def _check_ours(folder: Path) -> None:
    ours = (folder / INDEX).exists() or (folder / SOURCES).exists()
    if not ours and folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} holds something else than a store; give --out a new or empty folder")


def _erase(notes: IO[bytes], folder: Path) -> None:
    """The index goes first, so that a kill leaves an unfinished store and no damaged one."""
    (folder / INDEX).unlink(missing_ok=True)
    notes.truncate(0)
    for path in folder.glob("samples-*.bin"):
        path.unlink()


def _lock_file(file: IO[bytes], folder: Path, *, wait: bool) -> None:
    """Let one process write at a time. The operating system releases the lock when the process ends."""
    try:
        is_locked = lock_descriptor(file.fileno(), blocking=wait)
    except OSError:  # some network shares have no locks
        return
    if not is_locked:
        raise OutputError(f"{folder} is being written by another process", hint="wait for it")


def _read_notes(file: IO[bytes], folder: Path, request: Mapping[str, Any]) -> dict[str, Noted]:
    """What was noted, up to a line that a kill cut short, which is cut off."""
    header = json.dumps({"format": FORMAT, "version": VERSION, "request": request}, sort_keys=True)
    file.seek(0)
    first = file.readline()
    if not first.endswith(b"\n"):
        file.truncate(0)
        file.write(f"{header}\n".encode())
        file.flush()
        return {}
    if first.decode(errors="replace").rstrip("\n") != header:
        raise OutputError(
            f"{folder} was made with other settings or by another version; "
            f"choose another --out, or --overwrite to make it anew"
        )
    noted = {}
    whole = len(first)
    for key, entry, num_bytes in _notes_in(file):
        whole += num_bytes
        if _has_samples(folder, entry.array):
            noted[key] = entry
    file.truncate(whole)
    return noted


def _notes_in(file: IO[bytes]) -> Iterator[tuple[str, Noted, int]]:
    for line in file:
        try:
            key, stamp, array, changes = json.loads(line)
            yield key, Noted(Stamp(**stamp), Array.from_json(array), tuple(changes)), len(line)
        except (ValueError, TypeError):
            return


def _note(key: str, noted: Noted) -> str:
    return json.dumps([key, asdict(noted.stamp), noted.array.to_json(), list(noted.changes)]) + "\n"


def _has_samples(folder: Path, array: Array) -> bool:
    try:
        return store.shard_path(folder, array.shard).stat().st_size >= array.offset + array.num_bytes
    except OSError:
        return False


def _rows_on_lines(index: Mapping[str, Any]) -> str:
    """JSON with one array, item or name on each line: to be read and compared by people too."""
    fields = []
    for name, value in index.items():
        rows = isinstance(value, list) and value and isinstance(value[0], list | tuple)
        text = "[\n" + ",\n".join(map(json.dumps, value)) + "\n]" if rows else json.dumps(value)
        fields.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(fields) + "\n}\n"


def _cannot(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{folder} cannot be written: {error.strerror or error}; what is done is kept, "
        f"and the same command goes on from there"
    )
