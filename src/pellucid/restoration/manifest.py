"""The manifest of a folder of results: which result was made from which input, and how.

With it the same command resumes after any interruption: finished results are skipped, results whose input has
changed since are made again, and files that pellucid did not create are never overwritten.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from threading import Lock
from typing import Any

from pellucid.errors import OutputError
from pellucid.restoration.claims import Claims
from pellucid.restoration.entries import Entry, Stamp, find_entry, is_entry, manifest_path, read_lines, stamp
from pellucid.restoration.planning import Job
from pellucid.system import files
from pellucid.system.journals import Journal, JournalReader
from pellucid.system.shards import Shard


class State(Enum):
    """What is known about a result before any work."""

    MISSING = "does not exist"
    DONE = "made from this input with these settings"
    OUTDATED = "made from this input, which has changed since"
    OTHER_SETTINGS = "made by another model or with other settings"
    OTHER_MODEL = "made by another model"
    FOREIGN = "not made by pellucid, or changed since"


@dataclass(frozen=True)
class Request:
    """What was asked for, as `pellucid status` needs it.

    settings: everything that affects the results. model: its name. shard: the part that this process makes.
    facts: about the model, for reports. plan: the arguments of `planning.plan`; None for jobs from elsewhere.
    """

    settings: Mapping[str, Any]
    model: str = ""
    shard: Shard | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] | None = None

    @property
    def settings_sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()


class Manifest:
    """The manifest of one folder: this process adds to one file, and reads those of all shards."""

    def __init__(self, folder: Path, request: Request) -> None:
        self._path = manifest_path(folder, request.shard)
        self._folder, self._request = folder, request
        self._settings, self._model = request.settings_sha256, request.model
        self._entries: dict[str, list[Entry]] = {}
        self._runs: list[dict[str, Any]] = []
        self._outcomes: dict[str, dict[str, Any]] = {}
        self._reader = JournalReader()
        self._journal = Journal(self._path, is_shared=request.shard is None)
        self._lock = Lock()
        self._is_run_recorded = False
        self._waiting: list[Mapping[str, Any]] = []
        self.refresh()

    def state(self, source: Path, target: Path, mask: Path | None = None) -> State:
        """Whether the target exists, and whether it is what would be made from the source (and mask) now."""
        if not os.path.lexists(target):
            return State.MISSING
        entry = self._find(target)
        if entry is None:
            return State.FOREIGN
        if entry["settings"] != self._settings:
            is_same = entry.get("model", self._model) == self._model  # earlier versions did not record it
            return State.OTHER_SETTINGS if is_same else State.OTHER_MODEL
        if _is_made_from(entry, source, mask):
            return State.DONE
        return State.OUTDATED if entry["place"] == self._place(source) else State.FOREIGN

    def find_outcome(self, target: Path) -> Mapping[str, Any] | None:
        """The last recorded outcome of a result with these settings."""
        found = self._outcomes.get(self._key(target))
        return None if found is None or found["settings"] != self._settings else found

    def refresh(self) -> None:
        """Add what other processes have recorded in the meantime."""
        with self._lock:
            for line in read_lines(self._folder, self._reader):
                if is_entry(line):
                    self._entries.setdefault(line["target"], []).append(line)
                elif isinstance(line.get("run"), dict):
                    self._runs.append(line)
                elif isinstance(line.get("outcome"), str) and isinstance(line.get("target"), str):
                    self._outcomes[line["target"]] = line

    def _find(self, target: Path) -> Entry | None:
        """The entry of a result, which another process may just have recorded."""
        key = self._key(target)
        entry = find_entry(self._entries, target, key)
        if entry is None:
            self.refresh()
            entry = find_entry(self._entries, target, key)
        return entry

    def record(
        self, source: Path, source_stamp: Stamp, target: Path, whole: Path, mask: Path | None = None
    ) -> None:
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
            "sha256": _hash_inputs(source, mask, source_stamp),
        }
        try:
            self._add(entry)
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written: {error.strerror or error}") from error
        self._entries.setdefault(entry["target"], []).append(entry)

    def record_outcome(self, source: Path, target: Path, outcome: Mapping[str, Any]) -> None:
        """Add what happened to a picture, for `pellucid status`. If that is not possible, only this is lost.

        Failures alone do not make a folder, unless other shards may have results.
        """
        names = {"target": self._key(target), "place": self._place(source), "settings": self._settings}
        line = {**outcome, **names}
        if self._request.shard is None and not self._path.exists():
            self._waiting.append(line)
            return
        with suppress(OSError):
            self._add(line)

    def close(self) -> None:
        """Let other processes write the file."""
        with self._lock:
            self._journal.close()

    def _add(self, line: Mapping[str, Any]) -> None:
        with self._lock:
            if not self._is_run_recorded:
                run = self._describe_run()
                if run not in self._runs:
                    self._journal.add(run)
                self._is_run_recorded = True
            for waiting in self._waiting:
                self._journal.add(waiting)
            self._waiting.clear()
            self._journal.add(line)

    def _describe_run(self) -> dict[str, Any]:
        """A line with all that status and reports need to know about a run."""
        request = self._request
        run = {
            "run": {"model": request.model, **request.facts},
            "root": os.path.realpath(self._folder),
            "settings": self._settings,
            "described": dict(request.settings),
            "plan": request.plan,
            "shard": None if request.shard is None else str(request.shard),
        }
        return json.loads(json.dumps(run, default=str))

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

    def __init__(self, request: Request, overwrite: bool) -> None:
        self._request, self._overwrite = request, overwrite
        self._by_root: dict[Path, Manifest] = {}
        self._claims: dict[Path, Claims] = {}

    def claim(self, job: Job) -> bool:
        """Whether this process may make a result; False if another one is making it. See `Claims`."""
        if job.root is None:
            return True
        return self._claims.setdefault(job.root, Claims(job.root)).take(os.fspath(job.target))

    def release(self, job: Job) -> None:
        """Other processes may make this result again."""
        if job.root in self._claims:
            self._claims[job.root].release(os.fspath(job.target))

    def close(self) -> None:
        """Release all claims and files."""
        for manifest in self._by_root.values():
            manifest.close()
        for claims in self._claims.values():
            claims.close()

    def settle_names(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs, with the name of the model in those results whose names another model has used."""
        taken = {os.path.realpath(job.target) for job in jobs}
        settled = []
        for job in jobs:
            own = job.target.with_name(f"{job.target.stem}-{self._request.model}{job.target.suffix}")
            is_free = os.path.realpath(own) not in taken
            renames = is_free and not self._overwrite and self.state(job) is State.OTHER_MODEL
            settled.append(replace(job, target=own) if renames else job)
        return settled

    def is_done(self, job: Job) -> bool:
        """Whether there is nothing to do. Raises OutputError if another file is in the way."""
        state = self.state(job)
        if state in (State.FOREIGN, State.OTHER_SETTINGS, State.OTHER_MODEL) and not self._overwrite:
            origin = "" if state is State.FOREIGN else f" and was {state.value}"
            raise OutputError(f"{job.target} exists{origin}", hint="{overwrite} replaces it", overwrite=True)
        if state is State.MISSING or self._overwrite:
            files.check_overwrite(job.target, overwrite=True)
        return state is State.DONE and not self._overwrite

    def may_replace(self, job: Job) -> bool:
        """Whether the result may overwrite the existing file."""
        return self._overwrite or self.state(job) is State.OUTDATED

    def record(self, job: Job, source_stamp: Stamp, whole: Path) -> None:
        """Add an entry for a result that is about to be renamed to its final name; see `Manifest.record`."""
        manifest = self._manifest_of(job)
        if manifest is not None:
            manifest.record(job.source, source_stamp, job.target, whole, job.mask)

    def record_outcome(self, job: Job, outcome: Mapping[str, Any]) -> None:
        """Add what happened to a picture; see `Manifest.record_outcome`."""
        manifest = self._manifest_of(job)
        if manifest is not None:
            manifest.record_outcome(job.source, job.target, outcome)

    def find_outcome(self, job: Job) -> Mapping[str, Any] | None:
        """See `Manifest.find_outcome`."""
        manifest = self._manifest_of(job)
        return None if manifest is None else manifest.find_outcome(job.target)

    def state(self, job: Job) -> State:
        """See `Manifest.state`."""
        manifest = self._manifest_of(job)
        if manifest is not None:
            return manifest.state(job.source, job.target, job.mask)
        return State.FOREIGN if os.path.lexists(job.target) else State.MISSING

    def _manifest_of(self, job: Job) -> Manifest | None:
        if job.root is None:
            return None
        if job.root not in self._by_root:
            # If two threads get here at once, both use the manifest of the first.
            self._by_root.setdefault(job.root, Manifest(job.root, self._request))
        return self._by_root[job.root]


def _is_made_from(entry: Entry, source: Path, mask: Path | None) -> bool:
    """Whether these are the files that an entry names: by size and time or, if only times differ, by content."""
    inputs = [source] if mask is None else [source, mask]
    (name, *expected), found = entry["source"], stamp(*inputs)
    if name != source.name or expected == found:
        return name == source.name
    if expected[::2] != found[::2] or len(found) != 2 * len(inputs):
        return False
    return entry.get("sha256") is not None and entry["sha256"] == _hash_inputs(source, mask, found)


def _hash_inputs(source: Path, mask: Path | None, stamps: Stamp) -> list[str] | None:
    """SHA-256 of the files, if they are still those with these stamps; None if not, or if they cannot be read."""
    inputs = [source] if mask is None else [source, mask]
    try:
        hashes = [files.sha256(path) for path in inputs]
    except OSError:
        return None
    return hashes if stamp(*inputs) == stamps else None
