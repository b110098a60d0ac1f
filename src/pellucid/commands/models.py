"""`pellucid models`."""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.commands.options import Json, OverwriteJson, check_overwrite
from pellucid.commands.terminal import (
    add_row,
    is_stdout,
    print_line,
    print_table,
    print_warning,
    progress,
    show_progress,
    table,
    write_json,
)
from pellucid.errors import PellucidError
from pellucid.system.signals import defer_sigint

if TYPE_CHECKING:
    from pellucid.weights.checkpoint import WeightsMetadata
    from pellucid.weights.models import NamedModel


MAX_LISTED_SCORES = 2
"""Scores per model in the list of all models; a line has no room for more."""


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A model, e.g. srcnn-x2: show everything about it.")
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="Also show recipes, test sets and folders; needs a wide terminal.")
    ] = False,
    speed: Annotated[
        bool, typer.Option("--speed", help="Measure the megapixels per second of results on this machine.")
    ] = False,
    json_file: Json = None,
    overwrite: OverwriteJson = False,
) -> None:
    """List what models correct, their scores and licenses, or show everything about one.

    The list contains the models that ship with pellucid and the weight files in your own folder.
    """
    with defer_sigint():
        from pellucid.weights import models

    check_overwrite(overwrite, {"--json": json_file})
    if name is not None:
        if speed or long:
            raise typer.BadParameter("--speed and --long are for the list of all models; omit them, or NAME")
        _print_model(name, json_file, overwrite=overwrite)
        return
    listed = models.list_metadata()
    readable = [model.path for model, metadata in listed if not isinstance(metadata, PellucidError)]
    speeds = _measure_speeds(readable) if speed else {}
    if json_file is not None:
        content = [_model_as_json(model, metadata, speeds.get(model.path)) for model, metadata in listed]
        write_json(json_file, content, overwrite=overwrite)
    if is_stdout(json_file):
        return
    print_table(_make_long_table(listed) if long else _make_table(listed, speeds))
    for model, metadata in listed:
        if isinstance(metadata, PellucidError):
            print_warning(f"{model.name}: {metadata}")
    if not long:
        print_line("PSNR in dB on the first test set of 'pellucid models NAME': degraded, restored")
    print_line(f"Folder for your own weight files: {models.user_folder()}")


Listed = Sequence[tuple["NamedModel", "WeightsMetadata | PellucidError"]]


def _measure_speeds(paths: Sequence[Path]) -> dict[Path, float]:
    """Megapixels per second of each weight file."""
    from pellucid.backends import benchmark

    speeds = {}
    with progress() as bar:
        update = show_progress(bar, "timing")
        for done, path in enumerate(paths):
            update(done, len(paths))
            speeds[path] = benchmark.measure_speed(path)
    return speeds


def _make_table(listed: "Listed", speeds: Mapping[Path, float]) -> Any:
    """A table of 80 columns."""
    timed = ["MP/s"] * bool(speeds)
    columns = ("model", "for", "input", *timed, "PSNR", "license")
    rows = table(*columns, right=(3,) if speeds else ())
    rows.show_edge = False
    rows.columns[0].no_wrap = rows.columns[2].no_wrap = rows.columns[-2].no_wrap = True
    for model, metadata in listed:
        if isinstance(metadata, PellucidError):
            add_row(rows, model.name, "cannot be read", *[""] * (len(columns) - 2), style="red")
        else:
            speed = [f"{speeds[model.path]:.2g}" for _ in timed]
            cells = _describe_purpose(metadata)
            add_row(rows, model.name, *cells, *speed, _describe_gain(metadata), metadata.license)
    return rows


