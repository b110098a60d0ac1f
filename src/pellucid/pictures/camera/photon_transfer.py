"""How strong the noise of a mosaic is, measured from its own samples.

The noise of a camera grows with the signal. In small squares of each filter color, fine differences are measured; of
squares with similar brightness, the flattest ones contain noise and hardly anything else. A line through their
variances is the photon transfer curve, whose slope is the shot noise and whose value at black is the read noise.
Source: Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data", IEEE TIP
2008, with squares instead of level sets.
"""

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
_TOLERANCE = 1.3

Array = NDArray[np.float64]


def estimate_noise(mosaic: Mosaic) -> NoiseLevel:
    """The noise of a mosaic, from at most the middle 16 megapixels."""
    top, left = ((side - _MEASURED_PX) // 2 for side in (mosaic.height, mosaic.width))
    period = mosaic.period
    rows, cols = (slice(max(0, start) // period * period, max(0, start) + _MEASURED_PX) for start in (top, left))
    linear = mosaic.crop(rows, cols).to_linear()[0, 0].numpy()
    brightness, variance = (
        np.concatenate(parts)
        for parts in zip(
            *(_measure_squares(linear[row::period, col::period]) for row in range(period) for col in range(period)),
            strict=True,
        )
    )
    bins = _find_flattest(brightness, variance)
    return _fit_line(*bins) if bins is not None else MIN_LEVEL


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


def _fit_line(levels: Array, noise: Array) -> NoiseLevel:
    """The line under which few groups are: groups with texture everywhere are above it, and are left out."""
    weights = np.ones_like(noise)
    shot, read = 0.0, float(np.median(noise))
    for _ in range(20):
        expected = np.maximum(shot * np.maximum(levels, 0) + read, MIN_LEVEL.read)
        shot, read = _solve(np.maximum(levels, 0), noise, weights / expected**2)
        expected = np.maximum(shot * np.maximum(levels, 0) + read, MIN_LEVEL.read)
        weights = np.where(noise > _TOLERANCE * expected, 0.02, 1.0)
    return NoiseLevel(min(shot, 0.9), min(max(read, MIN_LEVEL.read), 0.9))


def _solve(levels: Array, noise: Array, weights: Array) -> tuple[float, float]:
    """Weighted least squares of shot * level + read, both at least 0."""
    total, mean = weights.sum(), (weights * levels).sum() / weights.sum()
    spread = (weights * (levels - mean) ** 2).sum()
    slope = 0.0 if spread <= 0 else float((weights * (levels - mean) * noise).sum() / spread)
    read = float((weights * noise).sum() / total) - slope * float(mean)
    if slope < 0:
        return 0.0, float((weights * noise).sum() / total)
    if read < 0:
        square = float((weights * levels**2).sum())
        return (float((weights * levels * noise).sum()) / square if square > 0 else 0.0), 0.0
    return slope, read
