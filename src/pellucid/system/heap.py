"""The heap of the C library (glibc): whether it keeps freed memory for later, or returns it to the system.

The system clears each page before a process gets it again. A step of a training, or a tile, frees all its
activations, and the next one allocates them again: on a CPU, clearing them takes up to two fifths of the time.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from threading import RLock

from pellucid.system import memory

_C_LIBRARY = ctypes.CDLL(None) if os.name == "posix" else None
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt: how much free memory is kept, and from which size on an allocation is a mapping."""

_ALL, _MOST_IN_OLD_VERSIONS = 2**30, 2**25
_BY_DEFAULT = {_MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26}
"""What glibc itself chooses after large tensors were freed."""

_ENVIRONMENT = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")

_GROWTH = 3
"""Freed memory is kept up to this multiple of what the process has taken before. glibc does not always find room
for an aligned tensor among freed blocks, so a process takes more than it needs: 2.7 times was measured."""


class _Kept:
    """depth: how many times the process is within `keeping`.

    peak_bytes: the most memory that it has taken before it kept any; 0: it keeps none.
    is_refused: whether several processes have too little memory for it, until the outermost `keeping` ends.
    """

    depth = 0
    peak_bytes = 0
    is_refused = False


_KEPT = _Kept()
_LOCK = RLock()


@contextmanager
def keeping() -> Iterator[None]:
    """Within it, freed memory can be kept; all of it is returned at the end of the outermost one."""
    with _LOCK:
        _KEPT.depth += 1
    try:
        yield
    finally:
        with _LOCK:
            _KEPT.depth -= 1
            if _KEPT.depth == 0:
                _KEPT.is_refused = False
                _return_freed()


def keep_freed(num_processes: int = 1, *, free_bytes: float = inf) -> None:
    """Keep freed memory from now on, if there is enough for so many processes like this one.

    Call it after the first step, or the first tile: the peak of the process so far counts. Nothing changes outside
    of `keeping`, without glibc, or if the environment has settings of its own.

    free_bytes: what they may take in addition, if that is less than what is free.
    """
    if not _can_keep():
        return
    with _LOCK:
        if _KEPT.peak_bytes or _KEPT.is_refused or not _KEPT.depth:
            return
        peak_bytes = _peak_bytes()
        if min(free_bytes, memory.free_bytes()) < _GROWTH * num_processes * peak_bytes:
            _KEPT.is_refused = num_processes > 1  # a validation of one of them must not decide for all
            return
        is_set = _set(_MMAP_THRESHOLD, _ALL) or _set(_MMAP_THRESHOLD, _MOST_IN_OLD_VERSIONS)
        if is_set and _set(_TRIM_THRESHOLD, _ALL):
            _KEPT.peak_bytes = peak_bytes


def limit_kept() -> None:
    """Return the memory that is free now if this process keeps too much."""
    if _KEPT.peak_bytes and _own_bytes() > _GROWTH * _KEPT.peak_bytes:
        trim()


def trim_unkept() -> None:
    """Return the memory that is free now, unless it is kept."""
    if _KEPT.peak_bytes:
        limit_kept()
    else:
        trim()


def _can_keep() -> bool:
    return hasattr(_C_LIBRARY, "mallopt") and not any(name in os.environ for name in _ENVIRONMENT)


def _return_freed() -> None:
    """Return freed memory to the system, now and later."""
    if _KEPT.peak_bytes:
        _KEPT.peak_bytes = 0
        for parameter, value in _BY_DEFAULT.items():
            _set(parameter, value)
        trim()


def trim() -> None:
    """Return the memory that is free now."""
    if _C_LIBRARY is not None and hasattr(_C_LIBRARY, "malloc_trim"):
        _C_LIBRARY.malloc_trim(0)


def _set(parameter: int, value: int) -> bool:
    assert _C_LIBRARY is not None
    return bool(_C_LIBRARY.mallopt(parameter, value))


def _peak_bytes() -> int:
    """The most memory that this program has taken. That of `getrusage` may be that of the program before it."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return memory.used_bytes()


def _own_bytes() -> int:
    """Memory of this process, without large arrays and without pages of files, which the system can take back."""
    used = memory.find_this_process().memory_info()
    return max(0, int(used.rss - used.shared) - memory.taken_bytes())
