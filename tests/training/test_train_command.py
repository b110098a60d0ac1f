"""What `pellucid train` prints while it works."""

from dataclasses import replace

import pytest

from pellucid.commands.train import _summarize
from pellucid.training.train import Status

STATUS = Status(
    step=7,
    num_steps=9,
    loss=0.012345,
    lr=1e-4,
    images_per_s=56.4,
    waiting=0.034,
    seconds_left=3725.4,
    psnr_db=31.416,
    behind_s=0.0,
)


@pytest.mark.parametrize(
    ("seconds_left", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3599.0, "0:59:59"), (360061.0, "100:01:01")]
)
def test_the_time_left_is_in_hours_minutes_and_seconds(seconds_left: float, text: str) -> None:
    assert f", {text} left, " in _summarize(replace(STATUS, seconds_left=seconds_left))


def test_a_line_states_what_is_known() -> None:
    line = "loss 0.01235, 31.42 dB, lr 0.0001, 56 images/s, 1:02:05 left, 3% waiting for data"
    assert _summarize(STATUS) == line
    assert _summarize(replace(STATUS, psnr_db=None)) == line.replace(" 31.42 dB,", "")
    assert _summarize(replace(STATUS, behind_s=12.3)) == f"{line}, bucket 12 s behind"
