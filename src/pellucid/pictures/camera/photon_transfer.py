"""How strong the noise of a mosaic is, measured from its own samples.

The noise of a camera grows with the signal. In small squares of each filter color, fine differences are measured.
Of squares with similar brightness, the flattest ones contain noise and hardly anything else. A line through their
variances is the photon transfer curve: its slope is the shot noise, its value at black the read noise.
Source: Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data", IEEE TIP
2008, with squares instead of level sets.
"""

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pellucid.pictures.picture import Mosaic, NoiseLevel

MIN_LEVEL = NoiseLevel(1e-7, 1e-10)
"""Returned for mosaics in which nothing can be measured."""

_MEASURED_PX = 4096
_SQUARE_PX = 8
_GAIN_OF_LAPLACIAN = 6
"""The Laplacian of white noise has 6 times its deviation."""
_NUM_BINS, _MIN_SQUARES = 24, 40
_FLATTEST = 0.1
_SHARE_OF_FLATTEST = 0.632
"""The variance in the flattest tenth of squares with nothing but white noise, relative to its true value."""
_HIGHEST = 0.9
"""Brighter squares may contain saturated samples."""
_LOWEST = 0.25
_TYPICAL_RATIO = 2e-3
"""Read noise divided by shot noise, of a typical camera."""
_READ_SLOPE, _READ_OFFSET, _READ_FACTOR = 1.281, -4.5, 10.0
"""log(read noise) of a typical camera = slope * log(shot noise) + offset, and the factor by which
cameras differ."""
_SHOT_PER_ISO = (1e-8, 1e-6)
"""Shot noise divided by ISO: less than of cameras with the largest pixels, and that of phones."""

Array = NDArray[np.float64]


def measure_noise_level(mosaic: Mosaic) -> NoiseLevel:
    """The noise of a mosaic, from at most the middle 16 megapixels; within what is possible at its ISO."""
    top, left = ((side - _MEASURED_PX) // 2 for side in (mosaic.height, mosaic.width))
    period = mosaic.period
    rows, cols = (slice(max(0, start) // period * period, max(0, start) + _MEASURED_PX) for start in (top, left))
    linear = mosaic.crop(rows, cols).to_linear()[0, 0].numpy()
    brightness, variance = (
        np.concatenate(parts)
        for parts in zip(
            *(_measure_squares(linear[row::period, col::period]) for row, col in product(range(period), repeat=2)),
            strict=True,
        )
    )
    iso, bins = mosaic.exposure.iso, _find_flattest(brightness, variance)
    limits = (MIN_LEVEL.shot, 0.9) if iso is None else tuple(min(part * iso, 0.9) for part in _SHOT_PER_ISO)
    return _fit_line(*bins, *limits) if bins is not None else MIN_LEVEL


def _measure_squares(plane: NDArray[np.float32]) -> tuple[Array, Array]:
    """Brightness and variance of fine differences of each square of one color."""
    if min(plane.shape) < _SQUARE_PX + 2:
        return np.empty(0), np.empty(0)
    rows = plane[:-2] - 2 * plane[1:-1] + plane[2:]
    fine = (rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]) / np.float32(_GAIN_OF_LAPLACIAN)
    squares, around = _cut_squares(fine), _cut_squares(plane[1:-1, 1:-1])
    inside = around.max(axis=1) < _HIGHEST
    return around[inside].mean(axis=1, dtype=np.float64), np.square(squares[inside]).mean(axis=1, dtype=np.float64)


def _cut_squares(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, cols = (side // _SQUARE_PX for side in plane.shape)
    whole = plane[: rows * _SQUARE_PX, : cols * _SQUARE_PX].reshape(rows, _SQUARE_PX, cols, _SQUARE_PX)
    return whole.transpose(0, 2, 1, 3).reshape(rows * cols, _SQUARE_PX**2)


def _find_flattest(brightness: Array, variance: Array) -> tuple[Array, Array] | None:
    """Brightness and variance of noise in groups of squares of similar brightness; None if there are too few."""
    num_bins = min(_NUM_BINS, len(brightness) // _MIN_SQUARES)
    if num_bins == 0:
        return None
    groups = np.array_split(np.argsort(brightness), num_bins)
    levels = [float(np.median(brightness[group])) for group in groups]
    noise = [float(np.quantile(variance[group], _FLATTEST)) / _SHARE_OF_FLATTEST for group in groups]
    return np.array(levels), np.array(noise)


def _fit_line(levels: Array, noise: Array, lowest: float, highest: float) -> NoiseLevel:
    """A line under which a quarter of the groups are: others contain texture, which lifts them.

    The groups that are bright enough determine its slope, the dark ones its value at black.
    lowest, highest: limits of the shot noise.
    """
    levels = np.maximum(levels, 0)
    shot = float(np.quantile(noise / (levels + _TYPICAL_RATIO), _LOWEST))
    read = _expect_read(shot)
    for _ in range(10):
        bright, dark = shot * levels > read, shot * levels < 2 * read
        if bright.any():
            shot = float(np.quantile(np.maximum(noise - read, 0)[bright] / levels[bright], _LOWEST))
        shot = min(max(shot, lowest), highest)
        expected = _expect_read(shot)
        if dark.any():
            read = float(np.quantile((noise - shot * levels)[dark], _LOWEST))
        read = min(max(read, expected / _READ_FACTOR), expected * _READ_FACTOR)
    return NoiseLevel(shot, min(max(read, MIN_LEVEL.read), 0.9))


def _expect_read(shot: float) -> float:
    """The read noise of a typical camera."""
    return math.exp(_READ_SLOPE * math.log(max(shot, MIN_LEVEL.shot)) + _READ_OFFSET)
