"""Workers on a cluster: like those of this computer, with and without a folder that both sides share."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from pellucid.clusters.team import Requirements
from pellucid.errors import ClusterError
from pellucid.serving.limits import Limits, Setup
from pellucid.serving.records import JobRecord, Upload, new_id
from pellucid.serving.service import Service
from pellucid.serving.workers import remote_workers
from pellucid.serving.workers.remote_process import RemoteProcess
from pellucid.serving.workers.remote_workers import ClusterOfWorkers, RemoteWorker
from pellucid.serving.workers.worker_processes import (
    CommandCancelledError,
    CommandFailedError,
    WorkerDiedError,
    WorkerProcess,
)
from serving_service import png
from simulated_ray import SimulatedRay

OPTIONS = {"device": "cpu", "backend": None, "precision": None, "max_pixels": 10**7, "memory_bytes": 10**9}


def _cluster(ray: SimulatedRay, marker: Path) -> ClusterOfWorkers:
    return ClusterOfWorkers(ray, Requirements(10**9), marker)


def _run(folder: Path, act: Callable[[RemoteWorker, SimulatedRay], Awaitable[None]], *, is_shared: bool) -> None:
    """With a worker whose computer has access to the folder or, without a marker, not."""
    ray, marker = SimulatedRay({"CPU": 1, "memory": 2**40}), folder / "marker"
    if is_shared:
        marker.touch()

    async def run() -> None:
        worker = _cluster(ray, marker).make_worker("worker", OPTIONS, folder)
        try:
            async with asyncio.timeout(100):
                await act(worker, ray)
        finally:
            await worker.stop()

    asyncio.run(run())
    for actor in ray.started:
        assert not actor.is_alive


def _restore(worker: WorkerProcess, source: Path, folder: Path, **more: Any) -> Awaitable[Any]:
    folder.mkdir(exist_ok=True)
    content = {"source": str(source), "folder": str(folder), "name": "a.png", "model": "srcnn-x2", "options": {}}
    return worker.call("restore", **{"limit_s": 80, **content, **more})


async def _process_of(worker: RemoteWorker) -> psutil.Process:
    return psutil.Process(await worker._ask("pid"))


async def _wait_for_end(process: psutil.Process) -> None:
    end = time.monotonic() + 5
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("is_shared", [True, False])
def test_results_are_those_of_a_process_of_this_computer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_shared: bool
) -> None:
    monkeypatch.setattr(remote_workers, "PIECE_BYTES", 1000)
    source, steps = tmp_path / "a.png", list[float]()
    source.write_bytes(png(60, 50))

    async def act(worker: RemoteWorker, ray: SimulatedRay) -> None:
        about = await _restore(worker, source, tmp_path / "there", progress=steps.append)
        assert about["file"] == "result.png" and about["megapixels"] == pytest.approx(0.003)
        assert worker.is_shared is is_shared and worker.models == ["srcnn-x2"] and worker.rss_bytes > 10**8
        assert worker.measure_memory()[1] > 10**8
        folder = worker._there
        assert [path.name for path in folder.iterdir()] == ["temporary"]
        with pytest.raises(CommandFailedError, match=r"^a\.png is not a PNG") as found:
            (tmp_path / "b.png").write_bytes(b"no picture")
            await _restore(worker, tmp_path / "b.png", tmp_path / "other")
        assert found.value.kind == "picture" and not list((tmp_path / "other").iterdir())
        assert [path.name for path in folder.iterdir()] == ["temporary"]
        await worker.stop()
        assert not folder.exists()

    _run(tmp_path, act, is_shared=is_shared)

    async def act_here() -> None:
        worker = WorkerProcess("worker", OPTIONS, tmp_path / "temporary")
        await _restore(worker, source, tmp_path / "here")
        await worker.stop()

    asyncio.run(act_here())
    (result,) = (tmp_path / "there").iterdir()
    assert result.read_bytes() == (tmp_path / "here" / "result.png").read_bytes()
    assert steps and steps == sorted(steps) and steps[-1] <= 1


def test_cancelled_while_it_restores(tmp_path: Path) -> None:
    """It stops soon, and its process is used again or replaced."""
    (tmp_path / "a.png").write_bytes(png(900, 900))
    (tmp_path / "small.png").write_bytes(png())

    async def act(worker: RemoteWorker, ray: SimulatedRay) -> None:
        await _restore(worker, tmp_path / "small.png", tmp_path / "first")
        calling = asyncio.ensure_future(
            _restore(worker, tmp_path / "a.png", tmp_path / "out", model="mimo-unet-small")
        )
        await asyncio.sleep(1.0)
        start = time.monotonic()
        await worker.cancel()
        with pytest.raises(CommandCancelledError):
            await calling
        assert time.monotonic() - start < 5  # a second on a machine that is not busy
        assert not list((tmp_path / "out").iterdir())
        await _restore(worker, tmp_path / "small.png", tmp_path / "second")

    _run(tmp_path, act, is_shared=False)


def test_cancelled_while_its_file_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_workers, "PIECE_BYTES", 1)
    (tmp_path / "a.png").write_bytes(png(900, 900))

    async def act(worker: RemoteWorker, ray: SimulatedRay) -> None:
        await worker.start()
        calling = asyncio.ensure_future(_restore(worker, tmp_path / "a.png", tmp_path / "out"))
        await asyncio.sleep(0.5)
        await worker.cancel()
        with pytest.raises(CommandCancelledError):
            await calling
        monkeypatch.setattr(remote_workers, "PIECE_BYTES", 2**20)
        assert await worker.call("list_models", limit_s=80)

    _run(tmp_path, act, is_shared=False)


def test_an_actor_that_is_killed_ends_its_process_and_is_replaced(tmp_path: Path) -> None:
    async def act(worker: RemoteWorker, ray: SimulatedRay) -> None:
        await worker.start()
        process = await _process_of(worker)
        calling = asyncio.ensure_future(worker.call("list_models", limit_s=80))
        await asyncio.sleep(0.1)
        ray.actors[0].kill()
        with pytest.raises(WorkerDiedError, match="it was killed, or crashed"):
            await calling
        assert not worker.is_alive
        await _wait_for_end(process)
        assert await worker.call("list_models", limit_s=80)
        assert len(ray.started) == 2

    _run(tmp_path, act, is_shared=True)


def test_an_actor_that_is_killed_while_a_file_is_sent_gets_no_other_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_workers, "PIECE_BYTES", 1)
    (tmp_path / "a.png").write_bytes(png(900, 900))

    async def act(worker: RemoteWorker, ray: SimulatedRay) -> None:
        await worker.start()
        calling = asyncio.ensure_future(_restore(worker, tmp_path / "a.png", tmp_path / "out"))
        await asyncio.sleep(0.5)
        ray.actors[0].kill()
        with pytest.raises(WorkerDiedError, match="it was killed, or crashed"):
            await calling
        assert not worker.is_alive

    _run(tmp_path, act, is_shared=False)


def test_a_process_that_is_killed_without_work_is_noticed(tmp_path: Path) -> None:
    async def act(worker: RemoteWorker, ray: SimulatedRay) -> None:
        await worker.start()
        (await _process_of(worker)).kill()
        end = time.monotonic() + 10
        while worker.is_alive:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        with pytest.raises(WorkerDiedError, match="signal 9"):
            await worker._read_event()
        assert await worker.call("list_models", limit_s=80)

    _run(tmp_path, act, is_shared=True)


def test_a_command_that_takes_too_long_ends_its_process(tmp_path: Path) -> None:
    async def act(worker: RemoteWorker, ray: SimulatedRay) -> None:
        await worker.start()
        process = await _process_of(worker)
        with pytest.raises(WorkerDiedError, match="needed more than 0 s") as found:
            await worker.call("list_models", limit_s=0.01)
        assert found.value.cause == "time" and not worker.is_alive
        await _wait_for_end(process)

    _run(tmp_path, act, is_shared=True)


def test_killed_with_a_reason_on_the_cluster(tmp_path: Path) -> None:
    async def act(worker: RemoteWorker, ray: SimulatedRay) -> None:
        await worker.start()
        calling = asyncio.ensure_future(worker.call("list_models", limit_s=80))
        await asyncio.sleep(0)
        worker._memory = (2**40, 2**40)
        worker.kill("used too much memory", "memory")
        with pytest.raises(WorkerDiedError, match="used too much memory") as found:
            await calling
        assert found.value.cause == "memory"
        await worker._create()
        assert worker.measure_memory() == (0, 0), "not that of the last process"

    _run(tmp_path, act, is_shared=True)


def test_finished_tiles_of_a_canceled_picture_are_deleted_with_its_files(tmp_path: Path) -> None:
    process = RemoteProcess()
    process._folder = tmp_path
    (tmp_path / "temporary").mkdir()
    (tmp_path / ".tiles").mkdir()
    (tmp_path / ".tiles" / "1").write_bytes(b"x")
    assert process.put_piece("source.png", b"ab") is None and process.put_piece("source.png", b"c") is None
    assert process.get_piece("source.png", 1, 5) == b"bc"
    assert "directory" in str(process.put_piece("no/such/folder", b"x"))
    process.remove_files()
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]


def test_a_cluster_without_room_or_with_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_workers, "START_REMOTE_S", 0.5)

    async def act(ray: SimulatedRay) -> str:
        service = Service(
            Setup(tmp_path / "data", cluster="ray"),
            Limits(2_000_000_000, remote_bytes=10**9),
            _cluster(ray, tmp_path / "marker").make_worker,
        )
        with pytest.raises(ClusterError, match="no worker can be started on the cluster") as found:
            await service.start()
        await service.stop()
        return str(found.value)

    assert "perhaps no computer of the cluster has 1000 MB" in asyncio.run(act(SimulatedRay({"CPU": 0.5})))
    monkeypatch.setattr(remote_workers, "START_REMOTE_S", 60)
    monkeypatch.setattr(remote_workers, "describe_versions", lambda: "pellucid 0.1")
    assert "but the service pellucid 0.1" in asyncio.run(act(SimulatedRay()))


def test_a_picture_whose_workers_are_killed_is_repeated_and_fails_in_one_line(tmp_path: Path) -> None:
    ray = SimulatedRay({"CPU": 1, "memory": 2**40})

    async def restore(service: Service) -> JobRecord:
        path = service.records.temporary / new_id()
        path.write_bytes(png(700, 700))
        upload = Upload(new_id(), "a.png", "me", time.time(), 1, ".png", about={"pixels": 490_000})
        service.records.take_file(upload, path)
        service.records.save_upload(upload)
        job = await service.add_job([upload], "mimo-unet-small", {}, "me", is_kept=True)
        for attempt in (1, 2):
            while (job.tasks[0].state, job.tasks[0].attempts) != ("running", attempt):
                await asyncio.sleep(0.02)
            ray.living[-1].kill()
        await service.wait(job)
        return job

    async def act() -> None:
        service = Service(
            Setup(tmp_path / "data", cluster="ray"),
            Limits(2_000_000_000, remote_bytes=10**9),
            _cluster(ray, tmp_path / "marker").make_worker,
        )
        try:
            async with asyncio.timeout(110):
                await service.start()
                (task,) = (await restore(service)).tasks
                assert task.state == "failed" and task.error_kind == "fault"
                assert task.error == ("a.png: restoring it ended 2 worker processes (it was killed, or crashed)")
        finally:
            await service.stop()

    asyncio.run(act())
