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
from threading import Lock
from typing import Any

from pellucid.errors import OutputError
from pellucid.restoration.planning import Job
from pellucid.system import files

NAME = ".pellucid.jsonl"
"""One JSON object a line, from just before a result takes its name; what fits the file that is there counts."""


Stamp = list[int]
"""See `stamp`."""


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
        self._lock = Lock()

    def state(self, source: Path, target: Path) -> State:
        """What stands at target, and whether it is what would be made of source now."""
        if not os.path.lexists(target):
            return State.MISSING
        entry = self._about(target)
        if entry is None:
            return State.FOREIGN
        if entry["settings"] != self._settings:
            return State.OTHERWISE
        if entry["source"] == [source.name, *stamp(source)]:
            return State.DONE
        return State.OUTDATED if entry["place"] == self._place(source) else State.FOREIGN

    def note(self, source: Path, source_stamp: Stamp, target: Path, whole: Path) -> None:
        """Note what is about to be renamed to target: whatever happens then, what stands there is told apart.

        source_stamp: of the source as it was read. whole: the finished file under its temporary name.
        """
        entry: dict[str, Any] = {
            "target": self._key(target),
            "source": [source.name, *source_stamp],
            "place": self._place(source),
            "result": stamp(whole),
            "settings": self._settings,
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._lock, self._path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(entry)}\n")  # the line before may have been cut short
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written: {error.strerror or error}") from error
        self._entries.setdefault(entry["target"], []).append(entry)

    def _about(self, target: Path) -> dict[str, Any] | None:
        """The last entry about what stands at target now, which may be older than the last about its name."""
        entries, now = self._entries.get(self._key(target), []), stamp(target)
        return next((entry for entry in reversed(entries) if entry["result"] == now), None)

    def _place(self, source: Path) -> str:
        """Where a source is, seen from here: a namesake in another folder is another one."""
        place = os.path.realpath(source)
        try:
            return Path(os.path.relpath(place, os.path.realpath(self._folder))).as_posix()
        except ValueError:  # on another drive of Windows
            return place

    def _key(self, target: Path) -> str:
        return Path(os.path.relpath(target, self._folder)).as_posix()

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return {}
        entries: dict[str, list[dict[str, Any]]] = {}
        for entry in map(_entry, lines):
            if entry is not None:
                entries.setdefault(entry["target"], []).append(entry)
        return entries


class Manifests:
    """The manifests of all folders that results go to."""

    def __init__(self, settings: Mapping[str, Any], overwrite: bool) -> None:
        self._settings, self._overwrite = settings, overwrite
        self._by_root: dict[Path, Manifest] = {}

    def is_done(self, job: Job) -> bool:
        """Whether there is nothing to do. Raises OutputError when something is in the way."""
        state = self._state(job)
        if state in (State.FOREIGN, State.OTHERWISE) and not self._overwrite:
            how = " and was made by another model or with other settings" if state is State.OTHERWISE else ""
            raise OutputError(f"{job.target} exists{how}; --overwrite replaces it")
        if state is State.MISSING or self._overwrite:
            files.check_overwrite(job.target, overwrite=True)
        return state is State.DONE and not self._overwrite

    def may_replace(self, job: Job) -> bool:
        """Whether the result may take the place of what is there."""
        return self._overwrite or self._state(job) is State.OUTDATED

    def note(self, job: Job, source_stamp: Stamp, whole: Path) -> None:
        """Remember a result that is about to take its name, made of a source as it was then."""
        manifest = self._of(job)
        if manifest is not None:
            manifest.note(job.source, source_stamp, job.target, whole)

    def _state(self, job: Job) -> State:
        manifest = self._of(job)
        if manifest is not None:
            return manifest.state(job.source, job.target)
        return State.FOREIGN if os.path.lexists(job.target) else State.MISSING

    def _of(self, job: Job) -> Manifest | None:
        if job.root is None:
            return None
        if job.root not in self._by_root:
            # Where two threads come here at once, both go on with the first one's.
            self._by_root.setdefault(job.root, Manifest(job.root, self._settings))
        return self._by_root[job.root]


def stamp(path: Path) -> Stamp:
    """Size and time of change: what tells a file from its former self; nothing where there is none."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _entry(line: str) -> dict[str, Any] | None:
    """A line that a crash cut short, or that someone else wrote, says nothing."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    kinds = {"target": str, "source": list, "place": str, "result": list, "settings": str}
    whole = isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in kinds.items())
    return entry if whole else None
