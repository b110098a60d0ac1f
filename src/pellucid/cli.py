"""The command line: its commands, and one-line errors for everything that users can fix.

Heavy packages are imported only when a command runs, so that `--help` is fast.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from pellucid.commands import (
    advise,
    bench,
    calibrate,
    convert,
    evaluate,
    export,
    models,
    plot,
    prepare,
    process,
    recipes,
    restore,
    serve,
    status,
    train,
)
from pellucid.commands.options import check_arguments, check_repeated, check_results, check_urls, with_messages
from pellucid.commands.terminal import remember_options, word_for_command
from pellucid.errors import PellucidError, use_wording

URL_PARAMETERS = {
    "bench": ("model",),
    "convert": ("license",),
    "evaluate": ("model", "models", "data", "target", "train_data", "on"),
    "export": ("model",),
    "models": ("name",),
    "prepare": ("paths", "out", "against", "on"),
    "restore": ("inputs", "out", "model", "mask", "on"),
    "serve": ("allow_origin", "allow_urls", "workers"),
    "status": ("out",),
    "train": ("data", "target", "mix", "out", "start_from", "val", "val_target"),
}
"""Parameters of commands that take URLs. All others refuse them: a path of this computer is expected there."""


_COMPLETION = "--install-completion", "--show-completion"
"""Typer runs these before it looks at what follows them."""

_SHELLS = "bash", "zsh", "fish", "powershell", "pwsh"
"""For which typer has completion."""

MIN_HELP_COLUMNS = 60
"""In a narrower terminal, lines of the help wrap: its table would have no space for words."""


class _PlainHelp:
    """A command whose help shows no Python types: `<bool>` next to flags, `<list[str]>` next to arguments."""

    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # a mixin of typer's commands
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
            if parameter.param_type_name == "argument":
                vars(parameter)["display_type_rich"] = lambda ctx: ""
        return parameters

    def format_help(self, ctx: Any, formatter: Any) -> None:
        columns = shutil.get_terminal_size().columns
        from typer import rich_utils  # takes 30 ms to load

        rich_utils.MAX_WIDTH = MIN_HELP_COLUMNS if columns < MIN_HELP_COLUMNS else None
        super().format_help(ctx, formatter)  # type: ignore[misc]  # a mixin of typer's commands


@contextmanager
def _errors_of(context: Any) -> Iterator[None]:
    """Errors of usage refer to the help of the command in this context."""
    try:
        yield
    except process.UsageError as error:
        vars(error)["ctx"] = context
        raise


class _Command(_PlainHelp, TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _errors_of(ctx):
            check_arguments(args)
            check_repeated(self.params, args)
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _errors_of(ctx):
            check_urls(self.params, ctx.params, URL_PARAMETERS.get(self.name or "", ()))
            check_results(self.params, ctx.params)
        remember_options(option for parameter in self.params for option in parameter.opts)
        return super().invoke(ctx)


class _Group(_PlainHelp, TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _errors_of(ctx):
            if len(args) > 1 and args[0] in _COMPLETION:
                raise typer.BadParameter(f"{args[0]} takes no other arguments, and {args[1][:40]!r} is given")
            if args and args[0] in _COMPLETION:
                _check_shell()
            return super().parse_args(ctx, args)


def _check_shell() -> None:
    """Raise PellucidError if typer would not find the shell that runs the command, or does not know it."""
    import shellingham  # typer's own dependency

    try:
        name, _ = shellingham.detect_shell()
    except shellingham.ShellDetectionFailure:
        name = None
    if name not in _SHELLS:
        found = "no shell was found" if name is None else f"the shell is {name}"
        raise PellucidError(f"{found}; completion is for {', '.join(_SHELLS)}", hint="run it in one of them")


app = typer.Typer(
    name="pellucid",
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Learned image restoration: enlarge, denoise, deblock, deblur, brighten.",
    epilog="First steps: `pellucid models`, then `pellucid restore photo.png --model srcnn-x2`. Exit codes: "
    "0 done, 1 failed, 2 wrong command line, 130 interrupted, 143 terminated (docs/scripting.md)",
)


def main() -> None:
    """Run the command line and exit with one of `process.EXIT_CODES`."""
    # A shallow network spends half of its time on page faults of new activations; huge pages halve that.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with use_wording(word_for_command):
        process.run(lambda: app(standalone_mode=False, prog_name="pellucid"))  # also of `python -m pellucid`


def _print_version(is_set: bool) -> None:
    if is_set:
        from pellucid import __version__

        typer.echo(f"pellucid {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _add(panel: str, command: Any, example: str | None = None) -> None:
    epilog = None if example is None else f"Example: {example}"
    app.command(cls=_Command, rich_help_panel=panel, epilog=epilog)(with_messages(command))


_add("Use models", restore.restore, "`pellucid restore scans/ --model srcnn-x2 --out larger/`")
_add("Use models", advise.advise, "`pellucid advise scans/ --try sheets/`")
_add("Use models", status.status, "`pellucid status larger/`")
_add("Use models", serve.serve, "`pellucid serve`, then open http://127.0.0.1:8000 in a browser")
_add("Use models", evaluate.evaluate, "`pellucid evaluate mine.safetensors --data Set12 sigma_255=50`")
_add("Use models", models.models)
_add("Use models", convert.convert, "`pellucid convert net.pth --recipe dncnn.gaussian --out mine.safetensors`")
_add(
    "Train models",
    prepare.prepare,
    "`pellucid prepare gopro GOPRO_Large.zip --out stores/gopro`, then `pellucid prepare check stores/gopro`",
)
_add("Train models", train.train, "`pellucid train dncnn.gaussian sigma_255=15 --data photos/ --out runs/s15`")
_add("Train models", recipes.recipes)
_add("Train models", calibrate.calibrate, "`pellucid calibrate flats/ darks/ --out camera.json --plot camera.png`")
_add("Train models", plot.plot, "`pellucid plot runs/a runs/b --out curves.png`")
_add(
    "Deploy models",
    export.export,
    "`pellucid export srcnn-x2 --out srcnn-x2.onnx`, then `pellucid restore photo.png --model srcnn-x2.onnx`",
)
_add("Deploy models", bench.bench, "`pellucid bench dncnn-gray-25 --megapixels 1`")
