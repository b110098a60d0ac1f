"""Exports every network in every format and precision, and prints docs/exports.md.

    python benchmarks/exports.py --data ../shared/data > docs/exports.md
    python benchmarks/exports.py --data ../shared/data --only onnx mimo-unet

Each cell is an export in a process of its own: its agreement with the network in float32, as `pellucid export`
measures it; how fast the file runs, as a multiple of PyTorch in float32 on one thread, in turns; the CPU time of
the export; and the size of the file. Finished cells are kept in --kept, so the same command resumes.
"""

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from pellucid.backends import parity
from pellucid.backends.eager import TorchBackend
from pellucid.backends.model import load_model
from pellucid.errors import PellucidError
from pellucid.exporting import export, registry, whole_parity
from pellucid.exporting.export_format import ExportFormat, ExportRequest
from pellucid.exporting.whole import choose_form, count_input_channels
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.restoration.restorer import Restorer
from pellucid.weights import models

CALIBRATION = {
    "srcnn-x2": "training/T91",
    "dncnn-color-blind": None,
    "mimo-unet": "deblurring/reds_small/train_blur",
    "sid-any": "raw",
    "raw-denoise": "raw",
}
"""A model of each network and kind of result, and pictures to calibrate int8 on; None: noisy photographs."""

NUM_ROUNDS, SIDE_PX = 5, 256

ROUNDS_S, CELL_S = 60, 1200
"""When no further round starts, and when a cell is given up: some runtimes are 100 times slower than others."""

FORMAT_NAMES = ("onnx", "openvino", "torch", "aoti", "mindir")
"""Without AIR, which needs Ascend hardware."""


@dataclass(frozen=True)
class Cell:
    """One export: a model in a format and a precision, as a network or as a whole graph."""

    model: str
    format: str
    precision: str
    whole: bool

    @property
    def key(self) -> str:
        return " ".join([self.model, self.format, self.precision, *["whole"] * self.whole])


@dataclass(frozen=True)
class Result:
    """What was measured. speed: multiple of PyTorch's in float32. error: why there is no file.

    note: why the runtime computes in another precision here; an asterisk in the table.
    """

    psnr_db: str = ""
    speed: float = 0.0
    export_s: float = 0.0
    size_mb: float = 0.0
    error: str = ""
    note: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"no: {self.error}"
        speed = f"{self.speed:.1f}" if self.speed >= 0.1 else f"{self.speed:.1g}"
        star = "\\*" if self.note else ""
        return f"{self.psnr_db}, {speed}x{star}, {self.export_s:.0f} s, {self.size_mb:.1f} MB"


def list_cells() -> Iterator[Cell]:
    for model in CALIBRATION:
        for each in (one for one in registry.list_formats() if one.name in FORMAT_NAMES):
            for precision in each.precisions:
                for is_whole in (False, True) if each.takes_whole else (False,):
                    yield Cell(model, each.name, precision, is_whole)


def measure(cell: Cell, calibrate: Path | None, folder: Path) -> Result:
    """Export, and time the file against PyTorch."""
    chosen = next(one for one in registry.list_formats() if one.name == cell.format)
    out = folder / f"model{chosen.suffix}"
    before_s = _cpu_s()
    try:
        found = export.export(
            cell.model,
            out,
            format=cell.format,
            precision=cell.precision,
            calibrate=calibrate,
            whole=cell.whole,
            shape=_choose_shape(cell),
        )
    except PellucidError as error:
        return Result(error=str(error).replace(str(out), "the file"))
    export_s = _cpu_s() - before_s
    size_mb = sum(path.stat().st_size for path in folder.iterdir() if path.stem == out.stem) / 1e6
    return Result(
        f"{found.agreement.psnr_db:.1f} dB" if np.isfinite(found.agreement.psnr_db) else "exact",
        _measure_speed(cell, chosen, out),
        export_s,
        size_mb,
        note=found.note or "",
    )


def _choose_shape(cell: Cell) -> tuple[int, int, int, int] | None:
    """MindSpore runs whole graphs of a fixed size only."""
    if cell.format != "mindir" or not cell.whole:
        return None
    domain = load_model(models.find_model(cell.model))[0].recipe.domain
    channels = count_input_channels(domain, choose_form(domain, None, None, None))
    return 1, channels, SIDE_PX, SIDE_PX


