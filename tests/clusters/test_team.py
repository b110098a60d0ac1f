"""A team of processes: every item is worked on, whatever happens to the processes. Ray is simulated."""

import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.clusters import team
from pellucid.clusters.team import MAX_DEATHS, MAX_FAILED_STARTS, LostItem, Requirements, run_team
from pellucid.errors import ClusterError, DataError, NotEnoughMemoryError, PellucidError
from simulated_ray import SimulatedRay

NEEDS = Requirements(memory_bytes=10**6)


@dataclass(frozen=True)
class Doubling:
    """Makes a worker that returns 2 * item and its process id, and leaves a file for each attempt.

    deadly: items that end their process. failing: items that fail the worker as a whole. slow_s: time for an item.
    """

    folder: Path
    deadly: tuple[int, ...] = ()
    failing: tuple[int, ...] = ()
    slow_s: float = 0
    error: PellucidError | None = None
    ends: bool = False

    def __call__(self) -> "Doubling":
        if self.error is not None:
            raise self.error
        if self.ends:
            os.kill(os.getpid(), signal.SIGKILL)
        return self

    def work(self, items: Sequence[int]) -> Iterator[tuple[int, tuple[int, int]]]:
        for index, item in reversed([*enumerate(items)]):  # the order is free
            (self.folder / f"{item}-{os.getpid()}").touch()
            if item in self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            if item in self.failing:
                raise DataError(f"item {item} is strange")
            time.sleep(self.slow_s)
            yield index, (2 * item, os.getpid())

    def close(self) -> None:
        (self.folder / f"closed-{os.getpid()}").touch()


def _attempts(folder: Path, item: int) -> int:
    return len([*folder.glob(f"{item}-*")])


def _run(make: Doubling, count: int, **options: Any) -> dict[int, Any]:
    results = list(run_team("ray", make, range(count), NEEDS, **options))
    assert len(results) == count == len(dict(results))
    return dict(results)


def test_two_processes_share_the_items_and_are_closed(simulated_ray: SimulatedRay, tmp_path: Path) -> None:
    results = _run(Doubling(tmp_path, slow_s=0.01), 50)
    assert {index: value for index, (value, _) in results.items()} == {i: 2 * i for i in range(50)}
    pids = {pid for _, pid in results.values()}
    assert pids == {actor.process_id for actor in simulated_ray.started} and len(pids) == 2
    assert {path.name for path in tmp_path.glob("closed-*")} == {f"closed-{pid}" for pid in pids}
    assert all(_attempts(tmp_path, i) == 1 for i in range(50))


def test_a_deadly_item_fails_alone_after_some_attempts(simulated_ray: SimulatedRay, tmp_path: Path) -> None:
    results = _run(Doubling(tmp_path, deadly=(7,)), 20)
    lost = results.pop(7)
    assert lost == LostItem("it was killed, or crashed", is_out_of_memory=False)
    assert {index: value for index, (value, _) in results.items()} == {i: 2 * i for i in range(20) if i != 7}
    # The first death does not count: any item of the batch may have caused it.
    assert _attempts(tmp_path, 7) == MAX_DEATHS + 1


def test_finished_items_of_a_dead_process_are_recovered(simulated_ray: SimulatedRay, tmp_path: Path) -> None:
    asked = []

    def recover(index: int) -> str | None:
        asked.append(index)
        return "finished" if index == 2 else None

    results = _run(Doubling(tmp_path, deadly=(2,)), 4, recover=recover)
    assert results[2] == "finished" and set(asked) <= {0, 1, 2, 3}
    assert _attempts(tmp_path, 2) == 1


def test_an_item_may_be_replaced_before_it_is_repeated(simulated_ray: SimulatedRay, tmp_path: Path) -> None:
    items = [1, 2, 3]

    def recover(index: int) -> None:
        items[index] = 10 * items[index]

    results = dict(run_team("ray", Doubling(tmp_path, deadly=(2,)), items, NEEDS, recover=recover))
    assert results[1][0] == 40


