"""Squares out of pictures: cut on a device, mirrored beyond the edges, turned, and cut again.

Samples stay as compact as the store holds them until they are on the device.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.pictures.picture import PEAKS, Samples

RESIDENT_SHARE = 0.25
"""How much of an accelerator's free memory each set of pictures may fill."""

Numbers = NDArray[np.int64]
Size = tuple[int, int]
Kind = tuple[str, int]  # dtype and number of channels

ONE = Fraction(1)
_MOVED = {"uint8": torch.uint8, "uint16": torch.int16}
"""As what samples are moved: few devices can index uint16."""


@dataclass(frozen=True)
class Placement:
    """Where pictures are held. resident: on the device; None where there is room on an accelerator."""

    device: torch.device
    resident: bool | None

    def on_device(self, num_bytes: int) -> bool:
        if self.resident is not None or self.device.type == "cpu":
            return bool(self.resident)
        ask = getattr(torch.get_device_module(self.device), "mem_get_info", None)
        return ask is not None and num_bytes <= RESIDENT_SHARE * ask(self.device)[0]


class Pictures:
    """Pictures of any depth, gray and color, out of which squares are cut.

    get: gives a picture, (H, W, C) uint8 or uint16. keys: one a picture; those with equal keys are the same.
    """

    def __init__(self, get: Callable[[int], Samples], keys: Sequence[Hashable], held: Placement) -> None:
        pictures = [get(i) for i in range(len(keys))]
        self.sizes: list[Size] = [picture.shape[:2] for picture in pictures]
        kinds = [_kind(picture) for picture in pictures]
        self._kinds = sorted(set(kinds))
        self._kind = np.array([self._kinds.index(kind) for kind in kinds])
        distinct = dict(zip(keys, pictures, strict=True))
        resident = held.on_device(sum(picture.nbytes for picture in distinct.values()))
        source = _Resident(pictures, keys, held.device) if resident else _Mapped(get, held.device)
        self._cut = source.cut

    def samples(self, picture: Numbers, top: Numbers, left: Numbers, size: int) -> list[tuple[Numbers, Tensor]]:
        """Squares of one kind together: (which of the asked, (N, C, size, size) on the device).

        Beyond their edges pictures are mirrored, the edge itself included, as `resize` mirrors them.
        """
        drawn = self._kind[picture]
        groups = [(np.flatnonzero(drawn == kind), self._kinds[kind]) for kind in np.unique(drawn)]
        return [(m, self._cut(picture[m], top[m], left[m], size, kind).permute(0, 3, 1, 2)) for m, kind in groups]

    def cut(
        self, picture: Numbers, top: Numbers, left: Numbers, size: int, to_colors: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Squares in a network's colors, (N, C, size, size) float32; white is 1."""
        parts = [
            (members, to_colors(_unit(samples))) for members, samples in self.samples(picture, top, left, size)
        ]
        if len(parts) == 1:
            return parts[0][1]
        planes = parts[0][1].new_empty(len(picture), *parts[0][1].shape[1:])
        for members, part in parts:
            planes[torch.from_numpy(members).to(planes.device)] = part
        return planes


def _kind(picture: Samples) -> Kind:
    return picture.dtype.name, picture.shape[2]


def _unit(samples: Tensor) -> Tensor:
    return samples.float().contiguous() / PEAKS[str(samples.dtype).removeprefix("torch.")]


class _Mapped:
    """Squares cut on the CPU out of mapped files, and moved to the device as compact as they are."""

    def __init__(self, get: Callable[[int], Samples], device: torch.device) -> None:
        self._get, self._device = get, device

    def cut(self, picture: Numbers, top: Numbers, left: Numbers, size: int, kind: Kind) -> Tensor:
        dtype, channels = kind
        shape = (len(picture), size, size, channels)
        squares = torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=self._device.type == "cuda")
        places = zip(squares.numpy(), picture.tolist(), top.tolist(), left.tolist(), strict=True)
        for square, i, first_row, first_col in places:
            _copy_square(self._get(i), first_row, first_col, square)
        return squares.to(self._device, non_blocking=True)


