"""What every request passes: its id and log line, the token, the origin, limits of its body, and safe headers.

Pure ASGI: classes on top of Starlette's BaseHTTPMiddleware hide that a client disconnects.
"""

import asyncio
import contextlib
import hmac
import re
import secrets
import time
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pellucid.serving.limits import Limits, Setup, is_loopback
from pellucid.serving.monitoring import Monitor, log
from pellucid.serving.problems import Problem
from pellucid.system.wording import format_bytes

_OPEN_PATHS = {"/", "/docs", "/openapi.json", "/health/live", "/health/ready"}
_OPEN_FOLDER = "/page/"
_HEALTH = "/health/"
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_LINGER_S = 1.0
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
        self._num_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        body = _Body(receive, headers, self._limits)
        response = _Response(send, body, HEADERS | self._cors(headers) | {"X-Request-Id": request_id})
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope  # the server omits the body
        start = time.monotonic()
        self._num_open += 1
        try:
            if scope["method"] == "OPTIONS" and self._cors(headers):
                await _send_empty(response.send)
            else:
                self._check(scope, headers)
                self._check_body(headers)
                await self._app(inner, body.receive, response.send)
        except Problem as problem:
            await response.send_problem(problem, scope, body.receive, request_id)
        except (ClientGoneError, SlowReaderError):
            response.status = response.status or 499
        except Exception as error:  # the log has the place; the client gets a problem
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename}:{place.lineno}"
            log(level="error", id=request_id, error=f"{type(error).__name__}: {error}", where=where)
            fault = Problem(500, "a fault of pellucid", f"the log has more about request {request_id}")
            await response.send_problem(fault, scope, body.receive, request_id)
        finally:
            self._num_open -= 1
            self._report(inner, request_id, response, body, time.monotonic() - start)

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        path = scope["path"]
        if self._num_open > self._limits.max_requests and not path.startswith(_HEALTH):
            raise Problem(503, "too many requests", f"{self._limits.max_requests} are open", retry_after_s=5)
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self._limits.max_header_bytes:
            limit = f"the limit of all headers is {self._limits.max_header_bytes} bytes"
            raise Problem(431, "too many headers", limit)
        if self._setup.is_local and self._setup.token is None:
            host = _split(f"//{headers.get('host', '')}").hostname or ""
            if not is_loopback(host):
                raise Problem(421, "wrong host", f"this service answers to localhost, not to {host[:80]!r}")
        names = [name for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise Problem(400, "an option that is not possible", f"{twice[:80]}: it is given twice")
        origin = headers.get("origin")
        is_own = origin in (None, self._setup.allowed_origin) or _split(origin).netloc == headers.get("host")
        if not is_own:
            raise Problem(403, "another site", f"pages of {(origin or '')[:80]} may not use this service")
        if self._setup.token is None or path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER):
            return
        kind, _, token = headers.get("authorization", "").partition(" ")
        is_known = kind.lower() == "bearer" and _equal(token.strip(), self._setup.token)
        if not is_known and not self._links.allows(path, scope["query_string"].decode("latin-1")):
            raise Problem(401, "no access", "send the header Authorization: Bearer TOKEN")

    def _check_body(self, headers: dict[str, str]) -> None:
        """Refuse a body before it arrives."""
        if _has_two_lengths(headers):  # a proxy may read the other one, and take a part of the body for a request
            raise Problem(400, "two lengths", "send Content-Length or Transfer-Encoding, not both")
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding != "identity":
            raise Problem(415, "not a picture", f"the body is encoded by {coding[:40]}; send it as it is")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.max_bytes:
            raise _too_many_bytes(self._limits)

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
        method = scope["method"] if scope["method"] in _METHODS else "other"  # anybody can invent more
        self._monitor.requests.labels(method, route, response.status).inc()
        log(
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
    """Links that work without a token for a browser's own downloads: they contain a key that only we can make.

    secret: of any length; those who know it can make links.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

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


class SlowReaderError(Exception):
    """The client does not take the response."""


class _Body:
    """Receives a body within the limits of size and time. After it, `receive` waits for the disconnect."""

    def __init__(self, receive: Receive, headers: dict[str, str], limits: Limits) -> None:
        self._receive, self._limits, self.idle_s = receive, limits, limits.idle_s
        self._start = time.monotonic()
        self._is_awaited = "expect" in headers
        self.is_ambiguous = _has_two_lengths(headers)
        self.is_complete = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        self.num_bytes = 0

    async def receive(self) -> Message:
        """The next part. Raises Problem 408 or 413."""
        if self.is_complete:
            return await self._receive()
        self._is_awaited = False
        try:
            message = await asyncio.wait_for(self._receive(), self._limits.idle_s)
        except TimeoutError:
            reason = f"no part of the body arrived for {self._limits.idle_s:.0f} s"
            raise Problem(408, "the request is too slow", reason) from None
        if message["type"] == "http.request":
            self.num_bytes += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
            self._check()
        return message

    async def discard(self) -> None:
        """Read the rest for a moment: a client that is still sending would not see the response."""
        if self._is_awaited:  # the client sends nothing before it is asked to
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while not self.is_complete:
                    message = await self._receive()
                    self.is_complete = not message.get("more_body", False)

    def _check(self) -> None:
        if self.num_bytes > self._limits.max_bytes:
            raise _too_many_bytes(self._limits)
        late_s = time.monotonic() - self._start - self._limits.idle_s
        if not self.is_complete and self.num_bytes < late_s * self._limits.min_rate:
            rate = f"a body must arrive at {self._limits.min_rate} bytes per second"
            raise Problem(408, "the request is too slow", rate)


class _Response:
    """Sends a response with additional headers, and remembers what was sent."""

    def __init__(self, send: Send, body: _Body, headers: dict[str, str]) -> None:
        self._send, self._body = send, body
        self._headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        self.status, self.num_bytes = 0, 0

    async def send(self, message: Message) -> None:
        """One message of the response. Raises SlowReaderError if the client does not take it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            await self._body.discard()
            if not self._body.is_complete or self._body.is_ambiguous:
                self._headers.append((b"connection", b"close"))
            own = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in self._headers if pair[0] not in own)]
        self.num_bytes += len(message.get("body", b""))
        try:
            async with asyncio.timeout(self._body.idle_s):
                await self._send(message)
        except TimeoutError:
            raise SlowReaderError from None

    async def send_problem(self, problem: Problem, scope: Scope, receive: Receive, request_id: str) -> None:
        """The problem, unless a response has started."""
        if self.status == 0:
            await problem.to_response(request_id)(scope, receive, self.send)


def _has_two_lengths(headers: dict[str, str]) -> bool:
    return {"content-length", "transfer-encoding"} <= headers.keys()


def _too_many_bytes(limits: Limits) -> Problem:
    return Problem(413, "too many bytes", f"the limit of a request is {format_bytes(limits.max_bytes)}")


def _split(url: str | None) -> SplitResult:
    """The parts of an address; nothing for one that is damaged."""
    try:
        return urlsplit(url or "")
    except ValueError:
        return urlsplit("")


async def _send_empty(send: Callable[[Message], Any]) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _equal(given: str, expected: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())
