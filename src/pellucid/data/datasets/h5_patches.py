"""Patches in HDF5 files, as PyTorch implementations of SRCNN and DnCNN write them.

Pairs are in `lr` and `hr`, values from 0 to 255, each one large array or a group of arrays. Clean patches are
arrays of their own, `0`, `1`, ..., values from 0 to 1. A patch is (H, W) or (C, H, W).
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.data import archives
from pellucid.data.archives import Source
from pellucid.data.dataset import DatasetPlan, Decoded, DecodeTask, LeftOut, dataset, join_paths
from pellucid.data.store import Kind
from pellucid.data.store_writer import Planned
from pellucid.errors import DataError, MissingExtraError, PictureError
from pellucid.pictures.samples import Samples

_NUM_READ_AT_ONCE = 1000
_MAX_COMPRESSION = 1100  # deflate's best is 1032


@dataset
def patches_h5(paths: Sequence[Path]) -> DatasetPlan:
    """HDF5 patches, as PyTorch code of SRCNN and DnCNN writes them. SOURCE: .h5 files, or folders of them."""
    kinds: set[Kind] = set()
    tasks: list[DecodeTask] = []
    items: list[Planned] = []
    left_out: LeftOut = []
    for source, path in _list_files(paths):
        try:
            with _open(path, source.name) as file:
                kind, planned = _plan_file(file, source.name)
        except PictureError as error:
            left_out.append((source.name, str(error).removeprefix(f"{source.name} ").removeprefix("is ")))
            continue
        kinds.add(kind)
        items += planned
        keys = tuple(key for item in planned for key in (item.target, item.degraded) if key is not None)
        tasks.append(DecodeTask(source, keys, partial(_decode_patches, source.name, keys)))
    if len(kinds) > 1:
        raise DataError(
            f"{join_paths(paths)}: some files contain clean patches and some pairs", hint="give files of one kind"
        )
    if not kinds:
        raise DataError(f"{join_paths(paths)}: {left_out[0][1] if left_out else 'no .h5 files'}")
    return DatasetPlan(kinds.pop(), tuple(tasks), tuple(items), left_out, allows_duplicates=True)


def _list_files(paths: Sequence[Path]) -> Iterator[tuple[Source, Path]]:
    for path in paths:
        if path.is_file():
            stat = path.stat()
            yield Source(path.name, str(path), stat.st_size, stat.st_mtime_ns, path.read_bytes, path), path
        elif path.is_dir():
            for source in archives.list_files(path, {".h5", ".hdf5"}).sources:
                yield source, path / source.name
        else:
            raise DataError(f"{path} does not exist; an .h5 file or a folder of them is needed")


@contextmanager
def _open(path: Path, name: str) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("reading HDF5 patches", "convert") from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the content
            raise PictureError(f"{name} cannot be read: {os.strerror(error.errno)}") from error
        is_hdf5 = h5py.is_hdf5(path)
        found = "is truncated or damaged" if is_hdf5 else "is not an HDF5 file"
        raise PictureError(f"{name} {found}") from error


def _plan_file(file: Any, name: str) -> tuple[Kind, list[Planned]]:
    """The items of one file: pairs if it contains lr and hr, otherwise clean patches."""
    if {"lr", "hr"} <= set(file):
        numbers, others = _list_patches(file, "hr", name), _list_patches(file, "lr", name)
        if numbers != others:
            raise PictureError(f"{name} has {len(others)} patches in lr and {len(numbers)} in hr")
        return "pairs", [Planned(f"{name}/{i}", f"{name}/hr/{i}", f"{name}/lr/{i}") for i in numbers]
    keys = [key for key in sorted(file, key=_natural_order) if _is_own_array(file, key)]
    if not keys:
        raise PictureError(f"{name} contains no patches: neither lr and hr, nor arrays 0, 1, ...")
    return "clean", [Planned(f"{name}/{key}", f"{name}/{key}") for key in keys]


def _list_patches(file: Any, group: str, name: str) -> list[str]:
    """The names of the patches in one large array, or in a group of arrays."""
    if _is_array(file, group):
        _check_size(file, file[group], name)
        return [str(i) for i in range(len(file[group]))]
    return [key for key in sorted(file[group], key=_natural_order) if _is_own_array(file[group], key)]


def _natural_order(key: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]


def _is_own_array(group: Any, key: str) -> bool:
    """Whether this array is in this very file: a link may name any file of the machine."""
    import h5py

    return isinstance(group.get(key, getlink=True), h5py.HardLink) and hasattr(group[key], "shape")


def _is_array(file: Any, group: str) -> bool:
    return group in file and hasattr(file[group], "shape")


def _check_size(file: Any, array: Any, name: str) -> None:
    """Refuse arrays in other files, and shapes that cost nothing to declare."""
    num_bytes = Path(file.filename).stat().st_size
    if array.external or array.is_virtual or array.nbytes > _MAX_COMPRESSION * num_bytes:
        raise PictureError(f"{name}: {array.name} declares {array.nbytes} bytes, which the file does not contain")


def _decode_patches(name: str, keys: Sequence[str], path: Path) -> Iterator[tuple[str, Decoded]]:
    with _open(path, name) as file:
        peak = 255.0 if {"lr", "hr"} <= set(file) else 1.0
        blocks = {group: _Block(file, file[group], name) for group in ("lr", "hr") if _is_array(file, group)}
        for key in keys:
            inside = key.removeprefix(f"{name}/")
            group, _, number = inside.partition("/")
            if group in blocks:
                patch = blocks[group].patch(int(number))
            else:
                _check_size(file, file[inside], name)
                patch = file[inside][()]
            yield key, _round_patch(np.asarray(patch), peak, key)


class _Block:
    """The patches of one large array, of which many are read at once."""

    def __init__(self, file: Any, array: Any, name: str) -> None:
        _check_size(file, array, name)
        self._array = array
        self._start = 0
        self._patches = array[:0]

    def patch(self, number: int) -> Samples:
        if not self._start <= number < self._start + len(self._patches):
            self._start, self._patches = number, self._array[number : number + _NUM_READ_AT_ONCE]
        return np.asarray(self._patches[number - self._start])


def _round_patch(values: Samples, peak: float, key: str) -> Decoded:
    """8 bits if every value is one of the 256 levels, as in patches of unscaled pictures; otherwise 16 bits."""
    planes = values[None] if values.ndim == 2 else values
    if planes.ndim != 3 or planes.shape[0] not in (1, 3) or 0 in planes.shape or planes.dtype.kind not in "fu":
        raise PictureError(f"{key} is {values.dtype} {values.shape}; numbers (H, W) or (1 or 3, H, W) are needed")
    if planes.dtype == np.uint8:
        return Decoded(np.ascontiguousarray(planes.transpose(1, 2, 0)))
    scaled = planes.astype(np.float64).transpose(1, 2, 0) / peak
    if not (scaled.min() >= -1e-6 and scaled.max() <= 1 + 1e-6):  # refuses NaN, too
        raise PictureError(f"{key} has values from {planes.min():g} to {planes.max():g}; 0 to {peak:g} are needed")
    levels = np.rint(scaled * 255)
    if np.abs(scaled * 255 - levels).max() < 1e-3:
        return Decoded(levels.astype(np.uint8))
    return Decoded(np.rint(scaled.clip(0, 1) * 65535).astype(np.uint16), changes=("rounded to 16 bit",))
