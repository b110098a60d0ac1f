"""Batches: functions of seed and step alone, and equal to crops of whole degraded pictures."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from device_waits import META, RefuseWaitingCopies
from pellucid.data.store import Store
from pellucid.data.store_writer import Planned, Stamp, StoreWriter
from pellucid.degradations.cameras import Sensor
from pellucid.degradations.degradation import Chain, Degradation, OneOf, makes_target
from pellucid.degradations.motion_blur import MotionBlur
from pellucid.degradations.raw_synthesis import SensorNoise, SyntheticRaw, Unprocess
from pellucid.degradations.rng import DeviceGenerator, Generator, build_generator, get_cpu_generator
from pellucid.degradations.standard import GaussianNoise, Jpeg, Rounding, Shrink, ShrinkAndEnlarge
from pellucid.domains import RGB, Domain, Gray, Luma, PackedRaw
from pellucid.errors import DataError, NotEnoughMemoryError, PictureError, RecipeError
from pellucid.pictures.camera.packing import BAYER, XTRANS, pack_bayer
from pellucid.pictures.picture import Picture
from pellucid.pictures.resize import resize
from pellucid.pictures.samples import Samples
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import find, list_names
from pellucid.training import patches
from pellucid.training.batches import Batches
from pellucid.training.crops import Placement, augment
from pellucid.training.initialization import build_network
from pellucid.training.mixing import MixedStore
from pellucid.training.patches import Batch

STAMP = Stamp(1, 2, "3")
BLACK, WHITE = 500, 16000
PATCH_PX = 18  # a multiple of 2 and 3, and small

Make = Callable[..., Batches]


def noise(height: int, width: int, channels: int = 3, dtype: str = "uint8", seed: int = 0) -> Samples:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype)


def smooth(height: int, width: int, channels: int = 3, seed: int = 0) -> Samples:
    """A picture that survives JPEG, but with no two equal patches."""
    small = torch.rand(1, channels, -(-height // 8), -(-width // 8), generator=torch.Generator().manual_seed(seed))
    large = F.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    return (large[0].permute(1, 2, 0) * 255).byte().numpy()


def clean_store(folder: Path, *pictures: Samples) -> Store:
    with StoreWriter(folder, {}) as writer:
        for i, picture in enumerate(pictures):
            writer.put(f"{i}.png", STAMP, picture)
        return writer.finish("clean", [Planned(key, key) for key in writer.records], [])


def pair_store(folder: Path, targets: Sequence[Samples], degraded: Sequence[Samples]) -> Store:
    with StoreWriter(folder, {}) as writer:
        for i, (target, picture) in enumerate(zip(targets, degraded, strict=True)):
            writer.put(f"sharp/{i}", STAMP, target)
            writer.put(f"blur/{i}", STAMP, picture)
        items = [Planned(f"blur/{i}", f"sharp/{i}", f"blur/{i}") for i in range(len(targets))]
        return writer.finish("pairs", items, [])


def raw_store(
    folder: Path, pattern: Sequence[str], num_scenes: int = 2, shorts: Sequence[float] = (100.0, 300.0)
) -> Store:
    """Each scene has a short exposure for each of these ratios; half of its pixels would exceed white."""
    facts = {"pattern": list(pattern), "black_level": BLACK, "white_level": WHITE}
    items = []
    with StoreWriter(folder, {}) as writer:
        for scene in range(num_scenes):
            writer.put(f"long/{scene}", STAMP, noise(40, 49, 3, "uint16", scene))
            for i, ratio in enumerate(shorts):
                dark = noise(40, 49, 1, "uint16", 10 * scene + i + 100)[..., 0] % int(2 * (WHITE - BLACK) / ratio)
                writer.put(f"{scene}_{i}", STAMP, dark + np.uint16(BLACK - 5), metadata=facts)
                items.append(Planned(f"{scene}_{i}", f"long/{scene}", f"{scene}_{i}", ratio))
        return writer.finish("raw", items, [])


def store_for(recipe: Recipe, folder: Path) -> Store:
    if recipe.degradation is None and isinstance(recipe.domain, PackedRaw):
        return raw_store(folder, recipe.domain.pattern)
    if recipe.degradation is None:
        targets = [noise(30, 41, seed=1), noise(25, 33, seed=2)]
        return pair_store(folder, targets, [255 - target for target in targets])
    return clean_store(folder, smooth(40, 51, seed=1), smooth(33, 37, 1, seed=2))


@pytest.fixture
def make() -> Iterator[Make]:
    """A factory of batches, which are closed at the end."""
    made = []

    def make(recipe: Recipe, store: Store, **keywords: Any) -> Batches:
        made.append(Batches(recipe, store, **{"seed": 0, "patch_px": PATCH_PX, "batch_size": 8, **keywords}))
        return made[-1]

    yield make
    for batches in made:
        batches.close()


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def whole_target(recipe: Recipe, store: Store, i: int) -> Tensor:
    """(1, C, H, W) in the network's colors."""
    return recipe.domain.to_target(Picture(np.array(store.target(i))))


def positions(patch: Tensor, whole: Tensor) -> list[tuple[int, int, int]]:
    """(top, left, transform) of all positions in (1, C, H, W) from which (C, S, S) may come."""
    side = patch.shape[-1]
    squares = whole[0].unfold(1, side, 1).unfold(2, side, 1)  # (C, rows, columns, S, S)
    found = []
    for transform in range(8):
        before = undo_transform(patch, transform)
        alike = (squares[..., 0, 0] == before[:, :1, :1]).all(0).nonzero().tolist()
        found += [(row, col, transform) for row, col in alike if torch.equal(squares[:, row, col], before)]
    return found


