"""Several models, one after the other, as if they were one: what they need, and how they are scored together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from hashlib import sha256
from itertools import accumulate
from math import lcm, prod
from operator import mul

import numpy as np
import torch
from torch import Tensor

from pellucid import __version__
from pellucid.degradations.degradation import Chain, Degradation, makes_target
from pellucid.domains import Degraded, Domain
from pellucid.errors import PictureError, WeightsError
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.pictures.resize import resize
from pellucid.pictures.samples import CPU
from pellucid.recipes.recipe import Recipe, ScoringProtocol
from pellucid.restoration.kept_tiles import KeptTiles
from pellucid.restoration.resizing import resize_picture
from pellucid.restoration.tiled_model import Effort, TiledModel
from pellucid.system import memory
from pellucid.weights.checkpoint import WeightsMetadata

Progress = Callable[[int, int], None]
"""Called with (pixels done, all pixels)."""


def check_order(models: Sequence[TiledModel]) -> None:
    """Raise WeightsError if a model cannot take the result of the one before."""
    for model in models:
        if model.recipe.domain.gives_mosaic and len(models) > 1:
            raise WeightsError(
                f"{model.name} returns mosaics of camera RAW files, so it cannot be part of a chain",
                hint="restore with it first, then its DNG files with another model",
            )
    for model in models[1:]:
        if model.recipe.domain.takes_mosaic:
            raise WeightsError(
                f"{model.name} takes mosaics of camera RAW files, so it can only be the first model of a chain",
                hint="put it first",
            )


def total_halo_px(models: Sequence[TiledModel]) -> int:
    """How far the last result sees, in pixels of the first picture."""
    halo_px = models[-1].halo_px
    for model in reversed(models[:-1]):
        halo_px = -(-halo_px // model.scale) + model.halo_px
    return halo_px


def total_grid_px(models: Sequence[TiledModel]) -> int:
    """Parts of the first picture that start on multiples of this start on the grid of every model."""
    grid_px, scale = 1, 1
    for model in models:
        grid_px = lcm(grid_px, Fraction(model.grid_px, scale).numerator)
        scale *= model.scale
    return grid_px


def run_models(
    models: Sequence[TiledModel],
    accepted: Degraded,
    effort: Effort,
    dtype: str,
    progress: Progress | None = None,
) -> Degraded:
    """A picture that the first model's domain has accepted through all models, in floating point in between.

    dtype: of the result's samples. Raises the errors of `Restorer.restore`.
    """
    domain = models[0].recipe.domain
    if effort.ensemble and domain.takes_mosaic:  # the filters of a mirrored cell are in other places
        raise PictureError("the color filters of a mosaic cannot be rotated and mirrored", hint="omit {ensemble}")
    if effort.strength != 1 and domain.takes_mosaic and not domain.gives_mosaic:
        raise PictureError("a mosaic cannot be blended with the result", hint="leave {strength} at 1")
    num_pixels, num_done = count_pixels(models, accepted), 0

    def advance(num_pixels_of_tile: int) -> None:
        nonlocal num_done
        num_done += num_pixels_of_tile
        if progress is not None:
            progress(num_done, num_pixels)

    effort.kept.start_picture(partial(_identify, models, accepted, replace(effort, kept=KeptTiles()), dtype))
    degraded = accepted
    for model in models[:-1]:
        degraded = model.restore(degraded, effort, "float32", advance)
        assert isinstance(degraded, Picture)  # see `check_order`
        if effort.mask is not None:
            effort = replace(effort, mask=resize_picture(effort.mask, degraded.height, degraded.width))
    restored = models[-1].restore(degraded, effort, dtype, advance)
    effort.kept.finish_picture()
    return restored


def _identify(models: Sequence[TiledModel], accepted: Degraded, effort: Effort, dtype: str) -> str:
    """A hash of everything that affects the samples of the tiles, except their places."""
    facts: list[object] = [__version__, torch.__version__, dtype, effort.halo_px, effort.ensemble, effort.strength]
    for model in models:
        facts += [model.backend.name, model.fingerprint(), model.recipe.name, model.recipe.parameters]
    if isinstance(accepted, Mosaic):
        facts += [accepted.pattern, accepted.black_level, accepted.white_level, accepted.exposure_ratio]
        facts += [accepted.white_balance, accepted.orientation]
        facts += [] if accepted.noise is None else [accepted.noise]
    found = sha256(repr(facts).encode())
    for plane in (*accepted.planes, *(() if effort.mask is None else effort.mask.planes)):
        found.update(f"{plane.dtype} {plane.shape}".encode())
        for rows in memory.strips(plane):
            found.update(np.ascontiguousarray(plane[rows]).data)
    return found.hexdigest()[:32]


def count_pixels(models: Sequence[TiledModel], degraded: Degraded) -> int:
    """How many pixels of this picture, and of those in between, the models take."""
    scales = accumulate((model.scale for model in models[:-1]), mul, initial=1)
    return degraded.height * degraded.width * sum(scale**2 for scale in scales)


def join_recipes(models: Sequence[TiledModel]) -> Recipe:
    """The recipe of a chain: of its first model, with degradations that all of them undo. It cannot be trained.

    Its name contains all names, and its parameters are those of each model, by its name.
    """
    first, *others = recipes = [model.recipe for model in models]
    if not others:
        return first
    return replace(
        first,
        domain=_ChainDomain(first.domain, prod(model.scale for model in models), first.domain.takes_mosaic),
        degradation=_join_degradations([recipe.degradation for recipe in recipes]),
        protocol=_join_protocols([recipe.protocol for recipe in recipes]),
        name="+".join(recipe.name for recipe in recipes),
        parameters={f"{i} {model.name}": model.recipe.parameters for i, model in enumerate(models, start=1)},
    )


def join_metadata(models: Sequence[TiledModel]) -> WeightsMetadata | None:
    """The metadata of a chain, without scores: origins and licenses of all its files. None if a model has none."""
    known = [model.metadata for model in models if model.metadata is not None]
    if len(known) < len(models):
        return None
    if len(known) == 1:
        return known[0]
    recipe = join_recipes(models)
    provenance = "; ".join(f"{model.name}: {one.provenance}" for model, one in zip(models, known, strict=True))
    licenses = dict.fromkeys(one.license for one in known)
    return WeightsMetadata(recipe.name, recipe.parameters, provenance, " and ".join(licenses))


def _join_degradations(degradations: Sequence[Degradation | None]) -> Degradation | None:
    """The last model undoes what happened first. None if one is not known, or makes its own target."""
    known = [one for one in degradations if one is not None and not makes_target(one)]
    return Chain(tuple(reversed(known))) if len(known) == len(degradations) else None


def _join_protocols(protocols: Sequence[ScoringProtocol]) -> ScoringProtocol:
    return ScoringProtocol(
        _join_degradations([protocol.degradation for protocol in protocols]),
        crop_multiple=prod(protocol.crop_multiple for protocol in protocols),
        border_px=max(protocol.border_px for protocol in protocols),
        rounds=protocols[-1].rounds,
        seed=protocols[0].seed,
        seed_by_name=any(protocol.seed_by_name for protocol in protocols),
    )


@dataclass(frozen=True)
class _ChainDomain(Domain):
    """What a chain takes and how it is scored: as its first model, but enlarged by all of them."""

    first: Domain
    scale: int
    takes_mosaic: bool

    @property
    def num_results(self) -> int:
        return self.first.num_results

    def keep(self, network_input: Tensor) -> Tensor:
        return self.first.keep(network_input)

    @property
    def rate(self) -> Fraction:
        return Fraction(self.scale)

    @property
    def num_planes(self) -> int:
        return self.first.num_planes

    @property
    def colors(self) -> str:
        return self.first.colors

    def halo_px(self, network_halo: int) -> int:
        return self.first.halo_px(network_halo)

    def accept(self, degraded: Degraded) -> Degraded:
        return self.first.accept(degraded)

    def covered_area(self, degraded: Degraded) -> tuple[slice, slice]:
        return self.first.covered_area(degraded)

    def to_planes(self, degraded: Degraded, device: torch.device = CPU) -> Tensor:
        return self.first.to_planes(degraded, device)

    def planes_to_input(self, planes: Tensor) -> Tensor:
        return self.first.planes_to_input(planes)

    def output_to_planes(self, output: Tensor, planes: Tensor) -> Tensor:
        return self.first.output_to_planes(output, planes)

    def encode(self, planes: Tensor) -> Tensor:
        return resize(planes, self.scale)

    def to_colors(self, planes: Tensor) -> Tensor:
        return self.first.to_colors(planes)

    def synthesize(self, photos: Tensor, degradation: Degradation | None, generator: torch.Generator) -> Tensor:
        return self.first.synthesize(photos, degradation, generator)

    def warnings_for(self, degraded: Degraded) -> Iterator[str]:
        return self.first.warnings_for(degraded)
