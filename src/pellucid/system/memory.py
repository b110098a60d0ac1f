"""Allocating samples: small arrays in memory, large ones in memory-mapped files, unless there is memory to spare.

A memory-mapped array takes memory only for the parts in use, so a scan of 400 megapixels and its result are never
in memory as a whole. The files have no name and disappear with the process, however it ends. They are in the
system's folder for temporary files, which the environment variable TMPDIR changes. Filling such a file takes about
three times as long as filling memory.
"""

import mmap
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from math import inf, prod
from threading import RLock
from typing import IO, Any
from weakref import finalize

import numpy as np
import psutil
from numpy.typing import NDArray

from pellucid.system import control_groups, files

LARGE_BYTES = 2**24
"""Arrays of at least this size are in a file if memory is scarce: 16 MiB, 3 megapixels of 16-bit RGB."""

SPARED_BYTES = 2**30
"""Free memory that large arrays leave to networks, encoders and other pictures."""

_SHARE = 8
"""Large arrays take an eighth of the free memory: of 10 GB, four 24 MP pictures of 16 bits with their results."""

STRIP_BYTES = 2**20
"""How much of large arrays is processed at a time; with 4 MiB, libvips takes 60 to 170 MB more."""

_STRIPS_IN_MEMORY = 16

_RECENT_S = 0.1

_SIGNS = (
    "out of memory", "not enough memory", "allocate memory", "ALLOC_FAILED", "could not create a memory",
    "could not create a primitive", "could not execute a primitive",
)  # fmt: skip
"""In messages of PyTorch and oneDNN about a failed allocation."""


class FileMap(mmap.mmap):
    """A memory-mapped file whose pages may be released, because the file contains what was written to them.

    Maps of other code may not: a copy-on-write map, e.g. of `numpy.load(path, mmap_mode="c")`, would lose changes.
    """


class _MemoryMaps:
    """The large arrays in memory, and how much they may take: as little as the strictest of several limits.

    Each is a mapping of its own, because the heap of the C library would keep parts of it. When no array uses it
    any more, it is kept for the next array of its size while arrays may take so much: the system clears memory
    before a process gets it, which takes as long as decoding.
    """

    def __init__(self) -> None:
        self._limits: dict[object, int] = {}
        self._kept: list[mmap.mmap] = []
        self._taken = 0
        # Python may collect an array or a generator, which ends its `allowed`, while this thread has the lock.
        self._lock = RLock()

    @contextmanager
    def allowed(self, num_bytes: int) -> Iterator[None]:
        key = object()
        with self._lock:
            self._limits[key] = num_bytes
            self._drop_kept(self.limit)
        try:
            yield
        finally:
            with self._lock:
                del self._limits[key]
                self._drop_kept(self.limit)

    def forbid(self) -> None:
        """Allow nothing more until all that is allowed now has ended."""
        with self._lock:
            self._limits = dict.fromkeys(self._limits, 0)
            self._drop_kept(0)

    @property
    def limit(self) -> int:
        with self._lock:
            return min(self._limits.values(), default=0)

    @property
    def taken(self) -> int:
        """Bytes of all mappings, including those that are kept."""
        with self._lock:
            return self._taken

    def map(self, num_bytes: int) -> NDArray[np.uint8] | None:
        """An array of this size. None if it does not fit."""
        with self._lock:
            mapped = self._take_kept(num_bytes) or self._map_new(num_bytes)
        if mapped is None:
            return None
        array = np.frombuffer(mapped, np.uint8)
        finalize(array, self._give_back, mapped).atexit = False  # all views refer to it
        return array

    def _take_kept(self, num_bytes: int) -> mmap.mmap | None:
        for index in reversed(range(len(self._kept))):  # the last one may still be in the caches
            if len(self._kept[index]) == num_bytes:
                return self._kept.pop(index)
        return None

    def _map_new(self, num_bytes: int) -> mmap.mmap | None:
        self._drop_kept(self.limit - num_bytes)
        if self._taken + num_bytes > self.limit:
            return None
        try:
            mapped = _map_memory(num_bytes)
        except OSError:  # no memory
            return None
        self._taken += num_bytes
        return mapped

    def _give_back(self, mapped: mmap.mmap) -> None:
        with self._lock:
            self._kept.append(mapped)
            self._drop_kept(self.limit)

    def _drop_kept(self, most_bytes: int) -> None:
        """Return kept memory to the system, the oldest first, until no more than this is taken."""
        while self._kept and self._taken > most_bytes:
            mapped = self._kept.pop(0)  # which may collect arrays, and so add to `_kept`
            self._taken -= len(mapped)


_MEMORY_MAPS = _MemoryMaps()


