"""`pellucid serve` with workers on a real Ray of two computers, which it simulates."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from pellucid.restoration.restore import restore
from pellucid.restoration.restorer import load
from serving_service import Running, png, start, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # of Ray about itself

NUM_ATTEMPTS = 3
ASYNC = {"Prefer": "respond-async"}
SLOW_PX = 300

NOT_SHARED = """
from pellucid.serving import serve
serve.to_absolute = lambda marker: marker.with_name("elsewhere")  # as on a computer without this folder
from pellucid.cli import main
main()
"""


@dataclass
class Computers:
    """A cluster of two computers with one CPU each. second: the one without the head."""

    cluster: Any
    second: Any


@pytest.fixture(scope="module")
def computers() -> Iterator[Computers]:
    """Only a failure to start Ray is excused, after three attempts."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    for attempt in range(1, NUM_ATTEMPTS + 1):
        try:
            cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
            break
        except Exception as error:
            reason = f"attempt {attempt} to start Ray: {error}"
    else:
        pytest.skip(f"Ray does not start on this machine: {reason}")
    yield Computers(cluster, cluster.add_node(**options))
    cluster.shutdown()


def _start(folder: Path, computers: Computers, *more: str, is_shared: bool) -> Running:
    program = ("-m", "pellucid") if is_shared else ("-c", NOT_SHARED)
    options = ("--workers", computers.cluster.address, "--memory", "1GB", "--device", "cpu", *more)
    return start(folder, *options, program=program)


def _actors() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if child.name().startswith("ray::RemoteProc"):
                found.append(child)
    return found


def _wait_until(is_so: Callable[[], bool], limit_s: float = 100) -> None:
    end = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def _submit(client: httpx.Client, side_px: int = SLOW_PX) -> str:
    answer = client.post(
        "/v1/restore", params={"model": "mimo-unet-small"}, content=png(side_px, side_px), headers=ASYNC
    )
    return str(answer.json()["id"])


def _state(client: httpx.Client, job: str) -> str:
    return str(client.get(f"/v1/jobs/{job}").json()["state"])


def _outcomes(client: httpx.Client, jobs: list[str]) -> list[tuple[str, str | None]]:
    """(state, error) of the file of each job, when all are finished."""
    files = [wait_for(client, job)["files"][0] for job in jobs]
    return [(file["state"], file["error"]) for file in files]


@pytest.mark.parametrize("is_shared", [True, False])
def test_results_are_those_of_one_process_and_nothing_is_left(
    computers: Computers, tmp_path: Path, is_shared: bool
) -> None:
    (tmp_path / "a.png").write_bytes(png())
    restore(tmp_path / "a.png", load("srcnn-x2", device="cpu"), tmp_path / "out.png")
    service = _start(tmp_path, computers, "--processes", "1", is_shared=is_shared)
    with service.client() as client:
        answer = client.post("/v1/restore", params={"model": "srcnn-x2"}, content=png())
        assert answer.content == (tmp_path / "out.png").read_bytes()
        answer = client.post("/v1/restore", params={"model": "srcnn-x2"}, content=b"no picture")
        assert answer.status_code == 400
    assert len(service.workers()) == 1, "the process that reads headers"
    assert service.stop() == 0
    _wait_until(lambda: not _actors(), 20)
    assert "Traceback" not in service.log.read_text()


def test_dead_workers_and_computers_lose_no_job_and_sigterm_finishes_one(
    computers: Computers, tmp_path: Path
) -> None:
    service = _start(tmp_path, computers, is_shared=False)  # two workers: as many as fit
    try:
        with service.client() as client:
            jobs = _run_two_of_many(client)
            _actors()[0].kill()
            assert _outcomes(client, jobs) == [("done", None)] * len(jobs), service.log.read_text()

            jobs = _run_two_of_many(client)
            computers.cluster.remove_node(computers.second, allow_graceful=False)
            assert _outcomes(client, jobs) == [("done", None)] * len(jobs), service.log.read_text()

            job = _submit(client, 2 * SLOW_PX)
            _wait_until(lambda: _state(client, job) == "running")
            client.delete(f"/v1/jobs/{job}")
            assert client.get(f"/v1/jobs/{job}").status_code == 404

            job = _submit(client)
            _wait_until(lambda: _state(client, job) == "running")
            with client.stream("GET", f"/v1/jobs/{job}/events") as events:
                service.process.send_signal(signal.SIGTERM)
                assert "event: running" in "".join(events.iter_text())
        assert service.process.wait(90) == 0
        assert "Traceback" not in service.log.read_text()
        _wait_until(lambda: not _actors(), 20)
        assert len(list((service.data / "jobs" / job).glob("*/result.png"))) == 1
    finally:
        service.kill()


def _run_two_of_many(client: httpx.Client) -> list[str]:
    """Jobs, of which two are running: the second worker may still start."""
    jobs = [_submit(client) for _ in range(2)]
    while sum(_state(client, job) == "running" for job in jobs) < 2:
        if all(_state(client, job) != "queued" for job in jobs):
            jobs.append(_submit(client))
        assert len(jobs) < 30
        time.sleep(0.05)
    return jobs
