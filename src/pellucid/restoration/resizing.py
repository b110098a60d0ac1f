"""Resizing pictures of any size with MATLAB's bicubic kernel, a few rows at a time."""

import torch
from torch import Tensor

from pellucid.pictures.picture import Picture
from pellucid.pictures.resize import find_span, resize_part
from pellucid.system import memory

_STRIP_SAMPLES = 2**22
"""How many samples are resized at a time."""

Shape = tuple[int, int]
"""(height, width)."""


def resize_picture(picture: Picture, height: int, width: int, dtype: str = "float32") -> Picture:
    """The picture in another size, with its alpha and extra channels; metadata and encoding are the same.

    dtype: of the result. Values of integer types are rounded and clipped; alpha is a fraction in all.
    """
    own = picture.height, picture.width
    return resize_region(picture, own, (height, width), slice(0, height), slice(0, width), dtype)


def resize_region(
    part: Picture, old: Shape, new: Shape, rows: slice, cols: slice, dtype: str = "float32"
) -> Picture:
    """Some rows and columns of a resized picture, as they are in the whole one; see `resize_picture`.

    part: of the picture of the size `old`, what `find_span` returns for both sides.
    """
    height, width = rows.stop - rows.start, cols.stop - cols.start
    resized = part.crop(slice(0, 1), slice(0, 1)).as_depth(dtype).empty_like(height, width)
    top = find_span(old[0], new[0], rows).start

    def resize(planes: Tensor, strip: slice) -> Tensor:
        return resize_part(resize_part(planes, -2, old[0], new[0], strip), -1, old[1], new[1], cols)

    step = max(1, _STRIP_SAMPLES // max(part.width * -(-old[0] // new[0]), width))
    for start in range(rows.start, rows.stop, step):
        strip = slice(start, min(start + step, rows.stop))
        needed = find_span(old[0], new[0], strip)
        read = part.crop(slice(needed.start - top, needed.stop - top), slice(0, part.width))
        place = slice(strip.start - rows.start, strip.stop - rows.start), slice(0, width)
        alpha, extra = read.alpha_to_tensor(), read.extra_to_tensor()
        planes = resized.crop(*place).with_tensor(
            resize(read.to_tensor(), strip),
            None if alpha is None else torch.clamp(resize(alpha, strip), 0, 1),
            None if extra is None else resize(extra, strip),
        )
        resized.paste(planes, *place)
        for plane in (*part.planes, *resized.planes):
            memory.release(plane)
    return resized
