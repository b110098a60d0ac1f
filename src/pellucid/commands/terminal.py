"""Output to the terminal: tables, progress, one-line messages, and signals."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import typer

from pellucid.errors import PellucidError
from pellucid.system.wording import format_count

if TYPE_CHECKING:
    from rich.progress import Progress

    from pellucid.data.store import Store


def table(*columns: str, right: Sequence[int] = ()) -> Any:
    """An empty rich table. right: indices of the columns that are aligned to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in right else "left", overflow="fold")
    return table


def add_row(table: Any, *cells: str, style: str | None = None) -> None:
    """Add plain text; a file name such as `[red]x.png` is not read as markup."""
    from rich.text import Text

    table.add_row(*(Text(escape(cell)) for cell in cells), style=style)


def escape(text: str) -> str:
    """Text without control characters, which in the name of a file or model could change the terminal."""
    # Bytes of names that are not UTF-8 are 0xdc80 to 0xdcff in Python.
    bytewise = re.sub(r"[\x00-\x1f\x7f-\x9f\udc80-\udcff]", lambda one: f"\\x{ord(one[0]) & 255:02x}", text)
    # These reverse the order of letters, so that a name can look like another one.
    return re.sub(r"[\u202a-\u202e\u2066-\u2069]", lambda one: f"\\u{ord(one[0]):04x}", bytewise)


def print_line(text: str) -> None:
    """Print one line of a result on standard output, see `escape`."""
    typer.echo(escape(text))


def print_table(table: Any) -> None:
    from rich.console import Console

    # In a pipe or a file, long lines are not wrapped at the width of a terminal.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@contextmanager
def progress(*extra: str, in_percent: bool = False) -> "Iterator[Progress]":
    """A progress bar on the error stream, only if that is a terminal. extra: further text columns."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    done = TaskProgressColumn() if in_percent else MofNCompleteColumn()
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), done, TimeRemainingColumn()]
    columns += [TextColumn(text) for text in extra]
    console, style = Console(stderr=True), _styles[0]
    is_shown = console.is_terminal and not style.quiet and not style.as_json
    with Progress(*columns, console=console, transient=True, disable=not is_shown) as bar:
        yield bar


def show_progress(bar: "Progress", description: str) -> Callable[[int, int], None]:
    """A function that shows (done, total) as a line of a progress bar."""
    task = bar.add_task(description, total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)


def is_stdout(*paths: Path | None) -> bool:
    """Whether one of the paths is `-`, standard output, which then contains nothing else."""
    return Path("-") in paths


def write_result(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a result into a file, completely or not at all, or on standard output. Raises OutputError."""
    if is_stdout(path):
        typer.echo(text, nl=False)
    else:
        from pellucid.system.files import write_atomic

        write_atomic(path, text.encode(errors="surrogateescape"), overwrite=overwrite)


def print_name(path: object) -> None:
    """Print the name of a result on standard output: its own bytes for other programs, escaped for a terminal."""
    if sys.stdout.isatty():
        typer.echo(escape(str(path)))
    else:
        sys.stdout.flush()
        print_bytes(os.fsencode(f"{path}\n"))


def print_bytes(content: bytes) -> None:
    """Write to standard output. Raises OSError that names it, and SystemExit if its reader has ended."""
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise SystemExit(141) from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def write_json(path: Path, content: object, *, overwrite: bool) -> None:
    """Write a result as JSON; infinite numbers must be null. Raises OutputError."""
    write_result(path, json.dumps(content, indent=2, allow_nan=False) + "\n", overwrite=overwrite)


