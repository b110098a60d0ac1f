"""`pellucid models`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.commands.options import Json, OverwriteJson
from pellucid.commands.terminal import add_row, is_stdout, print_table, table, write_json
from pellucid.errors import PellucidError

if TYPE_CHECKING:
    from pellucid.weights.checkpoint import WeightsMetadata
    from pellucid.weights.models import NamedModel


MAX_LISTED_SCORES = 2
"""Scores per model in the list of all models; a line has no room for more."""


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A model, e.g. srcnn-x2: show everything about it.")
    ] = None,
    json_file: Json = None,
    overwrite: OverwriteJson = False,
) -> None:
    """List the models with their scores and licenses, or show everything about one.

    The list contains the models that ship with pellucid and the weight files in your own folder.
    """
    from pellucid.weights import models

    if name is not None:
        _print_model(name, json_file, overwrite=overwrite)
        return
    listed = models.list_metadata()
    if json_file is not None:
        content = [_model_as_json(model, metadata) for model, metadata in listed]
        write_json(json_file, content, overwrite=overwrite)
    if is_stdout(json_file):
        return
    rows = table("model", "recipe", "PSNR in dB", "license", "from")
    for model, metadata in listed:
        origin = "pellucid" if model.is_shipped else str(model.path.parent)
        if isinstance(metadata, PellucidError):
            add_row(rows, model.name, str(metadata), "", "", origin, style="red")
        else:
            scores = _describe_first_scores(metadata)
            add_row(rows, model.name, _describe_recipe_briefly(metadata), scores, metadata.license, origin)
    print_table(rows)
    typer.echo(f"Folder for your own weight files: {models.user_folder()}")


def describe_recipe(metadata: "WeightsMetadata") -> str:
    """The recipe and all its keywords, e.g. "srcnn.paper scale=3 mapping_px=1"."""
    given = {key: value for key, value in metadata.parameters.items() if value is not None}
    return " ".join([metadata.recipe, *(f"{key}={_as_typed(value)}" for key, value in given.items())])


def _print_model(name: str, json_file: Path | None, *, overwrite: bool) -> None:
    """Print the metadata of one model, with the command that measures each score."""
    from pellucid.weights import checkpoint, models

    path = models.find_model(name)
    metadata = checkpoint.read_metadata(path)
    if json_file is not None:
        write_json(json_file, {"name": name, "path": str(path), **vars(metadata)}, overwrite=overwrite)
    if is_stdout(json_file):
        return
    typer.echo(f"{name}: {describe_recipe(metadata)}")
    typer.echo(f"file: {path}\nlicense: {metadata.license}\norigin: {metadata.provenance}")
    for score in metadata.scores:
        measured = f"{checkpoint.describe_score(score)} {_psnr_db(score):.3f} dB"
        typer.echo(f"score: {measured}   {checkpoint.score_command(name, score)}")
    for entry in metadata.history:
        typer.echo("earlier: " + "; ".join(f"{value}" for value in entry.values()))


def _describe_first_scores(metadata: "WeightsMetadata") -> str:
    from pellucid.weights import checkpoint

    scores = [f"{checkpoint.describe_score(score)} {_psnr_db(score):.2f}" for score in metadata.scores]
    more = f" and {len(scores) - MAX_LISTED_SCORES} more" if len(scores) > MAX_LISTED_SCORES else ""
    return ", ".join(scores[:MAX_LISTED_SCORES]) + more or "not measured"


def _psnr_db(score: Mapping[str, Any]) -> float:
    """Identical pictures have an infinite PSNR, which JSON stores as null."""
    return math.inf if score["psnr_db"] is None else float(score["psnr_db"])


def _describe_recipe_briefly(metadata: "WeightsMetadata") -> str:
    """The recipe and those of its own keywords that differ from the paper's values."""
    from pellucid.recipes import registry

    try:
        own = registry.own_keywords(metadata.recipe)
    except PellucidError:  # a recipe of another version: all keywords are shown
        return describe_recipe(metadata)
    given = {key: value for key, value in metadata.parameters.items() if key in own and key != "num_steps"}
    changed = {key: value for key, value in given.items() if _as_typed(value) != _as_typed(own[key].default)}
    return " ".join([metadata.recipe, *(f"{key}={_as_typed(value)}" for key, value in changed.items())])


def _as_typed(value: object) -> str:
    """A value as it is typed on the command line: 0.9,0.999."""
    return ",".join(f"{part:g}" for part in value) if isinstance(value, list | tuple) else str(value)


def _model_as_json(model: "NamedModel", metadata: "WeightsMetadata | PellucidError") -> dict[str, Any]:
    described = {"error": str(metadata)} if isinstance(metadata, PellucidError) else dict(vars(metadata))
    return {"name": model.name, "path": str(model.path), "ships": model.is_shipped, **described}
