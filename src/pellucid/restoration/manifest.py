"""The manifest of a folder of results: which result was made from which input, and how.

With it the same command resumes after any interruption: finished results are skipped, results whose input has
changed since are made again, and files that pellucid did not create are never overwritten.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from threading import Lock
from typing import Any

from pellucid.errors import OutputError
from pellucid.restoration.claims import Claims
from pellucid.restoration.entries import NAME, Entry, Stamp, add_entries, find_entry, stamp
from pellucid.restoration.planning import Job
from pellucid.system import files


class State(Enum):
    """What is known about a result before any work."""

    MISSING = "does not exist"
    DONE = "made from this input with these settings"
    OUTDATED = "made from this input, which has changed since"
    OTHER_SETTINGS = "made by another model or with other settings"
    OTHER_MODEL = "made by another model"
    FOREIGN = "not made by pellucid, or changed since"


class Manifest:
    """The manifest of one folder. settings: everything that affects the results. model: its name."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], model: str = "") -> None:
        self._path = folder / NAME
        self._folder, self._model = folder, model
        self._settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._entries: dict[str, list[Entry]] = {}
        self._end = add_entries(self._entries, folder, start=0)
        self._lock = Lock()

    def state(self, source: Path, target: Path, mask: Path | None = None) -> State:
        """Whether the target exists, and whether it is what would be made from the source (and mask) now."""
        if not os.path.lexists(target):
            return State.MISSING
        entry = find_entry(self._entries, target, self._key(target))
        if entry is None:
            return State.FOREIGN
        if entry["settings"] != self._settings:
            is_same = entry.get("model", self._model) == self._model  # earlier versions did not record it
            return State.OTHER_SETTINGS if is_same else State.OTHER_MODEL
        if entry["source"] == [source.name, *stamp(source, *([] if mask is None else [mask]))]:
            return State.DONE
        return State.OUTDATED if entry["place"] == self._place(source) else State.FOREIGN

    def refresh(self) -> None:
        """Add what other processes have recorded in the meantime."""
        with self._lock:
            self._end = add_entries(self._entries, self._folder, start=self._end)

    def record(self, source: Path, source_stamp: Stamp, target: Path, whole: Path) -> None:
        """Add an entry for a file that is about to be renamed to target.

        If the rename never happens, the entry does not match the file at target and is ignored.
        source_stamp: of the source, and of its mask if there is one, as they were read.
        whole: the finished file under its temporary name.
        """
        entry: dict[str, Any] = {
            "target": self._key(target),
            "source": [source.name, *source_stamp],
            "place": self._place(source),
            "result": stamp(whole),
            "settings": self._settings,
            "model": self._model,
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._lock, self._path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(entry)}\n")  # a crash may have truncated the line before
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written: {error.strerror or error}") from error
        self._entries.setdefault(entry["target"], []).append(entry)

    def _place(self, source: Path) -> str:
        """The path of a source relative to this folder: files of the same name in other folders differ."""
        place = os.path.realpath(source)
        try:
            return Path(os.path.relpath(place, os.path.realpath(self._folder))).as_posix()
        except ValueError:  # on another drive of Windows
            return place

    def _key(self, target: Path) -> str:
        return Path(os.path.relpath(target, self._folder)).as_posix()


class Manifests:
    """The manifests of all folders of results."""

    def __init__(self, settings: Mapping[str, Any], overwrite: bool, model: str = "") -> None:
        self._settings, self._overwrite, self._model = settings, overwrite, model
        self._by_root: dict[Path, Manifest] = {}
        self._claims: dict[Path, Claims] = {}

    def claim(self, job: Job) -> bool:
        """Whether this process may make a result; False if another one is making it. See `Claims`."""
        manifest = self._manifest_of(job)
        if manifest is None or job.root is None:
            return True
        is_taken = self._claims.setdefault(job.root, Claims(job.root)).take(os.fspath(job.target))
        manifest.refresh()  # the other process may have finished it
        return is_taken

    def release(self, job: Job) -> None:
        """Other processes may make this result again."""
        if job.root in self._claims:
            self._claims[job.root].release(os.fspath(job.target))

    def close(self) -> None:
        """Release all claims."""
        for claims in self._claims.values():
            claims.close()

    def settle_names(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs, with the name of the model in those results whose names another model has used."""
        taken = {os.path.realpath(job.target) for job in jobs}
        settled = []
        for job in jobs:
            own = job.target.with_name(f"{job.target.stem}-{self._model}{job.target.suffix}")
            is_free = os.path.realpath(own) not in taken
            renames = is_free and not self._overwrite and self._state(job) is State.OTHER_MODEL
            settled.append(replace(job, target=own) if renames else job)
        return settled

    def is_done(self, job: Job) -> bool:
        """Whether there is nothing to do. Raises OutputError if another file is in the way."""
        state = self._state(job)
        if state in (State.FOREIGN, State.OTHER_SETTINGS, State.OTHER_MODEL) and not self._overwrite:
            origin = "" if state is State.FOREIGN else f" and was {state.value}"
            raise OutputError(f"{job.target} exists{origin}", hint="{overwrite} replaces it", overwrite=True)
        if state is State.MISSING or self._overwrite:
            files.check_overwrite(job.target, overwrite=True)
        return state is State.DONE and not self._overwrite

    def may_replace(self, job: Job) -> bool:
        """Whether the result may overwrite the existing file."""
        return self._overwrite or self._state(job) is State.OUTDATED

    def record(self, job: Job, source_stamp: Stamp, whole: Path) -> None:
        """Add an entry for a result that is about to be renamed to its final name; see `Manifest.record`."""
        manifest = self._manifest_of(job)
        if manifest is not None:
            manifest.record(job.source, source_stamp, job.target, whole)

    def _state(self, job: Job) -> State:
        manifest = self._manifest_of(job)
        if manifest is not None:
            return manifest.state(job.source, job.target, job.mask)
        return State.FOREIGN if os.path.lexists(job.target) else State.MISSING

    def _manifest_of(self, job: Job) -> Manifest | None:
        if job.root is None:
            return None
        if job.root not in self._by_root:
            # If two threads get here at once, both use the manifest of the first.
            self._by_root.setdefault(job.root, Manifest(job.root, self._settings, self._model))
        return self._by_root[job.root]
