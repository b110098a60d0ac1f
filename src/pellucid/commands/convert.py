"""`pellucid convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.models import recipe_text
from pellucid.commands.options import Overwrite, Parameters, parse_keywords
from pellucid.commands.terminal import defer_sigint

if TYPE_CHECKING:
    pass


def convert(
    source: Annotated[Path, typer.Argument(metavar="AUTHORS_FILE", help=".mat, .pth, .pkl, .ckpt, .pdparams")],
    parameters: Parameters = None,
    *,
    recipe: Annotated[str, typer.Option(metavar="RECIPE", help="What the weights are, as dncnn.gaussian.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The weight file to write, .safetensors.")],
    license: Annotated[
        str, typer.Option(metavar="TEXT", help="License of the weights.")
    ] = "unknown; see the authors of the weights",
    overwrite: Overwrite = False,
) -> None:
    """Turn a weight file of the original authors into one that knows what it is. Runs no code of the file."""
    with defer_sigint():
        from pellucid.system import files
        from pellucid.weights import converting

    files.check_overwrite(out, overwrite=overwrite)
    card = converting.convert(
        source, recipe, out, license=license, overwrite=overwrite, **parse_keywords(parameters)
    )
    typer.echo(f"{out}: {recipe_text(card)}")
