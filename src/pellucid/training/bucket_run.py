"""A run in a bucket: a run folder in the cache of this computer, whose files are uploaded in the background.

RUN/latest.json   the newest state: its step, and the object and SHA-256 of each of its files
RUN/state/        checkpoints, run.json, metrics and weights; names contain a hash, so objects are never replaced
RUN/owner.json    which process trains; see `storage.ownership`
RUN/...           copies of weights.safetensors, metrics.jsonl, validation/ etc., as in a run folder, for users

A state is uploaded completely before latest.json refers to it, and older states are deleted afterwards. Another
machine resumes from latest.json, or from the previous checkpoint if the newest one is damaged. Each new owner
replaces latest.json before it starts, so a former owner, which has an outdated e-tag, cannot replace it any more.
A thread is enough for uploading, because the client releases the GIL.
"""

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Condition, Thread
from typing import Any

from pellucid.errors import OutputError, PellucidError, StorageError
from pellucid.storage import cache, objects
from pellucid.storage.ownership import Ownership
from pellucid.storage.urls import Tag, Url
from pellucid.system.files import sha256 as hash_file
from pellucid.training.stopping import Stopped

FORMAT = 1
FLUSH_S = 25.0
"""How long a stopped training waits for its uploads; clusters send SIGKILL 30 s after SIGTERM by default."""
MIN_RELEASE_S = 1.0
"""The least time for recording that the training has ended, even if FLUSH_S is used up."""
RETRY_AFTER_S = (2.0, 5.0, 10.0, 30.0)
"""Delays before the retries of a failed upload; the last one is used for all further retries."""
MAX_FINAL_TRIES = 10
"""After this many failed uploads in a row, a training that has done all its steps gives up."""

_STATE = re.compile(r"run\.json|metrics\.jsonl|weights\.safetensors|checkpoints/step-\d+\.safetensors")
"""Names of files that a training needs to resume."""
_NEVER_EDITED = (".safetensors", ".png")
"""Files that are replaced as a whole, never changed in place, so a hard link is enough for a snapshot."""

Json = dict[str, Any]
Log = Callable[[str], None]


@dataclass(frozen=True)
class _File:
    """A file of a state. key: the name of its object, relative to the run."""

    key: str
    sha256: str


@dataclass(frozen=True)
class _Snapshot:
    """The files of a run as they were after a step."""

    step: int
    folder: Path
    taken_at_s: float

    def list_names(self) -> list[str]:
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in paths)


def local_folder(url: Url) -> Path:
    """The folder in the cache of this computer for a run in a bucket."""
    return cache.choose_folder("runs", url.as_folder()) / (url.name or url.bucket)


@contextmanager
def open_bucket_run(url: Url, log: Log) -> Iterator["BucketRun"]:
    """Open a run in a bucket, with a local copy of its files, for this process only.

    On exit, remaining files are uploaded. If an exception ends the training, this takes FLUSH_S at most, counted
    from the exception or, for `Stopped`, from the signal.
    Raises OutputError if another process trains it, and StorageError as `storage.objects` does.
    """
    url = url.as_folder()
    _read_latest(url)  # raises before anything is stored in a folder that is not a run
    ownership = Ownership(url, "trained")
    ownership.take(log)
    end_s: float | None = None
    try:
        run = BucketRun(url, ownership, log)
        run.fetch()
        try:
            yield run
        except BaseException as error:
            end_s = FLUSH_S + (error.received_s if isinstance(error, Stopped) else time.monotonic())
            run.flush(end_s)
            raise
        run.flush(None)
    finally:
        ownership.release(None if end_s is None else max(MIN_RELEASE_S, end_s - time.monotonic()))


