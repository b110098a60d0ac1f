"""Color conversions: BT.601 luma and chroma as in MATLAB's rgb2ycbcr, gray, and linear light.

Values are in [0, 1]; luma is in [16/255, 235/255] (studio range), chroma in [16/255, 240/255]. Super-resolution
papers score this luma.
Source: ITU-R BT.601; the coefficients are MATLAB's, exact to three decimals at a peak of 255.
"""

import torch
from torch import Tensor

_TO_YCBCR = torch.tensor(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], dtype=torch.float64
)
_TO_RGB = torch.linalg.inv(_TO_YCBCR)
_OFFSET = torch.tensor([16.0, 128.0, 128.0], dtype=torch.float64)


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """(..., 3, H, W) RGB in [0, 1] -> (..., 3, H, W) Y, Cb, Cr in [0, 1]."""
    return _mix(rgb, _TO_YCBCR / 255, _OFFSET / 255)


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """The exact inverse of `rgb_to_ycbcr`; not clamped."""
    return _mix(ycbcr, _TO_RGB * 255, -_TO_RGB @ _OFFSET)


def rgb_to_luma(rgb: Tensor) -> Tensor:
    """(..., 3, H, W) RGB in [0, 1] -> (..., 1, H, W) BT.601 luma in [16/255, 235/255]."""
    return _mix(rgb, _TO_YCBCR[:1] / 255, _OFFSET[:1] / 255)


def rgb_to_gray(rgb: Tensor) -> Tensor:
    """(..., 3, H, W) RGB in [0, 1] -> (..., 1, H, W) gray in [0, 1], like MATLAB's rgb2gray."""
    weights = torch.tensor([[0.298936021293775, 0.587043074451121, 0.114020904255103]], dtype=torch.float64)
    return _mix(rgb, weights, torch.zeros(1, dtype=torch.float64))


def srgb_to_linear(srgb: Tensor) -> Tensor:
    """sRGB samples in [0, 1] -> linear light in [0, 1]. Source: IEC 61966-2-1."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: Tensor) -> Tensor:
    """The inverse of `srgb_to_linear`."""
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def _mix(planes: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    # Not a matrix product, whose order of additions depends on the size: a tile must give the same bits as the
    # whole picture.
    rows = zip(matrix.tolist(), offset.tolist(), strict=True)
    a, b, c = planes.unbind(-3)
    return torch.stack([a * x + b * y + c * z + shift for (x, y, z), shift in rows], dim=-3)
