"""`pellucid plot`."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.commands.options import Overwrite


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders of 'pellucid train'.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Output file: .png, .pdf or .svg.")],
    overwrite: Overwrite = False,
) -> None:
    """Plot the loss and PSNR of trainings against their steps."""
    from pellucid.training import plotting

    plotting.plot(runs, out, overwrite=overwrite)
    typer.echo(out)
