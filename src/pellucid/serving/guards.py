"""What every request passes: its id and log line, the token, the origin, limits of its body, and safe headers.

Pure ASGI: classes on top of Starlette's BaseHTTPMiddleware hide that a client disconnects.
"""

import asyncio
import contextlib
import hmac
import json
import re
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pellucid.serving.limits import Limits, Setup
from pellucid.serving.monitoring import Monitor
from pellucid.serving.problems import Problem

_OPEN_PATHS = {"/", "/docs", "/openapi.json", "/health/live", "/health/ready"}
_OPEN_FOLDER = "/page/"
_REQUEST_ID = re.compile(r"[\w.:-]{1,64}")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guards:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, setup: Setup, limits: Limits, monitor: Monitor, links: "Links") -> None:
        self._app, self._setup, self._limits, self._monitor, self._links = app, setup, limits, monitor, links

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        body = _Body(receive, self._limits)
        response = _Response(send, HEADERS | self._cors(headers) | {"X-Request-Id": request_id})
        start = time.monotonic()
        try:
            if scope["method"] == "OPTIONS" and self._cors(headers):
                await _send_empty(response.send)
            else:
                self._check(scope, headers)
                await self._app(scope, body.receive, response.send)
        except Problem as problem:
            await response.send_problem(problem, scope, body.receive, request_id)
        except ClientGoneError:
            response.status = response.status or 499
        except Exception as error:  # the log has the traceback's last line; the client gets a problem
            _log(level="error", id=request_id, error=f"{type(error).__name__}: {error}")
            fault = Problem(500, "a fault of pellucid", f"the log has more about request {request_id}")
            await response.send_problem(fault, scope, body.receive, request_id)
        finally:
            self._report(scope, request_id, response, body, time.monotonic() - start)

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        if self._setup.is_local and self._setup.token is None:
            host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
            if host not in ("localhost", "::1") and not host.startswith("127."):
                raise Problem(421, "wrong host", f"this service answers to localhost, not to {host[:80]!r}")
        origin = headers.get("origin")
        if origin not in (None, self._setup.allowed_origin) and urlsplit(origin or "").netloc != headers.get(
            "host"
        ):
            raise Problem(403, "another site", f"pages of {(origin or '')[:80]} may not use this service")
        path = scope["path"]
        if self._setup.token is None or path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER):
            return
        kind, _, token = headers.get("authorization", "").partition(" ")
        is_known = kind.lower() == "bearer" and _equal(token.strip(), self._setup.token)
        if not is_known and not self._links.allows(path, scope["query_string"].decode("latin-1")):
            raise Problem(401, "no access", "send the header Authorization: Bearer TOKEN")

    def _cors(self, headers: dict[str, str]) -> dict[str, str]:
        allowed = self._setup.allowed_origin
        if allowed is None or headers.get("origin") != allowed:
            return {}
        return {
            "Access-Control-Allow-Origin": allowed,
            "Access-Control-Allow-Methods": "GET, POST, DELETE",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, Prefer, X-Request-Id",
            "Access-Control-Expose-Headers": "Content-Disposition, Location, Retry-After, X-Request-Id",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "Vary": "Origin",
        }

    def _report(self, scope: Scope, request_id: str, response: "_Response", body: "_Body", seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._monitor.requests.labels(scope["method"], route, response.status).inc()
        _log(
            level="info",
            id=request_id,
            method=scope["method"],
            path=scope["path"][:200],
            status=response.status,
            seconds=round(seconds, 4),
            bytes_in=body.num_bytes,
            bytes_out=response.num_bytes,
            client=(scope.get("client") or ("",))[0],
        )


class Links:
    """Links that work without a token for a browser's own downloads: they contain a key that only we can make."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def sign(self, path: str) -> str:
        """The path with its key."""
        return f"{path}?key={self._key(path)}"

    def allows(self, path: str, query: str) -> bool:
        """Whether the query contains the key of this path."""
        return any(_equal(part[4:], self._key(path)) for part in query.split("&") if part.startswith("key="))

    def _key(self, path: str) -> str:
        return hmac.new(self._secret, path.encode(), "sha256").hexdigest()


class ClientGoneError(Exception):
    """The client disconnected before its request was complete."""


class _Body:
    """Receives a body within the limits of size and time. After it, `receive` waits for the disconnect."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._start = time.monotonic()
        self._is_complete = False
        self.num_bytes = 0

    async def receive(self) -> Message:
        """The next part. Raises Problem 408 or 413."""
        if self._is_complete:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._limits.idle_s)
        except TimeoutError:
            reason = f"no part of the body arrived for {self._limits.idle_s:.0f} s"
            raise Problem(408, "the request is too slow", reason) from None
        if message["type"] == "http.request":
            self.num_bytes += len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
            self._check()
        return message

    def _check(self) -> None:
        if self.num_bytes > self._limits.max_bytes:
            limit = f"the limit of a request is {self._limits.max_bytes / 1e6:.0f} MB"
            raise Problem(413, "too many bytes", limit)
        late_s = time.monotonic() - self._start - self._limits.idle_s
        if not self._is_complete and self.num_bytes < late_s * self._limits.min_rate:
            rate = f"a body must arrive at {self._limits.min_rate} bytes per second"
            raise Problem(408, "the request is too slow", rate)


class _Response:
    """Sends a response with additional headers, and remembers what was sent."""

    def __init__(self, send: Send, headers: dict[str, str]) -> None:
        self._send = send
        self._headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        self.status, self.num_bytes = 0, 0

    async def send(self, message: Message) -> None:
        """One message of the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in self._headers if pair[0] not in own)]
        self.num_bytes += len(message.get("body", b""))
        await self._send(message)

    async def send_problem(self, problem: Problem, scope: Scope, receive: Receive, request_id: str) -> None:
        """The problem, unless a response was begun."""
        if self.status == 0:
            response = problem.to_response(request_id)
            response.headers["Connection"] = "close"  # the rest of the body is not read
            await response(scope, receive, self.send)


async def _send_empty(send: Callable[[Message], Any]) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _equal(given: str, expected: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


def _log(**fields: object) -> None:
    """One line of JSON on the error stream."""
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **fields})
    with contextlib.suppress(OSError):  # closed, or its disk is full: requests are more important
        print(line, file=sys.stderr, flush=True)  # noqa: T201  # the log
