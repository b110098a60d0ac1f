"""Kill commands at random moments, and repeat them until they are done: python benchmarks/crash.py [--form FORM]

Forms: restore, prepare, train, and each with -bucket (an S3 server on this machine, SeaweedFS; needs `weed`).
A command is killed by `kill -9` after a random time, between its start and its usual end, and started again
until it is done; then all is deleted and starts again, until it was killed often enough. The results must be those
of a run that nobody killed.

Prints for each form: moments killed, results that are missing (lost), results that differ (wrong), and the work
that was done twice: pictures that were restored again after their result existed, and steps of a training.
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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from object_server import BUCKET, ObjectServer
from pellucid.data.store import SOURCES
from pellucid.training.run_folder import read_metrics

NUM_PICTURES, NUM_STEPS = 24, 100

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
    """

    arguments: list[str]
    collect: Callable[[], dict[str, bytes]]
    clear: Callable[[], None]
    observe: Callable[[], dict[str, int]] = dict
    num_killed: int = 0
    num_lost: int = 0
    num_wrong: int = 0
    num_twice: int = 0
    num_steps: int = 0
    failures: list[str] = field(default_factory=list)


def run(form: Form, environment: dict[str, str], limit_s: float | None) -> bool:
    """Run a command with an empty cache, as on another machine. Returns whether it ended before it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *form.arguments],
        env={**environment, "PELLUCID_CACHE": tempfile.mkdtemp(dir=environment["PELLUCID_CACHE"])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    form.num_steps += len(re.findall(r"^step \d+/", output, re.M))
    if process.returncode == -signal.SIGKILL:
        form.num_killed += 1
        return False
    if process.returncode != 0:
        form.failures.append(output.strip().splitlines()[-1])
    return True


def measure(form: Form, environment: dict[str, str], num_kills: int, max_s: float, seed: int) -> None:
    """Kill a form so many times, or as often as fits the time, and compare what it has made at each end."""
    rng = random.Random(seed)
    start_s = time.monotonic()
    subprocess.run([sys.executable, "-c", PROGRAM, *form.arguments[:1], "--help"], check=True, capture_output=True)
    starting_s, start_s = time.monotonic() - start_s, time.monotonic()
    run(form, environment, None)
    took_s = time.monotonic() - start_s
    expected = form.collect()
    form.num_steps, num_runs, seen = 0, 0, dict[str, int]()
    end_s = time.monotonic() + max_s

    def choose_limit() -> float | None:
        is_over = form.num_killed >= num_kills or time.monotonic() > end_s
        return None if is_over else rng.uniform(starting_s, took_s + 1)

    while form.num_killed < num_kills and time.monotonic() < end_s and len(form.failures) < 3:
        form.clear()
        seen.clear()
        num_runs += 1
        while not run(form, environment, choose_limit()):
            now = form.observe()
            form.num_twice += sum(now.get(name) != written for name, written in seen.items())
            seen = now
        found = form.collect()
        form.num_lost += len(expected.keys() - found.keys())
        form.num_wrong += sum(found[name] != expected[name] for name in expected.keys() & found.keys())
        form.num_wrong += len(found.keys() - expected.keys())
    if form.num_steps:
        form.num_twice = form.num_steps - num_runs * NUM_STEPS


def make_pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(NUM_PICTURES):
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", action="append", choices=forms, help="repeatable; all by default")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60, help="limit for each form")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("| form | moments killed | lost | wrong | work done twice |\n|---|---|---|---|---|", flush=True)
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
            else:
                form = make_local(name, folder)
                measure(form, environment, given.kills, 60 * given.minutes, given.seed)
        twice = form.num_twice if form.num_steps or name == "restore" else "not counted"
        print(f"| {name} | {form.num_killed} | {form.num_lost} | {form.num_wrong} | {twice} |", flush=True)
        for line in form.failures:
            print(f"failed: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
