"""Batches of training patches, from a store.

    store -> crops -> augmented -> degraded -> encoded for the network

A batch is a pure function of the seed and the step. It consists of shards, each a pure function of the seed, the
step and the shard's number, and each process of a run makes its part of them: one process and eight see the same
batch, noise included. Neither prefetching nor where the pictures are kept changes a batch. Another type of device
draws other noise, and rounds differently.

How patches are drawn:

- clean pictures: all positions of a patch in all pictures are equally likely. This favors large pictures, like
  the dense grids of patches on which SRCNN and DnCNN were trained;
- pairs and RAW: one scene after another, in a new random order for each round through all of them (Cho et al.
  2021; Chen et al. 2018, who also draw one of the exposures of a scene), and a random crop of it;
- augmentation: one of two or of eight dihedral transforms, equally likely.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from time import perf_counter
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.data.store import Store
from pellucid.degradations.degradation import Footprint, draws, footprint
from pellucid.domains import MosaicDomain, takes_mosaic
from pellucid.errors import DataError, RecipeError
from pellucid.pictures.packing import apply_gains, find_phase
from pellucid.pictures.picture import Mosaic, Samples
from pellucid.recipes.recipe import Recipe
from pellucid.training.crops import Numbers, Pictures, Placement, Size, augment, augment_corner, crop_inner

MAX_SHARDS = 8
NUM_TRANSFORMS = {"none": 1, "mirror": 2, "eight": 8}

CROPS, NOISE, ORDER = range(3)  # what random numbers are drawn for

Batch = tuple[Tensor, Tensor]


class Batches:
    """The batches of one run.

    seed: 0 or more. device: where pictures are degraded and batches are; that of the network.
    rank, world_size: number of this process, and of all processes.
    batch_size: of all processes together; patch_px: side of a target patch; None means the recipe's.
    prefetch: how many batches a thread makes ahead. resident: whether all pictures are kept on the device; None
        keeps them on an accelerator if they fill at most a quarter of its free memory.

    If the recipe degrades pictures itself, only the targets of a store of pairs or RAW are used. Raises DataError
    if the recipe cannot learn from the store, or if all pictures are too small; RecipeError if sizes do not fit.
    """

    batch_size: int
    """Of all processes together."""
    num_shards: int
    """Equal parts of a batch; a multiple of `world_size`."""
    too_small: list[str]
    """Pictures that are smaller than a patch, which are not used."""
    waited_s: float
    """Total time for which `batch` has blocked."""

    def __init__(
        self,
        recipe: Recipe,
        store: Store,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
        batch_size: int | None = None,
        patch_px: int | None = None,
        prefetch: int = 2,
        resident: bool | None = None,
    ) -> None:
        self.batch_size = recipe.batch_size if batch_size is None else batch_size
        if self.batch_size < 1:
            raise RecipeError(f"batch_size={batch_size} must be at least 1")
        self.num_shards = gcd(self.batch_size, MAX_SHARDS)
        self._shards = _shards_of(self.num_shards, rank, world_size)
        self._seed, self._num_transforms = seed, NUM_TRANSFORMS[recipe.augmentation]
        self.device = torch.device(device)
        patch_px, placement = recipe.patch_px if patch_px is None else patch_px, Placement(self.device, resident)
        self._maker = _maker(recipe, store)(recipe, store, patch_px, placement)
        scenes = None if recipe.degradation is not None else store.scenes
        self._positions = _Positions(self._maker.sizes, self._maker.window, scenes)
        self.too_small = [store.names[i] for i in self._positions.too_small]
        self.waited_s = 0.0
        self._prefetch = prefetch
        self._ahead: dict[int, Future[Batch]] = {}
        self._thread = ThreadPoolExecutor(1, "batches")
        # On its own stream, making a batch does not wait for the network's kernels.
        self._stream = None if self.device.type in ("cpu", "mps") else torch.Stream(self.device)

    def batch(self, step: int) -> Batch:
        """This process's part of batch number `step` (0 or more): (degraded, target) for the loss.

        Both are (N, C, H, W) float32 on the device, contiguous; N * `world_size` is the batch size.
        """
        started = perf_counter()
        self._make_ahead(range(step, step + 1 + self._prefetch))
        batch = self._ahead.pop(step).result()
        if self._stream is not None:
            for planes in batch:  # so that their memory is not reused while the network still reads it
                planes.record_stream(torch.accelerator.current_stream(self.device))
        self.waited_s += perf_counter() - started
        return batch

    def close(self) -> None:
        """Stop the thread that makes batches ahead."""
        self._thread.shutdown(cancel_futures=True)

    def _make_ahead(self, steps: Iterable[int]) -> None:
        self._ahead = {step: self._ahead.get(step) or self._thread.submit(self._make, step) for step in steps}

    def _make(self, step: int) -> Batch:
        crops = _concatenate([self._draw(step, shard) for shard in self._shards])
        seeds = [int(_rng(self._seed, NOISE, step, shard).integers(2**63)) for shard in self._shards]
        with self._stream or nullcontext():
            degraded, target = (planes.contiguous() for planes in self._maker.make(crops, seeds))
        if self._stream is not None:
            self._stream.synchronize()
        return degraded, target

    def _draw(self, step: int, shard: int) -> "Crops":
        rng, count = _rng(self._seed, CROPS, step, shard), self.batch_size // self.num_shards
        first = step * self.batch_size + shard * count
        pictures = self._positions.draw_pictures(range(first, first + count), self._seed, rng)
        top, left = self._positions.draw_corners(pictures, rng)
        return Crops(pictures, top, left, rng.integers(self._num_transforms, size=count))


@dataclass(frozen=True)
class Crops:
    """Patches, one in each entry of the arrays: picture, corner, and how it is augmented."""

    picture: Numbers
    top: Numbers
    left: Numbers
    transform: Numbers
    """Dihedral transform, see `crops.augment`."""


@dataclass(frozen=True)
class Window:
    """The crop around a patch that is needed to degrade it like a part of the whole picture.

    patch_px: side of the patch. step_px: its corner is at multiples of this. grid_px, reach_px: the footprint of
    the degradation and the domain: cell of their grid, and how many pixels away they see.
    """

    patch_px: int
    step_px: int
    grid_px: int
    reach_px: int

    @property
    def size_px(self) -> int:
        """Side of the window: whole cells of the grid, for any position of the patch in its cell."""
        slack = self.grid_px - gcd(self.grid_px, self.step_px, self.reach_px)
        return -(-(slack + 2 * self.reach_px + self.patch_px) // self.grid_px) * self.grid_px

    def start(self, patch: Numbers) -> Numbers:
        """Where the window starts; negative if the patch is near the edge of the picture."""
        return (patch - self.reach_px) // self.grid_px * self.grid_px


class _Positions:
    """Draws patches from all possible positions in pictures of these sizes."""

    def __init__(self, sizes: Sequence[Size], window: Window, scenes: Sequence[int] | None) -> None:
        self._step_px = window.step_px
        spare_px = np.array(sizes, np.int64) - window.patch_px
        self._counts = np.maximum(spare_px // window.step_px + 1, 0)  # rows and columns of positions
        per_picture = self._counts.prod(axis=1)
        self._ends = per_picture.cumsum()
        self.too_small: list[int] = np.flatnonzero(per_picture == 0).tolist()
        if not self._ends[-1]:
            height, width = max(sizes, key=min)
            raise DataError(
                f"no picture contains a patch of {window.patch_px} x {window.patch_px} px; "
                f"the largest is {width} x {height} px"
            )
        self._scenes = None if scenes is None else _group_by_scene(scenes, per_picture > 0)

    def draw_pictures(self, samples: range, seed: int, rng: np.random.Generator) -> Numbers:
        """A picture for each sample; samples are numbered through the whole run."""
        if self._scenes is None:
            return np.searchsorted(self._ends, rng.integers(self._ends[-1], size=len(samples)), side="right")
        num_scenes = len(self._scenes)
        rounds = (divmod(sample, num_scenes) for sample in samples)
        scenes = [self._scenes[_scene_order(seed, number, num_scenes)[i]] for number, i in rounds]
        return np.array([rng.choice(scene) for scene in scenes])

    def draw_corners(self, pictures: Numbers, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
        """Top and left of a patch in each picture."""
        corners = rng.integers(self._counts[pictures]) * self._step_px
        return corners[:, 0], corners[:, 1]


def _group_by_scene(scenes: Sequence[int], usable: NDArray[np.bool_]) -> list[Numbers]:
    """The usable pictures of each scene that has any."""
    members: dict[int, list[int]] = {}
    for i in np.flatnonzero(usable).tolist():
        members.setdefault(scenes[i], []).append(i)
    return [np.array(pictures) for pictures in members.values()]


@lru_cache(maxsize=4)
def _scene_order(seed: int, round_number: int, count: int) -> Numbers:
    return _rng(seed, ORDER, round_number).permutation(count)


def _rng(seed: int, *purpose: int) -> np.random.Generator:
    """A generator for one purpose. SeedSequence hashes, so neighboring seeds, steps and shards are independent."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=purpose))