def _describe_purpose(metadata: "WeightsMetadata") -> tuple[str, str]:
    """What a model corrects, and in which pictures; "?" for a recipe that is not known here."""
    from pellucid.restoration.suitability import describe_noise, list_problems
    from pellucid.weights import checkpoint

    try:
        recipe = checkpoint.find_recipe(metadata, source="")
    except PellucidError:
        return "?", "?"
    problems = [f"{problem} {describe_noise(recipe)}".strip() for problem in list_problems(recipe)]
    if metadata.degradation is not None:
        problems = ["own degradation"]
    if recipe.domain.rate > 1 and recipe.protocol.crop_multiple > 1:
        problems = [f"{problem}, x{recipe.domain.rate}" for problem in problems]
    kinds = {"gray": "gray", "y": "any", "rgb": "color"}
    return ", ".join(problems), "RAW" if recipe.domain.takes_mosaic else kinds[recipe.domain.colors]


def _describe_gain(metadata: "WeightsMetadata") -> str:
    """PSNR before and after, in dB."""
    if not metadata.scores:
        return "-"
    score = metadata.scores[0]
    before = score.get("degraded_psnr_db")
    return f"{'-' if before is None else f'{before:.2f}'}{_arrow()}{_psnr_db(score):.2f}"


def _arrow() -> str:
    """An arrow that standard output can encode."""
    try:
        "→".encode(_encoding())
    except UnicodeEncodeError:
        return "->"
    return "→"


def _encoding() -> str:
    return sys.stdout.encoding or "ascii"


def _make_long_table(listed: "Listed") -> Any:
    rows = table("model", "recipe", "PSNR in dB", "license", "from")
    for model, metadata in listed:
        origin = "pellucid" if model.is_shipped else str(model.path.parent)
        if isinstance(metadata, PellucidError):
            add_row(rows, model.name, "cannot be read", "", "", origin, style="red")
        else:
            scores = _describe_first_scores(metadata)
            add_row(rows, model.name, _describe_recipe_briefly(metadata), scores, metadata.license, origin)
    return rows


def describe_recipe(metadata: "WeightsMetadata") -> str:
    """The recipe and all its keywords, e.g. "srcnn.paper scale=3 mapping_px=1"."""
    given = {key: value for key, value in metadata.parameters.items() if value is not None}
    return " ".join([metadata.recipe, *(f"{key}={_as_typed(value)}" for key, value in given.items())])


def _print_model(name: str, json_file: Path | None, *, overwrite: bool) -> None:
    """Print the metadata of one model, with the command that measures each score."""
    from pellucid.weights import checkpoint, models

    path = models.find_model(name)
    metadata = checkpoint.read_metadata(path)
    checkpoint.check_undamaged(path)
    if json_file is not None:
        write_json(json_file, {"name": name, "path": str(path), **vars(metadata)}, overwrite=overwrite)
    if is_stdout(json_file):
        return
    purpose, kind = _describe_purpose(metadata)
    print_line(f"{name}: {describe_recipe(metadata)}")
    print_line(f"for: {purpose}; input: {kind}")
    print_line(f"file: {path}")
    print_line(f"license: {metadata.license}")
    if metadata.degradation is not None:
        print_line(f"degradation: {metadata.degradation}, instead of that of the recipe")
    print_line(f"origin: {metadata.provenance}")
    for score in metadata.scores:
        measured = f"{checkpoint.describe_score(score)} {_psnr_db(score):.3f} dB"
        print_line(f"score: {measured}   {checkpoint.score_command(name, score)}")
    for entry in metadata.history:
        print_line("earlier: " + "; ".join(f"{value}" for value in entry.values()))


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


def _model_as_json(
    model: "NamedModel", metadata: "WeightsMetadata | PellucidError", speed: float | None
) -> dict[str, Any]:
    known = {"name": model.name, "path": str(model.path), "ships": model.is_shipped}
    if isinstance(metadata, PellucidError):
        return {**known, "error": str(metadata)}
    purpose, kind = _describe_purpose(metadata)
    return {**known, "for": purpose, "input": kind, "megapixels_per_s": speed, **vars(metadata)}
