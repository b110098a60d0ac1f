"""Limits, failures of worker processes, and restarts, without HTTP or with an application without a server."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from pellucid.serving import service as service_module
from pellucid.serving.http import application
from pellucid.serving.limits import Limits, Setup
from pellucid.serving.problems import Problem
from pellucid.serving.records import JobRecord, Task, Upload, new_id
from pellucid.serving.service import Service, _problem_of
from pellucid.serving.workers.worker_processes import CommandFailedError
from serving_service import png


@pytest.mark.parametrize(
    ("kind", "message", "status"),
    [
        ("storage", "No space left on device", 507),
        ("picture", "a.png is not a file of a known picture format", 400),
        ("picture", "a.png has 300,000,000 pixels; the limit is 100,000,000", 413),
        ("memory", "not enough memory", 413),
        ("fault", "a fault of pellucid (KeyError: 1)", 500),
        ("picture", "a.png is truncated", 422),
    ],
)
def test_a_failure_has_the_status_of_its_cause(kind: str, message: str, status: int) -> None:
    """Statuses are those of RFC 9110 and RFC 4918."""
    problem = _problem_of(CommandFailedError(kind, message))
    assert (problem.status, problem.detail) == (status, message)


def test_the_process_that_answers_requests_loads_no_library_for_pictures_or_networks() -> None:
    """They take 200 MB, and a damaged picture could end the process."""
    heavy = ("torch", "numpy", "pyvips", "rawpy", "tifffile", "scipy")
    code = f"import sys; sys.modules.update(dict.fromkeys({heavy})); from pellucid.serving import serve"
    subprocess.run([sys.executable, "-c", code], check=True)


def _open(folder: Path, **limits: Any) -> Service:
    """A service without processes that offers a model."""
    service = Service(Setup(folder), Limits(memory_bytes=2_500_000_000, **limits))
    service.models = {"srcnn-x2": {"scale": 2}}
    service.is_ready = True
    return service


def _upload(service: Service, content: bytes = b"12345") -> Upload:
    path = service.records.temporary / new_id()
    path.write_bytes(content)
    upload = Upload(new_id(), "a.png", "me", time.time(), len(content), ".png", about={"pixels": 1})
    service.records.take_file(upload, path)
    service.records.save_upload(upload)
    return upload


def test_no_work_before_the_start_and_after_the_end(tmp_path: Path) -> None:
    service = _open(tmp_path)
    service.is_ready = False

    async def ask() -> None:
        transport = httpx.ASGITransport(application.create(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for _ in range(2):  # starting, draining
                for answer in (
                    await client.get("/health/ready"),
                    await client.post("/v1/restore", params={"model": "srcnn-x2"}, content=png()),
                    await client.post("/v1/pictures", content=png()),
                ):
                    assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
                assert (await client.get("/health/live")).status_code == 200
                service.is_ready = service.is_draining = True

    asyncio.run(ask())
    service.records.close()


def test_one_client_cannot_fill_the_queue_alone(tmp_path: Path) -> None:
    service = _open(tmp_path, max_files_per_client=3)

    async def act() -> None:
        upload = _upload(service)
        for _ in range(3):
            await service.add_job([upload], "srcnn-x2", {}, "me", is_kept=True)
        with pytest.raises(Problem, match="3 of your pictures") as found:
            await service.add_job([upload], "srcnn-x2", {}, "me", is_kept=True)
        assert found.value.status == 429 and found.value.retry_after_s
        await service.add_job([upload], "srcnn-x2", {}, "another", is_kept=True)

    asyncio.run(act())
    service.records.close()


@pytest.mark.parametrize(
    ("model", "options", "passes"),
    [
        ("srcnn-x2", {}, 1),
        ("srcnn-x2", {"ensemble": True}, 8),
        ("srcnn-x2+srcnn-x2", {}, 1 + 4),
        ("srcnn-x2", {"scale": 5.0}, 1 + 4 + 16),
        ("srcnn-x2", {"size": (300, None)}, 1 + 4),
        ("srcnn-x2", {"size": (200, 450)}, 1 + 4),
        ("same", {"scale": 3.0}, 1),
    ],
)
def test_the_time_limit_counts_every_pass(
    tmp_path: Path, model: str, options: dict[str, Any], passes: int
) -> None:
    service = _open(tmp_path)
    service.models["same"] = {"scale": 1}
    job = JobRecord(new_id(), "me", model, options, [Task("x", "x.png", 10_000)])
    assert service._count_passes(job, job.tasks[0]) == passes
    service.records.close()


def test_event_streams_are_limited(tmp_path: Path) -> None:
    service = _open(tmp_path, max_streams=2)

    async def ask() -> None:
        job = await service.add_job([_upload(service)], "srcnn-x2", {}, "me", is_kept=True)
        transport = httpx.ASGITransport(application.create(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            service.num_streams = 2
            answer = await client.get(f"/v1/jobs/{job.id}/events")
            assert answer.status_code == 429 and answer.headers["retry-after"]
            service.num_streams = 1
            await service.cancel(job)
            answer = await client.get(f"/v1/jobs/{job.id}/events")
            assert "event: cancelled" in answer.text and service.num_streams == 1

    asyncio.run(ask())
    service.records.close()


def test_old_results_and_pictures_expire(tmp_path: Path) -> None:
    service = _open(tmp_path, keep_s=100, max_kept=3)
    uploads = [_upload(service) for _ in range(6)]
    uploads[3].created_s -= 101
    job = JobRecord(
        new_id(), "me", "srcnn-x2", {}, [Task("x", "x", 1, state="done")], finished_s=time.time() - 101
    )
    service.records.save_job(job)
    service._make_room(0)
    assert not service.records.jobs
    assert [*service.records.uploads.values()] == [uploads[2], uploads[4], uploads[5]], "the newest three"
    service.records.close()


@pytest.mark.parametrize(("attempts", "state"), [(2, "queued"), (3, "failed")])
def test_a_picture_that_ends_the_whole_service_is_given_up(tmp_path: Path, attempts: int, state: str) -> None:
    """Otherwise, each restart would end in the same way."""
    first = _open(tmp_path)
    task = Task(_upload(first).id, "a.png", 1, state="running", attempts=attempts)
    job = JobRecord(new_id(), "me", "srcnn-x2", {}, [task])
    first.records.save_job(job)
    first.records.close()
    second = _open(tmp_path)
    again = second.records.jobs[job.id]
    asyncio.run(second._continue(again))
    assert again.state == state and len(second._queue) == (state == "queued")
    assert state == "queued" or "3 times" in str(again.tasks[0].error)
    second.records.close()


def _run(folder: Path, act: Callable[[Service], Awaitable[None]]) -> None:
    """With a real worker."""

    async def run() -> None:
        service = Service(Setup(folder), Limits(memory_bytes=2_500_000_000))
        try:
            async with asyncio.timeout(100):
                await service.start()
                await act(service)
        finally:
            await service.stop()

    asyncio.run(run())


async def _restore(service: Service, model: str, content: bytes) -> JobRecord:
    upload = _upload(service, content)
    job = await service.add_job([upload], model, {}, "me", is_kept=True)
    async with asyncio.timeout(80):
        await service.wait(job)
    return job


def test_workers_over_their_memory_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a picture: it fails with a line. After a picture: the process is replaced."""
    monkeypatch.setattr(service_module, "MAX_ATTEMPTS", 1)
    monkeypatch.setattr(service_module, "WATCH_EVERY_S", 0.1)

    async def act(service: Service) -> None:
        (worker,) = service._workers
        assert (await _restore(service, "srcnn-x2", png())).state == "done"
        limit = worker.options["memory_bytes"]
        worker.options["memory_bytes"] = 10_000_000
        (task,) = (await _restore(service, "mimo-unet-small", png(900, 900))).tasks
        assert (task.state, task.error_kind) == ("failed", "memory")
        assert "MB of memory; the limit is 12 MB" in str(task.error)
        worker.options["memory_bytes"] = limit
        monkeypatch.setattr(service_module, "RECYCLE_SHARE", 0.0)
        num_starts = worker.num_starts
        assert (await _restore(service, "srcnn-x2", png())).state == "done"
        assert (await _restore(service, "srcnn-x2", png())).state == "done"
        assert worker.num_starts == num_starts + 1

    _run(tmp_path, act)


def test_a_picture_that_runs_when_the_service_stops_counts_no_attempt(tmp_path: Path) -> None:
    async def act(service: Service) -> None:
        job = await service.add_job([_upload(service, png(900, 900))], "mimo-unet-small", {}, "me", is_kept=True)
        while job.tasks[0].state != "running":
            await asyncio.sleep(0.02)
        assert job.tasks[0].attempts == 1

    _run(tmp_path, act)
    service = _open(tmp_path)
    ((task,),) = [job.tasks for job in service.records.jobs.values()]
    assert (task.state, task.attempts) == ("queued", 0)
    service.records.close()
