"""A process on a cluster: works through the keys that it is given, in a thread, and hands out results."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from importlib.metadata import version
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any, Protocol

from pellucid.errors import ClusterError, PellucidError

POLL_S = 1.0
"""A call returns after this time, even if there is nothing to report: whoever calls wants to show progress."""


class MemberWorker(Protocol):
    """What a process does with its keys."""

    def work(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(index in items, result) for each item, in any order. Closing it stops after the items in progress."""
        ...

    def close(self) -> None:
        """Store what is not stored yet."""
        ...


class Member:
    """One process, the class of a Ray actor. It runs one call at a time, none of which takes long."""

    def __init__(self) -> None:
        self._batches: SimpleQueue[list[tuple[int, Any]] | None] = SimpleQueue()
        self._results: list[tuple[int, Any]] = []
        self._num_unfinished, self._is_stopping = 0, False
        self._error: Exception | None = None
        self._changed = Condition()
        self._thread = Thread(target=self._work, daemon=True)

    def open(self, versions: str, make: "Make") -> PellucidError | None:
        """Make the worker; returns why it cannot be made."""
        try:
            if versions != describe_versions():
                raise ClusterError(f"it has {describe_versions()}, but this computer {versions}")
            self._worker: MemberWorker = make()
        except PellucidError as error:
            return error
        self._thread.start()
        return None

    def exchange(self, batch: list[tuple[int, Any]], few: int) -> "list[tuple[int, Any]] | PellucidError":
        """Take (place, item) of further items, and return (place, result) of those that are finished.

        Waits until few items are left. Returns the error of the worker, if it failed as a whole.
        """
        with self._changed:
            self._num_unfinished += len(batch)
            if batch:
                self._batches.put(batch)
            self._changed.wait_for(lambda: self._error or self._num_unfinished <= few, POLL_S)
            results, self._results = self._results, []
        if isinstance(self._error, PellucidError):
            return self._error
        if self._error is not None:
            raise self._error
        return results

    def finish(self) -> None:
        """Finish the items in progress, leave out the others, and close the worker."""
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


Make = Callable[[], MemberWorker]
"""Makes a worker in its process. It is pickled."""


def describe_versions() -> str:
    """What must be the same on all computers, so that results are."""
    return ", ".join(f"{package} {version(package)}" for package in ("pellucid", "torch", "numpy"))
