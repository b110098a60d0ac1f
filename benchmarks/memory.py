"""How much memory restoring takes, against what was promised: peak resident set of a process, from outside.

    python benchmarks/memory.py --megapixels 100 --memory 2GB --model dncnn.gaussian --limit

Writes a 16-bit RGB TIFF of that size (a repeated photograph would compress well; noise does not), restores it
with untrained weights by the command line in a child process, and reads the child's peak from the kernel.
With --limit, the kernel also refuses the child more private memory than the ceiling (RLIMIT_DATA).
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


def picture(megapixels: float, seed: int = 0) -> Picture:
    """Noise, made strip by strip."""
    side = math.isqrt(int(megapixels * 1e6))
    samples = memory.allocate((side, side, 3), "uint16")
    rng = np.random.default_rng(seed)
    for top in range(0, side, 256):
        strip = samples[top : top + 256]
        strip[:] = rng.integers(0, 65536, strip.shape, np.uint16)
        memory.release(samples)
    return Picture(samples)


def weights(name: str, folder: Path) -> Path:
    """A weight file of the recipe, untrained."""
    recipe = find(name.partition(" ")[0], **dict(pair.split("=") for pair in name.split()[1:]))
    path = folder / "untrained.safetensors"
    checkpoint.save(
        path, recipe.network(), checkpoint.WeightsMetadata(recipe.name, recipe.parameters, "untrained", "none")
    )
    return path


def restored(
    source: Path, target: Path, model: Path, options: list[str], limit_bytes: int | None
) -> tuple[float, float]:
    """(peak resident bytes, seconds) of the command line in a child process.

    The peak that the kernel gives is never below that of this process, which is small.
    """

    def limited() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

    command = [sys.executable, "-m", "pellucid", "restore", str(source), "--model", str(model)]
    start = time.monotonic()
    process = subprocess.Popen([*command, "--out", str(target), "--overwrite", *options], preexec_fn=limited)
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
    parser.add_argument("--limit", action="store_true", help="enforce the ceiling on private memory, too")
    parser.add_argument("--unlimited", action="store_true", help="also run without a ceiling, for the cost")
    parser.add_argument("--folder", type=Path, help="where the pictures are written")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        source = folder / f"large{args.suffix}"
        images.write(picture(args.megapixels), source)
        model = weights(args.model, folder)
        ceiling = options.parse_bytes(args.memory)
        print(f"{args.model}, {args.megapixels:g} MP, {source.stat().st_size / 1e6:.0f} MB {args.suffix}")
        limit = ceiling if args.limit else None
        peak, seconds = restored(source, folder / f"a{args.suffix}", model, ["--memory", args.memory], limit)
        print(f"ceiling {args.memory}: peak {peak / 1e6:.0f} MB, {seconds:.0f} s", flush=True)
        if args.unlimited:
            free_peak, free_s = restored(source, folder / f"b{args.suffix}", model, [], None)
            print(f"no ceiling: peak {free_peak / 1e6:.0f} MB, {free_s:.0f} s; it costs {seconds / free_s:.2f}x")


if __name__ == "__main__":
    main()
