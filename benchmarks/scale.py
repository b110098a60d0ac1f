"""What several computers cost and gain: python benchmarks/scale.py [PART]

    overhead   seconds for each picture: a plain loop, restore, and restore on Ray with one worker
    nodes      pictures per second on Ray: one worker, two workers, and two computers that Ray simulates
    dispatch   items per second that the driver can assign and collect, with workers that do nothing
    keys       a million names in a bucket: planning, resuming with a finished manifest, memory; the server is not
               part of it
    files      40,000 local files: planning, and the part of it that finds out real paths
    store      megabytes per second that the driver of `prepare --on` copies from the parts of the workers

Without an argument: all of them, each in its own process, and then the arithmetic for 100 computers of 16 workers
each, with what limits them first. `overhead`, `nodes` and `dispatch` need the extra ray. Two cores are enough;
figures of busy machines vary by a third.
"""

import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pellucid.clusters.team import Requirements, run_team
from pellucid.data import store
from pellucid.data.archives import Source
from pellucid.data.dataset import picture_task
from pellucid.data.store_parts import copy_arrays, open_part
from pellucid.data.store_writer import Stamp as SourceStamp
from pellucid.data.store_writer import StoreReader, StoreWriter
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.restoration import planning
from pellucid.restoration.loading import Loading
from pellucid.restoration.manifest import Manifests, Request
from pellucid.restoration.on_cluster import iter_restore_on
from pellucid.restoration.restore import iter_restore
from pellucid.restoration.restorer import Restorer, load
from pellucid.restoration.settings import Settings
from pellucid.storage import objects
from pellucid.storage.urls import Tag, Url

MODEL, NUM_PICTURES, SIDE_PX = "srcnn-x2", 120, 96
NUM_ITEMS, NUM_KEYS, NUM_FILES = 20_000, 1_000_000, 40_000
NUM_ARRAYS, ARRAY_PX = 200, 1024

NUM_COMPUTERS, WORKERS_EACH = 100, 16
KEYS_PER_LISTING, LISTING_S = 1000, 0.1
"""Of S3: a listing returns this many keys, one after the other, and takes about this long."""

Figures = dict[str, float]


def main() -> None:
    parts: dict[str, Callable[[], Figures]] = {
        "overhead": measure_overhead,
        "nodes": measure_nodes,
        "dispatch": measure_dispatch,
        "keys": measure_keys,
        "files": measure_files,
        "store": measure_store,
    }
    if len(sys.argv) == 2 and sys.argv[1] in parts:
        print(json.dumps(parts[sys.argv[1]]()))
        return
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    figures: Figures = {}
    for part in parts:
        command = [sys.executable, __file__, part]
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        own: Figures = json.loads(output.splitlines()[-1])
        for name, value in own.items():
            print(f"{part:9} {name:45} {value:12.4g}", flush=True)
        figures |= own
    for line in extrapolate(figures):
        print(line)


def measure_overhead() -> Figures:
    with _pictures() as folder:
        restorer = load(MODEL, device="cpu")
        loop = _measure(_loop(folder, restorer, folder.parent / "loop"), NUM_PICTURES)
        jobs = planning.plan(folder, folder.parent / "here", model=restorer.name)
        here = _measure(iter_restore(jobs, restorer), NUM_PICTURES)
        with _cluster(1):
            on_ray = _measure(_restore_on_ray(folder, folder.parent / "ray", restorer), NUM_PICTURES)
    return {
        "plain loop, CPU ms per picture": 1e3 * loop.cpu_s,
        "restore, CPU ms per picture": 1e3 * here.cpu_s,
        "restore --on ray, CPU ms per picture": 1e3 * on_ray.cpu_s,
        "first result of a running Ray, s": on_ray.first_s,
    }


def measure_nodes() -> Figures:
    figures: Figures = {}
    with _pictures() as folder:
        restorer = load(MODEL, device="cpu")
        for name, cpus in {"1 worker": [1], "2 workers": [2], "2 computers": [1, 1]}.items():
            with _cluster(*cpus):
                results = _restore_on_ray(folder, folder.parent / name, restorer)
                figures[f"{name}, pictures per s"] = 1 / _measure(results, NUM_PICTURES).wall_s
    return figures


