"""What `pellucid restore` prints while it works."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.commands import restore_status
from pellucid.commands.restore import _describe_interruption
from pellucid.commands.restore_status import format_duration, format_number, show_status
from pellucid.restoration.position import Position


@given(st.floats(1e-9, 1e6))
def test_a_number_above_zero_is_never_shown_as_zero(value: float) -> None:
    text = format_number(value)
    assert float(text) == pytest.approx(value, rel=0.06) and "e" not in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.2, "3 s"), (99, "99 s"), (130, "2 min"), (5400, "90 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def _describe(num_pictures: int, position: Position | None, elapsed_s: float, patch: pytest.MonkeyPatch) -> str:
    status = restore_status._Status(num_pictures)
    status.position = position
    patch.setattr(restore_status, "time", SimpleNamespace(monotonic=lambda: status.start_s + elapsed_s))
    return str(status)


@pytest.mark.parametrize(
    ("num_pictures", "position", "elapsed_s", "line"),
    [
        (1, None, 31, "restoring, 31 s so far"),
        (
            1,
            Position(0.25, 1, Path("scans/photo.png"), 24.0, 6.0),
            60,
            "restoring photo.png, 6.0 of 24 MP, 0.1 MP/s, 60 s so far, about 3 min left",
        ),
        (
            1,
            Position(0.5, 1, Path("a.png"), 0.01, 0.005),
            60,
            "restoring a.png, 0.005 of 0.01 MP, 0.000083 MP/s, ",
        ),
        (12, Position(10, 12, Path("j.png"), 1.0, 0.0, num_skipped=10), 9, "11 of 12: j.png, 9 s so far"),
        (
            12,
            Position(10.5, 12, Path("k.png"), 2.0, 1.0, num_skipped=10),
            10,
            "11 of 12: k.png, 1.0 MP, 0.1 MP/s, 10 s so far, about 30 s left",
        ),
    ],
)
def test_lines_state_what_is_done_and_how_long_the_rest_takes(
    num_pictures: int, position: Position | None, elapsed_s: float, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _describe(num_pictures, position, elapsed_s, monkeypatch).startswith(line)


def test_without_a_terminal_lines_are_printed_also_before_the_first_tile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(restore_status, "STATUS_EVERY_S", 0.01)
    printed, deadline_s = "", time.monotonic() + 30
    with show_status(1):
        while not printed and time.monotonic() < deadline_s:
            time.sleep(0.01)
            printed = capsys.readouterr().err
    assert printed.startswith("restoring, ")


def test_an_interruption_tells_the_truth_about_resuming() -> None:
    short = "interrupted; nothing is written, and the same command starts again"
    started = Position(0.25, 1, Path("photo.png"), 24.0, 6.0)
    assert _describe_interruption(1, 0, None) == _describe_interruption(1, 0, started) == short
    kept = "interrupted at 25%; 3 min of its work are kept, and the same command resumes"
    assert _describe_interruption(1, 0, replace(started, kept_s=200)) == kept
    many = "interrupted after 2 of 5 pictures; the same command resumes with the next one"
    assert _describe_interruption(5, 2, started) == many
    assert _describe_interruption(5, 2, replace(started, kept_s=200)) == f"{many}; 3 min of its work are kept"
