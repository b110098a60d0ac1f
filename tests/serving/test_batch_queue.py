"""Batches from bucket to bucket: by a real service and a real server, which is killed and started again."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import pellucid
from object_server import Bucket, ObjectServer
from pellucid.serving import batch_queue
from pellucid.serving.limits import Limits, Setup
from pellucid.serving.problems import Problem
from pellucid.serving.records import FINISHED, BatchRecord
from pellucid.serving.service import Service
from serving_service import Running, png, start

NAMES = [f"{i}.png" for i in range(7)] + ["deep/ä 1%.png"]
OPTIONS = {"model": "srcnn-x2", "strength": 0.75, "bit_depth": 16}
PRIVATE = "test_batches"


@dataclass
class Story:
    """One batch that was cancelled, requested again, killed with its service, and completed by the next service.

    states: of the batch, after each of these steps. processes: of the batch, one for each run.
    num_kept, num_left: results after it was cancelled, and after the kill, when its process had ended.
    """

    service: Running
    bucket: Bucket
    folder: Path
    states: list[dict[str, Any]] = field(default_factory=list)
    processes: list[psutil.Process] = field(default_factory=list)
    num_kept: int = 0
    num_left: int = 0


def _find_process(service: Running) -> psutil.Process:
    children = psutil.Process(service.process.pid).children()
    (found,) = [child for child in children if "pellucid.serving.workers.batch_program" in child.cmdline()]
    return found


def _wait_until(is_true: Callable[[], Any], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.02)


def _wait_for_end(client: httpx.Client, place: str) -> dict[str, Any]:
    _wait_until(lambda: client.get(place).json()["state"] in FINISHED)
    return dict(client.get(place).json())


@pytest.fixture(scope="module")
def story(object_server: ObjectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder, bucket = tmp_path_factory.mktemp("batches"), Bucket(object_server, PRIVATE)
    for seed, name in enumerate(NAMES):
        bucket.put(f"in/{name}", png(150, 140, seed))
    bucket.put("in/broken.png", png()[:300])
    bucket.put("in/notes.txt", b"not a picture")

    def launch() -> Running:
        environment = object_server.environment()
        return start(folder, "--allow-urls", bucket.url, "--drain", "20", environment=environment)

    def post(client: httpx.Client) -> str:
        request = {"in": f"{bucket.url}/in", "out": f"{bucket.url}/out", **OPTIONS}
        answer = client.post("/v1/batches", json=request)
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == f"/v1/batches/{answer.json()['id']}"
        return str(answer.headers["location"])

    def count_results() -> int:
        return sum(bucket.exists(f"out/{name}") for name in NAMES)

    story = Story(launch(), bucket, folder)
    with story.service.client() as client:
        place = post(client)
        _wait_until(lambda: client.get(place).json()["state"] == "running")
        _wait_until(count_results)
        story.processes.append(_find_process(story.service))
        answer = client.delete(place)
        assert answer.status_code == 202 and answer.json()["state"] == "running"
        story.states.append(_wait_for_end(client, place))
        story.num_kept = count_results()
        place = post(client)
        _wait_until(lambda: count_results() > story.num_kept)
        story.processes.append(_find_process(story.service))
    story.service.kill()
    psutil.wait_procs(story.processes, timeout=20)
    story.num_left = count_results()
    story.service = launch()
    with story.service.client() as client:
        _wait_until(lambda: client.get(place).json()["state"] == "running")
        story.processes.append(_find_process(story.service))
        story.states.append(_wait_for_end(client, place))
    yield story
    assert story.service.stop() == 0, story.service.log.read_text()
    assert "Traceback" not in story.service.log.read_text()


def test_a_cancelled_batch_keeps_its_results(story: Story) -> None:
    cancelled = story.states[0]
    assert cancelled["state"] == "cancelled" and cancelled["finished_s"] and cancelled["left_s"] is None
    assert cancelled["num_restored"] <= story.num_kept  # those that were in progress are not in the report
    assert 1 <= story.num_kept < len(NAMES)


def test_no_process_of_a_batch_outlives_its_service(story: Story) -> None:
    """It has ended before it had restored everything."""
    assert not any(process.is_running() for process in story.processes)
    assert story.num_kept < story.num_left < len(NAMES)


def test_a_batch_continues_after_a_kill_of_the_service(story: Story, tmp_path: Path) -> None:
    """Every result is there once, with the bytes that `restore` writes."""
    finished = story.states[1]
    assert finished["num_pictures"] == len(NAMES) + 1
    assert finished["num_skipped"] > story.num_kept
    assert finished["num_restored"] + finished["num_skipped"] == len(NAMES)
    source = tmp_path / "in"
    for seed, name in enumerate(NAMES):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(png(150, 140, seed))
    settings = pellucid.Settings(strength=0.75, bit_depth=16)
    pellucid.restore(source, "srcnn-x2", tmp_path / "out", settings)
    for name in NAMES:
        assert story.bucket.get(f"out/{name}") == (tmp_path / "out" / name).read_bytes(), name


def test_a_damaged_picture_is_listed(story: Story) -> None:
    finished = story.states[1]
    assert (finished["state"], finished["num_failed"]) == ("failed", 1)
    (failure,) = finished["failures"]
    assert failure.startswith(f"{story.bucket.url}/in/broken.png is damaged")
    with story.service.client() as client:
        report = client.get(finished["report_url"]).json()
        listed = client.get("/v1/batches").json()
    statuses = {one["source"].removeprefix(f"{story.bucket.url}/in/"): one["status"] for one in report["pictures"]}
    assert statuses.keys() == {*NAMES, "broken.png"} and statuses["broken.png"] == "failed"
    assert [batch["state"] for batch in listed] == ["failed", "cancelled"]
    assert listed[0] == {key: value for key, value in finished.items() if key not in ("failures", "warnings")}


@pytest.mark.parametrize(
    ("changes", "status", "detail"),
    [
        (
            {"in": "s3://pictures/test_batches-2/in"},
            403,
            "not in a place that the operator of this service allows",
        ),
        ({"out": "s3://pictures-evil/test_batches/out"}, 403, "not in a place that the operator of this service"),
        (
            {"out": "gs://pictures/test_batches/out"},
            403,
            "not in a place that the operator of this service allows",
        ),
        ({"in": "s3://pictures/"}, 403, "not in a place that the operator of this service allows"),
        ({"in": "/etc"}, 403, "not in a place that the operator of this service allows"),
        ({"in": "s3://pictures/test_batches/../in"}, 400, "has a part that is empty, . or .."),
        ({"in": "s3://pictures/test_batches/%2e%2e/in"}, 400, "a part that means another folder"),
        ({"in": "s3://pictures/test_batches/%252E%252e/in"}, 400, "a part that means another folder"),
        ({"in": "s3://pictures/test_batches/..%2fin"}, 400, "a part that means another folder"),
        ({"in": "http://169.254.169.254/latest/meta-data"}, 400, "is on a web server; batches use buckets"),
        ({"in": "https://host/a.png"}, 400, "is on a web server; batches use buckets"),
        ({"in": "s3://user:password@pictures/test_batches/in"}, 400, "s3://...@pictures/test_batches/in contains"),
        ({"in": "file:///etc"}, 400, "is a URL of another kind"),
        ({"in": "-"}, 400, "'-' is neither a URL nor an absolute path"),
        ({"in": "--model=x"}, 400, "'--model=x' is neither a URL nor an absolute path"),
        ({"in": ""}, 400, "a place of 0 characters"),
        ({"in": "s3://pictures/test_batches/a\nb"}, 400, "contains a control character"),
        ({"in": "s3://pictures/test_batches/\ud800"}, 400, "the body cannot be read: 'utf-8' codec"),
        ({"in": ["s3://pictures/test_batches/in"]}, 400, "in=['s3://"),
        ({"model": "/etc/passwd"}, 400, "no model '/etc/passwd'"),
        ({"model": "s3://pictures/test_batches/in"}, 400, "no model 's3://"),
        ({"network": "a.py"}, 400, "network is not an option of this request"),
        ({"path": "x"}, 400, "path is not an option of this request"),
        ({"mask": "/etc"}, 400, "mask is not an option of this request"),
        ({"strength": 2}, 400, "strength=2 is not possible"),
        ({"strength": "1"}, 400, "strength=1 is not possible; expected a valid number"),
        ({"bit_depth": 12}, 400, "bit_depth=12 is not possible"),
        ({"name": "../x"}, 400, "expected a pattern for names in one folder"),
        ({"name": "{0}"}, 400, "'{0}' is not a pattern for names; it can contain {stem}, {model}, {suffix}"),
        ({"exposure_ratio": 1e308}, 400, "exposure_ratio"),
        ({"name": "a\0b"}, 400, "is not possible; expected a text without control"),
    ],
)
def test_requests_that_are_refused(story: Story, changes: dict[str, Any], status: int, detail: str) -> None:
    request = {"in": f"{story.bucket.url}/in", "out": f"{story.bucket.url}/out-2", "model": "srcnn-x2"} | changes
    with story.service.client() as client:
        content = json.dumps(request)
        answer = client.post("/v1/batches", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == status and detail in answer.json()["detail"], answer.text
        assert "user:password" not in answer.text
        assert len(client.get("/v1/batches").json()) == 2


@pytest.mark.parametrize(
    ("content", "kind", "status", "detail"),
    [
        ("[1]", "application/json", 400, "the body is a list; a JSON object is needed"),
        ("{", "application/json", 400, "the body cannot be read"),
        ("[" * 20_000, "application/json", 400, "the body cannot be read"),
        ('{"in": "s3://a", "in": "s3://b"}', "application/json", 400, "'in' is given twice"),
        ("{}", "application/json", 400, "model is missing; in is missing; out is missing"),
        ("{}", "text/plain", 415, "send a JSON object, with Content-Type: application/json"),
        (" " * 70_000, "application/json", 413, "the limit of this request is 65536 bytes"),
    ],
)
def test_bodies_that_are_refused(story: Story, content: str, kind: str, status: int, detail: str) -> None:
    with story.service.client() as client:
        answer = client.post("/v1/batches", content=content, headers={"Content-Type": kind})
        assert answer.status_code == status and detail in answer.json()["detail"], answer.text


def test_without_the_option_there_are_no_batches(client: httpx.Client) -> None:
    request = {"in": "s3://bucket/in", "out": "s3://bucket/out", "model": "srcnn-x2"}
    place = f"/v1/batches/{'a' * 22}"
    for answer in (
        client.post("/v1/batches", json=request), client.get("/v1/batches"), client.get(place),
        client.delete(place), client.get(f"{place}/report"),
    ):  # fmt: skip
        assert answer.status_code == 403 and "--allow-urls" in answer.json()["detail"]


# Without a network: a program in place of `pellucid restore`

PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[-1])
with (folder / "runs").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
def report(**progress):
    message = {"level": "info", "message": "", "progress": {"failures": [], **progress}}
    print(json.dumps(message), file=sys.stderr, flush=True)
"""

