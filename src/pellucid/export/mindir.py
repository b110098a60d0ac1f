"""MindSpore: a cell as a MindIR file, and how such a file is run.

It works in a process of its own. Imported here it would take 2 s and 400 MB, change which warnings are shown, log
to the standard error and leave folders where the user happens to be.
"""

import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from pellucid.backends.backend import Shape
from pellucid.backends.metadata import PREFIX
from pellucid.errors import PellucidError
from pellucid.export.mindspore_cell import Cell
from pellucid.system.optional_packages import check_installed

_PROGRAM = Path(__file__).with_name("mindir_process.py")


def write(
    cell: Cell, path: Path, metadata: Mapping[str, str], *, num_planes: int, shape: Shape | None, air: bool = False
) -> None:
    """The cell as NAME.mindir in the folder of `path`, which is left to it; where asked, as NAME.air too.

    metadata: written inside, as user_info. shape: the only one that it shall take; any number and size where None.
    Raises MissingExtraError without MindSpore, PellucidError where MindSpore cannot write it.
    """
    check_installed("mindspore")
    job = {
        "format": "AIR" if air else "MINDIR",
        "shape": shape or (None, num_planes, None, None),
        "facts": {f"{PREFIX}.{key}": text for key, text in metadata.items()},
    }
    folder = path.parent
    (folder / "cell.py").write_text(cell.source)
    weights: dict[str, Any] = {name: weight.numpy() for name, weight in cell.weights.items()}
    np.savez(folder / "weights.npz", **weights)
    (folder / "job.json").write_text(json.dumps(job))
    with tempfile.TemporaryFile() as log:
        process = _start("write", path, log)
        try:
            process.communicate()
        finally:
            process.kill()  # or it goes on where this one is interrupted
            process.wait()
        if process.returncode:
            raise PellucidError(f"MindSpore cannot write the network: {_last_line(process, log)}")


class Runner:
    """NAME.mindir in MindSpore: (N, C, H, W) -> (N, C', scale * H, scale * W). It passes files in its folder.

    Raises MissingExtraError without MindSpore, PellucidError where MindSpore cannot run it.
    """

    def __init__(self, path: Path) -> None:
        check_installed("mindspore")
        self._folder = path.parent
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # for as long as the process
        self._process = _start("run", path, self._log)
        weakref.finalize(self, _end, self._process, self._log)

    def __call__(self, degraded: Tensor) -> Tensor:
        np.save(self._folder / "input.npy", degraded.numpy())
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(b"next\n")
            self._process.stdin.flush()
            done = self._process.stdout.readline()
        except BrokenPipeError:
            done = b""
        if not done:
            self._process.wait()
            raise PellucidError(f"MindSpore cannot run the model: {_last_line(self._process, self._log)}")
        return torch.from_numpy(np.load(self._folder / "output.npy"))


def _start(verb: str, path: Path, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        # -P: the program's folder holds our modules, which would stand for others of the same name.
        [sys.executable, "-P", "-W", "ignore", str(_PROGRAM), verb, path.stem],
        cwd=path.parent,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "GLOG_v": "3"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
    )


def _end(process: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
    process.kill()
    process.communicate()
    log.close()


def _last_line(process: "subprocess.Popen[bytes]", log: IO[bytes]) -> str:
    if process.returncode < 0:
        return f"it was ended by signal {-process.returncode}"
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "it says no reason")
