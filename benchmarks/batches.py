"""The speed of batches from a store, compared with files that are decoded for every crop.

    PELLUCID_DATA=... python benchmarks/batches.py

One thread, no prefetching, files and store in the system's cache. The other one is a torch DataLoader that decodes
both files of a sample with `pellucid.read`, crops a patch and collates the patches; its time does not include
augmentation and degradation, ours does. Each ratio is the median of alternating runs.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from pellucid.data.store import Store
from pellucid.data.store_writer import Planned, Stamp, StoreWriter
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.pictures.samples import Samples
from pellucid.recipes.registry import find
from pellucid.training.batches import Batches

NUM_ROUNDS = 3
STAMP = Stamp(0, 0, "")


@dataclass(frozen=True)
class Case:
    """A recipe and its files: (target, degraded or None) for each sample."""

    recipe: str
    batch_size: int
    patch_px: int
    files: Sequence[tuple[Path, Path | None]]
    num_batches: int


class Decoded(Dataset[tuple[Tensor, ...]]):
    """Random patches; each one reads its files."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def __len__(self) -> int:
        return len(self._case.files)

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        pictures = [images.read(path) for path in self._case.files[i] if path is not None]
        size = self._case.patch_px
        top, left = (int(torch.randint(n - size + 1, ())) for n in pictures[0].samples.shape[:2])
        rows, cols = slice(top, top + size), slice(left, left + size)
        return tuple(picture.crop(rows, cols).to_tensor()[0] for picture in pictures)


def decoded_batches(case: Case) -> Iterator[tuple[Tensor, ...]]:
    data = Decoded(case)
    sampler = RandomSampler(data, replacement=True, num_samples=10**9)
    return iter(DataLoader(data, case.batch_size, sampler=sampler))


def stored_batches(case: Case, store: Store) -> Iterator[tuple[Tensor, ...]]:
    batches = Batches(
        find(case.recipe), store, seed=0, batch_size=case.batch_size, patch_px=case.patch_px, prefetch=0
    )
    step = 0
    while True:
        yield batches.batch(step)
        step += 1


def store_of(case: Case, folder: Path) -> Store:
    is_raw = case.recipe.startswith("sid")
    facts = {"pattern": ["RG", "GB"], "black_level": 512, "white_level": 16383}
    items, has_pairs = [], False
    with StoreWriter(folder, {}) as writer:
        for target, degraded in case.files:
            writer.put(str(target), STAMP, images.read(target).samples)
            if degraded is not None:
                samples, has_pairs = images.read(degraded).samples, True
                writer.put(str(degraded), STAMP, samples[..., 0] if is_raw else samples, metadata=facts)
            ratio = 100.0 if is_raw else None
            items.append(Planned(str(target), str(target), None if degraded is None else str(degraded), ratio))
        return writer.finish("raw" if is_raw else "pairs" if has_pairs else "clean", items, [])


def as_png(paths: Iterable[Path], folder: Path) -> list[tuple[Path, None]]:
    folder.mkdir()
    for path in paths:
        images.write(images.read(path), folder / f"{path.stem}.png")
    return [(path, None) for path in sorted(folder.iterdir())]


def raw_files(folder: Path, num_scenes: int) -> list[tuple[Path, Path | None]]:
    """16-bit PNG pictures of the size of Sony's frames: smooth with some noise."""
    folder.mkdir()
    made: list[tuple[Path, Path | None]] = []
    for scene in range(num_scenes):
        target, mosaic = folder / f"long{scene}.png", folder / f"short{scene}.png"
        for path, channels, peak in ((target, 3, 40000), (mosaic, 1, 700)):
            images.write(Picture(_scene(scene, channels, peak)), path)
        made.append((target, mosaic))
    return made


def _scene(seed: int, channels: int, peak: int) -> Samples:
    drawn = np.random.default_rng(seed)
    coarse = drawn.random((89, 133, channels)).repeat(32, axis=0).repeat(32, axis=1)
    return ((0.1 + 0.8 * coarse + 0.01 * drawn.random(coarse.shape)) * peak).astype(np.uint16)


def seconds(make: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        make()
    return (time.perf_counter() - start) / count


def compare(case: Case, folder: Path) -> None:
    stored = stored_batches(case, store_of(case, folder))
    decoded = decoded_batches(case)
    next(stored)
    times = [
        (
            seconds(lambda: next(stored), case.num_batches),
            seconds(lambda: next(decoded), max(1, case.num_batches // 8)),
        )
        for _ in range(NUM_ROUNDS)
    ]
    ours_s, theirs_s = (median(column) for column in zip(*times, strict=True))
    ratio = median(theirs / ours for ours, theirs in times)
    print(
        f"{case.recipe:18} {case.batch_size:3} x {case.patch_px:4}  {1000 * ours_s:9.1f} ms  {1 / ours_s:7.1f}/s"
        f"  {1000 * theirs_s:9.1f} ms  {ratio:7.1f}"
    )


def main() -> None:
    torch.set_num_threads(1)
    data = Path(os.environ["PELLUCID_DATA"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train400 = [(path, None) for path in sorted((data / "training" / "Train400").glob("*.png"))]
        t91 = as_png(sorted((data / "training" / "T91").glob("*.bmp")), folder / "t91")
        blurred = sorted((data / "deblurring" / "gopro_pairs").glob("*_blur*.png"))
        pairs = [(path.with_name(path.name.replace("blur", "sharp")), path) for path in blurred]
        raw = raw_files(folder / "raw", num_scenes=4)
        print("recipe              batch           from the store        decoded files  ratio")
        compare(Case("dncnn.gaussian", 128, 40, train400, 40), folder / "1")
        compare(Case("dncnn.three_tasks", 128, 50, train400, 10), folder / "2")
        compare(Case("srcnn.paper", 16, 33, t91, 40), folder / "3")
        compare(Case("mimo_unet.gopro", 4, 256, pairs, 40), folder / "4")
        compare(Case("sid_unet.sony", 1, 1024, raw, 16), folder / "5")


if __name__ == "__main__":
    main()
