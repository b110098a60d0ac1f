"""Inputs of any size through a graph that takes one shape only, as accelerators prefer it: window by window."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import PictureError

Planes = NDArray[np.float32]


@dataclass(frozen=True)
class _Window:
    """One side of a window: [start, stop) of the input is kept of a window that starts at `read_start`."""

    start: int
    stop: int
    read_start: int

    def kept(self, scale: int) -> slice:
        return slice((self.start - self.read_start) * scale, (self.stop - self.read_start) * scale)

    def placed(self, scale: int) -> slice:
        return slice(self.start * scale, self.stop * scale)


@dataclass(frozen=True)
class FixedShape:
    """The only input that a graph takes, (N, C, H, W), and its network's scale, multiple and halo.

    Results equal those of the same graph without a fixed shape: windows overlap by halos, start on the network's
    grid, and end where the input ends, so the network sees the border as it does in the whole input.
    """

    shape: tuple[int, int, int, int]
    scale: int
    multiple: int
    halo: int

    def check(self, height: int, width: int) -> None:
        """Raise PictureError unless windows can cover an input of this size exactly."""
        for side, length, side_px in (("height", self.shape[2], height), ("width", self.shape[3], width)):
            if side_px == length:
                continue
            expected = (
                f"the {side} of the network's input is {side_px} px, and the model was exported for {length}"
            )
            hint = "export the model without {shape}, or for another one"
            if side_px < length:
                raise PictureError(f"{expected}, which is more", hint=hint)
            if length % self.multiple or self._step(length) < 1:
                raise PictureError(
                    f"{expected}: larger inputs need more than {2 * self._margin} px, in multiples of "
                    f"{self.multiple}",
                    hint=hint,
                )
            if side_px % self.multiple:
                raise PictureError(f"{expected}; other inputs must be multiples of {self.multiple}", hint=hint)

    def describe_cost(self) -> str | None:
        """A message if windows keep less than a quarter of what they compute, but not if they keep nothing."""
        _, _, height, width = self.shape
        kept = max(0, self._step(height)) * max(0, self._step(width))
        if not 0 < 4 * kept < height * width:
            return None
        return (
            f"exported for {width} x {height} px, of which {self._step(width)} x {self._step(height)} are kept: "
            "a larger shape is faster"
        )

    def run(self, graph: Callable[[Planes], Planes], degraded: Planes) -> Planes:
        """(N, C, H, W) of any size that `check` accepts -> (N, C', scale * H, scale * W).

        graph: called with batches of the fixed shape; if windows are left over, the last one is repeated.
        """
        if degraded.shape == self.shape:
            return graph(degraded)
        count, _, height, width = degraded.shape
        self.check(height, width)
        size, scale = self.shape[0], self.scale
        windows = list(product(range(count), self._cut(height, self.shape[2]), self._cut(width, self.shape[3])))
        restored: Planes | None = None
        for first in range(0, len(windows), size):
            batch = windows[first : first + size]
            parts = [self._read(degraded, *window) for window in batch]
            results = graph(np.stack(parts + parts[-1:] * (size - len(parts))))
            if restored is None:
                restored = np.empty((count, results.shape[1], height * scale, width * scale), results.dtype)
            for (index, rows, cols), result in zip(batch, results, strict=False):
                kept = result[:, rows.kept(scale), cols.kept(scale)]
                restored[index, :, rows.placed(scale), cols.placed(scale)] = kept
        assert restored is not None
        return restored

    @property
    def _margin(self) -> int:
        """The halo, rounded up to the grid."""
        return -(-self.halo // self.multiple) * self.multiple

    def _step(self, length: int) -> int:
        return length - 2 * self._margin

    def _cut(self, side_px: int, length: int) -> list[_Window]:
        starts = [*range(0, side_px - length, max(1, self._step(length))), side_px - length]
        stops = [*(start + self._margin for start in starts[1:]), side_px]
        return [
            _Window(start, stop, read_start)
            for start, stop, read_start in zip([0, *stops], stops, starts, strict=False)
        ]

    def _read(self, degraded: Planes, index: int, rows: _Window, cols: _Window) -> Planes:
        _, _, height, width = self.shape
        top, left = rows.read_start, cols.read_start
        return degraded[index, :, top : top + height, left : left + width]
