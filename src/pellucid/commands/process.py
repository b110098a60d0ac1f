"""The process of a command: its exit codes, signals, and standard streams that are closed, full or broken."""

import errno
import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn, TextIO, get_args

import typer

from pellucid.commands.terminal import print_error, print_warning
from pellucid.errors import ArgumentError, NotEnoughMemoryError, OutputError, PellucidError, RecipeError
from pellucid.system import control_groups

EXIT_CODES = {
    0: "everything was done",
    1: "something failed: a file, a model, a device, one of several pictures",
    2: "wrong usage: an unknown command, option or keyword, or an impossible value",
    130: "interrupted by Ctrl-C (SIGINT)",
    141: "the program that reads the output has ended, as in `pellucid models | head -1` (SIGPIPE)",
    143: "ended by SIGTERM, e.g. by a service manager or a batch queue",
}
"""What the exit code of a command means. There are no others."""

UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer exports this subclass only
# Not exported by typer either; a module from sys.modules has no attributes that mypy knows.
NoArgsIsHelpError: type[Exception] = getattr(sys.modules[UsageError.__module__], "NoArgsIsHelpError")  # noqa: B009


def run(command: Callable[[], object]) -> NoReturn:
    """Call a command, print an error in one line, and exit with one of EXIT_CODES.

    command: raises SystemExit, or returns None or an exit code.
    """
    _protect_streams()
    warnings.showwarning = _show_warning
    _set_thread_counts()
    with _interruptions() as received:
        code = _call(command)
    code = _flush(code)
    sys.exit(128 + received[0] if code == 130 and received else code)


def _set_thread_counts() -> None:
    """Limit libraries to the processors of this container or job; they would use all those of the machine.

    An OMP_NUM_THREADS that is not a number is removed: when torch loads, OpenMP would print lines of its own.
    """
    given = os.environ.get("OMP_NUM_THREADS", "1")
    if not re.fullmatch(r"\s*0*[1-9]\d{0,8}\s*(,\s*0*[1-9]\d{0,8}\s*)*", given):
        print_warning(f"OMP_NUM_THREADS={given[:40]} is not a number of threads and is ignored")
        del os.environ["OMP_NUM_THREADS"]
    num_processors = control_groups.count_processors()
    if num_processors < control_groups.count_available_processors():
        os.environ.setdefault("OMP_NUM_THREADS", str(num_processors))
        os.environ.setdefault("VIPS_CONCURRENCY", str(num_processors))


def exit_code(error: PellucidError) -> int:
    """1, or 2 for impossible values of arguments."""
    return 2 if isinstance(error, ArgumentError | RecipeError) else 1


def _call(command: Callable[[], object]) -> int:
    """The exit code of a command that may fail in any way."""
    try:
        code = command()
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        return 130
    except PellucidError as error:
        print_error(error)
        return exit_code(error)
    except UsageError as error:
        if not isinstance(error, NoArgsIsHelpError):  # the help has been printed
            print_error(_describe_usage(error))
        return 2
    except OSError as error:  # not handled where it was raised: full disk, name too long, network share gone
        print_error(_describe_os_error(error))
        return 1
    except (MemoryError, RuntimeError) as error:
        from pellucid.system.memory import is_memory_error

        if not is_memory_error(error):
            raise
        failure = NotEnoughMemoryError(
            "not enough memory", hint="smaller tiles need less, e.g. {tile_px}", tile_px=256
        )
        failure.__cause__ = error
        print_error(failure)
        return 1
    return code if isinstance(code, int) else 0


def _describe_usage(error: Exception) -> str:
    """One line of a usage error, with the command whose help explains it."""
    context = getattr(error, "ctx", None)
    command = "pellucid" if context is None else f"pellucid {' '.join(context.command_path.split()[1:])}".strip()
    text: str = _describe_value_error(error) or getattr(error, "format_message", error.__str__)()
    files = [given for given in sys.argv[1:] if given.startswith("-") and Path(given).exists()]
    if files and text.startswith("No such option"):
        return f"{text.strip().rstrip('.')}; if you mean the file, write ./{files[0]}"
    text = text.removeprefix("Invalid value: ").strip().replace(". Did you mean", "; did you mean").rstrip(".")
    return f"{text} See '{command} --help'" if text.endswith("?") else f"{text}; see '{command} --help'"


