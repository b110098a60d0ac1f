"""Worker processes on a cluster from the side of the service: the same as on this computer, over Ray.

Each is an actor of Ray that starts the same process as a service without Ray does, and passes its lines on. Files
are not sent if the cluster shares the folder of the service.
"""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pellucid.clusters.member import describe_versions
from pellucid.clusters.team import Requirements, explain_death, make_actor_class
from pellucid.errors import PellucidError
from pellucid.serving.workers.remote_process import Opened, RemoteProcess, Reply
from pellucid.serving.workers.worker_processes import (
    Cause,
    CommandCancelledError,
    CommandFailedError,
    WorkerDiedError,
    WorkerProcess,
)

PIECE_BYTES = 4 * 2**20
"""Files are sent in pieces of this size, one after another."""

START_REMOTE_S = 300.0
"""How long a worker may take to start: a cluster may have to add a computer first."""

_END_S = 1.0
"""How long a worker may take to delete its files at its end; after that, its actor is killed."""


@dataclass(frozen=True)
class ClusterOfWorkers:
    """Where workers run. ray: the module, connected. marker: a file in the folder of the service."""

    ray: Any
    resources: Requirements
    marker: Path

    def make_worker(self, name: str, options: dict[str, Any], folder: Path) -> "RemoteWorker":
        """See `WorkerProcess`; the folder is not used."""
        return RemoteWorker(name, options, folder, cluster=self)


