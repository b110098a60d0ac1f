"""The manifest of a folder of results: which result was made from which input, and how.

With it the same command resumes after any interruption: finished results are skipped, results whose input has
changed since are made again, and files that pellucid did not create are never overwritten.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from pellucid.errors import OutputError
from pellucid.restoration.claims import Claims
from pellucid.restoration.entries import NAME, Entries, Entry, Stamp, stamp
from pellucid.restoration.leases import Leases
from pellucid.restoration.ledgers import open_ledger, store
from pellucid.restoration.planning import Job
from pellucid.storage import objects
from pellucid.storage.urls import Location, RealNames, Url, real_name
from pellucid.system import files
from pellucid.system.shards import Shard

_MAX_FOLDERS = 4096
"""For how many folders of sources the path relative to that of the results is remembered."""


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
    """What to restore and how, as recorded for `pellucid status`.

    settings: everything that affects the results. model: its name. shard: the part that this process makes.
    facts: about the model, for reports. plan: the arguments of `planning.plan`; None for jobs from elsewhere.
    journal: the name of a manifest to which only this process adds; None for the one of all processes.
    accepted: the hashes of other settings whose results are not made again, because they are as good: those of
        other backends, if "auto" chose one.
    """

    settings: Mapping[str, Any]
    model: str = ""
    shard: Shard | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] | None = None
    journal: str | None = None
    accepted: Sequence[str] = ()

    @property
    def settings_sha256(self) -> str:
        return hash_settings(self.settings)


def hash_settings(settings: Mapping[str, Any]) -> str:
    """A hash by which manifests refer to settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


