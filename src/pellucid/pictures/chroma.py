"""Interpolating chroma of half resolution that a decoder has repeated for neighboring pixels.

libheif decodes 4:2:0 and 4:2:2 of AVIF and HEIC in this way, where libavif and other programs interpolate; neither
libvips nor pillow-heif can ask it for more. Luma and the repeated chroma can be computed from RGB, of which they
are linear functions: exactly but for rounding, except where colors are clipped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from pellucid.pictures.samples import Samples
from pellucid.system import memory

_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
"""Number of a matrix -> what red and blue count in luma (ITU-T H.273, table 4)."""

_DEFAULT_MATRIX = 6
"""What decoders assume if a file does not specify one."""

_LARGEST_DEVIATION = 2.5
"""The most that rounding changes repeated chroma, in steps of the samples in the file."""


def interpolate_chroma(samples: Samples, bits: int, steps: tuple[int, int], matrix: int) -> bool:
    """Interpolate repeated chroma of RGB samples in place. Returns whether it was repeated.

    bits: of the samples in their file, which are stretched to their type.
    steps: how many pixels share a chroma sample, (across, down), wherever the first one starts.
    matrix: the number of the matrix (ITU-T H.273).
    """
    (across, down), white = steps, np.iinfo(samples.dtype).max
    conversion = _Conversion(*_WEIGHTS.get(matrix, _WEIGHTS[_DEFAULT_MATRIX]))
    for left, top in product(range(across), range(down)):  # a turned picture of odd size starts within a block
        axes = _Axis(samples.shape[0], down, top), _Axis(samples.shape[1], across, left)
        chroma = _average_chroma(samples, axes, conversion, _LARGEST_DEVIATION * white / (2**bits - 1))
        if chroma is not None:
            _replace_chroma(samples, axes, conversion, chroma)
            return True
    return False


@dataclass(frozen=True)
class _Conversion:
    """Luma and chroma of RGB. red, blue: what they count in luma."""

    red: float
    blue: float

    @cached_property
    def luma(self) -> Samples:
        """What red, green and blue count in luma."""
        return np.array([self.red, 1 - self.red - self.blue, self.blue], np.float32)

    @cached_property
    def colors(self) -> Samples:
        """(2, 3): red, green and blue of both chroma, next to luma."""
        red, green, blue = self.luma
        return np.array([[0, -blue / green, 1], [1, -red / green, 0]], np.float32)

    def find_chroma(self, samples: Samples) -> Samples:
        """(H, W, 2): blue minus luma, and red minus luma."""
        return samples[..., 2::-2] - (samples @ self.luma)[..., None]


@dataclass(frozen=True)
class _Axis:
    """Rows or columns, of which neighbors share a chroma sample. phase: how many the first sample lacks."""

    length: int
    step: int
    phase: int

    @cached_property
    def blocks(self) -> Samples:
        """The number of the chroma sample of each row or column."""
        return (np.arange(self.length) + self.phase) // self.step

    @cached_property
    def starts(self) -> Samples:
        """The first row or column of each chroma sample."""
        return np.maximum(np.arange(self.blocks[-1] + 1) * self.step - self.phase, 0)

    @cached_property
    def neighbors(self) -> Samples:
        """The other chroma sample that is near each row or column: before its first, after its last."""
        sides = np.where((np.arange(self.length) + self.phase) % self.step == 0, -1, 1)
        return np.clip(self.blocks + sides, 0, self.blocks[-1])

    def interpolate(self, chroma: Samples, axis: int, places: slice = slice(None)) -> Samples:
        """Chroma for the rows or columns at `places`. A sample is in the middle of those that share it."""
        own = chroma.take(self.blocks[places], axis)
        return own if self.step == 1 else 0.75 * own + 0.25 * chroma.take(self.neighbors[places], axis)


def _split_rows(samples: Samples, rows: _Axis) -> Iterator[tuple[slice, slice]]:
    """(rows, chroma samples of these rows), from top to bottom."""
    num_blocks, num_rows = len(rows.starts), memory.STRIP_BYTES // samples[0].nbytes
    step = max(1, num_rows // rows.step)
    for first in range(0, num_blocks, step):
        last = min(first + step, num_blocks)
        stop = rows.length if last == num_blocks else int(rows.starts[last])
        yield slice(int(rows.starts[first]), stop), slice(first, last)


def _average_chroma(
    samples: Samples, axes: Sequence[_Axis], conversion: _Conversion, tolerance: float
) -> Samples | None:
    """(H, W, 2) chroma, one for each block of pixels; None if it differs within blocks, and was not repeated."""
    rows, columns = axes
    white = np.iinfo(samples.dtype).max
    chroma: Samples = np.empty((len(rows.starts), len(columns.starts), 2), np.float32)
    for part, blocks in _split_rows(samples, rows):
        strip = samples[part].astype(np.float32)
        own = conversion.find_chroma(strip)
        is_known = _mark_unclipped(strip, white) @ np.ones((3, 1), np.float32) == 3
        # Where all pixels of a block are clipped, their average is the best guess.
        weights = np.where(is_known, np.float32(1), np.float32(1e-6))
        weighted = np.concatenate([own * weights, weights], axis=2)
        sums = np.add.reduceat(weighted, rows.starts[blocks] - part.start, axis=0)
        sums = np.add.reduceat(sums, columns.starts, axis=1)
        chroma[blocks] = sums[..., :2] / sums[..., 2:]
        repeated = chroma[blocks][rows.blocks[part] - blocks.start][:, columns.blocks]
        if (np.abs(own - repeated) * is_known).max() > tolerance:
            return None
    return chroma


def _mark_unclipped(strip: Samples, white: int) -> Samples:
    """1 for samples that are not clipped, otherwise 0."""
    return ((strip > 0) & (strip < white)).astype(np.float32)


def _replace_chroma(samples: Samples, axes: Sequence[_Axis], conversion: _Conversion, chroma: Samples) -> None:
    """Change samples in place: the same luma, with interpolated chroma."""
    rows, columns = axes
    white = np.iinfo(samples.dtype).max
    for part, _ in _split_rows(samples, rows):
        strip = samples[part].astype(np.float32)
        repeated = chroma[rows.blocks[part]][:, columns.blocks] @ conversion.colors
        # Luma is that of the channels that are not clipped, or of all if all are.
        weights = (_mark_unclipped(strip, white) + np.float32(1e-6)) * conversion.luma
        ones = np.ones((3, 1), np.float32)
        luma = ((strip - repeated) * weights) @ ones / (weights @ ones)
        smooth = columns.interpolate(rows.interpolate(chroma, 0, part), 1) @ conversion.colors
        samples[part] = np.clip(np.rint(luma + smooth), 0, white).astype(samples.dtype)
