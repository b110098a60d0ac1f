"""Signals that wait: their handlers run at the end, whatever happens before, and are the same afterwards."""

import signal
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest

from pellucid.system.signals import deferring_signals


@pytest.fixture(name="handle")
def _handle() -> Iterator[Callable[[Any], object]]:
    """Sets a handler of SIGTERM for this test."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda handler: signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGTERM, before)


def test_an_interruption_is_raised_at_the_end() -> None:
    steps, handler = [], signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), deferring_signals() as signals:
        signal.raise_signal(signal.SIGINT)
        steps.append("after")
        assert signals == [signal.SIGINT]
    assert steps == ["after"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_interruption_comes_before_the_error_that_it_may_have_caused() -> None:
    with pytest.raises(KeyboardInterrupt) as raised, deferring_signals():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("the file ends too early")
    assert isinstance(raised.value.__context__, ValueError)


def test_every_signal_is_handled_in_order(handle: Callable[[Any], object]) -> None:
    handled: list[int] = []
    handle(lambda number, _: handled.append(number))
    with pytest.raises(KeyboardInterrupt), deferring_signals(), deferring_signals():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert not handled
    assert handled == [signal.SIGTERM]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_signals_without_a_handler_keep_their_effect(handler: Any, handle: Callable[[Any], object]) -> None:
    handle(handler)
    with deferring_signals():
        assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.getsignal(signal.SIGTERM) is handler


def test_other_threads_change_nothing() -> None:
    found: list[object] = []
    handler = signal.getsignal(signal.SIGINT)

    def run() -> None:
        with deferring_signals() as signals:
            found.extend([signals, signal.getsignal(signal.SIGINT)])

    thread = Thread(target=run)
    thread.start()
    thread.join()
    assert found == [[], handler]
