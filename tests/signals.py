"""Child processes that can be interrupted, wherever the tests run."""

import sys
from collections.abc import Sequence

LAUNCHER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def interruptible(command: Sequence[str]) -> list[str]:
    """The command, started by a launcher that resets SIGINT; the process id stays the same.

    In the background and under nohup, shells let their children ignore SIGINT, and children of these inherit that.
    """
    return [sys.executable, "-c", LAUNCHER, *command]
