"""How far a run over several pictures is."""

from dataclasses import dataclass

from pellucid.storage.urls import Location


@dataclass(frozen=True)
class Position:
    """How far a run over several pictures is.

    num_done: finished pictures, including the finished part of the current one. num_pictures: all.
    source: the current picture; None for one in memory. megapixels: of the current picture.
    restored_megapixels: by this run so far, including the finished part of the current picture.
    num_skipped: pictures that were finished before, including the part of the current one that earlier runs made.
    kept_s: how long the part of the current picture took that an interruption would not lose.
    """

    num_done: float
    num_pictures: int
    source: Location | None = None
    megapixels: float = 0.0
    restored_megapixels: float = 0.0
    num_skipped: float = 0
    kept_s: float = 0.0
