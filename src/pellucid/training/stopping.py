"""Stopping a training by Ctrl-C or SIGTERM: the step in progress is finished, and a checkpoint is saved."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

REPEATED_S = 1.0
"""Programs such as `timeout` signal a process, and at once its group: the process gets the same signal twice."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped the training, and a checkpoint was saved; the same call resumes it.

    step: the last one that was done. signal_number: of the signal. received_s: when, by `time.monotonic`.
    """

    def __init__(self, step: int, signal_number: int, received_s: float) -> None:
        super().__init__(f"stopped after step {step}")
        self.step, self.signal_number, self.received_s = step, signal_number, received_s


class StopSignals:
    """The signals to stop that this process has received; `bool` of it is whether there is one."""

    def __init__(self) -> None:
        self._received: list[tuple[int, float]] = []

    def __bool__(self) -> bool:
        return bool(self._received)

    def receive(self, number: int, _: object) -> None:
        """A handler of signals. The second one with the same number interrupts at once, unless it is REPEATED_S
        after the first."""
        before_s = next((received_s for former, received_s in self._received if former == number), None)
        if before_s is None:
            self._received.append((number, time.monotonic()))
        elif time.monotonic() - before_s > REPEATED_S:
            raise KeyboardInterrupt

    def stop(self, step: int) -> Stopped:
        """The exception to raise; also if another process of this training has received a signal, now."""
        return Stopped(step, *(self._received or [(signal.SIGTERM, time.monotonic())])[0])


@contextmanager
def catch_stop_signals() -> Iterator[StopSignals]:
    """Collects SIGINT and SIGTERM as they arrive, if this is the main thread."""
    signals = StopSignals()
    if current_thread() is not main_thread():
        yield signals
        return
    before = {number: signal.signal(number, signals.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
