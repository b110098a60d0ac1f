"""Receives pictures from request bodies into files, never into memory as a whole."""

import asyncio
import json
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from pellucid.serving.http.guards import ClientGoneError
from pellucid.serving.problems import Problem
from pellucid.system.wording import format_count

if TYPE_CHECKING:  # exists for type checkers only
    from python_multipart.multipart import MultipartCallbacks

# Not application/x-www-form-urlencoded: `curl --data-binary @photo.jpg` sends that, and the content decides.
_REFUSED_TYPES = (
    "application/json",
    "application/xml",
    "text/",
    "video/",
    "audio/",
)


def client_of(request: Request) -> str:
    """Whose limits count: the address of the client."""
    return request.client.host if request.client else "local"


@dataclass(frozen=True)
class ReceivedFile:
    """A complete file that the caller takes over or leaves to be deleted."""

    path: Path
    name: str


@asynccontextmanager
async def receive_files(
    request: Request, folder: Path, name: str | None, max_files: int
) -> AsyncIterator[list[ReceivedFile]]:
    """The files of a request: its raw body, or those of a multipart form. They are deleted afterwards.

    name: of a raw body. Raises Problem 400, 413 or 415, OSError, and ClientGoneError.
    """
    own = folder / f"request-{secrets.token_hex(8)}"
    own.mkdir()
    try:
        content_type = request.headers.get("content-type", "")
        if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
            files = await _receive_form(request, own, content_type, max_files)
        else:
            files = [await _receive_raw(request, own, name or "picture", content_type)]
        yield files
    except ClientDisconnect:
        raise ClientGoneError from None
    finally:
        shutil.rmtree(own, ignore_errors=True)


async def receive_json(request: Request, max_bytes: int) -> dict[str, Any]:
    """The JSON object of a small body. Raises Problem 400, 413 or 415, and ClientGoneError."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        found = f"the body is {content_type[:80]!r}; send a JSON object, with Content-Type: application/json"
        raise Problem(415, "not JSON", found)
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > max_bytes:
                raise Problem(413, "too many bytes", f"the limit of this request is {max_bytes} bytes")
    except ClientDisconnect:
        raise ClientGoneError from None
    try:
        content = json.loads(body, object_pairs_hook=_without_repeated)
        # Fails for halves of characters, which answers cannot name.
        json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Problem(400, "not JSON", f"the body cannot be read: {str(error)[:200]}") from None
    if not isinstance(content, dict):
        raise Problem(400, "not JSON", f"the body is a {type(content).__name__}; a JSON object is needed")
    return content


def _without_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:80]!r} is given twice")
        found[name] = value
    return found


async def check_empty(request: Request) -> None:
    """Raises Problem 400 if there is a body in addition to the id of a picture."""
    async for part in request.stream():
        if part:
            raise Problem(400, "two pictures", "there is a body and the option picture; send one of them")


@asynccontextmanager
async def watch_client(request: Request) -> AsyncIterator[asyncio.Event]:
    """An event that is set when the client goes away. The body must be complete."""
    is_gone = asyncio.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        is_gone.set()

    watching = asyncio.create_task(watch())
    try:
        yield is_gone
    finally:
        watching.cancel()


async def _receive_raw(request: Request, folder: Path, name: str, content_type: str) -> ReceivedFile:
    if content_type.lower().startswith(_REFUSED_TYPES):
        detail = f"the body is {content_type[:80]}; send the picture file itself, or a form with files"
        raise Problem(415, "not a picture", detail)
    path = folder / "0"
    with path.open("wb") as file:
        async for part in request.stream():
            file.write(part)
    if path.stat().st_size == 0:
        raise Problem(
            400, "not a picture", "the body is empty; send the picture file itself, or a form with files"
        )
    return ReceivedFile(path, name)


async def _receive_form(request: Request, folder: Path, content_type: str, max_files: int) -> list[ReceivedFile]:
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Problem(400, "a damaged form", "the Content-Type of a form names its boundary")
    with _Form(folder, max_files) as form:
        try:
            parser = MultipartParser(boundary, form.callbacks)
            async for part in request.stream():
                parser.write(part)
            parser.finalize()
        except (FormParserError, ValueError) as error:
            facts = f"the body is not a multipart form with the boundary of its header: {str(error)[:200]}"
            raise Problem(400, "a damaged form", facts) from None
    if not form.is_complete:
        raise Problem(400, "a damaged form", "the form ends before its last boundary")
    files = [file for file in form.files if file.path.stat().st_size]
    if not files:
        raise Problem(400, "not a picture", "the form contains no file")
    if len(files) < len(form.files):
        empty = next(file for file in form.files if file not in files)
        raise Problem(400, "not a picture", f"{empty.name} is empty")
    return files


class _Form:
    """Writes each file of a multipart form into a file of its own while it arrives."""

    def __init__(self, folder: Path, max_files: int) -> None:
        self._folder, self._max_files = folder, max_files
        self.files: list[ReceivedFile] = []
        self.is_complete = False
        self._file: IO[bytes] | None = None
        self._header, self._value, self._disposition = b"", b"", b""
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._take_header,
            "on_header_value": self._take_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._write,
            "on_part_end": self._close,
            "on_end": self._end,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _begin(self) -> None:
        self._disposition = b""

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _open(self) -> None:
        parameters = parse_options_header(self._disposition)[1]
        if b"filename" not in parameters:
            name = parameters.get(b"name", b"").decode(errors="replace")[:80]
            raise Problem(400, "not a picture", f"{name!r} in the form is not a file; options belong in the URL")
        if len(self.files) == self._max_files:
            raise Problem(
                413, "too many files", f"the limit of a request is {format_count(self._max_files, 'file')}"
            )
        path = self._folder / str(len(self.files))
        self.files.append(ReceivedFile(path, parameters[b"filename"].decode(errors="replace") or "picture"))
        self._file = path.open("wb")

    def _write(self, data: bytes, start: int, end: int) -> None:
        assert self._file is not None
        self._file.write(data[start:end])

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _end(self) -> None:
        self.is_complete = True
