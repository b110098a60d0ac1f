"""GPTQ: round weights to integers so that their errors cancel, instead of each to its nearest integer.

Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", ICLR 2023, arXiv:2210.17323, Section 3.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

DAMPING = 0.01
"""Share of the inputs' mean square that is added to each input, because calibration does not show all of them
(Section 3.3)."""

STRIDE = 3
"""Only every third row and column is used: neighboring positions are similar."""


def second_moments(
    features: Tensor, kernel_px: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    """(K, K), float64: mean products of the inputs of a convolution's K = C * height * width taps.

    features: (N, C, H, W), already padded.
    """
    strides = (STRIDE * stride[0], STRIDE * stride[1])
    columns = F.unfold(features, kernel_px, dilation=dilation, stride=strides)
    rows = columns.transpose(1, 2).flatten(0, 1)
    return (rows.T @ rows / len(rows)).double()


def round_jointly(weights: Tensor, steps: Tensor, moments: Tensor, largest: int) -> Tensor:
    """(O, K) integers q, -largest <= q <= largest, so that q * steps gives nearly the same outputs as the weights.

    weights: (O, K), O rows of K taps. steps: (O, 1), the quantization step of each row.
    moments: (K, K), from `second_moments`.

    Taps are rounded one by one, those with the largest inputs first. After each, the remaining taps are moved to
    compensate its error as well as possible on inputs with these moments (Algorithm 1, without its blocks). Takes
    memory with the square of K and time with its cube.
    """
    order = moments.diagonal().argsort(descending=True)
    inverse_root = _inverse_root(moments[order][:, order])
    remaining = weights.double()[:, order]
    rounded = torch.empty_like(remaining)
    for tap, row in enumerate(inverse_root):
        rounded[:, tap] = (remaining[:, tap] / steps[:, 0]).round().clamp(-largest, largest)
        errors = (remaining[:, tap] - rounded[:, tap] * steps[:, 0]) / row[tap]
        remaining[:, tap:] -= torch.outer(errors, row[tap:])
    return rounded[:, order.argsort()]


def _inverse_root(moments: Tensor) -> Tensor:
    """Upper triangular U; U^T U is the inverse of the damped moments (Section 3.3, Step 3)."""
    damping = DAMPING * moments.diagonal().mean() or 1.0  # 1: if all inputs were zero
    damped = moments + damping * torch.eye(len(moments), dtype=moments.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)
