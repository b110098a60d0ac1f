"""Patches of a store as (degraded, target) for the loss. There is one class for each kind of store."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from pellucid.data.store import Store
from pellucid.degradations.degradation import Footprint, draws, footprint, make_pair
from pellucid.degradations.rng import build_generator, join_generators
from pellucid.domains import DevelopingDomain, develops_mosaic
from pellucid.errors import DataError, RecipeError
from pellucid.pictures.camera.packing import apply_gains, find_phase
from pellucid.pictures.picture import Mosaic
from pellucid.pictures.samples import Samples
from pellucid.recipes.recipe import Recipe
from pellucid.system import devices
from pellucid.system.wording import format_count
from pellucid.training.crops import Numbers, Pictures, Placement, Size, augment, augment_corner, crop_inner
from pellucid.training.positions import Patches, Window

Batch = tuple[Tensor, Tensor]
"""(degraded, target)"""


class PatchMaker(Protocol):
    """Makes batches of patches from one kind of store."""

    sizes: list[Size]
    """Height and width that crops can use, for each picture."""
    window: Window

    def __init__(self, recipe: Recipe, store: Store, patch_px: int, placement: Placement) -> None: ...

    def make(self, patches: Patches, seeds: Sequence[int]) -> Batch:
        """(degraded, target). seeds: of the noise, one for each shard."""


def build_maker(recipe: Recipe, store: Store, patch_px: int, placement: Placement) -> PatchMaker:
    """The maker for the kind of store. Raises DataError if the recipe cannot learn from this kind."""
    maker: type[PatchMaker] = _FromClean
    if learns_from_pairs(recipe, store):
        maker = _FromRaw if recipe.domain.takes_mosaic else _FromPairs
    return maker(recipe, store, patch_px, placement)


def learns_from_pairs(recipe: Recipe, store: Store) -> bool:
    """Whether the degraded pictures of the store are used; otherwise the recipe degrades the targets.

    Raises DataError if the recipe cannot learn from this kind of store in the way that its `learn_from` says.
    """
    needed = "raw" if recipe.domain.takes_mosaic else "pairs"
    if recipe.learn_from == "targets" and recipe.degradation is None:
        raise DataError(f"{recipe.name} has no degradation of its own", hint="train it without learn_from=targets")
    if recipe.learn_from == "targets":
        return False
    if store.kind == needed:
        return True
    if store.kind == "clean" and recipe.degradation is not None and recipe.learn_from == "auto":
        return False
    hint = "give a folder of clean pictures by {target}" if store.kind == "clean" and needed == "pairs" else ""
    if store.kind != "clean" and recipe.degradation is not None:
        hint = "learn_from=targets uses only the targets, which the recipe degrades"
    raise DataError(f"a store of {_KINDS[store.kind]}; {recipe.name} learns from {_NEEDED[needed]}", hint=hint)


_KINDS = {"clean": "clean pictures", "pairs": "pairs of pictures", "raw": "camera RAW files"}
_NEEDED = {
    "raw": "camera RAW files with their long exposures",
    "pairs": "pairs of degraded and clean pictures",
}


def _build_window(recipe: Recipe, patch_px: int, reads: Footprint) -> Window:
    """reads: the footprint of the degradation. The domain may read pixels around each pixel of its result."""
    rate = recipe.domain.rate / reads.scale
    if rate > 1:
        raise RecipeError(
            f"{recipe.name} enlarges by {rate}, but its degradation does not downscale",
            hint="train it without a scale",
        )
    if patch_px < 1 or patch_px % rate.denominator:
        raise RecipeError(f"patch_px={patch_px}: {recipe.name} needs a multiple of {rate.denominator}")
    # 0 for a domain that packs mosaics: it reads only the cell of the pixel.
    num_cells = recipe.domain.halo_px(0) // recipe.domain.rate.denominator
    return Window(patch_px, rate.denominator, reads.grid_px, reads.reach_px + reads.scale * num_cells)


class _FromClean:
    """Clean patches, which the recipe degrades."""

    def __init__(self, recipe: Recipe, store: Store, patch_px: int, placement: Placement) -> None:
        assert recipe.degradation is not None
        self._degradation, self._domain, self._device = recipe.degradation, recipe.domain, placement.device
        reads = footprint(recipe.degradation)
        self._rate, self._scale = recipe.domain.rate / reads.scale, reads.scale
        self.window = _build_window(recipe, patch_px, reads)
        self._clean = Pictures(lambda i: _crop_to_cells(store.target(i), reads.scale), store.scenes, placement)
        self.sizes = self._clean.sizes

    def make(self, patches: Patches, seeds: Sequence[int]) -> Batch:
        size_px, patch_px = self.window.size_px, self.window.patch_px
        top, left = self.window.start(patches.top), self.window.start(patches.left)
        planes = self._clean.crop(patches.picture, top, left, size_px, self._domain.to_colors)
        clean = augment(planes, patches.transform)
        degraded, target = self._make_pair(clean, seeds)
        self._check_shape(degraded, clean)
        encoded = self._domain.encode(degraded)
        top, left = augment_corner(patches.top - top, patches.left - left, patches.transform, size_px - patch_px)
        return crop_inner(encoded, top, left, patch_px, self._rate), crop_inner(target, top, left, patch_px)

    def _check_shape(self, degraded: Tensor, clean: Tensor) -> None:
        """Raise RecipeError if the degradation does not do what its footprint says: patches would be shifted."""
        count, _, height, width = clean.shape
        expected = count, height // self._scale, width // self._scale
        found = degraded.shape[0], *degraded.shape[2:]
        if found != expected:
            raise RecipeError(
                f"the degradation returned {_format_pictures(*found)} instead of {_format_pictures(*expected)}",
                hint="the scale in its footprint must be that by which it divides the sides",
            )

    def _make_pair(self, clean: Tensor, seeds: Sequence[int]) -> Batch:
        if not draws(self._degradation):
            return make_pair(self._degradation, clean, build_generator(self._device, 0))
        generators = [build_generator(self._device, seed) for seed in seeds]
        count = len(clean) // len(seeds)
        if self._device.type != "cpu":
            return make_pair(self._degradation, clean, join_generators(generators, count))
        # Shard by shard: PyTorch's kernels for CPUs round the last few values of a tensor differently.
        shards = zip(clean.split(count), generators, strict=True)
        degraded, target = zip(*(make_pair(self._degradation, *shard) for shard in shards), strict=True)
        return torch.cat(degraded), torch.cat(target)


class _FromPairs:
    """Degraded and clean patches from the same position. The target may be larger by the domain's scale."""

    def __init__(self, recipe: Recipe, store: Store, patch_px: int, placement: Placement) -> None:
        self._domain, self._scale = recipe.domain, int(recipe.domain.rate)
        self.window = _build_window(recipe, patch_px, Footprint(self._scale, self._scale))
        self._degraded = Pictures(store.degraded, range(len(store)), placement)
        self._clean = Pictures(store.target, store.scenes, placement)
        self.sizes = self._clean.sizes
        for name, (height, width), given in zip(store.names, self.sizes, self._degraded.sizes, strict=True):
            if (self._scale * given[0], self._scale * given[1]) != (height, width):
                needed = "of the same size" if self._scale == 1 else f"{self._scale} times as large"
                raise DataError(
                    f"{name} is {given[1]} x {given[0]} px and its target {width} x {height} px; "
                    f"this recipe needs targets {needed}"
                )

    def make(self, patches: Patches, seeds: Sequence[int]) -> Batch:
        size_px, patch_px, scale = self.window.size_px, self.window.patch_px, self._scale
        top, left = self.window.start(patches.top), self.window.start(patches.left)
        position = patches.picture, top // scale, left // scale, size_px // scale
        degraded = augment(self._degraded.crop(*position, self._domain.to_colors), patches.transform)
        clean = self._clean.crop(patches.picture, patches.top, patches.left, patch_px, self._domain.to_colors)
        top, left = augment_corner(patches.top - top, patches.left - left, patches.transform, size_px - patch_px)
        encoded = crop_inner(self._domain.encode(degraded), top, left, patch_px)
        return encoded, augment(clean, patches.transform)


