"""Files as responses."""

import asyncio
import secrets
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from pellucid.serving.http.answers import result_name
from pellucid.serving.http.bodies import watch_client
from pellucid.serving.http.guards import ClientGoneError
from pellucid.serving.http.options import ViewOptions
from pellucid.serving.problems import Problem
from pellucid.serving.records import JobRecord
from pellucid.serving.service import Service

_zipping: dict[str, asyncio.Task[None]] = {}
"""For each job whose archive is being written: several clients may ask for it."""


async def find_zip(service: Service, job: JobRecord, done: list[int]) -> Path:
    """The archive of all results, which the first request writes. Raises Problem 404 if the job is deleted."""
    path = service.records.zip_path(job)
    if not path.exists():
        if job.id not in _zipping:
            writing = _zipping[job.id] = asyncio.create_task(_make_zip(service, job, done, path))
            writing.add_done_callback(lambda _: _zipping.pop(job.id))
        await asyncio.shield(_zipping[job.id])  # others wait for it, too, if this client disconnects
    return path


async def _make_zip(service: Service, job: JobRecord, done: list[int], path: Path) -> None:
    try:
        await asyncio.to_thread(_write_zip, service, job, done, path)
    except FileNotFoundError:
        if job.id in service.records.jobs:
            raise
    if job.id not in service.records.jobs:
        service.records.remove(job)  # what was written since
        raise Problem(404, "no such job", "it was deleted")
    job.zip_bytes = path.stat().st_size
    service.records.save_job(job)


def _write_zip(service: Service, job: JobRecord, done: list[int], path: Path) -> None:
    """Stored without compression; equal names get a number."""
    names: set[str] = set()
    temporary = service.records.temporary / f"{secrets.token_hex(8)}.zip"
    try:
        with zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
            for number in done:
                name = own = Path(result_name(job, number))
                for count in range(2, len(job.tasks) + 2):
                    if str(name) not in names:
                        break
                    name = own.with_stem(f"{own.stem}-{count}")
                names.add(str(name))
                archive.write(service.records.result_path(job, number), str(name))
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def send_file(path: Path, name: str) -> Response:
    """A file that stays, of which a client may ask for parts. Raises Problem 404 if it was deleted."""
    try:
        found = path.stat()  # here: a file that is missing later, when the response is sent, is a server error
    except FileNotFoundError:
        raise Problem(404, "no such result", "it has expired") from None
    return FileResponse(path, media_type=_media_type(name), headers=_disposition(name), stat_result=found)


def stream_restored(path: Path, name: str, notes: list[str]) -> Response:
    """A result that is deleted while it is sent."""
    headers = _disposition(name)
    if notes:
        headers["X-Pellucid-Notes"] = quote("; ".join(notes)[:2000], safe=" ;:,.()'/=")
    return _stream_file(path, name, headers)


def _stream_file(path: Path, name: str, headers: dict[str, str]) -> Response:
    """The file stays readable through its open descriptor after it is deleted."""
    file = path.open("rb")
    headers["Content-Length"] = str(path.stat().st_size)

    async def parts() -> AsyncIterator[bytes]:
        with file:
            while part := await asyncio.to_thread(file.read, 2**16):
                yield part

    return StreamingResponse(parts(), media_type=_media_type(name), headers=headers)


def _media_type(name: str) -> str:
    types = {
        ".png": "image/png", ".tif": "image/tiff", ".tiff": "image/tiff", ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg", ".webp": "image/webp", ".bmp": "image/bmp", ".jxl": "image/jxl",
        ".jp2": "image/jp2", ".dng": "image/x-adobe-dng", ".zip": "application/zip", ".json": "application/json",
    }  # fmt: skip
    return types.get(Path(name).suffix.lower(), "application/octet-stream")


def _disposition(name: str) -> dict[str, str]:
    """With the real name (RFC 6266), and one in ASCII for old clients."""
    plain = "".join(char if char.isascii() and char.isprintable() and char not in '"\\' else "_" for char in name)
    return {"Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"}


async def draw_view(service: Service, request: Request, path: Path, name: str, view: ViewOptions) -> Response:
    """A part of a picture; nothing is drawn for a client that left while others were served."""
    async with watch_client(request) as is_gone:

        def check_wanted() -> None:
            if is_gone.is_set():
                raise ClientGoneError

        box, longest_px = view.parse_box(), view.longest_px
        async with service.draw_view(path, name, box, longest_px, check_wanted) as (drawn, size):
            headers = {
                "X-Picture-Size": f"{size['width']}x{size['height']}",
                "Cache-Control": "private, max-age=3600",
            }
            return _stream_file(drawn, drawn.name, headers)
