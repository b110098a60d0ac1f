"""Starting, stopping, crashing and coming back; access; limits that concern all clients."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from pellucid.errors import PellucidError
from pellucid.serving import serve
from pellucid.weights.models import find_model
from serving_service import Running, png, start, wait_for

FAST, SLOW = {"model": "srcnn-x2"}, {"model": "mimo-unet-small"}
ASYNC = {"Prefer": "respond-async"}


def test_jobs_survive_a_kill(tmp_path: Path) -> None:
    """A finished result is still there, an unfinished job runs again, and temporary files are gone.

    Nothing is written outside of the data folder.
    """
    outside = tmp_path / "outside"
    outside.mkdir()
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(outside))
    first = start(tmp_path, environment=places)
    with first.client() as client:
        done = client.post("/v1/restore", params=FAST, content=png(), headers=ASYNC).json()["id"]
        assert wait_for(client, done)["state"] == "done"
        result = client.get(f"/v1/jobs/{done}/result").content
        running = client.post("/v1/restore", params=SLOW, content=png(300, 300), headers=ASYNC).json()["id"]
        waiting = client.post("/v1/restore", params=FAST, content=png(), headers=ASYNC).json()["id"]
    children = first.workers()
    assert all(child.environ()["VIPS_BLOCK_UNTRUSTED"] == "1" for child in children)
    first.kill()
    assert not list(outside.iterdir())
    (first.data / "temporary" / "left-over").write_bytes(b"x")
    second = start(tmp_path)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "workers outlived their service"
    with second.client() as client:
        assert client.get(f"/v1/jobs/{done}/result").content == result
        assert [wait_for(client, job)["state"] for job in (running, waiting)] == ["done", "done"]
    assert not (second.data / "temporary" / "left-over").exists()
    assert second.stop() == 0


def test_sigterm_lets_running_work_finish(tmp_path: Path) -> None:
    service = start(tmp_path)
    with service.client() as client:
        client.post("/v1/restore", params=SLOW, content=png(), headers=ASYNC)  # loads the model
        job = client.post("/v1/restore", params=SLOW, content=png(400, 400), headers=ASYNC).json()["id"]
        while client.get(f"/v1/jobs/{job}").json()["state"] != "running":
            time.sleep(0.02)
        with client.stream("GET", f"/v1/jobs/{job}/events") as events:
            service.process.send_signal(signal.SIGTERM)
            text = "".join(events.iter_text())  # ended by the service
    assert "event: running" in text
    assert service.process.wait(60) == 0
    assert "Traceback" not in service.log.read_text()
    again = start(tmp_path)
    with again.client() as client:
        assert client.get(f"/v1/jobs/{job}").json()["state"] == "done"
    assert again.stop() == 0


def test_a_killed_worker_is_replaced_and_its_job_runs_again(tmp_path: Path) -> None:
    service = start(tmp_path)
    with service.client() as client:
        job = client.post("/v1/restore", params=SLOW, content=png(500, 500), headers=ASYNC).json()["id"]
        while client.get(f"/v1/jobs/{job}").json()["state"] != "running":
            time.sleep(0.02)
        for worker in service.workers():
            worker.kill()
        assert wait_for(client, job)["state"] == "done"
        # One that ends two workers is refused, and the next one runs.
        job = client.post("/v1/restore", params=SLOW, content=png(800, 800), headers=ASYNC).json()["id"]
        end = time.monotonic() + 120
        while client.get(f"/v1/jobs/{job}").json()["state"] != "failed":
            assert time.monotonic() < end
            state = client.get(f"/v1/jobs/{job}").json()["state"]
            if state == "running":
                for worker in service.workers():
                    worker.kill()
            time.sleep(0.05)
        (file,) = client.get(f"/v1/jobs/{job}").json()["files"]
        assert "ended 2 worker processes (signal 9)" in file["error"]
        assert client.post("/v1/restore", params=FAST, content=png()).status_code == 200
    assert service.stop() == 0


def test_a_client_that_leaves_cancels_its_work(tmp_path: Path) -> None:
    service = start(tmp_path)
    with service.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/restore", params=SLOW, content=png(1100, 1100), timeout=4)
        start_s = time.monotonic()
        # The only worker is free again, long before it could have finished.
        assert client.post("/v1/restore", params=FAST, content=png()).status_code == 200
        assert time.monotonic() - start_s < 20
        assert not list((service.data / "jobs").glob("*/*/*"))
        time.sleep(0.2)
        assert not list((service.data / "uploads").glob("*"))
    assert service.stop() == 0


def test_a_full_queue_and_a_greedy_client(tmp_path: Path) -> None:
    service = start(tmp_path, "--max-queue", "2")
    with service.client() as client:
        answers = [client.post("/v1/restore", params=SLOW, content=png(900, 900), headers=ASYNC) for _ in range(5)]
        assert {answer.status_code for answer in answers} == {202, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1 and "waiting" in refused.json()["detail"]
        for answer in answers:
            if answer.status_code == 202:
                assert client.delete(f"/v1/jobs/{answer.json()['id']}").status_code == 204
        assert client.post("/v1/restore", params=FAST, content=png()).status_code == 200
    assert service.stop() == 0


def test_limits_of_bytes_and_pixels(tmp_path: Path) -> None:
    service = start(tmp_path, "--max-size", "100000", "--max-pixels", "10000")
    with service.client() as client:
        large = client.post("/v1/restore", params=FAST, content=png(300, 300))
        assert large.status_code == 413 and "100,000 bytes" in large.json()["detail"]
        flat = png(90, 90)
        many = client.post("/v1/restore", params=FAST, content=flat[:16] + b"\0\0\4\0" + flat[20:])
        assert many.status_code in (413, 422)
        ok = client.post("/v1/restore", params=FAST, content=flat)
        assert ok.status_code == 200
        wide = client.post("/v1/restore", params=FAST, content=png(110, 100))
        assert wide.status_code == 413 and "limit" in wide.json()["detail"]
    assert service.stop() == 0


def test_a_file_of_several_lines_is_no_token(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("the token is in the safe\nof the office\n")
    with pytest.raises(PellucidError, match="has 2 lines; one with the token is needed"):
        serve.read_token(tmp_path / "notes")


def test_a_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef0\n")
    service = start(tmp_path, "--token-file", str(tmp_path / "token"), "--host", "0.0.0.0")
    url = service.url.replace("0.0.0.0", "127.0.0.1")
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/health/ready").status_code == client.get("/").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic 0123456789abcdef0"}):
            answer = client.get("/v1/models", headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
        assert client.get("/metrics").status_code == 401
        headers = {"Authorization": "Bearer 0123456789abcdef0"}
        assert client.get("/v1/models", headers=headers).status_code == 200
        answer = client.post("/v1/restore", params=FAST, content=png(), headers=headers | ASYNC)
        job = answer.json()["id"]
        while not (link := client.get(f"/v1/jobs/{job}", headers=headers).json()["result_url"]):
            time.sleep(0.05)
        assert client.get(link).status_code == 200  # a browser's own download sends no header
        assert client.get(link.replace("key=", "key=0")).status_code == 401
        assert client.get(f"/v1/jobs/{job}").status_code == 401
    assert service.stop() == 0
    again = start(tmp_path, "--token-file", str(tmp_path / "token"))
    with again.client() as client:
        assert client.get(link).status_code == 200, "links work after a restart"
        assert client.get("/v1/models").status_code == 401
    assert again.stop() == 0


def test_slow_clients_are_ended(tmp_path: Path) -> None:
    """A body that stalls, one below the minimum rate, one that is cut, and a reader that stops; all over IPv6."""
    service = start(tmp_path, "--idle", "1", "--host", "::1")
    port = int(service.url.removeprefix("http://[::1]:"))
    host = f"Host: [::1]:{port}\r\n"
    head = f"POST /v1/restore?model=srcnn-x2 HTTP/1.1\r\n{host}Content-Length: 100000\r\n\r\nabc"
    with socket.create_connection(("::1", port), timeout=30) as connection:
        connection.sendall(head.encode())
        assert b" 408 " in connection.recv(4096)
    with socket.create_connection(("::1", port), timeout=30) as connection:
        connection.sendall(head.encode())
        connection.settimeout(0.2)
        end, answer = time.monotonic() + 20, b""
        # Never a pause of a second, but 15 bytes a second. The answer may come in pieces.
        while b" per second" not in answer and time.monotonic() < end:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(b"abc")
            with contextlib.suppress(TimeoutError):
                answer += connection.recv(4096)
        assert b" 408 " in answer and b"1000 bytes per second" in answer
    with socket.create_connection(("::1", port), timeout=30) as connection:
        connection.sendall(head.encode())
    with service.client() as client:
        params = FAST | {"format": "bmp"}
        job = client.post("/v1/restore", params=params, content=png(900, 900), headers=ASYNC).json()["id"]
        wait_for(client, job)
        with socket.socket(socket.AF_INET6) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("::1", port))
            connection.sendall(f"GET /v1/jobs/{job}/result HTTP/1.1\r\n{host}\r\n".encode())
            end = time.monotonic() + 20
            while _count_connections(service) > 1:  # the other one is the client's
                assert time.monotonic() < end, "a reader that stopped is still connected"
                time.sleep(0.1)
        assert len(client.get(f"/v1/jobs/{job}/result").content) > 9_000_000
        assert client.get("/health/ready").status_code == 200
        assert not list((service.data / "temporary").glob("request-*"))
    assert service.stop() == 0
    assert "Traceback" not in service.log.read_text()


def _count_connections(service: Running) -> int:
    """Established TCP connections of the process that answers requests."""
    found = psutil.Process(service.process.pid).net_connections("tcp")
    return sum(connection.status == psutil.CONN_ESTABLISHED for connection in found)


def _fail(folder: Path, *options: str) -> str:
    usual = {"--data": str(folder), "--memory": "2.5GB"}
    given = [text for pair in usual.items() if pair[0] not in options for text in pair]
    command = [sys.executable, "-m", "pellucid", "serve", *given, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    is_usage = {"--allow-origin", "--backend", "--host"} & {*options} or any(
        text in done.stderr for text in ("contain each other", "neither a URL", "web server")
    )
    assert done.returncode == (2 if is_usage else 1)
    assert "Traceback" not in done.stderr
    return done.stderr


def test_wrong_starts_are_one_line(tmp_path: Path, service: object) -> None:
    running = getattr(service, "data")  # noqa: B009  # a fixture
    (tmp_path / "short").write_text("abc")
    for options, text in {
        ("--host", "0.0.0.0"): "--token-file",
        ("--model", "srcnn-x9", "--port", "0"): "did you mean srcnn-x2",
        ("--memory", "500MB"): "need 1450 MB",
        ("--allow-origin", "example.org"): "'example.org' is not an origin; --allow-origin can be e.g. https://",
        ("--allow-origin", "https://example.org/page"): "is not an origin",
        ("--backend", "tensorflow", "--port", "0"): "no backend 'tensorflow'",
        (
            "--allow-urls",
            "https://host/",
        ): "https://host/ is on a web server; --allow-urls can be e.g. s3://bucket/",
        (
            "--allow-urls",
            "scans",
        ): "'scans' is neither a URL nor an absolute path without ..; e.g. s3://bucket/folder",
        ("--allow-urls", "s3://b", "--memory", "2GB"): "one worker, a batch and the service need 2150 MB",
        ("--allow-urls", str(tmp_path)): "contain each other; change --allow-urls or --data",
        ("--device", "toaster", "--port", "0"): "device 'toaster' cannot be used here",
        ("--token-file", str(tmp_path / "short")): "3 characters",
        ("--token-file", "/dev/zero"): "/dev/zero is a device or a pipe; a file is needed",
        ("--data", str(running), "--port", "0"): "another service uses",
    }.items():
        message = _fail(tmp_path / "data", *options)
        assert text in message and message.count("\n") == 1, message


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        message = _fail(tmp_path, "--port", str(taken.getsockname()[1]))
    assert "cannot be used" in message and "--port" in message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(folder: Path, leave_bytes: int) -> Path:
    """Fill a disk, but for some bytes."""
    filler = folder / "filler"
    filler.unlink(missing_ok=True)
    free = os.statvfs(folder)
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        file.write(bytes(max(0, free.f_bavail * free.f_frsize - leave_bytes)))
    return filler


def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    """A request that does not fit is refused, and the service restores again as soon as there is space."""
    service = start(tmp_path, data=small_disk)
    with service.client() as client:
        assert client.post("/v1/restore", params=FAST, content=png()).status_code == 200
        _fill(small_disk, leave_bytes=100_000)
        answer = client.post("/v1/restore", params=FAST, content=png(400, 300))
        assert answer.status_code == 507 and "/" not in answer.json()["detail"], answer.text
        answer = client.post("/v1/restore", params=FAST, content=png(130, 130))  # it fits, its result does not
        assert answer.status_code == 507, answer.text
        filler = _fill(small_disk, leave_bytes=0)
        assert client.post("/v1/restore", params=FAST, content=png()).status_code == 507
        assert client.get("/health/ready").status_code == 200
        filler.unlink()
        assert client.post("/v1/restore", params=FAST, content=png()).status_code == 200
        assert not list((small_disk / "uploads").iterdir()) and not list((small_disk / "jobs").iterdir())
    assert service.stop() == 0
    assert "Traceback" not in service.log.read_text()


def test_a_worker_that_hangs(tmp_path: Path) -> None:
    """A worker that is stopped does not answer; a client that leaves still gets it replaced within a moment.

    And work that runs does not hold a second Ctrl-C.
    """
    service = start(tmp_path)
    with service.client() as client:
        assert client.post("/v1/restore", params=FAST, content=png()).status_code == 200
        job = client.post("/v1/restore", params=SLOW, content=png(900, 900), headers=ASYNC).json()["id"]
        while client.get(f"/v1/jobs/{job}").json()["state"] != "running":
            time.sleep(0.02)
        service.workers()[1].send_signal(signal.SIGSTOP)  # the first one reads headers
        start_s = time.monotonic()
        assert client.delete(f"/v1/jobs/{job}").status_code == 204
        assert time.monotonic() - start_s < 5  # 1 s on a quiet machine
        assert client.post("/v1/restore", params=FAST, content=png(), timeout=100).status_code == 200
        client.post("/v1/restore", params=SLOW, content=png(1200, 1200), headers=ASYNC)
        for _ in range(2):  # the second one does not wait for running work
            service.process.send_signal(signal.SIGINT)
            time.sleep(0.2)
    assert service.process.wait(15) == 0


def test_a_model_that_disappears(tmp_path: Path) -> None:
    """Its requests get a line without folders of the server, and others are not affected."""
    files = {name: tmp_path / f"{name}.safetensors" for name in ("damaged", "removed", "loaded")}
    for file in files.values():
        shutil.copy(find_model("srcnn-x2"), file)
    service = start(tmp_path, environment={"PELLUCID_MODELS": str(tmp_path)})
    with service.client() as client:
        assert client.post("/v1/restore", params={"model": "loaded"}, content=png()).status_code == 200
        files["damaged"].write_bytes(b"damaged")
        files["removed"].unlink()
        files["loaded"].unlink()
        for name in ("damaged", "removed"):
            answer = client.post("/v1/restore", params={"model": name}, content=png())
            assert answer.status_code == 500, answer.text
            assert f"the model {name} cannot be loaded" in answer.json()["detail"]
            assert str(tmp_path) not in answer.text
        assert client.post("/v1/restore", params={"model": "loaded"}, content=png()).status_code == 200
        assert client.post("/v1/restore", params=FAST, content=png()).status_code == 200
    assert service.stop() == 0


def test_jobs_of_a_model_that_is_not_served_any_more(tmp_path: Path) -> None:
    first = start(tmp_path)
    with first.client() as client:
        client.post("/v1/restore", params=SLOW, content=png(900, 900), headers=ASYNC)
        job = client.post("/v1/restore", params={"model": "srcnn-x3"}, content=png(), headers=ASYNC).json()["id"]
    first.kill()
    second = start(tmp_path, "--model", "srcnn-x2")
    with second.client() as client:
        (file,) = client.get(f"/v1/jobs/{job}").json()["files"]
        assert file["state"] == "failed" and "no model 'srcnn-x3'" in file["error"]
    assert second.stop() == 0


def test_requests_that_wait_are_told_when_the_service_stops(tmp_path: Path) -> None:
    service = start(tmp_path, "--drain", "2")
    with service.client() as client, ThreadPoolExecutor() as pool:
        client.post("/v1/restore", params=SLOW, content=png(1200, 1200), headers=ASYNC)
        waiting = pool.submit(client.post, "/v1/restore", params=FAST, content=png())
        time.sleep(1)
        service.process.send_signal(signal.SIGTERM)
        answer = waiting.result()
        assert answer.status_code == 503 and answer.headers["retry-after"]
    assert service.process.wait(60) == 0
    assert '"error"' not in service.log.read_text()


def test_deleted_pictures_free_their_space(tmp_path: Path) -> None:
    """10 of 50 kB fit; every one that is deleted makes room for another, and the oldest makes room otherwise."""
    service = start(tmp_path, "--keep-size", "500kB")
    with service.client() as client:
        kept = client.post("/v1/pictures", content=png(150, 100)).json()["id"]
        for _ in range(12):
            other = client.post("/v1/pictures", content=png(150, 100)).json()["id"]
            assert client.delete(f"/v1/pictures/{other}").status_code == 204
            assert client.post("/v1/advise", content=png(150, 100)).status_code == 200
        assert client.get(f"/v1/pictures/{kept}").status_code == 200
        for _ in range(12):
            assert client.post("/v1/pictures", content=png(150, 100)).status_code == 201
        assert client.get(f"/v1/pictures/{kept}").status_code == 404
    assert service.stop() == 0
