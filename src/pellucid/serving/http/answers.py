"""What the API tells about pictures, jobs and models, as JSON."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pellucid.serving.http.guards import Links
from pellucid.serving.problems import Problem
from pellucid.serving.records import FINISHED, BatchRecord, JobRecord, Upload
from pellucid.serving.service import Service
from pellucid.system.wording import format_count


class Advice(BaseModel):
    """A model for a problem of the picture."""

    model: str
    problem: str
    reason: str


class PictureInfo(BaseModel):
    """A picture that was sent."""

    id: str
    name: str
    kind: str = Field(description="The file format, by its content.")
    pixels: int
    pages: int
    bytes: int
    advice: list[Advice] = Field(description="Models that suit it, the best first; may be empty.")


class FileInfo(BaseModel):
    """One picture of a job."""

    name: str
    result: str | None = Field(description="The name of the result.")
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: float
    error: str | None
    notes: list[str] = Field(description="How it was read, and what the result does not contain.")
    warnings: list[str] = Field(description="Why the result may be worse than expected.")
    url: str | None = Field(description="Where the result is; works without a token.")


class JobInfo(BaseModel):
    """Pictures that are restored in the same way."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    model: str
    options: dict[str, Any]
    progress: float = Field(description="0 to 1.")
    waiting_before: int | None = Field(description="Number of pictures before it in the queue.")
    created_s: float = Field(description="Seconds since 1970.")
    finished_s: float | None
    files: list[FileInfo]
    result_url: str | None = Field(description="One file, or a zip of several; works without a token.")


class BatchSummary(BaseModel):
    """A folder or bucket that is restored into another one."""

    model_config = ConfigDict(populate_by_name=True)

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"] = Field(
        description="done: everything is restored. failed: something is not, see failures; the rest is."
    )
    source: str = Field(alias="in")
    out: str
    model: str
    options: dict[str, Any]
    waiting_before: int | None = Field(description="Number of batches before it; null if it does not wait.")
    num_pictures: int | None = Field(description="Of its last run; null before they are listed.")
    num_restored: int = Field(description="By its last run.")
    num_skipped: int = Field(description="Results that existed before this run, e.g. before a restart.")
    num_failed: int
    megapixels: float = Field(description="Restored by its last run, before enlarging.")
    pictures_per_minute: float | None = Field(description="Of its last run.")
    left_s: float | None = Field(description="Estimated seconds until it is finished.")
    picture: str | None = Field(description="The picture that is being restored.")
    created_s: float = Field(description="Seconds since 1970.")
    started_s: float | None
    finished_s: float | None
    report_url: str | None = Field(description="Where the report of `pellucid restore --json` is.")


class BatchInfo(BatchSummary):
    """A batch with all that it reports."""

    failures: list[str] = Field(description="What failed, one line each, at most 1000; the report has all.")
    warnings: list[str] = Field(description="Why results may be worse than expected.")


class ModelInfo(BaseModel):
    """A model that can be used."""

    name: str
    corrects: list[str]
    recipe: str
    scale: int = Field(description="Sides of the result are this many times as long.")
    takes_raw_only: bool = Field(description="Whether it needs a camera RAW file.")
    gives_raw: bool = Field(description="Whether the result is a camera RAW file (DNG).")
    colors: str
    license: str
    scores: list[dict[str, Any]]


def describe_picture(service: Service, upload: Upload) -> PictureInfo:
    """Models that were advised before a restart, and are not offered any more, are left out."""
    advice = [Advice(**one) for one in upload.about["advice"] or []]
    return PictureInfo(
        id=upload.id,
        name=upload.name,
        kind=upload.about["kind"],
        pixels=upload.about["pixels"],
        pages=upload.about["pages"],
        bytes=upload.num_bytes,
        advice=[one for one in advice if one.model in service.models],
    )


def describe_job(service: Service, links: Links, job: JobRecord) -> JobInfo:
    place = f"/v1/jobs/{job.id}"
    described = [
        FileInfo(
            name=task.name,
            result=result_name(job, number) if task.state == "done" else None,
            state=task.state,
            progress=1.0 if task.state == "done" else task.progress,
            error=task.error,
            notes=task.about.get("info", []),
            warnings=task.about.get("warnings", []),
            url=links.sign(f"{place}/files/{number}") if task.state == "done" else None,
        )
        for number, task in enumerate(job.tasks)
    ]
    is_done = job.state == "done"
    return JobInfo(
        id=job.id,
        state=job.state,
        model=job.model,
        options=job.options,
        progress=job.progress,
        waiting_before=service.queue_position(job),
        created_s=job.created_s,
        finished_s=job.finished_s,
        files=described,
        result_url=links.sign(f"{place}/result") if is_done else None,
    )


def summarize_batch(service: Service, batch: BatchRecord) -> BatchSummary:
    return BatchSummary(**_describe_run(service, batch))


def describe_batch(service: Service, batch: BatchRecord) -> BatchInfo:
    return BatchInfo(**_describe_run(service, batch), failures=batch.failures, warnings=batch.warnings)


def _describe_run(service: Service, batch: BatchRecord) -> dict[str, Any]:
    same = BatchSummary.model_fields.keys() - {"waiting_before", "pictures_per_minute", "report_url"}
    pace = batch.num_restored / batch.elapsed_s * 60 if batch.num_restored and batch.elapsed_s else None
    return {
        **{name: getattr(batch, name) for name in same},
        "waiting_before": service.batches.queue_position(batch),
        "pictures_per_minute": pace,
        "report_url": f"/v1/batches/{batch.id}/report" if batch.report_bytes else None,
    }


def problem_of(job: JobRecord) -> Problem:
    task = job.tasks[0]
    if task.state == "cancelled":
        return Problem(409, "cancelled", "the job was cancelled")
    if task.error_kind == "option":
        return Problem(400, "an option that is not possible", task.error or "unknown")
    status = {"memory": 413, "storage": 507, "model": 500, "fault": 500}.get(task.error_kind or "", 422)
    return Problem(status, "the picture cannot be restored", task.error or "unknown")


def check_done(job: JobRecord) -> list[int]:
    """The numbers of the finished pictures. Raises Problem if the job is not finished, or nothing succeeded."""
    if job.state not in FINISHED:
        raise Problem(409, "not finished", f"the job is {job.state}, {job.progress:.0%} are done")
    done = [number for number, task in enumerate(job.tasks) if task.state == "done"]
    if not done:
        raise problem_of(job)
    return done


def check_file(job: JobRecord, number: int) -> None:
    if number >= len(job.tasks):
        raise Problem(
            404, "no such picture", f"the job has {format_count(len(job.tasks), 'picture')}, counted from 0"
        )
    if job.tasks[number].state != "done":
        raise Problem(409, "no result", f"this picture is {job.tasks[number].state}")


def result_name(job: JobRecord, number: int) -> str:
    task = job.tasks[number]
    return f"{Path(task.name).stem or 'picture'}-restored{Path(task.about['file']).suffix}"
