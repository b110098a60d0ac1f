"""`pellucid convert`."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.commands.models import describe_recipe
from pellucid.commands.options import Json, NetworkFiles, Overwrite, Parameters, add_networks, parse_keywords
from pellucid.commands.terminal import is_stdout, print_line, write_json
from pellucid.system.signals import defer_sigint


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Weights of another project: .mat, .pth, .safetensors, .pkl, .ckpt, .pdparams or .index.",
        ),
    ],
    parameters: Parameters = None,
    *,
    recipe: Annotated[
        str, typer.Option(metavar="RECIPE", help="Recipe that the weights belong to, e.g. dncnn.gaussian.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Weight file to write (.safetensors).")],
    license: Annotated[
        str, typer.Option(metavar="TEXT", help="License of the weights.")
    ] = "unknown; see the authors of the weights",
    networks: NetworkFiles = None,
    json_file: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert weights of another project into a weight file of pellucid.

    Depth, width, channels, biases and batch norm are found in the file. The new file contains the recipe, its
    keywords, the origin and the license. Code in the source file never runs.
    """
    with defer_sigint():
        from pellucid.weights import converting

    add_networks(networks)
    keywords = parse_keywords(parameters, options=("license", "overwrite"))
    metadata = converting.convert(source, recipe, out, license=license, overwrite=overwrite, **keywords)
    if json_file is not None:
        write_json(json_file, {"path": str(out), **vars(metadata)}, overwrite=overwrite)
    if not is_stdout(json_file):
        print_line(f"{out}: {describe_recipe(metadata)}")
