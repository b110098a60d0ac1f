"""How fast pictures are restored here, against the way peers do it: whole, eager float32, NCHW, no folding.

    python benchmarks/restore.py --megapixels 1 --threads 2
    python benchmarks/restore.py --megapixels 12 --networks "SRCNN 9-1-5" --ways peers:float32 openvino:bfloat16

From a picture in memory to a picture in memory. Every way runs in a process of its own, in turns; of each the
fastest round counts, in seconds of the processor, which others on the machine disturb least. Peak memory is what a
process takes beyond what it had before. Untrained weights: time does not depend on them; int8 is calibrated on
made-up pictures. The share is of this machine's own peak, measured on a convolution of 256 channels in the run.
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
from dataclasses import replace
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
from pellucid.export.formats import FORMATS
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
PEERS = "peers:float32"
WAYS = (
    PEERS,
    "torch:float32",
    "onnxruntime:float32",
    "openvino:float32",
    "torch:bfloat16",
    "openvino:bfloat16",
    "openvino:int8",
)
SMALL_PX = 96
"""Side of the picture on which agreement is measured."""

Run = Callable[[Degraded], Picture]


def plan_of(name: str) -> Model:
    torch.manual_seed(0)
    key, parameters = NETWORKS[name]
    chosen = registry.find(key, **parameters)
    network = chosen.network().eval().requires_grad_(False)
    return Model.of(network, chosen, WeightsMetadata(key, chosen.parameters, "untrained", "none"))


def side_of(plan: Model, megapixels: float) -> int:
    """Of the degraded picture whose result has so many."""
    scale = plan.recipe.domain.rate * plan.facts.scale
    return int(math.sqrt(megapixels * 1e6) / scale) // 16 * 16


def picture_of(plan: Model, side_px: int) -> Degraded:
    """Noise of 8 bit, in the colors that the network takes; or what a camera would hold."""
    if plan.recipe.domain.takes_mosaic:
        generator = torch.Generator().manual_seed(0)
        return SyntheticRaw().mosaic(torch.rand(1, 3, side_px, side_px, generator=generator), generator)
    channels = 1 if plan.recipe.domain.colors == "gray" else 3
    return Picture(np.random.default_rng(0).integers(0, 256, (side_px, side_px, channels), np.uint8))


def runner(plan: Model, way: str) -> Run:
    if way == PEERS:
        return peers(plan)
    return Restorer("benchmark", plan.recipe, backend_of(plan, *way.split(":"))).restore


def peers(plan: Model) -> Run:
    """The picture as a whole through the network as it was trained."""
    domain = plan.recipe.domain

    @torch.inference_mode()
    def run(degraded: Degraded) -> Picture:
        degraded = domain.accept(degraded).as_depth("float32")
        return domain.to_picture(plan.network(domain.to_input(degraded)), degraded).as_depth("uint8")

    return run


def backend_of(plan: Model, backend: str, precision: str) -> Backend:
    if precision != "int8":
        return selection.select_backend(plan, device="cpu", backend=backend, precision=precision)[0]
    facts = replace(plan.facts, precision="int8")
    inputs = parity.crop_inputs(parity.synthetic_inputs(plan.recipe), [(96, 96)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        FORMATS["openvino"].write(replace(plan, facts=facts, pictures=inputs), path)
        return OpenVinoBackend(path, facts, plan.shadow)


def measure(name: str, way: str, megapixels: float) -> dict[str, float]:
    """In this process: seconds of the processor and of the clock, peak memory, agreement with the peers' way."""
    plan = plan_of(name)
    degraded, small = picture_of(plan, side_of(plan, megapixels)), picture_of(plan, SMALL_PX).as_depth("float32")
    reference = runner(plan.copy(), "torch:float32")(small).to_tensor()
    run = runner(plan, way)
    psnr_db = metrics.psnr(run(small).as_depth("float32").to_tensor(), reference) if way != PEERS else math.inf
    process, peak, done = psutil.Process(), 0, threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    taken = []
    for _ in range(2 if megapixels <= 1 else 1):  # the first one takes its memory, which is little of a large one
        start, clock = time.process_time(), time.perf_counter()
        run(degraded)
        taken.append((time.process_time() - start, time.perf_counter() - clock))
    done.set()
    watcher.join()
    cpu_s, wall_s = min(taken)
    return {"cpu_s": cpu_s, "wall_s": wall_s, "peak_mb": (peak - before) / 1e6, "psnr_db": min(psnr_db, 999.0)}