def undo_transform(patch: Tensor, transform: int) -> Tensor:
    patch = patch.flip([axis for bit, axis in ((2, -2), (1, -1)) if transform & bit])
    return patch.transpose(-2, -1) if transform & 4 else patch


# ---- every recipe -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_names())
def test_every_recipe_has_batches(name: str, make: Make, tmp_path: Path) -> None:
    recipe = find(name)
    store = store_for(recipe, tmp_path / "store")
    network = recipe.network()
    degraded, target = make(recipe, store).batch(3)
    gives_mosaic = recipe.domain.gives_mosaic
    channels = 3 if recipe.domain.colors == "rgb" and not gives_mosaic else 1
    assert target.shape == (8, channels, PATCH_PX, PATCH_PX)
    assert degraded.shape[-1] / recipe.domain.rate * recipe.domain.result_scale(network.scale) == PATCH_PX
    assert len(degraded) == 8
    assert all(planes.dtype == torch.float32 and planes.is_contiguous() for planes in (degraded, target))
    assert target.min() >= 0 and target.max() <= 1
    assert degraded.min() > -1 and degraded.max() < 2  # noise may leave [0, 1]; SRCNN's bicubic overshoots
    allowed = {"none": {0}, "mirror": {0, 1}, "eight": set(range(8))}[recipe.augmentation]
    wholes = [whole_target(recipe, store, i) for i in range(len(store))]
    for patch in () if makes_target(recipe.degradation) else target:
        transforms = {transform for whole in wholes for _, _, transform in positions(patch, whole)}
        assert transforms and transforms <= allowed
    with torch.no_grad():
        expected = pack_bayer(target) if gives_mosaic else target
        assert network.eval()(degraded).shape == expected.shape


def test_patches_have_the_size_of_the_paper(make: Make, tmp_path: Path) -> None:
    recipe = find("dncnn.gaussian")
    store = clean_store(tmp_path / "store", smooth(60, 60, 1))
    degraded, target = make(recipe, store, patch_px=None, batch_size=None).batch(0)
    assert degraded.shape == target.shape == (128, 1, 40, 40)
    assert (degraded - target).std().item() * 255 == pytest.approx(25, rel=0.01)  # 204,800 samples: 0.16 %


# ---- functions of seed and step -----------------------------------------------------------------

PURE = [
    "srcnn.tuned",
    "dncnn.blind",
    "dncnn.three_tasks",
    "mimo_unet.gopro",
    "mimo_unet.synthetic",
    "sid_unet.sony",
    "sid_unet.fuji",
    "sid_unet.any_camera",
]


@pytest.mark.parametrize("name", PURE)
def test_a_batch_is_a_function_of_seed_and_step(name: str, make: Make, tmp_path: Path) -> None:
    recipe = find(name)
    store = store_for(recipe, tmp_path / "store")
    expected = [make(recipe, store, prefetch=0, resident=False).batch(step) for step in range(4)]
    for keywords in ({}, {"prefetch": 3}, {"resident": True}, {"prefetch": 1, "resident": True}):
        batches = make(recipe, store, **keywords)
        for step in (2, 0, 1, 3, 3, 0):
            assert equal(batches.batch(step), expected[step])
    assert not any(equal(expected[i], expected[j]) for i in range(4) for j in range(i))
    assert not equal(make(recipe, store, seed=1).batch(0), expected[0])
    assert not equal(make(recipe, store, seed=1).batch(0), expected[1])  # as seed + step would give


@pytest.mark.parametrize("name", PURE)
@pytest.mark.parametrize("world_size", [2, 8])
def test_several_processes_make_the_same_batch(name: str, world_size: int, make: Make, tmp_path: Path) -> None:
    recipe = find(name)
    store = store_for(recipe, tmp_path / "store")
    alone = make(recipe, store, batch_size=16)
    ranks = [make(recipe, store, batch_size=16, rank=r, world_size=world_size) for r in range(world_size)]
    for step in (0, 5):
        parts = [batches.batch(step) for batches in ranks]
        assert equal((torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])), alone.batch(step))


