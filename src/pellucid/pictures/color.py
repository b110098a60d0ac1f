"""Color conversions: BT.601 luma and chroma as in MATLAB's rgb2ycbcr, gray, and linear light.

Values are in [0, 1]; luma is in [16/255, 235/255] (studio range), chroma in [16/255, 240/255]. Super-resolution
papers score this luma.
Source: ITU-R BT.601; the coefficients are MATLAB's, exact to three decimals at a peak of 255.
"""

import torch
from torch import Tensor

_Rows = list[tuple[tuple[float, float, float], float]]
"""For each resulting plane: the weights of three planes, and an offset."""


def _to_rows(matrix: Tensor, offset: Tensor) -> _Rows:
    """Plain numbers: tensors would be copied into graphs that are exported."""
    return [(tuple(row), shift) for row, shift in zip(matrix.tolist(), offset.tolist(), strict=True)]


_TO_YCBCR = torch.tensor(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], dtype=torch.float64
)
_TO_RGB = torch.linalg.inv(_TO_YCBCR)
_OFFSET = torch.tensor([16.0, 128.0, 128.0], dtype=torch.float64)

_YCBCR_ROWS = _to_rows(_TO_YCBCR / 255, _OFFSET / 255)
_RGB_ROWS = _to_rows(_TO_RGB * 255, -_TO_RGB @ _OFFSET)
_GRAY_ROWS: _Rows = [((0.298936021293775, 0.587043074451121, 0.114020904255103), 0.0)]


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """(..., 3, H, W) RGB in [0, 1] -> (..., 3, H, W) Y, Cb, Cr in [0, 1]."""
    return _mix(rgb, _YCBCR_ROWS)


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """The exact inverse of `rgb_to_ycbcr`; not clamped."""
    return _mix(ycbcr, _RGB_ROWS)


def rgb_to_luma(rgb: Tensor) -> Tensor:
    """(..., 3, H, W) RGB in [0, 1] -> (..., 1, H, W) BT.601 luma in [16/255, 235/255]."""
    return _mix(rgb, _YCBCR_ROWS[:1])


def rgb_to_gray(rgb: Tensor) -> Tensor:
    """(..., 3, H, W) RGB in [0, 1] -> (..., 1, H, W) gray in [0, 1], like MATLAB's rgb2gray."""
    return _mix(rgb, _GRAY_ROWS)


def srgb_to_linear(srgb: Tensor) -> Tensor:
    """sRGB samples in [0, 1] -> linear light in [0, 1]. Source: IEC 61966-2-1."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: Tensor) -> Tensor:
    """The inverse of `srgb_to_linear`."""
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def _mix(planes: Tensor, rows: _Rows) -> Tensor:
    # Not a matrix product, whose order of additions depends on the size: a tile must give the same bits as the
    # whole picture.
    a, b, c = planes.unbind(-3)
    return torch.stack([a * x + b * y + c * z + shift for (x, y, z), shift in rows], dim=-3)
