"""Square crops of pictures: gathered on a device, mirrored beyond the edges, augmented, and cropped again.

Samples stay uint8 or uint16, as in the store, until they are on the device.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.pictures.samples import PEAKS, Samples
from pellucid.system import devices

RESIDENT_SHARE = 0.25
"""Largest share of an accelerator's free memory that each set of pictures may fill, in a training on one store."""

Numbers = NDArray[np.int64]
Size = tuple[int, int]
Kind = tuple[str, int]  # dtype and number of channels

ONE = Fraction(1)
_STORED_AS = {"uint8": torch.uint8, "uint16": torch.int16}
"""How samples are kept on a device: few devices can index uint16."""


@dataclass(frozen=True)
class Placement:
    """Where pictures are kept. resident: on the device; None means on an accelerator with enough free memory.

    resident_share: the largest share of an accelerator's free memory that each set of pictures may fill.
    """

    device: torch.device
    resident: bool | None
    resident_share: float = RESIDENT_SHARE

    def is_on_device(self, num_bytes: int) -> bool:
        if self.resident is not None or self.device.type == "cpu":
            return bool(self.resident)
        get_memory = getattr(torch.get_device_module(self.device), "mem_get_info", None)
        return get_memory is not None and num_bytes <= self.resident_share * get_memory(self.device)[0]


class Pictures:
    """Pictures of any depth, gray and color, from which square crops are taken.

    get: index -> picture, (H, W, C) uint8 or uint16. keys: one for each picture; equal keys mean the same picture.
    """

    def __init__(self, get: Callable[[int], Samples], keys: Sequence[Hashable], placement: Placement) -> None:
        pictures = [get(i) for i in range(len(keys))]
        self.sizes: list[Size] = [picture.shape[:2] for picture in pictures]
        kinds = [_kind(picture) for picture in pictures]
        self._kinds = sorted(set(kinds))
        self._kind = np.array([self._kinds.index(kind) for kind in kinds])
        distinct = dict(zip(keys, pictures, strict=True))
        resident = placement.is_on_device(sum(picture.nbytes for picture in distinct.values()))
        source = _Resident(pictures, keys, placement.device) if resident else _Mapped(get, placement.device)
        self._crop = source.crop

    def samples(self, picture: Numbers, top: Numbers, left: Numbers, size: int) -> list[tuple[Numbers, Tensor]]:
        """Crops, grouped by dtype and number of channels: (their indices, (N, C, size, size) on the device).

        Beyond the edges pictures are mirrored, edge pixels included, as in `resize`.
        """
        kinds = self._kind[picture]
        groups = [(np.flatnonzero(kinds == kind), self._kinds[kind]) for kind in np.unique(kinds)]
        return [(m, self._crop(picture[m], top[m], left[m], size, kind).permute(0, 3, 1, 2)) for m, kind in groups]

    def crop(
        self, picture: Numbers, top: Numbers, left: Numbers, size: int, to_colors: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Crops in a network's colors, (N, C, size, size) float32 from 0 to 1."""
        parts = [
            (members, to_colors(_to_unit(samples))) for members, samples in self.samples(picture, top, left, size)
        ]
        if len(parts) == 1:
            return parts[0][1]
        planes = parts[0][1].new_empty(len(picture), *parts[0][1].shape[1:])
        for members, part in parts:
            planes[devices.to_device(torch.from_numpy(members), planes.device)] = part
        return planes


def _kind(picture: Samples) -> Kind:
    return picture.dtype.name, picture.shape[2]


def _to_unit(samples: Tensor) -> Tensor:
    return samples.float().contiguous() / PEAKS[str(samples.dtype).removeprefix("torch.")]


class _Mapped:
    """Takes crops on the CPU from memory-mapped files, and moves them to the device before they are converted."""

    def __init__(self, get: Callable[[int], Samples], device: torch.device) -> None:
        self._get, self._device = get, device

    def crop(self, picture: Numbers, top: Numbers, left: Numbers, size: int, kind: Kind) -> Tensor:
        dtype, channels = kind
        shape = (len(picture), size, size, channels)
        squares = torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=self._device.type == "cuda")
        places = zip(squares.numpy(), picture.tolist(), top.tolist(), left.tolist(), strict=True)
        for square, i, first_row, first_col in places:
            _copy_square(self._get(i), first_row, first_col, square)
        return devices.to_device(squares, self._device)


