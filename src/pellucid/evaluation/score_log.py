"""The record of an unfinished evaluation: scores of finished pictures, so that the same command resumes."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pellucid.errors import OutputError
from pellucid.evaluation.report import Score
from pellucid.restoration.entries import Stamp
from pellucid.system.files import check_name, check_own
from pellucid.system.journals import Journal, JournalReader
from pellucid.system.shards import Shard


@dataclass(frozen=True)
class Finished:
    """A finished picture. warnings: about its files. saved: the stamp of the restored picture, if it was saved."""

    score: Score
    warnings: tuple[str, ...] = ()
    saved: Stamp | None = None


class ScoreLog:
    """A file with a line for each finished picture, added as soon as its score is known.

    A line has the key of everything that its score depends on: lines of other data, weights or settings are
    ignored. Without a path, nothing is recorded. Raises OutputError if the file cannot be written.

    path: of the file; or, for a shard or if it exists already, a folder, in which each process adds to a file of
    its own and reads those of all.
    """

    def __init__(self, path: Path | None = None, shard: Shard | None = None) -> None:
        self.path = path
        self.is_folder = path is not None and (shard is not None or path.is_dir())
        self._entries: dict[str, Finished] = {}
        if path is None:
            return
        own = path / f"{'whole' if shard is None else shard.label}.jsonl" if self.is_folder else path
        _check_writable(own)
        _check_log(own)
        self._journal = Journal(own, is_shared=not self.is_folder)
        for line in read_log_lines(path) if self.is_folder else JournalReader().read_new(path):
            with suppress(ValueError, TypeError, KeyError):  # another line, or a damaged one
                self._entries[str(line["key"])] = Finished(
                    Score(**line["score"]), tuple(line["warnings"]), line["saved"]
                )

    def find(self, key: str) -> Finished | None:
        """The finished picture with this key."""
        return self._entries.get(key)

    def add(self, key: str, finished: Finished, **facts: object) -> None:
        """Append a finished picture. facts: for `pellucid status`. Raises OutputError if a folder is full."""
        self._add({"key": key, **asdict(finished), **facts})

    def add_facts(self, **facts: object) -> None:
        """Append what `pellucid status` needs to know, in a folder that several processes share."""
        if self.is_folder:
            self._add(facts)

    def _add(self, line: Mapping[str, object]) -> None:
        if self.path is None:
            return
        try:
            self._journal.add(line)
        except OSError as error:
            if self.is_folder:  # the scores are only there; otherwise, a full disk is not worth stopping
                raise OutputError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Let other processes write the file."""
        if self.path is not None:
            self._journal.close()

    def remove(self) -> None:
        """Delete the file, after the evaluation is complete."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()


def make_key(*facts: object) -> str:
    """A key that differs if one of the facts does. Facts other than JSON's are compared by their texts."""
    return sha256(json.dumps(facts, sort_keys=True, default=repr).encode(errors="surrogateescape")).hexdigest()


def _check_writable(path: Path) -> None:
    """Without creating the file."""
    check_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"{path} cannot be written: no permission")


def _check_log(path: Path) -> None:
    """Raise OutputError if another file, e.g. a picture, has the name of a record."""
    try:
        check_own(path)
        if not path.is_file():
            return
        with path.open("rb") as file:
            head = file.read(3)
    except OSError as error:
        raise OutputError(f"{path} cannot be used: {error.strerror or error}") from error
    if not (head.startswith(b'{"') or b'\n{"'.startswith(head)):  # an interruption may have left a part of a line
        raise OutputError(f"{path} is another file, not a record of scores", hint="choose another {record}")


def read_log_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of all files in a folder."""
    for path in sorted(folder.glob("*.jsonl")):
        yield from JournalReader().read_new(path)
