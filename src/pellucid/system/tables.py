"""Many JSON objects by key, in little memory."""

import json
import sqlite3
import weakref
from collections.abc import Iterator
from hashlib import sha256
from threading import Lock
from typing import Any

from pellucid.system.files import no_space_error

CACHE_BYTES = 64 * 2**20
"""How much of a table is in memory; the rest is in a temporary file without a name."""

_ADDED_AT_ONCE, _READ_AT_ONCE = 1000, 1000


class Table:
    """JSON objects, any number for each key. Threads may share it.

    Methods raise OutputError if the folder for temporary files is full.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        weakref.finalize(self, self._database.close)
        self._database.execute(f"PRAGMA cache_size = {-CACHE_BYTES // 1024}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE objects (number INTEGER PRIMARY KEY, key BLOB, content TEXT)")
        self._database.execute("CREATE INDEX keys ON objects (key)")
        self._added: list[tuple[bytes, str]] = []
        self._lock = Lock()

    def __bool__(self) -> bool:
        """Whether there is an object."""
        return bool(self._select("SELECT number, content FROM objects LIMIT 1"))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All objects, in the order in which they were added."""
        query = "SELECT number, content FROM objects WHERE number > ? ORDER BY number LIMIT ?"
        rows = self._select(query, 0, _READ_AT_ONCE)
        while rows:
            yield from (json.loads(content) for _, content in rows)
            rows = self._select(query, rows[-1][0], _READ_AT_ONCE)

    def find(self, key: str) -> list[dict[str, Any]]:
        """The objects with this key, in the order in which they were added."""
        query = "SELECT number, content FROM objects WHERE key = ? ORDER BY number"
        return [json.loads(content) for _, content in self._select(query, _digest(key))]

    def add(self, key: str, content: dict[str, Any]) -> None:
        with self._lock:
            self._added.append((_digest(key), json.dumps(content)))
            if len(self._added) >= _ADDED_AT_ONCE:
                self._store()

    def _select(self, query: str, *values: object) -> list[tuple[int, str]]:
        with self._lock:
            self._store()
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                raise no_space_error(0, "manifests", OSError(str(error))) from error

    def _store(self) -> None:
        if not self._added:
            return
        try:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO objects (key, content) VALUES (?, ?)", self._added)
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise no_space_error(0, "manifests", OSError(str(error))) from error
        self._added.clear()


def _digest(key: str) -> bytes:
    return sha256(key.encode(errors="surrogateescape")).digest()[:16]
