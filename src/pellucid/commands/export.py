"""`pellucid export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.options import Overwrite, Parameters, parse_keywords
from pellucid.commands.terminal import defer_sigint

if TYPE_CHECKING:
    from pellucid.backends.backend import Shape


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name or path of a weight file.")],
    parameters: Parameters = None,
    *,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="What to write: .onnx, .xml (and .bin), .pt2, .mindir, .air")
    ],
    format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="onnx, openvino, torch, aoti, mindir or air; or what FILE ends in."),
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="PRECISION", help="float32, float16, bfloat16 or int8, as the format has it.")
    ] = "float32",
    shape: Annotated[
        str | None,
        typer.Option(metavar="N,C,H,W", help="The only size it shall take. [default: any]"),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures like those to restore: int8 is calibrated on them."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Labelled pictures, as of 'evaluate': what it loses on them."),
    ] = None,
    target: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The clean partners of --data, by name.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model for another runtime, and check that it agrees with the network.

    What is written is first run by its own runtime at odd sizes; if it is off by more than its precision allows,
    nothing is written. An .onnx or .xml file is a MODEL again for 'restore' and 'evaluate'.
    """
    wanted = None if shape is None else _shape(shape)
    with defer_sigint():
        from pellucid.export import exporting

    exported = exporting.export(
        model,
        out,
        format=format,
        precision=precision,
        shape=wanted,
        calibrate=calibrate,
        data=data,
        target=target,
        overwrite=overwrite,
        **parse_keywords(parameters, options=("format", "precision", "shape")),
    )
    typer.echo(f"{exported.path}: {exported.facts.card.recipe} in {precision}")
    typer.echo(f"agrees with float32 torch: {exported.agreement}")
    if exported.loss_db is not None:
        typer.echo(f"loses {exported.loss_db:.3f} dB of mean PSNR on {data}")


def _shape(text: str) -> "Shape":
    try:
        count, planes, height, width = map(int, text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no shape N,C,H,W, as 1,1,256,256") from None
    return count, planes, height, width