class Idle:
    """Makes a worker that does nothing."""

    def __call__(self) -> "Idle":
        return self

    def work(self, items: Sequence[Any]) -> Iterator[tuple[int, None]]:
        return ((index, None) for index in range(len(items)))

    def close(self) -> None: ...


def measure_dispatch() -> Figures:
    with _cluster(2):
        idle = _measure(run_team("ray", Idle(), range(NUM_ITEMS), Requirements(10**8)), NUM_ITEMS)
    return {"items per s": 1 / idle.wall_s}


def measure_keys() -> Figures:
    """All names are synthetic, and so is the server."""
    bucket = Url("s3", "bucket", "", is_folder=True)
    objects.list_objects = _list_keys
    vars(objects)["open_store"] = _refuse
    started_bytes = _used_bytes()
    start = time.perf_counter()
    jobs = planning.plan((bucket / "in").as_folder(), (bucket / "out").as_folder(), model="m")
    figures = {"planning a million keys, s": time.perf_counter() - start}
    figures["planning, KB per key"] = (_used_bytes() - started_bytes) / len(jobs) / 1e3

    settings = Request({"weights": "0"}, "m")
    _write_manifest(settings.settings_sha256)
    start = time.perf_counter()
    with closing(Manifests(settings, False)) as manifests:
        num_done = sum(manifests.is_done(job) for job in jobs)
    assert num_done == NUM_KEYS, num_done
    figures["resuming with a finished manifest, s"] = time.perf_counter() - start
    figures["peak memory, KB per key"] = (_peak_bytes() - started_bytes) / len(jobs) / 1e3
    return figures


