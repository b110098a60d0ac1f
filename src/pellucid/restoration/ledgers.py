"""How a manifest is stored: in a local folder, or in a bucket.

In a folder, entries are lines of one file, added just before a result is renamed to its final name. In a bucket,
nothing can be appended to an object, so each process writes its own objects, every few seconds at most. The
metadata of a result also contain the hash of its entry, so that nothing is lost if the process is killed in
between.
"""

import hashlib
import json
import mimetypes
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from pellucid.errors import OutputError, StorageError
from pellucid.restoration import entries
from pellucid.restoration.entries import (
    PARTS,
    Entries,
    Entry,
    Stamp,
    manifest_path,
    parse_entries,
    read_entries,
    read_lines,
    stamp,
)
from pellucid.storage import objects
from pellucid.storage.urls import Location, Tag, Url, real_name
from pellucid.system.journals import Journal, JournalReader

FLUSH_EVERY_S = 5.0
MAX_ENTRIES = 2000
"""How often a part is stored again, and after how many entries the next one begins."""

_ENTRY = "pellucid"
"""Name of the metadata of a result that contain the digest of its entry."""

_NUM_READERS = 16


class Ledger(Protocol):
    """The stored manifest of one folder of results."""

    def read_new(self, entries: Entries) -> None:
        """Add the entries that were stored since the last call, by this process or another."""
        ...

    def refresh(self, target: Location) -> None:
        """Look again whether a result exists."""
        ...

    def stamp(self, target: Location) -> Stamp:
        """The stamp of a result; empty if it does not exist."""
        ...

    def is_recorded(self, target: Location, entry: Entry) -> bool:
        """Whether the result itself says that it was made as this entry says; its own stamp does not count."""
        ...

    def add(self, target: Location, whole: Path, entry: Entry, *, overwrite: bool) -> None:
        """Record a result that is complete in a temporary file; sets the entry's "result".

        A result in a bucket gets its name by this. Raises OutputError if it cannot be stored, or replaces a result
        that it must not.
        """
        ...

    def append(self, line: Mapping[str, Any], *, can_wait: bool) -> None:
        """Add another line. can_wait: until there is a result. If it cannot be stored, only this line is lost."""
        ...

    def close(self) -> None:
        """Store what is not stored yet."""
        ...


class FolderLedger:
    """The manifests of a folder of this computer: files with one entry in each line.

    This process adds to one of them, and reads all. journal: the name of one that only this process adds to.
    """

    def __init__(self, folder: Path, journal: str | None = None) -> None:
        self._folder, self._path = folder, manifest_path(folder, journal)
        self._journal, self._reader = Journal(self._path, is_shared=journal is None), JournalReader()
        self._waiting: list[Mapping[str, Any]] = []
        self._lock = Lock()

    def read_new(self, entries: Entries) -> None:
        with self._lock:
            for line in read_lines(self._folder, self._reader):
                entries.add(line)

    def refresh(self, target: Location) -> None:
        """Not needed: the file system is read each time."""

    def stamp(self, target: Location) -> Stamp:
        # A broken link exists, but has no stamp.
        return stamp(target) or ([0] if os.path.lexists(str(target)) else [])

    def is_recorded(self, target: Location, entry: Entry) -> bool:
        return False

    def add(self, target: Location, whole: Path, entry: Entry, *, overwrite: bool) -> None:
        """If the rename never happens, the entry does not match the file at target and is ignored."""
        entry["result"] = stamp(whole)
        try:
            with self._lock:
                self._add(entry)
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written: {error.strerror or error}") from error

    def append(self, line: Mapping[str, Any], *, can_wait: bool) -> None:
        with self._lock, suppress(OSError):
            if can_wait and not self._path.exists():
                self._waiting.append(line)
            else:
                self._add(line)

    def close(self) -> None:
        """Let other processes write the file."""
        with self._lock:
            self._journal.close()

    def _add(self, line: Mapping[str, Any]) -> None:
        for waiting in self._waiting:
            self._journal.add(waiting)
        self._waiting.clear()
        self._journal.add(line)


