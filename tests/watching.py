"""Child processes, watched: how they end, and the most memory they took."""

import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def run(
    command: Sequence[str], said: Path, *, timeout_s: float = 300.0, data_limit_bytes: int | None = None
) -> tuple[int, int]:
    """(exit status, peak resident bytes) of a command whose output goes to a file; -9 after timeout_s.

    data_limit_bytes: private memory that the kernel gives at all. The peak is that of the program alone: what
    `getrusage` says includes the process that it was forked from.
    """
    limited = () if data_limit_bytes is None else ("prlimit", f"--data={data_limit_bytes}")
    with said.open("w") as file:
        process = subprocess.Popen([*limited, *command], stdout=file, stderr=file)
        deadline_s, peak = time.monotonic() + timeout_s, 0
        while process.poll() is None:
            peak = max(peak, _peak_bytes(process.pid))
            if time.monotonic() > deadline_s:
                process.kill()
            time.sleep(0.01)
    return process.returncode, peak


def _peak_bytes(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc", str(pid), "status").read_text())
    except OSError:
        return 0
    return 0 if found is None else int(found[1]) * 1024
