"""Kill commands at random moments, and repeat them until they are done: python benchmarks/crash.py [--form FORM]

Forms: restore, prepare, evaluate, train, each also with -bucket (an S3 server on this machine, SeaweedFS; needs
`weed`); and restore, prepare, evaluate with -ray (two computers of one CPU that Ray simulates on this machine;
needs `ray`). A command is killed by `kill -9` and started again until it is done; then all is deleted and starts
again, until it was killed often enough. With -ray, either the command or one of its workers is killed, by chance;
a command whose worker was killed continues. The results must be those of a run that nobody killed; with -ray,
those of one process without Ray.

One of ten kills comes while the command starts. The others come after its first new result (or downloaded file),
after a time drawn uniformly from the time that the work takes. To kill often, commands do not import their modules
again: each is a fork of a process that has them. The Ray cluster keeps running, too.

Prints for each form: moments killed, how many of them were workers, how often the work was completed afterwards,
results that are missing (lost), results that differ (wrong), and the work that was done twice: pictures that were
restored again after their result existed, and steps of a training.
"""

import argparse
import json
import os
import random
import re
import select
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

NUM_STEPS = 60
NUM_PICTURES = {"restore": 10, "prepare": 80, "evaluate": 30, "train": 24}
NUM_PICTURES_RAY = {"restore": 60, "prepare": 600, "evaluate": 150}
"""As many as take a few seconds on a busy machine."""

START_SHARE = 0.1
"""The share of kills that come while a command starts."""

HANG_S = 300.0
"""A command that takes longer than this hangs, which is a failure."""

POLL_S = 0.005

PROGRAM = """
import json, os, sys
from pellucid.restoration import leases, restore, on_cluster
from pellucid.storage import objects, ownership
from pellucid.data import preparing, on_cluster
from pellucid.evaluation import evaluate, on_cluster
from pellucid.training import train
from pellucid.cli import main
try:
    import obstore.store
except ImportError:
    pass
leases.LEASE_S = ownership.LEASE_S = 1.0  # otherwise most kills would come while a command waits for a minute
leases.RENEW_EVERY_S = 0.25
print(0, flush=True)
for line in sys.stdin:
    given = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for number, path in enumerate((os.devnull, given["output"], given["output"])):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
        os.environ.update(given["environment"])
        sys.argv = ["pellucid", *given["arguments"]]
        main()
        sys.exit()
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Starts commands as forks of itself: reads their arguments, prints the process id and the exit code of each."""


