"""How far `pellucid restore` is: a bar on a terminal, lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

from pellucid.commands.terminal import print_info, progress

if TYPE_CHECKING:
    from pellucid.restoration.position import Position

STATUS_EVERY_S = 30.0
"""How often the status is printed if there is no terminal for a bar."""


@contextmanager
def show_status(num_pictures: int) -> "Iterator[Callable[[Position], None]]":
    """A function that shows where a run is. Without a terminal, it is printed every STATUS_EVERY_S."""
    status = _Status(num_pictures)
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
        printer = Thread(target=_print_lines, args=(status, stop), daemon=True)
        if bar.disable:
            printer.start()
        try:
            yield update
        finally:
            stop.set()


class _Status:
    """What is known about a run, in words."""

    def __init__(self, num_pictures: int) -> None:
        self.num_pictures, self.start_s = num_pictures, time.monotonic()
        self.position: Position | None = None

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
            done = f"{format_number(all_done)} of {format_number(position.megapixels)}"
        return f"{done} MP, {format_number(position.restored_megapixels / elapsed_s)} MP/s"

    def _describe_rest(self) -> str:
        """The elapsed time, and the time left if it can be estimated."""
        elapsed_s, position = time.monotonic() - self.start_s, self.position
        done = 0.0 if position is None else position.num_done - position.num_skipped
        elapsed = f"{format_duration(elapsed_s)} so far"
        if position is None or done <= 0:
            return elapsed
        left_s = elapsed_s / done * (position.num_pictures - position.num_done)
        return f"{elapsed}, about {format_duration(left_s)} left"


def _print_lines(status: _Status, stop: Event) -> None:
    while not stop.wait(STATUS_EVERY_S):
        print_info(status)


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