def allocate(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """An uninitialized array, in memory, or in a file from LARGE_BYTES on, see `sharing_free_memory`.

    Raises OutputError if the folder for temporary files has no space.
    """
    num_bytes = prod(shape) * np.dtype(dtype).itemsize
    if num_bytes < LARGE_BYTES:
        return np.empty(shape, dtype)
    mapped = _MEMORY_MAPS.map(num_bytes)
    if mapped is None:
        mapped = np.frombuffer(_map_file(num_bytes), np.uint8)
    return mapped.view(dtype).reshape(shape)


@contextmanager
def sharing_free_memory(limit: int) -> Iterator[None]:
    """Within it, large arrays are in memory as long as all of them together fit their share.

    The share is 1/_SHARE of the memory that is free now, below this limit of the process (bytes) and on the
    machine, after SPARED_BYTES.
    """
    free = min(limit - used_bytes(), free_bytes())
    with _MEMORY_MAPS.allowed(max(0, free - SPARED_BYTES) // _SHARE):
        yield


def stop_sharing() -> None:
    """Large arrays are in files from now on, because something else needs the memory."""
    _MEMORY_MAPS.forbid()


def share_bytes() -> int:
    """The share of large arrays, see `sharing_free_memory`."""
    return _MEMORY_MAPS.limit


def unused_share_bytes() -> int:
    """What large arrays may still take of their share."""
    return max(0, _MEMORY_MAPS.limit - _MEMORY_MAPS.taken)


def taken_bytes() -> int:
    """What large arrays in memory take of their share."""
    return _MEMORY_MAPS.taken


def limit_besides_share(num_bytes: int) -> int:
    """The limit of this process that leaves so much besides what is used now and the share of large arrays."""
    share = max(0, num_bytes - SPARED_BYTES) // (_SHARE - 1) + 1  # a part of `num_bytes` and of itself
    return used_bytes() + num_bytes + share


def release(samples: NDArray[Any]) -> None:
    """Free the memory of a large array, given any view of it; its values are read from its file again on use.

    Does nothing for arrays that are not in a `FileMap`.
    """
    base: Any = samples
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, FileMap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def strips(*arrays: NDArray[Any]) -> Iterator[slice]:
    """Slices of rows that cover arrays of equal height; releases the arrays' memory on the way."""
    row_bytes = sum(array[0].nbytes for array in arrays)
    step = max(1, STRIP_BYTES // row_bytes)
    height = len(arrays[0])
    for count, start in enumerate(range(0, height, step), start=1):
        yield slice(start, min(start + step, height))
        if count % _STRIPS_IN_MEMORY == 0 or start + step >= height:
            for array in arrays:
                release(array)


def as_contiguous(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself if it is C-contiguous, or a contiguous copy, in a file if it is large."""
    if array.flags.c_contiguous:
        return array
    copy = allocate(array.shape, array.dtype.name)
    for rows in strips(array, copy):
        copy[rows] = array[rows]
    return copy


def used_bytes() -> int:
    """Resident memory of this process."""
    return int(find_this_process().memory_info().rss)


def find_this_process() -> psutil.Process:
    return _find_process(os.getpid())


@lru_cache(maxsize=1)
def _find_process(pid: int) -> psutil.Process:
    """Cached, because finding a process takes longer than reading its memory; by number, because of forks."""
    return psutil.Process(pid)


def limit_bytes(requested_bytes: int | None) -> int:
    """Memory limit of this process: as requested, or by default what it uses now plus half of the free memory.

    A requested one is lowered to what its container, job or address space allows: the system would end it.
    """
    if requested_bytes is None:
        return used_bytes() + free_bytes() // 2
    return int(min(requested_bytes, used_bytes() + min(control_groups.allowed_bytes(), _addressable_bytes())))


class RecentLimit:
    """`limit_bytes`, measured at most every 0.1 s: measuring takes as long as computing a small picture."""

    def __init__(self, requested_bytes: int | None) -> None:
        self._requested_bytes = requested_bytes
        self._measured_s, self._num_bytes = -inf, 0

    def measure(self) -> int:
        """The limit of this process in bytes."""
        now_s = time.monotonic()
        if now_s - self._measured_s > _RECENT_S:
            self._num_bytes, self._measured_s = limit_bytes(self._requested_bytes), now_s
        return self._num_bytes


def free_bytes() -> int:
    """Memory that this process may still take: on this machine, in its container or job, and by `ulimit -v`."""
    free = int(psutil.virtual_memory().available)
    return int(max(0, min(free, control_groups.allowed_bytes(), _addressable_bytes())))


def _addressable_bytes() -> float:
    """Address space that is left to this process by `ulimit -v`."""
    if os.name != "posix":
        return inf
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return inf if limit == resource.RLIM_INFINITY else limit - int(find_this_process().memory_info().vms)


def enough_bytes(num_bytes: int) -> int:
    """The limit to suggest if this much is needed: a tenth more, because the use of a process varies."""
    return -(-num_bytes * 11 // 10**8) * 10**7


def hint_at(num_bytes: int) -> dict[str, Any]:
    """The hint of an error, and its parameter: the limit of this process that is enough for so much in total."""
    enough, possible = enough_bytes(num_bytes), used_bytes() + free_bytes()
    but = "" if enough <= possible else f", but this process can only get {possible // 10**6} MB here"
    return {"hint": "{memory_bytes} is enough" + but, "memory_bytes": enough}


def is_memory_error(error: BaseException) -> bool:
    """Whether an error is about a failed allocation. That of PyTorch on CPUs has no class of its own."""
    is_of_torch = isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
    return is_of_torch or isinstance(error, MemoryError)


def _map_memory(num_bytes: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return mmap.mmap(-1, num_bytes)
    mapped = mmap.mmap(-1, num_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # not every kernel has them
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return mapped


def _map_file(num_bytes: int) -> FileMap:
    try:
        with tempfile.TemporaryFile(prefix="pellucid-") as file:
            _reserve(file, num_bytes)
            return FileMap(file.fileno(), num_bytes)
    except OSError as error:
        raise files.no_space_error(num_bytes, "a large picture", error) from error


def _reserve(file: IO[bytes], num_bytes: int) -> None:
    """Allocate the disk space now: writing to a mapping on a full disk kills the process (SIGBUS)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, num_bytes)
        return
    zeros = bytes(2**20)
    for start in range(0, num_bytes, len(zeros)):
        file.write(zeros[: num_bytes - start])
    file.flush()
