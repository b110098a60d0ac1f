"""How well a GPU is used, in one Markdown table: restoring, training, and a folder.

    python benchmarks/gpu.py --device cuda            # about 5 minutes, at most 8
    python benchmarks/gpu.py --device cpu --quick     # shows that it runs, in less than a minute

"Of peak" is the share of the peak of this device, which is measured first: a large matrix product in float32, in
TF32, and in bfloat16. Operations are those of the network alone, counted on tensors without samples; a training
step takes three times those of the forward pass. Weights are untrained, as the time does not depend on them.
A row that would start after `--minutes` is left out.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path

import torch
from folder import make_folder, make_photo
from restore import build_model, choose_side_px, count_gflop, make_picture
from torch.utils.flop_counter import FlopCounterMode
from train import stored

from pellucid.backends import selection
from pellucid.backends.model import Model
from pellucid.errors import PellucidError
from pellucid.recipes import registry
from pellucid.recipes.recipe import Recipe
from pellucid.restoration.restore import restore
from pellucid.restoration.restorer import Restorer
from pellucid.training import tuning
from pellucid.training.batches import Batches
from pellucid.training.distributed import Group
from pellucid.training.learner import ExecutionMode, Learner

Peaks = dict[str, float]
"""TFLOP/s by "float32", "TF32" and "bfloat16"."""

Rows = Generator["Row", None, None]

TRAININGS: dict[str, dict[str, object]] = {
    "dncnn.gaussian": {},
    "sid_unet.any_camera": {},
    "mimo_unet.gopro": {},
    "dncnn.gaussian optimizer=soap": {"optimizer": "soap"},
}
COMPILED = ("dncnn.gaussian", "mimo_unet.gopro")
"""Trainings that are also compiled, which takes up to a minute each."""
HD_MEGAPIXELS = 1280 * 720 / 1e6
"""MIMO-UNet's papers measure pictures of this size."""
TINY_TRAINING: dict[str, object] = {"batch_size": 2, "patch_px": 32}


@dataclass(frozen=True)
class Size:
    """How much is measured. matrix: rows of the matrices of the peak."""

    matrix: int
    megapixels: float
    num_pictures: int
    num_steps: int
    networks: Sequence[str]
    tiles_px: Sequence[int | None]
    trainings: Sequence[str]


NETWORKS = ("DnCNN-17", "MIMO-UNet", "SID U-Net", "SRCNN 9-5-5")
FULL = Size(8192, 12.0, 120, 150, NETWORKS, (None, 512, 1024, 4096), tuple(TRAININGS))
QUICK = Size(512, 0.01, 3, 3, ("SRCNN 9-5-5",), (None, 64), ("sid_unet.any_camera",))


@dataclass(frozen=True)
class Row:
    """A row of the table. share: of the peak; None if the network is not all that is measured."""

    what: str
    how: str
    seconds: float
    rate: str
    share: float | None = None

    def __str__(self) -> str:
        share = "-" if self.share is None else f"{self.share:.0%}"
        return f"| {self.what} | {self.how} | {1000 * self.seconds:.4g} ms | {self.rate} | {share} |"


