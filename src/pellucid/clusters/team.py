"""A team of processes on a cluster, which this process directs: it hands out keys and collects results.

Ray chooses the computers, starts the processes there, adds computers if it can, and reports which processes have
ended. What an ended process had in its hands is given to others here: repeated by Ray itself, one picture that
ends its process would take all those with it that wait in the same process, each time.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from warnings import warn

from pellucid.clusters.connection import connect
from pellucid.clusters.member import Make, Member, describe_versions
from pellucid.errors import ClusterError, PellucidError

MAX_BATCH = 16
"""How many items a process gets at once, at most."""

MAX_ENDS = 3
"""An item fails if so many processes have ended while they had no other one."""

MAX_FAILED_STARTS = 5
"""The run fails if so many processes in a row have ended before they were ready."""

_WAIT_S, _FINISH_S, _PATIENCE_S = 5.0, 25.0, 20.0


@dataclass(frozen=True)
class Needs:
    """What each process of a team needs. num_gpus: None for one if the cluster has any."""

    memory_bytes: int
    num_cpus: int = 1
    num_gpus: int | None = 0


@dataclass(frozen=True)
class Lost:
    """The result of an item whose processes have ended. reason: in words."""

    reason: str
    is_out_of_memory: bool


@dataclass(eq=False)
class _Hired:
    """A process. call: the one that runs. items: the places of those in its hands."""

    actor: Any
    call: Any
    is_ready: bool = False
    items: dict[int, None] = field(default_factory=dict)


def run_team(
    address: str,
    make: Make,
    items: Sequence[Any],
    needs: Needs,
    *,
    max_processes: int | None = None,
    recover: Callable[[int], Any] = lambda place: None,
) -> Generator[tuple[int, Any], None, None]:
    """(index in items, result) of each item, as they are finished. Closing it stops after the items in progress.

    address: see `connect`. make: makes the worker of each process. max_processes: None for as many as fit.
    recover: the result of an item whose process has ended, if it is finished nevertheless.
    Raises ClusterError if no process can be started, and the error of a worker that fails as a whole.
    """
    with connect(address) as ray:
        team = _Team(ray, make, items, needs, max_processes, recover)
        try:
            yield from team.run()
        finally:
            team.finish()


class _Team:
    def __init__(
        self,
        ray: Any,
        make: Make,
        items: Sequence[Any],
        needs: Needs,
        max_processes: int | None,
        recover: Callable[[int], Any],
    ) -> None:
        self._ray, self._items, self._needs = ray, items, needs
        self._arguments = describe_versions(), make
        self._waiting, self._suspects = deque(range(len(items))), deque[int]()
        self._max_processes = max_processes or len(items)
        self._recover = recover
        self._hired: list[_Hired] = []
        self._num_ends, self._num_failed_starts = Counter[int](), 0
        self._started_s: float | None = time.monotonic()

    def run(self) -> Iterator[tuple[int, Any]]:
        while self._num_left:
            self._hire()
            calls = {hired.call: hired for hired in self._hired}
            ready, _ = self._ray.wait([*calls], num_returns=1, timeout=_WAIT_S)
            if ready:
                ready, _ = self._ray.wait([*calls], num_returns=len(calls), timeout=0)
            for call in ready:
                yield from self._hear(calls[call], call)
            self._warn_if_none_fits()

    def finish(self) -> None:
        """Let all processes finish what is in progress, and end them."""
        try:
            calls = [hired.actor.finish.remote() for hired in self._hired if hired.is_ready]
            if calls:
                self._ray.wait(calls, num_returns=len(calls), timeout=_FINISH_S)
        finally:
            for hired in self._hired:
                self._ray.kill(hired.actor)

    @property
    def _num_left(self) -> int:
        in_hands = sum(len(hired.items) for hired in self._hired)
        return len(self._waiting) + len(self._suspects) + in_hands

    def _hire(self) -> None:
        """Start processes: as many as fit now and, for a cluster that grows, as many again as are at work."""
        num_ready = sum(hired.is_ready for hired in self._hired)
        wanted = min(self._max_processes, self._num_left, max(self._capacity, 2 * num_ready, 1))
        while len(self._hired) < wanted:
            actor = self._actor_class.remote()
            self._hired.append(_Hired(actor, actor.open.remote(*self._arguments)))

    @cached_property
    def _actor_class(self) -> Any:
        return self._ray.remote(Member).options(
            num_cpus=self._needs.num_cpus,
            num_gpus=self._num_gpus,
            memory=self._needs.memory_bytes,
            max_restarts=0,
            scheduling_strategy="SPREAD",
        )

    @cached_property
    def _num_gpus(self) -> int:
        given = self._needs.num_gpus
        return given if given is not None else int(self._ray.cluster_resources().get("GPU", 0) >= 1)

    @cached_property
    def _capacity(self) -> int:
        """How many processes fit the computers that there are now."""
        needs = {"CPU": self._needs.num_cpus, "GPU": self._num_gpus, "memory": self._needs.memory_bytes}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        fits = [min(int(node.get(key, 0) // need) for key, need in needs.items() if need) for node in nodes]
        return sum(fits)

    def _warn_if_none_fits(self) -> None:
        """Say once what the team waits for, e.g. until a cluster has grown."""
        if self._started_s is None or time.monotonic() - self._started_s < _PATIENCE_S:
            return
        self._started_s = None
        if self._capacity == 0:
            gpu = " and a GPU" * self._num_gpus
            warn(
                f"no computer of the cluster has {self._needs.num_cpus} CPU, "
                f"{self._needs.memory_bytes / 1e6:.0f} MB of memory{gpu} for a process; waiting for one",
                stacklevel=2,
            )

    def _hear(self, hired: _Hired, call: Any) -> Iterator[tuple[int, Any]]:
        """Take the answer of a process, and make the next call."""
        try:
            answer = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            yield from self._replace(hired, error)
            return
        if isinstance(answer, PellucidError):
            raise answer.about("a process on the cluster")
        if hired.is_ready:
            for place, result in answer:
                del hired.items[place]
                yield place, result
        hired.is_ready, self._num_failed_starts = True, 0
        batch, few = self._choose_batch(hired)
        hired.items |= dict.fromkeys(batch)
        hired.call = hired.actor.exchange.remote([(place, self._items[place]) for place in batch], few)

    def _choose_batch(self, hired: _Hired) -> tuple[list[int], int]:
        """The next items of a process, and how few it must have left to get others.

        Fewer at a time towards the end, so that all end together. Items whose process has ended come last, alone.
        """
        if not self._waiting:
            has_next = not hired.items and self._suspects
            return ([self._suspects.popleft()] if has_next else []), 0
        num_ready = sum(hired.is_ready for hired in self._hired)
        size = min(MAX_BATCH, math.ceil(len(self._waiting) / (2 * num_ready)))
        num_new = 0 if 2 * len(hired.items) > size else size
        return [self._waiting.popleft() for _ in range(num_new)], size // 2

    def _replace(self, hired: _Hired, error: Exception) -> Iterator[tuple[int, Any]]:
        """Decide about the items of a process that has ended; `_hire` starts another one."""
        self._hired.remove(hired)
        self._ray.kill(hired.actor)
        lost = _explain(error)
        if not hired.is_ready:
            self._num_failed_starts += 1
            if self._num_failed_starts >= MAX_FAILED_STARTS:
                raise ClusterError(f"processes on the cluster end before they are ready: {lost.reason}") from error
        for place in hired.items:
            self._num_ends[place] += len(hired.items) == 1
            finished = self._recover(place)
            if finished is None and self._num_ends[place] < MAX_ENDS:
                self._suspects.append(place)
            else:
                yield place, lost if finished is None else finished


def _explain(error: Exception) -> Lost:
    """Why a process has ended, from the message of Ray."""
    text = str(error)
    if "OUT_OF_MEMORY" in text or "OutOfMemory" in type(error).__name__ or "running low on memory" in text:
        return Lost("it ran out of memory", is_out_of_memory=True)
    if "Worker exit type: SYSTEM_ERROR" in text:
        return Lost("it was killed, or crashed", is_out_of_memory=False)
    if "node" in text.lower() and ("died" in text or "dead" in text):
        return Lost("its computer has left the cluster", is_out_of_memory=False)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return Lost(lines[-1][:300] if lines else type(error).__name__, is_out_of_memory=False)
