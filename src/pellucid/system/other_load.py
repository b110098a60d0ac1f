"""How much of the processors other programs use while something is measured."""

import os
import time

import psutil

from pellucid.system import memory


class OtherLoad:
    """Counts the time of processors from now on."""

    def __init__(self) -> None:
        self._started, self._busy_s, self._own_s = time.monotonic(), _busy_s(), _own_s()

    def share(self) -> float:
        """The part of the time of all processors, from 0 to 1, that other programs have used since the start."""
        passed_s = (time.monotonic() - self._started) * (os.cpu_count() or 1)
        others_s = (_busy_s() - self._busy_s) - (_own_s() - self._own_s)
        return min(1.0, max(0.0, others_s / passed_s)) if passed_s > 0 else 0.0


def _busy_s() -> float:
    """Time for which all processors of this machine have worked, or were used by other virtual machines."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))


def _own_s() -> float:
    times = memory.find_this_process().cpu_times()
    return times.user + times.system
