"""Signals that must wait until code that they would disturb has finished."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


@contextmanager
def deferring_signals() -> Iterator[list[int]]:
    """Within it, SIGINT and SIGTERM wait: their handlers run at the end. The list receives their numbers.

    For C code that calls Python: what a handler raises there, e.g. KeyboardInterrupt, is lost, or taken for a
    failure of the function that was called. Handlers only run in the main thread; in others, nothing changes.
    """
    numbers: list[int] = []
    if current_thread() is not main_thread():
        yield numbers
        return
    frames: list[FrameType | None] = []

    def receive(number: int, frame: FrameType | None) -> None:
        numbers.append(number)
        frames.append(frame)

    handlers = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):  # otherwise it is ignored, or ends the process at once
                handlers[number] = handler
                signal.signal(number, receive)
        yield numbers
    finally:
        for number, handler in reversed(handlers.items()):
            signal.signal(number, handler)
        for received, frame in zip(numbers, frames, strict=True):
            handlers[signal.Signals(received)](received, frame)
