"""Training keywords: the same recipe, trained differently (`lr`, `batch_size`, `num_steps`, ...).

They are `optimizer`, `schedule`, and the fields with a description of `Recipe`, of the optimizers and of the
schedules: a new field there is a new keyword.
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
from pellucid.system.wording import format_count

T = TypeVar("T")

OPTIMIZERS: Mapping[str, type[Optimizer]] = {kind.__name__.lower(): kind for kind in get_args(Optimizer)}
SCHEDULES: Mapping[str, type[Schedule]] = {kind.__name__.lower(): kind for kind in get_args(Schedule)}

FORMER_NAMES = {"basis_steps": "precondition_frequency"}
"""Keywords that earlier versions called otherwise: former name -> current name."""


def rename_keywords(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The same keywords under their current names."""
    return {FORMER_NAMES.get(key, key): value for key, value in keywords.items()}


def former_keywords(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The same keywords under the names of the first version, for hashes that its files contain."""
    former = {current: name for name, current in FORMER_NAMES.items()}
    return {former.get(key, key): value for key, value in keywords.items()}


@cache
def training_keywords() -> Mapping[str, Any]:
    """All training keywords: name -> type, with limits and a description."""
    optimizer = Literal[tuple(OPTIMIZERS)]  # type: ignore[valid-type]  # the names of the classes above
    schedule = Literal[tuple(SCHEDULES)]  # type: ignore[valid-type]
    return {
        **_described_fields()[Recipe],
        "optimizer": Annotated[optimizer, Field(description="optimizer of the weights")],
        **_merge_fields(OPTIMIZERS.values()),
        "schedule": Annotated[schedule, Field(description="learning rate schedule")],
        **_merge_fields(SCHEDULES.values()),
    }


def training_values(recipe: Recipe) -> dict[str, Any]:
    """The recipe's value of each training keyword; None if its optimizer or schedule does not have it."""
    current = {
        **vars(recipe.schedule),
        **vars(recipe.optimizer),
        **vars(recipe),
        "optimizer": _name_of(type(recipe.optimizer)),
        "schedule": _name_of(type(recipe.schedule)),
    }
    return {key: current.get(key) for key in training_keywords()}


def override(recipe: Recipe, **keywords: Any) -> Recipe:
    """The same recipe with other values of training keywords; its `parameters` contain them too.

    A value of None keeps the recipe's own; text is parsed. With another `num_steps`, the steps at which the
    learning rate drops are rescaled. Raises RecipeError for an unknown keyword, a value that is out of range, or
    a keyword that the optimizer or the schedule does not have.
    """
    given = _validate(recipe, keywords)
    rescaled = _rescale_drops(recipe, given.get("num_steps", recipe.num_steps))
    optimizer = _change(rescaled.optimizer, OPTIMIZERS, given.get("optimizer"), given, recipe.name)
    schedule = _change(rescaled.schedule, SCHEDULES, given.get("schedule"), given, recipe.name)
    _check_gammas(recipe, schedule)
    return replace(
        rescaled,
        **_select(given, [Recipe]),
        optimizer=optimizer,
        schedule=schedule,
        parameters={**recipe.parameters, **given},
    )


def _validate(recipe: Recipe, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that are not None, as their types require."""
    types = training_keywords()
    for key in keywords:
        if key not in types:
            raise RecipeError(f"{recipe.name} has no keyword {key[:80]!r}; {suggest(key, types)}")
    values = {
        key: validate(recipe.name, key, types[key] | None, value, error=RecipeError)
        for key, value in keywords.items()
    }
    return {key: value for key, value in values.items() if value is not None}


@cache
def _described_fields() -> Mapping[type, Mapping[str, Any]]:
    """Class -> name -> type of its fields with a description; X for a type of X | None."""
    return {
        kind: {
            key: _without_none(hint)
            for key, hint in get_type_hints(kind, include_extras=True).items()
            if _has_description(hint)
        }
        for kind in (Recipe, *OPTIMIZERS.values(), *SCHEDULES.values())
    }


def _merge_fields(kinds: Iterable[type]) -> dict[str, Any]:
    return {key: hint for kind in kinds for key, hint in _described_fields()[kind].items()}


def _has_description(hint: Any) -> bool:
    return any(
        getattr(extra, "description", None)
        for choice in (hint, *get_args(hint))
        for extra in getattr(choice, "__metadata__", ())
    )


def _without_none(hint: Any) -> Any:
    choices = [choice for choice in get_args(hint) if choice is not type(None)]
    return choices[0] if type(None) in get_args(hint) and len(choices) == 1 else hint


def _select(given: Mapping[str, Any], kinds: Iterable[type]) -> dict[str, Any]:
    """The given keywords that any of these classes has."""
    known = _merge_fields(kinds)
    return {key: value for key, value in given.items() if key in known}


def _rescale_drops(recipe: Recipe, num_steps: int) -> Recipe:
    """The recipe with its drops at the same shares of the training; other schedules need no rescaling."""
    if num_steps == recipe.num_steps or not isinstance(recipe.schedule, Drops):
        return recipe
    at_steps = tuple(max(1, round(at * num_steps / recipe.num_steps)) for at in recipe.schedule.at_steps)
    return replace(recipe, schedule=replace(recipe.schedule, at_steps=at_steps))


def _change(before: T, kinds: Mapping[str, type[T]], name: str | None, given: Mapping[str, Any], of: str) -> T:
    """An optimizer or schedule with the given fields; the others are those of `before`.

    kinds: all optimizers, or all schedules. name: of the new kind; None keeps that of `before`.
    of: the name of the recipe, for messages.
    """
    kind = kinds[name] if name else type(before)
    changes, own = _select(given, kinds.values()), _described_fields()[kind]
    for key in changes:
        if key not in own:
            raise RecipeError(f"{of}: {key} does not belong to {_name_of(kind)}, which has {', '.join(own)}")
    values = {**_common_values(before, kind), **changes}
    for field in fields(kind):  # type: ignore[arg-type]  # all kinds are dataclasses
        if field.name not in values and field.default is MISSING:
            raise RecipeError(f"{of}: {_name_of(kind)} needs {field.name}=")
    return kind(**values)


def _common_values(before: Any, kind: type) -> dict[str, Any]:
    """The values of the fields that another kind has too; betas are different quantities in Adam and SOAP."""
    keys = {field.name for field in fields(kind)}
    if not isinstance(before, kind):
        keys -= {"betas"}
    return {key: value for key, value in vars(before).items() if key in keys}


def check_training_values(recipe: Recipe) -> None:
    """Raise RecipeError if a training keyword has an impossible value, e.g. by `dataclasses.replace`."""
    _validate(recipe, training_values(recipe))


def check_steps(recipe: Recipe) -> None:
    """Raise RecipeError if the given steps of the schedule cannot be reached in a training of this length.

    Only for a new training: weights that were trained with such steps can be used.
    """
    at_steps, warmup_steps = recipe.parameters.get("at_steps", ()), recipe.parameters.get("warmup_steps", 0)
    if list(at_steps) != sorted(set(at_steps)):
        raise RecipeError(f"{recipe.name}: at_steps={_join(at_steps)} is not possible; expected steps that ascend")
    for key, step in (("at_steps", max(at_steps, default=0)), ("warmup_steps", warmup_steps)):
        if step >= recipe.num_steps:
            given = _join(recipe.parameters[key])
            raise RecipeError(
                f"{recipe.name}: {key}={given} is not possible with num_steps={recipe.num_steps}; expected less"
            )


def check_patches(recipe: Recipe) -> None:
    """Raise RecipeError if the loss of the recipe cannot learn from patches of this size."""
    patch_px = recipe.patch_px
    if recipe.batch_size * patch_px == 1:
        raise RecipeError("a batch of one pixel; a larger patch_px or batch_size is needed")
    if patch_px % recipe.patch_multiple:
        raise RecipeError(f"patch_px={patch_px}: {recipe.name} needs a multiple of {recipe.patch_multiple}")
    if patch_px < recipe.min_patch_px:
        raise RecipeError(
            f"patch_px={patch_px}: {recipe.name} needs {recipe.min_patch_px} or more, because its loss "
            "leaves out the border that padding affects"
        )


def _join(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _check_gammas(recipe: Recipe, schedule: Schedule) -> None:
    if not isinstance(schedule, Drops) or not isinstance(schedule.gamma, tuple):
        return
    if len(schedule.gamma) != len(schedule.at_steps):
        raise RecipeError(
            f"{recipe.name}: {format_count(len(schedule.gamma), 'value')} of gamma for {len(schedule.at_steps)} "
            f"at_steps",
            hint="give one for all, or one for each",
        )


def _name_of(kind: type) -> str:
    return kind.__name__.lower()