@dataclass
class RemoteWorker(WorkerProcess):
    """One actor with its process, or none between two of them.

    computer: where it runs, "" before it has started. is_shared: whether it uses the folder of the service, so
        that no file is sent.
    """

    cluster: ClusterOfWorkers = field(kw_only=True)
    computer: str = ""
    is_shared: bool = False
    _actor: Any = None
    _is_lost: bool = True
    _there: Path = Path()
    _memory: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        # Calls of Ray block: of the loop that exchanges lines, and of the end of an actor.
        self._threads = ThreadPoolExecutor(3, thread_name_prefix=self.name)
        self._exchanging: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """None: it is a process of another computer."""
        return None

    @property
    def is_alive(self) -> bool:
        return self._actor is not None and not self._is_lost

    def measure_memory(self) -> tuple[int, int]:
        return self._memory if self.is_alive else (0, 0)

    @property
    def start_limit_s(self) -> float:
        return START_REMOTE_S

    async def start(self) -> None:
        try:
            await super().start()
        except WorkerDiedError as error:
            if error.reason != "did not start":
                raise
            needs = f"{self.cluster.resources.memory_bytes / 1e6:.0f} MB of memory and a CPU for it"
            raise WorkerDiedError(f"did not start; perhaps no computer of the cluster has {needs}") from None

    async def _create(self) -> None:
        await self.stop()
        cluster = self.cluster
        self._events: asyncio.Queue[dict[str, Any] | WorkerDiedError] = asyncio.Queue()
        self._unsent: list[str] = []
        self._turn = asyncio.Lock()
        self._memory = (0, 0)  # that of the last process may have been too much
        self._actor = await self._call_ray(
            lambda: make_actor_class(cluster.ray, RemoteProcess, cluster.resources).remote()
        )
        opened: Opened | PellucidError = await self._ask("open", describe_versions(), self.options, cluster.marker)
        if isinstance(opened, PellucidError):
            await self.stop()
            raise WorkerDiedError(opened.describe(lambda name, value: name))
        self.computer, self._there, self.is_shared = opened.computer, opened.folder, opened.is_shared
        self._is_lost = False
        self._exchanging = asyncio.create_task(self._exchange())

    async def _exchange(self) -> None:
        """Send lines and receive events until the process ends."""
        try:
            while True:
                async with self._turn:
                    lines, self._unsent = self._unsent, []
                    reply: Reply = await self._ask("exchange", lines)
                self._memory = reply.used_bytes, reply.own_bytes
                for line in reply.lines:
                    self._events.put_nowait(json.loads(line))
                if (code := reply.exit_code) is not None:
                    raise WorkerDiedError(f"signal {-code}" if code < 0 else f"exit status {code}")
        except ValueError:  # not JSON
            self._lose(WorkerDiedError("its answer cannot be read"))
        except WorkerDiedError as error:
            self._lose(error)

    def _lose(self, error: WorkerDiedError) -> None:
        self._is_lost, self.models = True, []
        self._events.put_nowait(self._death or error)

    async def _read_event(self) -> dict[str, Any]:
        event = await self._events.get()
        if isinstance(event, WorkerDiedError):
            await self.stop()
            raise event
        return event

    def _send(self, message: dict[str, Any]) -> None:
        self._unsent.append(json.dumps(message))

    async def _run(self, command: dict[str, Any], progress: Callable[[float], None] | None) -> Any:
        """Run a command; the files that it reads and writes are sent, unless the folder is shared."""
        if self.is_shared or command["do"] != "restore":
            return await super()._run(command, progress)
        source, folder = Path(command["source"]), Path(command["folder"])
        sent = self._there / f"source{source.suffix}"
        try:
            async with self._turn:
                await self._put_file(source, sent.name, command.get("name", "the picture"))
            result = await super()._run(command | {"source": str(sent), "folder": str(self._there)}, progress)
            async with self._turn:
                await self._get_file(result["file"], folder)
        except (CommandFailedError, CommandCancelledError):
            if self.is_alive:
                await self._remove_files()
            raise
        await self._remove_files()
        return result

    async def _remove_files(self) -> None:
        async with self._turn:
            await self._ask("remove_files")

    async def _put_file(self, source: Path, name: str, called: str) -> None:
        with source.open("rb") as file:
            while piece := await self._in_thread(file.read, PIECE_BYTES):
                self._check_wanted()
                if reason := await self._ask("put_piece", name, piece):
                    raise CommandFailedError("storage", f"{called}: {reason} on {self.computer}")

    async def _get_file(self, name: str, folder: Path) -> None:
        """Copy a result; a part of it is only visible under another name."""
        if Path(name).name != name:
            raise WorkerDiedError("its answer cannot be read")
        part, start = folder / "part", 0
        with part.open("wb") as file:
            while piece := await self._ask("get_piece", name, start, PIECE_BYTES):
                self._check_wanted()
                await self._in_thread(file.write, piece)
                start += len(piece)
        part.replace(folder / name)

    def _check_wanted(self) -> None:
        if self._cancelling:
            raise CommandCancelledError

    async def stop(self) -> None:
        """End the process and its actor now."""
        actor, self._actor, is_running = self._actor, None, self.is_alive
        self._is_lost, self.models = True, []
        if self._exchanging is not None:
            self._exchanging.cancel()
        if actor is not None:
            await self._in_thread(_end, self.cluster, actor, is_running)

    def _kill(self) -> None:
        if self._actor is not None:
            self._threads.submit(_end, self.cluster, self._actor, self.is_alive)

    async def _ask(self, method: str, *arguments: Any) -> Any:
        """The answer of the actor. Raises WorkerDiedError if it has ended."""
        actor = self._actor
        if actor is None:
            raise self._death or WorkerDiedError("it has ended")
        return await self._call_ray(lambda: self.cluster.ray.get(getattr(actor, method).remote(*arguments)))

    async def _call_ray(self, call: Callable[[], Any]) -> Any:
        try:
            return await self._in_thread(call)
        except Exception as error:  # of Ray, its connection or the actor: the process cannot be used any more
            self._is_lost = True
            lost = explain_death(error)
            cause: Cause = "memory" if lost.is_out_of_memory else "crash"
            raise self._death or WorkerDiedError(lost.reason, cause) from None

    async def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)


def _end(cluster: ClusterOfWorkers, actor: Any, is_running: bool) -> None:
    """End an actor, and with it its process.

    is_running: whether the process has started, and has files to delete.
    """
    with suppress(Exception):  # of many classes: it has ended already, or the connection is lost
        if is_running:
            cluster.ray.wait([actor.end.remote()], num_returns=1, timeout=_END_S)
    with suppress(Exception):  # the same
        cluster.ray.kill(actor)
