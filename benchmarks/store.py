"""Random crops per second from a store and from other formats, and the memory that a store needs.

    python benchmarks/store.py
    python benchmarks/store.py --sony       # also memory, with a store as large as Sony's See in the Dark

Crops of 256 x 256 px from 20 pictures of 1280 x 720 px, files in the system's cache, one thread. The formats take
turns; each number is the median of all rounds. Needs h5py and lmdb: pip install 'pellucid[bench]'.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import h5py
import lmdb
import numpy as np

from pellucid.data import store
from pellucid.data.preparing import prepare
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.pictures.samples import Samples

HEIGHT, WIDTH, CROP_PX, NUM_PICTURES, NUM_ROUNDS = 720, 1280, 256, 20, 5
ROUND_S = 0.5

SONY_PX, NUM_SCENES, NUM_SHORTS, SONY_CROP_PX = (2848, 4256), 161, 280, 1024
NUM_DRAWS = 1500
LIMIT_GB = 8

Formats = dict[str, Callable[[int], Samples]]
"""Name of a format -> the picture of a number."""


def make_pictures() -> list[Samples]:
    """Smooth with a little noise, so that PNG compresses them like photographs."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] / 100
    waves = [np.sin(rows * a) * np.cos(columns * b) for a, b in rng.uniform(0.5, 3, (NUM_PICTURES, 2))]
    noise = rng.normal(0, 3, (HEIGHT, WIDTH, 3))
    return [np.clip(wave[..., None] * 90 + 128 + noise, 0, 255).astype(np.uint8) for wave in waves]


def write_formats(folder: Path) -> Formats:
    """The same pictures in each format."""
    names = []
    for i, samples in enumerate(make_pictures()):
        names.append(folder / "png" / f"{i:02}.png")
        images.write(Picture(samples), names[-1])
    made = prepare("folder", [folder / "png"], folder / "store").store
    contiguous, chunked = _write_hdf5(folder, made)
    raw, packed = _write_lmdb(folder, made, names)
    shape = made.target(0).shape
    scratch = folder / "one.png"

    def decode(i: int) -> Samples:
        with packed.begin() as values:
            scratch.write_bytes(values.get(b"%d" % i, b""))
        return images.read(scratch).samples

    def read_raw(i: int) -> Samples:
        with raw.begin(buffers=True) as values:
            return np.frombuffer(values.get(b"%d" % i, b""), np.uint8).reshape(shape)

    return {
        "PNG, decoded and cropped": lambda i: images.read(names[i]).samples,
        "LMDB of PNG": decode,
        "HDF5, gzip in chunks of 128 px": lambda i: chunked[str(i)],
        "HDF5, contiguous": lambda i: contiguous[str(i)],
        "LMDB of raw samples": read_raw,
        "store": made.target,
    }


def _write_hdf5(folder: Path, made: store.Store) -> tuple[h5py.File, h5py.File]:
    contiguous, chunked = (h5py.File(folder / name, "w") for name in ("contiguous.h5", "chunked.h5"))
    for i in range(len(made)):
        contiguous[str(i)] = made.target(i)
        chunked.create_dataset(str(i), data=made.target(i), chunks=(128, 128, 3), compression="gzip")
    return contiguous, chunked


def _write_lmdb(folder: Path, made: store.Store, names: list[Path]) -> tuple[lmdb.Environment, lmdb.Environment]:
    raw, packed = (lmdb.open(str(folder / name), map_size=2**30) for name in ("raw.lmdb", "png.lmdb"))
    for i, name in enumerate(names):
        with raw.begin(write=True) as values:
            values.put(b"%d" % i, made.target(i).tobytes())
        with packed.begin(write=True) as values:
            values.put(b"%d" % i, name.read_bytes())
    return raw, packed


def measure_crops_per_s(picture: Callable[[int], Samples], rng: np.random.Generator) -> float:
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < ROUND_S:
        row, column = int(rng.integers(HEIGHT - CROP_PX + 1)), int(rng.integers(WIDTH - CROP_PX + 1))
        samples = picture(int(rng.integers(NUM_PICTURES)))
        np.array(samples[row : row + CROP_PX, column : column + CROP_PX])
        count += 1
    return count / (time.perf_counter() - start)


