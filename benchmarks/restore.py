"""How fast pictures are restored, compared with eager PyTorch on whole pictures: float32, NCHW, not folded.

    python benchmarks/restore.py --megapixels 1 --threads 2
    python benchmarks/restore.py --megapixels 12 --backends eager:float32 openvino:bfloat16

From a picture in memory to a picture in memory. Each backend runs in its own process, in turns. The fastest round
counts, in CPU seconds, which depend least on other load. Peak memory is what a process takes in addition to what
it had before. Weights are untrained, as time does not depend on them; int8 is calibrated on synthetic pictures.
"Of peak" is the share of this machine's peak, measured in the same run on a convolution of 256 channels.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch

from pellucid.backends import parity, selection
from pellucid.backends.backend import Backend
from pellucid.backends.model import Model
from pellucid.backends.runtimes import OpenVinoBackend
from pellucid.degradations.raw_synthesis import SyntheticRaw
from pellucid.domains import Degraded
from pellucid.exporting.export_format import ExportRequest
from pellucid.exporting.formats import openvino
from pellucid.pictures import metrics
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.restoration.restorer import Restorer
from pellucid.weights.checkpoint import WeightsMetadata

NETWORKS = {
    "SRCNN 9-1-5": ("srcnn.paper", {"mapping_px": 1}),
    "SRCNN 9-5-5": ("srcnn.paper", {"mapping_px": 5}),
    "DnCNN-17": ("dncnn.gaussian", {}),
    "MIMO-UNet": ("mimo_unet.gopro", {}),
    "SID U-Net": ("sid_unet.sony", {}),
}
EAGER = "eager:float32"
BACKENDS = (
    EAGER,
    "torch:float32",
    "onnxruntime:float32",
    "openvino:float32",
    "torch:bfloat16",
    "openvino:bfloat16",
    "openvino:int8",
)
SMALL_PX = 96
"""Side of the picture on which PSNR is measured."""

Run = Callable[[Degraded], Picture]


def build_model(name: str) -> Model:
    torch.manual_seed(0)
    key, parameters = NETWORKS[name]
    chosen = registry.find(key, **parameters)
    network = chosen.network().eval().requires_grad_(False)
    return Model.of(network, chosen, WeightsMetadata(key, chosen.parameters, "untrained", "none"))


def choose_side_px(model: Model, megapixels: float) -> int:
    """Side of the degraded picture for a result of this size."""
    scale = model.recipe.domain.rate * model.metadata.scale
    return int(math.sqrt(megapixels * 1e6) / scale) // 16 * 16


def make_picture(model: Model, side_px: int) -> Degraded:
    """8-bit noise in the colors of the network, or a camera mosaic."""
    if model.recipe.domain.takes_mosaic:
        generator = torch.Generator().manual_seed(0)
        return SyntheticRaw().mosaic(torch.rand(1, 3, side_px, side_px, generator=generator), generator)
    channels = 1 if model.recipe.domain.colors == "gray" else 3
    return Picture(np.random.default_rng(0).integers(0, 256, (side_px, side_px, channels), np.uint8))


def build_run(model: Model, name: str) -> Run:
    """name: BACKEND:PRECISION."""
    if name == EAGER:
        return build_eager(model)
    return Restorer("benchmark", model.recipe, build_backend(model, *name.split(":"))).restore


def build_eager(model: Model) -> Run:
    """The network as it was trained, on the whole picture."""
    domain = model.recipe.domain

    @torch.inference_mode()
    def run(degraded: Degraded) -> Picture:
        planes = domain.to_planes(domain.accept(degraded))
        return Picture.from_tensor(
            domain.output_to_planes(model.network(domain.planes_to_input(planes)), planes), "uint8"
        )

    return run


def build_backend(model: Model, backend: str, precision: str) -> Backend:
    if precision != "int8":
        return selection.select_backend(model, device="cpu", backend=backend, precision=precision)[0]
    pictures = parity.crop_inputs(parity.synthetic_inputs(model.recipe), [(96, 96)])
    request = ExportRequest(model, "int8", pictures=[(picture,) for picture in pictures])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.write(request, path)
        return OpenVinoBackend(path, request.metadata, model.meta_network)


def measure(name: str, backend: str, megapixels: float) -> dict[str, float]:
    """In this process: CPU seconds, elapsed seconds, peak memory, and PSNR against torch float32."""
    model = build_model(name)
    degraded, small = (
        make_picture(model, choose_side_px(model, megapixels)),
        make_picture(model, SMALL_PX).as_depth("float32"),
    )
    reference = build_run(model.copy(), "torch:float32")(small).to_tensor()
    run = build_run(model, backend)
    psnr_db = metrics.psnr(run(small).as_depth("float32").to_tensor(), reference) if backend != EAGER else math.inf
    process, peak, done = psutil.Process(), 0, threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    times_s = []
    for _ in range(
        2 if megapixels <= 1 else 1
    ):  # the first run allocates memory, which takes little of the time for a large picture
        cpu_start_s, start_s = time.process_time(), time.perf_counter()
        run(degraded)
        times_s.append((time.process_time() - cpu_start_s, time.perf_counter() - start_s))
    done.set()
    watcher.join()
    cpu_s, wall_s = min(times_s)
    return {"cpu_s": cpu_s, "wall_s": wall_s, "peak_mb": (peak - before) / 1e6, "psnr_db": min(psnr_db, 999.0)}


def count_gflop(name: str, megapixels: float) -> float:
    """Operations of the network alone, counted on tensors without samples."""
    from torch.utils.flop_counter import FlopCounterMode

    model = build_model(name)
    side_px = int(choose_side_px(model, megapixels) * model.recipe.domain.rate)
    degraded = torch.empty(1, model.metadata.num_planes, side_px, side_px, device="meta")
    with FlopCounterMode(display=False) as counter:
        model.network.to("meta")(degraded)
    return counter.get_total_flops() / 1e9


def measure_peak_gflop_per_s(precision: str) -> float:
    """Speed of a 3 x 3 convolution of 256 channels: billions of operations per CPU second."""
    features = torch.rand(1, 256, 96, 96).contiguous(memory_format=torch.channels_last)
    layer: torch.nn.Module
    if precision == "int8":
        with warnings.catch_warnings(action="ignore"):  # about deprecated modules
            layer = torch.ao.nn.quantized.Conv2d(256, 256, 3, padding=1)
            features = torch.quantize_per_tensor(features, 1 / 255, 0, torch.quint8)
    else:
        dtype = getattr(torch, precision)
        layer, features = torch.nn.Conv2d(256, 256, 3, padding=1, dtype=dtype), features.to(dtype)
        torch.nn.utils.convert_conv2d_weight_memory_format(layer, torch.channels_last)
    best_s = math.inf
    with torch.inference_mode():
        for _ in range(12):
            start_s = time.process_time()
            layer(features)
            best_s = min(best_s, time.process_time() - start_s)
    return 2 * 256 * 256 * 9 * 96 * 96 / 1e9 / best_s


def measure_in_turns(
    name: str, backends: list[str], megapixels: float, threads: int, rounds: int
) -> dict[str, dict[str, float]]:
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for backend in backends:
            command = [sys.executable, __file__, "--one", name, backend, "--megapixels", str(megapixels)]
            # The command line requests huge pages for activations; a plain PyTorch program does not.
            environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": "0" if backend == EAGER else "1"}
            command += ["--threads", str(threads)]
            ran = subprocess.run(command, capture_output=True, text=True, env=environment)
            if ran.returncode:
                reason = (ran.stderr.strip().splitlines() or [f"status {ran.returncode}"])[-1]
                print(f"{name}, {backend}: {reason[:100]}", file=sys.stderr)
                continue
            found = json.loads(ran.stdout.splitlines()[-1])
            if backend not in best or found["cpu_s"] < best[backend]["cpu_s"]:
                best[backend] = found
    return best


def format_psnr(psnr_db: float) -> str:
    return "exact" if psnr_db >= 999 else f"{psnr_db:.0f} dB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=0.25, help="size of the result")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--backends", nargs="*", default=list(BACKENDS), choices=BACKENDS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        name, backend = args.one
        print(json.dumps(measure(name, backend, args.megapixels)))
        return
    peaks = {precision: measure_peak_gflop_per_s(precision) for precision in ("float32", "bfloat16", "int8")}
    print(f"{args.megapixels:g} MP, {args.threads} thread(s), torch {torch.__version__}")
    print("peak of a convolution in GFLOP/s: " + ", ".join(f"{name} {value:.0f}" for name, value in peaks.items()))
    print("| network | backend | CPU s | MP/s | speedup | of peak | peak MB | PSNR to float32 |\n|" + "---|" * 8)
    for name in args.networks:
        work_gflop = count_gflop(name, args.megapixels)
        found = measure_in_turns(name, args.backends, args.megapixels, args.threads, args.rounds)
        for backend, measured in found.items():
            speedup = f"{found[EAGER]['cpu_s'] / measured['cpu_s']:.2f}" if EAGER in found else "-"
            share = work_gflop / measured["cpu_s"] / peaks[backend.split(":")[1]]
            psnr = "-" if backend == EAGER else format_psnr(measured["psnr_db"])
            print(
                f"| {name} | {backend.replace(':', ' ')} | {measured['cpu_s']:.2f} | "
                f"{args.megapixels / measured['wall_s']:.2f} | {speedup} | {share:.0%} | "
                f"{measured['peak_mb']:.0f} | {psnr} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