def wait_for(device: torch.device) -> None:
    """Wait until the device has done everything."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def measure_s(run: Callable[[], object], device: torch.device, num_rounds: int = 3) -> float:
    """The shortest time of a call, after one that is not counted."""
    times_s = []
    for _ in range(1 + num_rounds):
        wait_for(device)
        start_s = time.perf_counter()
        run()
        wait_for(device)
        times_s.append(time.perf_counter() - start_s)
    return min(times_s[1:])


def measure_peaks(device: torch.device, size: int) -> Peaks:
    """Of products of square matrices of this size, in TFLOP/s."""
    peaks = {}
    for name, dtype in (("float32", torch.float32), ("TF32", torch.float32), ("bfloat16", torch.bfloat16)):
        if name == "TF32" and device.type != "cuda":
            continue
        torch.backends.cuda.matmul.allow_tf32 = name == "TF32"
        left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
        peaks[name] = 2 * size**3 / 1e12 / measure_s(partial(torch.matmul, left, right), device, 10)
    torch.backends.cuda.matmul.allow_tf32 = False
    return peaks


def measure_restoring(device: torch.device, size: Size, peaks: Peaks) -> Rows:
    """From picture to picture, and the network alone, in each precision; in one of them with several tiles."""
    for name in size.networks:
        megapixels = min(size.megapixels, HD_MEGAPIXELS) if name == "MIMO-UNet" else size.megapixels
        work_tflop = count_gflop(name, megapixels) / 1e3
        for precision in ("float32", "bfloat16"):
            model = build_model(name)
            picture = make_picture(model, choose_side_px(model, megapixels))
            with suppress(PellucidError):
                backend = selection.build_backend(model, "torch", precision, str(device))
                restorer = Restorer(name, model.recipe, backend)
                for tile_px in size.tiles_px if precision == "bfloat16" and name == size.networks[0] else (None,):
                    taken_s = measure_s(partial(restorer.restore, picture, tile_px=tile_px), device)
                    tiles = "" if tile_px is None else f", tiles of {tile_px} px"
                    rate = f"{megapixels / taken_s:.3g} MP/s"
                    what = f"restore {name}, {megapixels:g} MP"
                    yield Row(what, f"{precision}{tiles}", taken_s, rate, work_tflop / taken_s / peaks[precision])
                taken_s = measure_s(partial(backend, make_planes(model, megapixels, device)), device)
                share = work_tflop / taken_s / peaks[precision]
                yield Row(f"{name} alone", precision, taken_s, f"{megapixels / taken_s:.3g} MP/s", share)


def make_planes(model: Model, megapixels: float, device: torch.device) -> torch.Tensor:
    """What the network alone gets for a result of this size, on the device."""
    side_px = int(choose_side_px(model, megapixels) * model.recipe.domain.rate)
    return torch.rand(1, model.metadata.num_planes, side_px, side_px, device=device)


def choose_modes(device: torch.device, *, compiled: bool) -> list[ExecutionMode]:
    """What is compared: as in a training without tuning, and what is usually the fastest."""
    modes = [ExecutionMode(), ExecutionMode("bfloat16", channels_last=True)]
    if device.type == "cuda" and compiled:
        modes.append(replace(modes[1], compiled=True, graphs=True))
    return modes


def count_step_tflop(made: Recipe, degraded: torch.Tensor) -> float:
    """Operations of a training step."""
    network = made.network().to("meta")
    with FlopCounterMode(display=False) as counter:
        network(torch.empty_like(degraded, device="meta"))
    return 3 * counter.get_total_flops() / 1e12


def measure_training(device: torch.device, size: Size, peaks: Peaks, folder: Path) -> Rows:
    """A step on a batch that is ready, in several modes, and with its own batches in the fastest one."""
    for title in size.trainings:
        tiny = TINY_TRAINING if size is QUICK else {}
        made = registry.find(title.split()[0], num_steps=10_000, **TRAININGS[title], **tiny)
        store = stored(_make_pngs(size), folder / title.replace(" ", "-"), pairs=made.degradation is None)
        with closing(Batches(made, store, seed=0, device=device)) as batches:
            ready = batches.batch(0)
            work_tflop = count_step_tflop(made, ready[0])
            found: dict[ExecutionMode, float] = {}
            for mode in choose_modes(device, compiled=title in COMPILED):
                try:
                    found[mode] = tuning.measure_mode(made, mode, ready, device).step_s
                except Exception as error:  # a compiler that is missing, or a kernel: the other modes remain
                    print(f"{title}, {mode}: {str(error).splitlines()[0][:100]}", file=sys.stderr)
                    continue
                yield _to_row(f"train {title}", mode, found[mode], work_tflop, peaks)
            mode = min(found, key=lambda mode: found[mode])
            learner = Learner(made, made.network(), mode, seed=0, group=Group(device))
            taken_s, waiting = measure_steps(learner, batches, size.num_steps)
            row = _to_row(f"train {title} with its batches", mode, taken_s, work_tflop, peaks)
            yield replace(row, rate=f"{row.rate}, {waiting:.0%} waiting")


def _to_row(what: str, mode: ExecutionMode, seconds: float, work_tflop: float, peaks: Peaks) -> Row:
    share = work_tflop / seconds / peaks[mode.precision]
    return Row(what, str(mode), seconds, f"{1 / seconds:.3g} steps/s", share)


def measure_steps(learner: Learner, batches: Batches, num_steps: int) -> tuple[float, float]:
    """Seconds of a step with its batch, and the fraction of them that was spent waiting for batches."""
    for _ in range(3):
        learner.learn(*batches.batch(learner.step))
    learner.settle()
    start_s, waited_s = time.perf_counter(), batches.waited_s
    for _ in range(num_steps):
        learner.learn(*batches.batch(learner.step))
    learner.settle()
    taken_s = time.perf_counter() - start_s
    return taken_s / num_steps, (batches.waited_s - waited_s) / taken_s


def _make_pngs(size: Size) -> list[bytes]:
    files = []
    for i in range(2 if size is QUICK else 24):
        file = BytesIO()
        make_photo(640, 640, i, gray=False).save(file, "PNG")
        files.append(file.getvalue())
    return files


def measure_folder(device: torch.device, size: Size, folder: Path) -> Rows:
    """JPEGs of mixed sizes from disk to disk; the second run, without what is loaded first."""
    megapixels = make_folder(folder / "photos", size.num_pictures)
    network = size.networks[0]
    model = build_model(network)
    restorer = Restorer(network, model.recipe, selection.build_backend(model, "torch", "bfloat16", str(device)))
    for number in range(2):
        start_s = time.perf_counter()
        outcomes = restore(folder / "photos", restorer, folder / f"restored {number}", workers=8)
        taken_s = time.perf_counter() - start_s
        assert not any(outcome.error for outcome in outcomes)
    what = f"restore a folder of {size.num_pictures} JPEGs, {megapixels:.3g} MP, {network}"
    yield Row(what, "bfloat16", taken_s, f"{size.num_pictures / taken_s:.3g} pictures/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which show only that it runs")
    parser.add_argument("--minutes", type=float, default=7.0, help="no row starts after this time")
    args = parser.parse_args()
    device, size, start_s = torch.device(args.device), QUICK if args.quick else FULL, time.monotonic()
    peaks = measure_peaks(device, size.matrix)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    described = ", ".join(f"{name} {peak:.3g}" for name, peak in peaks.items())
    print(f"{card}, PyTorch {torch.__version__}; peak in TFLOP/s: {described}\n")
    print("| what | how | time | rate | of peak |\n|---|---|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        parts = (
            measure_restoring(device, size, peaks),
            measure_training(device, size, peaks, Path(name)),
            measure_folder(device, size, Path(name)),
        )
        for part in parts:
            while time.monotonic() - start_s < 60 * args.minutes and (row := next(part, None)) is not None:
                print(row, flush=True)
            part.close()


if __name__ == "__main__":
    main()
