"""Writes a store: appends arrays in any order, each with a record, and the index last.

Records survive `kill -9` and a power failure: the samples are on disk before their record is. A writer with the
same request resumes an unfinished store.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from filelock import lock_descriptor

from pellucid.data import store
from pellucid.data.store import FORMAT, INDEX, SOURCES, VERSION, Array, Item, Kind, Store
from pellucid.errors import OutputError
from pellucid.pictures.samples import Samples
from pellucid.system.files import write_atomic

SHARD_BYTES = 2**31
"""Size limit of a file of samples; a larger array gets its own file."""

SYNC_S = 2.0
"""How much work may be lost by a kill: samples are synced to disk, and then their records, at this interval."""

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Stamp:
    """Identifies the content of a source file when it was decoded.

    place: `Source.place`; empty in stores of earlier versions.
    """

    num_bytes: int
    mtime_ns: int
    sha256: str
    place: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """An array in the store: its source, its position, and what was changed, e.g. "transparency was dropped"."""

    stamp: Stamp
    array: Array
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    """An item whose arrays do not have indices yet. target, degraded: keys of arrays."""

    name: str
    target: str
    degraded: str | None = None
    exposure_ratio: float | None = None
    misaligned: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its arrays, the target first."""
        return (self.target,) if self.degraded is None else (self.target, self.degraded)


class StoreReader:
    """The arrays of an unfinished store, which another process may be writing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.records = folder, read_records(folder)

    def read(self, key: str) -> Samples | None:
        """The samples of a recorded array, memory-mapped and read-only; None if they are damaged."""
        array = self.records[key].array
        path = store.shard_path(self.folder, array.shard)
        try:
            samples = np.memmap(path, store.DTYPES[array.dtype], "r", array.offset, array.shape)
        except (OSError, ValueError):
            return None
        return samples if store.digest(samples) == array.sha256 else None


class StoreWriter(StoreReader):
    """Writes a store. Several threads may `put`, but only one process at a time may write.

    request: what the store must contain, as JSON; only the same request resumes an unfinished store.
    overwrite: delete an existing store. wait: wait for another process that writes the store, instead of raising.
    Raises OutputError if the folder contains other files, or a store of another request.
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
            _check_folder(folder)
            folder.mkdir(parents=True, exist_ok=True)
            self._journal = (folder / SOURCES).open("a+b")
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
        try:
            _lock_file(self._journal, folder, wait=wait)
            if overwrite:
                _erase(self._journal, folder)
            self.records = _read_journal(self._journal, folder, request)
        except BaseException:
            self._journal.close()
            raise
        ends = [
            (record.array.shard, record.array.offset + record.array.num_bytes) for record in self.records.values()
        ]
        self._shard, self._end = max(ends, default=(0, 0))

    @property
    def is_finished(self) -> bool:
        """Whether the store has its index."""
        return (self.folder / INDEX).exists()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        try:
            self.sync()
        except OSError as failure:
            if error is None:
                raise _write_error(self.folder, failure) from failure
        finally:
            self._journal.close()
            if self._samples is not None:
                self._samples.close()

    def discard(self) -> None:
        """Delete what was stored, and the folder unless shards are in it, so that other settings can be tried."""
        _erase(self._journal, self.folder)
        with suppress(OSError):
            (self.folder / SOURCES).unlink()
            self.folder.rmdir()

    def put(
        self,
        key: str,
        stamp: Stamp,
        samples: Samples,
        *,
        metadata: Mapping[str, Any] | None = None,
        changes: Sequence[str] = (),
    ) -> None:
        """Append an array and record it under a key, replacing any earlier record of that key.

        samples: (H, W, C) or (H, W), uint8 or uint16. Raises OutputError if they cannot be written.
        """
        content = np.ascontiguousarray(samples.astype(store.DTYPES[samples.dtype.name], copy=False))
        sha256 = store.digest(content)
        with self._lock:
            try:
                shard, offset = self._append(content)
                array = Array(shard, offset, content.dtype.name, content.shape, sha256, metadata)
                self.records[key] = Record(stamp, array, tuple(changes))
                self._waiting.append(_to_line(key, self.records[key]))
                if time.monotonic() - self._synced_at >= SYNC_S:
                    self.sync()
            except OSError as error:
                raise _write_error(self.folder, error) from error

    def finish(self, kind: Kind, items: Sequence[Planned], left_out: Sequence[tuple[str, str]]) -> Store:
        """Write the index, which completes the store. left_out: names, each with the reason."""
        keys = dict.fromkeys(key for item in items for key in item.keys)
        number = {key: i for i, key in enumerate(keys)}
        arrays = [self.records[key].array for key in keys]
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
            self.sync()
            shards = [store.shard_path(self.folder, i).stat().st_size for i in range(self._shard + 1)]
        except OSError as error:
            raise _write_error(self.folder, error) from error
        index = {"format": FORMAT, "version": VERSION, "kind": kind, "shards": shards}
        index |= {"arrays": [array.to_json() for array in arrays], "items": rows, "left_out": list(left_out)}
        write_atomic(self.folder / INDEX, _format_index(index).encode(), overwrite=False)
        return store.open(self.folder)

    def _append(self, content: Samples) -> tuple[int, int]:
        offset = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        if offset and offset + content.nbytes > SHARD_BYTES:
            self.sync()
            self._close_samples()
            self._shard, offset = self._shard + 1, 0
        file = self._open_samples()
        file.seek(offset)
        try:
            _write_all(file, content)
        except OSError:
            file.truncate(self._end)  # on a full disk, this leaves space for the records of finished arrays
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

    def sync(self) -> None:
        """Write the records of all arrays, after their samples."""
        if self._waiting and self._samples is not None:
            os.fsync(self._samples.fileno())
        self._journal.write("".join(self._waiting).encode())
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._waiting.clear()
        self._synced_at = time.monotonic()


