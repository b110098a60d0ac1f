"""Copies of objects and folders in the cache of this computer, for what reads files again and again.

A copy is fetched once and compared with the bucket at each use: what has changed there is fetched again, and what
is gone there is removed here. Killed at any time, the next call continues with the next object, or the next piece
of a large one. A copy contains what one listing of the bucket names; what changes meanwhile is listed again.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from filelock import FileLock

from pellucid.errors import StorageError
from pellucid.storage import objects, pieces
from pellucid.storage.urls import Location, Tag, Url, locate
from pellucid.system.files import cache_folder

NUM_PARALLEL = 8
"""How many objects, or pieces of one, are fetched at the same time."""

MAX_LISTINGS = 3
"""How often a folder is listed that changes while it is copied."""

_SPARE_BYTES = 2**28
"""What stays free on the disk."""

_COMPANIONS = {".xml": ".bin"}
"""Files that consist of two, e.g. OpenVINO's: suffix of the one that is named -> suffix of the other."""

_UNKNOWN_TIME = "1970-01-01"

Progress = Callable[[int, int], None]
"""(bytes fetched, all bytes to fetch)."""


class Copy(NamedTuple):
    """A copy of an object or a folder. fingerprint: of the names and tags of all objects."""

    path: Path
    fingerprint: str


def choose_folder(purpose: str, place: Url) -> Path:
    """The folder of the cache for an object or a folder in a bucket. It need not exist yet. purpose: a name."""
    return cache_folder() / purpose / sha256(str(place).encode()).hexdigest()[:24]


def as_local(place: str | Location, progress: Progress | None = None) -> Path:
    """The file or folder on this computer: itself, or a copy of an object or a folder in a bucket.

    Raises StorageError if it does not exist, cannot be read, does not fit the disk, or keeps changing.
    """
    place = locate(place)
    return place if isinstance(place, Path) else copy_to_cache(place, progress).path


def copy_to_cache(place: Url, progress: Progress | None = None) -> Copy:
    """A copy of an object or a folder in a bucket. Raises the errors of `as_local`."""
    for _ in range(MAX_LISTINGS):
        with suppress(pieces.ChangedError):
            return _bring(place, progress)
    raise StorageError(
        f"{place} is changed again and again while it is copied", hint="try again when it is complete"
    )


def _bring(place: Url, progress: Progress | None) -> Copy:
    """Raises ChangedError if something changes while it is copied."""
    tag = None if place.is_folder else objects.stat(place)
    if tag is not None:
        wanted = {place.name: Url(place.scheme, place.bucket, place.key, tag=tag), **_find_companion(place)}
        return Copy(_update(place, wanted, progress) / place.name, _identify(wanted))
    wanted = {} if place.is_web else {_relative(url, place): url for url in objects.list_objects(place)}
    wanted = {name: url for name, url in wanted.items() if not name.startswith(".") and "/." not in name}
    if not wanted:
        raise StorageError(f"{place} does not exist", hint="check the name")
    return Copy(_update(place.as_folder(), wanted, progress), _identify(wanted))


def _identify(wanted: Mapping[str, Url]) -> str:
    """A fingerprint of the names and tags of objects."""
    return sha256(json.dumps(sorted((name, url.tag) for name, url in wanted.items())).encode()).hexdigest()


def _relative(url: Url, folder: Url) -> str:
    return url.relative_to(folder).as_posix()


def _find_companion(url: Url) -> dict[str, Url]:
    suffix = _COMPANIONS.get(url.suffix)
    if suffix is None or url.is_web:
        return {}
    other = url.with_name(f"{url.stem}{suffix}")
    tag = objects.stat(other)
    return {} if tag is None else {other.name: Url(other.scheme, other.bucket, other.key, tag=tag)}


