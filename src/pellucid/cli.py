"""The command line: its sub-commands, and the one line for everything that users can mend.

Nothing heavy is imported before a sub-command runs, so that `--help` answers at once.
"""

import os
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from pellucid.commands import bench, convert, evaluate, export, models, plot, prepare, recipes, restore, train
from pellucid.commands.terminal import exit_with_error
from pellucid.errors import PellucidError

app = typer.Typer(
    name="pellucid",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Learned image restoration: enlarge, denoise, deblock, deblur, brighten.",
    epilog="First steps: `pellucid models`, then `pellucid restore photo.png --model srcnn-x2`",
)


def main() -> None:
    """Entry point: errors that users can fix are one line and exit status 1."""
    # Half of the time of a shallow network goes into page faults on fresh activations; huge pages halve it.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold anything
    try:
        app()
    except PellucidError as error:
        exit_with_error(error)
    except OSError as error:  # what no function expected: a full disk, a name too long, a lost share
        exit_with_error(f"{error.strerror or error}: {str(error.filename)[:200]}")
    except MemoryError:
        exit_with_error("not enough memory; smaller tiles need less: --tile 256")


def _version(wanted: bool) -> None:
    if wanted:
        from pellucid import __version__

        typer.echo(f"pellucid {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


app.command(
    rich_help_panel="Use",
    epilog="Example: `pellucid restore scans/ --model srcnn-x2 --out larger/`",
)(restore.restore)
app.command(
    rich_help_panel="Use",
    epilog="Example: `pellucid evaluate mine.safetensors --data Set12 sigma_255=50`",
)(evaluate.evaluate)
app.command(
    rich_help_panel="Train",
    epilog="Example: `pellucid prepare gopro GOPRO_Large.zip --out stores/gopro`, then "
    "`pellucid prepare check stores/gopro`",
)(prepare.prepare)
app.command(
    rich_help_panel="Train",
    epilog="Example: `pellucid train dncnn.gaussian sigma_255=15 --data photos/ --out runs/s15`",
)(train.train)
app.command(rich_help_panel="Train", epilog="Example: `pellucid plot runs/a runs/b --out curves.png`")(plot.plot)
app.command(rich_help_panel="Weights")(models.models)
app.command(rich_help_panel="Weights")(recipes.recipes)
app.command(
    rich_help_panel="Weights",
    epilog="Example: `pellucid convert net.pth --recipe dncnn.gaussian sigma_255=25 --out mine.safetensors`",
)(convert.convert)
app.command(
    rich_help_panel="Deploy",
    epilog="Example: `pellucid export srcnn-x2 --out srcnn-x2.onnx`, then "
    "`pellucid restore photo.png --model srcnn-x2.onnx`",
)(export.export)
app.command(rich_help_panel="Deploy", epilog="Example: `pellucid bench dncnn-gray-25 --megapixels 1`")(bench.bench)
