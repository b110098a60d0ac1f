"""Commands as clients of a cluster (`ray start --head`, --on ray://HOST:PORT) that requires a token."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from pellucid.data.preparing import prepare
from pellucid.evaluation.evaluate import evaluate
from pellucid.restoration.restore import restore
from pellucid.restoration.restorer import load

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # of Ray about itself

TOKEN = "0123456789abcdef0123456789abcdef"
MODEL = ["--model", "srcnn-x2", "--device", "cpu"]
START_S = 120


class Head:
    """A running head node. environment: what a client needs to use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "token").write_text(TOKEN)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "PYTHONWARNINGS": "ignore",
        }
        self.port = 10001  # others are reserved for workers
        options = (
            f"--head --block --port {_find_port()} --ray-client-server-port {self.port} --num-cpus 2 "
            f"--include-dashboard false --disable-usage-stats --object-store-memory {100 * 2**20}"
        )
        program = Path(sys.executable).with_name("ray")
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [program, "start", *options.split(), "--temp-dir", folder / "ray"],
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    @property
    def address(self) -> str:
        return f"ray://127.0.0.1:{self.port}"

    def wait(self) -> None:
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.2)
        pytest.skip(f"Ray does not start on this machine: {(self.folder / 'log').read_text()[-300:]}")

    def count_workers(self) -> int:
        return sum(process.name().startswith("ray::Member") for process in self._descendants())

    def stop(self) -> None:
        processes = [*self._descendants(), psutil.Process(self._process.pid)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def _descendants(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children(recursive=True)


def _find_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    pytest.importorskip("ray")
    with socket.socket() as one:
        if one.connect_ex(("127.0.0.1", 10001)) == 0:
            pytest.skip("port 10001, of the client server of Ray, is in use")
    folder = Path(tempfile.mkdtemp(prefix="head-"))  # Ray's sockets need a short path
    running = Head(folder)
    try:
        running.wait()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{number:02}.png")
    return folder


def _start(head: Head, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pellucid", *map(str, arguments), "--on", head.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**head.environment, **environment},
    )


def _run(head: Head, *arguments: object, code: int = 0, **environment: str) -> str:
    """What a command prints."""
    process = _start(head, *arguments, **environment)
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == code, printed
    return printed


def _collect(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_results_are_those_of_one_process(head: Head, pictures: Path, tmp_path: Path) -> None:
    restore(pictures, load("srcnn-x2", device="cpu"), tmp_path / "one")
    out = tmp_path / "out"
    assert "24 of 24 pictures restored" in _run(head, "restore", pictures, *MODEL, "--out", out)
    assert _collect(out) == _collect(tmp_path / "one")

    report = tmp_path / "scores.json"
    _run(head, "evaluate", "srcnn-x2", "--device", "cpu", "--data", pictures, "--json", report)
    assert json.loads(report.read_text()) == evaluate(load("srcnn-x2", device="cpu"), pictures).to_json()

    store = tmp_path / "store"
    _run(head, "prepare", "folder", pictures, "--out", store)
    one = prepare("folder", [pictures], tmp_path / "one-store", workers=1).store
    for name in ("index.json", "samples-00000.bin"):
        assert (store / name).read_bytes() == (one.folder / name).read_bytes()


def test_without_the_token_the_error_names_it(head: Head, pictures: Path, tmp_path: Path) -> None:
    printed = _run(head, "restore", pictures, *MODEL, "--out", tmp_path / "out", code=1, RAY_AUTH_MODE="disabled")
    last = printed.splitlines()[-1]
    assert f"there is no Ray at {head.address} that can be used" in last and "RAY_AUTH_MODE=token" in last
    assert "Traceback" not in printed and not _collect(tmp_path / "out")


SLOW = """
import sys, time
if any("default_worker" in argument for argument in sys.argv):
    from pellucid.restoration import stages
    read = stages.read_degraded
    def read_slowly(*arguments, **keywords):
        time.sleep(0.5)
        return read(*arguments, **keywords)
    stages.read_degraded = read_slowly
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_next_command_resumes_after_a_signal(
    head: Head, pictures: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out, network = tmp_path / "out", tmp_path / "slow.py"
    network.write_text(SLOW)
    process = _start(head, "restore", pictures, *MODEL, "--out", out, "--network", network)
    deadline_s = time.monotonic() + 120
    while len(_collect(out)) < 3 and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.05)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert process.returncode == 128 + number and "interrupted after" in printed, printed
        assert len(_collect(out)) < 24
    # Workers of a client that was killed end 30 s later; the next command waits for their CPUs.
    _run(head, "restore", pictures, *MODEL, "--out", out, "--network", network)
    restore(pictures, load("srcnn-x2", device="cpu"), tmp_path / "one")
    assert _collect(out) == _collect(tmp_path / "one")
    deadline_s = time.monotonic() + 60
    while head.count_workers() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert not head.count_workers()
