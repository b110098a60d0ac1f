"""Peak memory of restoring a large picture, compared with the limit: resident set of a child process.

    python benchmarks/memory.py --megapixels 100 --memory 2GB --model dncnn.gaussian --limit

Writes a 16-bit RGB TIFF of that size (noise, which does not compress), restores it with untrained weights by the
command line in a child process, and reads the peak of the child from the kernel. With --limit, the kernel also
refuses the child more private memory than the limit (RLIMIT_DATA).
"""

import argparse
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pellucid.commands import options
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.recipes.registry import find
from pellucid.system import memory
from pellucid.weights import checkpoint


def make_picture(megapixels: float, seed: int = 0) -> Picture:
    """Noise, made strip by strip."""
    side = math.isqrt(int(megapixels * 1e6))
    samples = memory.allocate((side, side, 3), "uint16")
    rng = np.random.default_rng(seed)
    for top in range(0, side, 256):
        strip = samples[top : top + 256]
        strip[:] = rng.integers(0, 65536, strip.shape, np.uint16)
        memory.release(samples)
    return Picture(samples)


def write_weights(name: str, folder: Path) -> Path:
    """A weight file of the recipe, untrained."""
    recipe = find(name.partition(" ")[0], **dict(pair.split("=") for pair in name.split()[1:]))
    path = folder / "untrained.safetensors"
    checkpoint.save(
        path, recipe.network(), checkpoint.WeightsMetadata(recipe.name, recipe.parameters, "untrained", "none")
    )
    return path


def restore(
    source: Path, target: Path, model: Path, options: list[str], limit_bytes: int | None
) -> tuple[float, float]:
    """(peak resident bytes, seconds) of the command line in a child process.

    The kernel's value is never below the peak of this process, which is small.
    """

    def set_limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

    command = [sys.executable, "-m", "pellucid", "restore", str(source), "--model", str(model)]
    start = time.monotonic()
    process = subprocess.Popen([*command, "--out", str(target), "--overwrite", *options], preexec_fn=set_limit)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024, time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=100)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--model", default="dncnn.gaussian", help="a recipe, with its keywords")
    parser.add_argument("--suffix", default=".tif")
    parser.add_argument("--limit", action="store_true", help="also enforce the limit on private memory")
    parser.add_argument("--unlimited", action="store_true", help="also run without a limit, to compare times")
    parser.add_argument("--folder", type=Path, help="where the pictures are written")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        source = folder / f"large{args.suffix}"
        images.write(make_picture(args.megapixels), source)
        model = write_weights(args.model, folder)
        limit_bytes = options.parse_bytes(args.memory)
        print(f"{args.model}, {args.megapixels:g} MP, {source.stat().st_size / 1e6:.0f} MB {args.suffix}")
        limit = limit_bytes if args.limit else None
        peak, seconds = restore(source, folder / f"a{args.suffix}", model, ["--memory", args.memory], limit)
        print(f"limit {args.memory}: peak {peak / 1e6:.0f} MB, {seconds:.0f} s", flush=True)
        if args.unlimited:
            free_peak, free_s = restore(source, folder / f"b{args.suffix}", model, [], None)
            print(f"unlimited: peak {free_peak / 1e6:.0f} MB, {free_s:.0f} s; limited {seconds / free_s:.2f}x")


if __name__ == "__main__":
    main()
