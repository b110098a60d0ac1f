"""A team of processes on this computer, without Ray: every item is worked on, whatever happens to them."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from pellucid.clusters.local_processes import LocalProcesses
from pellucid.clusters.team import MAX_DEATHS, LostItem, run_local_team
from pellucid.errors import ClusterError, DataError, PellucidError

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Doubling:
    """Makes a worker that leaves a file for each attempt, and returns 2 * item.

    deadly: an item that ends its process. error: of the start. ends: whether the process ends at its start.
    """

    folder: Path
    deadly: int | None = None
    error: PellucidError | None = None
    ends: bool = False

    def __call__(self) -> "Doubling":
        if self.ends:
            sys.stderr.write("no space\n")
            sys.stderr.flush()
            os._exit(3)
        if self.error is not None:
            raise self.error
        os.write(1, b"libraries print what they like")
        return self

    def work(self, items: Sequence[int]) -> Iterator[tuple[int, int]]:
        for index, item in enumerate(items):
            with (self.folder / f"{item}").open("a") as file:
                file.write(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}\n")
            if item == self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.02)
            yield index, 2 * item

    def close(self) -> None:
        (self.folder / f"closed-{os.getpid()}").touch()


class Slow:
    """An object whose calls take as long as asked; `finish` leaves a file."""

    def __init__(self) -> None:
        self._folder = Path(os.environ["SLOW_FOLDER"])

    def sleep(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    def fail(self) -> None:
        raise ValueError("odd")

    def finish(self) -> None:
        (self._folder / f"finished-{os.getpid()}").touch()


def _run(makes: Sequence[Doubling], num_items: int) -> dict[int, Any]:
    results = list(run_local_team(makes, range(num_items), environment=ENVIRONMENT))
    assert len(results) == len({index for index, _ in results})
    return dict(results)


def test_all_processes_work_and_are_closed_and_a_deadly_item_is_given_up(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    results = _run([Doubling(folder, deadly=5) for folder in folders], 60)
    lost = results.pop(5)
    assert results == {index: 2 * index for index in range(60) if index != 5}
    assert lost == LostItem("it was killed by SIGKILL", is_out_of_memory=False)
    attempts = [path.read_text() for folder in folders for path in folder.glob("5")]
    assert MAX_DEATHS <= "".join(attempts).count("\n") <= MAX_DEATHS + 1  # once among others
    assert all(len(list(folder.glob("[0-9]*"))) > 2 for folder in folders)
    assert {line.split()[1] for text in attempts for line in text.splitlines()} == {"1"}
    started = {line.split()[0] for path in tmp_path.glob("*/[0-9]*") for line in path.read_text().splitlines()}
    assert not any(psutil.pid_exists(int(pid)) for pid in started)
    assert _run([Doubling(tmp_path)], 3) == {0: 0, 1: 2, 2: 4}
    assert len(list(tmp_path.glob("closed-*"))) == 1


def test_errors_of_the_start_end_the_team(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^a process on this computer: strange$"):
        _run([Doubling(tmp_path, error=DataError("strange"))], 2)
    message = "processes on this computer end before they are ready: it ended with exit code 3: no space"
    with pytest.raises(ClusterError, match=re.escape(message)):
        _run([Doubling(tmp_path, ends=True)], 1)
    assert not list(tmp_path.iterdir())


def test_a_process_ignores_signals_reports_errors_and_ends_with_its_team(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pellucid.clusters.local_processes import LocalProcesses; "
        "import test_local_processes as tests; processes = LocalProcesses({}); "
        "one = processes.start(tests.Slow); call = one.sleep.remote(0.0); "
        "print(call.result(), flush=True); one.sleep.remote(1.0); time.sleep(60)"
    )
    environment = {**os.environ, **ENVIRONMENT, "SLOW_FOLDER": str(tmp_path)}
    team = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    assert team.stdout is not None
    try:
        process = psutil.Process(int(team.stdout.readline()))
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert process.is_running()
    finally:
        team.kill()
        team.wait()
        team.stdout.close()
    process.wait(10)
    assert (tmp_path / f"finished-{process.pid}").exists()


def test_calls_of_a_process_that_has_ended_fail(tmp_path: Path) -> None:
    processes = LocalProcesses({**ENVIRONMENT, "SLOW_FOLDER": str(tmp_path)})
    process = processes.start(Slow)
    failed = process.fail.remote()
    slow = process.sleep.remote(60)
    ready, waiting = processes.wait([failed, slow], 1, 30)
    assert ready == [failed] and waiting == [slow]
    with pytest.raises(processes.exceptions.RayError, match="^ValueError: odd$"):
        processes.get(failed)
    assert processes.wait([slow], 1, 0.1) == ([], [slow])
    processes.kill(process)
    for call in (slow, process.sleep.remote(0)):
        with pytest.raises(processes.exceptions.RayError, match="it was killed by SIGKILL"):
            processes.get(call)
