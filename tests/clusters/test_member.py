"""A process of a team: takes items at any time, returns results soon, and reports its own failures."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pellucid.clusters import member
from pellucid.clusters.member import Member, describe_versions
from pellucid.errors import ClusterError, DataError


class Waiting:
    """A worker that finishes each item once it is allowed to."""

    def __init__(self) -> None:
        self.allowed, self.started, self.closed = threading.Semaphore(0), threading.Event(), False
        self.error: Exception | None = None

    def work(self, items: Sequence[Any]) -> Iterator[tuple[int, str]]:
        for index, item in enumerate(items):
            self.started.set()
            assert self.allowed.acquire(timeout=20)
            if self.error is not None:
                raise self.error
            yield index, f"done {item}"

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def worker() -> Waiting:
    return Waiting()


@pytest.fixture
def process(worker: Waiting) -> Member:
    made = Member()
    assert made.open(describe_versions(), lambda: worker) is None
    return made


def test_items_are_taken_while_others_are_in_progress(process: Member, worker: Waiting) -> None:
    assert process.exchange([(5, "a"), (6, "b")], 2) == []  # returns at once: two may be unfinished
    worker.allowed.release()
    assert process.exchange([], 1) == [(5, "done a")]
    assert process.exchange([(9, "c")], 2) == []
    worker.allowed.release(2)
    assert process.exchange([], 0) == [(6, "done b"), (9, "done c")]
    process.finish()
    assert worker.closed


def test_calls_of_an_idle_process_wait(process: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "IDLE_S", 0.2)
    start_s = time.monotonic()
    assert process.exchange([], 0) == []
    assert time.monotonic() - start_s >= 0.19
    process.finish()


def test_a_call_returns_without_results(process: Member, worker: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "POLL_S", 0.01)
    assert process.exchange([(0, "a")], 0) == []
    worker.allowed.release()
    process.finish()


def test_finishing_drops_items_that_have_not_begun(process: Member, worker: Waiting) -> None:
    process.exchange([(0, "a"), (1, "b")], 2)
    process.exchange([(2, "c")], 3)
    assert worker.started.wait(20)
    threading.Timer(0.1, worker.allowed.release).start()
    process.finish()
    assert worker.closed and not worker.allowed.acquire(blocking=False)
    assert process._results == [(0, "done a")]


def test_errors_of_users_are_returned_and_others_raised(process: Member, worker: Waiting) -> None:
    worker.error = DataError("strange")
    worker.allowed.release()
    error = process.exchange([(0, "a")], 0)
    assert isinstance(error, DataError) and str(error) == "strange"
    process.finish()
    broken, other = Waiting(), Member()
    other.open(describe_versions(), lambda: broken)
    broken.error = ZeroDivisionError("a bug")
    broken.allowed.release()
    with pytest.raises(ZeroDivisionError):
        other.exchange([(0, "a")], 0)


def test_other_versions_are_refused() -> None:
    error = Member().open("pellucid 0.0.1, torch 1.0, numpy 1.0", Waiting)
    assert isinstance(error, ClusterError)
    assert f"it has {describe_versions()}, but this computer pellucid 0.0.1" in str(error)


def test_errors_of_making_the_worker_are_returned() -> None:
    def fail() -> Waiting:
        raise ClusterError("no access")

    error = Member().open(describe_versions(), fail)
    assert isinstance(error, ClusterError) and str(error) == "no access"
