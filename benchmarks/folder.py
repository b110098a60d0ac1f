"""A folder of JPEGs end to end, against the loop that one writes first; and how soon the first picture is there.

    python benchmarks/folder.py --count 200 --model srcnn-x2 --threads 1

The loop: Pillow opens, the network runs eagerly on the whole picture, one picture after the other. Every way runs
in a process of its own, in turns; of each the fastest round counts. Seconds of the processor are what others on a
machine disturb least. The last line tells how much of decoding and encoding goes on while the network computes.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

SIZES = ((96, 72), (128, 128), (160, 120), (240, 320), (320, 240), (128, 96), (512, 384), (100, 150), (640, 480))
"""Width and height, most of them small; every fortieth picture has a megapixel, every fourth is gray."""

LARGE = (1152, 864)
QUALITY = 90
RESTORE = (sys.executable, "-m", "pellucid", "restore")


@dataclass(frozen=True)
class Taken:
    """What a process took, in seconds: of the processor, and of the clock."""

    cpu_s: float
    wall_s: float


def photo(width: int, height: int, seed: int, *, gray: bool) -> PIL.Image.Image:
    """Waves with a little noise."""
    rng = np.random.default_rng(seed)
    rows, cols, planes = np.ogrid[:height, :width, : 1 if gray else 3]
    samples = 128 + 90 * np.sin(rows / 17 + planes + seed) * np.cos(cols / 23 - planes)
    samples = (samples + rng.normal(0, 8, samples.shape)).clip(0, 255).astype(np.uint8)
    return PIL.Image.fromarray(samples[..., 0] if gray else samples)


def make(folder: Path, count: int) -> float:
    """Fill a folder. Returns the megapixels in it."""
    folder.mkdir()
    pixels = 0
    for i in range(count):
        width, height = LARGE if i % 40 == 20 else SIZES[i % len(SIZES)]
        photo(width, height, i, gray=i % 4 == 3).save(folder / f"{i:04}.jpg", quality=QUALITY)
        pixels += width * height
    return pixels / 1e6


def loop(source: Path, out: Path, model: str) -> None:
    """In this process: the loop that one writes first, for networks of gray, RGB or luma."""
    import torch
    from torch import Tensor

    from pellucid.weights import checkpoint, models

    network, recipe, _ = checkpoint.load(models.find(model))
    network.eval()
    colors, rate = recipe.domain.colors, int(recipe.domain.rate)
    out.mkdir()

    def to_tensor(image: PIL.Image.Image) -> Tensor:
        samples = np.asarray(image, np.float32).reshape(image.height, image.width, -1)
        return torch.from_numpy(samples).permute(2, 0, 1)[None] / 255

    def to_image(planes: Tensor) -> PIL.Image.Image:
        samples = (planes.clamp(0, 1) * 255).round().byte()[0].permute(1, 2, 0).numpy()
        return PIL.Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)

    def restored(image: PIL.Image.Image) -> PIL.Image.Image:
        if colors == "rgb":
            return to_image(network(to_tensor(image.convert("RGB"))))
        if colors == "gray":  # plane by plane
            return to_image(network(to_tensor(image).transpose(0, 1)).transpose(0, 1))
        image = image.resize((image.width * rate, image.height * rate), PIL.Image.Resampling.BICUBIC)
        if image.mode == "L":
            return to_image(network(to_tensor(image)))
        luma, *chroma = image.convert("YCbCr").split()
        return PIL.Image.merge("YCbCr", [to_image(network(to_tensor(luma))), *chroma]).convert("RGB")

    with torch.inference_mode():
        for path in sorted(source.iterdir()):
            with PIL.Image.open(path) as image:
                restored(image).save(out / path.name, quality=QUALITY)


def overlap(source: Path, out: Path, model: str) -> str:
    """In this process: when pictures were read, restored and written, told in a line."""
    from pellucid.pictures import images
    from pellucid.restoration import restore, restorer

    spans: dict[str, list[tuple[float, float]]] = {"codec": [], "network": []}

    def timed(stage: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any, **how: Any) -> Any:
            start = time.perf_counter()
            try:
                return run(*given, **how)
            finally:
                spans[stage].append((start, time.perf_counter()))

        return noted

    chosen = restorer.load(model)
    for name in ("read", "write"):
        setattr(images, name, timed("codec", getattr(images, name)))
    setattr(chosen, "restore", timed("network", chosen.restore))  # noqa: B010  # mypy lets no method be replaced
    start = time.perf_counter()
    outcomes = restore.restore(source, chosen, out)
    wall_s = time.perf_counter() - start
    assert not any(outcome.error for outcome in outcomes)
    codec_s = sum(stop - begin for begin, stop in spans["codec"])
    network_s = sum(stop - begin for begin, stop in spans["network"])
    hidden_s = sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in spans["codec"] for b in spans["network"])
    return (
        f"overlap: of {wall_s:.1f} s the network works {network_s / wall_s:.1%}; decoding and encoding take "
        f"{codec_s:.1f} s, {hidden_s / codec_s:.1%} of them while it does"
    )


def taken(command: list[str], threads: int) -> Taken:
    """What a command takes, in a child process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    surroundings = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=surroundings)
    wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Taken(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s)


