"""Child processes: their peak memory, and how they can be interrupted."""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def run(
    command: Sequence[str],
    output: Path,
    *,
    timeout_s: float = 300.0,
    stall_s: float | None = None,
    data_limit_bytes: int | None = None,
) -> tuple[int, int]:
    """Run a command with its output in a file: (exit status, peak resident bytes). -9 means a timeout.

    stall_s: the process is also ended if it writes nothing for so long.
    data_limit_bytes: limit of private memory, enforced by the kernel.
    The peak is read from /proc, because `getrusage` includes the process that the command was forked from.
    """
    limited = () if data_limit_bytes is None else ("prlimit", f"--data={data_limit_bytes}")
    with output.open("w") as file:
        process = subprocess.Popen([*limited, *command], stdout=file, stderr=file)
        deadline_s, peak = time.monotonic() + timeout_s, 0
        written, written_at_s = 0, time.monotonic()
        while process.poll() is None:
            peak = max(peak, _peak_bytes(process.pid))
            if output.stat().st_size > written:
                written, written_at_s = output.stat().st_size, time.monotonic()
            is_stalled = stall_s is not None and time.monotonic() - written_at_s > stall_s
            if time.monotonic() > deadline_s or is_stalled:
                process.kill()
            time.sleep(0.01)
    return process.returncode, peak


def _peak_bytes(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc", str(pid), "status").read_text())
    except OSError:
        return 0
    return 0 if found is None else int(found[1]) * 1024


LAUNCHER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def interruptible(command: Sequence[str]) -> list[str]:
    """The command, started by a launcher that resets SIGINT; its process keeps the id.

    In the background and under nohup, shells make their children ignore SIGINT, and grandchildren inherit that.
    """
    return [sys.executable, "-c", LAUNCHER, *command]
