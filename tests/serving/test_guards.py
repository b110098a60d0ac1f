"""Limits of bodies, tokens and links, without a network."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from starlette.types import Message, Receive, Scope, Send

from pellucid.serving.guards import Guards, Links
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
    parts: list[tuple[float, bytes]], headers: dict[str, str] | None = None, setup: Any = None, **limits: Any
) -> tuple[int, dict[str, str]]:
    """Status and headers of a request whose body arrives in parts, each after a pause in seconds."""
    sent: list[Message] = []
    waiting = [*parts]

    async def receive() -> Message:
        pause_s, part = waiting.pop(0)
        await asyncio.sleep(pause_s)
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    async def send(message: Message) -> None:
        sent.append(message)

    guards = Guards(_read_all, setup or Setup(Path()), Limits(memory_bytes=2**31, **limits), Monitor(), Links())
    given = {"host": "localhost:8000"} | (headers or {})
    scope = {
        "type": "http", "method": "POST", "path": "/v1/x", "query_string": b"", "client": ("127.0.0.1", 1),
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


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("", 421),
        ("127.x", 200),
    ],
)
def test_hosts(host: str, status: int) -> None:
    assert _request([(0, b"")], {"host": host})[0] == status


def test_an_allowed_origin() -> None:
    setup = Setup(Path(), allowed_origin="https://gallery.example")
    status, headers = _request([(0, b"")], {"origin": "https://gallery.example"}, setup)
    assert status == 200 and headers["access-control-allow-origin"] == "https://gallery.example"
    assert _request([(0, b"")], {"origin": "https://other.example"}, setup)[0] == 403
    status, headers = _request([(0, b"")], {}, setup)
    assert status == 200 and "access-control-allow-origin" not in headers


def test_links_are_for_one_path() -> None:
    links = Links()
    signed = links.sign("/v1/jobs/a/result")
    path, _, query = signed.partition("?")
    assert links.allows(path, query) and links.allows(path, f"x=1&{query}")
    assert not links.allows("/v1/jobs/b/result", query)
    assert not links.allows(path, "key=") and not links.allows(path, "") and not Links().allows(path, query)
