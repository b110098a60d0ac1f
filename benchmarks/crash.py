"""Kill commands at random moments, and repeat them until they are done: python benchmarks/crash.py [--form FORM]

Forms: restore, prepare, train, each also with -bucket (an S3 server on this machine, SeaweedFS; needs `weed`); and
restore, prepare, evaluate with -ray (two computers of one CPU that Ray simulates on this machine; needs `ray`).
A command is killed by `kill -9` after a random time, between its start and its usual end, and started again
until it is done; then all is deleted and starts again, until it was killed often enough. With -ray, either the
command or one of its workers is killed, by chance; a command whose worker was killed continues. The results must
be those of a run that nobody killed; with -ray, those of one process without Ray.

Prints for each form: moments killed, how many of them were workers, results that are missing (lost), results that
differ (wrong), and the work that was done twice: pictures that were restored again after their result existed, and
steps of a training.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from object_server import BUCKET, ObjectServer
from pellucid.data.store import SOURCES
from pellucid.training.run_folder import read_metrics

NUM_PICTURES, NUM_PICTURES_RAY, NUM_STEPS = 24, 60, 100

PROGRAM = """
from pellucid.restoration import leases
from pellucid.storage import ownership
leases.LEASE_S = ownership.LEASE_S = 1.0  # otherwise most kills would come while a command waits for a minute
leases.RENEW_EVERY_S = 0.25
from pellucid.cli import main
main()
"""


@dataclass
class Form:
    """A command, and how its results are compared.

    collect: results by name. clear: deletes them. observe: when each result was written, if that can be known.
    reference: the arguments of the command whose results are expected; by default, the same.
    find_workers: the processes that work for the command, and can be killed in its place.
    """

    arguments: list[str]
    collect: Callable[[], dict[str, bytes]]
    clear: Callable[[], None]
    observe: Callable[[], dict[str, int]] = dict
    reference: list[str] | None = None
    find_workers: Callable[[], list[int]] = list
    seen: dict[str, int] = field(default_factory=dict)
    num_killed: int = 0
    num_workers_killed: int = 0
    num_lost: int = 0
    num_wrong: int = 0
    num_twice: int = 0
    num_steps: int = 0
    failures: list[str] = field(default_factory=list)

    def compare_times(self) -> None:
        """Count the results that were written again since the last call."""
        now = self.observe()
        self.num_twice += sum(now.get(name) != written for name, written in self.seen.items())
        self.seen = now


def run(
    form: Form,
    environment: dict[str, str],
    rng: random.Random,
    choose_limit: Callable[[], float | None],
    arguments: list[str] | None = None,
) -> bool:
    """Run a command with an empty cache, as on another machine. Returns whether it ended before it was killed.

    choose_limit: seconds until the next kill; None for no other one.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *(arguments or form.arguments)],
        env={**environment, "PELLUCID_CACHE": tempfile.mkdtemp(dir=environment["PELLUCID_CACHE"])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    output = None
    while output is None:
        try:
            output, _ = process.communicate(timeout=choose_limit())
        except subprocess.TimeoutExpired:
            kill_one(form, process.pid, rng)
            form.compare_times()
    assert output is not None
    form.num_steps += len(re.findall(r"^step \d+/", output, re.M))
    if process.returncode == -signal.SIGKILL:
        return False
    if process.returncode != 0:
        form.failures.append(output.strip().splitlines()[-1])
    return True


def kill_one(form: Form, command: int, rng: random.Random) -> None:
    """Kill the command with its children or, with the same probability, one of its workers if there are any."""
    workers = form.find_workers()
    form.num_killed += 1
    if workers and rng.random() < 0.5:
        form.num_workers_killed += 1
        os.kill(rng.choice(workers), signal.SIGKILL)
    else:
        os.killpg(command, signal.SIGKILL)


def measure(form: Form, environment: dict[str, str], num_kills: int, max_s: float, seed: int) -> None:
    """Kill a form so many times, or as often as fits the time, and compare what it has made at each end."""
    rng, expected = random.Random(seed), dict[str, bytes]()
    start_s = time.monotonic()
    subprocess.run([sys.executable, "-c", PROGRAM, *form.arguments[:1], "--help"], check=True, capture_output=True)
    starting_s = time.monotonic() - start_s
    for arguments in filter(None, (form.reference, form.arguments)):
        form.clear()
        start_s = time.monotonic()
        run(form, environment, rng, lambda: None, arguments)
        took_s = time.monotonic() - start_s
        expected = expected or form.collect()
    form.num_steps, num_runs = 0, 0
    end_s = time.monotonic() + max_s

    def choose_limit() -> float | None:
        is_over = form.num_killed >= num_kills or time.monotonic() > end_s
        return None if is_over else rng.uniform(starting_s, took_s + 1)

    while form.num_killed < num_kills and time.monotonic() < end_s and len(form.failures) < 3:
        form.clear()
        form.seen = {}
        num_runs += 1
        while not run(form, environment, rng, choose_limit):
            continue
        form.compare_times()
        found = form.collect()
        form.num_lost += len(expected.keys() - found.keys())
        form.num_wrong += sum(found[name] != expected[name] for name in expected.keys() & found.keys())
        form.num_wrong += len(found.keys() - expected.keys())
    if form.num_steps:
        form.num_twice = form.num_steps - num_runs * NUM_STEPS


def make_pictures(folder: Path, count: int = NUM_PICTURES) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        height, width = rng.integers(60, 160, 2)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{number:02}.png")


def collect_folder(folder: Path, pattern: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob(pattern)}


def collect_weights(folder: Path) -> dict[str, bytes]:
    """The tensors, and the losses; the metadata of the file contain the number of kills."""
    from pellucid.weights import checkpoint

    found = checkpoint.fingerprint(checkpoint.load(folder / "weights.safetensors").network.state_dict())
    losses = [(line["step"], line.get("loss")) for line in read_metrics(folder)]
    return {"weights": found.encode(), "losses": repr(losses).encode()}


COMMANDS = {
    "restore": ["restore", "{pictures}", "--model", "srcnn-x2", "--out", "{out}"],
    "prepare": ["prepare", "folder", "{pictures}", "--out", "{out}", "--workers", "1"],
    "train": [
        *(
            "train",
            "dncnn.gaussian",
            "depth=4",
            "width=8",
            "batch_size=4",
            "patch_px=24",
            f"num_steps={NUM_STEPS}",
        ),
        *("--data", "{pictures}", "--out", "{out}", "--tune", "off", "--save-every", "0.2", "--device", "cpu"),
    ],
}
PATTERNS = {"restore": "*.png", "prepare": "*.*"}

RAY_COMMANDS = {
    "restore": [*COMMANDS["restore"], "--device", "cpu"],
    "prepare": COMMANDS["prepare"],
    "evaluate": [
        *("evaluate", "srcnn-x2", "--data", "{pictures}", "--device", "cpu"),
        *("--record", "{out}/record.jsonl", "--json", "{out}/scores.json", "--overwrite"),
    ],
}


def make_local(command: str, folder: Path) -> Form:
    pictures, out = folder / "pictures", folder / "out"
    make_pictures(pictures)
    arguments = [text.format(pictures=pictures, out=out) for text in COMMANDS[command]]

    def collect() -> dict[str, bytes]:
        return collect_weights(out) if command == "train" else collect_folder(out, PATTERNS[command])

    def observe() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")} if command == "restore" else {}

    return Form(arguments, collect, lambda: shutil.rmtree(out, ignore_errors=True), observe)


def make_remote(command: str, folder: Path, server: ObjectServer) -> Form:
    """The same in a bucket."""
    make_pictures(folder / "pictures")
    for path in (folder / "pictures").iterdir():
        server.put(f"{command}/pictures/{path.name}", path.read_bytes())
    url = f"s3://{BUCKET}/{command}"
    arguments = [text.format(pictures=f"{url}/pictures", out=f"{url}/out") for text in COMMANDS[command]]

    def collect() -> dict[str, bytes]:
        from pellucid.storage import objects
        from pellucid.storage.urls import Url

        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        for found in objects.list_objects(Url("s3", BUCKET, f"{command}/out")):
            if "/state/" not in found.key and "/." not in found.key:
                (copy / found.name).parent.mkdir(exist_ok=True)
                objects.fetch(found, copy / found.name)
        if command == "train":
            return collect_weights(copy)
        # sources.jsonl contains the times of the copies in the cache, which differ from machine to machine.
        return {name: found for name, found in collect_folder(copy, PATTERNS[command]).items() if name != SOURCES}

    def clear() -> None:
        from pellucid.storage import objects
        from pellucid.storage.urls import Url

        for found in list(objects.list_objects(Url("s3", BUCKET, f"{command}/out"))):
            objects.delete(found)

    return Form(arguments, collect, clear)


def collect_store(folder: Path) -> dict[str, bytes]:
    """Hashes of the decoded pictures: the order in the files of a store depends on which worker was faster."""
    from pellucid.data import store

    opened = store.open(folder)
    found = {name: store.digest(opened.target(i)).encode() for i, name in enumerate(opened.names)}
    return found | {"fingerprint": opened.fingerprint.encode()}


def make_on_ray(command: str, folder: Path, address: str) -> Form:
    """With one worker on each computer, whose pictures take longer than the start of a command."""
    pictures, out = folder / "pictures", folder / "out"
    make_pictures(pictures, NUM_PICTURES_RAY)
    arguments = [text.format(pictures=pictures, out=out) for text in RAY_COMMANDS[command]]

    def collect() -> dict[str, bytes]:
        if command == "prepare":
            return collect_store(out)
        return collect_folder(out, "*.png" if command == "restore" else "scores.json")

    def clear() -> None:
        shutil.rmtree(out, ignore_errors=True)
        if command == "evaluate":
            out.mkdir()

    def observe() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")} if command == "restore" else {}

    clear()
    return Form([*arguments, "--on", address], collect, clear, observe, arguments, find_ray_workers)


def find_ray_workers() -> list[int]:
    """The living processes of teams on the Ray that this process has started; not those of other programs."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if child.cmdline()[:1] == ["ray::Member"] or child.name().startswith("ray::Member"):
                found.append(child.pid)
    return found


@contextmanager
def ray_cluster() -> Iterator[str]:
    """The address of two computers with one CPU each, which Ray simulates."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        cluster.add_node(**options)
        yield cluster.address
    finally:
        cluster.shutdown()


@contextmanager
def object_server(folder: Path) -> Iterator[ObjectServer]:
    folder.mkdir()
    server = ObjectServer(folder)
    os.environ.update(server.environment())
    try:
        yield server
    finally:
        server.stop()


def main() -> None:
    forms = [f"{command}{where}" for command in COMMANDS for where in ("", "-bucket")]
    forms += [f"{command}-ray" for command in RAY_COMMANDS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", action="append", choices=forms, help="repeatable; all by default")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60, help="limit for each form")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(
        "| form | moments killed | of these, workers | lost | wrong | work done twice |\n|---|---|---|---|---|---|"
    )
    for name in given.form or forms:
        with tempfile.TemporaryDirectory(prefix="crash-") as temporary:
            folder = Path(temporary)
            (folder / "cache").mkdir()
            environment = {**os.environ, "PELLUCID_CACHE": str(folder / "cache")}
            os.environ["PELLUCID_CACHE"] = environment["PELLUCID_CACHE"]
            if name.endswith("-bucket"):
                with object_server(folder / "server") as server:
                    environment |= server.environment()
                    form = make_remote(name.removesuffix("-bucket"), folder, server)
                    measure(form, environment, given.kills, 60 * given.minutes, given.seed)
            elif name.endswith("-ray"):
                with ray_cluster() as address:
                    environment |= os.environ
                    form = make_on_ray(name.removesuffix("-ray"), folder, address)
                    measure(form, environment, given.kills, 60 * given.minutes, given.seed)
            else:
                form = make_local(name, folder)
                measure(form, environment, given.kills, 60 * given.minutes, given.seed)
        twice = form.num_twice if form.num_steps or name in ("restore", "restore-ray") else "not counted"
        killed = f"{form.num_killed} | {form.num_workers_killed}"
        print(f"| {name} | {killed} | {form.num_lost} | {form.num_wrong} | {twice} |", flush=True)
        for line in form.failures:
            print(f"failed: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
