"""How fast networks run here, against the way peers run them: the whole picture, eager float32, NCHW, no folding.

    python benchmarks/restore.py --megapixels 0.25 --threads 1

Every way runs in a process of its own, in turns; of each the fastest round counts, in seconds of the processor,
which others on the machine disturb least. Peak memory is what a process takes beyond what it had before. Untrained
weights: time does not depend on them. The share is of this machine's own peak, measured on a convolution of 256
channels in the same run.
"""

import argparse
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import psutil
import torch
from torch import Tensor

from pellucid import checkpoint, compiling, metrics, recipe
from pellucid.checkpoint import Card
from pellucid.facts import Facts
from pellucid.targets import Plan

NETWORKS = {
    "SRCNN 9-1-5": ("srcnn.paper", {"mapping_px": 1}),
    "SRCNN 9-5-5": ("srcnn.paper", {"mapping_px": 5}),
    "DnCNN-17": ("dncnn.gaussian", {}),
    "MIMO-UNet": ("mimo_unet.gopro", {}),
    "SID U-Net": ("sid_unet.sony", {}),
}
WAYS = (
    ("peers", "float32"),
    ("torch", "float32"),
    ("onnxruntime", "float32"),
    ("openvino", "float32"),
    ("torch", "bfloat16"),
    ("openvino", "bfloat16"),
)
Run = Callable[[Tensor], Tensor]


def plan_of(name: str) -> Plan:
    torch.manual_seed(0)
    key, parameters = NETWORKS[name]
    chosen = recipe.find(key, **parameters)
    network = chosen.network().eval().requires_grad_(False)
    digest = checkpoint.fingerprint(network.state_dict())
    card = Card(key, chosen.parameters, "untrained", "none")
    return Plan(network, chosen, Facts.of(network, chosen, card, weights_sha256=digest))


def input_of(plan: Plan, megapixels: float) -> Tensor:
    """As many pixels of result, as the network takes them."""
    side = math.isqrt(int(megapixels * 1e6)) // plan.facts.scale // 16 * 16
    return torch.rand(1, plan.facts.num_planes, side, side, generator=torch.Generator().manual_seed(0))


def runner(plan: Plan, backend: str, precision: str) -> Run:
    if backend == "peers":
        return torch.inference_mode()(lambda degraded: plan.network(degraded))
    return compiling.backend_for(plan, device="cpu", backend=backend, precision=precision)[0]


def measure(name: str, backend: str, precision: str, megapixels: float) -> dict[str, float]:
    """In this process: seconds of the processor and of the clock, peak memory, agreement with the peers' way."""
    plan = plan_of(name)
    degraded = input_of(plan, megapixels)
    reference = runner(plan.copy(), "peers", "float32")(degraded[..., :128, :128])
    run = runner(plan, backend, precision)
    small = run(degraded[..., :128, :128].contiguous())
    process, peak, done = psutil.Process(), 0, threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    taken = []
    for _ in range(2):  # the first one takes its memory
        start, clock = time.process_time(), time.perf_counter()
        run(degraded)
        taken.append((time.process_time() - start, time.perf_counter() - clock))
    done.set()
    watcher.join()
    cpu_s, wall_s = min(taken)
    psnr = metrics.psnr(small, reference)
    return {"cpu_s": cpu_s, "wall_s": wall_s, "peak_mb": (peak - before) / 1e6, "psnr_db": min(psnr, 999.0)}


def gflop(name: str, megapixels: float) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    plan = plan_of(name)
    with FlopCounterMode(display=False) as counter:
        plan.network(input_of(plan, megapixels))
    return counter.get_total_flops() / 1e9


def peak_gflop_per_s(dtype: torch.dtype) -> float:
    """Of a 3 x 3 convolution of 256 channels, for each second of the processor."""
    layer = torch.nn.Conv2d(256, 256, 3, padding=1, dtype=dtype)
    torch.nn.utils.convert_conv2d_weight_memory_format(layer, torch.channels_last)
    features = torch.rand(1, 256, 96, 96, dtype=dtype).contiguous(memory_format=torch.channels_last)
    best = math.inf
    with torch.inference_mode():
        for _ in range(12):
            start = time.process_time()
            layer(features)
            best = min(best, time.process_time() - start)
    return 2 * 256 * 256 * 9 * 96 * 96 / 1e9 / best


def in_turns(name: str, megapixels: float, threads: int, rounds: int) -> dict[tuple[str, str], dict[str, float]]:
    best: dict[tuple[str, str], dict[str, float]] = {}
    for _ in range(rounds):
        for way in WAYS:
            command = [sys.executable, __file__, "--one", name, *way, "--megapixels", str(megapixels)]
            ran = subprocess.run([*command, "--threads", str(threads)], capture_output=True, text=True)
            if ran.returncode:
                print(f"{name}, {' '.join(way)}: {ran.stderr.strip().splitlines()[-1][:100]}", file=sys.stderr)
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
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        name, backend, precision = args.one
        print(json.dumps(measure(name, backend, precision, args.megapixels)))
        return
    peaks = {"float32": peak_gflop_per_s(torch.float32), "bfloat16": peak_gflop_per_s(torch.bfloat16)}
    print(f"{args.megapixels:g} MP, {args.threads} thread(s), torch {torch.__version__}")
    print(f"peak: {peaks['float32']:.0f} GFLOP/s float32, {peaks['bfloat16']:.0f} bfloat16 (a convolution)")
    print("| network | way | cpu s | MP/s | x peers | of peak | peak MB | PSNR to float32 |\n|" + "---|" * 8)
    for name in args.networks:
        work = gflop(name, args.megapixels)
        found = in_turns(name, args.megapixels, args.threads, args.rounds)
        for (backend, precision), way in found.items():
            ratio = found["peers", "float32"]["cpu_s"] / way["cpu_s"]
            share = work / way["cpu_s"] / peaks[precision]
            print(
                f"| {name} | {backend} {precision} | {way['cpu_s']:.2f} | {args.megapixels / way['wall_s']:.2f} | "
                f"{ratio:.2f} | {share:.0%} | {way['peak_mb']:.0f} | {way['psnr_db']:.0f} dB |",
                flush=True,
            )


if __name__ == "__main__":
    main()
