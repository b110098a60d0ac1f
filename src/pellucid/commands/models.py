"""`pellucid models`."""

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.commands.terminal import add_row, print_table, table
from pellucid.errors import PellucidError

if TYPE_CHECKING:
    from pellucid.weights.checkpoint import WeightsMetadata


MOST_SCORES = 2
"""Of a model, in the list of all."""


def models(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="As srcnn-x2: all about one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """List the models that ship and those in your own folder, with scores and license; or tell all about one."""
    from pellucid.weights import checkpoint, models

    if name is not None:
        _tell(name, as_json)
        return
    cards = models.list_metadata()
    if as_json:
        typer.echo(json.dumps([_model_as_json(model, card) for model, card in cards], indent=2))
        return
    rows = table("model", "recipe", "PSNR in dB", "license", "from")
    for model, card in cards:
        origin = "pellucid" if model.is_shipped else str(model.path.parent)
        if isinstance(card, checkpoint.WeightsMetadata):
            add_row(rows, model.name, _in_short(card), _few_scores(card), card.license, origin)
        else:
            add_row(rows, model.name, str(card), "", "", origin, style="red")
    print_table(rows)
    typer.echo(f"Your own weight files go to {models.user_folder()}")


def _tell(name: str, as_json: bool) -> None:
    """The card of one model, with the command behind each score."""
    from pellucid.weights import checkpoint, models

    path = models.find_model(name)
    card = checkpoint.read_metadata(path)
    if as_json:
        typer.echo(json.dumps({"name": name, "path": str(path), **vars(card)}, indent=2))
        return
    typer.echo(f"{name}: {recipe_text(card)}\nfile: {path}\nlicense: {card.license}\norigin: {card.provenance}")
    for score in card.scores:
        said = f"{checkpoint.describe_score(score)} {_decibels(score):.3f} dB"
        typer.echo(f"score: {said}   {checkpoint.score_command(name, score)}")
    for entry in card.history:
        typer.echo("before: " + "; ".join(f"{value}" for value in entry.values()))


def _few_scores(card: "WeightsMetadata") -> str:
    """The first of them: a line of the list has no room for all."""
    from pellucid.weights import checkpoint

    said = [f"{checkpoint.describe_score(score)} {_decibels(score):.2f}" for score in card.scores]
    more = f" and {len(said) - MOST_SCORES} more" if len(said) > MOST_SCORES else ""
    return ", ".join(said[:MOST_SCORES]) + more or "not measured"


def _decibels(score: Mapping[str, Any]) -> float:
    """Equal pictures have none that JSON could hold."""
    return math.inf if score["psnr_db"] is None else float(score["psnr_db"])


def _in_short(card: Any) -> str:
    """The recipe and what of its own keywords is another than the paper's."""
    from pellucid.recipes import registry

    try:
        own = registry.own_keywords(card.recipe)
    except PellucidError:
        return recipe_text(card)
    changed = {key: value for key, value in card.parameters.items() if key in own and key != "num_steps"}
    given = {key: value for key, value in changed.items() if _as_typed(value) != _as_typed(own[key].default)}
    return " ".join([card.recipe, *(f"{key}={_as_typed(value)}" for key, value in given.items())])


def recipe_text(card: Any) -> str:
    given = {key: value for key, value in card.parameters.items() if value is not None}
    return " ".join([card.recipe, *(f"{key}={_as_typed(value)}" for key, value in given.items())])


def _as_typed(value: object) -> str:
    return ",".join(f"{part:g}" for part in value) if isinstance(value, list | tuple) else str(value)


def _model_as_json(model: Any, card: Any) -> dict[str, Any]:
    described = {"error": str(card)} if isinstance(card, PellucidError) else dict(vars(card))
    return {"name": model.name, "path": str(model.path), "ships": model.is_shipped, **described}
