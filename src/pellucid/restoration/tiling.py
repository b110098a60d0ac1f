"""Tiles whose results equal those of the whole picture.

A tile is computed from more than it covers: the halo, which is as wide as the receptive radius. At the border of
the picture the halo is cut off, not padded, so that the network sees the border as it does in the whole picture.
The area that is read starts and ends on the network's grid, so that strided layers use the same pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

from pellucid.errors import PellucidError


@dataclass(frozen=True)
class Tile:
    """A rectangle of picture pixels, [top, bottom) x [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def longer_side_px(self) -> int:
        return max(self.bottom - self.top, self.right - self.left)

    @property
    def num_pixels(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def cut(self, tile_px: int) -> list["Tile"]:
        """Nearly equal parts of at most tile_px x tile_px, row by row."""
        rows, cols = _cuts(self.top, self.bottom, tile_px), _cuts(self.left, self.right, tile_px)
        return [Tile(*row, *col) for row, col in product(rows, cols)]

    def placed(self, scale: int) -> tuple[slice, slice]:
        """Rows and columns in a result whose sides are this many times as long."""
        return slice(self.top * scale, self.bottom * scale), slice(self.left * scale, self.right * scale)


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
        """The part to keep, within the result of the area that was read."""
        return slice((self.start - self.read_start) * scale, (self.stop - self.read_start) * scale)

    def mirrored(self, size: int) -> "Span":
        """The same side counted from the other end of a picture of this size."""
        return Span(size - self.stop, size - self.start, size - self.read_stop, size - self.read_start)


def plan(height: int, width: int, *, tile_px: int) -> list[Tile]:
    """Tiles of at most tile_px x tile_px that cover a picture, row by row."""
    if tile_px < 1:
        raise PellucidError(f"tile of {tile_px} px; at least 1 is needed")
    return Tile(0, height, 0, width).cut(tile_px)


def span(start: int, stop: int, size: int, *, halo_px: int, grid_px: int) -> Span:
    """What to read along a side of this size to compute [start, stop).

    halo_px: how far an output pixel sees. grid_px: the area that is read starts on multiples of this.
    """
    if halo_px < 0:
        raise PellucidError(f"halo of {halo_px} px; 0 or more is needed")
    read_start = max(0, start - halo_px) // grid_px * grid_px
    read_stop = min(size, -(-(stop + halo_px) // grid_px) * grid_px)
    return Span(start, stop, read_start, read_stop)


def _cuts(start: int, stop: int, tile_px: int) -> Iterator[tuple[int, int]]:
    """Nearly equal parts, so that the last one is not a sliver."""
    count = -(-(stop - start) // tile_px)
    return pairwise(start + (stop - start) * i // count for i in range(count + 1))
