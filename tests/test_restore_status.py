"""What `pellucid restore` prints while it works."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.commands import restore_status
from pellucid.commands.restore import _describe_interruption
from pellucid.commands.restore_status import format_duration, format_number, show_status
from pellucid.restoration.planning import Job
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


def test_without_a_terminal_lines_are_printed_also_before_the_first_tile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(restore_status, "STATUS_EVERY_S", 0.05)
    with show_status(1) as update:
        time.sleep(0.08)
        update(Position(0.25, 1, Path("scans/photo.png"), 24.0, 6.0))
        time.sleep(0.08)
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "restoring, 0 s so far"
    assert others[0].startswith("restoring photo.png, 6.0 of 24 MP, ") and "MP/s" in others[0]
    assert others[0].endswith("0 s so far, about 0 s left") and " 0 MP/s" not in others[0]


def test_lines_of_several_pictures_count_them_and_do_not_count_skipped_ones_as_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(restore_status, "STATUS_EVERY_S", 0.05)
    with show_status(12) as update:
        update(Position(10, 12, Path("j.png"), 1.0, 0.0, num_skipped=10))
        time.sleep(0.08)
        update(Position(10.5, 12, Path("k.png"), 2.0, 1.0, num_skipped=10))
        time.sleep(0.06)
    skipped, working = capsys.readouterr().err.splitlines()[:2]
    assert skipped == "11 of 12: j.png, 0 s so far"
    assert working.startswith("11 of 12: k.png, 1.0 MP, ") and "left" in working


def test_an_interruption_tells_the_truth_about_resuming() -> None:
    one, many = [Job(Path("a.png"), Path("b.png"))], [Job(Path(f"{i}.png"), Path(f"o/{i}.png")) for i in range(5)]
    assert _describe_interruption(one, 0) == "interrupted; nothing is written, and the same command starts again"
    assert "interrupted after 2 of 5 pictures; the same command resumes" in _describe_interruption(many, 2)
