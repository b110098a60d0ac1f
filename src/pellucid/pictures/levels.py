"""Samples of any number of bits over the full range of 8 or 16 bits."""

import numpy as np

from pellucid.pictures.samples import Samples


def stretch(samples: Samples, white: int) -> Samples:
    """Samples from 0 to white, rounded to 8 bits if white is at most 255, otherwise to 16 bits."""
    dtype, peak = (np.uint8, 255) if white <= 255 else (np.uint16, 65535)
    if white == peak:
        return samples.astype(dtype, copy=False)
    steps = np.arange(white + 1, dtype=np.uint64)
    return ((steps * (2 * peak) + white) // (2 * white)).astype(dtype)[samples]


def expand_limited(samples: Samples, bits: int) -> Samples:
    """Samples of video range (16 to 235 of 255) over the full range of their type; what is outside is clipped.

    bits: of the samples in their file, which are stretched to the type.
    """
    peak, white = np.iinfo(samples.dtype).max, 2**bits - 1
    black, span = 16 * 2 ** (bits - 8) * peak / white, 219 * 2 ** (bits - 8) * peak / white
    expanded = (samples.astype(np.float64) - black) * (peak / span)
    return np.clip(np.rint(expanded), 0, peak).astype(samples.dtype)


def expand_chroma_as_color(samples: Samples) -> Samples:
    """Samples of video range that were expanded as if they were chroma (16 to 240 of 255), over the full range."""
    peak = np.iinfo(samples.dtype).max
    return np.clip(np.rint(samples * (224 / 219)), 0, peak).astype(samples.dtype)
