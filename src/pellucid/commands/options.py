"""Options that several commands share, and what people write as their values."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Parameters = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Keywords of the recipe; see 'pellucid recipes NAME'."),
]
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="NAME_OR_FILE", help="Name (see 'pellucid models') or path of a weight file."
    ),
]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps, ...: where the network runs.")
]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="BACKEND",
        help="torch, onnxruntime, openvino, or auto: the fastest that agrees to 60 dB. [default: torch, or "
        "what an exported MODEL is for]",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="PRECISION", help="float32, bfloat16, float16, or auto. [default: float32, or an exported MODEL's]"
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are already there.")]


def parse_keywords(pairs: Sequence[str] | None, *, options: Sequence[str] = ()) -> dict[str, Any]:
    """Recipe keywords. options: of the command, which would be taken for keywords otherwise."""
    parameters = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is no KEY=VALUE, as sigma_255=25")
        if key in ("device", "license", "overwrite", *options):
            raise typer.BadParameter(f"{key} is an option: --{key}")
        parameters[key] = value
    return parameters


def parse_bytes(text: str) -> int:
    """2GB, 1.5 GiB, 800m: decimal units, and binary ones with an i."""
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(f"--memory {text}: an amount of memory is needed, as 2GB or 800MB")
    number, unit, binary = match.groups()
    power = " kmgt".find(unit.lower() or " ")
    return int(float(number) * (1024 if binary else 1000) ** power)


def parse_exposure(ratio: str, reference: Path | None) -> "float | Path | Literal['auto']":
    if reference is not None:
        if ratio != "auto":
            raise typer.BadParameter("--exposure-ratio and --reference are alternatives; give one")
        return reference
    if ratio == "auto":
        return "auto"
    try:
        number = float(ratio)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise typer.BadParameter(f"--exposure-ratio {ratio}: a number above 0, as 100, or auto is needed")
    return number
