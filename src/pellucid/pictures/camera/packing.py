"""Packing camera mosaics into planes of one filter color each, the input of low-light networks.

Source: Chen, Chen, Xu, Koltun, "Learning to See in the Dark", CVPR 2018, and its released code.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.errors import PictureError
from pellucid.pictures.picture import Mosaic
from pellucid.system import devices

BAYER = ("RG", "GB")
XTRANS = ("RBGBRG", "GGRGGB", "GGBGGR", "BRGRBG", "GGBGGR", "GGRGGB")

# Pixels of the 6 x 6 block at the positions (even, even), (even, odd), (odd, even), (odd, odd) of the first five
# planes of a packed X-Trans mosaic.
_XTRANS_SITES = (
    ((0, 0), (0, 4), (3, 1), (3, 3)),  # red
    ((0, 2), (0, 5), (3, 2), (3, 5)),  # green
    ((0, 1), (0, 3), (3, 0), (3, 4)),  # blue
    ((1, 2), (2, 5), (5, 2), (4, 5)),  # red
    ((2, 2), (1, 5), (4, 2), (5, 5)),  # blue
)


def pack_bayer(mosaic: Tensor) -> Tensor:
    """(N, 1, H, W) in RGGB order, H and W even -> (N, 4, H/2, W/2): R, G of red rows, B, G of blue rows."""
    return torch.cat(
        [mosaic[..., 0::2, 0::2], mosaic[..., 0::2, 1::2], mosaic[..., 1::2, 1::2], mosaic[..., 1::2, 0::2]],
        dim=1,
    )


def unpack_bayer(planes: Tensor) -> Tensor:
    """The inverse of `pack_bayer`: (N, 4, H, W) -> (N, 1, 2 H, 2 W)."""
    red, green, blue, other_green = planes.split(1, dim=1)
    return F.pixel_shuffle(torch.cat([red, green, other_green, blue], dim=1), 2)


def pack_xtrans(mosaic: Tensor) -> Tensor:
    """(N, 1, H, W) in Fuji's order, H and W multiples of 6 -> (N, 9, H/3, W/3): R, G, B, R, B, G, G, G, G."""
    quarters = [mosaic[..., row::6, col::6] for sites in _XTRANS_SITES for row, col in sites]
    greens = [mosaic[..., row::3, col::3] for row, col in ((1, 0), (1, 1), (2, 0), (2, 1))]
    return torch.cat([F.pixel_shuffle(torch.cat(quarters, dim=1), 2), *greens], dim=1)


def apply_gains(planes: Tensor, gains: Tensor, pattern: tuple[str, ...]) -> Tensor:
    """Mosaics (N, 1, H, W) that start with the pattern, multiplied by the (N, 3) gains of red, green and blue.

    Gains are divided by the smallest one, so that samples at white in all colors stay at white.
    """
    period, (height, width) = len(pattern), planes.shape[-2:]
    filters = torch.tensor([["RGB".index(name) for name in row] for row in pattern])
    colors = devices.to_device(filters, planes.device)
    sites = (gains / gains.amin(dim=1, keepdim=True))[:, colors][:, None]
    block = sites.repeat(1, 1, -(-height // period), -(-width // period))
    return planes * block[..., :height, :width]


def align(mosaic: Mosaic, pattern: tuple[str, ...]) -> Mosaic:
    """Crop a mosaic so that it starts with the pattern and has complete blocks.

    Removes less than one block on each side. Raises PictureError if the mosaic has another pattern in every phase.
    """
    offset = find_phase(mosaic.pattern, pattern)
    if offset is None:
        raise PictureError(
            f"a mosaic with the filters {'/'.join(mosaic.pattern)}; this recipe needs {'/'.join(pattern)}"
        )
    return _crop(mosaic, pattern, *offset)


def pad_to_blocks(mosaic: Mosaic, pattern: tuple[str, ...]) -> Mosaic:
    """A mosaic that starts with the pattern and has complete blocks, mirrored beyond its edges where necessary.

    Adds less than one block on each side, see `find_phase`; if nothing is added, the mosaic is returned as it is.
    For Bayer patterns only. Raises PictureError if the mosaic has another pattern in every phase, or less than two
    rows or columns.
    """
    offset = find_phase(mosaic.pattern, pattern)
    if offset is None:
        raise PictureError(
            f"a mosaic with the filters {'/'.join(mosaic.pattern)}; this recipe needs {'/'.join(pattern)}"
        )
    if min(mosaic.height, mosaic.width) < 2:
        raise PictureError(f"a mosaic of {mosaic.width} x {mosaic.height} px; at least 2 x 2 is needed")
    period, sizes = len(pattern), (mosaic.height, mosaic.width)
    margins = [(start, -(size + start) % period) for size, start in zip(sizes, offset, strict=True)]
    if not any(map(any, margins)):
        return mosaic
    # Mirrored at the outermost pixels, a row of red filters becomes one of red filters.
    samples = np.pad(mosaic.samples, margins, "reflect")
    black = mosaic.black_level
    if isinstance(black, tuple):
        black = tuple(map(tuple, np.roll(black, offset, (0, 1)).tolist()))
    return replace(mosaic, samples=samples, pattern=pattern, black_level=black)


def find_phase(found: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[int, int] | None:
    """The first (row, column) of a repeating pattern where the wanted pattern starts, or None."""
    for down, right in product(range(len(found)), repeat=2):
        if _roll(found, down, right) == wanted:
            return down, right
    return None


def _roll(pattern: tuple[str, ...], down: int, right: int) -> tuple[str, ...]:
    rows = pattern[down:] + pattern[:down]
    return tuple(row[right:] + row[:right] for row in rows)


def _crop(mosaic: Mosaic, pattern: tuple[str, ...], down: int, right: int) -> Mosaic:
    period = len(pattern)
    height = (mosaic.height - down) // period * period
    width = (mosaic.width - right) // period * period
    if height <= 0 or width <= 0:
        raise PictureError(
            f"a mosaic of {mosaic.width} x {mosaic.height} px; at least {period} x {period} is needed"
        )
    black = mosaic.black_level
    if isinstance(black, tuple):
        black = tuple(map(tuple, np.roll(black, (-down, -right), (0, 1)).tolist()))
    samples = mosaic.samples[down : down + height, right : right + width]
    return replace(mosaic, samples=samples, pattern=pattern, black_level=black)
