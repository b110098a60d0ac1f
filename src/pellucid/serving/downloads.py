"""Files as responses."""

import asyncio
import secrets
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from pellucid.serving.answers import result_name
from pellucid.serving.bodies import watch_client
from pellucid.serving.guards import ClientGoneError
from pellucid.serving.options import ViewOptions
from pellucid.serving.problems import Problem
from pellucid.serving.records import JobRecord
from pellucid.serving.service import Service


def write_zip(service: Service, job: JobRecord, done: list[int], path: Path) -> None:
    """All results, stored without compression; equal names get a number."""
    names: set[str] = set()
    temporary = service.records.temporary / f"{secrets.token_hex(8)}.zip"  # of this request: others may ask too
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
    """A file that stays, of which a client may ask for parts."""
    if not path.exists():
        raise Problem(404, "no such result", "it was not kept any longer")
    return FileResponse(path, media_type=_media_type(name), headers=_disposition(name))


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
        ".jp2": "image/jp2", ".zip": "application/zip",
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
