"""`pellucid models`, `recipes` and `convert`."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.commands.options import Overwrite, Parameters, keywords
from pellucid.commands.terminal import add_row, interrupts_held, show, table
from pellucid.errors import PellucidError

if TYPE_CHECKING:
    from pellucid.weights.checkpoint import Card

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
    cards = models.cards()
    if as_json:
        typer.echo(json.dumps([_model_as_json(model, card) for model, card in cards], indent=2))
        return
    rows = table("model", "recipe", "PSNR in dB", "license", "from")
    for model, card in cards:
        origin = "pellucid" if model.ships else str(model.path.parent)
        if isinstance(card, checkpoint.Card):
            add_row(rows, model.name, _in_short(card), _few_scores(card), card.license, origin)
        else:
            add_row(rows, model.name, str(card), "", "", origin, style="red")
    show(rows)
    typer.echo(f"Your own weight files go to {models.user_folder()}")


def _tell(name: str, as_json: bool) -> None:
    """The card of one model, with the command behind each score."""
    from pellucid.weights import checkpoint, models

    path = models.find(name)
    card = checkpoint.read_card(path)
    if as_json:
        typer.echo(json.dumps({"name": name, "path": str(path), **vars(card)}, indent=2))
        return
    typer.echo(f"{name}: {recipe_text(card)}\nfile: {path}\nlicense: {card.license}\norigin: {card.provenance}")
    for score in card.scores:
        said = f"{checkpoint.subject(score)} {_decibels(score):.3f} dB"
        typer.echo(f"score: {said}   {checkpoint.command(name, score)}")
    for entry in card.history:
        typer.echo("before: " + "; ".join(f"{value}" for value in entry.values()))


def _few_scores(card: "Card") -> str:
    """The first of them: a line of the list has no room for all."""
    from pellucid.weights import checkpoint

    said = [f"{checkpoint.subject(score)} {_decibels(score):.2f}" for score in card.scores]
    more = f" and {len(said) - MOST_SCORES} more" if len(said) > MOST_SCORES else ""
    return ", ".join(said[:MOST_SCORES]) + more or "not measured"


def _decibels(score: Mapping[str, Any]) -> float:
    """Equal pictures have none that JSON could hold."""
    return math.inf if score["psnr_db"] is None else float(score["psnr_db"])


def _in_short(card: Any) -> str:
    """The recipe and what of its own keywords is another than the paper's."""
    from pellucid import recipe

    try:
        _, own = recipe.describe(card.recipe)
    except PellucidError:
        return recipe_text(card)
    changed = {key: value for key, value in card.parameters.items() if key in own and key != "num_steps"}
    given = {key: value for key, value in changed.items() if _as_typed(value) != _as_typed(own[key][1])}
    return " ".join([card.recipe, *(f"{key}={_as_typed(value)}" for key, value in given.items())])


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="As dncnn.gaussian.")] = None,
) -> None:
    """List the recipes, or the keywords of one."""
    from pellucid import recipe

    if name is None:
        rows = table("recipe", "what it is")
        for known in recipe.names():
            add_row(rows, known, recipe.describe(known)[0])
    else:
        summary, keywords = recipe.describe(name)
        meanings = recipe.meanings(name)
        typer.echo(f"{name}: {summary}")
        rows = table("keyword", "default", "values", "meaning")
        for keyword, (kind, default) in keywords.items():
            add_row(rows, keyword, str(default), kind, meanings.get(keyword, ""))
        rows.add_section()
        for keyword, (kind, current) in recipe.training_keywords(recipe.find(name)).items():
            if keyword not in keywords:
                value = "-" if current is None else str(current)
                add_row(rows, keyword, value, kind, meanings[keyword])
    show(rows)


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
    with interrupts_held():
        from pellucid import converting
        from pellucid.system import files

    files.check_free(out, overwrite=overwrite)
    card = converting.convert(source, recipe, out, license=license, overwrite=overwrite, **keywords(parameters))
    typer.echo(f"{out}: {recipe_text(card)}")


def recipe_text(card: Any) -> str:
    given = {key: value for key, value in card.parameters.items() if value is not None}
    return " ".join([card.recipe, *(f"{key}={_as_typed(value)}" for key, value in given.items())])


def _as_typed(value: object) -> str:
    return ",".join(f"{part:g}" for part in value) if isinstance(value, list | tuple) else str(value)


def _model_as_json(model: Any, card: Any) -> dict[str, Any]:
    described = {"error": str(card)} if isinstance(card, PellucidError) else dict(vars(card))
    return {"name": model.name, "path": str(model.path), "ships": model.ships, **described}
