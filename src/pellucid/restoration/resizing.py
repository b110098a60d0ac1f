"""Resizing pictures of any size with MATLAB's bicubic kernel, a few rows at a time."""

import torch

from pellucid.pictures.picture import Picture
from pellucid.pictures.resize import find_rows, resize_rows
from pellucid.system import memory

_STRIP_SAMPLES = 2**22
"""How many samples are resized at a time."""


def resize_picture(picture: Picture, height: int, width: int, dtype: str = "float32") -> Picture:
    """The picture in another size, with its alpha and extra channels; metadata and encoding are the same.

    dtype: of the result. Values of integer types are rounded and clipped; alpha is a fraction in all.
    """
    own = picture.height, picture.width
    resized = picture.crop(slice(0, 1), slice(0, 1)).as_depth(dtype).empty_like(height, width)
    row_samples = max(picture.width * -(-picture.height // height), width)
    step = max(1, _STRIP_SAMPLES // row_samples)
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        needed = find_rows(own[0], height, rows)
        part = picture.crop(needed, slice(0, own[1]))
        planes = [
            None if plane is None else resize_rows(plane, own[0], height, width, rows)
            for plane in (part.to_tensor(), part.alpha_to_tensor(), part.extra_to_tensor())
        ]
        samples, alpha, extra = planes
        assert samples is not None
        alpha = None if alpha is None else torch.clamp(alpha, 0, 1)
        strip = resized.crop(rows, slice(0, width)).with_tensor(samples, alpha, extra)
        resized.paste(strip, rows, slice(0, width))
        for plane in (*picture.planes, *resized.planes):
            memory.release(plane)
    return resized
