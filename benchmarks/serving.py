"""A service under load and faults: python benchmarks/serving.py load|transfer|faults|fuzz

load: many clients at once against two workers; every answer must be the right result, or 429.
transfer: the memory of the HTTP process while a large file goes in and its result comes out.
faults: workers are killed and clients leave at random moments; each job must end in the right result or one line.
fuzz: damaged bodies; every answer must be a problem or a result, and the service must stay up.

Each starts its own service, in a temporary folder, and prints what it measured.
"""

import argparse
import asyncio
import contextlib
import io
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image

MODELS = ("srcnn-x2", "dncnn-color-blind")


def make_png(width: int, height: int, seed: int) -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@dataclass
class Service:
    """A running service."""

    process: subprocess.Popen[bytes]
    url: str
    data: Path
    log: Path

    def workers(self) -> list[psutil.Process]:
        """The processes that restore, without the one that reads headers."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):  # it has just ended
                if "pellucid.serving.workers.worker" in child.cmdline():
                    found.append((child.create_time(), child))
        return [child for _, child in sorted(found, key=lambda pair: pair[0])][1:]


@contextlib.contextmanager
def serve(*options: str) -> Iterator[Service]:
    """Start a service in a temporary folder, and check that it stops with exit status 0."""
    with tempfile.TemporaryDirectory(prefix="pellucid-serving-") as folder:
        log = Path(folder, "log")
        data = Path(folder, "data")
        command = [sys.executable, "-m", "pellucid", "serve", "--port", "0", "--data", str(data), *options]
        with log.open("wb") as file:
            process = subprocess.Popen(command, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})
        while (found := re.search(r"open (http://\S+)/ in", log.read_text())) is None:
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        try:
            yield Service(process, found[1], data, log)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(120)
            print(
                f"exit status of the service: {code}; tracebacks in its log: {log.read_text().count('Traceback')}"
            )


@dataclass
class Memory:
    """Peaks of resident memory, sampled every 50 ms."""

    pid: int
    total: int = 0
    http: int = 0
    first_http: int = 0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self) -> None:
        """Sample until cancelled."""
        process = psutil.Process(self.pid)
        self.first_http = process.memory_info().rss
        while True:
            own, total = process.memory_info().rss, 0
            for child in process.children():
                with contextlib.suppress(psutil.Error):
                    total += child.memory_info().rss
            self.http, self.total = max(self.http, own), max(self.total, total + own)
            await asyncio.sleep(0.05)


async def load(num_clients: int, seconds: float) -> None:
    """Many clients, each sending one picture after the other."""
    pictures = [make_png(side, side, side) for side in (48, 96, 160, 240)]
    with serve("--workers", "2", "--memory", "3GB", "--max-queue", "60") as service:
        async with _client(service) as client:
            expected = {}
            for i, picture in enumerate(pictures):
                for model in MODELS:
                    answer = await client.post("/v1/restore", params={"model": model}, content=picture)
                    expected[i, model] = answer.content
            memory = Memory(service.process.pid)
            watching = asyncio.create_task(memory.watch())
            end, found, times_s, num_wrong = time.monotonic() + seconds, Counter[str](), list[float](), 0

            async def run(number: int) -> None:
                nonlocal num_wrong
                rng = random.Random(number)
                while time.monotonic() < end:
                    i, model = rng.randrange(len(pictures)), rng.choice(MODELS)
                    start = time.monotonic()
                    try:
                        answer = await client.post("/v1/restore", params={"model": model}, content=pictures[i])
                    except httpx.HTTPError as error:
                        found[type(error).__name__] += 1
                        continue
                    found[str(answer.status_code)] += 1
                    if answer.status_code == 200:
                        times_s.append(time.monotonic() - start)
                        num_wrong += answer.content != expected[i, model]
                    else:
                        await asyncio.sleep(min(2.0, float(answer.headers.get("retry-after", 1))))

            start = time.monotonic()
            await asyncio.gather(*(run(number) for number in range(num_clients)))
            wall_s = time.monotonic() - start
            watching.cancel()
    times_s.sort()
    print("| clients | seconds | answers | right results | wrong results | results/s | median s | 95 % s |")
    print("|--:|--:|---|--:|--:|--:|--:|--:|")
    answers = ", ".join(f"{name}: {count}" for name, count in sorted(found.items()))
    rate, middle, late = len(times_s) / wall_s, statistics.median(times_s), times_s[int(len(times_s) * 0.95)]
    right = len(times_s) - num_wrong
    print(f"| {num_clients} | {wall_s:.0f} | {answers} | {right} | {num_wrong} | {rate:.1f} |", end="")
    print(f" {middle:.2f} | {late:.2f} |")
    print(f"memory of all processes: {memory.total / 1e6:.0f} MB of 3000")
    print(f"memory of the HTTP process: {memory.http / 1e6:.0f} MB")


async def transfer(megabytes: int) -> None:
    """A large file in, and a large one out."""
    with serve("--memory", "3GB") as service:
        source = _write_noise(service.data.parent / "large.png", megabytes)
        small = _write_noise(service.data.parent / "quarter.png", megabytes // 4)
        async with _client(service) as client:
            await client.post("/v1/restore", params={"model": MODELS[0]}, content=make_png(50, 50, 0))
            memory = Memory(service.process.pid)
            watching = asyncio.create_task(memory.watch())
            start = time.monotonic()
            await client.post("/v1/pictures", content=_parts(source))
            sent_s = time.monotonic() - start
            params = {"model": MODELS[0], "format": "bmp"}  # twice the width and height, four times the bytes
            job = (await client.post("/v1/restore", params=params, content=_parts(small))).json()["id"]
            while (state := (await client.get(f"/v1/jobs/{job}")).json())["state"] not in ("done", "failed"):
                await asyncio.sleep(1)
            num_bytes, start = 0, time.monotonic()
            async with client.stream("GET", state["result_url"]) as answer:
                async for part in answer.aiter_bytes():
                    num_bytes += len(part)
            got_s = time.monotonic() - start
            watching.cancel()
        sent, got = source.stat().st_size / 1e6, num_bytes / 1e6
        print(f"{sent:.0f} MB in at {sent / sent_s:.0f} MB/s, {got:.0f} MB out at {got / got_s:.0f} MB/s")
        print(f"the HTTP process grew by {(memory.http - memory.first_http) / 1e6:.1f} MB")


def _write_noise(path: Path, megabytes: int) -> Path:
    """A picture of noise, which takes 3 bytes a pixel in PNG."""
    side = int((megabytes * 1e6 / 3) ** 0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)
    return path


async def _parts(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(2**18):
            yield part


async def faults(num_jobs: int) -> None:
    """Kill workers and leave at random moments."""
    picture, rng = make_png(180, 180, 1), random.Random(0)
    with serve("--workers", "2", "--memory", "3GB") as service:
        async with _client(service) as client:
            expected = (await client.post("/v1/restore", params={"model": MODELS[1]}, content=picture)).content
            num_killed, is_done = 0, asyncio.Event()

            async def kill() -> None:
                nonlocal num_killed
                while not is_done.is_set():
                    await asyncio.sleep(rng.uniform(2, 10))
                    for worker in service.workers()[:1]:
                        with contextlib.suppress(psutil.Error):
                            worker.kill()
                            num_killed += 1

            found, lines = Counter[str](), Counter[str]()

            async def one(number: int) -> None:
                leaves = number % 5 == 0
                headers = {} if leaves else {"Prefer": "respond-async"}
                with contextlib.suppress(httpx.ReadTimeout):
                    answer = await client.post(
                        "/v1/restore",
                        params={"model": MODELS[1]},
                        content=picture,
                        headers=headers,
                        timeout=rng.uniform(0.05, 3) if leaves else 120,
                    )
                    if leaves:
                        found["answered before the client left"] += 1
                        return
                    job = answer.json()["id"]
                    while (state := (await client.get(f"/v1/jobs/{job}")).json())["state"] not in (
                        "done", "failed", "cancelled",
                    ):  # fmt: skip
                        await asyncio.sleep(0.2)
                    found[state["state"]] += 1
                    if state["state"] == "done":
                        result = await client.get(state["result_url"])
                        found["right" if result.content == expected else f"wrong, {result.status_code}"] += 1
                    else:
                        lines[state["files"][0]["error"]] += 1
                    return
                found["client left"] += 1

            killing = asyncio.create_task(kill())
            for start in range(0, num_jobs, 20):
                await asyncio.gather(*(one(number) for number in range(start, min(start + 20, num_jobs))))
            is_done.set()
            await killing
            left = [*service.data.glob("temporary/request-*"), *service.data.glob("uploads/*")]
        print(f"{num_jobs} jobs, {num_killed} workers killed: {dict(found)}; {dict(lines)}")
        print(f"files left: {len(left)}")


async def fuzz(num_bodies: int) -> None:
    """Damaged pictures of several formats, forms and random bytes: restored, or sent and looked at."""
    rng = random.Random(0)
    source = Image.open(io.BytesIO(make_png(60, 40, 0)))
    kinds = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000")
    intact = {kind: _encode(source, kind) for kind in kinds}
    with serve("--memory", "3GB") as service:
        found = Counter[int]()
        async with _client(service) as client:
            for _ in range(num_bodies):
                body = bytearray(intact[rng.choice(kinds)])
                for _ in range(rng.randrange(1, 6)):
                    body[rng.randrange(len(body))] = rng.randrange(256)
                if rng.random() < 0.3:
                    del body[rng.randrange(len(body)) :]
                if rng.random() < 0.1:
                    body = bytearray(rng.randbytes(rng.randrange(2000)))
                headers = {}
                if rng.random() < 0.3:
                    headers["Content-Type"] = "multipart/form-data; boundary=x"
                    body = bytearray(
                        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
                        + body
                        + b"\r\n--x--"
                    )
                    body[rng.randrange(len(body))] = rng.randrange(256)
                if rng.random() < 0.3:
                    answer = await client.post("/v1/pictures", content=bytes(body), headers=headers)
                    if answer.status_code == 201:
                        answer = await client.get(f"/v1/pictures/{answer.json()['id']}/view?longest_px=50")
                else:
                    params = {"model": MODELS[0]}
                    answer = await client.post("/v1/restore", params=params, content=bytes(body), headers=headers)
                found[answer.status_code] += 1
                assert "Traceback" not in answer.text
            assert (await client.get("/health/ready")).status_code == 200
        print(f"{num_bodies} bodies: {dict(sorted(found.items()))}")


def _encode(picture: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def _client(service: Service) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=service.url, timeout=300, limits=limits)


def main() -> None:
    """Run one of the four."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "transfer", "faults", "fuzz"))
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--count", type=int, help="jobs (200) or bodies (1000)")
    given = parser.parse_args()
    runs = {
        "load": lambda: load(given.clients, given.seconds),
        "transfer": lambda: transfer(given.megabytes),
        "faults": lambda: faults(given.count or 200),
        "fuzz": lambda: fuzz(given.count or 1000),
    }
    asyncio.run(runs[given.what]())


if __name__ == "__main__":
    main()