def _update(place: Url, wanted: Mapping[str, Url], progress: Progress | None) -> Path:
    """The folder of copies, which contains the wanted objects and nothing else."""
    folder = choose_folder("objects", place)
    # The name of the folder is part of messages, and of names that are made of it.
    files = folder / (place.name or place.bucket) if place.is_folder else folder / "file"
    try:
        files.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            copies = _Copies(folder, files)
            copies.remove_others(wanted)
            missing = {name: url for name, url in wanted.items() if not copies.has(name, url)}
            _check_space(copies, place, missing)
            _fetch_all(copies, missing, progress)
            copies.remove_unfinished()
    except OSError as error:
        raise StorageError(
            f"{place} cannot be copied to {folder}: {error.strerror or error}",
            hint="set the environment variable PELLUCID_CACHE to another folder",
        ) from error
    return files


class _Copies:
    """The files of a copy, and the tags of the objects that they were made of.

    folder: contains the tags, and files that are not complete. files: the folder of the complete ones.
    """

    def __init__(self, folder: Path, files: Path) -> None:
        self.folder = folder
        self._log, self._files, self._unfinished = folder / "tags.jsonl", files, folder / "unfinished"
        self._lock = Lock()
        self._tags = _read_tags(self._log)

    def has(self, name: str, url: Url) -> bool:
        """Whether the copy of an object is complete and current."""
        path, known = self._files / name, self._tags.get(name)
        if known is None or known != url.tag or known.e_tag.startswith(_UNKNOWN_TIME):
            return False
        return path.is_file() and path.stat().st_size == known.size_bytes

    def unfinished(self, name: str) -> Path:
        """Where to fetch an object to."""
        self._unfinished.mkdir(exist_ok=True)
        return self._unfinished / sha256(name.encode()).hexdigest()[:24]

    def add(self, name: str, url: Url) -> None:
        """Add an object that is complete."""
        path = self._files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.unfinished(name).replace(path)
        assert url.tag is not None
        with self._lock, self._log.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps([name, *url.tag])}\n")

    def remove_unfinished(self) -> None:
        """Remove what is left of objects that have changed while they were fetched."""
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def remove_others(self, wanted: Mapping[str, Url]) -> None:
        """Remove files that are not wanted, e.g. because the bucket no longer contains them."""
        for parent, _, names in os.walk(self._files):
            for name in names:
                path = Path(parent, name)
                if path.relative_to(self._files).as_posix() not in wanted:
                    path.unlink()


def _read_tags(log: Path) -> dict[str, Tag]:
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    tags = {}
    for line in lines:
        try:
            name, e_tag, size_bytes = json.loads(line)
        except ValueError:  # truncated by a crash
            continue
        tags[name] = Tag(e_tag, size_bytes)
    return tags


def _check_space(copies: _Copies, place: Url, missing: Mapping[str, Url]) -> None:
    needed = sum(pieces.count_missing_bytes(url, copies.unfinished(name)) for name, url in missing.items())
    free = shutil.disk_usage(copies.folder).free
    if needed and needed + _SPARE_BYTES > free:
        raise StorageError(
            f"{place} needs {needed / 1e9:.1f} GB in {copies.folder}, where {free / 1e9:.1f} GB are free",
            hint="free some space, or set the environment variable PELLUCID_CACHE to another folder",
        )


def _fetch_all(copies: _Copies, missing: Mapping[str, Url], progress: Progress | None) -> None:
    """Small objects several at a time, then large ones one after another, each in several pieces at a time."""
    count = _Count(progress, sum(_size(url) for url in missing.values()))

    def fetch(name: str) -> None:
        pieces.fetch_whole(missing[name], copies.unfinished(name))
        copies.add(name, missing[name])
        count.add(_size(missing[name]))

    large = {name for name, url in missing.items() if _size(url) > pieces.PIECE_BYTES and not url.is_web}
    pool = ThreadPoolExecutor(NUM_PARALLEL)
    try:
        for _ in pool.map(fetch, [name for name in missing if name not in large]):
            pass
        for name in sorted(large):
            pieces.fetch_pieces(missing[name], copies.unfinished(name), pool, count.add)
            copies.add(name, missing[name])
    finally:
        pool.shutdown(cancel_futures=True)


def _size(url: Url) -> int:
    return 0 if url.tag is None else url.tag.size_bytes


class _Count:
    """Bytes that are fetched, counted in several threads."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = Lock()

    def add(self, num_bytes: int) -> None:
        with self._lock:
            self._done += num_bytes
            if self._progress is not None:
                self._progress(self._done, self._total)
