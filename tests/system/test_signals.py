"""What handlers of signals raise waits until the end, whatever happens before; afterwards, they are the same."""

import signal
import sys
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest

from pellucid.system.signals import defer_sigint
from signalling import deliver

Handle = Callable[[Any], object]


@pytest.fixture(name="handle")
def _handle() -> Iterator[Handle]:
    """Sets a handler of SIGTERM for this test."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda handler: signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGTERM, before)


def test_an_interruption_is_raised_at_the_end() -> None:
    steps, handler = [], signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), defer_sigint():
        deliver()
        steps.append("after")
    assert steps == ["after"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_interruption_replaces_the_error_that_it_may_have_caused() -> None:
    with pytest.raises(KeyboardInterrupt) as raised, defer_sigint():
        deliver()
        raise ValueError("the file ends too early")
    assert isinstance(raised.value.__context__, ValueError)


def test_handlers_run_at_once_and_those_that_do_not_raise_change_nothing(handle: Handle) -> None:
    handled: list[object] = []
    handle(lambda number, _: handled.append(number))
    with defer_sigint():
        deliver(signal.SIGTERM)
        handled.append("after")
    assert handled == [signal.SIGTERM, "after"]


def test_the_first_of_several_exceptions_is_raised_and_all_handlers_run(handle: Handle) -> None:
    handled = []

    def end(number: int, _: object) -> None:
        handled.append(number)
        sys.exit(3)

    handle(end)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), defer_sigint():
        deliver()
        deliver(signal.SIGTERM)
    assert handled == [signal.SIGTERM]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_it_may_be_nested() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), defer_sigint():
        with defer_sigint():
            deliver()
        steps.append("after")
    assert steps == ["after"]


def test_a_handler_that_raises_while_others_are_restored_leaves_none_behind(
    handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle(interrupt)
    before = signal.getsignal(signal.SIGINT)
    set_handler = signal.signal

    def set_and_signal(number: int, handler: Any) -> Any:
        former = set_handler(number, handler)
        if number == signal.SIGTERM and handler is interrupt:
            interrupt()
        return former

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(signal, "signal", set_and_signal)
        with defer_sigint():
            pass
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_signals_without_a_handler_keep_their_effect(handler: Any, handle: Handle) -> None:
    handle(handler)
    with defer_sigint():
        within = signal.getsignal(signal.SIGTERM)
    assert within is handler and signal.getsignal(signal.SIGTERM) is handler


def test_other_threads_change_nothing() -> None:
    found: list[object] = []
    handler = signal.getsignal(signal.SIGINT)

    def run() -> None:
        with defer_sigint():
            found.append(signal.getsignal(signal.SIGINT))

    thread = Thread(target=run)
    thread.start()
    thread.join()
    assert found == [handler]