class _FromRaw:
    """Packed mosaics, multiplied by their exposure ratios; they are augmented after packing."""

    def __init__(self, recipe: Recipe, store: Store, patch_px: int, placement: Placement) -> None:
        assert develops_mosaic(recipe.domain)
        self._domain, self._store = recipe.domain, store
        self._corners = [_find_corner(recipe.domain, store, i) for i in range(len(store))]
        self.window = _build_window(recipe, patch_px, Footprint(grid_px=len(recipe.domain.pattern)))
        self._mosaics = Pictures(lambda i: self._mosaic(i).samples[..., None], range(len(store)), placement)
        keys = list(zip(store.scenes, self._corners, strict=True))
        self._target = Pictures(self._crop_target, keys, placement)
        self.sizes = self._mosaics.sizes
        mosaics = map(self._mosaic, range(len(store)))
        levels = [(*_stack_levels(mosaic), recipe.domain.gains(mosaic)) for mosaic in mosaics]
        self._black, self._white, self._ratio, self._gains = (
            torch.stack(values).to(placement.device) for values in zip(*levels, strict=True)
        )

    def make(self, patches: Patches, seeds: Sequence[int]) -> Batch:
        top, left = self.window.start(patches.top), self.window.start(patches.left)
        encoded = self._domain.encode(self._to_linear(patches.picture, top, left))
        patch_px, to_colors = self.window.patch_px, self._domain.to_colors
        degraded = crop_inner(encoded, patches.top - top, patches.left - left, patch_px, self._domain.rate)
        target = self._target.crop(patches.picture, patches.top, patches.left, patch_px, to_colors)
        return augment(degraded, patches.transform), augment(target, patches.transform)

    def _to_linear(self, picture: Numbers, top: Numbers, left: Numbers) -> Tensor:
        """Like `Mosaic.to_tensor`, times the exposure ratio and the gains of the filters."""
        ((_, samples),) = self._mosaics.samples(picture, top, left, self.window.size_px)
        which = devices.to_device(torch.from_numpy(picture), samples.device)
        num_blocks = self.window.size_px // self.window.grid_px
        black = self._black[which].repeat(1, 1, num_blocks, num_blocks)
        bright = (samples.float() - black).clamp(min=0) / (self._white[which] - black) * self._ratio[which]
        return apply_gains(bright, self._gains[which][:, 0], self._domain.pattern)

    def _mosaic(self, i: int) -> Mosaic:
        return self._domain.accept(self._store.mosaic(i))

    def _crop_target(self, i: int) -> Samples:
        """The part of the target that corresponds to the aligned mosaic."""
        (down, right), mosaic = self._corners[i], self._mosaic(i)
        return self._store.target(i)[down : down + mosaic.height, right : right + mosaic.width]