class BucketRun:
    """See `open_bucket_run`. folder: the run folder on this computer."""

    def __init__(self, url: Url, ownership: Ownership, log: Log) -> None:
        self.url, self.folder = url, local_folder(url)
        self._ownership, self._log = ownership, log
        self._snapshots, self._id_file = self.folder.parent / "snapshots", self.folder.parent / "run-id"
        self._latest, self._tag = _read_latest(url)
        self._stored_copies: dict[str, tuple[int, str]] = {}
        self._waiting: _Snapshot | None = None
        self._is_uploading, self._is_closed, self._num_failures = False, False, 0
        self._error: PellucidError | None = None
        self._changed = Condition()
        self._uploaded_at_s = time.monotonic()
        self._thread = Thread(target=self._upload_snapshots, name="uploading", daemon=True)
        shutil.rmtree(self._snapshots, ignore_errors=True)  # of a process that was killed

    @property
    def step(self) -> int:
        """The step of the state that is in the bucket."""
        return int(self._latest["step"])

    @property
    def behind_s(self) -> float:
        """The age in seconds of the state in the bucket; 0 if everything that was saved is uploaded."""
        with self._changed:
            is_behind = self._waiting is not None or self._is_uploading
            return time.monotonic() - self._uploaded_at_s if is_behind else 0.0

    def fetch(self) -> None:
        """Download the state in the bucket, unless the local folder has a newer state of the same run.

        Also replaces latest.json, so that no former owner can replace it any more.
        """
        self._replace_latest(self._latest)
        files = {name: _File(**file) for name, file in self._latest["files"].items()}
        self._delete_unused({file.key for file in files.values()})
        try:
            if not self._is_same_run():
                shutil.rmtree(self.folder, ignore_errors=True)
            if files and not self._is_ahead():
                self._fetch_files(files)
            self._id_file.parent.mkdir(parents=True, exist_ok=True)
            self._id_file.write_text(self._latest["run"])
        except OSError as error:
            raise StorageError(
                f"{self.url} cannot be copied to {self.folder}: {error.strerror or error}",
                hint="set the environment variable PELLUCID_CACHE to another folder",
            ) from error

    def save(self, step: int) -> None:
        """Upload the run folder as it is now, in the background, instead of a snapshot that still waits.

        Raises OutputError if another process has taken over the run.
        """
        self.check()
        snapshot = self._take_snapshot(step)
        with self._changed:
            replaced, self._waiting = self._waiting, snapshot
            if not self._thread.is_alive() and not self._is_closed:
                self._thread.start()
            self._changed.notify_all()
        if replaced is not None:
            shutil.rmtree(replaced.folder, ignore_errors=True)
            self._log(
                f"uploading is slower than saving: step {replaced.step} is not uploaded, and {self.url} is "
                f"{self.behind_s:.0f} s behind"
            )

    def check(self) -> None:
        """Raise the error that ended the uploads, if one did."""
        self._ownership.check()
        if self._error is not None:
            raise self._error

    def flush(self, end_s: float | None) -> None:
        """Wait until everything is uploaded, then stop uploading.

        end_s: the deadline, by `time.monotonic`; if it passes, a message reports what is only on this computer.
            None waits until everything is uploaded, and raises StorageError after MAX_FINAL_TRIES failures.
        """
        with self._changed:
            self._num_failures = 0
            self._changed.notify_all()
            while (self._waiting is not None or self._is_uploading) and self._error is None:
                if end_s is not None and time.monotonic() > end_s:
                    break
                if end_s is None and self._num_failures >= MAX_FINAL_TRIES:
                    break
                self._changed.wait(0.2)
            is_complete = self._waiting is None and not self._is_uploading
            self._is_closed = True
            self._changed.notify_all()
        if is_complete and self._error is None:
            return
        facts = f"{self.url} has step {self._latest['step']}; the later ones are only in {self.folder}"
        if end_s is not None:
            self._log(facts)
            return
        self.check()
        raise StorageError(facts, hint="the same command uploads them")

    # Uploading

    def _take_snapshot(self, step: int) -> _Snapshot:
        folder = self._snapshots / f"{step}-{time.monotonic_ns()}"
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder)
            if not path.is_file() or any(part.startswith(".") for part in name.parts) or path.suffix == ".refused":
                continue
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in _NEVER_EDITED:
                _link(path, copy)
            else:
                shutil.copy2(path, copy)
        return _Snapshot(step, folder, time.monotonic())

    def _upload_snapshots(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._is_closed)
                if self._waiting is None or self._is_closed:
                    return
                snapshot, self._waiting, self._is_uploading = self._waiting, None, True
            error = self._try_upload(snapshot)
            with self._changed:
                self._is_uploading = False
                self._num_failures = 0 if error is None else self._num_failures + 1
                if isinstance(error, StorageError) and self._waiting is None:
                    self._waiting = snapshot
                elif error is None or isinstance(error, StorageError):
                    shutil.rmtree(snapshot.folder, ignore_errors=True)
                else:
                    self._error = error
                self._changed.notify_all()
                if self._error is not None:
                    return
                if error is not None:
                    wait_s = RETRY_AFTER_S[min(self._num_failures, len(RETRY_AFTER_S)) - 1]
                    self._log(f"step {snapshot.step} is not uploaded: {error}; trying again in {wait_s:.0f} s")
                    self._changed.wait_for(lambda: self._is_closed, timeout=wait_s)

    def _try_upload(self, snapshot: _Snapshot) -> PellucidError | None:
        try:
            self._upload(snapshot)
        except PellucidError as error:
            return error
        except OSError as error:
            return StorageError(f"{snapshot.folder} cannot be read: {error.strerror or error}")
        except (
            Exception
        ) as error:  # of any class: it would only end this thread, and the training would wait forever
            return PellucidError(f"uploading to {self.url} failed ({type(error).__name__}: {error})")
        return None

    def _upload(self, snapshot: _Snapshot) -> None:
        """Upload the files of a state, then latest.json, then the copies for users; delete older states."""
        names = snapshot.list_names()
        former = {file["key"] for file in self._latest["files"].values()}
        files = {name: self._describe(snapshot.folder / name, name) for name in names if _is_state(name)}
        for name, file in files.items():
            if file.key not in former:
                objects.put(snapshot.folder / name, self.url / file.key)
        self._ownership.check()
        self._replace_latest({"step": snapshot.step, "files": {name: vars(file) for name, file in files.items()}})
        with self._changed:
            self._uploaded_at_s = snapshot.taken_at_s
        self._put_copies(snapshot, [name for name in names if not name.startswith("checkpoints/")])
        self._delete_unused({file.key for file in files.values()})

    def _describe(self, path: Path, name: str) -> _File:
        digest, pure = hash_file(path), PurePosixPath(name)
        return _File(f"state/{pure.with_name(f'{pure.stem}-{digest[:16]}{pure.suffix}')}", digest)

    def _put_copies(self, snapshot: _Snapshot, names: list[str]) -> None:
        """Upload copies for users; pellucid never reads them."""
        for name in names:
            path = snapshot.folder / name
            state = path.stat().st_size, hash_file(path)
            if self._stored_copies.get(name) != state:
                self._ownership.confirm()
                objects.put(path, self.url / name)
                self._stored_copies[name] = state

    def _replace_latest(self, state: Mapping[str, Any]) -> None:
        """Replace latest.json, unless another process has replaced it."""
        state = {
            "format": FORMAT,
            "run": self._latest["run"],
            "owner": self._ownership.number,
            "step": state["step"],
            "files": state["files"],
        }
        content, url = json.dumps(state, indent=1).encode(), self.url / "latest.json"
        try:
            self._tag = (
                objects.put_new(content, url)
                if self._tag is None
                else objects.put(content, url, e_tag=self._tag.e_tag)
            )
        except OutputError as error:
            raise OutputError(
                f"another process has taken over {self.url}", hint="nothing more is written there"
            ) from error
        self._latest = state

    # Fetching

    def _is_same_run(self) -> bool:
        """Whether the local folder belongs to this run, not to an earlier run at the same URL."""
        return self._id_file.is_file() and self._id_file.read_text() == self._latest["run"]

    def _is_ahead(self) -> bool:
        """Whether the local folder is newer than the bucket, because a process here ended before its upload."""
        newest = max((self.folder / "checkpoints").glob("step-*.safetensors"), default=None)
        return newest is not None and newest.stem > f"step-{self._latest['step']:09}"

    def _fetch_files(self, files: Mapping[str, _File]) -> None:
        for path in self.folder.glob("checkpoints/step-*"):
            if f"checkpoints/{path.name}" not in files:
                path.unlink()
        for name, file in files.items():
            path = self.folder / name
            if path.is_file() and hash_file(path) == file.sha256:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")
            if self._fetch_file(file, part):
                part.replace(path)
            else:
                part.unlink(missing_ok=True)
                path.unlink(missing_ok=True)

    def _fetch_file(self, file: _File, path: Path) -> bool:
        """Download a file and check its hash; returns False for a damaged checkpoint, which is then not used."""
        url = self.url / file.key
        with suppress(StorageError):
            if objects.stat(url) is not None:
                objects.fetch(url, path)
                if hash_file(path) == file.sha256:
                    return True
        facts = f"{url} is missing or damaged: its SHA-256 differs from that in latest.json"
        if not file.key.startswith("state/checkpoints/"):
            raise StorageError(facts, hint="choose another {out}")
        self._log(f"{facts}; resuming from the previous checkpoint")
        return False

    def _delete_unused(self, keys: set[str]) -> None:
        """Delete the objects of older states, and of states whose upload was interrupted. keys: those in use."""
        for url in list(objects.list_objects(self.url / "state")):
            if url.relative_to(self.url).as_posix() not in keys:
                objects.delete(url)


def _is_state(name: str) -> bool:
    return _STATE.fullmatch(name) is not None


def _read_latest(run: Url) -> tuple[Json, Tag | None]:
    url = run / "latest.json"
    if objects.stat(url) is None:
        if next((found for found in objects.list_objects(run) if found.name != "owner.json"), None) is not None:
            raise OutputError(f"{run} contains other objects", hint="choose another {out}")
        return {"run": secrets.token_hex(8), "step": 0, "files": {}}, None
    content, tag = objects.read(url)
    try:
        latest = json.loads(content)
        if latest["format"] != FORMAT:
            raise OutputError(f"{run} is a run of format {latest['format']}; this version reads format {FORMAT}")
        files = {name: vars(_File(**file)) for name, file in latest["files"].items()}
        if not all(_is_state(name) and file["key"].startswith("state/") for name, file in files.items()):
            raise ValueError
        return {"run": str(latest["run"]), "step": int(latest["step"]), "files": files}, tag
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{url} is damaged", hint="choose another {out}") from error


def _link(path: Path, copy: Path) -> None:
    try:
        os.link(path, copy)
    except OSError:  # a file system without links
        shutil.copy2(path, copy)
