"""The record of an unfinished evaluation: scores of finished pictures, so that the same command resumes."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pellucid.errors import OutputError
from pellucid.evaluation.report import Score
from pellucid.restoration.entries import Stamp
from pellucid.system.files import check_name


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
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.num_found = 0
        """How many scores were found in the file, instead of being computed."""
        self._entries = {} if path is None else _read(path)
        if path is not None:
            _check_writable(path)

    def find(self, key: str) -> Finished | None:
        """The finished picture with this key."""
        return self._entries.get(key)

    def add(self, key: str, finished: Finished) -> None:
        """Append a finished picture."""
        if self.path is None:
            return
        line = json.dumps({"key": key, **asdict(finished)})
        with suppress(OSError), self.path.open("a", encoding="utf-8") as file:  # full disk: not worth stopping
            file.write(f"\n{line}\n")  # an interruption may have cut off the line before

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


def _read(path: Path) -> dict[str, Finished]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    entries = {}
    for line in lines:
        with suppress(ValueError, TypeError, KeyError):  # a line that was cut off
            entry: dict[str, Any] = json.loads(line)
            entries[str(entry["key"])] = Finished(
                Score(**entry["score"]), tuple(entry["warnings"]), entry["saved"]
            )
    return entries