class BucketLedger:
    """The manifest of a folder in a bucket: objects with one entry in each line, written by one process each.

    is_listed: whether to list all results and manifests now; otherwise, results are known once `refresh` has
        looked at them, and entries of other processes only by the digest that each result carries.
    """

    def __init__(self, folder: Url, *, is_listed: bool = True) -> None:
        self._parts = folder / PARTS
        self._tags: dict[str, Tag] = {}
        self._unread: list[Url] = []
        for url in objects.list_objects(folder) if is_listed else ():
            if _is_part(url, self._parts):
                self._unread.append(url)
            elif url.tag is not None:
                self._tags[url.key] = url.tag
        self._lines: list[str] = []
        self._num_stored, self._stored_s = 0, time.monotonic()
        self._part = self._name_part()
        self._lock = Lock()

    def _name_part(self) -> Url:
        return self._parts / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(6)}.jsonl"

    def read_new(self, entries: Entries) -> None:
        unread, self._unread = self._unread, []
        _read_parts(entries, unread)

    def refresh(self, target: Location) -> None:
        assert isinstance(target, Url)
        tag = objects.stat(target)
        if tag is None:
            self._tags.pop(target.key, None)
        else:
            self._tags[target.key] = tag

    def stamp(self, target: Location) -> Stamp:
        assert isinstance(target, Url)
        return [*self._tags.get(target.key, ())]

    def is_recorded(self, target: Location, entry: Entry) -> bool:
        assert isinstance(target, Url)
        return objects.read_attribute(target, _ENTRY) == _digest(entry)

    def add(self, target: Location, whole: Path, entry: Entry, *, overwrite: bool) -> None:
        assert isinstance(target, Url)
        known = self._tags.get(target.key)
        self._tags[target.key] = tag = store(
            whole, target, known=known, overwrite=overwrite, note={_ENTRY: _digest(entry)}
        )
        entry["result"] = [*tag]
        self._add(entry)

    def append(self, line: Mapping[str, Any], *, can_wait: bool) -> None:
        with suppress(StorageError):
            self._add(line)

    def _add(self, line: Mapping[str, Any]) -> None:
        with self._lock:
            self._lines.append(json.dumps(line))
            if time.monotonic() - self._stored_s > FLUSH_EVERY_S or len(self._lines) >= MAX_ENTRIES:
                self._store()

    def close(self) -> None:
        with self._lock:
            self._store()

    def _store(self) -> None:
        if self._num_stored == len(self._lines):
            return
        objects.put("".join(f"{line}\n" for line in self._lines).encode(), self._part)
        self._num_stored, self._stored_s = len(self._lines), time.monotonic()
        if len(self._lines) >= MAX_ENTRIES:
            self._lines, self._num_stored, self._part = [], 0, self._name_part()


def _is_part(url: Url, folder: Url) -> bool:
    """Whether it is a part of the manifest; the folder also contains claims."""
    return url.suffix == ".jsonl" and url.parent == folder


def _read_parts(entries: Entries, parts: Iterable[Url]) -> None:
    """Add the entries of all parts, the oldest first."""
    ordered = sorted(parts, key=lambda url: url.key)
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        for start in range(0, len(ordered), _NUM_READERS):  # all at once, they would need much memory
            for content, _ in pool.map(objects.read, ordered[start : start + _NUM_READERS]):
                parse_entries(entries, content)


def find_results(
    folder: Location, among: Iterable[Location], *, may_be_refused: bool = False
) -> Iterator[tuple[str, str]]:
    """(result, what it was made from) of results in a folder that have not changed since; see `real_name`.

    among: in a bucket, only these are looked for. may_be_refused: whether a folder that the server refuses to list
        contains no results: credentials that cannot list it cannot have written results there.
    """
    if isinstance(folder, Path):
        yield from entries.list_results(folder)
        return
    try:
        known = read_all(folder)
    except StorageError:
        if may_be_refused:
            return
        raise
    for place in among if known else ():
        if isinstance(place, Url) and place.is_relative_to(folder):
            entry = known.find(place.relative_to(folder).as_posix(), [*(place.tag or ())])
            if entry is not None:
                yield real_name(place), entry["place"]


def read_all(folder: Location) -> Entries:
    """All lines of the manifests of a folder."""
    if isinstance(folder, Path):
        return read_entries(folder)
    known = Entries()
    _read_parts(known, (url for url in objects.list_objects(folder / PARTS) if _is_part(url, folder / PARTS)))
    return known


def open_ledger(folder: Location, journal: str | None = None, *, is_listed: bool = True) -> Ledger:
    """journal: see `FolderLedger`. is_listed: see `BucketLedger`."""
    return BucketLedger(folder, is_listed=is_listed) if isinstance(folder, Url) else FolderLedger(folder, journal)


def store(
    whole: Path, target: Url, *, known: Tag | None = None, overwrite: bool, note: dict[str, str] | None = None
) -> Tag:
    """Store a result. Without `overwrite`, it may only replace the known earlier result.

    known: the tag of the earlier result, None if there was none.
    """
    attributes = {**_content_type(target), **(note or {})}
    if overwrite:
        return objects.put(whole, target, attributes=attributes)
    if known is None:
        return objects.put_new(whole, target, attributes=attributes)
    return objects.put(whole, target, e_tag=known.e_tag, attributes=attributes)


def _content_type(target: Url) -> dict[str, str]:
    """What browsers need to show a picture."""
    kind, _ = mimetypes.guess_type(target.name)
    return {"Content-Type": kind} if kind else {}


def _digest(entry: Entry) -> str:
    """The hash of an entry, without the parts that are only known once the result is stored."""
    settled = {key: value for key, value in entry.items() if key not in ("result", "sha256")}
    return hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()