def _concatenate(shards: Sequence[Crops]) -> Crops:
    return Crops(*map(np.concatenate, zip(*(vars(shard).values() for shard in shards), strict=True)))


def _shards_of(num_shards: int, rank: int, world_size: int) -> range:
    if num_shards % world_size:
        raise RecipeError(
            f"{world_size} processes cannot share the {num_shards} equal parts of a batch of this size",
            hint="use a number of processes that divides it, or a batch_size that is a multiple of 8",
        )
    count = num_shards // world_size
    return range(rank * count, (rank + 1) * count)


class _Maker(Protocol):
    """Makes batches from one kind of store."""

    sizes: list[Size]
    """Height and width that crops can use, for each picture."""
    window: Window

    def __init__(self, recipe: Recipe, store: Store, patch_px: int, placement: Placement) -> None: ...

    def make(self, crops: Crops, seeds: Sequence[int]) -> Batch:
        """(degraded, target). seeds: of the noise, one for each shard."""


def _maker(recipe: Recipe, store: Store) -> type[_Maker]:
    takes_raw = recipe.domain.takes_mosaic
    if recipe.degradation is not None:
        return _FromClean
    if store.kind == ("raw" if takes_raw else "pairs"):
        return _FromRaw if takes_raw else _FromPairs
    needed = "camera RAW files with their long exposures" if takes_raw else "pairs of degraded and clean pictures"
    given = {"clean": "clean pictures", "pairs": "pairs of pictures", "raw": "camera RAW files"}[store.kind]
    raise DataError(f"a store of {given}; {recipe.name} learns from {needed}")


