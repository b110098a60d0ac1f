"""Forms and raw bodies arrive complete, however they are split into parts."""

import asyncio
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from starlette.requests import Request
from starlette.types import Message

from pellucid.serving.http.bodies import receive_files
from pellucid.serving.http.guards import ClientGoneError
from pellucid.serving.problems import Problem


def _receive(
    body: bytes,
    content_type: str,
    folder: Path,
    *,
    part_bytes: int = 1000,
    is_cut: bool = False,
    max_files: int = 100,
) -> list[tuple[str, bytes]]:
    parts = [body[i : i + part_bytes] for i in range(0, len(body), part_bytes)] or [b""]
    end: Message = {"type": "http.disconnect"} if is_cut else {"type": "http.request", "body": b""}
    messages: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in parts] + [end]

    async def receive() -> Message:
        return messages.pop(0)

    async def read() -> list[tuple[str, bytes]]:
        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode())]}
        async with receive_files(Request(scope, receive), folder, "raw.png", max_files) as files:
            return [(file.name, file.path.read_bytes()) for file in files]

    return asyncio.run(read())


def _form(files: list[tuple[str, bytes]]) -> tuple[bytes, str]:
    """A form by another program, httpx."""
    request = httpx.Request("POST", "http://x", files=[("file", file) for file in files])
    return request.read(), request.headers["content-type"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["a.png", "ä b.tif", 'c".jpg']), st.binary(min_size=1, max_size=5000)),
        min_size=1,
    ),
    st.integers(1, 3000),
)
def test_forms_arrive_as_sent(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes]], part_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("form")
    body, content_type = _form(files)
    received = _receive(body, content_type, folder, part_bytes=part_bytes)
    assert [content for _, content in received] == [content for _, content in files]
    assert not list(folder.iterdir())


@given(st.binary(min_size=1, max_size=5000), st.integers(1, 3000))
def test_raw_bodies_arrive_as_sent(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, part_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("raw")
    assert _receive(content, "image/png", folder, part_bytes=part_bytes) == [("raw.png", content)]
    assert not list(folder.iterdir())


@given(st.data())
def test_damaged_forms_are_problems(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    body, content_type = _form([("a.png", b"12345" * 30), ("b.png", b"67890" * 30)])
    cut = data.draw(st.integers(0, len(body) - 5))
    with pytest.raises(Problem) as found:
        _receive(body[:cut], content_type, folder)
    assert found.value.status == 400
    assert not list(folder.iterdir())


def test_clients_that_leave_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ClientGoneError):
        _receive(b"x" * 5000, "image/png", tmp_path, is_cut=True)
    assert not list(tmp_path.iterdir())


def test_too_many_files(tmp_path: Path) -> None:
    body, content_type = _form([("a.png", b"1"), ("b.png", b"2"), ("c.png", b"3")])
    with pytest.raises(Problem, match="2 files") as found:
        _receive(body, content_type, tmp_path, max_files=2)
    assert found.value.status == 413


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_forms_without_boundary(tmp_path: Path, content_type: str) -> None:
    with pytest.raises(Problem, match="boundary"):
        _receive(b"abc", content_type, tmp_path)