def read_records(folder: Path) -> dict[str, Record]:
    """The records of a store or a part that another process may be writing; {} without one."""
    try:
        with (folder / SOURCES).open("rb") as journal:
            journal.readline()
            return {key: record for key, record, _ in _parse_lines(journal)}
    except OSError:
        return {}


def _write_all(file: IO[bytes], content: Samples) -> None:
    """Write everything. A single `write` may be partial, if the disk is almost full or the array exceeds 2 GB."""
    remaining = memoryview(content.data).cast("B")
    while remaining:
        remaining = remaining[file.write(remaining) :]


def is_unfinished(folder: Path) -> bool:
    """Whether a folder is a store without an index."""
    return (folder / SOURCES).exists() and not (folder / INDEX).exists()


def _check_folder(folder: Path) -> None:
    names: set[str] = set()  # listed at once, because another process may be creating the store
    with suppress(FileNotFoundError):
        names = {path.name for path in folder.iterdir()}
    if names and not names & {INDEX, SOURCES}:
        raise OutputError(f"{folder} contains files, but is not a store", hint="{out} needs a new or empty folder")


def _erase(journal: IO[bytes], folder: Path) -> None:
    """Delete the store, its index first, so that a kill leaves an unfinished store, not a damaged one."""
    (folder / INDEX).unlink(missing_ok=True)
    journal.truncate(0)
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


def _read_journal(file: IO[bytes], folder: Path, request: Mapping[str, Any]) -> dict[str, Record]:
    """The records by key. Deletes an incomplete last line, left by a kill. Writes the header of a new journal."""
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
            f"{folder} is a store made with other settings, or by another version",
            hint="choose another {out}, or make it again with {overwrite}",
            overwrite=True,
        )
    records = {}
    num_valid_bytes = len(first)
    for key, record, num_bytes in _parse_lines(file):
        num_valid_bytes += num_bytes
        if _has_samples(folder, record.array):
            records[key] = record
    file.truncate(num_valid_bytes)
    return records


def _parse_lines(file: IO[bytes]) -> Iterator[tuple[str, Record, int]]:
    for line in file:
        try:
            key, stamp, array, changes = json.loads(line)
            yield key, Record(Stamp(**stamp), Array.from_json(array), tuple(changes)), len(line)
        except (ValueError, TypeError):
            return


def _to_line(key: str, record: Record) -> str:
    return json.dumps([key, asdict(record.stamp), record.array.to_json(), list(record.changes)]) + "\n"


def _has_samples(folder: Path, array: Array) -> bool:
    try:
        return store.shard_path(folder, array.shard).stat().st_size >= array.offset + array.num_bytes
    except OSError:
        return False


def _format_index(index: Mapping[str, Any]) -> str:
    """JSON with one array, item or name in each line, so that people can read and compare it."""
    fields = []
    for name, value in index.items():
        rows = isinstance(value, list) and value and isinstance(value[0], list | tuple)
        text = "[\n" + ",\n".join(map(json.dumps, value)) + "\n]" if rows else json.dumps(value)
        fields.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(fields) + "\n}\n"


def _write_error(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{folder} cannot be written: {error.strerror or error}",
        hint="finished files are kept; the same command resumes from there",
    )