def _copy_square(picture: Samples, top: int, left: int, square: Samples) -> None:
    height, width, size = *picture.shape[:2], len(square)
    if top >= 0 and left >= 0 and top + size <= height and left + size <= width:
        square[:] = picture[top : top + size, left : left + size]
    else:
        rows, cols = (_mirror(np.arange(size) + start, n) for start, n in ((top, height), (left, width)))
        square[:] = picture[np.ix_(rows, cols)]


def _mirror(positions: Numbers, size: int | Numbers) -> Numbers:
    reflected = positions % (2 * size)
    return np.minimum(reflected, 2 * size - 1 - reflected)


class _Resident:
    """Takes crops on the device, where the pixels of all pictures of a kind are concatenated."""

    def __init__(self, pictures: Sequence[Samples], keys: Sequence[Hashable], device: torch.device) -> None:
        self._device = device
        self._widths = np.array([picture.shape[1] for picture in pictures])
        self._heights = np.array([picture.shape[0] for picture in pictures])
        self._pixels: dict[Kind, Tensor] = {}
        distinct = dict(zip(keys, pictures, strict=True))
        first: dict[Hashable, int] = {}
        for kind in {_kind(picture) for picture in pictures}:
            same = {key: picture for key, picture in distinct.items() if _kind(picture) == kind}
            ends = np.cumsum([picture.shape[0] * picture.shape[1] for picture in same.values()]).tolist()
            first |= dict(zip(same, [0, *ends], strict=False))
            self._pixels[kind] = self._concatenate(same.values(), ends)
        self._first = np.array([first[key] for key in keys])

    def _concatenate(self, pictures: Collection[Samples], ends: Sequence[int]) -> Tensor:
        dtype, channels = _kind(next(iter(pictures)))
        all_pixels = torch.empty(ends[-1], channels, dtype=_STORED_AS[dtype], device=self._device)
        for picture, end in zip(pictures, ends, strict=True):
            pixels = torch.from_numpy(np.array(picture)).view(_STORED_AS[dtype]).reshape(-1, channels)
            all_pixels[end - len(pixels) : end] = pixels.to(self._device)
        return all_pixels

    def crop(self, picture: Numbers, top: Numbers, left: Numbers, size: int, kind: Kind) -> Tensor:
        span = np.arange(size)
        rows = _mirror(top[:, None] + span, self._heights[picture, None])
        cols = _mirror(left[:, None] + span, self._widths[picture, None])
        starts = self._first[picture, None] + rows * self._widths[picture, None]
        row_starts, columns = (devices.to_device(torch.from_numpy(each), self._device) for each in (starts, cols))
        return self._pixels[kind][row_starts[:, :, None] + columns[:, None]].view(getattr(torch, kind[0]))


def augment(planes: Tensor, transforms: Numbers) -> Tensor:
    """Apply a dihedral transform to each of (N, C, S, S).

    transforms: for each, the sum of 4 (transposed, first), 2 (then flipped vertically) and 1 (then horizontally).
    """
    groups = np.unique(transforms).tolist()
    if len(groups) == 1:
        return _transform(planes, groups[0])
    result = torch.empty_like(planes)
    for transform in groups:
        members = devices.to_device(torch.from_numpy(np.flatnonzero(transforms == transform)), planes.device)
        result[members] = _transform(planes[members], transform)
    return result


def _transform(planes: Tensor, transform: int) -> Tensor:
    if transform & 4:
        planes = planes.transpose(-2, -1)
    axes = [axis for bit, axis in ((2, -2), (1, -1)) if transform & bit]
    return planes.flip(axes) if axes else planes


def augment_corner(top: Numbers, left: Numbers, transforms: Numbers, spare_px: int) -> tuple[Numbers, Numbers]:
    """Top and left of a patch after the square around it is augmented, which is `spare_px` larger."""
    top, left = np.where(transforms & 4, left, top), np.where(transforms & 4, top, left)
    return np.where(transforms & 2, spare_px - top, top), np.where(transforms & 1, spare_px - left, left)


def crop_inner(planes: Tensor, top: Numbers, left: Numbers, size: int, rate: Fraction = ONE) -> Tensor:
    """A square crop of each of (N, C, S, S).

    top, left, size: in pixels of the target. rate: how many rows of `planes` there are for each of its rows.
    """
    side = size * rate.numerator // rate.denominator
    if side == planes.shape[-1]:
        return planes
    entry, channel, span = (torch.arange(n, device=planes.device) for n in (*planes.shape[:2], side))
    rows, cols = (
        devices.to_device(torch.from_numpy(start * rate.numerator // rate.denominator), planes.device)[:, None]
        + span
        for start in (top, left)
    )
    return planes[
        entry[:, None, None, None], channel[:, None, None], rows[:, None, :, None], cols[:, None, None, :]
    ]