def _copy_square(picture: Samples, top: int, left: int, square: Samples) -> None:
    height, width, size = *picture.shape[:2], len(square)
    if top >= 0 and left >= 0 and top + size <= height and left + size <= width:
        square[:] = picture[top : top + size, left : left + size]
    else:
        rows, cols = (_mirrored(np.arange(size) + start, n) for start, n in ((top, height), (left, width)))
        square[:] = picture[np.ix_(rows, cols)]


def _mirrored(places: Numbers, size: int | Numbers) -> Numbers:
    folded = places % (2 * size)
    return np.minimum(folded, 2 * size - 1 - folded)


class _Resident:
    """Squares gathered on the device, where the pixels of all pictures of a kind lie in one row."""

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
            self._pixels[kind] = self._row(same.values(), ends)
        self._first = np.array([first[key] for key in keys])

    def _row(self, pictures: Collection[Samples], ends: Sequence[int]) -> Tensor:
        dtype, channels = _kind(next(iter(pictures)))
        row = torch.empty(ends[-1], channels, dtype=_MOVED[dtype], device=self._device)
        for picture, end in zip(pictures, ends, strict=True):
            pixels = torch.from_numpy(np.array(picture)).view(_MOVED[dtype]).reshape(-1, channels)
            row[end - len(pixels) : end] = pixels.to(self._device)
        return row

    def cut(self, picture: Numbers, top: Numbers, left: Numbers, size: int, kind: Kind) -> Tensor:
        span = np.arange(size)
        rows = _mirrored(top[:, None] + span, self._heights[picture, None])
        cols = _mirrored(left[:, None] + span, self._widths[picture, None])
        starts = self._first[picture, None] + rows * self._widths[picture, None]
        of_rows, of_cols = (torch.from_numpy(each).to(self._device) for each in (starts, cols))
        return self._pixels[kind][of_rows[:, :, None] + of_cols[:, None]].view(getattr(torch, kind[0]))


def augment(planes: Tensor, turns: Numbers) -> Tensor:
    """Each of (N, C, S, S) transposed (4), then mirrored top to bottom (2), then left to right (1)."""
    groups = np.unique(turns).tolist()
    if len(groups) == 1:
        return _turn(planes, groups[0])
    result = torch.empty_like(planes)
    for turn in groups:
        members = torch.from_numpy(np.flatnonzero(turns == turn)).to(planes.device)
        result[members] = _turn(planes[members], turn)
    return result


def _turn(planes: Tensor, turn: int) -> Tensor:
    if turn & 4:
        planes = planes.transpose(-2, -1)
    axes = [axis for bit, axis in ((2, -2), (1, -1)) if turn & bit]
    return planes.flip(axes) if axes else planes


def augment_corner(top: Numbers, left: Numbers, turns: Numbers, spare_px: int) -> tuple[Numbers, Numbers]:
    """Where the corner of a patch comes to lie; spare_px is how much smaller it is than what is turned."""
    top, left = np.where(turns & 4, left, top), np.where(turns & 4, top, left)
    return np.where(turns & 2, spare_px - top, top), np.where(turns & 1, spare_px - left, left)


def crop_inner(planes: Tensor, top: Numbers, left: Numbers, size: int, rate: Fraction = ONE) -> Tensor:
    """A square out of each of (N, C, S, S); its place is given in pixels of which `rate` planes' make one."""
    side = size * rate.numerator // rate.denominator
    if side == planes.shape[-1]:
        return planes
    entry, channel, span = (torch.arange(n, device=planes.device) for n in (*planes.shape[:2], side))
    rows, cols = (
        torch.from_numpy(start * rate.numerator // rate.denominator).to(planes.device)[:, None] + span
        for start in (top, left)
    )
    return planes[
        entry[:, None, None, None], channel[:, None, None], rows[:, None, :, None], cols[:, None, None, :]
    ]
