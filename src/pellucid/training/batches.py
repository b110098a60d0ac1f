"""Batches: what a network sees and what it should make of it, out of a store.

    store -> crops -> turned -> degraded -> as the network takes them

A batch is a pure function of the seed and the step. It is made of shards, each a pure function of the seed,
the step and the shard's number, and each process of a run makes its share of them: one process and eight see
the same batch, noise included. Neither prefetching nor where the pictures lie changes a batch. Another type of
device draws other noise, and rounds differently.

What is drawn, and after whom:

- clean pictures: any place that a patch can have is as likely as any other, which favors large pictures as
  the dense rasters of patches do that SRCNN and DnCNN were trained on;
- pairs and RAW: one scene after another, in an order drawn anew for each round through all of them (Cho et al.
  2021; Chen et al. 2018, who also draw one of a scene's exposures), and a crop anywhere in it;
- the turn: one of two, or of eight, as likely each.
"""

from collections.abc import Callable, Iterable, Sequence
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
NUM_TURNS = {"none": 1, "mirror": 2, "eight": 8}

CROPS, NOISE, ORDER = range(3)  # what a number is drawn for

Batch = tuple[Tensor, Tensor]


class Batches:
    """The batches of one run.

    seed: from 0 up. device: where pictures are degraded and batches lie; the network's.
    rank, world_size: which of how many processes this is.
    batch_size: of all processes together, patch_px: side of a target; None is the recipe's.
    prefetch: how many batches are made ahead, in a thread. resident: whether all pictures are held on the
        device; None holds them on an accelerator when they fill no more than a quarter of its free memory.

    Of a store of pairs or RAW, a recipe with a degradation of its own takes the targets only. Raises DataError
    when the store is not what the recipe learns from or too small, RecipeError when sizes do not go together.
    """

    batch_size: int
    """Of all processes together."""
    num_shards: int
    """Equal parts of a batch; what `world_size` must divide."""
    left_out: list[str]
    """Pictures that are smaller than a patch."""
    waited_s: float
    """How long `batch` has kept its caller waiting, all calls together."""

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
            raise RecipeError(f"batch_size={batch_size}: at least 1 is needed")
        self.num_shards = gcd(self.batch_size, MAX_SHARDS)
        self._shards = _share(self.num_shards, rank, world_size)
        self._seed, self._num_turns = seed, NUM_TURNS[recipe.augmentation]
        self.device = torch.device(device)
        held = Placement(self.device, resident)
        self._maker = _maker(recipe, store)(recipe, store, recipe.patch_px if patch_px is None else patch_px, held)
        scenes = None if recipe.degradation is not None else store.scenes
        self._places = _Places(self._maker.sizes, self._maker.window, scenes)
        self.left_out = [store.names[i] for i in self._places.left_out]
        self.waited_s = 0.0
        self._prefetch = prefetch
        self._ahead: dict[int, Future[Batch]] = {}
        self._thread = ThreadPoolExecutor(1, "batches")
        # On a stream of its own, a batch that must wait for the device does not wait for the network as well.
        self._stream = None if self.device.type in ("cpu", "mps") else torch.Stream(self.device)

    def batch(self, step: int) -> Batch:
        """This process's part of batch number `step`, from 0: (degraded, target) as the loss takes them.

        Both (N, C, H, W) float32 on the device, N of all processes together being the batch size.
        """
        started = perf_counter()
        self._look_ahead(range(step, step + 1 + self._prefetch))
        batch = self._ahead.pop(step).result()
        if self._stream is not None:
            for planes in batch:  # or the next batch could take their place while the network still reads
                planes.record_stream(torch.accelerator.current_stream(self.device))
        self.waited_s += perf_counter() - started
        return batch

    def close(self) -> None:
        """Stop making batches ahead."""
        self._thread.shutdown(cancel_futures=True)

    def _look_ahead(self, steps: Iterable[int]) -> None:
        self._ahead = {step: self._ahead.get(step) or self._thread.submit(self._make, step) for step in steps}

    def _make(self, step: int) -> Batch:
        crops = _joined([self._draw(step, shard) for shard in self._shards])
        seeds = [int(_chance(self._seed, NOISE, step, shard).integers(2**63)) for shard in self._shards]
        with self._stream or nullcontext():
            degraded, target = (planes.contiguous() for planes in self._maker.make(crops, seeds))
        if self._stream is not None:
            self._stream.synchronize()
        return degraded, target

    def _draw(self, step: int, shard: int) -> "Crops":
        chance, count = _chance(self._seed, CROPS, step, shard), self.batch_size // self.num_shards
        first = step * self.batch_size + shard * count
        pictures = self._places.pick(range(first, first + count), self._seed, chance)
        top, left = self._places.within(pictures, chance)
        return Crops(pictures, top, left, chance.integers(self._num_turns, size=count))