DIES = "os.kill(os.getpid(), signal.SIGKILL)"
WAITS = "report(num_restored=1, picture='a.png'); time.sleep(60)"


@dataclass
class Home:
    """Folders for the service without HTTP, with a program in place of `pellucid restore`."""

    folder: Path
    patch: pytest.MonkeyPatch

    def make(self, program: str) -> Service:
        command = [sys.executable, "-c", PROGRAM + program]
        self.patch.setattr(batch_queue, "batch_command", lambda: command)
        (self.folder / "in").mkdir(exist_ok=True)
        setup = Setup(self.folder / "data", allowed_urls=(str(self.folder / "in"), str(self.folder / "out")))
        return Service(setup, Limits(2_500_000_000, num_batches=1, max_batches=3))

    def add(self, service: Service, **options: Any) -> BatchRecord:
        return service.batches.add(
            str(self.folder / "in"), str(self.folder / "out"), "srcnn-x2", options, "127.0.0.1"
        )

    def list_runs(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "in" / "runs").read_text().splitlines()]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(tmp_path, monkeypatch)


async def _run_until(service: Service, is_true: Callable[[], Any]) -> None:
    running = asyncio.create_task(service.batches.run())
    try:
        async with asyncio.timeout(30):
            while not is_true():
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_a_picture_that_kills_the_process_ends_the_batch(home: Home) -> None:
    """Each new result gives it new attempts; without one, there are three."""
    counter = "count = len((folder / 'runs').read_text().splitlines())\n"
    service = home.make(
        f"{counter}report(num_restored=int(count == 2), picture='bad.png')\ntime.sleep(0.2)\n{DIES}"
    )
    batch = home.add(service)
    asyncio.run(_run_until(service, lambda: batch.state in FINISHED))
    assert len(home.list_runs()) == 5 and batch.state == "failed"
    (failure,) = batch.failures
    assert "ended 3 times without a new result (signal 9, near bad.png)" in failure


