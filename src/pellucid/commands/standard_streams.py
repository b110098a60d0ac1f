"""`-`: a picture from standard input, and a result on standard output."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer

from pellucid.commands.terminal import print_bytes
from pellucid.errors import PellucidError, PictureError

if TYPE_CHECKING:
    from pellucid.restoration.sessions import Outcome
    from pellucid.storage.urls import Location


MAX_INPUT_BYTES = 8 * 2**30
"""Standard input with more bytes is refused. An uncompressed picture of 500 million pixels of 16 bits has 3 GB."""

_STDIN, _STDOUT = "standard input", "standard output"

_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Streams:
    """Inputs and output of a command, with temporary files for standard streams.

    is_stdout: whether the result goes to standard output, which must then contain nothing else.
    names: what temporary files are called in messages.
    """

    inputs: list[str]
    out: "str | Location | None"
    is_stdout: bool = False
    names: "dict[Location, str]" = field(default_factory=dict)

    def rename(self, outcome: "Outcome") -> "Outcome":
        """The outcome with names of streams instead of temporary files."""
        source, target = (
            path if path not in self.names else Path(self.names[path]) for path in (outcome.source, outcome.target)
        )
        error = None if outcome.error is None else self.rename_error(outcome.error)
        return replace(outcome, source=source, target=target, error=error)

    def rename_error(self, error: PellucidError) -> PellucidError:
        """The error with names of streams instead of temporary files."""
        for path, name in self.names.items():
            error.facts = error.facts.replace(str(path), name)
        return error


@contextmanager
def standard_streams(inputs: list[str], out: str | None, format: str | None) -> Iterator[Streams]:
    """The streams of a command. Standard output receives the result at the end, if there is one.

    out: for `-` as input, None is standard output. Raises typer.BadParameter for other inputs next to `-`.
    """
    reads, writes = "-" in inputs, out == "-" or (out is None and "-" in inputs)
    if not reads and not writes:
        yield Streams(inputs, out)
        return
    _check(inputs, reads=reads, writes=writes)
    with TemporaryDirectory(prefix="pellucid-") as folder:
        names: dict[Location, str] = {}
        if reads:
            source = Path(folder, _STDIN)  # messages that contain only the name of a file are right, too
            _store_input(source)
            names[source] = _STDIN
            inputs = [str(source)]
        result = Path(folder, _name_output(inputs[0], format))
        if writes:
            names[result] = _STDOUT
        streams = Streams(inputs, result if writes else out, writes, names)
        try:
            yield streams
        except PellucidError as error:
            raise streams.rename_error(error) from None
        if writes and result.exists():
            with result.open("rb") as file:
                for block in iter(partial(file.read, _BLOCK_BYTES), b""):
                    print_bytes(block)


def _check(inputs: list[str], *, reads: bool, writes: bool) -> None:
    if len(inputs) > 1:
        raise typer.BadParameter("- is one picture; omit the other inputs")
    if Path(inputs[0]).is_dir():
        raise typer.BadParameter(f"- is one picture, and {inputs[0]} is a folder; give --out a folder")
    if writes and sys.stdout.isatty():
        raise typer.BadParameter("--out -: standard output is a terminal; redirect it, or give a file")
    if reads and sys.stdin.isatty():
        raise typer.BadParameter("-: standard input is a terminal; redirect a picture to it")


def _name_output(given: str, format: str | None) -> str:
    """The name of a result, in the format of the input."""
    from pellucid.pictures import images
    from pellucid.storage.urls import Url, locate

    source = locate(given)
    if isinstance(source, Url):
        return images.result_name(f"{_STDOUT}{source.suffix}", format)
    return images.result_name(_STDOUT, format, source=source)


def _store_input(target: Path) -> None:
    """Copy standard input to a file; only its start if that is not a picture, because it might never end."""
    from pellucid.pictures import kinds

    blocks = iter(partial(sys.stdin.buffer.read, _BLOCK_BYTES), b"")
    first = next(blocks, b"")
    if not first:
        raise PictureError("standard input is empty; a picture is needed")
    num_bytes = 0
    with target.open("wb") as file:
        for block in chain((first,), blocks):
            num_bytes += file.write(block)
            if num_bytes > MAX_INPUT_BYTES:
                raise PictureError(f"standard input has more than {MAX_INPUT_BYTES >> 30} GiB", hint="give a file")
            if kinds.identify_head(first) is None:
                return
