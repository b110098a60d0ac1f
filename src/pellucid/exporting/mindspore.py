"""MindSpore: writes a captured graph as a MindIR file, and runs such a file.

MindSpore works in a process of its own. Imported here, it would take 2 s and 400 MB, change which warnings are
shown, log to the standard error and create folders in the current directory.
"""

import json
import os
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from pellucid.backends.metadata import PREFIX
from pellucid.errors import PellucidError
from pellucid.exporting import mindspore_cell
from pellucid.exporting.export_format import ExportRequest, Run
from pellucid.system.optional_packages import check_installed

PARITY_SIZES = ((1, 1), (2, 3), (17, 31), (32, 24))
"""Small (H, W): on CPUs, MindSpore's convolutions take 300 times as long as PyTorch's."""

_PROGRAM = Path(__file__).with_name("mindspore_process.py")


def write(request: ExportRequest, path: Path, *, with_air: bool = False) -> None:
    """Write NAME.mindir in the folder of `path` and, if `with_air`, NAME.air too. Leaves temporary files there.

    Raises MissingExtraError without MindSpore, PellucidError for a network that it cannot write.
    """
    check_installed("mindspore")
    cell = mindspore_cell.translate(request.capture())
    job = {
        "format": "AIR" if with_air else "MINDIR",
        "inputs": [vars(each) for each in cell.inputs],
        "metadata": {f"{PREFIX}.{key}": text for key, text in request.metadata.to_entries().items()},
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
            process.kill()  # otherwise it would continue after an interrupt
            process.wait()
        if process.returncode:
            raise PellucidError(f"MindSpore cannot write the network: {_find_reason(process, log)}")


def run(request: ExportRequest, path: Path) -> Run:
    """NAME.mindir, next to `path`, as a function. Raises MissingExtraError without MindSpore."""
    return Runner(path, hint="" if request.shape else "it may with a fixed size, which {shape} specifies")


class Runner:
    """NAME.mindir in MindSpore: the inputs of the graph -> its output. Exchanges files in its folder.

    hint: what to do if MindSpore cannot run the file.
    Raises MissingExtraError without MindSpore, PellucidError if MindSpore cannot run the file.
    """

    def __init__(self, path: Path, *, hint: str = "") -> None:
        check_installed("mindspore")
        self._hint = hint
        self._folder = path.parent
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # open for as long as the process runs
        self._process = _start("run", path, self._log)
        weakref.finalize(self, _stop, self._process, self._log)

    def __call__(self, *inputs: Tensor) -> Tensor:
        np.savez(self._folder / "inputs.npz", *(each.numpy() for each in inputs))
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(b"next\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = b""
        if not reply:
            self._process.wait()
            reason = _find_reason(self._process, self._log)
            hint = self._hint if self._process.returncode > 0 else ""  # a signal has other causes
            raise PellucidError(f"MindSpore cannot run the model: {reason}", hint=hint)
        return torch.from_numpy(np.load(self._folder / "output.npy"))


def _start(verb: str, path: Path, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        # -P: the program's folder contains mindspore.py, which would be imported in place of MindSpore.
        [sys.executable, "-P", "-W", "ignore", str(_PROGRAM), verb, path.stem],
        cwd=path.parent,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "GLOG_v": "3"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
    )


def _stop(process: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
    process.kill()
    process.communicate()
    log.close()


def _find_reason(process: "subprocess.Popen[bytes]", log: IO[bytes]) -> str:
    """Why the process failed: the last line of its standard error."""
    if process.returncode < 0:
        return f"the process was ended by signal {-process.returncode}"
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "no reason given")
