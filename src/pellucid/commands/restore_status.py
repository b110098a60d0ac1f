"""How far `pellucid restore` is: a bar on a terminal, lines elsewhere."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from pellucid.commands.terminal import describe_error, print_info, print_warning, prints_json, progress

if TYPE_CHECKING:
    from pellucid.restoration.position import Position
    from pellucid.restoration.sessions import Outcome

STATUS_EVERY_S = 30.0
"""How often the status is printed if there is no terminal for a bar; PELLUCID_STATUS_EVERY changes it."""

MIN_SHOWN_MEGAPIXELS = 1e-3
"""The progress of a smaller picture, which can take long if it is enlarged a lot, is shown in percent."""

_VARIABLE = "PELLUCID_STATUS_EVERY"


@contextmanager
def show_status(num_pictures: int, outcomes: "Sequence[Outcome]" = ()) -> "Iterator[Callable[[Position], None]]":
    """A function that shows where a run is. Without a terminal, it is printed every STATUS_EVERY_S.

    outcomes: of finished pictures, to which the caller appends; lines of JSON count them.
    """
    status = _Status(num_pictures, outcomes)
    with progress("{task.fields[detail]}", in_percent=True) as bar:
        task = bar.add_task("reading", total=1.0, detail="")

        def update(position: "Position") -> None:
            status.position = position
            bar.update(
                task,
                completed=position.num_done / position.num_pictures,
                description=status.describe_picture(),
                detail=status.describe_speed(),
            )

        stop = Event()
        printer = Thread(target=_print_lines, args=(status, stop, _read_interval_s()), daemon=True)
        if bar.disable:
            printer.start()
        try:
            yield update
        finally:
            stop.set()
            if prints_json() and bar.disable:  # programs get the final numbers, too
                printer.join()
                print_info(status, progress=status.to_json())


class _Status:
    """What is known about a run, in words, and as JSON."""

    def __init__(self, num_pictures: int, outcomes: "Sequence[Outcome]" = ()) -> None:
        self.num_pictures, self.start_s = num_pictures, time.monotonic()
        self.position: Position | None = None
        self._outcomes, self._num_counted = outcomes, 0
        self._counts = {"num_restored": 0, "num_skipped": 0, "num_failed": 0}

    def to_json(self) -> dict[str, Any]:
        """Counts of finished pictures, pace and rest. failures: the errors since the last call."""
        new = self._outcomes[self._num_counted :]
        self._num_counted += len(new)
        for outcome in new:
            kind = "failed" if outcome.error else "skipped" if outcome.is_skipped else "restored"
            self._counts[f"num_{kind}"] += 1
        position = self.position
        return {
            "num_pictures": self.num_pictures,
            **self._counts,
            "megapixels": 0.0 if position is None else position.restored_megapixels,
            "elapsed_s": time.monotonic() - self.start_s,
            "left_s": self._estimate_left_s(),
            "picture": None if position is None or position.source is None else str(position.source),
            "failures": [describe_error(outcome.error) for outcome in new if outcome.error is not None],
        }

    def __str__(self) -> str:
        """One line, also before the first tile is finished."""
        parts = [self.describe_picture(), self.describe_speed(), self._describe_rest()]
        return ", ".join(part for part in parts if part)

    def describe_picture(self) -> str:
        """Which picture is being restored."""
        position = self.position
        if position is None:
            return "restoring the first picture" if self.num_pictures > 1 else "restoring"
        name = "" if position.source is None else f" {position.source.name}"
        if self.num_pictures == 1:
            return f"restoring{name}"
        return f"{min(int(position.num_done) + 1, self.num_pictures)} of {self.num_pictures}:{name}"

    def describe_speed(self) -> str:
        """Megapixels, and megapixels per second; "" before anything is restored."""
        position, elapsed_s = self.position, time.monotonic() - self.start_s
        if position is None or not position.restored_megapixels or not elapsed_s:
            return ""
        done = format_number(position.restored_megapixels)
        if self.num_pictures == 1:
            all_done = position.num_done * position.megapixels  # also by earlier runs
            if position.megapixels < MIN_SHOWN_MEGAPIXELS:
                return f"{position.num_done:.0%}"
            done = f"{format_number(all_done)} of {format_number(position.megapixels)}"
        return f"{done} MP, {format_number(position.restored_megapixels / elapsed_s)} MP/s"

    def _describe_rest(self) -> str:
        """The elapsed time, and the time left if it can be estimated."""
        elapsed = f"{format_duration(time.monotonic() - self.start_s)} so far"
        left_s = self._estimate_left_s()
        return elapsed if left_s is None else f"{elapsed}, about {format_duration(left_s)} left"

    def _estimate_left_s(self) -> float | None:
        """None before anything is restored."""
        elapsed_s, position = time.monotonic() - self.start_s, self.position
        done = 0.0 if position is None else position.num_done - position.num_skipped
        if position is None or done <= 0:
            return None
        return elapsed_s / done * (position.num_pictures - position.num_done)


def _read_interval_s() -> float:
    """How often to print, from the environment."""
    given = os.environ.get(_VARIABLE)
    if given is None:
        return STATUS_EVERY_S
    try:
        interval_s = float(given)
    except ValueError:
        interval_s = 0.0
    if not 0.1 <= interval_s <= 86400:
        print_warning(f"{_VARIABLE}={given[:40]} is not a number of seconds from 0.1 to 86400 and is ignored")
        return STATUS_EVERY_S
    return interval_s


def _print_lines(status: _Status, stop: Event, every_s: float) -> None:
    while not stop.wait(every_s):
        print_info(status, **({"progress": status.to_json()} if prints_json() else {}))


def format_number(value: float) -> str:
    """Two digits or more, never 0 for a number above it: 0.0041, 1.2, 38."""
    if value >= 10:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{float(f'{value:.1e}'):.10f}".rstrip("0").rstrip(".") or "0"


def format_duration(seconds: float) -> str:
    """E.g. 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