def measure_files() -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "in")
        for number in range(NUM_FILES):
            path = inputs / f"{number // 1000:03}" / f"{number:06}.png"
            if number % 1000 == 0:
                path.parent.mkdir(parents=True)
            path.write_bytes(b"\x89PNG\r\n\x1a\n")
        real_path, spent = os.path.realpath, [0.0, 0]

        def measured(path: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            found = real_path(path, **keywords)
            spent[0] += time.perf_counter() - start
            spent[1] += 1
            return found

        start = time.perf_counter()
        jobs = planning.plan(inputs, Path(folder, "out"), model="m")
        plan_s = time.perf_counter() - start
        os.path.realpath = measured  # type: ignore[assignment]  # counts the calls
        planning.plan(inputs, Path(folder, "out"), model="m")
    return {
        "planning, s": plan_s,
        "real paths, s": spent[0],
        "real paths, calls per file": spent[1] / len(jobs),
    }


def measure_store() -> Figures:
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 256, (ARRAY_PX, ARRAY_PX, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        out, names = Path(folder, "store"), [f"{number}.png" for number in range(NUM_ARRAYS)]
        tasks = [picture_task(Source(name, name, 1, 1, bytes)) for name in names]
        with StoreWriter(out, {}) as writer, open_part(out, "ray-1", {}, {}, []) as part:
            for name in names:
                part.put(name, SourceStamp(1, 1, ""), samples)
            part.sync()
            start = time.perf_counter()
            assert not copy_arrays([StoreReader(part.folder)], tasks, writer)
            writer.sync()
            seconds = time.perf_counter() - start
        assert store.shard_path(out, 0).stat().st_size >= NUM_ARRAYS * samples.nbytes
    return {"copying, MB per s": NUM_ARRAYS * samples.nbytes / 1e6 / seconds}


def extrapolate(figures: Figures) -> Iterator[str]:
    """What 100 computers would need from one driver, for pictures that take more or less time.

    Two workers were measured. With 1,600, the driver handles replies of many at once, but waits for more calls.
    """
    workers = NUM_COMPUTERS * WORKERS_EACH
    dispatch, plan_s = figures["items per s"], figures["planning a million keys, s"]
    listing_s = NUM_KEYS / KEYS_PER_LISTING * LISTING_S
    yield f"{NUM_COMPUTERS} computers with {WORKERS_EACH} workers each, {NUM_KEYS:,} pictures in a bucket:"
    for picture_s in (0.05, 0.5, 5.0):
        wanted = workers / picture_s
        work_s = NUM_KEYS / min(wanted, dispatch)
        limit = "the driver, which assigns" if wanted > dispatch else "the workers"
        used = NUM_KEYS * picture_s / workers / (listing_s + plan_s + work_s)
        yield (
            f"  {picture_s} s per picture: {(listing_s + plan_s) / 60:.1f} min to list and plan, "
            f"{work_s / 60:.1f} min of work, {used:.0%} of the workers' time used; limit: {limit} "
            f"({wanted:.0f} pictures per s are possible, {dispatch:.0f} can be assigned)"
        )
    copied = figures["copying, MB per s"]
    yield f"  prepare: the driver copies {copied:.0f} MB per s, {copied / 3:.0f} megapixels of 8-bit RGB"


def _loop(folder: Path, restorer: Restorer, out: Path) -> Iterator[None]:
    """What anybody would write."""
    out.mkdir()
    for path in sorted(folder.iterdir()):
        restored = restorer.restore(images.read(path))
        assert isinstance(restored, Picture)
        images.write(restored, out / path.name)
        yield


@dataclass(frozen=True)
class Times:
    """Per result, without the first tenth. cpu_s: see `_cpu_s`."""

    wall_s: float
    cpu_s: float
    first_s: float


def _measure(results: Iterator[Any], count: int) -> Times:
    start, first_s, started = time.perf_counter(), 0.0, (0.0, 0.0)
    for number, _ in enumerate(results, start=1):
        now = time.perf_counter()
        if number == 1:
            first_s = now - start
        if number == count // 10:
            started = now, _cpu_s()
        if number == count:  # before the processes end
            wall_s, cpu_s = now - started[0], _cpu_s() - started[1]
    num_measured = count - count // 10
    return Times(wall_s / num_measured, cpu_s / num_measured, first_s)


def _cpu_s() -> float:
    """Of this process, and of all processes of Ray on this computer, which are not its children."""
    found = [psutil.Process().cpu_times()]
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if command.startswith("ray::") or "/ray/" in command:
            with suppress(psutil.Error):
                found.append(process.cpu_times())
    return float(sum(each.user + each.system for each in found))


def _restore_on_ray(folder: Path, out: Path, restorer: Restorer) -> Iterator[Any]:
    jobs = planning.plan(folder, out, model=restorer.name)
    return iter_restore_on("ray", jobs, restorer, Loading(MODEL, device="cpu"), Settings())


@contextmanager
def _pictures() -> Iterator[Path]:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        for number in range(NUM_PICTURES):
            samples = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
            images.write(Picture(samples), Path(place, "in", f"{number:03}.png"))
        yield Path(place, "in")


@contextmanager
def _cluster(*cpus: int) -> Iterator[None]:
    """A Ray of computers with so many CPUs, simulated on this one, to which this process is connected."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {"object_store_memory": 80 * 2**20}
    head = {**options, "num_cpus": cpus[0], "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for count in cpus[1:]:
            cluster.add_node(num_cpus=count, **options)
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def _list_keys(folder: Url) -> Iterator[Url]:
    """Inputs, or results and their manifests."""
    tag = Tag('"d41d8cd98f00b204e9800998ecf8427e"', 12_345)
    if folder.key == "in":
        for number in range(NUM_KEYS):
            yield Url("s3", "bucket", f"in/{number // 1000:04}/{number:07}.png", tag=tag)
    elif folder.key == "out" and _manifests:
        for number in range(NUM_KEYS):
            yield Url("s3", "bucket", f"out/{number // 1000:04}/{number:07}.png", tag=tag)
        yield from (Url("s3", "bucket", key, tag=tag) for key in _manifests)


_manifests: dict[str, bytes] = {}


def _write_manifest(settings: str) -> None:
    """The manifests of a finished run, in objects of 2000 entries."""
    tag = ['"d41d8cd98f00b204e9800998ecf8427e"', 12_345]
    for start in range(0, NUM_KEYS, 2000):
        lines = []
        for number in range(start, start + 2000):
            name = f"{number // 1000:04}/{number:07}.png"
            entry = {"target": name, "source": [f"{number:07}.png", *tag], "place": f"s3://bucket/in/{name}"}
            lines.append(json.dumps({**entry, "settings": settings, "model": "m", "result": tag}))
        _manifests[f"out/.pellucid/{start:09}.jsonl"] = "\n".join(lines).encode()
    objects.read = lambda url: (_manifests[url.key], Tag("", 0))


def _refuse(*_: object) -> Any:
    raise AssertionError("this asks the server for a single object")


def _used_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
