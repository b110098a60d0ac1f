"""A process on a cluster: processes the items that are assigned to it, in a thread, and returns results."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from importlib.metadata import version
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any, Protocol

from pellucid.errors import ClusterError, PellucidError

POLL_S = 1.0
"""A call returns after this time at the latest, even without results, so that the caller can show progress."""


IDLE_S = 0.1
"""How long a call waits if there is nothing to do, so that an idle process does not take a processor core."""


class MemberWorker(Protocol):
    """Processes the items in one process of the cluster."""

    def work(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(index in items, result) for each item, in any order. Closing it stops after the items in progress."""
        ...

    def close(self) -> None:
        """Store what is not stored yet."""
        ...


class Member:
    """One process: the class of the Ray actor. Ray runs its calls one at a time, and each returns quickly."""

    def __init__(self) -> None:
        self._batches: SimpleQueue[list[tuple[int, Any]] | None] = SimpleQueue()
        self._results: list[tuple[int, Any]] = []
        self._num_unfinished, self._is_stopping = 0, False
        self._error: Exception | None = None
        self._changed = Condition()
        self._thread = Thread(target=self._work, daemon=True)

    def open(self, versions: str, make: "MakeWorker") -> PellucidError | None:
        """Make the worker. Returns the error if that fails, otherwise None."""
        try:
            if versions != describe_versions():
                raise ClusterError(f"it has {describe_versions()}, but this computer {versions}")
            self._worker: MemberWorker = make()
        except PellucidError as error:
            return error
        self._thread.start()
        return None

    def exchange(
        self, batch: list[tuple[int, Any]], max_unfinished: int
    ) -> "list[tuple[int, Any]] | PellucidError":
        """Accept more items as (index, item), and return finished ones as (index, result).

        Waits, up to POLL_S, until at most `max_unfinished` items are left. Returns the error of the worker if it
        failed as a whole.
        """
        with self._changed:
            self._num_unfinished += len(batch)
            if batch:
                self._batches.put(batch)
            if self._num_unfinished or self._results:
                self._changed.wait_for(lambda: self._error or self._num_unfinished <= max_unfinished, POLL_S)
            else:
                self._changed.wait_for(lambda: self._error, IDLE_S)
            results, self._results = self._results, []
        if isinstance(self._error, PellucidError):
            return self._error
        if self._error is not None:
            raise self._error
        return results

    def finish(self) -> None:
        """Finish the items in progress, drop the others, and close the worker."""
        self._is_stopping = True
        self._batches.put(None)
        self._thread.join()
        self._worker.close()

    def pid(self) -> int:
        """The id of the process on its computer."""
        return os.getpid()

    def _work(self) -> None:
        try:
            while (batch := self._batches.get()) is not None and not self._is_stopping:
                self._work_through(batch)
        except Exception as error:  # `exchange` raises it
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _work_through(self, batch: list[tuple[int, Any]]) -> None:
        finished: Any = self._worker.work([item for _, item in batch])
        with closing(finished):
            for index, result in finished:
                with self._changed:
                    self._results.append((batch[index][0], result))
                    self._num_unfinished -= 1
                    self._changed.notify_all()
                if self._is_stopping:
                    return


MakeWorker = Callable[[], MemberWorker]
"""Makes the worker; pickled, and called in the process that the worker runs in."""


def describe_versions() -> str:
    """The versions that must be equal on all computers, so that their results are equal."""
    return ", ".join(f"{package} {version(package)}" for package in ("pellucid", "torch", "numpy"))
