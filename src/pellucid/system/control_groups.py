"""The limits of containers, batch jobs and services: the control groups of Linux, in versions 1 and 2.

A limit of a group also applies to all groups inside it: Slurm limits the group of a job, and its processes are in
groups of tasks. In a container, the groups above its own are not visible.
"""

import os
from contextlib import suppress
from functools import lru_cache
from math import ceil, inf
from pathlib import Path
from typing import NamedTuple

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_NO_LIMIT = 2**62
"""Version 1 has a number near 2**63 instead."""


class _Group(NamedTuple):
    folder: Path
    version: int


def allowed_bytes() -> float:
    """The memory that this process may still take by the limits of its groups; infinite if there are none."""
    return min(map(_remaining_bytes, _list_groups("memory")), default=inf)


def count_processors() -> int:
    """The processors that this process may use, rounded up: groups may allow parts of them."""
    available = count_available_processors()
    quota = min(map(_quota, _list_groups("cpu")), default=inf)
    return available if quota >= available else max(1, ceil(quota))


def count_available_processors() -> int:
    """The processors on which this process may run, whatever part of their time it may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _list_groups(controller: str) -> tuple[_Group, ...]:
    """All groups that contain this process and may have limits of this kind."""
    try:
        return _parse_membership(_MEMBERSHIP.read_text(), controller, _ROOT)
    except (OSError, ValueError):  # not Linux
        return ()


@lru_cache(maxsize=8)
def _parse_membership(text: str, controller: str, root: Path) -> tuple[_Group, ...]:
    """Those of all groups in the text that have a folder. Cached, because it hardly ever changes."""
    found = []
    for line in text.splitlines():
        _, controllers, name = line.split(":", 2) if line.count(":") >= 2 else ("", "?", "")
        if not controllers or controller in controllers.split(","):
            group = Path(name.lstrip("/"))
            top = root / (controller if controllers else "")  # next to "cpu,cpuacct", there is a link "cpu"
            folders = [top / folder for folder in (group, *group.parents)]
            found += [_Group(folder, 1 if controllers else 2) for folder in folders if folder.is_dir()]
    return tuple(found)


def _remaining_bytes(group: _Group) -> float:
    """Without the cache of files, which grows with each file that is read, and is freed on demand."""
    folder, version = group
    with suppress(OSError, ValueError):
        if version == 1:
            limit = _read_number(folder / "memory.limit_in_bytes")
            usage, prefix = "memory.usage_in_bytes", "total_"
        else:
            limit = min(_read_number(folder / "memory.max"), _read_number(folder / "memory.high", otherwise=inf))
            usage, prefix = "memory.current", ""
        if limit < _NO_LIMIT:
            return max(0, limit - _read_number(folder / usage) + _cached_bytes(folder, prefix))
    return inf


def _cached_bytes(folder: Path, prefix: str) -> int:
    with suppress(OSError, ValueError):
        numbers = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return sum(int(numbers.get(prefix + name, 0)) for name in ("active_file", "inactive_file"))
    return 0


def _quota(group: _Group) -> float:
    """The number of processors whose time the processes of a group may use together."""
    folder, version = group
    with suppress(OSError, ValueError, ZeroDivisionError):
        if version == 1:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        else:
            quota, period = (folder / "cpu.max").read_text().split()
        return inf if quota == "max" or int(quota) < 0 else int(quota) / int(period)
    return inf


def _read_number(path: Path, *, otherwise: float | None = None) -> float:
    """The number in a file. otherwise: the number if the file is missing; None raises OSError."""
    try:
        text = path.read_text().strip()
    except OSError:
        if otherwise is None:
            raise
        return otherwise
    return inf if text == "max" else int(text)
