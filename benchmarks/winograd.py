"""Winograd's convolution in PyTorch's own operations against oneDNN's direct one: a layer of DnCNN, float32.

    python benchmarks/winograd.py --threads 1

4 x 4 results of a 3 x 3 kernel take 36 products in place of 144 (Lavin, Gray, arXiv:1509.09308, F(4x4, 3x3)); what
remains is the time of changing to and from the space in which they are taken. One line for each number of blocks
that are changed at once: seconds of the processor for both, their ratio, and the largest error of both against
float64.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

CHANNELS, SIZE_PX = 64, 512
BLOCK_PX, WINDOW_PX = 4, 6
_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1.0],
    ]
)
_KERNEL = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24.0]]) / 24
_OUTPUT = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1.0]])
"""B^T, G and A^T of the paper's Section 4.3."""


def changed(weights: Tensor) -> Tensor:
    """(O, C, 3, 3) -> (36, C, O), the kernels in the space of products."""
    return torch.einsum("ai,ocij,bj->abco", _KERNEL, weights, _KERNEL).flatten(0, 1).contiguous()


def convolved(padded: Tensor, kernels: Tensor, num_blocks: int) -> Tensor:
    """(H + 2, W + 2, C), H and W multiples of 4 -> (H, W, O). num_blocks of a row are changed at once."""
    to_products, from_products = torch.kron(_INPUT, _INPUT), torch.kron(_OUTPUT, _OUTPUT)
    height, width, channels = padded.shape[0] - 2, padded.shape[1] - 2, padded.shape[2]
    down, right, deep = padded.stride()
    result = padded.new_empty(height // BLOCK_PX, BLOCK_PX, width // BLOCK_PX, BLOCK_PX, kernels.shape[2])
    for row, into in enumerate(result):
        for first in range(0, width // BLOCK_PX, num_blocks):
            count = min(num_blocks, width // BLOCK_PX - first)
            at = BLOCK_PX * (row * down + first * right)
            shape, strides = (WINDOW_PX, WINDOW_PX, count, channels), (down, right, BLOCK_PX * right, deep)
            windows = padded.as_strided(shape, strides, at).reshape(WINDOW_PX**2, -1)
            products = torch.bmm((to_products @ windows).view(WINDOW_PX**2, count, channels), kernels)
            blocks = (from_products @ products.flatten(1)).view(BLOCK_PX, BLOCK_PX, count, -1)
            into[:, first : first + count] = blocks.transpose(1, 2)
    return result.view(height, width, -1)


def _timed(call: Callable[[], Tensor], rounds: int) -> tuple[float, Tensor]:
    """The least seconds of the processor, and what was computed."""
    times = []
    for _ in range(rounds + 1):
        start = time.process_time()
        result = call()
        times.append(time.process_time() - start)
    return min(times[1:]), result


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    features = torch.rand(1, CHANNELS, SIZE_PX, SIZE_PX)
    weights = torch.randn(CHANNELS, CHANNELS, 3, 3) / 24
    exact = F.conv2d(features.double(), weights.double(), padding=1)
    last = (
        features.contiguous(memory_format=torch.channels_last),
        weights.contiguous(memory_format=torch.channels_last),
    )
    direct_s, direct = _timed(lambda: F.conv2d(*last, padding=1), args.rounds)
    work = 2 * 9 * CHANNELS**2 * SIZE_PX**2
    print(
        f"direct: {direct_s:.3f} s, {work / direct_s / 1e9:.0f} GFLOP/s, error {(direct - exact).abs().max():.1e}"
    )
    padded, kernels = F.pad(features, (1, 1, 1, 1))[0].permute(1, 2, 0).contiguous(), changed(weights)
    for num_blocks in (16, 32, 64, 128):
        seconds, result = _timed(partial(convolved, padded, kernels, num_blocks), args.rounds)
        error = (result.permute(2, 0, 1) - exact).abs().max()
        print(f"Winograd, {num_blocks} blocks: {seconds:.3f} s, {direct_s / seconds:.2f} x, error {error:.1e}")


if __name__ == "__main__":
    main()
