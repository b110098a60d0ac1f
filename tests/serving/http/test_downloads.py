"""Files as responses."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pellucid.serving.http.downloads import send_file
from pellucid.serving.problems import Problem


def test_a_result_that_was_deleted_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="expired") as error:
        send_file(tmp_path / "0.png", "0.png")
    assert error.value.status == 404


def test_a_result_deleted_between_its_request_and_its_response_is_no_server_error(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    path.write_bytes(bytes(100))
    response = send_file(path, "0.png")
    path.unlink()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.sleep(10)

    with pytest.raises(FileNotFoundError):  # the connection ends before the bytes that its header promised
        asyncio.run(response({"type": "http", "method": "GET", "headers": []}, receive, send))
    assert [message.get("status") for message in sent] == [200]
