"""What a folder of results remembers: which result came from which input and how.

With it the same command goes on after an interruption, whatever ended it: what is finished is left alone, what
has changed since is done again, and what others put there is never replaced.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pellucid.errors import OutputError

NAME = ".pellucid.jsonl"
"""One JSON object a line; the last one about a result counts."""


class State(Enum):
    """What is known about a result before any work."""

    MISSING = "not there"
    DONE = "there, from this input, in this way"
    OUTDATED = "there, from an input that has changed since"
    OTHERWISE = "there, but made in another way"
    FOREIGN = "there, but not from us"


class Manifest:
    """The memory of one folder. settings: all that decides how a result looks."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._path = folder / NAME
        self._folder = folder
        self._settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._entries = self._read()

    def state(self, source: Path, target: Path) -> State:
        """What stands at target, and whether it is what would be made of source now."""
        if not os.path.lexists(target):
            return State.MISSING
        entry = self._entries.get(self._key(target))
        if entry is None or entry["result"] not in (None, _stamp(target)):
            return State.FOREIGN
        if entry["settings"] != self._settings:
            return State.OTHERWISE
        if entry["source"] == [source.name, *_stamp(source)]:
            return State.DONE
        return State.OUTDATED if entry["source"][:1] == [source.name] else State.FOREIGN

    def begin(self, source: Path, target: Path) -> None:
        """Note, before a result is renamed into place, that what will stand there is ours and whole."""
        self._note(source, target, None)

    def finish(self, source: Path, target: Path) -> None:
        """Note that the result stands."""
        self._note(source, target, _stamp(target))

    def _note(self, source: Path, target: Path, result: list[int] | None) -> None:
        entry = {
            "target": self._key(target),
            "source": [source.name, *_stamp(source)],
            "result": result,
            "settings": self._settings,
        }
        self._entries[self._key(target)] = entry
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written: {error.strerror or error}") from error

    def _key(self, target: Path) -> str:
        return Path(os.path.relpath(target, self._folder)).as_posix()

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return {}
        entries = [entry for entry in map(_entry, lines) if entry is not None]
        return {entry["target"]: entry for entry in entries}


def _entry(line: str) -> dict[str, Any] | None:
    """A line that a crash cut short, or that someone else wrote, says nothing."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    kinds = {"target": str, "source": list, "result": list | None, "settings": str}
    whole = isinstance(entry, dict) and all(isinstance(entry.get(key, 0), kind) for key, kind in kinds.items())
    return entry if whole else None


def _stamp(path: Path) -> list[int]:
    """Size and time of change: what tells a file from its former self."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
