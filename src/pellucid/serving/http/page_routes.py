"""Routes of the page, and of health and numbers for operators."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Response
from fastapi import Path as PathParameter

from pellucid.serving.http.openapi import METRICS
from pellucid.serving.problems import Problem, document
from pellucid.serving.service import Service

_PAGE = files("pellucid.serving.http") / "page"
_PAGE_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health/live", tags=["health"])
    async def live() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "live"}

    @app.get("/health/ready", responses=document(503), tags=["health"])
    async def ready() -> dict[str, str]:
        """Whether it accepts work."""
        service.check_ready()
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response, tags=["health"], responses=METRICS)
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.monitor.text(), media_type="text/plain; version=0.0.4")


def add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return _page_file("index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _page_file("docs.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: Annotated[str, PathParameter(pattern=r"^[a-z]+\.[a-z]+$")]) -> Response:
        return _page_file(name)


def _page_file(name: str) -> Response:
    path = _PAGE / name
    if Path(name).suffix not in _PAGE_TYPES or not path.is_file():
        raise Problem(404, "not found", f"there is no {name}")
    headers = {"Cache-Control": "no-cache"}
    return Response(path.read_bytes(), media_type=_PAGE_TYPES[Path(name).suffix], headers=headers)
