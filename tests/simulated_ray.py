"""The part of Ray that teams of processes use, with real processes of this computer, which start at once.

Everything that passes between processes is pickled, and a process that is killed is dead for the team, as in Ray.
"""

import os
import pickle
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Lock, Thread
from types import SimpleNamespace
from typing import Any

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pellucid.evaluation.on_cluster", "pellucid.data.on_cluster"])


class RayError(Exception):
    """What Ray raises if a process has died."""


class SimulatedRay:
    """The module `ray`. computers: the resources of each; more processes than fit them wait forever."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self, *computers: dict[str, float]) -> None:
        self.computers = list(computers) or [{"CPU": 2, "memory": 2**40}]
        self.actors: list[Actor] = []
        self.options: dict[str, Any] = {}
        self.environment: dict[str, str] = {}
        """Variables that differ from those of this process."""
        self._lock = Lock()
        self.reason = "Worker exit type: SYSTEM_ERROR"
        """Part of the error of a process that was killed."""

    def remote(self, actor_class: type) -> "_ActorClass":
        return _ActorClass(self, actor_class)

    def wait(
        self, calls: Sequence["Future[Any]"], num_returns: int, timeout: float
    ) -> tuple[list["Future[Any]"], list["Future[Any]"]]:
        deadline_s = time.monotonic() + timeout
        while sum(call.done() for call in calls) < num_returns and time.monotonic() < deadline_s:
            waiting = [call for call in calls if not call.done()]
            wait(waiting, max(0, deadline_s - time.monotonic()), FIRST_COMPLETED)
        ready = [call for call in calls if call.done()]
        return ready, [call for call in calls if not call.done()]

    def get(self, call: "Future[Any]") -> Any:
        return call.result()

    def kill(self, actor: "Actor") -> None:
        actor.kill()

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": resources} for resources in self.computers]

    def cluster_resources(self) -> dict[str, float]:
        names = {name for computer in self.computers for name in computer}
        return {name: sum(computer.get(name, 0) for computer in self.computers) for name in names}

    def start_waiting(self) -> None:
        """Start processes that fit now."""
        with self._lock:
            needs = {"CPU": self.options["num_cpus"], "memory": self.options["memory"]}
            capacity = sum(
                min(int(computer.get(name, 0) // need) for name, need in needs.items())
                for computer in self.computers
            )
            for actor in [actor for actor in self.actors if actor.is_waiting]:
                if len(self.living) < capacity:
                    actor.start()

    @property
    def started(self) -> list["Actor"]:
        return [actor for actor in self.actors if actor.has_started]

    @property
    def living(self) -> list["Actor"]:
        return [actor for actor in self.actors if actor.is_alive]


class _ActorClass:
    def __init__(self, ray: SimulatedRay, actor_class: type) -> None:
        self._ray, self._class = ray, actor_class

    def options(self, **options: Any) -> "_ActorClass":
        self._ray.options = options
        return self

    def remote(self) -> "Actor":
        actor = Actor(self._ray, self._class)
        self._ray.actors.append(actor)
        self._ray.start_waiting()
        return actor


class Actor:
    """A handle of a process, which starts once it fits. Each method of its object has a method `remote`."""

    def __init__(self, ray: SimulatedRay, actor_class: type) -> None:
        self._ray, self._class = ray, actor_class
        self._process: Any = None
        self._is_ended = False
        self._unsent: list[bytes] = []
        self._calls: list[Future[Any]] = []
        self._lock = Lock()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return SimpleNamespace(remote=lambda *arguments: self._call(name, arguments))

    @property
    def has_started(self) -> bool:
        return self._process is not None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    @property
    def is_waiting(self) -> bool:
        return self._process is None and not self._is_ended

    @property
    def process_id(self) -> int:
        return self._process.pid

    def start(self) -> None:
        with self._lock:
            self._connection, other = _CONTEXT.Pipe()
            environment = {**os.environ, **self._ray.environment}
            self._process = _CONTEXT.Process(target=_serve, args=(other, self._class, environment), daemon=True)
            self._process.start()
            other.close()
            for content in self._unsent:
                self._connection.send_bytes(content)
        Thread(target=self._read, daemon=True).start()

    def kill(self) -> None:
        with self._lock:
            self._is_ended = True
            unsent = self._calls if self._process is None else []
        for call in unsent:
            call.set_exception(RayError(self._ray.reason))
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def _call(self, name: str, arguments: tuple[Any, ...]) -> "Future[Any]":
        call: Future[Any] = Future()
        content = pickle.dumps((name, arguments))
        with self._lock:
            self._calls.append(call)
            try:
                if self._process is None:
                    self._unsent.append(content)
                else:
                    self._connection.send_bytes(content)
            except OSError:
                self._calls.remove(call)
                call.set_exception(RayError(self._ray.reason))
        return call

    def _read(self) -> None:
        """Complete the calls, in order; all others fail when the process has ended."""
        with suppress(EOFError, OSError):
            while True:
                is_error, result = pickle.loads(self._connection.recv_bytes())
                with self._lock:
                    call = self._calls.pop(0)
                _complete(call, is_error, result)
        with self._lock:
            self._connection.close()
            calls, self._calls = self._calls, []
        self._process.join()
        self._ray.start_waiting()
        for call in calls:
            call.set_exception(RayError(self._ray.reason))


def _complete(call: "Future[Any]", is_error: bool, result: Any) -> None:
    if is_error:
        call.set_exception(RayError(result))
    else:
        call.set_result(result)


def _serve(connection: Connection, actor_class: Callable[[], Any], environment: dict[str, str]) -> None:
    """The process: runs one call after another."""
    os.environ.update(environment)
    target = actor_class()
    with suppress(EOFError):
        while True:
            name, arguments = pickle.loads(connection.recv_bytes())
            try:
                answer = (False, getattr(target, name)(*arguments))
            except Exception as error:
                answer = (True, f"{type(error).__name__}: {error}")
            connection.send_bytes(pickle.dumps(answer))
