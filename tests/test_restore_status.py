"""What `pellucid restore` prints while it works."""

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.commands import restore_status, terminal
from pellucid.commands.restore import _describe_interruption
from pellucid.commands.restore_status import format_duration, format_number, show_status
from pellucid.errors import PictureError
from pellucid.restoration.position import Position
from pellucid.restoration.sessions import Outcome


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
        (
            1,
            Position(0.25, 1, Path("a.png"), 1e-6, 2.5e-7),
            60,
            "restoring a.png, 25%, 60 s so far, about 3 min left",
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


def test_lines_of_json_count_finished_pictures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each failure is in one line only, and the last line has the final numbers."""
    monkeypatch.setattr(terminal, "_styles", [terminal.MessageStyle(as_json=True)])
    monkeypatch.setenv("PELLUCID_STATUS_EVERY", "0.1")
    outcomes = [Outcome(Path("a.png"), None), Outcome(Path("b.png"), None, is_skipped=True)]
    printed, deadline_s = "", time.monotonic() + 30
    with show_status(4, outcomes) as update:
        outcomes.append(Outcome(Path("c.png"), None, error=PictureError("c.png is damaged", hint="omit {scale}")))
        while "c.png" not in printed and time.monotonic() < deadline_s:
            time.sleep(0.01)
            printed += capsys.readouterr().err
        update(Position(4, 4, Path("d.png"), 2.0, 1.5, num_skipped=1))
        outcomes.append(Outcome(Path("d.png"), None))
    printed += capsys.readouterr().err
    lines = [json.loads(line)["progress"] for line in printed.splitlines()]
    assert [text for line in lines for text in line["failures"]] == ["c.png is damaged; omit --scale"]
    counts = {key: lines[-1][f"num_{key}"] for key in ("pictures", "restored", "skipped", "failed")}
    assert counts == {"pictures": 4, "restored": 2, "skipped": 1, "failed": 1}
    assert (lines[-1]["megapixels"], lines[-1]["left_s"], lines[-1]["picture"]) == (1.5, 0.0, "d.png")


@pytest.mark.parametrize("value", ["never", "0", "-1", "nan", "inf"])
def test_an_interval_that_is_not_possible_is_reported(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PELLUCID_STATUS_EVERY", value)
    assert restore_status._read_interval_s() == restore_status.STATUS_EVERY_S
    assert f"PELLUCID_STATUS_EVERY={value} is not a number of seconds" in capsys.readouterr().err
