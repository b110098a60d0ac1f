"""Libraries whose threads do not survive a fork: a forked process gets an error instead of hanging forever."""

import os

from pellucid.errors import PellucidError


class ForkGuard:
    """Remembers the process that used a library first. complaint: what a process forked from it cannot do."""

    def __init__(self, complaint: str) -> None:
        self._complaint = complaint
        self._pid: int | None = None

    def check(self, error_class: type[PellucidError]) -> None:
        """Call before each use of the library. Raises error_class in any process but the first."""
        self._pid = self._pid or os.getpid()
        if self._pid != os.getpid():
            raise error_class(
                f"{self._complaint} in a process that was forked after its parent did so",
                hint="start workers with 'spawn' or 'forkserver'",
            )
