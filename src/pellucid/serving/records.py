"""What the service knows of uploads, jobs and batches: in SQLite and in files, so that it survives a restart."""

import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pellucid.errors import DataError

State = Literal["queued", "running", "done", "failed", "cancelled"]
FINISHED: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass
class Upload:
    """A picture that a client sent.

    name: as the client calls it; no file here has this name. is_temporary: whether it belongs to one request or
    job, and is deleted with it. about: what the worker returned: kind, pixels, pages, advice.
    """

    id: str
    name: str
    client: str
    created_s: float
    num_bytes: int
    suffix: str
    is_temporary: bool = False
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class Task:
    """One picture of a job. about: what the worker returned: file, megapixels, seconds, info, warnings, bytes."""

    upload: str
    name: str
    pixels: int
    state: State = "queued"
    progress: float = 0.0
    error: str | None = None
    error_kind: str | None = None
    attempts: int = 0
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class JobRecord:
    """Pictures that are restored in the same way. options: keywords of `Worker.restore`.

    is_kept: whether it outlives its request. zip_bytes: of the archive of all results, once it was asked for.
    """

    id: str
    client: str
    model: str
    options: dict[str, Any]
    tasks: list[Task]
    created_s: float = field(default_factory=time.time)
    finished_s: float | None = None
    is_kept: bool = True
    zip_bytes: int = 0

    @property
    def state(self) -> State:
        """Of all its pictures together; failed if none succeeded."""
        states = [task.state for task in self.tasks]
        if any(state in ("queued", "running") for state in states):
            return "queued" if all(state == "queued" for state in states) else "running"
        if "cancelled" in states:
            return "cancelled"
        return "done" if "done" in states else "failed"

    @property
    def progress(self) -> float:
        """0 to 1, by the number of pixels."""
        total = sum(task.pixels for task in self.tasks) or 1
        return sum(task.pixels * (1.0 if task.state in FINISHED else task.progress) for task in self.tasks) / total

    @property
    def num_bytes(self) -> int:
        """Disk space of the results."""
        return self.zip_bytes + sum(task.about.get("bytes", 0) for task in self.tasks)


@dataclass
class BatchRecord:
    """A folder or bucket that `pellucid restore` restores into another one.

    source, out: places, as `restore` takes them. options: as the client gave them, with their defaults left out.
    num_pictures: of the current or last run; None before they are listed. num_skipped: results that existed before
    this run. failures, warnings: one line each, at most a fixed number. attempts: runs that ended without an exit
    code, or with the whole service, since a picture was restored. is_cancelled: whether a client has asked for it.
    """

    id: str
    client: str
    source: str
    out: str
    model: str
    options: dict[str, Any]
    state: State = "queued"
    created_s: float = field(default_factory=time.time)
    started_s: float | None = None
    finished_s: float | None = None
    num_pictures: int | None = None
    num_restored: int = 0
    num_skipped: int = 0
    num_failed: int = 0
    megapixels: float = 0.0
    elapsed_s: float = 0.0
    left_s: float | None = None
    picture: str | None = None
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    attempts: int = 0
    is_cancelled: bool = False
    report_bytes: int = 0

    @property
    def num_bytes(self) -> int:
        """Disk space of its report."""
        return self.report_bytes

    def reset(self) -> None:
        """Forget what earlier runs have counted: this one lists and counts again."""
        self.num_pictures, self.num_restored, self.num_skipped, self.num_failed = None, 0, 0, 0
        self.megapixels, self.elapsed_s, self.left_s, self.picture = 0.0, 0.0, None, None
        self.failures, self.warnings, self.report_bytes = [], [], 0


def new_id() -> str:
    """Not guessable: whoever knows it may use what it names."""
    return secrets.token_urlsafe(16)