class Launcher:
    """A process that has imported everything, and starts commands."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            bufsize=1,
        )
        self._read_number()  # it is ready

    def start(self, arguments: list[str], environment: dict[str, str], output: Path) -> int:
        """The process id of a command that writes all it prints to a file."""
        assert self._process.stdin is not None
        given = {"arguments": arguments, "environment": environment, "output": str(output)}
        self._process.stdin.write(f"{json.dumps(given)}\n")
        self._process.stdin.flush()
        return self._read_number()

    def poll(self) -> int | None:
        """The exit code of the last command; None while it runs."""
        assert self._process.stdout is not None
        return self._read_number() if select.select([self._process.stdout], [], [], POLL_S)[0] else None

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read_number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@dataclass
class Form:
    """A command, and how its results are compared.

    collect: results by name. clear: deletes them. watched: a folder, and a pattern of the files in it that change
    when the command has made something; by default, all files in its cache and its temporary files.
    observe: when each result was written, if that can be known.
    reference: the arguments of the command whose results are expected; by default, the same.
    find_workers: the processes that work for the command, and can be killed in its place.
    """

    arguments: list[str]
    collect: Callable[[], dict[str, bytes]]
    clear: Callable[[], None]
    watched: tuple[Path, str] | None = None
    observe: Callable[[], dict[str, int]] = dict
    reference: list[str] | None = None
    find_workers: Callable[[], list[int]] = list
    seen: dict[str, int] = field(default_factory=dict)
    num_killed: int = 0
    num_workers_killed: int = 0
    num_completed: int = 0
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


@dataclass
class Moments:
    """When a command is killed. start_s: from its start to its first result. work_s: from there to its end."""

    rng: random.Random
    num_kills: int
    end_s: float
    start_s: float
    work_s: float

    def choose(self, num_killed: int) -> tuple[bool, float]:
        """Whether the next kill waits for work, and how many seconds it comes later; infinity for no other."""
        if num_killed >= self.num_kills or time.monotonic() > self.end_s:
            return False, float("inf")
        if self.rng.random() < START_SHARE:
            return False, self.rng.uniform(0, self.start_s)
        return True, self.rng.uniform(0, self.work_s)


class Runs:
    """Runs the command of a form, each time with an empty cache, as on another machine."""

    def __init__(self, form: Form, folder: Path, environment: dict[str, str]) -> None:
        self._form, self._folder, self._environment = form, folder, environment
        self._launcher = Launcher(environment)

    def stop(self) -> None:
        self._launcher.stop()

    def measure(self, arguments: list[str]) -> tuple[float, float]:
        """Run a command to its end. Returns the seconds until its first result, and from there to its end."""
        start_s = time.monotonic()
        begun_s = [start_s]
        self._run(arguments, lambda pid, has_begun: begun_s.append(time.monotonic()) if not has_begun else None)
        return begun_s[-1] - start_s, time.monotonic() - begun_s[-1]

    def run(self, moments: Moments) -> bool:
        """Run the command and kill it. Returns whether it ended before it was killed."""
        waits, after_s = moments.choose(self._form.num_killed)
        since_s = time.monotonic()

        def kill_in_time(pid: int, has_begun: bool) -> None:
            nonlocal waits, after_s, since_s
            if waits and not has_begun:
                since_s = time.monotonic()
            elif time.monotonic() > since_s + after_s:
                self._kill_one(pid, moments.rng)
                waits, after_s = moments.choose(self._form.num_killed)
                since_s = time.monotonic()

        return self._run(self._form.arguments, kill_in_time)

    def _run(self, arguments: list[str], act: Callable[[int, bool], None]) -> bool:
        """act: called every few milliseconds with the process id, and whether the command has made something."""
        scratch = Path(tempfile.mkdtemp(dir=self._folder))
        (scratch / "tmp").mkdir()
        more = {"PELLUCID_CACHE": str(scratch / "cache"), "TMPDIR": str(scratch / "tmp")}
        output, before = scratch / "output", self._look(scratch)
        output.touch()  # it may be killed before it does so
        pid, end_s = self._launcher.start(arguments, more, output), time.monotonic() + HANG_S
        has_begun = False
        while (code := self._launcher.poll()) is None:
            has_begun = has_begun or self._look(scratch) != before
            act(pid, has_begun)
            if time.monotonic() > end_s:
                self._form.failures.append(f"a command was not done after {HANG_S:.0f} s")
                os.killpg(pid, signal.SIGKILL)
                end_s += HANG_S
        printed = output.read_text()
        self._form.num_steps += len(re.findall(r"^step \d+/", printed, re.M))
        shutil.rmtree(scratch, ignore_errors=True)
        if code == -signal.SIGKILL:
            return False
        if code != 0:
            self._form.failures.append(printed.strip().splitlines()[-1])
        return True

    def _look(self, scratch: Path) -> set[tuple[str, int]]:
        """Names and sizes of the watched files that are not empty."""
        folder, pattern = self._form.watched or (scratch, "*/**/*")
        found = set()
        with suppress(OSError):  # a folder is removed meanwhile
            for path in folder.glob(pattern):
                with suppress(OSError):
                    found.add((str(path), path.stat().st_size))
        return {(name, num_bytes) for name, num_bytes in found if num_bytes}

    def _kill_one(self, command: int, rng: random.Random) -> None:
        """Kill the command with its children or, with the same probability, one of its workers, if any."""
        workers = self._form.find_workers()
        is_worker = bool(workers) and rng.random() < 0.5
        with suppress(ProcessLookupError):  # it has just ended, or just started
            if is_worker:
                os.kill(rng.choice(workers), signal.SIGKILL)
            else:
                os.killpg(command, signal.SIGKILL)
            self._form.num_killed += 1
            self._form.num_workers_killed += is_worker
        self._form.compare_times()


def measure(form: Form, folder: Path, num_kills: int, max_s: float, seed: int) -> None:
    """Kill a form so many times, or as often as fits the time, and compare what it has made at each end."""
    runs = Runs(form, folder, {**os.environ})
    try:
        expected = dict[str, bytes]()
        for arguments in filter(None, (form.reference, form.arguments)):
            form.clear()
            start_s, work_s = runs.measure(arguments)
            expected = expected or form.collect()
        print(f"first result after {start_s:.1f} s, then {work_s:.1f} s of work", file=sys.stderr, flush=True)
        moments = Moments(random.Random(seed), num_kills, time.monotonic() + max_s, start_s, work_s)
        kill_often(form, runs, moments, expected)
    finally:
        runs.stop()


def kill_often(form: Form, runs: Runs, moments: Moments, expected: dict[str, bytes]) -> None:
    form.num_steps = 0
    while form.num_killed < moments.num_kills and time.monotonic() < moments.end_s and len(form.failures) < 3:
        form.clear()
        form.seen = {}
        form.num_completed += 1
        while not runs.run(moments) and len(form.failures) < 3:
            continue
        form.compare_times()
        found = form.collect()
        lost, others = expected.keys() - found.keys(), found.keys() - expected.keys()
        wrong = others | {name for name in expected.keys() & found.keys() if found[name] != expected[name]}
        form.num_lost, form.num_wrong = form.num_lost + len(lost), form.num_wrong + len(wrong)
        if lost or wrong:
            print(f"lost: {sorted(lost)[:9]}, wrong: {sorted(wrong)[:9]}", file=sys.stderr, flush=True)
    if form.num_steps:
        form.num_twice = form.num_steps - form.num_completed * NUM_STEPS


def make_pictures(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        height, width = rng.integers(60, 160, 2)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{number:03}.png")


def collect_folder(folder: Path, pattern: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob(pattern)}


def collect_weights(folder: Path) -> dict[str, bytes]:
    """The tensors, and the losses; the metadata of the file contain the number of kills."""
    from pellucid.weights import checkpoint

    found = checkpoint.fingerprint(checkpoint.load(folder / "weights.safetensors").network.state_dict())
    losses = [(line["step"], line.get("loss")) for line in read_metrics(folder)]
    return {"weights": found.encode(), "losses": repr(losses).encode()}


COMMANDS = {
    "restore": ["restore", "{pictures}", "--model", "srcnn-x2", "--device", "cpu", "--out", "{out}"],
    "prepare": ["prepare", "folder", "{pictures}", "--out", "{out}", "--workers", "1"],
    "evaluate": [
        *("evaluate", "srcnn-x2", "--data", "{pictures}", "--device", "cpu"),
        *("--record", "{local}/record.jsonl", "--json", "{local}/scores.json", "--overwrite"),
    ],
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
PATTERNS = {"restore": "*.png", "prepare": "*.*", "evaluate": "scores.json"}

WATCHED = {"restore": "*.png", "prepare": "**/samples-*", "evaluate": "record.jsonl", "train": "**/*"}
"""What shows that a command has made something."""


def observe_results(command: str, out: Path) -> dict[str, int]:
    """When each restored picture was written."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")} if command == "restore" else {}


def empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def make_local(command: str, folder: Path) -> Form:
    pictures, out = folder / "pictures", folder / "out"
    make_pictures(pictures, NUM_PICTURES[command])
    arguments = [text.format(pictures=pictures, out=out, local=out) for text in COMMANDS[command]]

    def collect() -> dict[str, bytes]:
        return collect_weights(out) if command == "train" else collect_folder(out, PATTERNS[command])

    return Form(
        arguments, collect, lambda: empty(out), (out, WATCHED[command]), lambda: observe_results(command, out)
    )


def make_remote(command: str, folder: Path, server: ObjectServer) -> Form:
    """The same in a bucket."""
    make_pictures(folder / "pictures", NUM_PICTURES[command])
    for path in (folder / "pictures").iterdir():
        server.put(f"{command}/pictures/{path.name}", path.read_bytes())
    url, local = f"s3://{BUCKET}/{command}", folder / "local"
    names = {"pictures": f"{url}/pictures", "out": f"{url}/out", "local": local}
    arguments = [text.format(**names) for text in COMMANDS[command]]

    def collect() -> dict[str, bytes]:
        from pellucid.storage import objects
        from pellucid.storage.urls import Url

        if command == "evaluate":
            return collect_folder(local, PATTERNS[command])
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

        empty(local)
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
    """With one worker on each computer."""
    pictures, out = folder / "pictures", folder / "out"
    make_pictures(pictures, NUM_PICTURES_RAY[command])
    arguments = [text.format(pictures=pictures, out=out, local=out) for text in COMMANDS[command]]

    def collect() -> dict[str, bytes]:
        return collect_store(out) if command == "prepare" else collect_folder(out, PATTERNS[command])

    return Form(
        [*arguments, "--on", address],
        collect,
        lambda: empty(out),
        (out, WATCHED[command]),
        lambda: observe_results(command, out),
        arguments,
        find_ray_workers,
    )


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


@contextmanager
def make_form(name: str, folder: Path) -> Iterator[Form]:
    command, _, where = name.partition("-")
    if where == "bucket":
        with object_server(folder / "server") as server:
            yield make_remote(command, folder, server)
    elif where == "ray":
        with ray_cluster() as address:
            yield make_on_ray(command, folder, address)
    else:
        yield make_local(command, folder)


def main() -> None:
    forms = [f"{command}{where}" for command in COMMANDS for where in ("", "-bucket")]
    forms += [f"{command}-ray" for command in NUM_PICTURES_RAY]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", action="append", choices=forms, help="repeatable; all by default")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60, help="limit for each form")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # training ends with the same bits only with as many threads
    print("| form | moments killed | of these, workers | completed | lost | wrong | work done twice | minutes |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in given.form or forms:
        start_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="crash-") as temporary:
            os.environ["PELLUCID_CACHE"] = str(Path(temporary) / "cache")
            with make_form(name, Path(temporary)) as form:
                measure(form, Path(temporary), given.kills, 60 * given.minutes, given.seed)
        twice = form.num_twice if form.num_steps or name in ("restore", "restore-ray") else "not counted"
        kills = f"{form.num_killed} | {form.num_workers_killed} | {form.num_completed}"
        counts = f"{kills} | {form.num_lost} | {form.num_wrong} | {twice}"
        print(f"| {name} | {counts} | {(time.monotonic() - start_s) / 60:.1f} |", flush=True)
        for line in form.failures:
            print(f"failed: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