def _window(recipe: Recipe, patch_px: int, seen: Footprint) -> Window:
    """seen: the footprint of the degradation; the domain sees further pixels of its result."""
    rate = recipe.domain.rate / seen.scale
    if rate > 1:
        raise RecipeError(
            f"{recipe.name} enlarges by {rate}, but its degradation does not shrink",
            hint="train it without a scale",
        )
    if patch_px < 1 or patch_px % rate.denominator:
        raise RecipeError(f"patch_px={patch_px}: {recipe.name} needs a multiple of {rate.denominator}")
    cells_seen = recipe.domain.halo_px(0) // recipe.domain.rate.denominator  # packed mosaics: only the own cell
    reach_px = seen.reach_px + seen.scale * cells_seen
    return Window(patch_px, rate.denominator, seen.grid_px, reach_px)


class _FromClean:
    """Clean patches, which are degraded here."""

    def __init__(self, recipe: Recipe, store: Store, patch_px: int, placement: Placement) -> None:
        assert recipe.degradation is not None
        self._degradation, self._domain, self._device = recipe.degradation, recipe.domain, placement.device
        seen = footprint(recipe.degradation)
        self._rate = recipe.domain.rate / seen.scale
        self.window = _window(recipe, patch_px, seen)
        self._clean = Pictures(lambda i: _crop_to_cells(store.target(i), seen.scale), store.scenes, placement)
        self.sizes = self._clean.sizes

    def make(self, crops: Crops, seeds: Sequence[int]) -> Batch:
        size_px, patch_px = self.window.size_px, self.window.patch_px
        top, left = self.window.start(crops.top), self.window.start(crops.left)
        planes = self._clean.crop(crops.picture, top, left, size_px, self._domain.to_colors)
        clean = augment(planes, crops.transform)
        seen = self._domain.encode(self._degrade(clean, seeds))
        top, left = augment_corner(crops.top - top, crops.left - left, crops.transform, size_px - patch_px)
        return crop_inner(seen, top, left, patch_px, self._rate), crop_inner(clean, top, left, patch_px)

    def _degrade(self, clean: Tensor, seeds: Sequence[int]) -> Tensor:
        if not draws(self._degradation):
            return self._degradation(clean, torch.Generator(self._device))
        shards = clean.split(len(clean) // len(seeds))
        generators = [torch.Generator(self._device).manual_seed(seed) for seed in seeds]
        return torch.cat([self._degradation(*pair) for pair in zip(shards, generators, strict=True)])


class _FromPairs:
    """Degraded and clean patches from the same position."""

    def __init__(self, recipe: Recipe, store: Store, patch_px: int, placement: Placement) -> None:
        self._domain = recipe.domain
        self.window = _window(recipe, patch_px, Footprint())
        self._degraded = Pictures(store.degraded, range(len(store)), placement)
        self._clean = Pictures(store.target, store.scenes, placement)
        self.sizes = self._clean.sizes
        for name, (height, width), given in zip(store.names, self.sizes, self._degraded.sizes, strict=True):
            if given != (height, width):
                raise DataError(f"{name} is {given[1]} x {given[0]} px and its target {width} x {height} px")

    def make(self, crops: Crops, seeds: Sequence[int]) -> Batch:
        position = crops.picture, crops.top, crops.left, self.window.patch_px, self._domain.to_colors
        degraded = augment(self._degraded.crop(*position), crops.transform)
        return self._domain.encode(degraded), augment(self._clean.crop(*position), crops.transform)


class _FromRaw:
    """Packed mosaics, as bright as their long exposures; they are augmented after packing."""

    def __init__(self, recipe: Recipe, store: Store, patch_px: int, placement: Placement) -> None:
        assert takes_mosaic(recipe.domain)
        self._domain, self._store = recipe.domain, store
        self._corners = [_corner(recipe.domain, store, i) for i in range(len(store))]
        self.window = _window(recipe, patch_px, Footprint(grid_px=len(recipe.domain.pattern)))
        self._mosaics = Pictures(lambda i: self._mosaic(i).samples[..., None], range(len(store)), placement)
        keys = list(zip(store.scenes, self._corners, strict=True))
        self._target = Pictures(self._crop_target, keys, placement)
        self.sizes = self._mosaics.sizes
        mosaics = map(self._mosaic, range(len(store)))
        levels = [(*_levels_of(mosaic), recipe.domain.gains(mosaic)) for mosaic in mosaics]
        self._black, self._white, self._ratio, self._gains = (
            torch.stack(values).to(placement.device) for values in zip(*levels, strict=True)
        )

    def make(self, crops: Crops, seeds: Sequence[int]) -> Batch:
        top, left = self.window.start(crops.top), self.window.start(crops.left)
        seen = self._domain.encode(self._to_linear(crops.picture, top, left))
        patch_px, to_colors = self.window.patch_px, self._domain.to_colors
        degraded = crop_inner(seen, crops.top - top, crops.left - left, patch_px, self._domain.rate)
        target = self._target.crop(crops.picture, crops.top, crops.left, patch_px, to_colors)
        return augment(degraded, crops.transform), augment(target, crops.transform)

    def _to_linear(self, picture: Numbers, top: Numbers, left: Numbers) -> Tensor:
        """Like `Mosaic.to_tensor`, times the exposure ratio and the gains of the filters."""
        ((_, samples),) = self._mosaics.samples(picture, top, left, self.window.size_px)
        which = torch.from_numpy(picture).to(samples.device)
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


def _corner(domain: MosaicDomain, store: Store, i: int) -> tuple[int, int]:
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


def _levels_of(mosaic: Mosaic) -> tuple[Tensor, Tensor, Tensor]:
    """Black levels of one block of the pattern, white level and exposure ratio, each (1, H, W)."""
    white, ratio = (torch.full((1, 1, 1), float(number)) for number in (mosaic.white_level, mosaic.exposure_ratio))
    return torch.tensor(mosaic.site_black_levels)[None], white, ratio


def _crop_to_cells(picture: Samples, cell_px: int) -> Samples:
    height, width = (size // cell_px * cell_px for size in picture.shape[:2])
    return picture[:height, :width]
