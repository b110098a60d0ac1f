"""Libraries whose threads do not survive a fork: refused there, where they would wait forever."""

import os

from pellucid.errors import PellucidError


class OneProcess:
    """The process that used a library first. complaint: what cannot be done in one forked from it."""

    def __init__(self, complaint: str) -> None:
        self._complaint = complaint
        self._pid: int | None = None

    def check(self, kind: type[PellucidError]) -> None:
        """To be called before the library is: raises kind in another process than the first."""
        self._pid = self._pid or os.getpid()
        if self._pid != os.getpid():
            raise kind(
                f"{self._complaint} in a process forked after its parent did so; "
                f"start workers with 'spawn' or 'forkserver'"
            )