def _describe_value_error(error: Exception) -> str | None:
    """What is wrong with the value of an option, worded like other errors; None for other causes."""
    from pydantic import ValidationError

    from pellucid.system.arguments import range_error

    parameter, cause = getattr(error, "param", None), error.__cause__
    if parameter is None or not isinstance(cause, ValidationError):
        return None
    value, kind = cause.errors()[0]["input"], parameter.type_descriptor.annotation
    if kind in (int, float):
        is_whole = kind is int
        return range_error("value", value, parameter.min, parameter.max, is_whole=is_whole).describe(
            lambda *_: parameter.opts[0]
        )
    choices = get_args(kind)
    return f"{value} is not possible; {parameter.opts[0]} can be {' or '.join(choices)}" if choices else None


def _describe_os_error(error: OSError) -> str:
    if "temporary directory" in str(error):  # of tempfile
        return f"{error.strerror}; set the environment variable TMPDIR to a folder that can be written"
    if error.filename is None and error.errno == errno.ENOSPC:
        where = "on the disk of the output, or of the temporary files (environment variable TMPDIR)"
        return f"{error.strerror}: {where}"
    if error.filename is None and error.errno == errno.ENOENT and not _has_current_folder():
        return "the current folder has been deleted; change to another one"
    where = "" if error.filename is None else f"{str(error.filename)[:200]}: "
    return f"{where}{error.strerror or error}"


def _has_current_folder() -> bool:
    try:
        return bool(Path.cwd())
    except FileNotFoundError:
        return False


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt for SIGINT and SIGTERM. The list receives the numbers of the signals.

    Signals that the parent process has set to be ignored, as nohup does, stay ignored.
    """
    received: list[int] = []

    def interrupt(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Closed(io.TextIOBase):
    """Standard output that is closed: writing to it fails, so that no result is lost silently."""

    def write(self, text: str) -> NoReturn:
        raise OutputError("standard output is closed", hint="redirect it, e.g. to a file")

    def writable(self) -> bool:
        return True

    @property
    def buffer(self) -> NoReturn:
        self.write("")


class _Checked(io.TextIOWrapper):
    """Standard output whose errors name it."""

    def write(self, text: str) -> int:
        with _naming("standard output"):
            return super().write(text)

    def flush(self) -> None:
        with _naming("standard output"):
            super().flush()


@contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise SystemExit(141) from None  # silently, like programs that do not handle SIGPIPE
    except OSError as error:
        error.filename = name
        raise


def _protect_streams() -> None:
    """Handle file names with any bytes and closed streams, and name the stream in errors."""
    for descriptor in (0, 1, 2):  # otherwise the next file to be opened becomes standard output
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123  # until the end of the process
    if sys.stdout is None:
        sys.stdout = _Closed()
    elif type(sys.stdout) is io.TextIOWrapper:
        settings = {"encoding": sys.stdout.encoding, "line_buffering": sys.stdout.line_buffering}
        sys.stdout = _Checked(sys.stdout.detach(), errors="backslashreplace", **settings)  # type: ignore[arg-type]  # keywords of TextIOWrapper
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123  # until the end of the process
    elif isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")


def _flush(code: int) -> int:
    """Write what is still buffered; returns the final exit code. Otherwise, Python would print a traceback."""
    try:
        sys.stdout.flush()
    except SystemExit:
        code = 141
    except (OSError, ValueError) as error:
        if code == 0:
            print_error(_describe_os_error(error) if isinstance(error, OSError) else error)
            code = 1
    for stream in (sys.stdout, sys.stderr):
        _discard_buffer(stream)
    return code


def _discard_buffer(stream: TextIO) -> None:
    """Prevent a second error, at exit, from a stream that cannot be written."""
    try:
        stream.flush()
    except (OSError, ValueError, SystemExit):
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """A Python warning in one line, like other messages."""
    print_warning(message)
