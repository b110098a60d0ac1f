"""Camera mosaics: packing the sites of one filter color into planes, as low-light networks take them.

Source: Chen, Chen, Xu, Koltun, "Learning to See in the Dark", CVPR 2018, and its released code.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import PictureError
from pellucid.pictures.picture import Mosaic

BAYER = ("RG", "GB")
XTRANS = ("RBGBRG", "GGRGGB", "GGBGGR", "BRGRBG", "GGBGGR", "GGRGGB")

# Where the four sub-positions (even, even), (even, odd), (odd, even), (odd, odd) of the first five planes of a
# packed X-Trans block lie in its 6 x 6 pixels.
_XTRANS_SITES = (
    ((0, 0), (0, 4), (3, 1), (3, 3)),  # red
    ((0, 2), (0, 5), (3, 2), (3, 5)),  # green
    ((0, 1), (0, 3), (3, 0), (3, 4)),  # blue
    ((1, 2), (2, 5), (5, 2), (4, 5)),  # red
    ((2, 2), (1, 5), (4, 2), (5, 5)),  # blue
)


def pack_bayer(mosaic: Tensor) -> Tensor:
    """(N, 1, H, W) in RGGB order, H and W even -> (N, 4, H/2, W/2): R, G of R's rows, B, G of B's rows."""
    return torch.cat(
        [mosaic[..., 0::2, 0::2], mosaic[..., 0::2, 1::2], mosaic[..., 1::2, 1::2], mosaic[..., 1::2, 0::2]],
        dim=1,
    )


def pack_xtrans(mosaic: Tensor) -> Tensor:
    """(N, 1, H, W) in Fuji's order, H and W multiples of 6 -> (N, 9, H/3, W/3): R, G, B, R, B, G, G, G, G."""
    count, _, height, width = mosaic.shape
    packed = mosaic.new_empty(count, 9, height // 3, width // 3)
    for plane, sites in enumerate(_XTRANS_SITES):
        for i, (row, col) in enumerate(sites):
            packed[:, plane, i // 2 :: 2, i % 2 :: 2] = mosaic[:, 0, row::6, col::6]
    for plane, (row, col) in enumerate(((1, 0), (1, 1), (2, 0), (2, 1)), start=5):
        packed[:, plane] = mosaic[:, 0, row::3, col::3]
    return packed


def balanced(planes: Tensor, gains: Tensor, pattern: tuple[str, ...]) -> Tensor:
    """Mosaics (N, 1, H, W) that begin with the pattern, each sample times the gain of its filter: gains is (N, 3).

    The smallest gain counts as 1, so that what was white in every color is so afterwards.
    """
    period, (height, width) = len(pattern), planes.shape[-2:]
    colors = torch.tensor([["RGB".index(name) for name in row] for row in pattern], device=planes.device)
    sites = (gains / gains.amin(dim=1, keepdim=True))[:, colors][:, None]
    block = sites.repeat(1, 1, -(-height // period), -(-width // period))
    return planes * block[..., :height, :width]


def align(mosaic: Mosaic, pattern: tuple[str, ...]) -> Mosaic:
    """Cut a mosaic so that it starts with this phase of the pattern and holds whole blocks.

    Costs less than one block on each side. Raises PictureError when no phase of the mosaic is the pattern.
    """
    offset = phase(mosaic.pattern, pattern)
    if offset is None:
        raise PictureError(
            f"a mosaic with the filters {'/'.join(mosaic.pattern)}; this recipe needs {'/'.join(pattern)}"
        )
    return _cut(mosaic, pattern, *offset)


def phase(found: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[int, int] | None:
    """The first pixel (row, column) of a pattern from which on it is the wanted one; None if there is none."""
    for down, right in product(range(len(found)), repeat=2):
        if _rolled(found, down, right) == wanted:
            return down, right
    return None


def _rolled(pattern: tuple[str, ...], down: int, right: int) -> tuple[str, ...]:
    rows = pattern[down:] + pattern[:down]
    return tuple(row[right:] + row[:right] for row in rows)


def _cut(mosaic: Mosaic, pattern: tuple[str, ...], down: int, right: int) -> Mosaic:
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
