"""Routes that restore folders and buckets, and follow and cancel that."""

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import ValidationError

from pellucid.serving.http.answers import BatchInfo, BatchSummary, describe_batch, summarize_batch
from pellucid.serving.http.bodies import client_of, receive_json
from pellucid.serving.http.downloads import send_file
from pellucid.serving.http.openapi import BATCH, END_BATCH, FOR_ALL, REPORT
from pellucid.serving.http.options import BatchOptions, Id
from pellucid.serving.problems import Problem, document
from pellucid.serving.records import FINISHED
from pellucid.serving.service import Service


def add_batches(app: FastAPI, service: Service) -> None:
    queue = service.batches

    @app.post("/v1/batches", status_code=202, responses=BATCH, tags=["batches"])
    async def add_batch(request: Request, response: Response) -> BatchInfo:
        """Restore a folder or a bucket into another one, both below prefixes that the operator allows.

        Existing results of the same inputs are skipped, so the same request resumes.
        """
        queue.check_enabled()
        service.check_ready()
        options = _check(await receive_json(request, service.limits.max_batch_bytes))
        service.check_model(options.model)
        batch = queue.add(options.source, options.out, options.model, options.to_arguments(), client_of(request))
        response.headers["Location"] = f"/v1/batches/{batch.id}"
        return describe_batch(service, batch)

    @app.get("/v1/batches", responses=document(*FOR_ALL), tags=["batches"])
    async def batches() -> list[BatchSummary]:
        """All batches, the newest first."""
        queue.check_enabled()
        return [summarize_batch(service, batch) for batch in queue.list_batches()]

    @app.get("/v1/batches/{batch_id}", responses=document(404, *FOR_ALL), tags=["batches"])
    async def one_batch(batch_id: Id) -> BatchInfo:
        """State and progress of a batch, and what failed."""
        queue.check_enabled()
        return describe_batch(service, queue.find(batch_id))

    @app.delete(
        "/v1/batches/{batch_id}", status_code=204, responses=END_BATCH, response_model=None, tags=["batches"]
    )
    async def delete_batch(batch_id: Id) -> Response:
        """Cancel a batch, which finishes the pictures in progress; or delete a finished one from the list.

        Results stay where they are.
        """
        queue.check_enabled()
        batch = queue.find(batch_id)
        if batch.state in FINISHED:
            service.records.remove(batch)
            return Response(status_code=204)
        queue.cancel(batch)
        return JSONResponse(describe_batch(service, batch).model_dump(by_alias=True), 202)

    @app.get("/v1/batches/{batch_id}/report", responses=REPORT, response_class=FileResponse, tags=["batches"])
    async def report(batch_id: Id) -> Response:
        """What happened to every picture in the last run, as `pellucid restore --json` writes it."""
        queue.check_enabled()
        batch = queue.find(batch_id)
        if not batch.report_bytes:
            raise Problem(409, "no report", f"the batch is {batch.state}; a run writes its report at its end")
        return send_file(service.records.report_path(batch), "report.json")


def _check(content: dict[str, Any]) -> BatchOptions:
    """Raises RequestValidationError, which names the options that are not possible."""
    if isinstance(depth := content.get("bit_depth"), int) and not isinstance(depth, bool):
        content = content | {"bit_depth": str(depth)}
    try:
        return BatchOptions.model_validate(content)
    except ValidationError as error:
        found = [one | {"loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
        raise RequestValidationError(found) from None
