"""A team of processes, directed by this process: it assigns items to them and collects results.

On a cluster, Ray chooses the computers, starts the processes there, adds computers if it can, and reports which
processes have died. This module retries the unfinished items of a dead process, one at a time. Ray's own retries
would repeat all of them together, and a picture that kills its process would fail the others each time.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from warnings import warn

from pellucid.clusters.connection import connect
from pellucid.clusters.local_processes import LocalProcesses
from pellucid.clusters.member import MakeWorker, Member, describe_versions
from pellucid.errors import ClusterError, NotEnoughMemoryError, PellucidError

MAX_BATCH = 16
"""The largest number of items that are assigned to a process at once."""

MAX_DEATHS = 3
"""An item fails after this many processes have died while it was their only item."""

MIN_PROCESS_BYTES = 10**9
"""The least memory that a process requests by default: only one file is measured, and others may need more."""

MAX_FAILED_STARTS = 5
"""The run fails after this many processes in a row have died before they were ready."""

_WAIT_S = 5.0
"""The longest wait for a reply, before the number of processes is adjusted again."""

_FINISH_S = 25.0
"""How long processes may take at the end to finish the items in progress."""

_WARN_AFTER_S = 20.0
"""If no process fits the cluster after this time, the user is warned once."""


@dataclass(frozen=True)
class Requirements:
    """The resources of each process of a team. num_gpus: None requests one GPU if the cluster has any."""

    memory_bytes: int
    num_cpus: int = 1
    num_gpus: int | None = 0


@dataclass(frozen=True)
class LostItem:
    """The result of an item that failed because its processes died. reason: in words."""

    reason: str
    is_out_of_memory: bool

    def to_error(self, source: object, done: str, *, hint: str = "") -> PellucidError:
        """The error of the item. done: what was done with the source, e.g. "restored". hint: how to get memory."""
        kind = NotEnoughMemoryError if self.is_out_of_memory else PellucidError
        facts = f"{source}: the process in which it was {done} has ended {MAX_DEATHS} times: {self.reason}"
        return kind(facts, hint=hint if self.is_out_of_memory else "")


@dataclass(eq=False)
class _Process:
    """A process of a team. call: the one in progress. items: indices of those assigned to it, in order.

    place: of the worker that it runs, among those of a local team.
    """

    actor: Any
    call: Any
    place: int = 0
    is_ready: bool = False
    items: dict[int, None] = field(default_factory=dict)


def run_team(
    address: str,
    make: MakeWorker,
    items: Sequence[Any],
    resources: Requirements,
    *,
    max_processes: int | None = None,
    recover: Callable[[int], Any] = lambda index: None,
) -> Generator[tuple[int, Any], None, None]:
    """(index in items, result) of each item, as they are finished. Closing it stops after the items in progress.

    address: see `connect`. make: makes the worker of each process. max_processes: None for as many as fit.
    recover: called with the index of an item whose process has died; returns its result if it was finished, or
        None if it must be repeated. It may replace the item.
    Raises ClusterError if no process can be started, and the error of a worker that fails as a whole.
    """
    with connect(address) as ray:
        team = _Team(ray, make, items, resources, max_processes, recover)
        try:
            yield from team.run()
        finally:
            team.finish()


def run_local_team(
    makes: Sequence[MakeWorker],
    items: Sequence[Any],
    *,
    environment: Mapping[str, str],
    recover: Callable[[int], Any] = lambda index: None,
) -> Generator[tuple[int, Any], None, None]:
    """`run_team` with processes of this computer, without Ray: one for each of `makes`, and at most one per item.

    A process that dies is replaced by one with the same worker. environment: variables of the processes that
    differ from those of this one.
    """
    team = _LocalTeam(makes, items, environment, recover)
    try:
        yield from team.run()
    finally:
        team.finish()


class _Team:
    where = "on the cluster"

    def __init__(
        self,
        ray: Any,
        make: MakeWorker,
        items: Sequence[Any],
        resources: Requirements,
        max_processes: int | None,
        recover: Callable[[int], Any],
    ) -> None:
        self._ray, self._items, self._resources = ray, items, resources
        self._arguments = describe_versions(), make
        self._waiting, self._retries = deque(range(len(items))), deque[int]()
        self._max_processes = max_processes or len(items)
        self._recover = recover
        self._processes: list[_Process] = []
        self._num_deaths, self._num_failed_starts = Counter[int](), Counter[int]()  # by item; by place
        self._warn_at_s = time.monotonic() + _WARN_AFTER_S

    def run(self) -> Iterator[tuple[int, Any]]:
        while self._num_left:
            self._start_processes()
            calls = {process.call: process for process in self._processes}
            ready, _ = self._ray.wait([*calls], num_returns=1, timeout=_WAIT_S)
            if ready:
                ready, _ = self._ray.wait([*calls], num_returns=len(calls), timeout=0)
            for call in ready:
                yield from self._handle_reply(calls[call], call)
            self._warn_if_none_fits()

    def finish(self) -> None:
        """Let all processes finish the items in progress, then end them."""
        ready = [process.actor for process in self._processes if process.is_ready]
        try:
            for process in self._processes:
                if not process.is_ready:  # otherwise it might start in place of one that has finished
                    self._ray.kill(process.actor)
            calls = [actor.finish.remote() for actor in ready]
            if calls:
                self._ray.wait(calls, num_returns=len(calls), timeout=_FINISH_S)
        finally:
            for actor in ready:
                self._ray.kill(actor)

    @property
    def _num_left(self) -> int:
        num_assigned = sum(len(process.items) for process in self._processes)
        return len(self._waiting) + len(self._retries) + num_assigned

    def _start_processes(self) -> None:
        """Start as many processes as fit now, or twice as many as are ready, so that an elastic cluster grows."""
        num_ready = sum(process.is_ready for process in self._processes)
        wanted = min(self._max_processes, self._num_left, max(self._capacity, 2 * num_ready, 1))
        while len(self._processes) < wanted:
            self._processes.append(self._start())

    def _start(self) -> _Process:
        actor = self._actor_class.remote()
        return _Process(actor, actor.open.remote(*self._arguments))

    @cached_property
    def _actor_class(self) -> Any:
        return make_actor_class(self._ray, Member, self._resources)

    @cached_property
    def _num_gpus(self) -> int:
        return choose_num_gpus(self._ray, self._resources)

    @cached_property
    def _capacity(self) -> int:
        return count_fitting(self._ray, self._resources)

    def _warn_if_none_fits(self) -> None:
        """Warn once if no computer is large enough. The cluster may still grow, so the team keeps waiting."""
        if time.monotonic() < self._warn_at_s:
            return
        self._warn_at_s = math.inf
        if self._capacity == 0:
            gpu = " and a GPU" * self._num_gpus
            warn(
                f"no computer of the cluster has {self._resources.num_cpus} CPU, "
                f"{self._resources.memory_bytes / 1e6:.0f} MB of memory{gpu} for a process; waiting for one",
                stacklevel=2,
            )

    def _handle_reply(self, process: _Process, call: Any) -> Iterator[tuple[int, Any]]:
        """Yield the results in the reply of a process, and make the next call."""
        try:
            reply = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            yield from self._handle_death(process, error)
            return
        if isinstance(reply, PellucidError):
            raise reply.about(f"a process {self.where}")
        if process.is_ready:
            for index, result in reply:
                del process.items[index]
                yield index, result
        process.is_ready, self._num_failed_starts[process.place] = True, 0
        batch, max_unfinished = self._choose_batch(process)
        process.items |= dict.fromkeys(batch)
        process.call = process.actor.exchange.remote(
            [(index, self._items[index]) for index in batch], max_unfinished
        )

    def _choose_batch(self, process: _Process) -> tuple[list[int], int]:
        """The next items of a process, and the number of unfinished items at which it must reply to get more.

        Batches become smaller towards the end, so that all processes finish at the same time. Items whose process
        has died are retried last, one at a time.
        """
        if not self._waiting:
            has_next = not process.items and self._retries
            return ([self._retries.popleft()] if has_next else []), 0
        num_ready = sum(process.is_ready for process in self._processes)
        size = min(MAX_BATCH, math.ceil(len(self._waiting) / (2 * num_ready)))
        num_new = 0 if 2 * len(process.items) > size else size
        return [self._waiting.popleft() for _ in range(num_new)], size // 2

    def _handle_death(self, process: _Process, error: Exception) -> Iterator[tuple[int, Any]]:
        """Recover, retry or give up the items of a dead process; `_start_processes` replaces it."""
        self._processes.remove(process)
        self._ray.kill(process.actor)
        lost = explain_death(error)
        if not process.is_ready:
            self._num_failed_starts[process.place] += 1
            if self._num_failed_starts[process.place] >= MAX_FAILED_STARTS:
                raise ClusterError(f"processes {self.where} end before they are ready: {lost.reason}") from error
        for index in process.items:
            self._num_deaths[index] += len(process.items) == 1
            finished = self._recover(index)
            if finished is None and self._num_deaths[index] < MAX_DEATHS:
                self._retries.append(index)
            else:
                yield index, lost if finished is None else finished


class _LocalTeam(_Team):
    where = "on this computer"

    def __init__(
        self,
        makes: Sequence[MakeWorker],
        items: Sequence[Any],
        environment: Mapping[str, str],
        recover: Callable[[int], Any],
    ) -> None:
        self._makes, self._local = makes, LocalProcesses(environment)
        super().__init__(self._local, makes[0], items, Requirements(0), len(makes), recover)

    def _start(self) -> _Process:
        taken = {process.place for process in self._processes}
        place = min({*range(len(self._makes))} - taken)
        actor = self._local.start(Member)
        return _Process(actor, actor.open.remote(describe_versions(), self._makes[place]), place)

    @cached_property
    def _capacity(self) -> int:
        return len(self._makes)


def make_actor_class(ray: Any, process: type, resources: Requirements) -> Any:
    """The class of Ray actors that run as processes with these resources, on computers with few other ones.

    Ray does not restart them: pellucid does.
    """
    return ray.remote(process).options(
        num_cpus=resources.num_cpus,
        num_gpus=choose_num_gpus(ray, resources),
        memory=resources.memory_bytes,
        max_restarts=0,
        scheduling_strategy="SPREAD",
    )


def choose_num_gpus(ray: Any, resources: Requirements) -> int:
    """Number of GPUs of each process, see `Requirements`."""
    requested = resources.num_gpus
    return requested if requested is not None else int(ray.cluster_resources().get("GPU", 0) >= 1)


def count_fitting(ray: Any, resources: Requirements) -> int:
    """How many processes fit the computers that the cluster has now, if nothing else runs there."""
    num_gpus = choose_num_gpus(ray, resources)
    needed = {"CPU": resources.num_cpus, "GPU": num_gpus, "memory": resources.memory_bytes}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(min(int(node.get(key, 0) // need) for key, need in needed.items() if need) for node in nodes)


def explain_death(error: Exception) -> LostItem:
    """Why a process has died, according to Ray's error message."""
    text = str(error)
    if "OUT_OF_MEMORY" in text or "OutOfMemory" in type(error).__name__ or "running low on memory" in text:
        return LostItem("it ran out of memory", is_out_of_memory=True)
    if "Worker exit type: SYSTEM_ERROR" in text:
        return LostItem("it was killed, or crashed", is_out_of_memory=False)
    if "node" in text.lower() and ("died" in text or "dead" in text):
        return LostItem("its computer has left the cluster", is_out_of_memory=False)
    if "is unavailable" in text:
        return LostItem("its computer cannot be reached", is_out_of_memory=False)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return LostItem(lines[-1][:300] if lines else type(error).__name__, is_out_of_memory=False)