def gflop(name: str, megapixels: float) -> float:
    """What the network itself takes, counted on tensors without samples."""
    from torch.utils.flop_counter import FlopCounterMode

    plan = plan_of(name)
    side_px = int(side_of(plan, megapixels) * plan.recipe.domain.rate)
    degraded = torch.empty(1, plan.facts.num_planes, side_px, side_px, device="meta")
    with FlopCounterMode(display=False) as counter:
        plan.network.to("meta")(degraded)
    return counter.get_total_flops() / 1e9


def peak_gflop_per_s(precision: str) -> float:
    """Of a 3 x 3 convolution of 256 channels, for each second of the processor."""
    features = torch.rand(1, 256, 96, 96).contiguous(memory_format=torch.channels_last)
    layer: torch.nn.Module
    if precision == "int8":
        with warnings.catch_warnings(action="ignore"):  # of what will move to another package
            layer = torch.ao.nn.quantized.Conv2d(256, 256, 3, padding=1)
            features = torch.quantize_per_tensor(features, 1 / 255, 0, torch.quint8)
    else:
        dtype = getattr(torch, precision)
        layer, features = torch.nn.Conv2d(256, 256, 3, padding=1, dtype=dtype), features.to(dtype)
        torch.nn.utils.convert_conv2d_weight_memory_format(layer, torch.channels_last)
    best = math.inf
    with torch.inference_mode():
        for _ in range(12):
            start = time.process_time()
            layer(features)
            best = min(best, time.process_time() - start)
    return 2 * 256 * 256 * 9 * 96 * 96 / 1e9 / best


def in_turns(
    name: str, ways: list[str], megapixels: float, threads: int, rounds: int
) -> dict[str, dict[str, float]]:
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for way in ways:
            command = [sys.executable, __file__, "--one", name, way, "--megapixels", str(megapixels)]
            # What the command line sets for itself, and peers do not: huge pages for fresh activations.
            environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": "0" if way == PEERS else "1"}
            command += ["--threads", str(threads)]
            ran = subprocess.run(command, capture_output=True, text=True, env=environment)
            if ran.returncode:
                why = (ran.stderr.strip().splitlines() or [f"status {ran.returncode}"])[-1]
                print(f"{name}, {way}: {why[:100]}", file=sys.stderr)
                continue
            found = json.loads(ran.stdout.splitlines()[-1])
            if way not in best or found["cpu_s"] < best[way]["cpu_s"]:
                best[way] = found
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=0.25, help="of the result")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        name, way = args.one
        print(json.dumps(measure(name, way, args.megapixels)))
        return
    peaks = {precision: peak_gflop_per_s(precision) for precision in ("float32", "bfloat16", "int8")}
    print(f"{args.megapixels:g} MP, {args.threads} thread(s), torch {torch.__version__}")
    print("peak in GFLOP/s (a convolution): " + ", ".join(f"{name} {value:.0f}" for name, value in peaks.items()))
    print("| network | way | cpu s | MP/s | x peers | of peak | peak MB | PSNR to float32 |\n|" + "---|" * 8)
    for name in args.networks:
        work = gflop(name, args.megapixels)
        found = in_turns(name, args.ways, args.megapixels, args.threads, args.rounds)
        for way, figures in found.items():
            ratio = f"{found[PEERS]['cpu_s'] / figures['cpu_s']:.2f}" if PEERS in found else "-"
            share = work / figures["cpu_s"] / peaks[way.split(":")[1]]
            agrees = "-" if way == PEERS else f"{figures['psnr_db']:.0f} dB"
            print(
                f"| {name} | {way.replace(':', ' ')} | {figures['cpu_s']:.2f} | "
                f"{args.megapixels / figures['wall_s']:.2f} | {ratio} | {share:.0%} | {figures['peak_mb']:.0f} | "
                f"{agrees} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
