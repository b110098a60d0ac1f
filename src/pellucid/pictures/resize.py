"""Bicubic resizing with the results of MATLAB's imresize.

MATLAB widens the cubic kernel to reduce an image (antialiasing), unlike OpenCV and torch by default. The
difference is about 0.2 in [0, 1], which makes published super-resolution scores meaningless.
Kernel: Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 1981, a = -0.5.
"""

from fractions import Fraction
from functools import lru_cache, reduce
from typing import Literal

import torch
from torch import Tensor

Border = Literal["symmetric", "clamp"]


def resize(image: Tensor, scale: int | Fraction, *, border: Border = "symmetric") -> Tensor:
    """Enlarge or reduce by an exact factor, in floating point.

    image: (..., H, W), any float dtype. Returns (..., ceil(H * scale), ceil(W * scale)), not clamped.
    border: how the image continues: mirrored including the border pixel, or by repeating the border pixel.

    A tile resized separately has the same bits as that part of the whole image, except within `reach(scale)`
    pixels of the cut.
    """
    for axis in (-2, -1):
        image = _resize_axis(image, axis, Fraction(scale), border)
    return image


def resize_8bit(image: Tensor, scale: int | Fraction) -> Tensor:
    """Enlarge or reduce as MATLAB does for uint8: rounded and clamped after each pass, height first.

    image: (..., H, W) uint8. Returns uint8.
    """
    # For uint8, MATLAB repeats the border pixel instead of mirroring.
    for axis in (-2, -1):
        resized = _resize_axis(image.double(), axis, Fraction(scale), "clamp")
        image = (resized + 0.5).floor().clamp(0, 255).to(torch.uint8)
    return image


def resize_to(image: Tensor, height: int, width: int) -> Tensor:
    """`resize` to any size, each side by its own factor: (..., H, W) -> (..., height, width), not clamped."""
    image = _resize_axis(image, -2, Fraction(height, image.shape[-2]), "symmetric")
    return _resize_axis(image, -1, Fraction(width, image.shape[-1]), "symmetric")


def find_span(size: int, new_size: int, wanted: slice) -> slice:
    """The pixels along a side of an image from which some pixels of `resize_to` are computed."""
    positions = _contributions(size, Fraction(new_size, size), "symmetric")[0][wanted]
    return slice(int(positions.min()), int(positions.max()) + 1)


def resize_part(part: Tensor, axis: int, size: int, new_size: int, wanted: slice) -> Tensor:
    """Some pixels of `resize_to` along one axis (-2 or -1), as they are in the whole image.

    part: what `find_span` returns of the image, which has this size along the axis.
    """
    positions, weights = _contributions(size, Fraction(new_size, size), "symmetric")
    first = find_span(size, new_size, wanted).start
    shape = (-1, 1) if axis == -2 else (-1,)
    taps = zip((positions[wanted] - first).T, weights[wanted].T.to(part.dtype), strict=True)
    return reduce(torch.add, (part.index_select(axis, index) * weight.reshape(shape) for index, weight in taps))


def reach(scale: int, *, beyond: int = 0) -> int:
    """The distance in input pixels from which an enlarged pixel is computed.

    beyond: the same for all enlarged pixels within this distance of it.
    """
    center = -(-beyond // scale) + 2  # far enough from the border not to be mirrored
    positions, weights = _contributions(2 * center + 1, Fraction(scale), "clamp")
    seen = positions[center * scale - beyond : (center + 1) * scale + beyond]
    used = weights[center * scale - beyond : (center + 1) * scale + beyond] != 0
    return int((seen[used] - center).abs().max())


def _resize_axis(image: Tensor, axis: int, scale: Fraction, border: Border) -> Tensor:
    size = image.shape[axis]
    if scale == 1:
        return image
    if scale.denominator == 1:
        return _enlarge_axis(image, axis, scale.numerator, border)
    positions, weights = _contributions_on(image.device, image.dtype, size, scale, border)
    shape = (-1, 1) if axis == -2 else (-1,)
    # One multiply-add of slices per tap in a fixed order, for the same bits at any size.
    taps = zip(positions, weights, strict=True)
    return reduce(
        torch.add, (image.index_select(axis, positions) * weight.reshape(shape) for positions, weight in taps)
    )


def _enlarge_axis(image: Tensor, axis: int, scale: int, border: Border) -> Tensor:
    """The same for an integer factor, without gathering: each phase reads contiguous slices of the image."""
    size, (least, most, phases) = image.shape[axis], _phases(image.dtype, scale)
    # Computed on the device: training would wait for a copy.
    positions = _into_image(torch.arange(least, size + most, device=image.device), size, border)
    around = image.index_select(axis, positions)
    enlarged = [
        reduce(torch.add, (around.narrow(axis, start, size) * weight for start, weight in phase))
        for phase in phases
    ]
    return torch.stack(enlarged, axis).flatten(axis - 1, axis)


@lru_cache(maxsize=64)
def _phases(dtype: torch.dtype, scale: int) -> tuple[int, int, list[list[tuple[int, float]]]]:
    """(first tap, last tap, for each phase the starts of its slices and their weights)"""
    taps, weights = _taps(1, Fraction(scale))
    least, most = int(taps.min()), int(taps.max())
    rows = zip((taps - least).tolist(), weights.to(dtype).tolist(), strict=True)
    phases = [[(start, weight) for start, weight in zip(*row, strict=True) if weight != 0] for row in rows]
    return least, most, phases


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # cached for later calls, which may need gradients
def _contributions_on(
    device: torch.device, dtype: torch.dtype, size: int, scale: Fraction, border: Border
) -> tuple[Tensor, Tensor]:
    """`_contributions` by tap on the device, cached because training would wait for each copy."""
    positions, weights = _contributions(size, scale, border)
    return positions.T.contiguous().to(device), weights.T.contiguous().to(device, dtype)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _contributions(size: int, scale: Fraction, border: Border) -> tuple[Tensor, Tensor]:
    """Positions of the input pixels of each output pixel, and their weights: two (output size, taps) tensors."""
    taps, weights = _taps(size, scale)
    used = (weights != 0).any(dim=0)
    return _into_image(taps, size, border)[:, used], weights[:, used]


def _taps(size: int, scale: Fraction) -> tuple[Tensor, Tensor]:
    """The same for all positions within the kernel, including those beyond the border."""
    up, down = scale.numerator, scale.denominator
    num_outputs = -(-size * up // down)
    antialias = min(1.0, up / down)
    num_taps = -(-4 * down // up) + 2 if up < down else 6

    # The center of output i is at u = ((2i + 1) down - up) / (2 up) on the grid of the input. Computed with
    # integers, so that equal phases give equal bits at every position.
    centers = (2 * torch.arange(num_outputs) + 1) * down - up
    half_width = 4 * max(up, down)  # on the grid of the centers
    first = (centers - half_width) // (2 * up)
    taps = first[:, None] + torch.arange(num_taps)
    distances = (centers[:, None] - 2 * up * taps).double() / (2 * up)

    weights = antialias * _cubic(antialias * distances)
    return taps, weights / weights.sum(dim=1, keepdim=True)


def _into_image(taps: Tensor, size: int, border: Border) -> Tensor:
    if border == "clamp":
        return taps.clamp(0, size - 1)
    # A tensor, because ONNX has no remainder for a size that is only known when the graph runs.
    period = torch.full((), 2 * size, device=taps.device)
    mirrored = taps % period  # mirrored including the border pixel, any number of times
    return torch.where(mirrored < size, mirrored, 2 * size - 1 - mirrored)


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))