def test_arguments_are_those_of_restore(home: Home) -> None:
    """Values of clients are never arguments of their own, except after --."""
    service = home.make("")
    batch = home.add(service, name="-x{suffix}", include=["--out=y", "*.tif"], overwrite=True, ensemble=False)
    asyncio.run(_run_until(service, lambda: batch.state in FINISHED))
    assert batch.state == "done" and batch.failures == []
    ((*options, dashes, source),) = home.list_runs()
    assert (options[0], dashes, source) == ("restore", "--", str(home.folder / "in"))
    assert all(option.startswith("--") for option in options[1:])
    assert {"--name=-x{suffix}", "--include=--out=y", "--include=*.tif", "--overwrite"} <= {*options}
    assert f"--out={home.folder / 'out'}/" in options and "--memory=862MB" in options
    assert "--ensemble" not in options


def test_a_stop_keeps_a_batch_for_the_next_start(home: Home) -> None:
    first = home.make(WAITS)
    batch, waiting = home.add(first), home.add(first)
    assert (first.batches.queue_position(batch), first.batches.queue_position(waiting)) == (0, 1)

    async def drain() -> None:
        running = asyncio.create_task(first.batches.run())
        while not batch.num_restored:
            await asyncio.sleep(0.01)
        await first.drain()
        assert not first.batches.is_running
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(drain())
    first.records.close()
    second = home.make("")
    found = [second.batches.find(one.id) for one in (batch, waiting)]
    assert [one.state for one in found] == ["queued", "queued"]
    asyncio.run(_run_until(second, lambda: all(one.state == "done" for one in found)))
    assert len(home.list_runs()) == 3


