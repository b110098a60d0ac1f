"""Noise of a sensor from pairs of equal exposures: the photon transfer method.

The difference of two exposures of the same scene contains only their noise; its variance is twice that of one. The
variance of shot noise is proportional to the signal, and the factor is the gain. Exposures without light contain
the other noise.
Source: Janesick, "Photon Transfer" (2007); European Machine Vision Association, standard 1288.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.float64]
"""(H, W) samples of a mosaic in its own units."""

TILE_PX = 16
"""Side of the squares, in pixels of one filter color, in which the signal of a flat frame counts as constant."""

QUANTIZATION = 1 / 12
"""Variance of rounding to whole numbers."""

_CLIP = 6.0
"""Samples further from the mean than this many standard deviations are defects of the sensor."""

_LOWEST_SHARE = 1e-4
"""Lowest row variance, as a share of the read variance: what cannot be seen, for a logarithm."""


@dataclass(frozen=True)
class DarkNoise:
    """Noise without light, in the units of the samples. Variances are without that of rounding.

    read: variance of each sample. row: variance of the offset that all samples of a row share.
    """

    read: float
    row: float


@dataclass(frozen=True)
class Tiles:
    """Signal above black and variance of small areas of flat frames.

    correlation: of the noise of neighboring samples of one color, which sensors do not have; the largest of all
        pairs of frames.
    """

    signal: Levels
    variance: Levels
    num_frames: int = 2
    correlation: float = 0.0


def measure_dark_pair(first: Levels, second: Levels) -> DarkNoise:
    """The noise of two (H, W) exposures without light. Raises ValueError if black is clipped."""
    lowest = min(first.min(), second.min())
    if np.mean(first == lowest) > 0.02:
        raise ValueError(f"{np.mean(first == lowest):.0%} of its samples have the lowest value, {lowest:g}")
    difference = first - second
    means = difference.mean(axis=1, keepdims=True)
    in_rows = _without_outliers(difference - means)
    sample_variance = in_rows.var() * (first.shape[1] / (first.shape[1] - 1)) / 2
    row_variance = _without_outliers(means.ravel()).var(ddof=1) / 2 - sample_variance / first.shape[1]
    read = max(sample_variance - QUANTIZATION, _LOWEST_SHARE * sample_variance)
    return DarkNoise(float(read), float(max(row_variance, _LOWEST_SHARE * read)))


def measure_flat_pair(first: Levels, second: Levels, black: Levels, white: float, period: int) -> Tiles:
    """Signal and variance of each tile without saturated samples, of two (H, W) exposures of an even surface.

    black: (period, period) levels of the sites of the filter pattern. white: level of saturation.
    """
    signals, variances, correlations = [], [], [0.0]
    for row in range(period):
        for col in range(period):
            one, other = (_cut_tiles(frame[row::period, col::period]) for frame in (first, second))
            is_valid = (np.maximum(one, other).max(axis=1) < white) & (one.mean(axis=1) > black[row, col])
            one, other = one[is_valid], other[is_valid]
            signals.append((one.mean(axis=1) + other.mean(axis=1)) / 2 - black[row, col])
            variances.append((one - other).var(axis=1, ddof=1) / 2)
            correlations.append(_correlate_neighbors(one - other))
    return Tiles(np.concatenate(signals), np.concatenate(variances), correlation=max(correlations))


def fit_gain(tiles: Tiles, dark: DarkNoise) -> float:
    """Levels per electron: the slope of variance over signal, above the noise without light."""
    offset = dark.read + dark.row + QUANTIZATION
    excess = tiles.variance - offset
    gain = float(excess.sum() / tiles.signal.sum())
    for _ in range(4):  # an estimated variance has a deviation that is proportional to it
        weights = (max(gain, 0.0) * tiles.signal + offset) ** -2
        gain = float((weights * tiles.signal * excess).sum() / (weights * tiles.signal**2).sum())
    return gain


def measure_misfit(tiles: Tiles, dark: DarkNoise, gain: float) -> float:
    """Largest relative deviation of the variance from that of the model, among tenths of the signal.

    It is higher after denoising or compression in the camera, and with light that flickers.
    """
    order = np.argsort(tiles.signal)
    model = gain * tiles.signal + dark.read + dark.row + QUANTIZATION
    parts = np.array_split(order, 10)
    return max(abs(float(tiles.variance[part].mean() / model[part].mean()) - 1) for part in parts)


def _correlate_neighbors(differences: Levels) -> float:
    """Of samples above each other, because those of a row share its offset; (tiles, samples of a tile)."""
    squares = differences.reshape(-1, TILE_PX, TILE_PX)
    squares = squares - squares.mean(axis=(1, 2), keepdims=True)
    power = float(np.square(squares).mean()) if squares.size else 0.0
    return abs(float((squares[:, 1:] * squares[:, :-1]).mean())) / power if power > 0 else 0.0


def _cut_tiles(plane: Levels) -> Levels:
    """(H, W) -> (tiles, samples of a tile); what is left at the right and the bottom is not used."""
    rows, cols = (size // TILE_PX for size in plane.shape)
    whole = plane[: rows * TILE_PX, : cols * TILE_PX].reshape(rows, TILE_PX, cols, TILE_PX)
    return whole.swapaxes(1, 2).reshape(rows * cols, TILE_PX**2)


def _without_outliers(values: Levels) -> Levels:
    return values[np.abs(values - values.mean()) <= _CLIP * values.std()]
