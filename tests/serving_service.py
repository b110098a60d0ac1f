"""A running service, as users start it: for the tests in `serving`."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

START_S = 120


@dataclass
class Running:
    """A service in a process of its own. log: its error stream."""

    process: subprocess.Popen[bytes]
    url: str
    data: Path
    log: Path

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, **more)

    def workers(self) -> list[psutil.Process]:
        """The processes that read headers (the first) and restore, in the order of their start."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):  # it has just ended
                if "pellucid.serving.workers.worker" in child.cmdline():
                    found.append((child.create_time(), child))
        return [child for _, child in sorted(found, key=lambda pair: pair[0])]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def start(
    folder: Path,
    *options: str,
    data: Path | None = None,
    environment: dict[str, str] | None = None,
    program: Sequence[str] = ("-m", "pellucid"),
) -> Running:
    """`pellucid serve` with small limits, on a free port, when it accepts work.

    data: below folder by default. program: arguments of Python, to run a changed one.
    """
    data = data or folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"log-{time.monotonic_ns()}"
    command = [sys.executable, *program, "serve", "--port", "0", "--data", str(data)]
    command += [] if "--memory" in options else ["--memory", "2.5GB"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, *options],
            stderr=file,
            stdout=file,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
        )
    end = time.monotonic() + START_S
    while (found := re.search(r"open (http://\S+)/ in", log.read_text())) is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    return Running(process, found[1], data, log)


def png(width: int = 40, height: int = 30, seed: int = 0, channels: int = 3) -> bytes:
    """A picture of noise, by Pillow."""
    shape = (height, width, 3) if channels == 3 else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def wait_for(client: httpx.Client, job: str, timeout_s: float = 120) -> dict[str, Any]:
    """The job when it is finished."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        state = client.get(f"/v1/jobs/{job}").json()
        if state["state"] in ("done", "failed", "cancelled"):
            return dict(state)
        time.sleep(0.05)
    raise AssertionError(json.dumps(state))