class Records:
    """Uploads, jobs and batches below a folder.

    Only one service may use a folder at a time, and only its user can read it.

    Raises DataError if the folder cannot be used. Methods that record a change raise sqlite3.Error, and those that
    write files OSError; removing raises neither.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.temporary = folder, folder / "temporary"
        self._uploads, self._jobs, self._batches = folder / "uploads", folder / "jobs", folder / "batches"
        self.uploads: dict[str, Upload] = {}
        self.jobs: dict[str, JobRecord] = {}
        self.batches: dict[str, BatchRecord] = {}
        try:
            self._open()
        except (OSError, sqlite3.Error, ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{folder} cannot be used: {getattr(error, 'strerror', None) or error}",
                hint="choose another folder by {data}",
                data=None,
            ) from error

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path, own = self.folder / "records.sqlite", (self.temporary, self._uploads, self._jobs, self._batches)
        if not path.exists():  # everything in these folders that no record names is deleted
            for folder in filter(os.path.lexists, own):
                raise ValueError(f"{folder.name} is in it, but no service has made it")
        path.touch()
        path.chmod(0o600)  # SQLite creates its other files with the same mode
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        for table in ("uploads", "jobs", "batches", "secrets"):
            self._database.execute(f"CREATE TABLE IF NOT EXISTS {table} (id TEXT PRIMARY KEY, content TEXT)")
        shutil.rmtree(self.temporary, ignore_errors=True)  # of a service that was killed
        for folder in own:  # the folder itself may be shared
            folder.mkdir(exist_ok=True)
            folder.chmod(0o700)
        self.jobs = {job.id: job for job in self._load_jobs()}
        self.uploads = {upload.id: upload for upload in self._load_uploads()}
        self.batches = {batch.id: batch for batch in self._load_batches()}
        self._remove_strays()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def link_secret(self) -> bytes:
        """What signed links are made with; the same after a restart. Links made with another one do not work."""
        given = ("link", secrets.token_hex(32))
        self._database.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", given)
        (stored,) = self._database.execute("SELECT content FROM secrets WHERE id = ?", given[:1]).fetchone()
        return bytes.fromhex(stored)

    # Files

    def upload_path(self, upload: Upload) -> Path:
        """Where the bytes of an upload are; the suffix is a short word."""
        return self._uploads / f"{upload.id}{upload.suffix}"

    def result_folder(self, job: JobRecord, number: int) -> Path:
        """The folder of the result of one picture of a job."""
        return self._jobs / job.id / str(number)

    def zip_path(self, job: JobRecord) -> Path:
        """The archive of all results of a job, if it was asked for."""
        return self._jobs / job.id / "results.zip"

    def result_path(self, job: JobRecord, number: int) -> Path:
        """The result of one picture of a job."""
        return self.result_folder(job, number) / job.tasks[number].about["file"]

    def batch_folder(self, batch: BatchRecord) -> Path:
        """The folder of the files of a batch."""
        return self._batches / batch.id

    def report_path(self, batch: BatchRecord) -> Path:
        """The report of the last run of a batch, see `report_bytes`."""
        return self.batch_folder(batch) / "report.json"

    # Records

    def take_file(self, upload: Upload, content: Path) -> None:
        """Take over a complete file. It is a stray until `save_upload`."""
        content.rename(self.upload_path(upload))

    def save_upload(self, upload: Upload) -> None:
        """Record an upload whose file was taken over."""
        self._write("uploads", upload.id, vars(upload))
        self.uploads[upload.id] = upload

    def save_job(self, job: JobRecord) -> None:
        """Record what changed, unless the job ends with its request."""
        if job.is_kept:
            self._write("jobs", job.id, vars(job) | {"tasks": [vars(task) for task in job.tasks]})
        self.jobs[job.id] = job

    def save_batch(self, batch: BatchRecord) -> None:
        """Record what changed."""
        self._write("batches", batch.id, vars(batch))
        self.batches[batch.id] = batch

    def remove(self, record: Upload | JobRecord | BatchRecord) -> None:
        """Forget an upload, a job or a batch, and delete its files here."""
        if isinstance(record, Upload):
            self.uploads.pop(record.id, None)
            with suppress(OSError):
                self.upload_path(record).unlink(missing_ok=True)
            self._delete("uploads", record.id)
        elif isinstance(record, BatchRecord):
            self.batches.pop(record.id, None)
            shutil.rmtree(self.batch_folder(record), ignore_errors=True)
            self._delete("batches", record.id)
        else:
            self.jobs.pop(record.id, None)
            shutil.rmtree(self._jobs / record.id, ignore_errors=True)
            self._delete("jobs", record.id)

    def list_used(self) -> set[str]:
        """The uploads that unfinished jobs need."""
        return {task.upload for job in self.jobs.values() for task in job.tasks if task.state not in FINISHED}

    def list_removable(self) -> list[tuple[float, Upload | JobRecord | BatchRecord]]:
        """What nothing needs any longer, the oldest first, each with its time in seconds since 1970."""
        used = self.list_used()
        jobs = [(job.finished_s, job) for job in self.jobs.values() if job.finished_s is not None and job.is_kept]
        uploads = [
            (upload.created_s, upload)
            for upload in self.uploads.values()
            if not upload.is_temporary and upload.id not in used
        ]
        batches = [(one.finished_s, one) for one in self.batches.values() if one.finished_s is not None]
        return sorted([*jobs, *uploads, *batches], key=lambda pair: pair[0])

    def kept_bytes(self) -> int:
        """Disk space of all uploads and results."""
        records: list[Upload | JobRecord | BatchRecord] = [*self.uploads.values(), *self.jobs.values()]
        return sum(record.num_bytes for record in (*records, *self.batches.values()))

    def _write(self, table: str, key: str, content: dict[str, Any]) -> None:
        self._database.execute(
            f"INSERT OR REPLACE INTO {table} VALUES (?, ?)",  # our own names
            (key, json.dumps(content)),
        )

    def _delete(self, table: str, key: str) -> None:
        with suppress(sqlite3.Error):  # a full disk: the row has no files, and is deleted at the next start
            self._database.execute(f"DELETE FROM {table} WHERE id = ?", (key,))

    def _load_uploads(self) -> Iterator[Upload]:
        used = self.list_used()
        for (content,) in self._database.execute("SELECT content FROM uploads").fetchall():
            upload = Upload(**json.loads(content))
            if self.upload_path(upload).exists() and (upload.id in used or not upload.is_temporary):
                yield upload
            else:
                self._delete("uploads", upload.id)

    def _load_jobs(self) -> Iterator[JobRecord]:
        """Work that was running when the service ended is queued again."""
        for (content,) in self._database.execute("SELECT content FROM jobs").fetchall():
            fields = json.loads(content)
            tasks = [Task(**task) for task in fields.pop("tasks")]
            for task in tasks:
                if task.state == "running":
                    task.state, task.progress = "queued", 0.0
            job = JobRecord(tasks=tasks, **fields)
            if job.state == "done" and not (self._jobs / job.id).exists():
                self._delete("jobs", job.id)
            else:
                yield job

    def _load_batches(self) -> Iterator[BatchRecord]:
        """Those that were running when the service ended are queued again, unless a client has cancelled them."""
        for (content,) in self._database.execute("SELECT content FROM batches").fetchall():
            batch = BatchRecord(**json.loads(content))
            if batch.state not in FINISHED and batch.is_cancelled:
                batch.state, batch.finished_s = "cancelled", time.time()
            elif batch.state == "running":
                batch.state = "queued"
            yield batch

    def _remove_strays(self) -> None:
        """Delete files that no record names, e.g. of a service that was killed."""
        known = {self.upload_path(upload) for upload in self.uploads.values()}
        for path in self._uploads.iterdir():
            if path not in known:
                path.unlink()
        for folder, records in ((self._jobs, self.jobs.keys()), (self._batches, self.batches.keys())):
            for path in folder.iterdir():
                if path.name not in records:
                    shutil.rmtree(path, ignore_errors=True)
