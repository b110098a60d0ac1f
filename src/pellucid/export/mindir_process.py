"""MindSpore's side of `mindir`: a program of its own, which needs nothing of pellucid.

    mindir_process.py write NAME   reads cell.py, weights.npz and job.json of the folder it is in; writes
                                   NAME.mindir and, where the job's format is AIR, NAME.air
    mindir_process.py run NAME     for every line of input: input.npy through NAME.mindir to output.npy;
                                   says "done"

What goes wrong is the last line of the standard error: the first of what MindSpore says, which names it.
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
    """shape: of the input, None where a size is free. facts: texts to write inside."""
    if job["format"] == "AIR":
        mindspore.set_device("Ascend")
    network = _module("cell").Network(np.load("weights.npz")).set_train(False)
    example = Tensor(shape=job["shape"], dtype=mindspore.float32)
    if None not in job["shape"]:
        example = Tensor(np.zeros(job["shape"], np.float32))

    def annotate(model: Any) -> None:
        for key, text in job["facts"].items():
            model.user_info[key] = text

    mindspore.export(network, example, file_name=f"{name}.mindir", file_format="MINDIR", custom_func=annotate)
    if job["format"] == "AIR":
        mindspore.export(network, example, file_name=f"{name}.air", file_format="AIR")


def run(name: str, replies: IO[str]) -> None:
    """Until the input ends."""
    network = nn.GraphCell(mindspore.load(f"{name}.mindir"))
    for _ in sys.stdin:
        restored = network(Tensor(np.load("input.npy"))).asnumpy()
        np.save("output.npy", restored)
        print("done", file=replies, flush=True)  # what the other side waits for


def _module(name: str) -> Any:
    """A file of this folder. As a module, since MindSpore reads the source of what it compiles."""
    spec = importlib.util.spec_from_file_location(name, f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _main(verb: str, name: str) -> None:
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)  # what MindSpore says of itself is no reply
        try:
            if verb == "run":
                run(name, replies)
            else:
                write(name, json.loads(Path("job.json").read_text()))
        except Exception as error:  # MindSpore's are of many kinds, and their texts of many lines
            said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            sys.exit(f"\n{said}")


if __name__ == "__main__":
    _main(*sys.argv[1:])