def compare_formats(folder: Path) -> None:
    rng = np.random.default_rng(1)
    formats = write_formats(folder)
    speeds: dict[str, list[float]] = {name: [] for name in formats}
    for _ in range(NUM_ROUNDS):
        for name, picture in formats.items():
            speeds[name].append(measure_crops_per_s(picture, rng))
    slowest = median(next(iter(speeds.values())))
    print(f"{'':32} crops/s   speedup over PNG")
    for name, each in speeds.items():
        print(f"{name:32} {median(each):7.0f} {median(each) / slowest:7.1f}")


def make_sparse_store(folder: Path) -> Path:
    """A store with sparse files, as large as See in the Dark's Sony training set."""
    height, width = SONY_PX
    shapes = [(height, width, 3)] * NUM_SCENES + [(height, width)] * NUM_SHORTS
    metadata = {"pattern": ["RG", "GB"], "black_level": 512.0, "white_level": 16383.0}
    arrays, ends = [], [0]
    for shape in shapes:
        row = store.Array(len(ends) - 1, ends[-1], "uint16", shape, "", metadata if len(shape) == 2 else None)
        if ends[-1] + row.num_bytes > 2**31:
            ends.append(0)
            row = store.Array(len(ends) - 1, 0, "uint16", shape, "", row.metadata)
        ends[-1] += row.num_bytes
        arrays.append(row.to_json())
    items = [store.Item(f"{i}", i % NUM_SCENES, NUM_SCENES + i, 300.0).to_json() for i in range(NUM_SHORTS)]
    index = {"format": store.FORMAT, "version": store.VERSION, "kind": "raw", "shards": ends}
    folder.mkdir()
    for i, end in enumerate(ends):
        with store.shard_path(folder, i).open("wb") as file:
            file.truncate(end)
    (folder / store.INDEX).write_text(json.dumps(index | {"arrays": arrays, "items": items, "left_out": []}))
    return folder


def draw_crops(
    folder: Path, releases_pages: bool, results: "multiprocessing.Queue[tuple[float, float, float]]"
) -> None:
    """Run in a process of its own. Results: memory before and at its peak in GB, and draws per second."""
    if not releases_pages:
        store.RESIDENT_BYTES = sys.maxsize
    rng = np.random.default_rng(0)
    made = store.open(folder)
    before_gb = peak_memory_gb()
    start = time.perf_counter()
    for _ in range(NUM_DRAWS):
        i = int(rng.integers(len(made)))
        row, column = (int(rng.integers(size - SONY_CROP_PX)) // 2 * 2 for size in SONY_PX)
        inside = slice(row, row + SONY_CROP_PX), slice(column, column + SONY_CROP_PX)
        np.array(made.target(i)[inside])
        np.array(made.mosaic(i).crop(*inside).samples)
    results.put((before_gb, peak_memory_gb(), NUM_DRAWS / (time.perf_counter() - start)))


def read_through(folder: Path) -> None:
    """Load files into the system's cache, as far as they fit."""
    for path in folder.glob("*.bin"):
        with path.open("rb") as file:
            while file.read(2**24):
                pass


def peak_memory_gb() -> float:
    """Peak memory of this process so far, including mapped pages."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith("VmHWM"))


def measure_memory(folder: Path) -> None:
    sony = make_sparse_store(folder / "sony")
    read_through(sony)
    print(f"\nSony's training set: {store.open(sony).num_bytes / 1e9:.1f} GB of samples; {NUM_DRAWS} draws of a")
    print(f"{SONY_CROP_PX} px crop from a mosaic and its target; peak memory, including mapped pages")
    context = multiprocessing.get_context("spawn")
    for releases_pages in (True, False):
        results: multiprocessing.Queue[tuple[float, float, float]] = context.Queue()
        process = context.Process(target=draw_crops, args=(sony, releases_pages, results))
        process.start()
        before_gb, peak_gb, draws = results.get()
        process.join()
        name = "store" if releases_pages else "store, never releasing pages"
        print(f"{name:32} {peak_gb:5.2f} GB, of which {before_gb:.2f} before the first draw; {draws:.0f} draws/s")
        if releases_pages and peak_gb > LIMIT_GB:
            raise SystemExit(f"more than {LIMIT_GB} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sony", action="store_true", help="also memory, with a sparse store as large as the Sony set"
    )
    measures_memory: bool = parser.parse_args().sony
    with tempfile.TemporaryDirectory() as folder:
        compare_formats(Path(folder))
        if measures_memory:
            measure_memory(Path(folder))


if __name__ == "__main__":
    main()
