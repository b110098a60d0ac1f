"""Files as responses."""

import asyncio
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

from fastapi import Response
from fastapi.responses import FileResponse, StreamingResponse

from pellucid.serving.answers import result_name
from pellucid.serving.options import ViewOptions
from pellucid.serving.problems import Problem
from pellucid.serving.records import JobRecord
from pellucid.serving.service import Service


def write_zip(service: Service, job: JobRecord, done: list[int], path: Path) -> None:
    """All results, stored without compression; equal names get a number."""
    names: set[str] = set()
    temporary = path.with_suffix(".part")
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


def send_file(path: Path, name: str) -> Response:
    if not path.exists():
        raise Problem(404, "no such result", "it was not kept any longer")
    return FileResponse(path, media_type=_media_type(name), headers=_disposition(name))


def stream_file(path: Path, name: str, notes: list[str]) -> Response:
    file = path.open("rb")
    headers = _disposition(name) | {"Content-Length": str(path.stat().st_size)}
    if notes:
        headers["X-Pellucid-Notes"] = quote("; ".join(notes)[:2000], safe=" ;:,.()'/=")

    async def parts() -> AsyncIterator[bytes]:
        with file:
            while part := await asyncio.to_thread(file.read, 2**18):
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


async def draw_view(service: Service, path: Path, name: str, view: ViewOptions) -> Response:
    content, size = await service.draw_view(path, name, view.parse_box(), view.longest_px)
    headers = {"X-Picture-Size": f"{size['width']}x{size['height']}", "Cache-Control": "private, max-age=3600"}
    return Response(content, media_type="image/png", headers=headers)
