"""Objects that were listed, fetched unchanged. Large ones come in pieces, and continue after `kill -9`.

PATH.pieces contains the tag of the object, and a line for each piece that is in PATH: its number and SHA-256.
"""

import json
from collections.abc import Callable
from concurrent.futures import Executor
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import IO

from pellucid.errors import StorageError
from pellucid.storage import objects
from pellucid.storage.urls import Tag, Url

PIECE_BYTES = 8 * 2**20


class ChangedError(Exception):
    """An object has been replaced or deleted since it was listed."""


def fetch_whole(url: Url, path: Path) -> None:
    """Copy a listed object into a file by one request. Raises ChangedError, and StorageError as `objects` does."""
    try:
        found = objects.fetch(url, path)
    except StorageError as error:
        if objects.stat(url) is None:
            raise ChangedError from error
        raise
    _check_same(url, found)


def fetch_pieces(url: Url, path: Path, pool: Executor, progress: Callable[[int], None]) -> None:
    """Copy a listed object of a bucket, several pieces at a time. Pieces that are in the file already are kept.

    progress: called with the number of bytes of each piece that is there, in any thread. Errors are the same.
    """
    size_bytes, log, lock = _size(url), _log_of(path), Lock()
    path.touch()
    with path.open("r+b") as file:
        known = _read_log(log, url)
        done = {number for number, digest in known.items() if _digest(_read_piece(file, number)) == digest}
        if not done:
            log.write_text(f"{json.dumps(url.tag)}\n")
        file.truncate(size_bytes)
        for number in done:
            progress(_piece_size(number, size_bytes))

        def fetch(number: int) -> None:
            content = _fetch_piece(url, number)
            with lock:
                file.seek(number * PIECE_BYTES)
                file.write(content)
                file.flush()
                with log.open("a") as lines:
                    lines.write(f"{json.dumps([number, _digest(content)])}\n")
            progress(len(content))

        num_pieces = -(-size_bytes // PIECE_BYTES)
        for _ in pool.map(fetch, (number for number in range(num_pieces) if number not in done)):
            pass
    log.unlink()


def count_missing_bytes(url: Url, path: Path) -> int:
    """How much of a listed object is not in the file."""
    size_bytes = _size(url)
    return size_bytes - sum(_piece_size(number, size_bytes) for number in _read_log(_log_of(path), url))


def _fetch_piece(url: Url, number: int) -> bytes:
    start = number * PIECE_BYTES
    try:
        content, found = objects.read_range(url, start, start + _piece_size(number, _size(url)))
    except FileNotFoundError as error:
        raise ChangedError from error
    _check_same(url, found)
    return content


def _check_same(url: Url, found: Tag) -> None:
    """Raise ChangedError if an object is not the one that was listed. Web servers have no lists."""
    if url.tag is not None and not url.is_web and url.tag.differs_from(found):
        raise ChangedError


def _size(url: Url) -> int:
    return 0 if url.tag is None else url.tag.size_bytes


def _piece_size(number: int, size_bytes: int) -> int:
    return min(PIECE_BYTES, size_bytes - number * PIECE_BYTES)


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.pieces")


def _read_log(log: Path, url: Url) -> dict[int, str]:
    """The SHA-256 of each piece of this object that was fetched."""
    try:
        header, *lines = log.read_text().splitlines()
        if url.tag is None or json.loads(header) != [*url.tag]:
            return {}
    except (OSError, ValueError):
        return {}
    known = {}
    for line in lines:
        try:
            number, digest = json.loads(line)
            known[int(number)] = str(digest)
        except (ValueError, TypeError):  # truncated by a kill
            continue
    return known


def _read_piece(file: IO[bytes], number: int) -> bytes:
    file.seek(number * PIECE_BYTES)
    return file.read(PIECE_BYTES)


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()
