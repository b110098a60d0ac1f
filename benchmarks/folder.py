"""A folder of JPEGs end to end, compared with a plain loop, and the time until the first picture is restored.

    python benchmarks/folder.py --count 200 --model srcnn-x2 --threads 1

The loop: Pillow decodes, the network runs eagerly on the whole picture, one picture after the other. Each method
runs in its own process, in turns; the fastest round of each counts. CPU seconds depend least on other load of the
machine. The last line reports how much of decoding and encoding overlaps with the network.

    python benchmarks/folder.py --null --threads 2     # what is spent outside of the network; see null.py
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
"""Width and height, mostly small; every fortieth picture has a megapixel, every fourth is gray."""

LARGE = (1152, 864)
QUALITY = 90
RESTORE = (sys.executable, "-m", "pellucid", "restore")


@dataclass(frozen=True)
class Usage:
    """CPU time and wall time of a process, in seconds."""

    cpu_s: float
    wall_s: float


def make_photo(width: int, height: int, seed: int, *, gray: bool) -> PIL.Image.Image:
    """Waves with a little noise."""
    rng = np.random.default_rng(seed)
    rows, cols, planes = np.ogrid[:height, :width, : 1 if gray else 3]
    samples = 128 + 90 * np.sin(rows / 17 + planes + seed) * np.cos(cols / 23 - planes)
    samples = (samples + rng.normal(0, 8, samples.shape)).clip(0, 255).astype(np.uint8)
    return PIL.Image.fromarray(samples[..., 0] if gray else samples)


def make_folder(folder: Path, count: int) -> float:
    """Fill a folder. Returns the megapixels in it."""
    folder.mkdir()
    pixels = 0
    for i in range(count):
        width, height = LARGE if i % 40 == 20 else SIZES[i % len(SIZES)]
        make_photo(width, height, i, gray=i % 4 == 3).save(folder / f"{i:04}.jpg", quality=QUALITY)
        pixels += width * height
    return pixels / 1e6


def run_loop(source: Path, out: Path, model: str) -> None:
    """In this process: a plain loop, for networks of gray, RGB or luma."""
    import torch
    from torch import Tensor

    from pellucid.weights import checkpoint, models

    loaded = checkpoint.load(models.find_model(model))
    network, domain = loaded.network, loaded.recipe.domain
    colors, rate = domain.colors, int(domain.rate)
    out.mkdir()

    def to_tensor(image: PIL.Image.Image) -> Tensor:
        samples = np.asarray(image, np.float32).reshape(image.height, image.width, -1)
        return torch.from_numpy(samples).permute(2, 0, 1)[None] / 255

    def to_image(planes: Tensor) -> PIL.Image.Image:
        samples = (planes.clamp(0, 1) * 255).round().byte()[0].permute(1, 2, 0).numpy()
        return PIL.Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)

    def restore(image: PIL.Image.Image) -> PIL.Image.Image:
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
                restore(image).save(out / path.name, quality=QUALITY)


def measure_overlap(source: Path, out: Path, model: str) -> str:
    """In this process: how much reading and writing overlaps with the network, as a line of text."""
    from pellucid.pictures import images
    from pellucid.restoration import restore, restorer, stages
    from pellucid.restoration.one_picture import restore_picture

    spans: dict[str, list[tuple[float, float]]] = {"codec": [], "network": []}

    def time_stage(stage: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def run_and_record(*given: Any, **how: Any) -> Any:
            start = time.perf_counter()
            try:
                return run(*given, **how)
            finally:
                spans[stage].append((start, time.perf_counter()))

        return run_and_record

    chosen = restorer.load(model)
    for name in ("read", "write"):
        setattr(images, name, time_stage("codec", getattr(images, name)))
    vars(stages)["restore_picture"] = time_stage("network", restore_picture)
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


def measure(command: list[str], threads: int) -> Usage:
    """CPU and wall time of a command in a child process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Usage(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s)


@contextmanager
def new_path() -> Iterator[str]:
    """A path for results that does not exist yet."""
    with tempfile.TemporaryDirectory() as folder:
        yield str(Path(folder, "out"))


def compare(ways: dict[str, list[str]], threads: int, rounds: int) -> dict[str, Usage]:
    """The lowest CPU and wall time of each command. OUT in a command is replaced by a new path."""
    best: dict[str, Usage] = {}
    for _ in range(rounds):
        for name, command in ways.items():
            with new_path() as out:
                found = measure([out if part == "OUT" else part for part in command], threads)
            least = best.get(name, found)
            best[name] = Usage(min(least.cpu_s, found.cpu_s), min(least.wall_s, found.wall_s))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="pictures in the folder")
    parser.add_argument("--model", default="srcnn-x2")
    parser.add_argument("--backends", nargs="*", default=["torch", "openvino"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--null", action="store_true", help="without the work of a network, against libvips")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.null:
        import null

        null.run(args.threads, args.rounds)
        return
    if args.one:
        way, source, out = args.one
        if way == "loop":
            run_loop(Path(source), Path(out), args.model)
        else:
            print(measure_overlap(Path(source), Path(out), args.model))
        return
    with tempfile.TemporaryDirectory() as name:
        album, single = Path(name, "album"), Path(name, "single")
        megapixels = make_folder(album, args.count)
        make_folder(single, 1)
        machine = f"{os.cpu_count()} cores, {args.threads} thread(s)"
        print(f"{args.count} JPEGs, {megapixels:.1f} MP, {args.model}, {machine}\n", flush=True)
        print_table(args, album, args.count, "folder")
        print_table(args, single, 1, "first picture")
        own = [sys.executable, __file__, "--model", args.model, "--one"]
        with new_path() as out:
            environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
            subprocess.run([*own, "overlap", str(album), out], check=True, env=environment)


def print_table(args: argparse.Namespace, folder: Path, count: int, title: str) -> None:
    """Times of each method for a folder, compared with the loop; for one picture also those of starting up."""
    own = [sys.executable, __file__, "--model", args.model, "--one"]
    restore = [*RESTORE, str(folder), "--model", args.model, "--out", "OUT", "--backend"]
    ways = {"plain loop": [*own, "loop", str(folder), "OUT"]}
    ways |= {f"pellucid restore, {backend}": [*restore, backend] for backend in args.backends}
    if count == 1:
        ways |= {
            "import torch": [sys.executable, "-c", "import torch"],
            "pellucid --version": [sys.executable, "-m", "pellucid", "--version"],
        }
    found = compare(ways, args.threads, args.rounds)
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
