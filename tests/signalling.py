"""Signals to the process of the tests."""

import signal


def deliver(number: int = signal.SIGINT) -> None:
    """Call the handler as Python would.

    A real signal to this process is delivered on the alternate stack of pytest's faulthandler, and has crashed a
    process with all libraries loaded.
    """
    handler = signal.getsignal(number)
    assert callable(handler)
    handler(number, None)
