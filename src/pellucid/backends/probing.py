"""What tiles need to know about a network of which only the graph is known, found by running it.

A network is a function of planes, (N, C, H, W) -> (N, C, scale * H, scale * W). It is run on small synthetic
pictures: in several sizes to find its scale and the sizes that it accepts, with one half of the picture changed to
find how far it sees (where differences count from the first bit on), and on a shifted picture to find its grid.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from pellucid.errors import PellucidError, WeightsError

Run = Callable[[Tensor], Tensor]

GRIDS_PX = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Grids that are tried. Networks have powers of two or, with windows, small multiples of them."""

SIDES_PX = (96, 192, 384, 768)
"""Sides of the pictures on which the halo is searched."""

EXACT = 1e-5
"""Results of equal pixels in pictures of different size may differ by this: kernels depend on the size."""


@dataclass(frozen=True)
class Reach:
    """What `recipes.network.Network` states of its own networks.

    size_px: sides of the input must be multiples of this. halo: None if output pixels depend on the whole input,
    as with global pooling and attention, or on more than half of the largest picture that is tried.
    """

    scale: int
    multiple: int
    size_px: int
    halo: int | None


def measure_reach(run: Run, num_planes: int, *, name: str) -> Reach:
    """Find the scale, the sizes, the grid and the halo of a network.

    name: of the network, for errors. Raises WeightsError if it accepts none of the sizes that are tried, or if its
    output is not a whole number of times as large as its input.
    """
    scale, size_px = _find_sizes(run, num_planes, name)
    halo = _find_halo(run, num_planes, scale, size_px)
    if halo is not None:
        for multiple in GRIDS_PX:
            # The halo was measured for one place on the grid, from which others differ by less than the grid.
            total = halo + multiple - 1
            if multiple % size_px == 0 and _repeats(run, num_planes, scale, multiple, total):
                return Reach(scale, multiple, size_px, total)
    return Reach(scale, size_px, size_px, None)


def draw_planes(num_planes: int, height: int, width: int, *, kind: str = "photo", seed: int = 0) -> Tensor:
    """(1, C, H, W) from 0 to 1. kind: photo (waves, edges and a little noise) or noise."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, num_planes, height, width, generator=generator)
    if kind == "noise":
        return noise
    rows, cols = torch.arange(height)[:, None], torch.arange(width)
    phases = torch.arange(num_planes)[:, None, None] + seed
    waves = 0.5 + 0.3 * torch.sin(rows / 17 + phases) * torch.cos(cols / 23 - phases)
    edges = 0.1 * torch.where(rows // 13 % 2 == cols // 19 % 2, 1, -1)
    return (waves + edges + 0.04 * (noise[0] - 0.5)).clamp(0, 1)[None]


def _find_sizes(run: Run, num_planes: int, name: str) -> tuple[int, int]:
    """(scale, the number of which sides must be multiples)."""
    failure: Exception | None = None
    answered: dict[tuple[int, int], torch.Size] = {}
    for size_px in GRIDS_PX:
        start = -(-64 // size_px)
        # Not both sides at once: one of them could be a multiple of more by accident.
        sizes = [(size_px * (start + rows), size_px * (start + cols)) for rows, cols in ((1, 2), (3, 1), (2, 5))]
        try:
            answered |= (shapes := {size: run(draw_planes(num_planes, *size)).shape for size in sizes})
        except (PellucidError, MemoryError) as error:  # the runtime does not accept the size
            failure = error
            continue
        found = {_find_scale(shape, size, num_planes) for size, shape in shapes.items()}
        if len(found) == 1 and (scale := found.pop()) is not None:
            return scale, size_px
    if not answered:
        raise WeightsError(f"{name} accepts none of the sizes that were tried: {failure}")
    size, shape = next(iter(answered.items()))
    raise WeightsError(
        f"{name} returns {_describe_shape(shape)} for {num_planes} x {size[0]} x {size[1]} (channels, height, "
        "width); as many channels are needed, and 1, 2, 3, ... times the size"
    )


def _describe_shape(shape: torch.Size) -> str:
    """Without the batch."""
    return " x ".join(map(str, shape[1:]))


def _find_scale(shape: torch.Size, size: tuple[int, int], num_planes: int) -> int | None:
    """None if the output does not have the planes of the input, and a whole number of times its size."""
    if len(shape) != 4 or shape[:2] != (1, num_planes):
        return None
    height, width = shape[2:]
    scale = height // size[0]
    return scale if scale > 0 and (height, width) == (scale * size[0], scale * size[1]) else None


def _find_halo(run: Run, num_planes: int, scale: int, size_px: int) -> int | None:
    """The halo if it is smaller than half of the largest picture that is tried, else None."""
    for side_px in SIDES_PX:
        side_px = -(-side_px // (2 * size_px)) * 2 * size_px
        halo = 0
        for distance in _measure_distances(run, num_planes, scale, side_px):
            halo = max(halo, distance)
            if halo == side_px // 2:  # perhaps even farther
                break
        else:
            return halo
    return None


def _measure_distances(run: Run, num_planes: int, scale: int, side_px: int) -> Iterator[int]:
    """How far from one half of a picture, in input pixels, the output changes with it; for several halves."""
    middle = side_px // 2
    is_first = torch.arange(side_px) < middle
    for kind, axis in product(("photo", "noise"), (-2, -1)):
        given = draw_planes(num_planes, side_px, side_px, kind=kind)
        other = draw_planes(num_planes, side_px, side_px, kind="noise", seed=1)
        output = run(given)
        for is_changed in (is_first, ~is_first):
            mask = is_changed[:, None] if axis == -2 else is_changed
            differs = (run(torch.where(mask, other, given)) != output).any(-1 if axis == -2 else -2)
            places = differs.any(1)[0].nonzero()[:, 0] // scale
            if len(places):
                last = int(places.max()) - middle + 1 if is_changed[0] else middle - int(places.min())
                yield max(0, last)


def _repeats(run: Run, num_planes: int, scale: int, shift_px: int, halo: int) -> bool:
    """Whether a picture without its first rows and columns has the same result, except near the cut."""
    length = -(-(2 * halo + 3 * shift_px + 16) // shift_px) * shift_px
    given = draw_planes(num_planes, length + shift_px, length + shift_px)
    first, inner = scale * (shift_px + halo), scale * halo
    whole, part = run(given)[..., first:, first:], run(given[..., shift_px:, shift_px:])[..., inner:, inner:]
    return bool((whole - part).abs().max() <= EXACT * max(1.0, float(whole.abs().max())))
