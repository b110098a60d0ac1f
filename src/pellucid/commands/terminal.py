"""What people see in their terminal: tables, progress, one line for each thing worth saying."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from pellucid.errors import PellucidError

if TYPE_CHECKING:
    from rich.progress import Progress

    from pellucid.data.store import Store


def table(*columns: str, right: Sequence[int] = ()) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in right else "left", overflow="fold")
    return table


def add_row(table: Any, *cells: str, style: str | None = None) -> None:
    from rich.text import Text

    table.add_row(*map(Text, cells), style=style)  # as it stands: names may hold what looks like markup


def print_table(table: Any) -> None:
    from rich.console import Console

    # Into a pipe or a file, lines are as long as they need to be.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@contextmanager
def progress(*extra: str) -> "Iterator[Progress]":
    """A bar on the error stream: how far, how fast, how long still."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    columns += [TextColumn(text) for text in extra]
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar


def print_once(text: str, *, err: bool = False) -> None:
    """Said once, by the first of many processes."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(text, err=err)


def print_note(text: object) -> None:
    """One line on the error stream, whatever a file is called."""
    typer.echo(" ".join(str(text).split()), err=True)


def print_error(problem: object) -> None:
    """One line on the error stream; hints name options, not arguments."""
    print_note(f"pellucid: {problem.describe(word_as_option) if isinstance(problem, PellucidError) else problem}")


_OPTIONS = {"memory_bytes": "--memory", "tile_px": "--tile", "halo_px": "--halo", "start_from": "--from"}
"""Options that are not named like the argument of the function."""


def word_as_option(parameter: str, value: Any) -> str:
    """A parameter as it is typed: `--overwrite`, `--memory 430MB`, `--out`."""
    option = _OPTIONS.get(parameter, f"--{parameter.replace('_', '-')}")
    if value is None or value is True:
        return option
    return f"{option} {value // 10**6}MB" if parameter.endswith("_bytes") else f"{option} {value}"


def exit_with_error(message: object) -> NoReturn:
    print_error(message)
    raise SystemExit(1)


@contextmanager
def defer_sigint() -> Iterator[None]:
    """Ctrl-C waits until the imports are done: in the midst of torch's own it is lost, or breaks them."""
    pressed: list[bool] = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


@contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """SIGTERM, as a service or a queue sends it, ends the work as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_leaks(made: "Store", folder: Path) -> None:
    from pellucid.data import leaks

    with progress() as bar:
        task = bar.add_task("comparing", total=None)
        found = leaks.find_leaks_in_folder(
            made, folder, lambda done, total: bar.update(task, completed=done, total=total)
        )
    for leak in found:
        print_note(f"warning: {leak}")
    print_note(f"{len(found)} pictures of {folder} were found in {made.folder}")