def _measure_speed(cell: Cell, chosen: ExportFormat, path: Path) -> float:
    """How many times as fast as PyTorch in float32, of runs in turns."""
    found = models.find_model(cell.model)
    model, metadata = load_model(found)
    domain = model.recipe.domain
    form = choose_form(domain, None, None, None) if cell.whole else None
    backend = TorchBackend(model.network, "cpu")
    run = chosen.run(ExportRequest(model, cell.precision, form=form), path)
    inputs: tuple[torch.Tensor, ...]
    reference: Callable[[], object]
    if form is None:
        degraded = parity.synthetic_inputs(model.recipe, SIDE_PX)[:1]
        inputs, reference = (degraded,), partial(backend, degraded)
    else:
        (picture,) = whole_parity.synthesize(domain, form, [(SIDE_PX, SIDE_PX)])
        restorer = Restorer(cell.model, model.recipe, backend, metadata)
        inputs = tuple(whole_parity.to_inputs(picture, domain, form).values())
        reference = partial(restorer.restore, picture)
    ratios: list[float] = []
    start = time.perf_counter()
    while len(ratios) <= NUM_ROUNDS and (not ratios or time.perf_counter() - start < ROUNDS_S):
        ratios.append(_time(reference) / _time(partial(run, *inputs)))
    return median(ratios[1:] or ratios)


def _time(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _cpu_s() -> float:
    """CPU time of this process and of its finished children, e.g. compilers."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


# One process for each cell


def run_cell(cell: Cell, data: Path) -> Result:
    """The result of `measure` in another process, which may run out of memory."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [json.dumps(asdict(cell)), folder]
        if cell.precision == "int8":
            arguments.append(str(_find_calibration(cell.model, data, Path(folder))))
        try:
            done = subprocess.run(
                [sys.executable, __file__, "--cell", *arguments],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=CELL_S,
            )
        except subprocess.TimeoutExpired:
            return Result(error=f"takes longer than {CELL_S // 60} minutes")
    if done.returncode:
        return Result(error=f"the process ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def _find_calibration(model: str, data: Path, folder: Path) -> Path:
    """A folder of pictures like those to restore."""
    given = CALIBRATION[model]
    if given is not None:
        return data / given
    noisy = folder / "noisy"
    rng = np.random.default_rng(0)
    for path in images.find(data / "training" / "photos")[:20]:
        crop = images.read(path).as_depth("float32").samples[:SIDE_PX, :SIDE_PX]
        samples = crop + rng.normal(0, rng.uniform(0, 55) / 255, crop.shape)
        images.write(Picture(samples.clip(0, 1).astype(np.float32)), noisy / f"{path.stem}.png", bit_depth=8)
    return noisy


# The page


def write_page(results: dict[str, Result]) -> str:
    found = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", found.read_text()) if found.exists() else []
    processor = names[0] if names else platform.processor()
    whole = ", ".join(f"`{name}`" for name in CALIBRATION)
    sides = f"{SIDE_PX} x {SIDE_PX}"
    intro = f"""# Exports of every network

Written by `python benchmarks/exports.py > docs/exports.md`, on one thread of {processor}, next to other work:
{whole} in every format and precision, as the network alone and as a whole graph (`--whole`). A cell has

- the agreement: PSNR against PyTorch in float32, as `pellucid export` measures it. Whole graphs return samples, so
  most of their differences round to nothing;
- the speed: how many times as fast as PyTorch in float32, for {sides} pixels, in turns. `*`: the runtime computes
  in another precision on this processor. Half precision without instructions for it is slow, and so is MindSpore's
  package for CPUs, whose whole graphs have a fixed size;
- the CPU time of the export, with its checks, and the size of the file.

`no` comes with the reason, and `-` was not measured.

[export.md](export.md) describes the formats, and has the loss of PSNR on test sets.
"""
    return "\n".join([intro, *("\n".join(format_table(results, model)) + "\n" for model in CALIBRATION)])


def format_table(results: dict[str, Result], model: str) -> Iterator[str]:
    cells = [cell for cell in list_cells() if cell.model == model]
    yield f"| `{model}` | network | `--whole` |"
    yield "|---|---|---|"
    for name, precision in dict.fromkeys((cell.format, cell.precision) for cell in cells):
        row = [results.get(Cell(model, name, precision, whole).key) for whole in (False, True)]
        yield f"| {name}, {precision} | {' | '.join('-' if one is None else str(one) for one in row)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PELLUCID_DATA", "data")))
    parser.add_argument("--kept", type=Path, default=Path("exports.json"), help="where finished cells are kept")
    parser.add_argument(
        "--only", nargs="+", default=(), help="words that a cell must contain, e.g. onnx mimo-unet"
    )
    parser.add_argument("--cell", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        torch.set_num_threads(1)
        cell, folder, *calibrate = arguments.cell
        result = measure(Cell(**json.loads(cell)), Path(calibrate[0]) if calibrate else None, Path(folder))
        print(json.dumps(asdict(result)))
        return
    kept = json.loads(arguments.kept.read_text()) if arguments.kept.exists() else {}
    for cell in list_cells():
        if cell.key not in kept and {*arguments.only} <= {*cell.key.split()}:
            kept[cell.key] = asdict(run_cell(cell, arguments.data))
            arguments.kept.write_text(json.dumps(kept, indent=1))
            print(f"{cell.key}: {Result(**kept[cell.key])}", file=sys.stderr)
    print(write_page({key: Result(**each) for key, each in kept.items()}), end="")


if __name__ == "__main__":
    main()
