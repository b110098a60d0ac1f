"""The speed of `pellucid train`, compared with two simple training loops.

    python benchmarks/train.py PICTURES --steps 20 --rounds 3

    plain    eager float32, channels first, patches already in memory: the cost of the arithmetic alone
    decoding the same with a DataLoader that decodes a PNG file for each patch
    ours     batches from a store, in the mode that tuning selects
    adam, soap   as ours, with that optimizer and patches in memory: how much longer a step takes with SOAP

All alternate, so that other load slows all of them; the best round of each is reported.
"""

import argparse
import io
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pellucid.data.store import Store
from pellucid.data.store_writer import Planned, Stamp, StoreWriter
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.recipes.network import Network
from pellucid.recipes.optimizers import SOAP
from pellucid.recipes.recipe import Recipe
from pellucid.system import heap
from pellucid.training import optimization, tuning
from pellucid.training.batches import Batches
from pellucid.training.distributed import Group
from pellucid.training.learner import ExecutionMode, Learner

Pair = tuple[Tensor, Tensor]

RECIPES: dict[str, dict[str, Any]] = {
    "srcnn.tuned": {},
    "srcnn.paper": {},
    "dncnn.gaussian": {"batch_size": 32},
    "mimo_unet.gopro": {"patch_px": 128, "batch_size": 2},
    "sid_unet.any_camera": {"patch_px": 256, "batch_size": 2},
}
NUM_STEPS = 10_000
OPTIMIZERS = ("adam", "soap")
BASIS_STEPS = SOAP(lr=1.0).precondition_frequency
"""SOAP updates its bases once in so many steps, so each round of an optimizer takes as many."""


class Decoded(Dataset[Pair]):
    """A random patch of a PNG, degraded separately."""

    def __init__(self, made: Recipe, files: list[bytes]) -> None:
        self.made, self.files = made, files

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, i: int) -> Pair:
        samples = np.array(Image.open(io.BytesIO(self.files[i % len(self.files)])).convert("RGB"))
        side = self.made.patch_px
        top, left = (int(torch.randint(size - side + 1, ())) for size in samples.shape[:2])
        patch = Picture(np.ascontiguousarray(samples[top : top + side, left : left + side]))
        target = self.made.domain.to_target(patch)
        degraded = target if self.made.degradation is None else self.made.degradation(target, torch.Generator())
        return self.made.domain.encode(degraded)[0], target[0]


def plain_step(made: Recipe) -> Callable[[Pair], None]:
    network: Network = made.network()
    optimizer = optimization.build(made.optimizer, network)

    def step(batch: Pair) -> None:
        loss = made.loss(network, *batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def learning_step(made: Recipe, mode: ExecutionMode) -> Callable[[Pair], object]:
    learner = Learner(made, made.network(), mode, seed=0, group=Group(torch.device("cpu")))
    return lambda batch: learner.learn(*batch)


def timed(
    step: Callable[[Pair], object], batches: Iterator[Pair], num_steps: int, *, is_ours: bool = True
) -> float:
    """Seconds for a step. Memory that a step frees is kept, as in a training of ours, or not."""
    with heap.keeping() if is_ours else nullcontext():
        heap.keep_freed()
        step(next(batches))
        started = time.perf_counter()
        for _ in range(num_steps):
            step(next(batches))
        return (time.perf_counter() - started) / num_steps


def numbered(batches: Batches) -> Iterator[Pair]:
    step = 0
    while True:
        yield batches.batch(step)
        step += 1


def stored(files: list[bytes], folder: Path, *, pairs: bool) -> Store:
    """A store of these PNGs; as pairs, each is its own target."""
    with StoreWriter(folder, {}) as writer:
        for i, content in enumerate(files):
            samples = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
            writer.put(f"{i}", Stamp(len(content), 0, str(i)), samples)
            writer.put(f"{i} degraded", Stamp(len(content), 0, str(i)), samples)
        planned = [Planned(f"{i}", f"{i}", f"{i} degraded" if pairs else None) for i in range(len(files))]
        return writer.finish("pairs" if pairs else "clean", planned, [])


def make(name: str, **keywords: Any) -> Recipe:
    return registry.find(name, num_steps=NUM_STEPS, **RECIPES[name] | keywords)


def compare(name: str, files: list[bytes], num_steps: int, rounds: int) -> None:
    made = make(name)
    with tempfile.TemporaryDirectory() as folder:
        store = stored(files, Path(folder) / "store", pairs=made.degradation is None)
        batches = Batches(made, store, seed=0)
        loader = DataLoader(Decoded(made, files), made.batch_size, num_workers=1)
        decoding, ready, drawn = iter(loader), batches.batch(0), numbered(batches)
        mode = tuning.tune(made, ready, torch.device("cpu"), lambda _: None)
        step = plain_step(made)
        ours = learning_step(made, mode)
        loops: dict[str, Callable[[], float]] = {
            "plain": lambda: timed(step, itertools.repeat(ready), num_steps, is_ours=False),
            "decoding": lambda: timed(step, decoding, num_steps, is_ours=False),
            "ours": lambda: timed(ours, drawn, num_steps),
        }
        for optimizer in OPTIMIZERS:
            learn = learning_step(make(name, optimizer=optimizer), mode)
            loops[optimizer] = partial(timed, learn, itertools.repeat(ready), BASIS_STEPS)
        taken_s = [{kind: loop() for kind, loop in loops.items()} for _ in range(rounds)]
        best_s = {kind: min(taken[kind] for taken in taken_s) for kind in loops}
        batches.close()
    ours_s = best_s["ours"]
    print(
        f"{made.name}, {made.batch_size} patches of {made.patch_px} px: {1 / ours_s:.2f} steps/s, "
        f"{best_s['plain'] / ours_s:.2f} x plain, {best_s['decoding'] / ours_s:.2f} x decoding, "
        f"with SOAP {best_s['soap'] / best_s['adam']:.3f} x Adam ({mode})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="a folder of pictures, at least 128 px on each side")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), choices=list(RECIPES))
    args = parser.parse_args()
    files = []
    for path in images.find(args.pictures):
        picture = images.read(path)
        if min(picture.height, picture.width) >= 128:
            buffer = io.BytesIO()
            Image.fromarray(picture.samples.squeeze()).save(buffer, "PNG")
            files.append(buffer.getvalue())
    for name in args.recipes:
        compare(name, files, args.steps, args.rounds)


if __name__ == "__main__":
    main()
