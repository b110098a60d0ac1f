"""What restoring a folder costs besides the network, compared with libvips, which only decodes and encodes.

    python benchmarks/folder.py --null --threads 2 [--rounds 3]

The network adds 1 to 8-bit samples. Both ways read the same files and write the same formats, in turns and in
one process; the fastest round of each counts.
"""

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import torch
from torch import Tensor

from pellucid.backends.backend import Shape
from pellucid.backends.fixed_shape import FixedShape
from pellucid.recipes import registry
from pellucid.restoration.restore import restore
from pellucid.restoration.restorer import Restorer

QUALITY = 90


@dataclass(frozen=True)
class Case:
    """A folder of equal pictures. bits: 8 or 16."""

    title: str
    count: int
    width: int
    height: int
    suffix: str
    bits: int = 8


CASES = (
    Case("12 MP JPEG", 4, 4000, 3000, ".jpg"),
    Case("24 MP 16-bit TIFF", 2, 6000, 4000, ".tif", 16),
    Case("small PNG, 64 x 64 px", 2000, 64, 64, ".png"),
)
RECIPES = ("dncnn.gaussian", "mimo_unet.gopro")


class CopyBackend:
    """A backend that returns its input, a little brighter, with the halo of a network."""

    scale, multiple, name, note = 1, 1, "copy", None
    fixed_shape: FixedShape | None = None
    frees_activations = True
    device = torch.device("cpu")

    def __init__(self, halo: int) -> None:
        self.halo = halo

    def __call__(self, degraded: Tensor) -> Tensor:
        return degraded + 1 / 255  # unchanged, every sample would be compared, see `warn_about_change`

    def working_bytes(self, shape: Shape, *, available_bytes: int = 0) -> int:
        return 8 * int(np.prod(shape))

    def device_bytes(self, shape: Shape, *, available_bytes: int = 0) -> int:
        return 0

    def fingerprint(self) -> str:
        return self.name


def run(threads: int, rounds: int) -> None:
    """Print a table for all cases."""
    torch.set_num_threads(threads)
    os.environ.setdefault("VIPS_CONCURRENCY", "1")
    print("| folder | way | CPU s | x libvips | pictures/s | x libvips |\n|---|---|--:|--:|--:|--:|")
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            source = Path(name, "in")
            _fill(source, case)
            ways: dict[str, Callable[[Path], None]] = {"libvips": partial(_transcode, source, threads)}
            for recipe_name in RECIPES:
                recipe = registry.find(recipe_name)
                restorer = Restorer("copy", recipe, CopyBackend(recipe.network().halo))
                ways[recipe_name] = partial(_restore, source, restorer)
            _print_rows(case, _measure(ways, Path(name, "out"), rounds))


def _measure(ways: dict[str, Callable[[Path], None]], out: Path, rounds: int) -> dict[str, tuple[float, float]]:
    """For each way, the least CPU time and wall time in seconds."""
    best: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            way(out)
            wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
            cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            least = best.get(name, (cpu_s, wall_s))
            best[name] = min(least[0], cpu_s), min(least[1], wall_s)
            shutil.rmtree(out)
    return best


def _print_rows(case: Case, found: dict[str, tuple[float, float]]) -> None:
    least_cpu_s, least_wall_s = found["libvips"]
    for name, (cpu_s, wall_s) in found.items():
        print(
            f"| {case.count} of {case.title} | {name} | {cpu_s:.2f} | {cpu_s / least_cpu_s:.2f} "
            f"| {case.count / wall_s:.2f} | {least_wall_s / wall_s:.2f} |",
            flush=True,
        )


def _fill(folder: Path, case: Case) -> None:
    folder.mkdir()
    rows, cols, planes = np.ogrid[: case.height, : case.width, :3]
    for number in range(case.count):
        samples = 128 + 90 * np.sin(rows / 17 + planes + number) * np.cos(cols / 23 - planes)
        samples += np.random.default_rng(number).normal(0, 4, samples.shape)
        samples = samples.clip(0, 255).astype(np.uint8)
        image = pyvips.Image.new_from_array(samples if case.bits == 8 else samples.astype(np.uint16) * 257)
        image.write_to_file(str(folder / f"{number:04}{case.suffix}"), **_options(case.suffix))


def _transcode(source: Path, threads: int, out: Path) -> None:
    out.mkdir()

    def run_one(path: Path) -> None:
        image = pyvips.Image.new_from_file(str(path), access="sequential")
        image.write_to_file(str(out / path.name), **_options(path.suffix))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run_one, sorted(source.iterdir())))


def _options(suffix: str) -> dict[str, Any]:
    return {"Q": QUALITY} if suffix == ".jpg" else {}


def _restore(source: Path, restorer: Restorer, out: Path) -> None:
    errors = [outcome.error for outcome in restore(source, restorer, out) if outcome.error]
    if errors:
        raise SystemExit(f"{len(errors)} not restored, e.g. {errors[0]}")
