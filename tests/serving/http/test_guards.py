"""Limits of bodies, tokens and links, without a network."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from starlette.types import Message, Receive, Scope, Send

from pellucid.serving.http.guards import Guards, Links
from pellucid.serving.limits import Limits, Setup
from pellucid.serving.monitoring import Monitor


async def _read_all(scope: Scope, receive: Receive, send: Send) -> None:
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-size", str(size).encode())]})
    await send({"type": "http.response.body", "body": b""})


def _request(
    parts: Sequence[tuple[float, bytes]],
    headers: dict[str, str] | None = None,
    setup: Any = None,
    monitor: Monitor | None = None,
    method: str = "POST",
    send_s: float = 0.0,
    **limits: Any,
) -> tuple[int, dict[str, str]]:
    """Status and headers of a request whose body arrives in parts, each after a pause in seconds."""
    sent: list[Message] = []
    waiting = [*parts]

    async def receive() -> Message:
        await asyncio.sleep(waiting[0][0] if waiting else 60)
        _, part = waiting.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    async def send(message: Message) -> None:
        sent.append(message)
        await asyncio.sleep(send_s)

    guards = Guards(
        _read_all, setup or Setup(Path()), Limits(memory_bytes=2**31, **limits), monitor or Monitor(), Links(b"1")
    )
    given = {"host": "localhost:8000"} | (headers or {})
    if "content-length" not in given:
        given["transfer-encoding"] = "chunked"
    scope = {
        "type": "http", "method": method, "path": "/v1/x", "query_string": b"", "client": ("127.0.0.1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }  # fmt: skip
    asyncio.run(guards(scope, receive, send))
    start = sent[0]
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}


def test_bodies_within_the_limits() -> None:
    status, headers = _request([(0, b"ab"), (0, b"cde")], max_bytes=5)
    assert (status, headers["x-size"]) == (200, "5")


def test_too_many_bytes_end_the_request() -> None:
    assert _request([(0, b"abc"), (0, b"def"), (0, b"")], max_bytes=5)[0] == 413


def test_a_pause_ends_the_request() -> None:
    assert _request([(0, b"a"), (0.5, b"b")], idle_s=0.1)[0] == 408
    assert _request([(0, b"a"), (0.05, b"b")], idle_s=1)[0] == 200


def test_a_trickle_ends_the_request() -> None:
    """Each part is in time, but all together are too slow."""
    assert _request([(0.06, b"a")] * 20, idle_s=0.1, min_rate=1000)[0] == 408


@pytest.mark.parametrize(("num_requests", "num_refused"), [(2, 0), (3, 1)])
def test_more_requests_at_once_than_the_limit_are_refused(num_requests: int, num_refused: int) -> None:
    """Requests for the health of the service are always answered."""
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def ask_all() -> None:
        release = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await release.wait()
            await _read_all(scope, receive, send)

        limits = Limits(memory_bytes=2**31, max_requests=2)
        guards = Guards(app, Setup(Path()), limits, Monitor(), Links(b"1"))
        scope = {"type": "http", "method": "GET", "query_string": b"", "headers": [(b"host", b"localhost")]}
        paths = ["/v1/x"] * num_requests + ["/health/live"]
        asked = [asyncio.create_task(guards({**scope, "path": path}, receive, send)) for path in paths]
        await asyncio.sleep(0.01)
        assert statuses == [503] * num_refused
        release.set()
        await asyncio.gather(*asked)

    asyncio.run(ask_all())
    assert statuses == [503] * num_refused + [200] * 3


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("", 421),
        ("127.x", 421),
        ("127.0.0.1.evil.example:8000", 421),  # a name that its owner may give our address
        ("[", 421),
    ],
)
def test_hosts(host: str, status: int) -> None:
    assert _request([(0, b"")], {"host": host})[0] == status


def test_a_damaged_origin() -> None:
    assert _request([(0, b"")], {"origin": "http://["})[0] == 403
    assert _request([(0, b"")], {"origin": "null"})[0] == 403


def test_invented_methods_are_counted_together() -> None:
    monitor = Monitor()
    for number in range(3):
        _request([(0, b"")], monitor=monitor, method=f"X{number}")
    assert monitor.text().count(b"pellucid_requests_total{") == 1


def test_a_body_that_is_not_read_ends_the_connection() -> None:
    """Otherwise it could arrive for ever, without limits."""
    body = [(0.0, b"a"), (5.0, b"b")]
    _, headers = _request(body, {"host": "evil.example", "content-length": "2"})
    assert headers["connection"] == "close"
    _, headers = _request([(0, b"a"), (0.01, b"b")], {"host": "evil.example", "content-length": "2"})
    assert "connection" not in headers, "it arrived in a moment"


def test_a_client_that_does_not_take_its_response_is_left() -> None:
    start_s = time.monotonic()
    assert _request([(0, b"")], idle_s=0.1, send_s=5)[0] == 200
    assert time.monotonic() - start_s < 2


def test_an_allowed_origin() -> None:
    setup = Setup(Path(), allowed_origin="https://gallery.example")
    status, headers = _request([(0, b"")], {"origin": "https://gallery.example"}, setup)
    assert status == 200 and headers["access-control-allow-origin"] == "https://gallery.example"
    assert _request([(0, b"")], {"origin": "https://other.example"}, setup)[0] == 403
    status, headers = _request([(0, b"")], {}, setup)
    assert status == 200 and "access-control-allow-origin" not in headers


def test_links_are_for_one_path() -> None:
    links = Links(b"1")
    signed = links.sign("/v1/jobs/a/result")
    path, _, query = signed.partition("?")
    assert links.allows(path, query) and Links(b"1").allows(path, query) and links.allows(path, f"x=1&{query}")
    assert not links.allows("/v1/jobs/b/result", query)
    assert not links.allows(path, "key=") and not links.allows(path, "") and not Links(b"2").allows(path, query)
