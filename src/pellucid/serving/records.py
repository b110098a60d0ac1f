"""What the service knows about uploads and jobs: in SQLite and in files, so that it survives a restart."""

import json
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

State = Literal["queued", "running", "done", "failed", "cancelled"]
FINISHED: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass
class Upload:
    """A picture that a client sent. name: as the client calls it; no file here has this name."""

    id: str
    name: str
    client: str
    created_s: float
    num_bytes: int
    suffix: str
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class Task:
    """One picture of a job. about: what the worker returned: file, megapixels, seconds, info, warnings."""

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

    is_kept: whether it outlives its request. owns_uploads: whether its uploads are deleted when it is finished.
    """

    id: str
    client: str
    model: str
    options: dict[str, Any]
    tasks: list[Task]
    created_s: float = field(default_factory=time.time)
    finished_s: float | None = None
    is_kept: bool = True
    owns_uploads: bool = False

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


def new_id() -> str:
    """Not guessable: whoever knows it may use what it names."""
    return secrets.token_urlsafe(16)


class Records:
    """Uploads and jobs below a folder. Only one service may use a folder at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.temporary = folder / "temporary"
        shutil.rmtree(self.temporary, ignore_errors=True)  # of a service that was killed
        self.temporary.mkdir()
        self._database = sqlite3.connect(folder / "records.sqlite", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        for table in ("uploads", "jobs"):
            self._database.execute(f"CREATE TABLE IF NOT EXISTS {table} (id TEXT PRIMARY KEY, content TEXT)")
        self.uploads = {upload.id: upload for upload in self._load_uploads()}
        self.jobs = {job.id: job for job in self._load_jobs()}
        self._remove_strays()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    # Files

    def upload_path(self, upload: Upload) -> Path:
        """Where the bytes of an upload are; the suffix is one of those that pellucid knows."""
        return self.folder / "uploads" / f"{upload.id}{upload.suffix}"

    def result_folder(self, job: JobRecord, number: int) -> Path:
        """The folder of the result of one picture of a job."""
        return self.folder / "jobs" / job.id / str(number)

    def result_path(self, job: JobRecord, number: int) -> Path:
        """The result of one picture of a job."""
        return self.result_folder(job, number) / job.tasks[number].about["file"]

    # Records

    def add_upload(self, upload: Upload, content: Path) -> None:
        """Take over a complete file."""
        path = self.upload_path(upload)
        path.parent.mkdir(exist_ok=True)
        content.rename(path)
        self.uploads[upload.id] = upload
        self.save_upload(upload)

    def save_upload(self, upload: Upload) -> None:
        """Record what changed."""
        self._write("uploads", upload.id, vars(upload))

    def save_job(self, job: JobRecord) -> None:
        """Record what changed, unless the job ends with its request."""
        self.jobs[job.id] = job
        if job.is_kept:
            self._write("jobs", job.id, vars(job) | {"tasks": [vars(task) for task in job.tasks]})

    def remove_job(self, job: JobRecord) -> None:
        """Forget a job and delete its results."""
        self.jobs.pop(job.id, None)
        self._database.execute("DELETE FROM jobs WHERE id = ?", (job.id,))
        shutil.rmtree(self.folder / "jobs" / job.id, ignore_errors=True)

    def remove_upload(self, upload: Upload) -> None:
        """Forget an upload and delete its file."""
        self.uploads.pop(upload.id, None)
        self._database.execute("DELETE FROM uploads WHERE id = ?", (upload.id,))
        self.upload_path(upload).unlink(missing_ok=True)

    def is_used(self, upload: Upload) -> bool:
        """Whether a job that is not finished needs this upload."""
        return any(
            task.upload == upload.id and task.state not in FINISHED
            for job in self.jobs.values()
            for task in job.tasks
        )

    def result_bytes(self, job: JobRecord) -> int:
        """Disk space of the results of a job."""
        return sum(path.stat().st_size for path in (self.folder / "jobs" / job.id).rglob("*") if path.is_file())

    def kept_bytes(self) -> int:
        """Disk space of all uploads and results."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def _write(self, table: str, key: str, content: dict[str, Any]) -> None:
        self._database.execute(
            f"INSERT OR REPLACE INTO {table} VALUES (?, ?)",  # our own names
            (key, json.dumps(content)),
        )

    def _load_uploads(self) -> Iterator[Upload]:
        for (content,) in self._database.execute("SELECT content FROM uploads"):
            upload = Upload(**json.loads(content))
            if self.upload_path(upload).exists():
                yield upload

    def _load_jobs(self) -> Iterator[JobRecord]:
        """Work that was running when the service ended is queued again."""
        for (content,) in self._database.execute("SELECT content FROM jobs"):
            fields = json.loads(content)
            tasks = [Task(**task) for task in fields.pop("tasks")]
            for task in tasks:
                if task.state == "running":
                    task.state, task.progress = "queued", 0.0
            yield JobRecord(tasks=tasks, **fields)

    def _remove_strays(self) -> None:
        """Delete files that no record names, e.g. of a service that was killed."""
        known = {self.upload_path(upload) for upload in self.uploads.values()}
        for path in (self.folder / "uploads").glob("*"):
            if path not in known:
                path.unlink()
        for path in (self.folder / "jobs").glob("*"):
            if path.name not in self.jobs:
                shutil.rmtree(path, ignore_errors=True)
