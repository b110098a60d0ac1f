"""Batches of training patches, from a store.

    store -> crops -> augmented -> degraded -> encoded for the network

A batch is a pure function of the seed and the step. It consists of shards, each a pure function of the seed, the
step and the shard's number, and each process of a run makes its part of them: one process and eight see the same
batch, including its noise. Neither prefetching nor where the pictures are kept changes a batch. On another type of
device, the noise is different, and so is rounding.

If several stores are mixed, each shard consists of patches of one of them.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from math import gcd
from time import perf_counter

import numpy as np
import torch

from pellucid.data.store import Store
from pellucid.errors import DataError, NotEnoughMemoryError, PellucidError, RecipeError
from pellucid.recipes.recipe import Recipe
from pellucid.system import memory
from pellucid.training.crops import RESIDENT_SHARE, Placement
from pellucid.training.mixing import MixedStore, Shares
from pellucid.training.patches import Batch, PatchMaker, build_maker, learns_from_pairs
from pellucid.training.positions import CROPS, NOISE, NUM_TRANSFORMS, SOURCES, Patches, Positions, build_rng

MAX_SHARDS = 8
"""Most parts of a batch, and so most processes of a run."""


class Batches:
    """The batches of one run.

    mixed: more stores, each of which a share of the patches is from; the rest is from `store`.
    seed: 0 or more. device: where pictures are degraded and batches are; that of the network.
    rank, world_size: number of this process, and of all processes.
    batch_size: of all processes together; patch_px: side of a target patch; None means the recipe's.
    prefetch: how many batches a thread makes ahead. resident: whether all pictures are kept on the device; None
        keeps them on an accelerator if they fill at most a quarter of its free memory, divided by the number of
        stores.

    The recipe's `learn_from` decides whether it learns from the pairs of a store or degrades its targets. Raises
    DataError if it cannot learn from a store, if all its pictures are too small, or if the patches of two stores
    have different shapes; RecipeError if sizes do not fit; NotEnoughMemoryError if the patches of a batch alone
    need more memory than there is.
    """

    batch_size: int
    """Number of patches, of all processes together."""
    num_shards: int
    """Equal parts of a batch; a multiple of `world_size`."""
    too_small: list[str]
    """Names of the pictures that are smaller than a patch. They are not used."""
    waited_s: float
    """Total time for which `batch` has blocked."""

    def __init__(
        self,
        recipe: Recipe,
        store: Store,
        *,
        mixed: Sequence[MixedStore] = (),
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
        self._shards = _select_shards(self.num_shards, self.batch_size, rank, world_size)
        self._seed, self._num_transforms = seed, NUM_TRANSFORMS[recipe.augmentation]
        self.device = torch.device(device)
        patch_px = recipe.patch_px if patch_px is None else patch_px
        _check_memory(len(self._shards) / self.num_shards * self.batch_size, patch_px, recipe)
        placement = Placement(self.device, resident, RESIDENT_SHARE / (1 + len(mixed)))
        self._learned = [_prepare(recipe, store, patch_px, placement)]
        self._learned += [_prepare_mixed(recipe, source, patch_px, placement) for source in mixed]
        self._shares = Shares([source.share for source in mixed])
        if mixed:
            self._check_shapes(["the data", *(source.name for source in mixed)])
        self.too_small = [name for learned in self._learned for name in learned.too_small]
        self.waited_s = 0.0
        self._prefetch = prefetch
        self._ahead: dict[int, Future[tuple[Batch, torch.Event | None]]] = {}
        self._thread = ThreadPoolExecutor(1, "batches")
        # On its own stream, making a batch does not wait for the network's kernels.
        self._stream = None if self.device.type in ("cpu", "mps") else torch.Stream(self.device)

    def batch(self, step: int) -> Batch:
        """This process's part of batch number `step` (0 or more): (degraded, target) for the loss.

        Both are (N, C, H, W) float32 on the device, contiguous; N * `world_size` is the batch size.
        """
        started = perf_counter()
        self._make_ahead(range(step, step + 1 + self._prefetch))
        batch, is_made = self._ahead.pop(step).result()
        if is_made is not None:
            is_made.synchronize()
            for planes in batch:  # so that their memory is not reused while the network still reads it
                planes.record_stream(torch.accelerator.current_stream(self.device))
        self.waited_s += perf_counter() - started
        return batch

    def close(self) -> None:
        """Stop the thread that makes batches ahead."""
        self._thread.shutdown(cancel_futures=True)

    def _make_ahead(self, steps: Iterable[int]) -> None:
        self._ahead = {step: self._ahead.get(step) or self._thread.submit(self._make, step) for step in steps}

    def _make(self, step: int) -> tuple[Batch, torch.Event | None]:
        """The batch, and the event after which the device has made it: the thread does not wait for it."""
        shards = [self._draw(step, shard) for shard in self._shards]
        with self._stream or nullcontext():
            batch = self._make_shards(shards)
            is_made = None if self._stream is None else self._stream.record_event()
        return batch, is_made

    def _make_shards(self, shards: "Sequence[_Shard]") -> Batch:
        """The patches of all shards, in their order. Those of one store are made together."""
        parts: dict[int, Batch] = {}
        for source in sorted({shard.source for shard in shards}):
            members = [i for i, shard in enumerate(shards) if shard.source == source]
            patches = _concatenate([shards[i].patches for i in members])
            made = self._learned[source].maker.make(patches, [shards[i].seed for i in members])
            if len(members) == len(shards):
                return made[0].contiguous(), made[1].contiguous()
            parts |= zip(members, zip(*(planes.chunk(len(members)) for planes in made), strict=True), strict=True)
        degraded, target = (torch.cat(planes) for planes in zip(*(parts[i] for i in sorted(parts)), strict=True))
        return degraded.contiguous(), target.contiguous()

    def _draw(self, step: int, shard: int) -> "_Shard":
        rng, count = build_rng(self._seed, CROPS, step, shard), self.batch_size // self.num_shards
        source, number = self._assign(step, shard)
        positions, first = self._learned[source].positions, number * count
        pictures = positions.draw_pictures(range(first, first + count), self._seed, rng)
        top, left = positions.draw_corners(pictures, rng)
        patches = Patches(pictures, top, left, rng.integers(self._num_transforms, size=count))
        return _Shard(source, patches, int(build_rng(self._seed, NOISE, step, shard).integers(2**63)))

    def _assign(self, step: int, shard: int) -> tuple[int, int]:
        """The store of a shard, and the number of the shard among all those of this store."""
        if len(self._learned) == 1:
            return 0, step * self.num_shards + shard
        # In random order, so that no process gets the same store in every step.
        order = build_rng(self._seed, SOURCES, step).permutation(self.num_shards)
        return self._shares.deal(step * self.num_shards + int(order[shard]))

    def _check_shapes(self, names: Sequence[str]) -> None:
        """Raise DataError if patches of the mixed stores cannot be in one batch."""
        first, *others = (_get_shapes(learned, self._seed) for learned in self._learned)
        for name, shapes in zip(names[1:], others, strict=True):
            if shapes != first:
                raise DataError(
                    f"{name} results in patches of {_format_shapes(shapes)}, and {names[0]} in patches of "
                    f"{_format_shapes(first)}, as (degraded, target)",
                    hint="mix only stores with patches of the same shape",
                )


@dataclass(frozen=True)
class _Learned:
    """A store as it is learned from. too_small: names of its pictures that are smaller than a patch."""

    maker: PatchMaker
    positions: Positions
    too_small: list[str]


@dataclass(frozen=True)
class _Shard:
    """A part of a batch. source: number of its store. seed: of its noise."""

    source: int
    patches: Patches
    seed: int


def _prepare(recipe: Recipe, store: Store, patch_px: int, placement: Placement) -> _Learned:
    maker = build_maker(recipe, store, patch_px, placement)
    scenes = store.scenes if learns_from_pairs(recipe, store) else None
    positions = Positions(maker.sizes, maker.window, scenes)
    return _Learned(maker, positions, [store.names[i] for i in positions.too_small])


def _prepare_mixed(recipe: Recipe, source: MixedStore, patch_px: int, placement: Placement) -> _Learned:
    """Like `_prepare`; errors name the store."""
    try:
        return _prepare(recipe, source.store, patch_px, placement)
    except PellucidError as error:
        about = error.about(source.name)
        if "{target}" in about.hint:  # there is none for a mixed store
            about.hint = "mix a store of pairs; 'pellucid prepare pairs' makes one"
        raise about from error


def _get_shapes(learned: _Learned, seed: int) -> list[tuple[int, ...]]:
    """Shapes of a degraded patch and its target."""
    rng = build_rng(seed, CROPS)
    pictures = learned.positions.draw_pictures(range(1), seed, rng)
    patches = Patches(pictures, *learned.positions.draw_corners(pictures, rng), np.zeros(1, np.int64))
    return [tuple(planes.shape[1:]) for planes in learned.maker.make(patches, [0])]


def _format_shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(" x ".join(map(str, shape)) for shape in shapes)


def _concatenate(shards: Sequence[Patches]) -> Patches:
    return Patches(*map(np.concatenate, zip(*(vars(shard).values() for shard in shards), strict=True)))


def _select_shards(num_shards: int, batch_size: int, rank: int, world_size: int) -> range:
    """Those of this process. Raises RecipeError if the processes cannot share the batch equally."""
    if MAX_SHARDS % world_size:
        raise RecipeError(f"{world_size} processes cannot share a batch equally", hint="use 2, 4 or 8 processes")
    if num_shards % world_size:
        larger = -(-batch_size // world_size) * world_size
        raise RecipeError(
            f"{world_size} processes cannot share a batch of {batch_size} equally",
            hint=f"use a batch_size that is a multiple of {world_size}, e.g. batch_size={larger}",
        )
    count = num_shards // world_size
    return range(rank * count, (rank + 1) * count)


def _check_memory(num_patches: float, patch_px: int, recipe: Recipe) -> None:
    """Raise NotEnoughMemoryError now, instead of after minutes of swapping or by being killed."""
    needed_bytes = int(num_patches * patch_px**2 * recipe.domain.num_planes * 4)  # float32, of the targets alone
    free_bytes = memory.free_bytes()
    if needed_bytes > free_bytes:
        raise NotEnoughMemoryError(
            f"the patches of a batch need {needed_bytes / 1e9:,.1f} GB; {free_bytes / 1e9:.1f} GB are free",
            hint="lower batch_size= or patch_px=",
        )
