"""`pellucid export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.options import Json, NetworkFiles, Overwrite, Parameters, add_networks, parse_keywords
from pellucid.commands.terminal import is_stdout, print_info, print_line, print_warning, write_json
from pellucid.system.signals import defer_sigint

if TYPE_CHECKING:
    from pellucid.backends.backend import Shape
    from pellucid.exporting.export import Exported

_OPTIONS = (
    "calibrate",
    "colors",
    "data",
    "format",
    "layout",
    "overwrite",
    "precision",
    "samples",
    "shape",
    "target",
    "whole",
)
"""Those of `exporting.export.export`, which also takes recipe keywords."""


def export(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Name of a model (see 'pellucid models') or path of a weight file."),
    ],
    parameters: Parameters = None,
    *,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File to write: .onnx, .xml (and .bin), .pt2, .mindir or .air.")
    ],
    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="onnx, openvino, torch, aoti, mindir or air.",
            show_default="by the suffix of FILE",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(metavar="PRECISION", help="float32, float16, bfloat16 or int8, if the format supports it."),
    ] = "float32",
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="N,C,H,W",
            help="The only input shape that the file accepts; N,H,W,C with --layout nhwc.",
            show_default="any number and size of pictures",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Degraded pictures like those to restore, for calibration; required for int8."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Measure the loss of PSNR on this data set, given as for 'evaluate'."),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Targets of the degraded pictures in --data, matched by name, or in order if no names agree.",
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Write a graph that takes and returns the samples of picture files."),
    ] = False,
    samples: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE", help="Of a whole graph: uint8 or uint16.", show_default="uint8, uint16 for RAW"
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="LAYOUT", help="Of a whole graph: nchw (N,C,H,W) or nhwc (N,H,W,C).", show_default="nchw"
        ),
    ] = None,
    colors: Annotated[
        str | None,
        typer.Option(metavar="COLORS", help="Of a whole graph: gray or rgb.", show_default="those of the model"),
    ] = None,
    networks: NetworkFiles = None,
    json_file: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model for another runtime, after checking its results.

    The new file is first run by its own runtime, at odd sizes. If its results differ from the network's by more
    than the precision allows, nothing is written. 'restore' and 'evaluate' accept .onnx and .xml files as models,
    unless they are whole graphs.
    """
    if target is not None and data is None:
        raise typer.BadParameter("--target needs --data")
    if json_file is not None and out.suffix == ".xml" and json_file == out.with_suffix(".bin"):
        raise typer.BadParameter(f"--json {json_file} is the file for the weights of {out}; choose another name")
    with defer_sigint():
        from pellucid.exporting import export as exporting

    add_networks(networks)
    exported = exporting.export(
        model,
        out,
        format=format,
        precision=precision,
        shape=None if shape is None else _parse_shape(shape),
        calibrate=calibrate,
        data=data,
        target=target,
        whole=whole,
        samples=samples,
        layout=layout,
        colors=colors,
        overwrite=overwrite,
        **parse_keywords(parameters, options=_OPTIONS),
    )
    for warning in exported.warnings:
        print_warning(warning)
    if json_file is not None:
        write_json(json_file, _to_json(exported, precision), overwrite=overwrite)
    if is_stdout(json_file):
        return
    print_line(f"{exported.path}: {exported.metadata.weights.recipe} in {precision}")
    compared_with = "the result of `pellucid restore`, before rounding" if whole else "torch float32"
    print_line(f"against {compared_with}: {exported.agreement}")
    if exported.note is not None:
        print_info(exported.note)
    if exported.loss_db is not None:
        print_line(f"loss of mean PSNR on {data}: {exported.loss_db:.3f} dB")


def _to_json(exported: "Exported", precision: str) -> object:
    return {
        "path": str(exported.path),
        "recipe": exported.metadata.weights.recipe,
        "precision": precision,
        "agreement": str(exported.agreement),
        "loss_db": exported.loss_db,
        "note": exported.note,
        "warnings": exported.warnings,
    }


def _parse_shape(text: str) -> "Shape":
    try:
        count, planes, height, width = map(int, text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a shape N,C,H,W, e.g. 1,1,256,256") from None
    return count, planes, height, width