@contextmanager
def fresh() -> Iterator[str]:
    """Where results can go."""
    with tempfile.TemporaryDirectory() as folder:
        yield str(Path(folder, "out"))


def in_turns(ways: dict[str, list[str]], threads: int, rounds: int) -> dict[str, Taken]:
    """The least that each took of the processor and of the clock. OUT in a command is a new folder."""
    best: dict[str, Taken] = {}
    for _ in range(rounds):
        for name, command in ways.items():
            with fresh() as out:
                found = taken([out if part == "OUT" else part for part in command], threads)
            least = best.get(name, found)
            best[name] = Taken(min(least.cpu_s, found.cpu_s), min(least.wall_s, found.wall_s))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="pictures in the folder")
    parser.add_argument("--model", default="srcnn-x2")
    parser.add_argument("--backends", nargs="*", default=["torch", "openvino"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        way, source, out = args.one
        if way == "loop":
            loop(Path(source), Path(out), args.model)
        else:
            print(overlap(Path(source), Path(out), args.model))
        return
    with tempfile.TemporaryDirectory() as name:
        album, single = Path(name, "album"), Path(name, "single")
        megapixels = make(album, args.count)
        make(single, 1)
        machine = f"{os.cpu_count()} cores, {args.threads} thread(s)"
        print(f"{args.count} JPEGs, {megapixels:.1f} MP, {args.model}, {machine}\n", flush=True)
        table(args, album, args.count, "folder")
        table(args, single, 1, "first picture")
        own = [sys.executable, __file__, "--model", args.model, "--one"]
        with fresh() as out:
            surroundings = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
            subprocess.run([*own, "overlap", str(album), out], check=True, env=surroundings)


def table(args: argparse.Namespace, folder: Path, count: int, title: str) -> None:
    """What each way takes for a folder, against the loop; and what starting up takes, where that is all."""
    own = [sys.executable, __file__, "--model", args.model, "--one"]
    restore = [*RESTORE, str(folder), "--model", args.model, "--out", "OUT", "--backend"]
    ways = {"plain loop": [*own, "loop", str(folder), "OUT"]}
    ways |= {f"pellucid restore, {backend}": [*restore, backend] for backend in args.backends}
    if count == 1:
        ways |= {
            "import torch": [sys.executable, "-c", "import torch"],
            "pellucid --version": [sys.executable, "-m", "pellucid", "--version"],
        }
    found = in_turns(ways, args.threads, args.rounds)
    print(f"| {title} | cpu s | wall s | pictures/s | x loop, cpu | x loop, wall |\n|---|" + "--:|" * 5)
    for name, way in found.items():
        cpu, wall = found["plain loop"].cpu_s / way.cpu_s, found["plain loop"].wall_s / way.wall_s
        print(
            f"| {name} | {way.cpu_s:.2f} | {way.wall_s:.2f} | {count / way.wall_s:.2f} | {cpu:.2f} | {wall:.2f} |",
            flush=True,
        )
    print()


if __name__ == "__main__":
    main()
