"""The heap of the C library (glibc): whether it keeps freed memory for later, or returns it to the system.

The system clears each page before a process gets it again. A step of a training frees all its activations and
allocates them again: on a CPU, clearing them takes up to two fifths of its time.
"""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

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
    """peak_bytes: the most memory that this process has taken before it kept any; None: it keeps none."""

    peak_bytes: int | None = None


_KEPT = _Kept()


def keep_freed(num_processes: int = 1) -> None:
    """Keep freed memory until `return_freed`, if there is enough memory for so many processes like this one.

    Otherwise it is returned. Nothing changes if the environment has settings of its own, or without glibc.
    """
    if not hasattr(_C_LIBRARY, "mallopt") or any(name in os.environ for name in _ENVIRONMENT):
        return
    peak_bytes = _KEPT.peak_bytes or _peak_bytes()
    if memory.free_bytes() < _GROWTH * num_processes * peak_bytes:
        return_freed()
        return
    is_set = _set(_MMAP_THRESHOLD, _ALL) or _set(_MMAP_THRESHOLD, _MOST_IN_OLD_VERSIONS)
    if is_set and _set(_TRIM_THRESHOLD, _ALL):
        _KEPT.peak_bytes = peak_bytes


def limit_kept() -> None:
    """Return the memory that is free now if this process keeps too much."""
    peak_bytes = _KEPT.peak_bytes
    if peak_bytes is not None and _own_bytes() > _GROWTH * peak_bytes:
        trim()


def return_freed() -> None:
    """Return freed memory to the system, now and later."""
    if _KEPT.peak_bytes is not None:
        _KEPT.peak_bytes = None
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
    """Memory of this process without the pages of files, which the system takes back when it needs them."""
    used = memory.find_this_process().memory_info()
    return int(used.rss - used.shared)
