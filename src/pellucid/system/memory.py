"""Room for samples: small arrays in memory, large ones in a file that takes memory only where it is looked at.

A scan of 400 megapixels never lies in memory as a whole: it is decoded into such a file, and so is its result
before it is encoded. The files have no name, so nothing is left of them whatever ends the process. They lie in
the system's folder for temporary files; the environment variable TMPDIR names another.
"""

import ctypes
import mmap
import os
import tempfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil
from numpy.typing import NDArray

from pellucid.system import files

LARGE_BYTES = 2**24
"""Arrays from this size on lie in a file: 16 MiB, 3 megapixels of 16-bit RGB."""

STRIP_BYTES = 2**20
"""How much of large arrays is worked on at a time; with 4 MiB, libvips takes 60 to 170 MB more."""

_STRIPS_REMEMBERED = 16

_C_LIBRARY = ctypes.CDLL(None) if os.name == "posix" else None

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CGROUP_TAKEN = Path("/sys/fs/cgroup/memory.current")
_CGROUP_PARTS = Path("/sys/fs/cgroup/memory.stat")


def empty(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """An array whose values are not yet set, in memory or, from LARGE_BYTES on, in a file.

    Raises OutputError when the folder for temporary files has no room.
    """
    num_bytes = prod(shape) * np.dtype(dtype).itemsize
    if num_bytes < LARGE_BYTES:
        return np.empty(shape, dtype)
    return np.frombuffer(_mapped(num_bytes), dtype).reshape(shape)


def forget(samples: NDArray[Any]) -> None:
    """Give back the memory that a large array takes; what is looked at again comes back from its file.

    Leaves small arrays as they are. Any view of a large array stands for the whole of it.
    """
    base: Any = samples
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def strips(*arrays: NDArray[Any]) -> Iterator[slice]:
    """The rows of arrays of one height, piece by piece; what was gone through is forgotten on the way."""
    row_bytes = sum(array[0].nbytes for array in arrays)
    step = max(1, STRIP_BYTES // row_bytes)
    height = len(arrays[0])
    for count, start in enumerate(range(0, height, step), start=1):
        yield slice(start, min(start + step, height))
        if count % _STRIPS_REMEMBERED == 0 or start + step >= height:
            for array in arrays:
                forget(array)


def in_one_run(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself where it lies in memory row by row without gaps, or else a copy that does."""
    if array.flags.c_contiguous:
        return array
    copy = empty(array.shape, array.dtype.name)
    for rows in strips(array, copy):
        copy[rows] = array[rows]
    return copy


def trim() -> None:
    """Give back what was freed, but is kept by the C library for the next allocation."""
    if _C_LIBRARY is not None and hasattr(_C_LIBRARY, "malloc_trim"):
        _C_LIBRARY.malloc_trim(0)


def taken_bytes() -> int:
    """How much memory this process takes now: its resident set."""
    return int(psutil.Process().memory_info().rss)


def ceiling(wanted_bytes: int | None) -> int:
    """How much this process may take in all: as wanted, or half of what is free beside what it has."""
    return taken_bytes() + free_bytes() // 2 if wanted_bytes is None else wanted_bytes


def free_bytes() -> int:
    """How much memory there is still for this process, on this machine or in its container."""
    free = int(psutil.virtual_memory().available)
    try:
        taken = int(_CGROUP_TAKEN.read_text()) - _cached_bytes(_CGROUP_PARTS.read_text())
        return max(0, min(free, int(_CGROUP_LIMIT.read_text()) - taken))
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return free


def enough(num_bytes: int) -> str:
    """What to ask for with --memory where so much is needed: "430MB".

    A tenth more: what a process takes is never quite the same.
    """
    return f"{-(-num_bytes * 11 // 10**8) * 10}MB"


def _cached_bytes(parts: str) -> int:
    """What a container holds of files, which grows with every file read and is given back on demand."""
    numbers = dict(line.split() for line in parts.splitlines())
    return sum(int(numbers.get(name, 0)) for name in ("active_file", "inactive_file"))


def _mapped(num_bytes: int) -> mmap.mmap:
    try:
        with tempfile.TemporaryFile(prefix="pellucid-") as file:
            _reserve(file, num_bytes)
            return mmap.mmap(file.fileno(), num_bytes)
    except OSError as error:
        raise files.no_space_error(num_bytes, "a large picture", error) from error


def _reserve(file: IO[bytes], num_bytes: int) -> None:
    """Take the room now: a disk that fills up under a mapping ends the process without a word."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, num_bytes)
        return
    zeros = bytes(2**20)
    for start in range(0, num_bytes, len(zeros)):
        file.write(zeros[: num_bytes - start])
    file.flush()
