"""How many times longer a dark mosaic should have been exposed: from another exposure, or estimated."""

from itertools import product
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import PictureError
from pellucid.pictures.picture import Mosaic
from pellucid.pictures.samples import Samples

MAX_EXPOSURE_RATIO = 300.0
"""The maximum of Chen et al., "Learning to See in the Dark", CVPR 2018."""

_BRIGHTNESS = 0.4
"""Mean luminance of a typical photograph after gamma."""
_GAMMA = 2.2
_BRIGHT = 90
"""Percentile of the luminances that must not exceed white."""
_NUM_CELLS = 400
_TRIMMED = 0.02
_LUMA = {"R": 0.2126, "G": 0.7152, "B": 0.0722}  # BT.709


def compute_exposure_ratio(short: Mosaic, long: Mosaic) -> float:
    """How many times more light the long exposure has than the short one: 1 to MAX_EXPOSURE_RATIO.

    Computed from time_s * iso / f_number**2; ISO and f-number only count if both files contain them. Ratios above
    the maximum are clamped. Raises PictureError if a time is missing, or if the long exposure has less light.
    """
    ratio = _measure_light(long, short) / _measure_light(short, long)
    if ratio < 1:
        raise PictureError(
            f"the long exposure has {1 / ratio:.3g} times less light than the short one", hint="swap them"
        )
    return min(ratio, MAX_EXPOSURE_RATIO)


def estimate_exposure_ratio(mosaic: Mosaic) -> float:
    """The exposure ratio that makes a mosaic as bright as a typical photograph: 1 to MAX_EXPOSURE_RATIO.

    The mean luminance after gamma becomes 0.4, unless more than a tenth of the picture would become white.
    Luminances are trimmed means of some hundred cells, which suppresses noise and hot pixels.
    """
    luminances = _measure_cells(mosaic)
    bright = float(np.percentile(luminances, _BRIGHT))
    highest = min(MAX_EXPOSURE_RATIO, 1 / bright) if bright > 0 else MAX_EXPOSURE_RATIO
    low, high = 1.0, max(1.0, highest)
    for _ in range(20):  # bisects an interval of log(300)
        middle = sqrt(low * high)
        dark = _measure_brightness(luminances * middle) < _BRIGHTNESS
        low, high = (middle, high) if dark else (low, middle)
    return high


def _measure_light(mosaic: Mosaic, other: Mosaic) -> float:
    """A number proportional to the light of a mosaic, from those values of the exposure that both mosaics have."""
    own, others = mosaic.exposure, other.exposure
    if own.time_s is None or others.time_s is None:
        raise PictureError(
            "an exposure time is missing, so the exposure ratio is unknown", hint="give it as a number"
        )
    light = own.time_s
    if own.iso is not None and others.iso is not None:
        light *= own.iso
    if own.f_number is not None and others.f_number is not None:
        light /= own.f_number**2
    return light


def _measure_brightness(luminances: NDArray[np.float64]) -> float:
    return float(np.mean(luminances.clip(0, 1) ** (1 / _GAMMA)))


def _measure_cells(mosaic: Mosaic) -> NDArray[np.float64]:
    """Mean luminance of each cell with the camera's white balance; black is 0, white is 1."""
    period = mosaic.period
    if min(mosaic.height, mosaic.width) < period:
        raise PictureError(
            f"a mosaic of {mosaic.width} x {mosaic.height} px; at least {period} x {period} is needed"
        )
    gains = dict(zip("RGB", mosaic.white_balance or (1.0, 1.0, 1.0), strict=True))
    colors = "".join(mosaic.pattern)
    sites = product(range(period), repeat=2)
    luminances = np.zeros(())
    whole = mosaic.samples[: mosaic.height // period * period, : mosaic.width // period * period]
    for (row, col), color, black in zip(sites, colors, mosaic.site_black_levels.flat, strict=True):
        plane = whole[row::period, col::period]
        weight = _LUMA[color] * gains[color] / colors.count(color)
        luminances = luminances + weight * (_average_cells(plane) - black) / (mosaic.white_level - black)
    return luminances


def _average_cells(plane: Samples) -> NDArray[np.float64]:
    """Trimmed mean of each square cell, for some hundred cells."""
    height, width = plane.shape
    side = max(1, int(min(height, width, sqrt(height * width / _NUM_CELLS))))
    rows, cols = height // side, width // side
    cells = plane[: rows * side, : cols * side].reshape(rows, side, cols, side).swapaxes(1, 2)
    ordered = np.sort(cells.reshape(rows, cols, side**2))
    num_trimmed = int(_TRIMMED * side**2)
    return ordered[..., num_trimmed : side**2 - num_trimmed].mean(axis=-1, dtype=np.float64)
