"""How closely the results of two backends agree, on realistic pictures and at sizes that break exports."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.errors import PellucidError
from pellucid.recipes.recipe import Recipe
from pellucid.system.wording import format_count

SIZES = ((1, 1), (2, 3), (17, 31), (64, 64), (97, 66), (131, 160))
"""(H, W) of network inputs: the smallest, odd and even ones, on and off the grid of every network."""

SIDE_PX = 192
"""Side of synthetic pictures, in network pixels."""

MIN_PSNR_DB = {"float32": 100.0, "float16": 55.0, "bfloat16": 45.0, "int8": 35.0}
"""PSNR against float32 that an export in this precision must reach. docs/export.md has that of trained weights."""

CLOSE_PSNR_DB = 60.0
"""PSNR against float32 of results that can replace it: an RMS error of a quarter of an 8-bit step."""

NUM_LEAVES = 150


@dataclass(frozen=True)
class Agreement:
    """How closely two sets of results agree, over all samples of all inputs.

    max_error: largest absolute difference; white is 1. psnr_db: infinite for equal results.
    """

    max_error: float
    psnr_db: float
    num_inputs: int

    def __str__(self) -> str:
        psnr = "exact" if self.psnr_db == math.inf else f"PSNR {self.psnr_db:.1f} dB"
        return f"{psnr}, largest error {self.max_error:.1e} of white, {format_count(self.num_inputs, 'input')}"


def compare(
    candidate: Callable[[Tensor], Tensor], reference: Callable[[Tensor], Tensor], inputs: Iterable[Tensor]
) -> Agreement:
    """Run both on every input, (N, C, H, W). Raises PellucidError if the shapes of results differ."""

    def subtract(degraded: Tensor) -> Tensor:
        found, wanted = candidate(degraded), reference(degraded)
        check_shapes(found, wanted, degraded)
        return found.double() - wanted.double()

    return summarize(map(subtract, inputs))


def check_shapes(found: Tensor, wanted: Tensor, degraded: Tensor) -> None:
    """Raise PellucidError if a result does not have the wanted shape."""
    if found.shape != wanted.shape:
        raise PellucidError(
            f"for an input of {tuple(degraded.shape)}, the result has shape {tuple(found.shape)} instead of "
            f"{tuple(wanted.shape)}"
        )


def summarize(differences: Iterable[Tensor]) -> Agreement:
    """The agreement of results that differ by this; white is 1."""
    largest, squares, count, num_inputs = 0.0, 0.0, 0, 0
    for difference in differences:
        error = difference.double().abs().nan_to_num(nan=math.inf)
        largest = max(largest, error.max().item())
        squares, count = squares + error.square().sum().item(), count + error.numel()
        num_inputs += 1
    return Agreement(largest, _to_psnr_db(squares / count), num_inputs)


def synthetic_inputs(recipe: Recipe, side_px: int = SIDE_PX, *, seed: int = 0) -> Tensor:
    """Two synthetic pictures with the statistics of natural ones, degraded and encoded: (2, C, side_px, side_px).

    side_px: a multiple of 12.
    """
    generator = torch.Generator().manual_seed(seed)
    clean = torch.stack([dead_leaves(side_px * recipe.domain.rate.denominator, generator) for _ in range(2)])
    return recipe.domain.synthesize(clean, recipe.protocol.degradation, generator)


def crop_inputs(degraded: Tensor, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Tensor]:
    """Crops of these sizes, (H, W), from the top left of an input; smaller if the input is smaller."""
    return [degraded[..., :height, :width].contiguous() for height, width in sizes]


def dead_leaves(side_px: int, generator: torch.Generator) -> Tensor:
    """Overlapping, softly shaded discs of all sizes: (3, side_px, side_px), black is 0, white is 1.

    They have edges at every scale, and a spectrum like that of photographs. Source: Lee, Mumford, Huang,
    "Occlusion Models for Natural Images", IJCV 2001.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    positions = torch.arange(side_px, dtype=torch.float32) / side_px
    rows, cols = positions[:, None], positions[None, :]
    picture = uniform(3, 1, 1).expand(3, side_px, side_px).clone()
    smallest, largest = 0.01, 0.5
    for _ in range(NUM_LEAVES):
        share = uniform(1).item()
        # Radii have the density 1 / r^3, so that the picture has the same statistics at every scale.
        radius = (largest**-2 + share * (smallest**-2 - largest**-2)) ** -0.5
        down, right = rows - uniform(1), cols - uniform(1)
        shade = 0.3 * (down * (uniform(1) - 0.5) + right * (uniform(1) - 0.5)) / radius
        picture = torch.where(down**2 + right**2 < radius**2, uniform(3, 1, 1) + shade, picture)
    return (picture + 0.02 * torch.randn(picture.shape, generator=generator)).clamp(0, 1)


def _to_psnr_db(mean_square: float) -> float:
    return math.inf if mean_square == 0 else -10 * math.log10(mean_square)