class Manifest:
    """The manifest of one folder.

    is_directed: whether another process assigns the work, and has checked which results exist. Then this one does
        not list the folder, which would take time and memory with millions of results.
    """

    def __init__(self, folder: Location, request: Request, *, is_directed: bool = False) -> None:
        self._folder, self._request = folder, request
        self._settings, self._model = request.settings_sha256, request.model
        self._accepted = {self._settings, *request.accepted}
        self._entries = Entries()
        self._ledger = open_ledger(folder, request.journal, is_listed=not is_directed)
        if not is_directed:
            self._ledger.read_new(self._entries)
        self._lock, self._is_run_recorded = Lock(), False
        self._names = RealNames()
        self._compared: dict[tuple[object, ...], bool] = {}
        self._find_relative = lru_cache(_MAX_FOLDERS)(self._relate)

    def state(self, source: Location, target: Location, mask: Location | None = None) -> State:
        """Whether the target exists, and whether it was made from this source (and mask) with these settings."""
        now = self._ledger.stamp(target)
        if not now:
            return State.MISSING
        entry = self._find(target, now)
        if entry is None:
            made = self._entry(source, stamp(source, *([] if mask is None else [mask])), target, mask)
            candidates = ({**made, "settings": settings} for settings in (self._settings, *self._request.accepted))
            expected = next((one for one in candidates if self._ledger.is_recorded(target, one)), None)
            if expected is None:
                return State.FOREIGN
            # The process that made it was killed before its manifest was stored.
            self._record_run(can_wait=False)
            self._ledger.append({**expected, "result": now}, can_wait=False)
            self._add_entry({**expected, "result": now})
            return State.DONE
        if entry["settings"] not in self._accepted:
            is_same = entry.get("model", self._model) == self._model  # earlier versions did not record it
            return State.OTHER_SETTINGS if is_same else State.OTHER_MODEL
        if self._is_made_from(entry, source, mask):
            return State.DONE
        return State.OUTDATED if entry["place"] == self._place(source) else State.FOREIGN

    def refresh(self, target: Location) -> None:
        """Check again whether the target exists: another process may have made it in the meantime."""
        self._ledger.refresh(target)

    def record(
        self,
        source: Location,
        source_stamp: Stamp,
        target: Location,
        whole: Path,
        mask: Location | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        """Add an entry for a finished file; see `Ledger.add`.

        source_stamp: of the source, and of its mask if there is one, as they were read.
        whole: the finished file, under its temporary name. overwrite: whether it may replace any file.
        """
        self._record_run(can_wait=False)
        entry = self._entry(source, source_stamp, target, mask)
        entry["sha256"] = _hash_inputs(source, mask, source_stamp)
        self._ledger.add(target, whole, entry, overwrite=overwrite)
        self._add_entry(entry)

    def record_outcome(self, source: Location, target: Location, outcome: Mapping[str, Any]) -> None:
        """Add what happened to a picture, for `pellucid status`.

        Failures alone do not create the folder, unless other processes of the same run may have results.
        """
        can_wait = self._request.journal is None
        self._record_run(can_wait=can_wait)
        names = {"target": self._key(target), "place": self._place(source), "settings": self._settings}
        self._ledger.append({**outcome, **names, "at_s": round(time.time(), 3)}, can_wait=can_wait)

    def find_outcome(self, target: Location) -> Mapping[str, Any] | None:
        """The last recorded outcome of a result with these settings."""
        return self._entries.find_outcome(self._key(target), self._accepted)

    def find_entry(self, target: Location) -> Entry | None:
        """The entry of an existing result."""
        now = self._ledger.stamp(target)
        return self._find(target, now) if now else None

    def learn_entry(self, entry: Entry) -> None:
        """Add the entry of an existing result that another process has found."""
        self._add_entry(entry)

    def announce(self) -> None:
        """Record the run before its first result: processes on other computers look for the file, to check that
        they have access to the folder."""
        self._is_run_recorded = True
        self._ledger.append(self._describe_run(), can_wait=False)

    def close(self) -> None:
        """Store all entries."""
        self._ledger.close()

    def _find(self, target: Location, now: Stamp) -> Entry | None:
        """The entry of a result; reads new entries of other processes if it is not known."""
        entry = self._entries.find(self._key(target), now)
        if entry is None:
            self._ledger.read_new(self._entries)
            entry = self._entries.find(self._key(target), now)
        return entry

    def _record_run(self, *, can_wait: bool) -> None:
        """Add a line with everything that status and reports need, unless it exists."""
        with self._lock:
            if self._is_run_recorded:
                return
            self._is_run_recorded = True
        run = self._describe_run()
        if run not in self._entries.runs:
            self._ledger.append(run, can_wait=can_wait)

    def _describe_run(self) -> dict[str, Any]:
        request = self._request
        run = {
            "run": {"model": request.model, **request.facts},
            "root": real_name(self._folder),
            "settings": self._settings,
            "described": dict(request.settings),
            "plan": request.plan,
            "shard": None if request.shard is None else str(request.shard),
            **({"accepted": list(request.accepted)} if request.accepted else {}),
        }
        return json.loads(json.dumps(run, default=str))

    def _add_entry(self, entry: Entry) -> None:
        self._entries.add(entry)

    def _entry(self, source: Location, source_stamp: Stamp, target: Location, mask: Location | None) -> Entry:
        """An entry without the stamp of the result."""
        return {
            "target": self._key(target),
            "source": [source.name, *source_stamp],
            "place": self._place(source),
            **({} if mask is None else {"mask": self._place(mask)}),
            "settings": self._settings,
            "model": self._model,
        }

    def _is_made_from(self, entry: Entry, source: Location, mask: Location | None) -> bool:
        """Whether an entry was made from these files: by place, size and time or, if only sizes agree, by content.

        Files in other places may have the same size and time, e.g. uncompressed ones from an archive. Objects of a
        bucket have tags instead, which depend on the content.
        """
        inputs = [source] if mask is None else [source, mask]
        (name, *expected), found = entry["source"], stamp(*inputs)
        if name != source.name:
            return False
        places = [self._place(one) for one in inputs]
        recorded = [entry["place"], entry.get("mask", places[-1])]  # earlier versions did not record masks
        moved = [
            one != before
            for path, one, before in zip(inputs, places, recorded, strict=False)
            if isinstance(path, Path)
        ]
        if expected == found and not any(moved):
            return True
        if expected[::2] != found[::2] or len(found) != 2 * len(inputs) or entry.get("sha256") is None:
            return False
        facts = entry["target"], *places, *found
        if facts not in self._compared:
            self._compared[facts] = entry["sha256"] == _hash_inputs(source, mask, found)
            if self._compared[facts]:  # recorded, so that the next run need not read the files again
                renewed = {**entry, "source": [name, *found], "place": places[0]}
                renewed |= {} if mask is None else {"mask": places[1]}
                self._ledger.append(renewed, can_wait=False)
                self._add_entry(renewed)
        return self._compared[facts]

    def _place(self, source: Location) -> str:
        """The path of a source relative to this folder, to distinguish files of the same name."""
        place = self._names.find(source)
        if isinstance(source, Url) or isinstance(self._folder, Url):
            return place
        folder, name = os.path.split(place)
        relative = self._find_relative(folder)
        return place if relative is None else f"{relative}{name}"

    def _relate(self, folder: str) -> str | None:
        """What is in front of the name in the path of a file relative to this folder; None on another drive.

        folder: the real path of that of the file.
        """
        try:
            relative = Path(os.path.relpath(folder, os.path.realpath(str(self._folder)))).as_posix()
        except ValueError:  # on another drive of Windows
            return None
        return "" if relative == "." else f"{relative}/"

    def _key(self, target: Location) -> str:
        if isinstance(target, Url) and isinstance(self._folder, Url):
            return target.relative_to(self._folder).as_posix()
        inside = str(target).removeprefix(f"{self._folder}{os.sep}")
        if inside != str(target) and ".." not in inside:
            return inside.replace(os.sep, "/")  # a fifth of the time of `relpath`
        return Path(os.path.relpath(str(target), str(self._folder))).as_posix()


class Manifests:
    """The manifests of all folders of results.

    team: the name of a run on several computers, if another process of it directs this one; see `Manifest` and
        `Leases`.
    """

    def __init__(self, request: Request, overwrite: bool, *, team: str | None = None) -> None:
        self.request, self._overwrite, self._team = request, overwrite, team
        self._by_root: dict[Location, Manifest] = {}
        self._claims: dict[Location, Claims | Leases] = {}
        self._lock = Lock()

    def check_folders(self, jobs: Sequence[Job]) -> None:
        """Raise OutputError or StorageError, before any work and only once, if results cannot be written there."""
        checked: set[Location] = set()
        for job in jobs:
            if job.root is None or job.root in checked or self.state(job) is State.DONE:
                continue
            checked.add(job.root)
            if isinstance(job.root, Url):
                claims = self._claims_in(job.root)
                assert isinstance(claims, Leases)
                claims.check()
            else:
                files.check_folder(Path(str(job.root)))
                files.check_overwrite(Path(str(job.root), NAME), overwrite=True)

    def claim(self, job: Job) -> bool:
        """Whether this process may make a result; False if another one is making it. See `Claims`."""
        manifest = self._manifest_of(job)
        if manifest is None or job.root is None:
            return True
        if isinstance(job.root, Url) and not self._overwrite and self.state(job) is State.DONE:
            return True  # known from the listing, so the requests for a claim can be saved
        is_taken = self._claims_in(job.root).take(str(job.target))
        if is_taken:
            manifest.refresh(job.target)  # another process may have finished it
        return is_taken

    def _claims_in(self, root: Location) -> Claims | Leases:
        with self._lock:
            if root not in self._claims:
                self._claims[root] = Leases(root, self._team) if isinstance(root, Url) else Claims(root)
            return self._claims[root]

    def release(self, job: Job) -> None:
        """Give up the claim, so that other processes may make this result."""
        if job.root in self._claims:
            self._claims[job.root].release(str(job.target))

    def close(self) -> None:
        """Store all entries, and release all claims."""
        try:
            for manifest in self._by_root.values():
                manifest.close()
        finally:
            for claims in self._claims.values():
                claims.close()

    def settle_names(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs; results whose names another model has used get names with the name of this model.

        They keep these names if the result of the other model is gone.
        """
        names = RealNames()
        taken = {names.find(job.target) for job in jobs}
        settled = []
        for job in jobs:
            own = job.target_of_model
            if own is None:
                own = job.target.with_name(f"{job.target.stem}-{self.request.model}{job.target.suffix}")
            renamed, state = replace(job, target=own), self.state(job)
            is_other = state is State.OTHER_MODEL or (
                state is State.MISSING and self.state(renamed) in (State.DONE, State.OUTDATED)
            )
            renames = is_other and not self._overwrite and names.find(own) not in taken
            settled.append(renamed if renames else job)
        return settled

    def is_done(self, job: Job) -> bool:
        """Whether there is nothing to do. Raises OutputError if another file has the name of the result."""
        state = self.state(job)
        if state in (State.FOREIGN, State.OTHER_SETTINGS, State.OTHER_MODEL) and not self._overwrite:
            origin = "" if state is State.FOREIGN else f" and was {state.value}"
            raise OutputError(f"{job.target} exists{origin}", hint="{overwrite} replaces it", overwrite=True)
        if (state is State.MISSING or self._overwrite) and isinstance(job.target, Path):
            if job.root is not None:  # it is named by a pattern
                files.check_name(job.target, hint="choose shorter names by {name}")
            files.check_overwrite(job.target, overwrite=True)
        return state is State.DONE and not self._overwrite

    def may_replace(self, job: Job) -> bool:
        """Whether the result may overwrite the existing file."""
        return self._overwrite or self.state(job) is State.OUTDATED

    def record(self, job: Job, source_stamp: Stamp, whole: Path) -> None:
        """Add an entry for a result that is about to be renamed to its final name; see `Manifest.record`.

        This also uploads a result in a bucket.
        """
        manifest = self._manifest_of(job)
        if manifest is not None:
            manifest.record(job.source, source_stamp, job.target, whole, job.mask, overwrite=self._overwrite)
        elif isinstance(job.target, Url):
            store(whole, job.target, overwrite=self._overwrite)

    def record_outcome(self, job: Job, outcome: Mapping[str, Any]) -> None:
        """Add what happened to a picture; see `Manifest.record_outcome`."""
        manifest = self._manifest_of(job)
        if manifest is not None:
            manifest.record_outcome(job.source, job.target, outcome)

    def find_outcome(self, job: Job) -> Mapping[str, Any] | None:
        """See `Manifest.find_outcome`."""
        manifest = self._manifest_of(job)
        return None if manifest is None else manifest.find_outcome(job.target)

    def find_entry(self, job: Job) -> Entry | None:
        """See `Manifest.find_entry`."""
        manifest = self._manifest_of(job)
        return None if manifest is None else manifest.find_entry(job.target)

    def learn_entry(self, job: Job, entry: Entry) -> None:
        """See `Manifest.learn_entry`."""
        manifest = self._manifest_of(job)
        if manifest is not None:
            manifest.learn_entry(entry)

    def announce(self, jobs: Iterable[Job]) -> None:
        """See `Manifest.announce`; in all folders of these jobs."""
        for job in jobs:
            manifest = self._manifest_of(job)
            if manifest is not None:
                manifest.announce()

    def refresh(self, job: Job) -> None:
        """See `Manifest.refresh`."""
        manifest = self._manifest_of(job)
        if manifest is not None:
            manifest.refresh(job.target)

    def state(self, job: Job) -> State:
        """See `Manifest.state`."""
        manifest = self._manifest_of(job)
        if manifest is not None:
            return manifest.state(job.source, job.target, job.mask)
        target = job.target
        exists = objects.stat(target) is not None if isinstance(target, Url) else os.path.lexists(target)
        return State.FOREIGN if exists else State.MISSING

    def _manifest_of(self, job: Job) -> Manifest | None:
        if job.root is None:
            return None
        if job.root not in self._by_root:
            # If two threads get here at once, both use the manifest of the first.
            self._by_root.setdefault(
                job.root, Manifest(job.root, self.request, is_directed=self._team is not None)
            )
        return self._by_root[job.root]


def _hash_inputs(source: Location, mask: Location | None, stamps: Stamp) -> list[str] | None:
    """SHA-256 of local files, if their stamps have not changed; otherwise None."""
    inputs = [source] if mask is None else [source, mask]
    try:
        hashes = [files.sha256(path) for path in inputs if isinstance(path, Path)]
    except OSError:
        return None
    return hashes if len(hashes) == len(inputs) and stamp(*inputs) == stamps else None