@dataclass(frozen=True)
class Crops:
    """Patches, one an entry: of which picture, where its corner is, and how it is turned."""

    picture: Numbers
    top: Numbers
    left: Numbers
    turn: Numbers
    """The sum of 1 (mirrored left to right), 2 (top to bottom, before that) and 4 (transposed, first of all)."""


@dataclass(frozen=True)
class Window:
    """What is cut around a patch, so that it is degraded as a part of the whole picture is.

    patch_px: side of the patch. step_px: its corner lies on multiples of this.
    """

    patch_px: int
    step_px: int
    grid_px: int
    reach_px: int

    @property
    def size_px(self) -> int:
        """Side of the window, whole cells of the grid, wherever in its cell the patch begins."""
        slack = self.grid_px - gcd(self.grid_px, self.step_px, self.reach_px)
        return -(-(slack + 2 * self.reach_px + self.patch_px) // self.grid_px) * self.grid_px

    def start(self, patch: Numbers) -> Numbers:
        """Where the window begins; before the picture's edge if the patch is near."""
        return (patch - self.reach_px) // self.grid_px * self.grid_px


class _Places:
    """Where patches can be, in pictures of these sizes, and the drawing of them."""

    def __init__(self, sizes: Sequence[Size], window: Window, scenes: Sequence[int] | None) -> None:
        self._step_px = window.step_px
        spare_px = np.array(sizes, np.int64) - window.patch_px
        self._counts = np.maximum(spare_px // window.step_px + 1, 0)  # rows and columns of places
        per_picture = self._counts.prod(axis=1)
        self._ends = per_picture.cumsum()
        self.left_out: list[int] = np.flatnonzero(per_picture == 0).tolist()
        if not self._ends[-1]:
            height, width = max(sizes, key=min)
            raise DataError(
                f"no picture holds a patch of {window.patch_px} x {window.patch_px} px; "
                f"the largest is {width} x {height} px"
            )
        self._scenes = None if scenes is None else _grouped(scenes, per_picture > 0)

    def pick(self, samples: range, seed: int, chance: np.random.Generator) -> Numbers:
        """The picture of each sample, numbered through the run."""
        if self._scenes is None:
            return np.searchsorted(self._ends, chance.integers(self._ends[-1], size=len(samples)), side="right")
        rounds = (divmod(sample, len(self._scenes)) for sample in samples)
        scenes = [self._scenes[_order(seed, turn, len(self._scenes))[place]] for turn, place in rounds]
        return np.array([chance.choice(scene) for scene in scenes])

    def within(self, pictures: Numbers, chance: np.random.Generator) -> tuple[Numbers, Numbers]:
        """Top and left of a patch in each."""
        drawn = chance.integers(self._counts[pictures]) * self._step_px
        return drawn[:, 0], drawn[:, 1]


def _grouped(scenes: Sequence[int], usable: NDArray[np.bool_]) -> list[Numbers]:
    """The usable pictures of each scene that has any."""
    members: dict[int, list[int]] = {}
    for i in np.flatnonzero(usable).tolist():
        members.setdefault(scenes[i], []).append(i)
    return [np.array(pictures) for pictures in members.values()]


@lru_cache(maxsize=4)
def _order(seed: int, turn: int, count: int) -> Numbers:
    return _chance(seed, ORDER, turn).permutation(count)


def _chance(seed: int, *purpose: int) -> np.random.Generator:
    """Numbers for one purpose. SeedSequence hashes: neighboring seeds, steps and shards share nothing."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=purpose))


def _joined(shards: Sequence[Crops]) -> Crops:
    def each(part: Callable[[Crops], Numbers]) -> Numbers:
        return np.concatenate([part(shard) for shard in shards])

    return Crops(each(lambda c: c.picture), each(lambda c: c.top), each(lambda c: c.left), each(lambda c: c.turn))


def _share(num_shards: int, rank: int, world_size: int) -> range:
    if num_shards % world_size:
        raise RecipeError(
            f"{world_size} processes; a batch of this size is made in {num_shards} equal parts, which that many "
            f"cannot share: take a number of processes that divides it, or a batch size of a multiple of 8"
        )
    count = num_shards // world_size
    return range(rank * count, (rank + 1) * count)


class _Maker(Protocol):
    """Makes batches of one kind of store, out of crops."""

    sizes: list[Size]
    """Height and width of what can be cut, by picture."""
    window: Window

    def __init__(self, recipe: Recipe, store: Store, patch_px: int, held: Placement) -> None: ...

    def make(self, crops: Crops, seeds: Sequence[int]) -> Batch:
        """(degraded, target). seeds: for the noise of each shard."""


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
    """seen: around a patch by the degradation and, in what it leaves, by the domain."""
    rate = recipe.domain.rate / seen.scale
    if rate > 1:
        raise RecipeError(
            f"{recipe.name} enlarges by {rate} what its training does not shrink; train it without a scale"
        )
    if patch_px < 1 or patch_px % rate.denominator:
        raise RecipeError(f"patch_px={patch_px}: {recipe.name} needs a multiple of {rate.denominator}")
    cells_seen = recipe.domain.halo_px(0) // recipe.domain.rate.denominator  # of packed mosaics: none but its own
    reach_px = seen.reach_px + seen.scale * cells_seen
    return Window(patch_px, rate.denominator, seen.grid_px, reach_px)


class _FromClean:
    """Clean patches, degraded here."""

    def __init__(self, recipe: Recipe, store: Store, patch_px: int, held: Placement) -> None:
        assert recipe.degradation is not None
        self._degradation, self._domain, self._device = recipe.degradation, recipe.domain, held.device
        seen = footprint(recipe.degradation)
        self._rate = recipe.domain.rate / seen.scale
        self.window = _window(recipe, patch_px, seen)
        self._clean = Pictures(lambda i: _whole_cells(store.target(i), seen.scale), store.scenes, held)
        self.sizes = self._clean.sizes

    def make(self, crops: Crops, seeds: Sequence[int]) -> Batch:
        size_px, patch_px = self.window.size_px, self.window.patch_px
        top, left = self.window.start(crops.top), self.window.start(crops.left)
        planes = self._clean.cut(crops.picture, top, left, size_px, self._domain.to_colors)
        clean = augment(planes, crops.turn)
        seen = self._domain.encode(self._degrade(clean, seeds))
        top, left = augment_corner(crops.top - top, crops.left - left, crops.turn, size_px - patch_px)
        return crop_inner(seen, top, left, patch_px, self._rate), crop_inner(clean, top, left, patch_px)

    def _degrade(self, clean: Tensor, seeds: Sequence[int]) -> Tensor:
        if not draws(self._degradation):
            return self._degradation(clean, torch.Generator(self._device))
        shards = clean.split(len(clean) // len(seeds))
        generators = [torch.Generator(self._device).manual_seed(seed) for seed in seeds]
        return torch.cat([self._degradation(*pair) for pair in zip(shards, generators, strict=True)])


class _FromPairs:
    """Degraded and clean patches from the same place."""

    def __init__(self, recipe: Recipe, store: Store, patch_px: int, held: Placement) -> None:
        self._domain = recipe.domain
        self.window = _window(recipe, patch_px, Footprint())
        self._degraded = Pictures(store.degraded, range(len(store)), held)
        self._clean = Pictures(store.target, store.scenes, held)
        self.sizes = self._clean.sizes
        for name, (height, width), given in zip(store.names, self.sizes, self._degraded.sizes, strict=True):
            if given != (height, width):
                raise DataError(f"{name} is {given[1]} x {given[0]} px and its target {width} x {height} px")

    def make(self, crops: Crops, seeds: Sequence[int]) -> Batch:
        place = crops.picture, crops.top, crops.left, self.window.patch_px, self._domain.to_colors
        degraded = augment(self._degraded.cut(*place), crops.turn)
        return self._domain.encode(degraded), augment(self._clean.cut(*place), crops.turn)


class _FromRaw:
    """Packed mosaics, as bright as their long exposures, turned once they are packed."""

    def __init__(self, recipe: Recipe, store: Store, patch_px: int, held: Placement) -> None:
        assert takes_mosaic(recipe.domain)
        self._domain, self._store = recipe.domain, store
        self._corners = [_corner(recipe.domain, store, i) for i in range(len(store))]
        self.window = _window(recipe, patch_px, Footprint(grid_px=len(recipe.domain.pattern)))
        self._mosaics = Pictures(lambda i: self._mosaic(i).samples[..., None], range(len(store)), held)
        covered = list(zip(store.scenes, self._corners, strict=True))
        self._target = Pictures(self._covered, covered, held)
        self.sizes = self._mosaics.sizes
        facts = [(*_facts(mosaic), recipe.domain.gains(mosaic)) for mosaic in map(self._mosaic, range(len(store)))]
        self._black, self._white, self._ratio, self._gains = (
            torch.stack(fact).to(held.device) for fact in zip(*facts, strict=True)
        )

    def make(self, crops: Crops, seeds: Sequence[int]) -> Batch:
        top, left = self.window.start(crops.top), self.window.start(crops.left)
        seen = self._domain.encode(self._linear(crops.picture, top, left))
        patch_px, to_colors = self.window.patch_px, self._domain.to_colors
        degraded = crop_inner(seen, crops.top - top, crops.left - left, patch_px, self._domain.rate)
        target = self._target.cut(crops.picture, crops.top, crops.left, patch_px, to_colors)
        return augment(degraded, crops.turn), augment(target, crops.turn)

    def _linear(self, picture: Numbers, top: Numbers, left: Numbers) -> Tensor:
        """As `Mosaic.to_tensor`, times the exposure ratio and the gains of the filters."""
        ((_, samples),) = self._mosaics.samples(picture, top, left, self.window.size_px)
        which = torch.from_numpy(picture).to(samples.device)
        num_blocks = self.window.size_px // self.window.grid_px
        black = self._black[which].repeat(1, 1, num_blocks, num_blocks)
        bright = (samples.float() - black).clamp(min=0) / (self._white[which] - black) * self._ratio[which]
        return apply_gains(bright, self._gains[which][:, 0], self._domain.pattern)

    def _mosaic(self, i: int) -> Mosaic:
        return self._domain.accept(self._store.mosaic(i))

    def _covered(self, i: int) -> Samples:
        """The part of the target that the aligned mosaic covers."""
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


def _facts(mosaic: Mosaic) -> tuple[Tensor, Tensor, Tensor]:
    """Black level of one block, white level and exposure ratio, (1, H, W) each."""
    white, ratio = (torch.full((1, 1, 1), float(number)) for number in (mosaic.white_level, mosaic.exposure_ratio))
    return torch.tensor(mosaic.site_black_levels)[None], white, ratio


def _whole_cells(picture: Samples, cell_px: int) -> Samples:
    height, width = (size // cell_px * cell_px for size in picture.shape[:2])
    return picture[:height, :width]
