"""A worker process is replaced, cancelled and killed at any moment, and its owner always gets an answer."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from pellucid.serving.limits import Limits, Setup
from pellucid.serving.records import Upload, new_id
from pellucid.serving.service import Service
from pellucid.serving.workers.worker_processes import CommandCancelledError, WorkerDiedError, WorkerProcess

OPTIONS = {"device": "cpu", "backend": None, "precision": None, "max_pixels": 10**6, "memory_bytes": 10**9}


def _run(folder: Path, act: Callable[[WorkerProcess], Awaitable[None]]) -> None:
    async def run() -> None:
        worker = WorkerProcess("worker", OPTIONS, folder)
        try:
            async with asyncio.timeout(100):
                await act(worker)
        finally:
            await worker.stop()

    asyncio.run(run())


def test_cancelled_while_its_process_starts(tmp_path: Path) -> None:
    """The command never begins, and the next one runs."""

    async def act(worker: WorkerProcess) -> None:
        calling = asyncio.ensure_future(worker.call("list_models", limit_s=100))
        await asyncio.sleep(0)
        await worker.cancel()
        with pytest.raises(CommandCancelledError):
            await calling
        assert await worker.call("list_models", limit_s=100)

    _run(tmp_path / "worker", act)


def test_a_process_interrupted_in_its_first_command_is_replaced(tmp_path: Path) -> None:
    """It may have been in the middle of an import, which cannot be repeated."""

    async def act(worker: WorkerProcess) -> None:
        await worker.start()
        first = worker.pid
        calling = asyncio.ensure_future(worker.call("list_models", limit_s=100))
        await asyncio.sleep(0.5)
        await worker.cancel()
        with pytest.raises(CommandCancelledError):
            await calling
        assert await worker.call("list_models", limit_s=100)
        assert worker.pid != first

    _run(tmp_path / "worker", act)


def test_killed_with_a_reason(tmp_path: Path) -> None:
    """Files that the process leaves are gone when the next one starts."""

    async def act(worker: WorkerProcess) -> None:
        await worker.start()
        (tmp_path / "worker" / "left over").write_bytes(b"x")
        calling = asyncio.ensure_future(worker.call("list_models", limit_s=100))
        await asyncio.sleep(0)
        worker.kill("used too much memory")
        with pytest.raises(WorkerDiedError, match="used too much memory"):
            await calling
        await worker.start()
        assert not list((tmp_path / "worker").iterdir())

    _run(tmp_path / "worker", act)


def test_a_command_that_takes_too_long(tmp_path: Path) -> None:
    async def act(worker: WorkerProcess) -> None:
        await worker.start()
        with pytest.raises(WorkerDiedError, match=r"needed more than 0 s") as found:
            await worker.call("list_models", limit_s=0.01)
        assert found.value.cause == "time" and not worker.is_alive
        assert await worker.call("list_models", limit_s=100)

    _run(tmp_path / "worker", act)


def test_a_process_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")

    async def act(worker: WorkerProcess) -> None:
        with pytest.raises(WorkerDiedError, match="could not be started"):
            await worker.start()

    _run(tmp_path / "file" / "worker", act)


def test_pictures_for_other_models_are_not_overtaken_for_ever(tmp_path: Path) -> None:
    service = Service(Setup(tmp_path), Limits(memory_bytes=2**31))
    service.models = {"a": {"scale": 1}, "b": {"scale": 1}}
    worker = WorkerProcess("worker", OPTIONS, tmp_path, models=["a"])

    async def choose() -> list[str]:
        upload = Upload(new_id(), "x.png", "me", 0.0, 1, ".png", about={"pixels": 1})
        service.is_ready = True
        chosen = []
        await service.add_job([upload], "b", {}, "me", is_kept=False)
        for _ in range(20):
            await service.add_job([upload], "a", {}, "me", is_kept=False)
            waiting = service._choose(worker)
            assert waiting is not None
            service._queue.remove(waiting)
            chosen.append(waiting.job.model)
        return chosen

    chosen = asyncio.run(choose())
    assert chosen.index("b") == 8 and chosen.count("b") == 1
    service.records.close()
