"""How far a run over several pictures is."""

from dataclasses import dataclass

from pellucid.storage.urls import Location


@dataclass(frozen=True)
class Position:
    """How far a run over several pictures is.

    num_done: finished pictures, including the finished part of the current one. num_pictures: all.
    source: the current picture; None for one in memory. megapixels: of the current picture.
    restored_megapixels: of all pictures so far, including the finished part of the current one.
    num_skipped: pictures that were finished before.
    """

    num_done: float
    num_pictures: int
    source: Location | None = None
    megapixels: float = 0.0
    restored_megapixels: float = 0.0
    num_skipped: int = 0
