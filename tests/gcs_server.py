"""A server with the part of the XML API of Google Cloud Storage that the client uses, with its conditions.

Written after Google's reference of that API, because emulators implement the JSON API. It checks no signatures.
An update is only conditional by generation, not by e-tag, as at Google.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "pictures"


@dataclass
class _Object:
    content: bytes
    generation: int
    headers: dict[str, str]

    @property
    def e_tag(self) -> str:
        return f'"{md5(self.content).hexdigest()}"'


@dataclass
class GoogleServer:
    """The objects of one bucket by name. url: of the server. file: the credentials."""

    url: str
    file: Path
    objects: dict[str, _Object] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)
    last_generation: int = 1_700_000_000_000_000

    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {"GOOGLE_BASE_URL": self.url, "GOOGLE_SERVICE_ACCOUNT": str(self.file)}

    def store(self, key: str, content: bytes, headers: dict[str, str], condition: str | None) -> _Object | None:
        """None if the condition, a generation or 0 for no object, is false."""
        with self.lock:
            existing = self.objects.get(key)
            generation = 0 if existing is None else existing.generation
            if condition is not None and int(condition) != generation:
                return None
            self.last_generation += 1
            self.objects[key] = _Object(content, self.last_generation, headers)
            return self.objects[key]


@contextmanager
def google_server(folder: Path) -> Iterator[GoogleServer]:
    """A running server. Its credentials are those of a service account without OAuth."""

    class Handler(_Handler):
        pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = GoogleServer(f"http://127.0.0.1:{http.server_port}", folder / "account.json")
    account = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    server.file.write_text(json.dumps(account))
    Handler.server_state = server
    Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: GoogleServer

    def do_GET(self) -> None:
        key, query = self._parse()
        if key is None:
            return
        if not key:
            self._list(query)
            return
        found = self.server_state.objects.get(key)
        if found is None:
            self._fail(404, "NoSuchKey")
            return
        headers = {**found.headers, "ETag": found.e_tag, "x-goog-generation": str(found.generation)}
        headers |= {"Last-Modified": formatdate(usegmt=True)}
        content, status = found.content, 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            start, stop = int(match[1]), min(int(match[2]) + 1, len(content))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            content, status = content[start:stop], 206
        self._answer(status, content, headers)

    do_HEAD = do_GET  # noqa: N815  # the name that the library calls

    def do_PUT(self) -> None:
        key, query = self._parse()
        content = self._read()
        if key is None:
            return
        if "uploadId" in query:
            self.server_state.uploads[query["uploadId"]][int(query["partNumber"])] = content
            self._answer(200, b"", {"ETag": f'"{md5(content).hexdigest()}"'})
            return
        headers = {name: value for name, value in self.headers.items() if name.lower().startswith("x-goog-meta-")}
        condition = self.headers.get("x-goog-if-generation-match")
        stored = self.server_state.store(key, content, headers, condition)
        if stored is None:
            self._fail(412, "PreconditionFailed")
        else:
            self._answer(200, b"", {"ETag": stored.e_tag, "x-goog-generation": str(stored.generation)})

    def do_POST(self) -> None:
        key, query = self._parse()
        self._read()
        if key is None:
            return
        if "uploads" in query:
            number = str(len(self.server_state.uploads))
            self.server_state.uploads[number] = {}
            names = f"<Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key><UploadId>{number}</UploadId>"
            self._answer(200, f"<InitiateMultipartUploadResult>{names}</InitiateMultipartUploadResult>".encode())
            return
        parts = self.server_state.uploads.pop(query["uploadId"])
        stored = self.server_state.store(key, b"".join(parts[i] for i in sorted(parts)), {}, None)
        assert stored is not None
        result = (
            f"<CompleteMultipartUploadResult><ETag>{escape(stored.e_tag)}</ETag></CompleteMultipartUploadResult>"
        )
        self._answer(200, result.encode(), {"x-goog-generation": str(stored.generation)})

    def do_DELETE(self) -> None:
        key, _ = self._parse()
        if key is None:
            return
        if self.server_state.objects.pop(key, None) is None:
            self._fail(404, "NoSuchKey")
        else:
            self._answer(204, b"")

    def _parse(self) -> tuple[str | None, dict[str, str]]:
        """The name of the object and the query; no name, after an answer, for another bucket."""
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).removeprefix("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if bucket != BUCKET:
            self._fail(404, "NoSuchBucket")
            return None, query
        return key, query

    def _list(self, query: dict[str, str]) -> None:
        rows = [
            f"<Contents><Key>{escape(key)}</Key><Generation>{found.generation}</Generation>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{escape(found.e_tag)}</ETag>"
            f"<Size>{len(found.content)}</Size></Contents>"
            for key, found in sorted(self.server_state.objects.items())
            if key.startswith(query.get("prefix", ""))
        ]
        self._answer(200, f"<ListBucketResult>{''.join(rows)}</ListBucketResult>".encode())

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _fail(self, status: int, code: str) -> None:
        self._answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode())

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Nothing is printed."""
