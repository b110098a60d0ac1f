"""Associated alpha: colors that are multiplied by alpha in the file, as some TIFF files have them."""

from dataclasses import replace

import numpy as np

from pellucid.pictures.picture import Picture
from pellucid.pictures.samples import PEAKS, Samples
from pellucid.system import memory


def divide(picture: Picture) -> Picture:
    """A picture as it was decoded, with colors divided by alpha. Changes the samples in place.

    Colors that cannot be divided get a warning: under full transparency they become black, and those brighter than
    their alpha become white.
    """
    samples, alpha, encoding = picture.samples, picture.alpha, picture.encoding
    assert alpha is not None and encoding is not None
    is_clipped = False
    for rows in memory.strips(samples, alpha):
        is_clipped |= bool((samples[rows] > alpha[rows]).any())
        samples[rows] = _divide(samples[rows], alpha[rows])
    if not is_clipped:
        return picture
    text = "colors brighter than their alpha, by which they should be multiplied, were clipped"
    return replace(picture, encoding=replace(encoding, warnings=(*encoding.warnings, text)))


def multiply(picture: Picture) -> Picture:
    """A picture with colors multiplied by alpha, for a file. Copies the samples."""
    samples, alpha = picture.samples, picture.alpha
    assert alpha is not None
    result = memory.allocate(samples.shape, picture.dtype)
    for rows in memory.strips(samples, alpha, result):
        product = samples[rows] * (alpha[rows] / np.float64(PEAKS[picture.dtype]))
        result[rows] = _round(product, result)
    return replace(picture, samples=result)


def _divide(samples: Samples, alpha: Samples) -> Samples:
    peak = np.float64(PEAKS[samples.dtype.name])
    ratio = np.divide(samples * peak, alpha, out=np.zeros(samples.shape), where=alpha > 0)
    return _round(ratio.clip(None, peak), samples)


def _round(values: Samples, like: Samples) -> Samples:
    return (values if like.dtype.kind == "f" else np.floor(values + 0.5)).astype(like.dtype)
