"""The HTTP application: all routes inside their guards, and every error as a problem."""

import sqlite3
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp

from pellucid import __version__
from pellucid.serving.http.batch_routes import add_batches
from pellucid.serving.http.guards import ClientGoneError, Guards, Links
from pellucid.serving.http.job_routes import add_jobs
from pellucid.serving.http.openapi import describe_bodies
from pellucid.serving.http.page_routes import add_health, add_page
from pellucid.serving.http.picture_routes import add_pictures
from pellucid.serving.monitoring import log_libraries
from pellucid.serving.problems import Problem
from pellucid.serving.service import Service, is_storage_error
from pellucid.system.keywords import describe_invalid


def create(service: Service) -> ASGIApp:
    """The application of a running service."""
    app = FastAPI(
        title="pellucid",
        version=__version__,
        description="Learned image restoration: enlarge, denoise, deblock, deblur, brighten.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        separate_input_output_schemas=False,
        redirect_slashes=False,
    )
    links = Links(service.records.link_secret())
    log_libraries()
    _add_problems(app)
    add_pictures(app, service)
    add_jobs(app, service, links)
    add_batches(app, service)
    add_health(app, service)
    add_page(app)
    describe_bodies(app)
    return Guards(app, service.setup, service.limits, service.monitor, links)


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def _(request: Request, problem: Problem) -> Response:
        return problem.to_response(request.state.request_id)

    @app.exception_handler(ClientGoneError)
    async def _(request: Request, error: ClientGoneError) -> Response:
        return Response(status_code=499)  # for the log; nobody receives it

    @app.exception_handler(OSError)
    @app.exception_handler(sqlite3.OperationalError)
    async def _(request: Request, error: Exception) -> Response:
        if not is_storage_error(error):
            raise error
        return Problem(
            507, "no space", f"the disk cannot store more: {getattr(error, 'strerror', None) or error}"
        ).to_response(request.state.request_id)

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> Response:
        facts = f"the log has more about request {request.state.request_id}"
        return Problem(500, "a fault of pellucid", facts).to_response(request.state.request_id)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> Response:
        unknown = next((entry for entry in error.errors() if entry["loc"][0] == "path"), None)
        if unknown is not None:
            problem = Problem(
                404, "no such id", f"{str(unknown.get('input'))[:80]!r} is not an id of this service"
            )
        else:
            found = "; ".join(map(_describe_option, error.errors()))
            problem = Problem(400, "an option that is not possible", found[:500])
        return problem.to_response(request.state.request_id)

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        place, headers = request.url.path[:200], {**(error.headers or {})}
        if error.status_code == 405:
            possible = headers["Allow"] = ", ".join(_list_methods(app, request))
            problem = Problem(405, "another method is needed", f"{request.method} {place}; possible: {possible}")
        else:
            facts = f"{request.method} {place}: {error.detail}; /docs lists what is possible"
            problem = Problem(error.status_code, "no such route", facts)
        response = problem.to_response(request.state.request_id)
        response.headers.update(headers)
        return response


def _list_methods(app: FastAPI, request: Request) -> list[str]:
    """The methods of all routes of this path; the framework lists only those of the first."""
    routes = [route for route in app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in getattr(route, "methods", None) or ()})


def _describe_option(entry: dict[str, Any]) -> str:
    """What is wrong with one option, e.g. "scale=nan is not possible; expected a finite number"."""
    name = entry["loc"][-1]
    if entry["type"] == "extra_forbidden":
        return f"{name[:80]} is not an option of this request; /docs lists the options"
    if name in _FORMS and entry["type"] != "missing":
        return f"{name}={str(entry.get('input'))[:80]} is not possible; expected {_FORMS[name]}"
    return describe_invalid({**entry, "loc": (name,)})


_BOX = "x, y, width and height in pixels, e.g. 100,50,640,480"

_SIZE = "a size of up to 999999 pixels a side, e.g. 3000x2000, 3000x or x2000"
_FORMS = {"crop": _BOX, "box": _BOX, "size": _SIZE}
"""What options with a form of their own look like."""
