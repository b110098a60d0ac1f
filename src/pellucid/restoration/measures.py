"""How noisy, blocky and soft a picture is, measured from its samples."""

import numpy as np
from numpy.typing import NDArray

from pellucid.pictures.picture import Picture
from pellucid.pictures.samples import PEAKS

Plane = NDArray[np.float32]

_MEASURED_PX = 1024
_FLAT_PX = 16
_JPEG_PX = 8
_GAIN_OF_LAPLACIAN = 6
"""The Laplacian of white noise has 6 times its deviation."""
_MAX_STEP_255 = 16.0
"""Larger differences are edges of the subject."""
_EDGE_PX = 5


def estimate_noise(picture: Picture) -> float:
    """The standard deviation of white noise in the gray or green samples, on the scale where white is 255.

    The median of absolute Laplacians of 3 x 3 pixels in the middle, which edges and most textures hardly change
    (after J. Immerkaer, Fast Noise Variance Estimation, 1996, with the median in place of the mean). Noise that is
    not white, e.g. of a camera or after JPEG, is underestimated.
    """
    picture = take_middle(picture)
    laplacians = _laplacian(to_plane_255(picture, picture.channels // 2))
    return _find_median(np.abs(laplacians)) / 0.6745 / _GAIN_OF_LAPLACIAN if laplacians.size else 0.0


def measure_flat_noise(plane_255: Plane) -> float:
    """The deviation of fine noise in the flattest twentieth of the squares of 16 px; 0 if there are too few.

    Textures are left out, unless they are everywhere, and so are black and white parts, where noise is clipped.
    """
    inner = plane_255[1:-1, 1:-1]
    squares, around = (_cut_squares(values) for values in (_laplacian(plane_255), inner))
    brightness = around.mean(axis=1)
    inside = (brightness > 8) & (brightness < 247)
    if inside.sum() < 8:
        return 0.0
    deviations = np.sqrt(np.square(squares[inside]).mean(axis=1)) / _GAIN_OF_LAPLACIAN
    return float(np.quantile(deviations, 0.05))


def measure_coarse_noise(plane_255: Plane) -> float:
    """As `measure_flat_noise`, of the plane at half its size, where fine noise is half as strong."""
    rows, cols = (side // 2 for side in plane_255.shape)
    half = plane_255[: 2 * rows, : 2 * cols].reshape(rows, 2, cols, 2).mean(axis=(1, 3), dtype=np.float32)
    return measure_flat_noise(half)


def measure_blocks(plane_255: Plane) -> float:
    """How much larger the third differences are at every eighth row and column than elsewhere; white is 255.

    The smaller value of rows and columns: blocks of JPEG have both. About three times the step between blocks.
    """
    return min(_measure_columns(plane_255), _measure_columns(plane_255.T))


def measure_edges(plane_255: Plane) -> float:
    """How many pixels wide the sharpest edges are, from 1 to 5: along rows or columns, where they are wider."""
    return max(_measure_edge_columns(plane_255), _measure_edge_columns(plane_255.T))


def take_middle(picture: Picture) -> Picture:
    """The middle of a large picture, 1024 px wide and high."""
    top, left = (max(0, (side - _MEASURED_PX) // 2) for side in (picture.height, picture.width))
    return picture.crop(slice(top, top + _MEASURED_PX), slice(left, left + _MEASURED_PX))


def to_plane_255(picture: Picture, channel: int) -> Plane:
    """One channel, (H, W), on the scale where white is 255."""
    return picture.samples[:, :, channel].astype(np.float32) / np.float32(PEAKS[picture.dtype]) * 255


def _laplacian(plane: Plane) -> Plane:
    rows = plane[:-2] - 2 * plane[1:-1] + plane[2:]
    return np.asarray(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])


def _find_median(values: Plane) -> float:
    """That of `numpy.median`, which does not use vector instructions, and takes ten times as long."""
    middle = values.size // 2
    parts = np.partition(values, middle, axis=None)
    return float(parts[middle] if values.size % 2 else (parts[:middle].max() + parts[middle]) / 2)


def _cut_squares(plane: Plane) -> Plane:
    """The whole squares of a plane, (count, 256)."""
    rows, cols = (side // _FLAT_PX for side in plane.shape)
    whole = plane[: rows * _FLAT_PX, : cols * _FLAT_PX].reshape(rows, _FLAT_PX, cols, _FLAT_PX)
    return whole.transpose(0, 2, 1, 3).reshape(rows * cols, _FLAT_PX**2)


def _measure_columns(plane: Plane) -> float:
    if plane.shape[1] < 4 * _JPEG_PX:
        return 0.0
    third = np.abs(plane[:, :-3] - 3 * plane[:, 1:-2] + 3 * plane[:, 2:-1] - plane[:, 3:])
    columns = np.minimum(third, _MAX_STEP_255).mean(axis=0)
    phases = columns[: len(columns) // _JPEG_PX * _JPEG_PX].reshape(-1, _JPEG_PX).mean(axis=0)
    return float(phases.max() - np.median(phases))


def _measure_edge_columns(plane: Plane) -> float:
    if plane.shape[1] <= _EDGE_PX:
        return 1.0
    near = np.abs(np.diff(plane, axis=1))
    far = np.abs(plane[:, _EDGE_PX:] - plane[:, :-_EDGE_PX])
    steepest = float(np.quantile(near, 0.995))
    return float(np.clip(np.quantile(far, 0.995) / steepest, 1, _EDGE_PX)) if steepest > 0 else 1.0
