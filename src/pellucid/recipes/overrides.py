"""Training keywords: the same recipe, trained differently (`lr`, `batch_size`, `num_steps`, ...).

They are the described fields of `Recipe`, of the optimizers and of the schedules, and `optimizer` and `schedule`
themselves: a new field there is a new keyword here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, replace
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import Field

from pellucid.errors import RecipeError, suggest
from pellucid.recipes.optimizers import Optimizer
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.schedules import Drops, Schedule
from pellucid.system.keywords import validate

T = TypeVar("T")

OPTIMIZERS: Mapping[str, type[Optimizer]] = {kind.__name__.lower(): kind for kind in get_args(Optimizer)}
SCHEDULES: Mapping[str, type[Schedule]] = {kind.__name__.lower(): kind for kind in get_args(Schedule)}

FORMER_NAMES = {"basis_steps": "precondition_frequency"}
"""Keywords in files of earlier versions: former name -> name."""


def rename_keywords(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The same keywords, former names replaced by the current ones."""
    return {FORMER_NAMES.get(key, key): value for key, value in parameters.items()}


@cache
def training_keywords() -> Mapping[str, Any]:
    """All training keywords: name -> type, with limits and a description."""
    optimizer = Literal[tuple(OPTIMIZERS)]  # type: ignore[valid-type]  # one name for each class above
    schedule = Literal[tuple(SCHEDULES)]  # type: ignore[valid-type]
    return {
        **_described_fields(Recipe),
        "optimizer": Annotated[optimizer, Field(description="how weights are updated")],
        **{key: hint for kind in OPTIMIZERS.values() for key, hint in _described_fields(kind).items()},
        "schedule": Annotated[schedule, Field(description="how the learning rate falls")],
        **{key: hint for kind in SCHEDULES.values() for key, hint in _described_fields(kind).items()},
    }


def training_values(recipe: Recipe) -> dict[str, Any]:
    """The recipe's value of each training keyword; None if its optimizer or schedule does not have it."""
    current = {
        **vars(recipe.schedule),
        **vars(recipe.optimizer),
        **vars(recipe),
        "optimizer": _name_of(recipe.optimizer),
        "schedule": _name_of(recipe.schedule),
    }
    return {key: current.get(key) for key in training_keywords()}


def override(recipe: Recipe, **keywords: Any) -> Recipe:
    """The same recipe with some training keywords changed. They are added to `parameters`, as `find` takes them.

    A value of None keeps the recipe's own. A change of `num_steps` rescales the steps at which the learning rate
    drops. Raises RecipeError for an unknown keyword, a value out of range, or a keyword that does not belong to
    the optimizer or the schedule.
    """
    types = training_keywords()
    for key in keywords:
        if key not in types:
            raise RecipeError(f"{recipe.name} has no keyword {key[:80]!r}; {suggest(key, types)}")
    optional = {
        key: validate(recipe.name, key, types[key] | None, value, error=RecipeError)
        for key, value in keywords.items()
    }
    given = {key: value for key, value in optional.items() if value is not None}
    changed = _rescale_drops(recipe, given.get("num_steps", recipe.num_steps))
    own = _described_fields(Recipe)
    optimizer = _replace_value(changed, changed.optimizer, OPTIMIZERS, given.get("optimizer"), given)
    schedule = _replace_value(changed, changed.schedule, SCHEDULES, given.get("schedule"), given)
    _check_gammas(recipe, schedule)
    return replace(
        changed,
        **{key: value for key, value in given.items() if key in own},
        optimizer=optimizer,
        schedule=schedule,
        parameters={**recipe.parameters, **given},
    )


def _described_fields(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {key: _without_none(hint) for key, hint in hints.items() if _has_description(hint)}


def _has_description(hint: Any) -> bool:
    return any(
        getattr(extra, "description", None)
        for choice in (hint, *get_args(hint))
        for extra in getattr(choice, "__metadata__", ())
    )


def _without_none(hint: Any) -> Any:
    """X of X | None: what may be given; None means that nothing is."""
    choices = [choice for choice in get_args(hint) if choice is not type(None)]
    return choices[0] if type(None) in get_args(hint) and len(choices) == 1 else hint


def _rescale_drops(recipe: Recipe, num_steps: int) -> Recipe:
    """The recipe over another number of steps; other schedules count in shares of the whole."""
    if num_steps == recipe.num_steps or not isinstance(recipe.schedule, Drops):
        return recipe
    at_steps = tuple(max(1, round(at * num_steps / recipe.num_steps)) for at in recipe.schedule.at_steps)
    return replace(recipe, schedule=replace(recipe.schedule, at_steps=at_steps))


def _replace_value(
    recipe: Recipe,
    before: T,
    kinds: Mapping[str, type[T]],
    name: str | None,
    given: Mapping[str, Any],
) -> T:
    """An optimizer or schedule of the named kind: given fields, and the others from the value before."""
    kind = kinds[name] if name else type(before)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # all kinds are dataclasses
    mine = {key: value for key, value in given.items() if any(key in _described_fields(k) for k in kinds.values())}
    for key in mine:
        if key not in known:
            raise RecipeError(
                f"{recipe.name}: {key} does not belong to {kind.__name__.lower()}, which has {_join(known)}"
            )
    kept = {key: value for key, value in vars(before).items() if key in known}
    if not isinstance(before, kind):  # each optimizer has its own
        kept.pop("betas", None)
    values = {**kept, **mine}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name not in values and field.default is MISSING:
            raise RecipeError(f"{recipe.name}: {kind.__name__.lower()} needs {field.name}=")
    return kind(**values)


def _check_gammas(recipe: Recipe, schedule: Schedule) -> None:
    gammas = schedule.gamma if isinstance(schedule, Drops) else ()
    if isinstance(schedule, Drops) and isinstance(gammas, tuple) and len(gammas) != len(schedule.at_steps):
        raise RecipeError(
            f"{recipe.name}: {len(gammas)} values of gamma for {len(schedule.at_steps)} at_steps; "
            f"give one for all, or one each"
        )


def _name_of(value: Optimizer | Schedule) -> str:
    return type(value).__name__.lower()


def _join(names: Iterable[str]) -> str:
    return ", ".join(name for name in names if name != "slower") or "none"
