"""Weights to whole numbers so that their errors cancel, rather than each to its nearest.

Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", ICLR 2023, arXiv:2210.17323, Section 3.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

DAMPING = 0.01
"""Of the inputs' mean square: what calibration never showed is not believed to be always zero (Section 3.3)."""

STRIDE = 3
"""Every third place along rows and columns is looked at: its neighbours show much the same."""


def second_moments(
    features: Tensor, kernel_px: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    """(K, K), float64: the mean products of what a convolution's K = C * height * width taps read together.

    features: (N, C, H, W), padded as the convolution pads them.
    """
    strides = (STRIDE * stride[0], STRIDE * stride[1])
    columns = F.unfold(features, kernel_px, dilation=dilation, stride=strides)
    rows = columns.transpose(1, 2).flatten(0, 1)
    return (rows.T @ rows / len(rows)).double()


def together(weights: Tensor, steps: Tensor, moments: Tensor, largest: int) -> Tensor:
    """Whole numbers q from -largest to largest, for which q * steps does nearly what the weights do.

    weights: (O, K), O rows of K taps. steps: (O, 1), the size of one of each row. moments: (K, K), see above.

    One tap after another is rounded, the loudest first; the taps still to come are moved so that, on inputs with
    these moments, they undo as much of its error as they can (Algorithm 1, without its blocks).
    """
    loudest = moments.diagonal().argsort(descending=True)
    inverse_root = _inverse_root(moments[loudest][:, loudest])
    left = weights.double()[:, loudest]
    rounded = torch.empty_like(left)
    for tap, row in enumerate(inverse_root):
        rounded[:, tap] = (left[:, tap] / steps[:, 0]).round().clamp(-largest, largest)
        errors = (left[:, tap] - rounded[:, tap] * steps[:, 0]) / row[tap]
        left[:, tap:] -= torch.outer(errors, row[tap:])
    return rounded[:, loudest.argsort()]


def _inverse_root(moments: Tensor) -> Tensor:
    """Upper triangular U with U^T U the inverse of the damped moments (Section 3.3, Step 3)."""
    damping = DAMPING * moments.diagonal().mean() or 1.0  # 1: where all that was read is zero
    damped = moments + damping * torch.eye(len(moments), dtype=moments.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)
