"""A network file, which is code that each process of a cluster runs: reading one picture ends the process."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pellucid.pictures import images

_read = images.read


def read_or_die(path: str | Path, *arguments: Any, **keywords: Any) -> Any:
    if Path(path).name == "poison.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return _read(path, *arguments, **keywords)


if multiprocessing.parent_process() is not None or any("default_worker" in text for text in sys.argv):
    images.read = read_or_die