def _format_pictures(count: int, height: int, width: int) -> str:
    return f"{format_count(count, 'picture')} of {width} x {height} px"


def _find_corner(domain: DevelopingDomain, store: Store, i: int) -> tuple[int, int]:
    mosaic, (height, width) = store.mosaic(i), store.sizes[i]
    if (mosaic.height, mosaic.width) != (height, width):
        raise DataError(
            f"{store.names[i]} is {mosaic.width} x {mosaic.height} px and its target {width} x {height} px"
        )
    corner = find_phase(mosaic.pattern, domain.pattern)
    if corner is None:
        raise DataError(
            f"{store.names[i]} has the filters {'/'.join(mosaic.pattern)}; "
            f"this recipe needs {'/'.join(domain.pattern)}"
        )
    return corner


def _stack_levels(mosaic: Mosaic) -> tuple[Tensor, Tensor, Tensor]:
    """Black levels of the repeating block, (1, period, period); white level and exposure ratio, (1, 1, 1)."""
    white, ratio = (torch.full((1, 1, 1), float(number)) for number in (mosaic.white_level, mosaic.exposure_ratio))
    return torch.tensor(mosaic.site_black_levels)[None], white, ratio


def _crop_to_cells(picture: Samples, cell_px: int) -> Samples:
    height, width = (size // cell_px * cell_px for size in picture.shape[:2])
    return picture[:height, :width]
