"""Recipes by name. The file system is the registry: recipes in `pellucid.networks` have names.

So have those in network files that the user has added, see `network_files`.
"""

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any, cast

from pellucid.errors import RecipeError, suggest
from pellucid.recipes.network_files import PACKAGE, added_networks, packaged_networks
from pellucid.recipes.overrides import override, rename_keywords, training_keywords, training_values
from pellucid.recipes.recipe import Recipe, is_recipe, recipe_signature
from pellucid.system.arguments import checks_types
from pellucid.system.keywords import Keyword, describe


@checks_types()
def find(name: str, /, **parameters: Any) -> Recipe:
    """The recipe of this name, with some keywords changed.

        recipe = pellucid.find("dncnn.gaussian", sigma_255=15, num_steps=20_000)
        pellucid.train(recipe, "photos", "runs/dncnn-15")

    name: NETWORK.RECIPE, e.g. "dncnn.gaussian"; `pellucid recipes` lists all of them.
    parameters: the recipe's own keywords, e.g. sigma_255=15, and training keywords that every recipe has, e.g.
        lr=1e-4 or num_steps=1000; `pellucid recipes NAME` describes both. Values may be text, e.g. "0.9,0.99".
        None keeps the value of a training keyword. With another num_steps, the steps at which the learning rate
        drops are rescaled. Names of keywords in earlier versions are accepted.

    The `name` and `parameters` of the result find it again. Raises RecipeError for an unknown name or keyword
    (with the nearest known ones) and for a value that is not possible.
    """
    function = _find_function(name)
    own = recipe_signature(function).parameters
    parameters = rename_keywords(parameters)
    for key in parameters:
        if key not in own and key not in training_keywords():
            hint = suggest(key, [*own, *training_keywords()])
            if hint.startswith("known:"):
                hint = f"known: {', '.join(own)}, and those of the training: `pellucid recipes {name}`"
            raise RecipeError(f"{name} has no keyword {key[:80]!r}; {hint}")
    found = function(**{key: value for key, value in parameters.items() if key in own})
    recipe = override(found, **{key: value for key, value in parameters.items() if key not in own})
    added = added_networks().get(name.partition(".")[0])
    return recipe if added is None else replace(recipe, network_sha256=added.sha256)


def list_names() -> list[str]:
    """The names of all recipes, in the order of networks."""
    return [f"{module}.{name}" for module in _modules() for name in _recipes_in(module)]


def summarize(name: str) -> str:
    """The first line of a recipe's docstring. Raises RecipeError if there is no recipe of this name."""
    return (inspect.getdoc(_find_function(name)) or "").partition("\n")[0]


def own_keywords(name: str) -> dict[str, Keyword]:
    """A recipe's keywords without the training keywords. Raises RecipeError if there is no recipe of this name."""
    return {
        key: describe(parameter.annotation, parameter.default)
        for key, parameter in recipe_signature(_find_function(name)).parameters.items()
    }


def describe_training(recipe: Recipe) -> dict[str, Keyword]:
    """The training keywords with this recipe's values; None if its optimizer or schedule does not have one."""
    values = training_values(recipe)
    return {key: describe(annotation, values[key]) for key, annotation in training_keywords().items()}


def _modules() -> list[str]:
    return sorted({*packaged_networks(), *added_networks()})


def _recipes_in(module: str) -> list[str]:
    loaded = _load(module)
    return [name for name, value in vars(loaded).items() if name == _name_in(value, loaded.__name__)]


def _load(module: str) -> ModuleType:
    added = added_networks().get(module)
    return importlib.import_module(f"{PACKAGE}.{module}") if added is None else added.module


def _name_in(value: object, module: str) -> str | None:
    return value.__name__ if inspect.isfunction(value) and is_recipe(value, module) else None


def _find_function(name: str) -> Callable[..., Recipe]:
    # Names are also read from files, so they resolve to recipes of the package, and of network files that the user
    # has added, and to nothing else.
    module, _, function = name.partition(".")
    if re.fullmatch(r"[a-z_0-9]+\.[a-z_0-9]+", name) and module in _modules() and function in _recipes_in(module):
        return cast(Callable[..., Recipe], getattr(_load(module), function))
    raise RecipeError(f"no recipe {name[:80]!r}; {suggest(name, list_names())}")
