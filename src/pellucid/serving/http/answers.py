"""What the API tells about pictures, jobs and models, as JSON."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from pellucid.serving.http.guards import Links
from pellucid.serving.problems import Problem
from pellucid.serving.records import FINISHED, JobRecord, Upload
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


class ModelInfo(BaseModel):
    """A model that can be used."""

    name: str
    corrects: list[str]
    recipe: str
    scale: int = Field(description="Sides of the result are this many times as long.")
    takes_raw_only: bool = Field(description="Whether it needs a camera RAW file.")
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


def problem_of(job: JobRecord) -> Problem:
    task = job.tasks[0]
    if task.state == "cancelled":
        return Problem(409, "cancelled", "the job was cancelled")
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