def test_a_kill_after_a_cancel_does_not_start_it_again(home: Home) -> None:
    first = home.make(WAITS)
    batch = home.add(first)
    batch.state, batch.is_cancelled = "running", True
    first.records.save_batch(batch)
    first.records.close()
    assert home.make("").batches.find(batch.id).state == "cancelled"


def test_too_many_batches_are_refused(home: Home) -> None:
    service = home.make("")
    for _ in range(3):
        last = home.add(service)
    with pytest.raises(Problem, match="3 batches are unfinished") as caught:
        home.add(service)
    assert caught.value.status == 429 and caught.value.headers["Retry-After"]
    service.batches.cancel(last)
    assert last.state == "cancelled"
    home.add(service)


def test_a_place_that_changes_while_a_batch_waits(home: Home) -> None:
    """A folder that has become a link to another place is not used."""
    service = home.make("")
    batch = home.add(service)
    (home.folder / "in").rename(home.folder / "secret")
    (home.folder / "in").symlink_to(home.folder / "secret")
    asyncio.run(_run_until(service, lambda: batch.state in FINISHED))
    assert batch.state == "failed" and "not in a place that the operator" in batch.failures[0]
    assert not (home.folder / "secret" / "runs").exists()


def test_lines_that_are_not_messages_and_names_that_are_not_text(home: Home) -> None:
    service = home.make(
        "print('noise', file=sys.stderr)\n"
        "print(json.dumps({'level': 'error', 'message': 'a\\udc80.png is damaged'}), file=sys.stderr)\n"
        "report(failures=['a\\udc80.png is damaged', 'b'], num_failed=2)\nsys.exit(1)"
    )
    batch = home.add(service)
    asyncio.run(_run_until(service, lambda: batch.state in FINISHED))
    assert (batch.state, batch.num_failed) == ("failed", 2)
    assert batch.failures == ["a\\udc80.png is damaged", "b"]


def test_finished_batches_expire(home: Home) -> None:
    service = home.make("Path(next(a for a in sys.argv if a.startswith('--json='))[7:]).write_text('{}')")
    batch = home.add(service)
    asyncio.run(_run_until(service, lambda: batch.state in FINISHED))
    assert batch.report_bytes == 2 == service.records.kept_bytes()
    assert service.records.list_removable() == [(batch.finished_s, batch)]
    service.records.remove(batch)
    assert not list((home.folder / "data" / "batches").iterdir())
    with pytest.raises(Problem, match="never existed, or has expired"):
        service.batches.find(batch.id)
