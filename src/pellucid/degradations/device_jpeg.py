"""Compression as JPEG on any device, with the samples of libjpeg-turbo: without a file, and without waiting.

A file keeps the quantized coefficients exactly, so entropy coding is left out. Everything else is integer
arithmetic like that of libjpeg-turbo, whose source files are named here, as Pillow uses it: accurate integer DCT,
no smoothing, and fancy upsampling of chroma. All pictures, planes and samplings are computed at once, in as few
operations as possible: a GPU takes longer to start one than to compute it for a few patches.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.system import devices

_Numbers = NDArray[np.int64]

_SIDE = 8
"""Rows and columns of a block."""

_FACTORS = {"4:2:0": (2, 2), "4:2:2": (1, 2), "4:4:4": (1, 1)}
"""Rows and columns of the picture for each sample of chroma."""

_CENTER = 128
"""What is subtracted from samples before the DCT."""

_TO_YCC = np.array(
    [
        [19595, 38470, 7471, 1 << 15],
        [-11059, -21709, 32768, (_CENTER << 16) + (1 << 15) - 1],
        [32768, -27439, -5329, (_CENTER << 16) + (1 << 15) - 1],
    ]
)[..., None, None]
"""Weights of red, green and blue, and an offset; all times 2**16 (jccolor.c)."""
_TO_RGB = np.array([[0, 91881], [-22554, -46802], [116130, 0]])[..., None, None]
"""Weights of both planes of chroma, times 2**16 (jdcolor.c)."""

_NEAR_AND_FAR = np.array([[9, 3], [3, 1]])[..., None, None]
"""Weights of the nearest two rows and columns of chroma, times 16 (jdsample.c)."""

_HALVES = (
    (8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260),
    (10703, 4433, -4433, -10703),
    (9633, -2259, -11362, -6436),
    (8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633),
    (4433, -10704, 10704, -4433),
    (2260, -6436, 9633, -11363),
)
_DCT = np.array([[*half, *(value * (-1) ** row for value in reversed(half))] for row, half in enumerate(_HALVES)])
"""What both passes of jfdctint.c multiply by, times 2**13: within a pass, nothing is rounded before the end. The
entries are sums of its constants. The passes of jidctint.c multiply by the transpose."""

_LUMA_STEPS = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
_CHROMA_STEPS = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    *([[99] * 8] * 4),
]
_STEPS = np.array([_LUMA_STEPS, _CHROMA_STEPS, _CHROMA_STEPS])[:, None, :, None, :]
"""Quantization at quality 50 (ITU-T T.81, Annex K)."""


def compress_on_device(
    clean: Tensor, qualities: list[int], samplings: list[str], shifts: list[tuple[int, int]]
) -> Tensor:
    """(N, C, H, W) in [0, 1], gray or RGB -> the same after rounding to 8 bits, compression and decompression.

    qualities: 1 to 100. samplings: of chroma, "4:2:0", "4:2:2" or "4:4:4". shifts: rows and columns from the
    corner of the grid of blocks to that of the picture. Each list has an entry for each picture.
    """
    height, width = clean.shape[-2:]
    factors, starts = _get_factors(samplings, clean.shape[1]), np.array(shifts).reshape(-1, 1, 2, 1)
    indices = [each[..., None, None, None, None] for each in np.ogrid[: len(clean), : clean.shape[1]]]
    indices += _plan_places(height, width, factors, starts)
    batch, plane, read_rows, write_rows, read_cols, write_cols = _send(clean.device, np.int64, indices)
    numbers = [_DCT, _TO_YCC, _TO_RGB, _NEAR_AND_FAR, _get_steps(qualities, clean.shape[1])]
    numbers += _plan_biases(read_cols.shape[-1], width, factors, starts[:, :, 1])
    dct, to_ycc, to_rgb, weights, steps, read_bias, write_bias = _send(clean.device, np.int32, numbers)

    samples = (clean.clamp(0, 1) * 255 + 0.5).int()
    planes = samples if samples.shape[1] == 1 else _mix(samples, to_ycc[:, :3], to_ycc[:, 3])
    # The mean of two rows and two columns, which are the same one where chroma is not subsampled.
    sums = planes[batch, plane, read_rows, read_cols].sum((2, 3), dtype=torch.int32)
    decoded = _quantize((sums + read_bias) >> 2, steps, dct)
    sums = (decoded[batch, plane, write_rows, write_cols] * weights).sum((2, 3), dtype=torch.int32)
    planes = (sums + write_bias) >> 4
    samples = planes if planes.shape[1] == 1 else planes[:, :1] + _mix(planes[:, 1:], to_rgb, 1 << 15)
    # Divided by a tensor: by a number, CUDA multiplies by its reciprocal, which rounds differently.
    white = torch.full((), 255.0, device=clean.device)
    return (samples.clamp(0, 255).float() / white).to(clean.dtype)


def _get_factors(samplings: list[str], num_planes: int) -> _Numbers:
    """(N, C, 2, 1): rows and columns of the picture for each sample."""
    factors = np.ones((len(samplings), num_planes, 2, 1), np.int64)
    factors[:, 1:] = np.array([_FACTORS[sampling] for sampling in samplings]).reshape(-1, 1, 2, 1)
    return factors


def _get_steps(qualities: list[int], num_planes: int) -> _Numbers:
    """(N, C, 1, 8, 1, 8): what coefficients are divided by, times 8 (jcparam.c, for baseline files)."""
    percent = np.array([5000 // quality if quality < 50 else 200 - 2 * quality for quality in qualities])
    return ((_STEPS[:num_planes] * percent.reshape(-1, 1, 1, 1, 1, 1) + 50) // 100).clip(1, 255) * 8


def _plan_places(height: int, width: int, factors: _Numbers, starts: _Numbers) -> list[_Numbers]:
    """Rows and columns from which planes are reduced to those of the file, and enlarged to those of the picture.

    Two for each sample: rows to reduce and rows to enlarge, both (N, C, 2, 1, rows, 1); columns to reduce and
    columns to enlarge, both (N, C, 1, 2, 1, columns). factors: (N, C, 2, 1). starts: (N, 1, 2, 1), of the picture
    in the grid.
    """
    counts = -(-(np.array([[height], [width]]) + starts) // factors)  # samples of the file
    is_smooth = counts[:, :, 1] > 2  # otherwise chroma is repeated (jdsample.c)
    places = []
    for axis, size in enumerate((height, width)):
        factor, start, count = (each[:, :, axis] for each in (factors, starts, counts))
        sample = np.arange(-(-(size + int(start.max())) // _SIDE) * _SIDE)[None, None]
        if axis == 0:  # below the picture, rows of the file are repeated; beyond its right edge, pixels are
            sample = np.minimum(sample, count - 1)
        pixels = np.stack([sample * factor, sample * factor + factor - 1], 2) - start[:, :, None]
        position = np.arange(size) + start
        near = position // factor
        far = near + is_smooth * (factor - 1) * (position % 2 * 2 - 1)
        shape = (2, 1, -1, 1) if axis == 0 else (1, 2, 1, -1)
        for pairs in (pixels.clip(0, size - 1), np.stack([near, far.clip(0, count - 1)], 2)):
            places.append(pairs.reshape(*pairs.shape[:2], *shape))
    return places


def _plan_biases(num_cols: int, width: int, factors: _Numbers, left: _Numbers) -> list[_Numbers]:
    """What is added to the sum of 4 samples of the picture, or of 16 of the file, before it is rounded down.

    Both are (N, C, 1, columns). They alternate, so that the mean stays the same (jcsample.c, jdsample.c), and
    contain what centers all planes for the DCT, and then moves luma back.
    """
    rows, cols = factors[:, :, 0], factors[:, :, 1]
    reduces = (cols - 1) * (1 + np.arange(num_cols) % 2) - 4 * _CENTER
    odd = (np.arange(width) + left) % 2
    enlarges = (cols - 1) * np.where(rows == 2, 8 - odd, 4 + 4 * odd)
    enlarges[:, 0] += 16 * _CENTER
    return [bias[:, :, None] for bias in (reduces, enlarges)]


def _send(device: torch.device, dtype: type[np.int32 | np.int64], arrays: list[_Numbers]) -> list[Tensor]:
    """The arrays as tensors of this type on the device, in one copy."""
    flat = np.concatenate([array.ravel() for array in arrays], dtype=dtype)
    parts = devices.to_device(torch.from_numpy(flat), device).split([array.size for array in arrays])
    return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]


def _mix(planes: Tensor, weights: Tensor, offset: Tensor | int) -> Tensor:
    """Sums of (N, C, H, W) planes by (K, C, 1, 1) weights and an offset, all times 2**16."""
    return ((planes[:, None] * weights).sum(2, dtype=torch.int32) + offset) >> 16


def _quantize(planes: Tensor, steps: Tensor, dct: Tensor) -> Tensor:
    """(N, C, H, W) samples, black -128, after the DCT, rounding of its coefficients, and the inverse.

    Sides are multiples of 8.
    """
    count, channels, height, width = planes.shape
    blocks = planes.reshape(count, channels, height // _SIDE, _SIDE, width // _SIDE, _SIDE)
    # Coefficients and steps are 8 times as large as those of the file.
    coefficients = _transform_columns(_transform_rows(blocks, dct, 11), dct, 15)
    sizes = (coefficients.abs() + (steps >> 1)).div(steps, rounding_mode="floor")
    restored = sizes * coefficients.sign() * (steps >> 3)
    decoded = _transform_rows(_transform_columns(restored, dct.T, 11), dct.T, 18)
    return decoded.clamp(-_CENTER, 255 - _CENTER).reshape(planes.shape)


def _transform_rows(blocks: Tensor, matrix: Tensor, bits: int) -> Tensor:
    """The matrix times each row of (N, C, rows, 8, columns, 8), rounded after division by 2**bits."""
    return _round((blocks.unsqueeze(-2) * matrix).sum(-1, dtype=torch.int32), bits)


def _transform_columns(blocks: Tensor, matrix: Tensor, bits: int) -> Tensor:
    """The same for each column."""
    return _round((blocks.unsqueeze(3) * matrix[:, :, None, None]).sum(4, dtype=torch.int32), bits)


def _round(numbers: Tensor, bits: int) -> Tensor:
    return (numbers + (1 << (bits - 1))) >> bits