def is_first_process() -> bool:
    """Whether this is the only process, or the first one of several that `torchrun` started."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class MessageStyle:
    """Which messages are printed on the error stream, and how.

    quiet: warnings and errors only, and no progress. verbose: details, too. as_json: one JSON object per line.
    """

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False


_styles = [MessageStyle()]
"""The style of this process. Not a context variable: other threads, which also print, would not see it."""


def set_message_style(style: MessageStyle) -> None:
    """For all messages from now on."""
    _styles[0] = style


def print_detail(text: object) -> None:
    """Print one line on the error stream, with --verbose only."""
    if _styles[0].verbose:
        _print_message("detail", text)


def print_info(text: object, **fields: object) -> None:
    """Print one line on the error stream, even if a file name contains line breaks; nothing with --quiet.

    fields: what `--log-format json` adds to the object.
    """
    if not _styles[0].quiet:
        _print_message("info", text, fields=fields)


def prints_json() -> bool:
    """Whether messages are JSON objects, for programs."""
    return _styles[0].as_json


def print_warning(text: object) -> None:
    """Print one line on the error stream about a result that may not be as expected."""
    _print_message("warning", text, "warning: ")


def print_error(problem: object) -> None:
    """Print one line on the error stream. Hints of errors name command-line options, not Python parameters."""
    text = describe_error(problem) if isinstance(problem, PellucidError) else problem
    _print_message("error", text, "pellucid: ")
    cause = problem.__cause__ if isinstance(problem, PellucidError) else None
    while cause is not None:
        print_detail(f"caused by {type(cause).__name__}: {cause}")
        cause = cause.__cause__


def _print_message(
    level: str, text: object, prefix: str = "", *, fields: Mapping[str, object] = MappingProxyType({})
) -> None:
    line = " ".join(str(text).split())
    if _styles[0].as_json:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": at, "level": level, "message": line, **fields})
    else:
        line = prefix + _shorten(escape(line))
    with suppress(OSError, ValueError):  # a full or closed error stream must not stop the work
        typer.echo(line, err=True)


def _shorten(line: str) -> str:
    """The line without the middle of words that nobody reads, e.g. of paths of thousands of letters."""
    return re.sub(r"(\S{200})\S{60,}(\S{40})", r"\1...\2", line)


def describe_error(error: PellucidError) -> str:
    """An error in one line, with hints that name options of this command."""
    return error.describe(word_for_command)


def word_for_command(parameter: str, value: Any) -> str | None:
    """As `word_as_option`; None if the parameter is how pictures are read or restored, and this command has no
    option for it."""
    options = _options_of_command[0]
    is_foreign = parameter in _SETTINGS and options is not None and word_as_option(parameter, None) not in options
    return None if is_foreign else word_as_option(parameter, value)


_options_of_command: list[frozenset[str] | None] = [None]
"""For all threads."""

_SETTINGS = ("bit_depth", "max_pixels", "memory_bytes", "page", "tile_px", "white")
"""Parameters in the hints of errors that several commands can cause, but not all have options for."""


def remember_options(options: Iterable[str]) -> None:
    """The options of the command that runs, so that hints name no others."""
    _options_of_command[0] = frozenset(options)


_OPTIONS = {
    "border_px": "--border",
    "exposure": "--exposure-ratio",
    "halo_px": "--halo",
    "json_file": "--json",
    "memory_bytes": "--memory",
    "num_seeds": "--seeds",
    "save_every_s": "--save-every",
    "start_from": "--from",
    "tile_px": "--tile",
    "timeout_s": "--timeout",
    "validation": "--val",
}
"""Options whose names differ from the Python parameter."""


def word_as_option(parameter: str, value: Any) -> str:
    """Word a parameter as it is typed: `--overwrite`, `--memory 430MB`, `--tune off`; without a value, `--out`."""
    option = _OPTIONS.get(parameter, f"--{parameter.replace('_', '-')}")
    if value is None or value is True:
        return option
    if value is False:
        return f"{option} off"
    if parameter.endswith("_bytes"):
        return f"{option} {-(-value // 10**6)}MB"  # rounded up: a limit that is a little too small does not help
    return f"{option} {value}"


def open_on_screen(path: Path) -> None:
    """Show a file in the program for its kind, if the user is at a terminal on a machine with a screen."""
    has_screen = sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
    if has_screen and sys.stdout.isatty():
        typer.launch(str(path))


@contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """Treat SIGTERM, e.g. from a service manager or a batch queue, like Ctrl-C."""
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:  # `process.run` does it already, and knows the exit code
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_leaks(made: "Store", folder: Path) -> None:
    """Compare the pictures of a folder with a store, and print those that the store contains."""
    from pellucid.data import leaks

    with progress() as bar:
        task = bar.add_task("comparing", total=None)
        found = leaks.find_leaks_in_folder(
            made, folder, lambda done, total: bar.update(task, completed=done, total=total)
        )
    for leak in found:
        print_warning(leak)
    print_info(f"{made.folder} contains {format_count(len(found), 'picture')} of {folder}, as a whole or in part")
