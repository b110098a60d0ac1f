"""Winograd's convolution, in PyTorch operations, compared with oneDNN's direct one: a layer of DnCNN.

    python benchmarks/winograd.py --threads 1

4 x 4 results of a 3 x 3 kernel take 36 products instead of 144 (Lavin, Gray, arXiv:1509.09308, F(4x4, 3x3)), plus
the time for transforming the inputs and the products. Prints one line for each number of blocks that are
transformed at once: CPU seconds, speedup over the direct convolution, and the largest error against float64.
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


def transform_kernels(weights: Tensor) -> Tensor:
    """(O, C, 3, 3) -> (36, C, O): G g G^T."""
    return torch.einsum("ai,ocij,bj->abco", _KERNEL, weights, _KERNEL).flatten(0, 1).contiguous()


def convolve(padded: Tensor, kernels: Tensor, num_blocks: int) -> Tensor:
    """(H + 2, W + 2, C), H and W multiples of 4 -> (H, W, O). num_blocks: of a row, transformed at once."""
    to_products, from_products = torch.kron(_INPUT, _INPUT), torch.kron(_OUTPUT, _OUTPUT)
    height, width, channels = padded.shape[0] - 2, padded.shape[1] - 2, padded.shape[2]
    row_stride, col_stride, channel_stride = padded.stride()
    result = padded.new_empty(height // BLOCK_PX, BLOCK_PX, width // BLOCK_PX, BLOCK_PX, kernels.shape[2])
    for row, into in enumerate(result):
        for first in range(0, width // BLOCK_PX, num_blocks):
            count = min(num_blocks, width // BLOCK_PX - first)
            at = BLOCK_PX * (row * row_stride + first * col_stride)
            shape, strides = (
                (WINDOW_PX, WINDOW_PX, count, channels),
                (row_stride, col_stride, BLOCK_PX * col_stride, channel_stride),
            )
            windows = padded.as_strided(shape, strides, at).reshape(WINDOW_PX**2, -1)
            products = torch.bmm((to_products @ windows).view(WINDOW_PX**2, count, channels), kernels)
            blocks = (from_products @ products.flatten(1)).view(BLOCK_PX, BLOCK_PX, count, -1)
            into[:, first : first + count] = blocks.transpose(1, 2)
    return result.view(height, width, -1)


def _time(call: Callable[[], Tensor], rounds: int) -> tuple[float, Tensor]:
    """The shortest time in CPU seconds, and the result."""
    times_s = []
    for _ in range(rounds + 1):
        start_s = time.process_time()
        result = call()
        times_s.append(time.process_time() - start_s)
    return min(times_s[1:]), result


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
    direct_s, direct = _time(lambda: F.conv2d(*last, padding=1), args.rounds)
    num_operations = 2 * 9 * CHANNELS**2 * SIZE_PX**2
    print(
        f"direct: {direct_s:.3f} s, {num_operations / direct_s / 1e9:.0f} GFLOP/s, "
        f"error {(direct - exact).abs().max():.1e}"
    )
    padded, kernels = F.pad(features, (1, 1, 1, 1))[0].permute(1, 2, 0).contiguous(), transform_kernels(weights)
    for num_blocks in (16, 32, 64, 128):
        duration_s, result = _time(partial(convolve, padded, kernels, num_blocks), args.rounds)
        error = (result.permute(2, 0, 1) - exact).abs().max()
        print(
            f"Winograd, {num_blocks} blocks: {duration_s:.3f} s, speedup {direct_s / duration_s:.2f}, "
            f"error {error:.1e}"
        )


if __name__ == "__main__":
    main()
