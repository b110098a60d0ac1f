"""Tiles whose results equal the whole picture's.

A tile is computed from more than it covers: the halo, as far as an output pixel can see. At the true border
of the picture the halo is cut off, never made up, so the network meets the border just as it does in the
whole. What is read starts and ends on the network's grid, so that strided layers fall on the same pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

from pellucid.errors import PellucidError


@dataclass(frozen=True)
class Span:
    """One side of a tile in picture pixels: [start, stop) is kept of [read_start, read_stop)."""

    start: int
    stop: int
    read_start: int
    read_stop: int

    @property
    def read(self) -> slice:
        return slice(self.read_start, self.read_stop)

    def kept(self, scale: int = 1) -> slice:
        """The part to keep, within the result of what was read."""
        return slice((self.start - self.read_start) * scale, (self.stop - self.read_start) * scale)

    def placed(self, scale: int = 1) -> slice:
        """Where it goes in the whole result."""
        return slice(self.start * scale, self.stop * scale)

    def mirrored(self, size: int) -> "Span":
        """The same side counted from the other end of a picture of this size."""
        return Span(size - self.stop, size - self.start, size - self.read_stop, size - self.read_start)


@dataclass(frozen=True)
class Tile:
    """Two spans: the rows and the columns."""

    rows: Span
    cols: Span


def span(start: int, stop: int, size: int, *, halo_px: int, grid_px: int) -> Span:
    """What to read so as to keep [start, stop) of a side of this size."""
    read_start = max(0, start - halo_px) // grid_px * grid_px
    read_stop = min(size, -(-(stop + halo_px) // grid_px) * grid_px)
    return Span(start, stop, read_start, read_stop)


def plan(height: int, width: int, *, tile_px: int, halo_px: int, grid_px: int) -> list[Tile]:
    """Cover a picture with tiles that keep at most tile_px x tile_px each, row by row.

    halo_px: how far an output pixel sees. grid_px: what is read starts on multiples of this.
    """
    if tile_px < 1:
        raise PellucidError(f"tile of {tile_px} px; at least 1 is needed")
    if halo_px < 0:
        raise PellucidError(f"halo of {halo_px} px; 0 or more is needed")
    sides = [
        [span(a, b, size, halo_px=halo_px, grid_px=grid_px) for a, b in _cuts(size, tile_px)]
        for size in (height, width)
    ]
    return [Tile(rows, cols) for rows, cols in product(*sides)]


def _cuts(size: int, tile_px: int) -> Iterator[tuple[int, int]]:
    """Nearly equal parts: no sliver at the end."""
    count = -(-size // tile_px)
    edges = [size * i // count for i in range(count + 1)]
    return pairwise(edges)
