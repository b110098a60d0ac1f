"""Commands on a real Ray of this computer: results, interruptions by signals, and options for processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from object_server import Bucket
from pellucid.data.preparing import prepare
from pellucid.evaluation.evaluate import evaluate
from pellucid.restoration.restore import restore
from pellucid.restoration.restorer import load
from pellucid.restoration.settings import Settings

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # of Ray about itself

NUM_ATTEMPTS = 3
MODEL = ["--model", "srcnn-x2", "--device", "cpu"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a running Ray, to which the commands connect. Only a failure to start it is excused."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    for attempt in range(1, NUM_ATTEMPTS + 1):
        try:
            cluster = Cluster(initialize_head=True, head_node_args=options)
            break
        except Exception as error:
            reason = f"attempt {attempt} to start Ray: {error}"
    else:
        pytest.skip(f"Ray does not start on this machine: {reason}")
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{number:02}.png")
    return folder


def _start(*arguments: object, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pellucid", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
    )


def _run(*arguments: object, code: int = 0, **environment: str) -> str:
    """What a command prints."""
    process = _start(*arguments, **environment)
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, out + err
    return out + err


def _collect(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_sheets_and_results_are_those_of_one_process(address: str, pictures: Path, tmp_path: Path) -> None:
    settings = Settings(compare=True)
    few = [pictures / f"{number:02}.png" for number in range(4)]
    restore(few, load("srcnn-x2", device="cpu"), tmp_path / "one", settings)
    out = tmp_path / "ray"
    arguments = ["restore", *few, *MODEL, "--out", out, "--compare", "--on", address]
    _run(*arguments)
    expected = _collect(tmp_path / "one")
    assert len(expected) == 8 and _collect(out) == expected

    (out / "00.png").write_bytes(b"mine")
    assert "00.png exists" in _run(*arguments, code=1)
    assert (out / "00.png").read_bytes() == b"mine"
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    _run(*arguments, "--overwrite")
    assert _collect(out) == expected
    assert all(path.stat().st_mtime_ns > written for path, written in times.items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_pictures_in_progress(
    address: str, pictures: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out, network = tmp_path / "out", tmp_path / "slow.py"
    network.write_text(SLOW)
    arguments = ["restore", pictures, *MODEL, "--out", out, "--network", network, "--on", address]
    process = _start(*arguments)
    deadline_s = time.monotonic() + 120
    while len(_collect(out)) < 3 and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.05)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, printed + errors
    assert "interrupted after" in errors and "Traceback" not in errors
    done = _collect(out)
    assert 3 <= len(done) < 24
    assert not [path for path in out.iterdir() if path.suffix not in (".png", "") and "pellucid" not in path.name]
    for path in out.glob("*.png"):
        Image.open(path).load()

    _run(*arguments)
    restore(pictures, load("srcnn-x2", device="cpu"), tmp_path / "one")
    assert _collect(out) == _collect(tmp_path / "one")
    assert done.items() <= _collect(out).items()


SLOW = """
import sys, time
if any("default_worker" in argument for argument in sys.argv):
    from pellucid.restoration import stages
    read = stages.read_degraded
    def read_slowly(*arguments, **keywords):
        time.sleep(1.5)
        return read(*arguments, **keywords)
    stages.read_degraded = read_slowly
"""


def test_scores_and_stores_are_those_of_one_process(address: str, pictures: Path, tmp_path: Path) -> None:
    report = tmp_path / "scores.json"
    _run("evaluate", "srcnn-x2", "--device", "cpu", "--data", pictures, "--json", report, "--on", address)
    assert json.loads(report.read_text()) == evaluate(load("srcnn-x2", device="cpu"), pictures).to_json()

    _run("prepare", "folder", pictures, "--out", tmp_path / "ray", "--on", address)
    _run("prepare", "folder", pictures, "--out", tmp_path / "one", "--workers", 1)
    names = ["index.json", "samples-00000.bin"]
    assert {path.name for path in (tmp_path / "ray").iterdir()} == {*names, "sources.jsonl"}
    for name in names:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_buckets(address: str, pictures: Path, tmp_path: Path, bucket: Bucket) -> None:
    few = tmp_path / "in"
    few.mkdir()
    for number in range(6):
        (few / f"{number}.png").write_bytes((pictures / f"{number:02}.png").read_bytes())
    bucket.upload(few, "in")
    restore(few, load("srcnn-x2", device="cpu"), tmp_path / "one")
    # The processes need the credentials, too. Those of a running Ray have its environment, so this starts another.
    arguments = ["restore", f"{bucket.url}/in", *MODEL, "--out", f"{bucket.url}/out", "--on", "ray"]
    printed = _run(*arguments, RAY_ADDRESS="local")
    assert "6 of 6 pictures restored" in printed
    assert {name: bucket.get(f"out/{name}") for name in _collect(few)} == _collect(tmp_path / "one")
    assert "6 already exist" in _run(*arguments, RAY_ADDRESS="local")

    arguments = ["prepare", "folder", f"{bucket.url}/in", "--out", f"{bucket.url}/store", "--on", "ray"]
    assert "6 files decoded by this run" in _run(
        *arguments, RAY_ADDRESS="local", PELLUCID_CACHE=str(tmp_path / "1")
    )
    prepare("folder", [few], tmp_path / "store", workers=1)
    for name in ("index.json", "samples-00000.bin"):
        assert bucket.get(f"store/{name}") == (tmp_path / "store" / name).read_bytes()
    assert "0 files decoded" in _run(*arguments, RAY_ADDRESS="local", PELLUCID_CACHE=str(tmp_path / "2"))
