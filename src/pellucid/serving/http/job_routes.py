"""Routes that restore pictures, and follow, fetch and cancel jobs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from pellucid.serving.http.answers import JobInfo, check_done, check_file, describe_job, problem_of, result_name
from pellucid.serving.http.bodies import check_empty, client_of, receive_files, watch_client
from pellucid.serving.http.downloads import draw_view, find_zip, send_file, stream_restored
from pellucid.serving.http.guards import ClientGoneError, Links
from pellucid.serving.http.openapi import EVENTS, FOR_ALL, RESTORE, RESULT, VIEW
from pellucid.serving.http.options import Id, RestoreOptions, ViewOptions
from pellucid.serving.problems import Problem, document
from pellucid.serving.records import JobRecord, Upload
from pellucid.serving.service import Service

_PING_S = 15.0


def add_jobs(app: FastAPI, service: Service, links: Links) -> None:
    limits = service.limits

    @app.post("/v1/restore", responses=RESTORE, response_model=None, tags=["jobs"])
    async def restore(
        request: Request,
        options: Annotated[RestoreOptions, Query()],
        prefer: Annotated[str | None, Header(max_length=200, description="respond-async: always a job.")] = None,
    ) -> Response:
        """Restore pictures: the body, the files of a form, or a picture that was sent before.

        A small result comes back in the response. A large one, several, and all with `Prefer: respond-async`
        become a job (202), and `Location` is its place.
        """
        client, scale = client_of(request), service.check_model(options.model)
        service.check_accepts_work(client)
        uploads = await _take_pictures(request, service, options, client)
        most_pixels = max(options.count_pixels(upload.about["pixels"], scale) for upload in uploads)
        if options.size is not None:  # the worker knows the shape of the picture, and refuses what is too large
            most_pixels = max(most_pixels, min(options.bound_pixels(), limits.max_result_pixels))
        if most_pixels > limits.max_result_pixels:
            service.remove_temporary(uploads)
            found = f"the result would have {most_pixels / 1e6:.0f} megapixels"
            raise Problem(
                413, "the result is too large", f"{found}; the limit is {limits.max_result_pixels / 1e6:.0f}"
            )
        is_async = "respond-async" in (prefer or "") or len(uploads) > 1 or most_pixels > limits.sync_pixels
        job = await service.add_job(
            uploads,
            options.model,
            options.to_settings(),
            client,
            is_kept=is_async,
        )
        if is_async:
            location = f"/v1/jobs/{job.id}"
            content = describe_job(service, links, job).model_dump()
            return JSONResponse(content, 202, {"Location": location, "Preference-Applied": "respond-async"})
        return await _respond(request, service, job)

    @app.get("/v1/jobs/{job_id}", responses=document(404, *FOR_ALL), tags=["jobs"])
    async def job(job_id: Id) -> JobInfo:
        """State and progress of a job."""
        return describe_job(service, links, service.find_job(job_id))

    @app.delete("/v1/jobs/{job_id}", status_code=204, responses=document(404, *FOR_ALL), tags=["jobs"])
    async def delete_job(job_id: Id) -> None:
        """Cancel a job, and delete its results."""
        await service.remove_job(service.find_job(job_id))

    @app.get("/v1/jobs/{job_id}/events", responses=EVENTS, response_class=StreamingResponse, tags=["jobs"])
    async def events(job_id: Id) -> StreamingResponse:
        """Server-sent events: the job after each change; the last one is when it is finished."""
        job = service.find_job(job_id)
        if service.num_streams >= limits.max_streams:
            raise Problem(429, "too many event streams", f"{limits.max_streams} are open", retry_after_s=10)
        return _Events(service, links, job)

    @app.get("/v1/jobs/{job_id}/result", responses=RESULT, response_class=FileResponse, tags=["jobs"])
    async def result(job_id: Id, key: str | None = None) -> Response:
        """The restored file, or a zip of all that succeeded."""
        job = service.find_job(job_id)
        done = check_done(job)
        if len(job.tasks) == 1:
            return send_file(service.records.result_path(job, 0), result_name(job, 0))
        return send_file(await find_zip(service, job, done), "restored.zip")

    @app.get("/v1/jobs/{job_id}/files/{number}", responses=RESULT, response_class=FileResponse, tags=["jobs"])
    async def one_result(
        job_id: Id, number: Annotated[int, PathParameter(ge=0, le=10**6)], key: str | None = None
    ) -> Response:
        """One restored file of several."""
        job = service.find_job(job_id)
        check_file(job, number)
        return send_file(service.records.result_path(job, number), result_name(job, number))

    @app.get("/v1/jobs/{job_id}/files/{number}/view", responses=VIEW, response_class=Response, tags=["jobs"])
    async def view_result(
        request: Request,
        job_id: Id,
        number: Annotated[int, PathParameter(ge=0, le=10**6)],
        view: Annotated[ViewOptions, Query()],
    ) -> Response:
        """A part of a result as PNG in sRGB."""
        job = service.find_job(job_id)
        check_file(job, number)
        path = service.records.result_path(job, number)
        return await draw_view(service, request, path, result_name(job, number), view)


async def _take_pictures(request: Request, service: Service, options: RestoreOptions, client: str) -> list[Upload]:
    """The pictures of a request, complete and with their headers read."""
    if options.picture is not None:
        await check_empty(request)
        return [service.find_upload(options.picture)]
    uploads: list[Upload] = []
    max_files = service.limits.max_files_at_once
    async with receive_files(request, service.records.temporary, options.filename, max_files) as received:
        try:
            service.check_accepts_work(client, len(received))
            for file in received:
                uploads.append(
                    await service.add_upload(file.path, file.name, client, is_temporary=True, with_advice=False)
                )
        except BaseException:
            service.remove_temporary(uploads)
            raise
    return uploads


async def _respond(request: Request, service: Service, job: JobRecord) -> Response:
    """Wait for a job and return its result; a client that goes away cancels it."""
    try:
        async with watch_client(request) as is_gone:
            waiting = asyncio.ensure_future(service.wait(job))
            leaving = asyncio.ensure_future(is_gone.wait())
            try:
                await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    raise ClientGoneError
                await waiting
            finally:
                waiting.cancel()
                leaving.cancel()
        task = job.tasks[0]
        if task.state != "done":
            raise problem_of(job)
        content = service.records.result_path(job, 0)
        notes = [*task.about["info"], *task.about["warnings"]]
        return stream_restored(content, result_name(job, 0), notes)
    finally:
        await service.remove_job(job)


class _Events(StreamingResponse):
    """The changes of a job as server-sent events. Counted from the start, so that no burst exceeds the limit."""

    def __init__(self, service: Service, links: Links, job: JobRecord) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_stream(service, links, job), media_type="text/event-stream", headers=headers)
        self._service = service
        service.num_streams += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._service.num_streams -= 1


async def _stream(service: Service, links: Links, job: JobRecord) -> AsyncIterator[bytes]:
    changes = service.follow(job).__aiter__()
    upcoming: asyncio.Future[JobRecord] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(changes))
            done, _ = await asyncio.wait({upcoming}, timeout=_PING_S)
            if not done:
                yield b": still here\n\n"
                continue
            with suppress(StopAsyncIteration):
                content = describe_job(service, links, upcoming.result()).model_dump_json()
                yield f"event: {job.state}\ndata: {content}\n\n".encode()
                upcoming = None
                continue
            return
    finally:
        if upcoming is not None:
            upcoming.cancel()
