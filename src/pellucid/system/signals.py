"""Signals, e.g. of Ctrl-C, in code that an exception must not interrupt."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2")
_SIGNALS: list[int] = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
"""Those by which users, batch queues and timers end work."""


@contextmanager
def defer_sigint() -> Iterator[None]:
    """Within it, what handlers of signals raise, e.g. KeyboardInterrupt after Ctrl-C, waits until the end.

    For imports, which it would leave incomplete, and for C code that calls Python, where it would be lost, or look
    like a failure of the function that was called. The handlers themselves run at once, as always in the main
    thread; in other threads, nothing changes. Of several exceptions, the first one is raised.
    """
    if current_thread() is not main_thread():
        yield
        return
    waiting: list[BaseException] = []
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            handlers[number](number, frame)
        except BaseException as error:  # also SystemExit
            waiting.append(error)

    try:
        with ExitStack() as stack:
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):  # otherwise the signal is ignored, or ends the process
                    handlers[number] = handler
                    stack.callback(signal.signal, number, handler)
                    signal.signal(number, handle)
            yield
    finally:
        if waiting:
            raise waiting[0]
