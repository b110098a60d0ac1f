"""Restoring on Ray, on two computers that it simulates: an ended process and a lost computer lose nothing."""

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pellucid.errors import ArgumentError, ClusterError
from pellucid.restoration import planning
from pellucid.restoration.loading import Loading
from pellucid.restoration.on_cluster import iter_restore_on
from pellucid.restoration.restore import restore
from pellucid.restoration.restorer import Restorer, load
from pellucid.restoration.run_status import read_status
from pellucid.restoration.sessions import Outcome
from pellucid.restoration.settings import Settings

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # of Ray about itself

NUM_PICTURES, NUM_ATTEMPTS = 500, 3
MODEL = "srcnn-x2"


@dataclass
class Computers:
    """A cluster of two computers. second: the one without the head, None once it is removed."""

    cluster: Any
    second: Any

    def remove_second(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)


@pytest.fixture(scope="module")
def computers() -> Iterator[Computers]:
    """Only a failure to start Ray is excused, after three attempts."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray")
    for attempt in range(1, NUM_ATTEMPTS + 1):
        try:
            started = _start(ray)
            break
        except Exception as error:
            reason = f"attempt {attempt} to start Ray: {error}"
            warnings.warn(reason, stacklevel=1)
            ray.shutdown()
    else:
        pytest.skip(f"Ray does not start on this machine: {reason}")
    yield started
    ray.shutdown()
    started.cluster.shutdown()


def _start(ray: Any) -> Computers:
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    second = cluster.add_node(**options)
    ray.init(cluster.address, log_to_driver=False, logging_level="CRITICAL")
    return Computers(cluster, second)


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return load(MODEL, device="cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 small pictures, and a damaged one."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(NUM_PICTURES):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(folder / f"{number:03}.png")
    (folder / "damaged.png").write_bytes((folder / "000.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def expected(pictures: Path, restorer: Restorer) -> dict[str, bytes]:
    """What one process makes."""
    out = pictures.with_name("expected")
    restore(pictures, restorer, out)
    return _collect(out)


def _collect(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def _run(
    pictures: Path,
    out: Path,
    restorer: Restorer,
    on_outcome: Callable[[int], None] = lambda number: None,
    **options: Any,
) -> list[Outcome]:
    """The outcomes; `on_outcome` is called with the number of each."""
    outcomes: list[Outcome] = []
    jobs = planning.plan(pictures, out, model=restorer.name)
    loading = Loading(MODEL, device="cpu")
    for outcome in iter_restore_on("ray", jobs, restorer, loading, Settings(), **options):
        outcomes.append(outcome)
        on_outcome(len(outcomes))
    return outcomes


def _member_pids() -> list[int]:
    """Of the processes that restore."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "ray::Member" in " ".join(process.info["cmdline"] or ()):
            found.append(process.pid)
    return found


def test_an_ended_process_and_a_removed_computer_lose_nothing(
    computers: Computers, pictures: Path, restorer: Restorer, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out, seen = tmp_path / "out", dict[str, int]()

    def disturb(number: int) -> None:
        if number == 100:
            seen.update({path.name: path.stat().st_mtime_ns for path in out.glob("*.png")})
            os.kill(_member_pids()[0], signal.SIGKILL)
        if number == 250:
            seen.update({path.name: path.stat().st_mtime_ns for path in out.glob("*.png")})
            computers.remove_second()

    outcomes = _run(pictures, out, restorer, disturb)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    assert [outcome.source and outcome.source.name for outcome in failed] == ["damaged.png"]
    assert len({outcome.source for outcome in outcomes}) == len(outcomes) == NUM_PICTURES + 1
    assert _collect(out) == expected
    remade = [name for name, written in seen.items() if (out / name).stat().st_mtime_ns != written]
    assert not remade
    (status,) = read_status(out)
    assert [len(status.select(kind)) for kind in ("restored", "failed", "missing")] == [NUM_PICTURES, 1, 0]

    written = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    again = _run(pictures, out, restorer)
    assert sum(outcome.is_skipped for outcome in again) == NUM_PICTURES
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.png")} == written


def test_a_picture_that_ends_its_process_fails_alone(
    computers: Computers, pictures: Path, restorer: Restorer, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for number in range(6):
        (few / f"{number}.png").write_bytes((pictures / f"{number:03}.png").read_bytes())
    poison = tmp_path / "poison.py"
    poison.write_text(POISON)
    jobs = planning.plan(few, tmp_path / "out", model=restorer.name)
    loading = Loading(MODEL, device="cpu", networks=[str(poison)])
    outcomes = list(iter_restore_on("ray", jobs, restorer, loading, Settings()))
    failed = {str(outcome.source): str(outcome.error) for outcome in outcomes if outcome.error is not None}
    assert list(failed) == [str(few / "3.png")]
    assert "ended 3 times" in failed[str(few / "3.png")]
    assert len(_collect(tmp_path / "out")) == 5


POISON = """
import os, sys
if any("default_worker" in argument for argument in sys.argv):
    from pellucid.restoration import stages
    read = stages.read_degraded
    def read_or_die(path, *arguments, **keywords):
        if path.name == "3.png":
            os.kill(os.getpid(), 9)
        return read(path, *arguments, **keywords)
    stages.read_degraded = read_or_die
"""
"""A network file, which is code that each process runs: reading one picture ends the process."""


def test_another_model_of_the_same_name_is_refused(
    computers: Computers, pictures: Path, restorer: Restorer, tmp_path: Path
) -> None:
    jobs = planning.plan([pictures / "000.png", pictures / "001.png"], tmp_path / "out", model=restorer.name)
    other = Loading("srcnn-x3", device="cpu")
    with pytest.raises(ClusterError, match="another model"):
        list(iter_restore_on("ray", jobs, restorer, other, Settings()))


def test_a_single_file_is_refused(pictures: Path, restorer: Restorer, tmp_path: Path) -> None:
    jobs = planning.plan(pictures / "000.png", tmp_path / "one.png", model=restorer.name)
    with pytest.raises(ArgumentError, match="single file"):
        list(iter_restore_on("ray", jobs, restorer, Loading(MODEL), Settings()))


def test_closing_ends_the_processes(
    computers: Computers, pictures: Path, restorer: Restorer, tmp_path: Path
) -> None:
    jobs = planning.plan(pictures, tmp_path / "out", model=restorer.name)
    outcomes = iter_restore_on("ray", jobs, restorer, Loading(MODEL, device="cpu"), Settings())
    for _ in range(3):
        next(outcomes)
    outcomes.close()
    deadline_s = time.monotonic() + 10
    while _member_pids() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert not _member_pids()
    assert 3 <= len(_collect(tmp_path / "out")) < NUM_PICTURES