def test_a_worker_that_fails_as_a_whole_ends_the_run(simulated_ray: SimulatedRay, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a process on the cluster: item 3 is strange"):
        list(run_team("ray", Doubling(tmp_path, failing=(3,)), range(9), NEEDS))
    with pytest.raises(ClusterError, match="no access"):
        list(run_team("ray", Doubling(tmp_path, error=ClusterError("no access")), range(9), NEEDS))


def test_processes_that_end_at_once_are_not_started_forever(simulated_ray: SimulatedRay, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="end before they are ready: it was killed, or crashed"):
        list(run_team("ray", Doubling(tmp_path, ends=True), range(9), NEEDS))
    assert MAX_FAILED_STARTS <= len(simulated_ray.started) <= MAX_FAILED_STARTS + 2


def test_closing_stops_after_the_items_in_progress(simulated_ray: SimulatedRay, tmp_path: Path) -> None:
    running = run_team("ray", Doubling(tmp_path, slow_s=0.05), range(200), NEEDS)
    next(running)
    running.close()
    assert not simulated_ray.living
    started = {path.name.rpartition("-")[2] for path in tmp_path.glob("[0-9]*")}
    assert started and started <= {path.name.rpartition("-")[2] for path in tmp_path.glob("closed-*")}
    assert len([*tmp_path.glob("[0-9]*")]) < 30


def test_a_process_that_hangs_does_not_stop_the_end(
    simulated_ray: SimulatedRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "_FINISH_S", 0.3)
    running = run_team("ray", Doubling(tmp_path, slow_s=0.0), range(1), NEEDS)
    next(running)
    running.close()
    slow = run_team("ray", Doubling(tmp_path, slow_s=60), range(4), NEEDS, max_processes=1)
    with pytest.raises(RuntimeError, match="enough"):
        _close_soon(slow, simulated_ray)
    assert not simulated_ray.living


def _close_soon(running: Any, ray: SimulatedRay) -> None:
    """Raise an error in the team once its process is at work."""
    wait = ray.wait

    def wait_briefly(calls: Any, num_returns: int, timeout: float) -> Any:
        found = wait(calls, num_returns, min(timeout, 1.0))
        if not found[0]:
            ray.wait = wait  # type: ignore[method-assign]
            raise RuntimeError("enough")
        return found

    ray.wait = wait_briefly  # type: ignore[method-assign]
    next(running)


def test_as_many_processes_as_fit_or_are_asked_for(simulated_ray: SimulatedRay, tmp_path: Path) -> None:
    simulated_ray.computers = [{"CPU": 1, "memory": 2**40}, {"CPU": 4, "memory": 2 * 10**6}, {"CPU": 9}]
    _run(Doubling(tmp_path, slow_s=0.02), 60)
    # 1 + 2 + 0 fit; twice as many as are ready are asked for, because the cluster may grow.
    assert len(simulated_ray.started) == 3 and len(simulated_ray.actors) == 6
    for options, count in (({"max_processes": 1}, 60), ({}, 1)):
        simulated_ray.actors.clear()
        _run(Doubling(tmp_path), count, **options)
        assert len(simulated_ray.actors) == 1


@pytest.mark.parametrize(
    ("needs", "gpus", "expected"), [(None, 0, 0), (None, 2, 1), (0, 2, 0), (1, 0, 1)], ids=str
)
def test_resources_are_requested(
    simulated_ray: SimulatedRay, tmp_path: Path, needs: int | None, gpus: int, expected: int
) -> None:
    simulated_ray.computers = [{"CPU": 2, "memory": 2**40, "GPU": gpus}]
    list(run_team("ray", Doubling(tmp_path), [1], Requirements(5 * 10**6, num_cpus=2, num_gpus=needs)))
    options = simulated_ray.options
    assert (options["num_cpus"], options["num_gpus"], options["memory"]) == (2, expected, 5 * 10**6)
    assert options["max_restarts"] == 0


def test_a_cluster_that_is_too_small_is_reported_once(
    simulated_ray: SimulatedRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "_WARN_AFTER_S", 0.0)
    monkeypatch.setattr(team, "_WAIT_S", 0.1)
    simulated_ray.computers = [{"CPU": 8, "memory": 10}]

    def grow() -> None:
        simulated_ray.computers = [{"CPU": 1, "memory": 10**6}]
        simulated_ray.start_waiting()

    Timer(0.5, grow).start()
    expected = "no computer of the cluster has 1 CPU, 1 MB of memory for a process; waiting for one"
    with pytest.warns(UserWarning, match=expected) as found:
        _run(Doubling(tmp_path), 5)
    assert len(found) == 1
    _run(Doubling(tmp_path), 5)  # warnings are errors


@given(st.integers(1, 400), st.integers(1, 9), st.integers(0, 32))
def test_batches_are_never_too_large_and_become_smaller(waiting: int, ready: int, unfinished: int) -> None:
    chosen = team._Team(None, Doubling(Path()), range(waiting), NEEDS, None, lambda index: None)
    chosen._processes = [team._Process(None, None, is_ready=True) for _ in range(ready)]
    process = chosen._processes[0]
    process.items = dict.fromkeys(range(1000, 1000 + unfinished))
    batch, max_unfinished = chosen._choose_batch(process)
    assert len(batch) <= min(team.MAX_BATCH, waiting) and batch == list(range(len(batch)))
    assert len(batch) + unfinished > 0  # no process waits while there are items
    assert len(batch) <= -(-waiting // (2 * ready))
    assert 0 <= max_unfinished <= team.MAX_BATCH // 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("task failed: OUT_OF_MEMORY", LostItem("it ran out of memory", is_out_of_memory=True)),
        ("node running low on memory", LostItem("it ran out of memory", is_out_of_memory=True)),
        ("x\nWorker exit type: SYSTEM_ERROR", LostItem("it was killed, or crashed", is_out_of_memory=False)),
        ("The Node has died", LostItem("its computer has left the cluster", is_out_of_memory=False)),
        (
            "The actor 96cf is unavailable: RpcError: Connection refused rpc_code: 14.",
            LostItem("its computer cannot be reached", is_out_of_memory=False),
        ),
        ("first\n\n  last \n", LostItem("last", is_out_of_memory=False)),
        ("", LostItem("RuntimeError", is_out_of_memory=False)),
    ],
)
def test_the_reason_of_a_death(text: str, expected: LostItem) -> None:
    assert team.explain_death(RuntimeError(text)) == expected


def test_a_lost_item_becomes_an_error() -> None:
    error = LostItem("it ran out of memory", is_out_of_memory=True).to_error("a.png", "scored", hint="buy some")
    assert isinstance(error, NotEnoughMemoryError)
    assert re.fullmatch(
        r"a.png: the process in which it was scored has ended 3 times: .* memory; buy some", str(error)
    )
    other = LostItem("it crashed", is_out_of_memory=False).to_error("a.png", "scored", hint="buy some")
    assert not isinstance(other, NotEnoughMemoryError) and "buy" not in str(other)
