"""The program that runs MindSpore for `mindspore.py`, in a process of its own. It does not import pellucid.

    mindspore_process.py write NAME   reads cell.py, weights.npz and job.json in the current directory; writes
                                      NAME.mindir and, if the format of the job is AIR, NAME.air
    mindspore_process.py run NAME     for each line of input: runs inputs.npz through NAME.mindir, writes
                                      output.npy and replies "done"

On failure, the last line of the standard error is the first line of MindSpore's message, which names the error.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import IO, Any

import mindspore
import numpy as np
from mindspore import Tensor, nn


def write(name: str, job: dict[str, Any]) -> None:
    """job: format; inputs, with shape, None for free sizes, and dtype; metadata, texts to write into the file."""
    if job["format"] == "AIR":
        mindspore.set_device("Ascend")
    network = _import_file("cell").Network(np.load("weights.npz")).set_train(False)
    examples = [_build_example(**each) for each in job["inputs"]]

    def annotate(model: Any) -> None:
        for key, text in job["metadata"].items():
            model.user_info[key] = text

    mindspore.export(network, *examples, file_name=f"{name}.mindir", file_format="MINDIR", custom_func=annotate)
    if job["format"] == "AIR":
        mindspore.export(network, *examples, file_name=f"{name}.air", file_format="AIR")


def _build_example(shape: list[int | None], dtype: str) -> Any:
    fixed = [size for size in shape if size is not None]
    if len(fixed) < len(shape):
        return Tensor(shape=shape, dtype=getattr(mindspore, dtype))
    return Tensor(np.zeros(fixed, dtype))


def run(name: str, replies: IO[str]) -> None:
    """Process inputs until the standard input ends."""
    network = nn.GraphCell(mindspore.load(f"{name}.mindir"))
    for _ in sys.stdin:
        with np.load("inputs.npz") as inputs:
            restored = network(*(Tensor(inputs[name]) for name in inputs)).asnumpy()
        np.save("output.npy", restored)
        print("done", file=replies, flush=True)


def _import_file(name: str) -> Any:
    """A file in the current directory as a module: MindSpore reads the source of what it compiles."""
    spec = importlib.util.spec_from_file_location(name, f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _main(verb: str, name: str) -> None:
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)  # MindSpore also writes to the standard output; only replies may go there
        try:
            if verb == "run":
                run(name, replies)
            else:
                write(name, json.loads(Path("job.json").read_text()))
        except Exception as error:  # MindSpore raises many classes, with messages of many lines
            message = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            sys.exit(f"\n{message}")


if __name__ == "__main__":
    _main(*sys.argv[1:])
