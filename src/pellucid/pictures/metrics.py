"""PSNR and SSIM of one picture, in float64.

The evaluation protocol decides the color space, border and rounding.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SSIM_WINDOW_PX = 11

_STRIP_PX = 256
"""Rows at a time: 12 megapixels at once take gigabytes in double precision."""


def psnr(restored: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB over all samples, with white at 1. Infinite for equal tensors."""
    error = _sum((restored.double() - target.double()).square()) / target.numel()
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(restored: Tensor, target: Tensor) -> float | None:
    """Mean structural similarity of (1, C, H, W) tensors with white at 1; None if a side is below 11 px.

    Gaussian window of 11 x 11 px with sigma 1.5 at all positions where it fits, K1 = 0.01, K2 = 0.03, weighted
    moments, each channel separately. Source: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004.
    """
    if min(target.shape[-2:]) < SSIM_WINDOW_PX:
        return None
    overlap_px = SSIM_WINDOW_PX - 1
    total, count = 0.0, 0
    for top in range(0, target.shape[-2] - overlap_px, _STRIP_PX):
        rows = slice(top, top + _STRIP_PX + overlap_px)
        similarity = _similarity(restored[..., rows, :].double(), target[..., rows, :].double())
        total, count = total + _sum(similarity), count + similarity.numel()
    return total / count


def _sum(values: Tensor) -> float:
    """By NumPy, because the last bits of PyTorch's sums depend on the number of threads."""
    return float(np.sum(values.numpy(force=True)))


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """The similarity at each position where the window fits."""
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x**2
    var_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )


def _blur(planes: Tensor) -> Tensor:
    offsets = torch.arange(SSIM_WINDOW_PX, dtype=torch.float64) - SSIM_WINDOW_PX // 2
    weights = torch.exp(-(offsets**2) / (2 * 1.5**2))
    weights = (weights / weights.sum()).to(planes.device)
    columns = planes.transpose(0, 1)  # channels as a batch, to use one window for all
    columns = F.conv2d(columns, weights.reshape(1, 1, -1, 1))
    return F.conv2d(columns, weights.reshape(1, 1, 1, -1)).transpose(0, 1)