class MetaGenerator(DeviceGenerator):
    device = META


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("name", list_names())
def test_making_a_batch_does_not_wait_for_the_device(
    name: str, resident: bool, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(device: torch.device, seed: int) -> torch.Generator:
        generator = MetaGenerator()
        generator.companion = torch.Generator().manual_seed(seed)
        return generator

    monkeypatch.setattr(patches, "build_generator", build)
    recipe = find(name)
    store = store_for(recipe, tmp_path)
    drawn = make(recipe, store)._draw(0, 0).patches
    maker = patches.build_maker(recipe, store, PATCH_PX, Placement(META, resident))
    maker.make(drawn, [0])  # fills caches of constants
    with RefuseWaitingCopies(monkeypatch):
        degraded, target = maker.make(drawn, [0])
    assert degraded.device == target.device == META
    assert len(degraded) == len(target) == len(drawn.picture)


def test_numbers_for_the_cpu_are_those_of_the_only_generator_on_a_cpu() -> None:
    generator = build_generator(torch.device("cpu"), 5)
    assert get_cpu_generator(generator) is generator
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    for same in (generator, DeviceGenerator(torch.device("cpu")).manual_seed(5)):
        assert torch.equal(torch.rand(3, generator=same), expected)


def test_shards_draw_independent_noise(make: Make, tmp_path: Path) -> None:
    flat = np.full((30, 30, 1), 128, np.uint8)
    degraded, target = make(find("dncnn.gaussian"), clean_store(tmp_path / "store", flat), batch_size=32).batch(0)
    added = (degraded - target).flatten(1)
    assert torch.corrcoef(added).fill_diagonal_(0).abs().max() < 0.3  # 324 samples each: deviation 0.056


def test_seeds_can_have_any_size(make: Make, tmp_path: Path) -> None:
    recipe, seed = find("dncnn.gaussian", depth=3, width=4), 10**30
    store = store_for(recipe, tmp_path / "store")
    assert equal(make(recipe, store, seed=seed).batch(0), make(recipe, store, seed=seed).batch(0))
    assert not equal(make(recipe, store, seed=seed).batch(0), make(recipe, store, seed=seed + 2**64).batch(0))
    build_network(recipe, seed, None, print)


def test_global_generators_are_not_used(make: Make, tmp_path: Path) -> None:
    recipe = find("dncnn.three_tasks")
    batches = make(recipe, store_for(recipe, tmp_path / "store"))
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tolist()
    batches.batch(0)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == numpy_state


# ---- several stores -----------------------------------------------------------------------------


def flat_stores(folder: Path, *, sizes: Sequence[int] = (12, 6, 9)) -> tuple[Store, list[MixedStore]]:
    """Clean pictures of gray 0 to 79, and pairs of gray 80 to 159 (a share of 0.4) and 160 to 239 (0.2)."""
    stores = []
    for source, size in enumerate(sizes):
        targets = [np.full((24, 24, 3), 80 * source + i, np.uint8) for i in range(size)]
        place = folder / str(source)
        stores.append(pair_store(place, targets, targets) if source else clean_store(place, *targets))
    return stores[0], [MixedStore(stores[1], 0.4, "first"), MixedStore(stores[2], 0.2, "second")]


def grays(batch: Batch) -> list[int]:
    return [round(float(patch[0, 0, 0]) * 255) for patch in batch[1]]


@pytest.mark.parametrize("batch_size", [1, 4, 8, 40])
def test_patches_are_from_each_store_by_its_share(batch_size: int, make: Make, tmp_path: Path) -> None:
    store, mixed = flat_stores(tmp_path)
    batches = make(find("mimo_unet.synthetic"), store, mixed=mixed, batch_size=batch_size, prefetch=0)
    counts = Counter[int]()
    num_steps = 200 // batch_size
    for step in range(num_steps):
        of_batch = Counter(gray // 80 for gray in grays(batches.batch(step)))
        size = batch_size // batches.num_shards  # of a shard
        assert all(of_batch[i] % size == 0 for i in range(3))
        assert all(abs(of_batch[i] / size - batches.num_shards * s) < 2 for i, s in enumerate((0.4, 0.4, 0.2)))
        counts += of_batch
    assert counts == {0: 80, 1: 80, 2: 40}


def test_each_round_has_every_pair_of_a_mixed_store_once(make: Make, tmp_path: Path) -> None:
    store, mixed = flat_stores(tmp_path)
    batches = make(find("mimo_unet.synthetic"), store, mixed=mixed, batch_size=5, prefetch=0)
    drawn = [gray for step in range(45) for gray in grays(batches.batch(step))]
    for source, size in ((1, 6), (2, 9)):
        own = [gray % 80 for gray in drawn if gray // 80 == source]
        rounds = [own[i : i + size] for i in range(0, len(own), size)]
        assert len(own) == 225 * (0.4 if source == 1 else 0.2)
        assert all(sorted(one) == list(range(size)) for one in rounds)


def test_all_pairs_of_mixed_stores_are_drawn_equally_often(make: Make, tmp_path: Path) -> None:
    store, mixed = flat_stores(tmp_path)
    batches = make(find("mimo_unet.synthetic"), store, mixed=mixed, prefetch=0)
    drawn = Counter(gray for step in range(45) for gray in grays(batches.batch(step)))
    assert [drawn[80 + i] for i in range(6)] == [24] * 6  # 45 * 8 * 0.4 / 6
    assert [drawn[160 + i] for i in range(9)] == [8] * 9


def test_no_process_always_gets_the_same_store(make: Make, tmp_path: Path) -> None:
    store, mixed = flat_stores(tmp_path)
    half = [replace(mixed[0], share=0.5)]
    for rank in range(8):
        batches = make(find("mimo_unet.synthetic"), store, mixed=half, rank=rank, world_size=8)
        assert {grays(batches.batch(step))[0] // 80 for step in range(20)} == {0, 1}


def test_each_store_is_learned_from_in_its_own_way(make: Make, tmp_path: Path) -> None:
    """The degraded pictures of pairs are used; clean pictures are degraded by the recipe."""
    recipe = replace(find("dncnn.gaussian", channels=3), degradation=GaussianNoise(0))
    clean = clean_store(tmp_path / "clean", noise(24, 24) // 2)  # darker than the other targets
    target = 128 + noise(24, 24) // 2
    pairs = pair_store(tmp_path / "pairs", [target], [255 - target])
    for store, other in ((clean, pairs), (pairs, clean)):
        batches = make(recipe, store, mixed=[MixedStore(other, 0.5, "other")])
        for degraded, patch in (pair for step in range(3) for pair in zip(*batches.batch(step), strict=True)):
            is_pair = bool(patch.min() >= 0.5)
            torch.testing.assert_close(degraded, 1 - patch if is_pair else patch)


@pytest.mark.parametrize("world_size", [2, 8])
def test_several_processes_make_the_same_mixed_batch(world_size: int, make: Make, tmp_path: Path) -> None:
    store, mixed = flat_stores(tmp_path)
    recipe = find("mimo_unet.synthetic")
    alone = make(recipe, store, mixed=mixed, batch_size=16)
    ranks = [
        make(recipe, store, mixed=mixed, batch_size=16, rank=r, world_size=world_size) for r in range(world_size)
    ]
    for step in (0, 5, 2):
        parts = [batches.batch(step) for batches in ranks]
        assert equal((torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])), alone.batch(step))


def test_a_mixed_batch_is_a_function_of_seed_and_step(make: Make, tmp_path: Path) -> None:
    store, mixed = flat_stores(tmp_path)
    recipe = find("mimo_unet.synthetic")
    expected = [make(recipe, store, mixed=mixed, prefetch=0, resident=False).batch(step) for step in range(4)]
    for keywords in ({"prefetch": 3}, {"resident": True}):
        batches = make(recipe, store, mixed=mixed, **keywords)
        for step in (2, 0, 1, 3):
            assert equal(batches.batch(step), expected[step])
    assert not equal(make(recipe, store, mixed=mixed, seed=1).batch(0), expected[0])


def test_mixing_does_not_wait_for_the_device(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(device: torch.device, seed: int) -> torch.Generator:
        generator = MetaGenerator()
        generator.companion = torch.Generator().manual_seed(seed)
        return generator

    store, mixed = flat_stores(tmp_path)
    recipe = find("mimo_unet.synthetic")
    batches = make(recipe, store, mixed=mixed)
    shards = [batches._draw(0, shard) for shard in range(8)]
    assert {shard.source for shard in shards} == {0, 1, 2}
    monkeypatch.setattr(patches, "build_generator", build)
    for source, one in enumerate((store, *(each.store for each in mixed))):
        maker = patches.build_maker(recipe, one, PATCH_PX, Placement(META, resident=True))
        batches._learned[source] = replace(batches._learned[source], maker=maker)
    batches._make_shards(shards)  # fills caches of constants
    with RefuseWaitingCopies(monkeypatch):
        degraded, target = batches._make_shards(shards)
    assert degraded.device == target.device == META
    assert degraded.shape == target.shape == (8, 3, PATCH_PX, PATCH_PX)


def test_stores_without_patches_of_the_same_shape_are_not_mixed(make: Make, tmp_path: Path) -> None:
    recipe = recipe_of(RGB(), Shrink(3))
    clean = clean_store(tmp_path / "clean", noise(30, 30))
    pairs = pair_store(tmp_path / "pairs", [noise(30, 30)], [noise(30, 30)])
    with pytest.raises(
        DataError, match=r"other results in patches of 3 x 15 x 15 and 3 x 15 x 15, and the data .* 3 x 5 x 5 and"
    ):
        make(recipe, clean, mixed=[MixedStore(pairs, 0.5, "other")], patch_px=15)


def test_errors_of_a_mixed_store_name_it(make: Make, tmp_path: Path) -> None:
    pairs = pair_store(tmp_path / "pairs", [noise(30, 30)], [noise(30, 30)])
    small = pair_store(tmp_path / "small", [noise(9, 30)], [noise(9, 30)])
    clean, raw = clean_store(tmp_path / "clean", noise(30, 30)), raw_store(tmp_path / "raw", BAYER)
    for other, message in (
        (small, "other: no picture contains a patch of 18 x 18 px; the largest is 30 x 9 px"),
        (raw, "other: a store of camera RAW files; mimo_unet.gopro learns from pairs"),
        (clean, "other: a store of clean pictures; .*; mix a store of pairs; 'pellucid prepare pairs' makes one"),
    ):
        with pytest.raises(DataError, match=message):
            make(find("mimo_unet.gopro"), pairs, mixed=[MixedStore(other, 0.5, "other")])


def test_small_pictures_of_mixed_stores_are_listed_and_not_used(make: Make, tmp_path: Path) -> None:
    store = clean_store(tmp_path / "clean", flat(1, 18, 18), flat(2, 17, 90))
    pictures = [flat(3, 9, 90), flat(4, 20, 20)]
    mixed = [MixedStore(pair_store(tmp_path / "pairs", pictures, pictures), 0.5, "other")]
    batches = make(find("mimo_unet.synthetic"), store, mixed=mixed)
    assert batches.too_small == ["1.png", "blur/0"]
    assert set(grays(batches.batch(0))) == {1, 4}


def test_a_training_on_one_store_has_the_batches_of_earlier_versions(make: Make, tmp_path: Path) -> None:
    """Positions drawn as before stores could be mixed, so that interrupted trainings resume with the same bits."""
    store = store_for(find("mimo_unet.gopro"), tmp_path / "store")
    batches = make(find("mimo_unet.gopro"), store, batch_size=8)
    drawn = [batches._draw(step, shard).patches for step in (0, 7) for shard in (0, 5)]
    found = [[int(values[0]) for values in vars(patch).values()] for patch in drawn]
    assert found == [[1, 3, 9, 1], [0, 10, 7, 0], [1, 3, 9, 0], [1, 1, 15, 0]]


# ---- equal to whole degraded pictures -----------------------------------------------------------


def recipe_of(domain: Domain, degradation: Degradation, **changes: Any) -> Recipe:
    return replace(find("srcnn.tuned"), domain=domain, degradation=degradation, augmentation="none", **changes)


def check_against_whole(
    recipe: Recipe, store: Store, batches: Batches, tolerance: float, inside_px: int | None = None
) -> int:
    """Check each patch against a crop of the whole degraded picture; how many are `inside_px` from all edges."""
    assert recipe.degradation is not None
    pairs, num_inside = [], 0
    for i in range(len(store)):
        target = whole_target(recipe, store, i)
        multiple = recipe.domain.rate.numerator
        height, width = (size // multiple * multiple for size in target.shape[-2:])
        target = target[..., :height, :width]
        pairs.append((recipe.domain.encode(recipe.degradation(target, torch.Generator())), target))
    for step in range(4):
        for degraded, patch in zip(*batches.batch(step), strict=True):
            hits = [(pair, place) for pair in pairs for place in positions(patch, pair[1])]
            ((seen, whole), (top, left, transform)) = hits[0]
            assert len(hits) == 1
            side = patch.shape[-1]
            cut = seen[..., top : top + side, left : left + side]
            expected = augment(cut, np.array([transform]))[0]
            assert (degraded - expected).abs().max() <= tolerance
            edges = (top, left, whole.shape[-2] - top - side, whole.shape[-1] - left - side)
            if inside_px is not None and min(edges) >= inside_px:
                num_inside += 1
                assert torch.equal(degraded, expected)
    return num_inside


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("sizes", [(33, 41), (90, 97), (19, 18)])
def test_srcnn_gets_crops_of_whole_enlarged_pictures(
    scale: int, sizes: tuple[int, int], make: Make, tmp_path: Path
) -> None:
    recipe = find("srcnn.paper", scale=scale)
    store = clean_store(tmp_path / "store", noise(*sizes, seed=scale))
    batches = make(recipe, store, patch_px=15)
    # Mirrored pixels are summed in the opposite order, so at the edges the last bit may differ; inside, none may.
    num_inside = check_against_whole(recipe, store, batches, 2e-6, inside_px=4 * scale)
    assert num_inside > 5 or sizes != (90, 97)


@pytest.mark.parametrize("scale", [2, 3])
def test_augmented_patches_are_those_of_the_augmented_whole(scale: int, make: Make, tmp_path: Path) -> None:
    recipe = find("srcnn.tuned", scale=scale)
    store = clean_store(tmp_path / "store", noise(40, 53, seed=scale), noise(33, 34, 1, seed=5))
    check_against_whole(recipe, store, make(recipe, store, patch_px=15), 2e-6)


@dataclass(frozen=True)
class Fixed:
    """A camera that always moves along the diagonal, so no kernel is random."""

    kernel_px: int

    def kernels(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.eye(self.kernel_px).expand(count, -1, -1) / self.kernel_px


WIDE: list[tuple[Degradation, Domain]] = [
    (ShrinkAndEnlarge((3,)), Gray()),
    (OneOf((ShrinkAndEnlarge((2,)),)), Gray()),
    (Chain((Shrink(2), ShrinkAndEnlarge((3,)))), Luma(2)),
    (Jpeg(30), Luma()),
    (Jpeg(30), RGB()),
    (Chain((Jpeg(40), Shrink(2))), Luma(2)),
    (Chain((Shrink(2), Jpeg(40))), Luma(2)),
    (Chain((ShrinkAndEnlarge((3,)), Jpeg(40))), RGB()),
    (MotionBlur(Fixed(7)), RGB()),
    (Chain((MotionBlur(Fixed(5), highlights=1.0), Jpeg(70))), RGB()),
]


@pytest.mark.parametrize(("degradation", "domain"), WIDE, ids=repr)
def test_wide_degradations_are_the_same_in_patches(
    degradation: Degradation, domain: Domain, make: Make, tmp_path: Path
) -> None:
    recipe = recipe_of(domain, degradation)
    is_jpeg = "Jpeg" in repr(degradation)  # which turns a difference in the last bit into a gray level
    picture = smooth(96, 192, seed=4) if is_jpeg else noise(96, 192, seed=4)
    store = clean_store(tmp_path / "store", picture)
    check_against_whole(recipe, store, make(recipe, store, patch_px=13), 0.51 / 255 if is_jpeg else 2e-6)


def test_a_network_that_enlarges_gets_small_patches(make: Make, tmp_path: Path) -> None:
    recipe = recipe_of(RGB(), Shrink(3))
    store = clean_store(tmp_path / "store", noise(50, 61, seed=9))
    degraded, target = make(recipe, store, patch_px=15).batch(0)
    whole = whole_target(recipe, store, 0)[..., :48, :60]
    small = resize(whole, Fraction(1, 3))
    assert degraded.shape == (8, 3, 5, 5)
    for seen, patch in zip(degraded, target, strict=True):
        ((top, left, _),) = positions(patch, whole)
        assert top % 3 == left % 3 == 0
        torch.testing.assert_close(seen, small[0, :, top // 3 :, left // 3 :][:, :5, :5])


# ---- pairs and RAW ------------------------------------------------------------------------------


def test_pairs_are_cropped_at_the_same_position(make: Make, tmp_path: Path) -> None:
    recipe = find("mimo_unet.gopro")
    store = store_for(recipe, tmp_path / "store")
    degraded, target = make(recipe, store).batch(0)
    torch.testing.assert_close(degraded, 1 - target)


@pytest.mark.parametrize("name", ["sid_unet.sony", "sid_unet.fuji"])
@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, 0), (1, 1)])
def test_raw_patches_are_augmented_crops_of_the_packed_whole(
    name: str, down: int, right: int, make: Make, tmp_path: Path
) -> None:
    """Compared with the whole mosaic in restoration; cameras may start at another offset of the pattern."""
    recipe = find(name)
    assert isinstance(recipe.domain, PackedRaw)
    pattern = [row[-right:] + row[:-right] if right else row for row in recipe.domain.pattern]
    pattern = pattern[-down:] + pattern[:-down] if down else pattern
    store = raw_store(tmp_path / "store", pattern)
    cell = recipe.domain.rate.denominator
    wholes = []
    for i in range(len(store)):
        accepted = recipe.domain.accept(store.mosaic(i))
        target = whole_target(recipe, store, i)[..., down:, right:]
        wholes.append((recipe.domain.to_input(accepted), target[..., : accepted.height, : accepted.width]))
    seen_transforms = set()
    for step in range(3):
        for degraded, patch in zip(*make(recipe, store).batch(step), strict=True):
            ((whole, (top, left, transform)),) = [
                (target, place) for packed, target in wholes for place in positions(degraded, packed)
            ]
            cut = whole[..., cell * top :, cell * left :][..., :PATCH_PX, :PATCH_PX]
            assert torch.equal(augment(cut, np.array([transform]))[0], patch)
            seen_transforms.add(transform)
    assert len(seen_transforms) > 4
    assert max(float(packed.max()) for packed, _ in wholes) == 1  # cut off at white
    assert min(float(packed.min()) for packed, _ in wholes) == 0  # and at black


@pytest.mark.parametrize(("name", "planes"), [("sid_unet.sony", 4), ("sid_unet.fuji", 9)])
def test_raw_can_be_synthesized_from_developed_pictures(
    name: str, planes: int, make: Make, tmp_path: Path
) -> None:
    recipe = find(name)
    assert isinstance(recipe.domain, PackedRaw)
    noise = SensorNoise(Sensor(1e-4, 1e-8))
    raw = SyntheticRaw(Unprocess(recipe.domain.pattern), noise, (10.0, 30.0), white_balanced=False)
    recipe = replace(recipe, degradation=raw)
    store = clean_store(tmp_path / "store", smooth(40, 51))
    degraded, target = make(recipe, store).batch(0)
    cell = recipe.domain.rate.denominator
    assert degraded.shape == (8, planes, PATCH_PX // cell, PATCH_PX // cell)
    assert degraded.min() >= 0 and degraded.max() <= 1
    whole = whole_target(recipe, store, 0)
    assert all(row % cell == col % cell == 0 for patch in target for row, col, _ in positions(patch, whole)[:1])
    bright = torch.corrcoef(torch.stack([degraded.mean(dim=(1, 2, 3)), target.square().mean(dim=(1, 2, 3))]))
    assert bright[0, 1] > 0.5  # each has its own random brightness


def test_white_balance_is_applied_as_in_restoration(make: Make, tmp_path: Path) -> None:
    facts = {"pattern": BAYER, "black_level": BLACK, "white_level": WHITE, "white_balance": [0.8, 1.0, 1.6]}
    with StoreWriter(tmp_path / "store", {}) as writer:
        writer.put("long", STAMP, noise(24, 24, 3, "uint16"))
        writer.put("short", STAMP, np.full((24, 24), BLACK + 155, np.uint16), metadata=facts)
        store = writer.finish("raw", [Planned("short", "long", "short", 10.0)], [])
    domain = PackedRaw(white_balanced=True)
    degraded, _ = make(replace(find("sid_unet.sony"), domain=domain), store).batch(0)
    assert torch.equal(degraded.amin(dim=(0, 2, 3)), domain.to_input(store.mosaic(0))[0, :, 0, 0])
    assert degraded[0, :, 0, 0].tolist() == pytest.approx([0.1, 0.125, 0.2, 0.125], rel=1e-5)


def test_black_may_differ_by_filter(make: Make, tmp_path: Path) -> None:
    black = [[500, 510], [520, 530]]
    with StoreWriter(tmp_path / "store", {}) as writer:
        writer.put("long", STAMP, noise(24, 24, 3, "uint16"))
        facts = {"pattern": BAYER, "black_level": black, "white_level": WHITE}
        writer.put("short", STAMP, np.tile(np.array(black, np.uint16), (12, 12)) + np.uint16(100), metadata=facts)
        store = writer.finish("raw", [Planned("short", "long", "short", 10.0)], [])
    degraded, _ = make(find("sid_unet.sony"), store).batch(0)
    whole = find("sid_unet.sony").domain.to_input(store.mosaic(0))[0, :, 0, 0]
    assert len(whole.unique()) == 4
    assert {tuple(pixel.tolist()) for pixel in degraded.permute(0, 2, 3, 1).reshape(-1, 4)} == {
        tuple(whole.tolist())
    }


# ---- random positions ------------------------------------------------------------------------------


def flat(value: int, height: int, width: int, dtype: str = "uint8") -> Samples:
    return np.full((height, width, 3), value, dtype)


def test_all_positions_are_equally_likely(make: Make, tmp_path: Path) -> None:
    ramp = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8, 1)
    store = clean_store(tmp_path / "store", ramp, ramp[:3, :3] + 100)
    recipe = replace(find("dncnn.gaussian"), augmentation="none")
    _, target = make(recipe, store, patch_px=2, batch_size=8000).batch(0)
    counts = Counter((target[:, 0, 0, 0] * 255).round().int().tolist())
    assert len(counts) == 5 * 7 + 2 * 2
    # 8000 / 39 = 205 of each expected, with a deviation of 14.
    assert all(abs(count - 205) < 72 for count in counts.values())


def test_each_round_has_every_pair_once(make: Make, tmp_path: Path) -> None:
    pictures = [flat(i, 20, 20 + 7 * i) for i in range(12)]
    batches = make(find("mimo_unet.gopro"), pair_store(tmp_path / "store", pictures, pictures), batch_size=4)
    drawn = [
        value for step in range(9) for value in (batches.batch(step)[1][:, 0, 0, 0] * 255).round().int().tolist()
    ]
    rounds = [drawn[i : i + 12] for i in (0, 12, 24)]
    assert all(sorted(one) == list(range(12)) for one in rounds)
    assert rounds[0] != rounds[1] != rounds[2] != rounds[0]


def test_each_round_has_every_scene_once_with_a_random_exposure(make: Make, tmp_path: Path) -> None:
    facts = {"pattern": BAYER, "black_level": BLACK, "white_level": WHITE}
    with StoreWriter(tmp_path / "store", {}) as writer:
        items = []
        for scene, num_shorts in enumerate([1, 2, 5]):
            writer.put(f"long{scene}", STAMP, flat(scene, 20, 20, "uint16"))
            for i in range(num_shorts):
                name = f"{scene}_{i}"
                writer.put(name, STAMP, np.full((20, 20), BLACK + 10 * scene + i, np.uint16), metadata=facts)
                items.append(Planned(name, f"long{scene}", name, 1.0))
        store = writer.finish("raw", items, [])
    batches = make(find("sid_unet.sony"), store, batch_size=1)
    drawn = []
    for step in range(60):
        degraded, target = batches.batch(step)
        short = round(float(degraded[0, 0, 0, 0]) * (WHITE - BLACK))
        drawn.append((round(float(target[0, 0, 0, 0]) * 65535), short % 10))
        assert short // 10 == drawn[-1][0]
    assert all({scene for scene, _ in drawn[i : i + 3]} == {0, 1, 2} for i in range(0, 60, 3))
    assert len(set(drawn)) == 1 + 2 + 5


def test_gray_and_color_of_any_depth_can_be_mixed(make: Make, tmp_path: Path) -> None:
    pictures = [noise(30, 30, 1), noise(30, 30, 3, seed=1), noise(30, 30, 1, "uint16", seed=2)]
    domains: list[Domain] = [Gray(), RGB(), Luma()]
    for i, domain in enumerate(domains):
        recipe = recipe_of(domain, GaussianNoise(0))
        store = clean_store(tmp_path / str(i), *pictures)
        _, target = make(recipe, store, batch_size=32).batch(0)
        wholes = [whole_target(recipe, store, i) for i in range(3)]
        hits = [[bool(positions(patch, whole)) for whole in wholes] for patch in target]
        assert all(sum(row) == 1 for row in hits)
        assert all(map(any, zip(*hits, strict=True)))


# ---- errors, and waiting ---------------------------------------------------------------


def test_small_pictures_are_listed_and_not_used(make: Make, tmp_path: Path) -> None:
    store = clean_store(tmp_path / "store", flat(1, 18, 18), flat(2, 17, 90), flat(3, 19, 18), flat(4, 3, 3))
    batches = make(replace(find("dncnn.gaussian"), degradation=GaussianNoise(0)), store, batch_size=64)
    assert batches.too_small == ["1.png", "3.png"]
    _, target = batches.batch(0)
    assert set((target * 255).round().int().unique().tolist()) == {1, 3}


def test_a_store_of_small_pictures_is_refused(make: Make, tmp_path: Path) -> None:
    store = clean_store(tmp_path / "store", flat(1, 17, 30), flat(1, 9, 99))
    with pytest.raises(DataError, match="no picture contains a patch of 18 x 18 px; the largest is 30 x 17 px"):
        make(find("dncnn.gaussian"), store)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("mimo_unet.gopro", "clean", "a store of clean pictures; mimo_unet.gopro learns from pairs"),
        ("mimo_unet.gopro", "raw", "a store of camera RAW files; mimo_unet.gopro learns from pairs"),
        ("sid_unet.sony", "clean", "a store of clean pictures; sid_unet.sony learns from camera RAW"),
        ("sid_unet.fuji", "pairs", "a store of pairs of pictures; sid_unet.fuji learns from camera RAW"),
    ],
)
def test_the_wrong_store_is_refused(name: str, kind: str, message: str, make: Make, tmp_path: Path) -> None:
    builders: dict[str, Callable[[], Store]] = {
        "clean": partial(clean_store, tmp_path / "store", noise(30, 30)),
        "pairs": partial(pair_store, tmp_path / "store", [noise(30, 30)], [noise(30, 30)]),
        "raw": partial(raw_store, tmp_path / "store", BAYER),
    }
    with pytest.raises(DataError, match=message):
        make(find(name), builders[kind]())


def test_another_sensor_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0_0 has the filters RBGBRG/.*; this recipe needs RG/GB"):
        make(find("sid_unet.sony"), raw_store(tmp_path / "store", XTRANS))


def test_pairs_of_two_sizes_are_refused(make: Make, tmp_path: Path) -> None:
    store = pair_store(tmp_path / "store", [noise(30, 40)], [noise(30, 41)])
    with pytest.raises(DataError, match="41 x 30 px and its target 40 x 30 px; .* needs targets of the same size"):
        make(find("mimo_unet.gopro"), store)


def test_a_recipe_with_a_degradation_learns_from_pairs_unless_told_otherwise(make: Make, tmp_path: Path) -> None:
    targets, degraded = [noise(30, 40, 1)], [255 - noise(30, 40, 1)]
    pairs = pair_store(tmp_path / "pairs", targets, degraded)
    alone = clean_store(tmp_path / "clean", *targets)
    for keywords in ({}, {"learn_from": "pairs"}):
        seen, target = make(find("dncnn.gaussian", patch_px=20, **keywords), pairs).batch(0)
        torch.testing.assert_close(seen, 1 - target)
    own = find("dncnn.gaussian", learn_from="targets")
    assert equal(make(own, pairs).batch(0), make(find("dncnn.gaussian"), alone).batch(0))


@pytest.mark.parametrize("scale", [2, 3])
def test_enlarging_recipes_learn_from_pairs_of_two_sizes(scale: int, make: Make, tmp_path: Path) -> None:
    recipe = find("srcnn.paper", scale=scale)
    target, small = noise(24 * scale, 31 * scale, 1, seed=1), noise(24, 31, 1, seed=2)
    store = pair_store(tmp_path / "pairs", [target], [small])
    enlarged = resize(torch.from_numpy(small).permute(2, 0, 1)[None] / 255, scale)
    whole = torch.from_numpy(target).permute(2, 0, 1)[None] / 255
    for step in range(3):
        for seen, patch in zip(*make(recipe, store, patch_px=15).batch(step), strict=True):
            ((top, left, transform),) = positions(patch, whole)
            expected = augment(enlarged[..., top : top + 15, left : left + 15], np.array([transform]))[0]
            assert (seen - expected).abs().max() <= 2e-6


def test_a_store_that_a_recipe_would_use_only_in_part_is_refused(make: Make, tmp_path: Path) -> None:
    pairs = pair_store(tmp_path / "pairs", [noise(30, 30)], [noise(30, 30)])
    raw, clean = raw_store(tmp_path / "raw", BAYER), clean_store(tmp_path / "clean", noise(60, 60))
    for name, keywords, store, message in (
        ("sid_unet.any_camera", {}, pairs, "pairs of pictures; sid_unet.any_camera learns from camera RAW"),
        ("dncnn.gaussian", {}, raw, "camera RAW files; dncnn.gaussian learns from pairs"),
        ("dncnn.gaussian", {"learn_from": "pairs"}, clean, "clean pictures; dncnn.gaussian learns from pairs"),
        ("mimo_unet.gopro", {"learn_from": "targets"}, pairs, "mimo_unet.gopro has no degradation"),
    ):
        with pytest.raises(DataError, match=message):
            make(find(name, **keywords), store)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("dncnn.gaussian", {"world_size": 3}, "3 processes .* equally; use 2, 4 or 8 processes"),
        ("dncnn.gaussian", {"batch_size": 2, "world_size": 4}, "4 processes .* of 2 .* of 4, e.g. batch_size=4"),
        ("dncnn.gaussian", {"batch_size": 15, "world_size": 2}, "multiple of 2, e.g. batch_size=16"),
        ("dncnn.gaussian", {"batch_size": 0}, "batch_size=0 must be at least 1"),
        ("dncnn.gaussian", {"patch_px": 0}, "patch_px=0: .* multiple of 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    name: str, keywords: dict[str, int], message: str, make: Make, tmp_path: Path
) -> None:
    recipe = find(name)
    with pytest.raises(RecipeError, match=message):
        make(recipe, store_for(recipe, tmp_path / "store"), **keywords)


def test_a_batch_that_does_not_fit_the_memory_is_refused_at_once(make: Make, tmp_path: Path) -> None:
    recipe = find("dncnn.gaussian")
    with pytest.raises(NotEnoughMemoryError, match=r"a batch need 1,296\.0 GB; .* are free; lower batch_size="):
        make(recipe, store_for(recipe, tmp_path / "store"), batch_size=10**9)


def test_raw_patches_are_multiples_of_the_pattern(make: Make, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"patch_px=16: sid_unet.fuji needs a multiple of 3"):
        make(find("sid_unet.fuji"), raw_store(tmp_path / "store", XTRANS), patch_px=16)


def test_an_enlarging_domain_needs_a_shrinking_degradation(make: Make, tmp_path: Path) -> None:
    recipe = find("dncnn.three_tasks", scale=3)
    with pytest.raises(
        RecipeError, match="dncnn.three_tasks enlarges by 3, but its degradation does not downscale"
    ):
        make(recipe, store_for(recipe, tmp_path / "store"))


def test_errors_of_the_thread_are_raised_by_batch(make: Make, tmp_path: Path) -> None:
    class Broken(GaussianNoise):
        def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
            raise PictureError("broken")

    batches = make(recipe_of(RGB(), Broken(0)), clean_store(tmp_path / "store", noise(30, 30)))
    for step in (0, 1):
        with pytest.raises(PictureError, match="broken"):
            batches.batch(step)


@pytest.mark.parametrize(
    ("degrade", "found"),
    [
        (lambda clean: clean[..., 1:], "8 pictures of 17 x 18 px"),
        (lambda clean: F.pad(clean, (0, 0, 0, 3)), "8 pictures of 18 x 21 px"),
        (lambda clean: F.avg_pool2d(clean, 2), "8 pictures of 9 x 9 px"),
        (lambda clean: clean[:1], "1 picture of 18 x 18 px"),
    ],
)
def test_a_degradation_must_keep_to_its_footprint(
    degrade: Callable[[Tensor], Tensor], found: str, make: Make, tmp_path: Path
) -> None:
    class Own(Rounding):
        def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
            return degrade(clean)

    batches = make(recipe_of(RGB(), Own()), clean_store(tmp_path / "store", noise(30, 30)))
    with pytest.raises(RecipeError, match=f"returned {found} instead of 8 pictures of 18 x 18 px; the scale in"):
        batches.batch(0)


def test_waiting_is_measured(make: Make, tmp_path: Path) -> None:
    batches = make(find("dncnn.gaussian"), clean_store(tmp_path / "store", noise(30, 30)))
    assert batches.waited_s == 0
    batches.batch(0)
    first = batches.waited_s
    assert first > 0
    batches.batch(1)
    assert batches.waited_s > first
