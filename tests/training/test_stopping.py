"""Stop signals: the same one twice at once is one; later, it interrupts."""

import signal

import pytest

from pellucid.training.stopping import StopSignals


def test_a_repeated_signal_interrupts_only_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    signals = StopSignals()
    signals.receive(signal.SIGTERM, None)
    now_s += 0.5  # `timeout` signals a process, and then its group
    signals.receive(signal.SIGTERM, None)
    signals.receive(signal.SIGINT, None)
    assert signals.stop(3).signal_number == signal.SIGTERM
    now_s += 1.0
    with pytest.raises(KeyboardInterrupt):
        signals.receive(signal.SIGTERM, None)
