"""Translate the tensors of a foreign weight file to the names and layouts of our networks.

What the tensors of a file show (depth, width, channels, biases, batch norm) is returned as recipe keywords, and so
is what is known of the code that wrote it (padding, order of output channels), unless the user says otherwise.
"""

import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import WeightsError
from pellucid.recipes.network import Network
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import find, list_names, own_keywords
from pellucid.weights.foreign.reading import ForeignWeights

_CONVENTIONS = ("padding", "upsampling", "channel_order")
"""Keywords that tensors do not show. Names suggest them, because each code base has its own."""


def translate(
    foreign: ForeignWeights, recipe: Recipe, given: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Recipe keywords that the file needs, and its tensors under our names.

    given: keywords of the recipe that the user chose.
    The file `NETWORK.py` in this folder translates weights of the recipes `NETWORK.*`, by its function
    `translate_tensors(foreign)`, which returns the same. Tensors of unknown names keep them, as do all of a file
    with our own names, e.g. a state dict that torch saved. Raises WeightsError if no name is known, if the recipe
    does not have a keyword that the file needs, or if the tensors contradict a keyword that was given.
    """
    if _has_own_names(foreign.tensors, recipe):
        return {}, dict(foreign.tensors)
    family = recipe.name.partition(".")[0]
    module = f"{__name__.rpartition('.')[0]}.{family}"
    if find_spec(module) is None:
        raise WeightsError(f"no foreign weights are known for {family}")
    keywords, tensors = importlib.import_module(module).translate_tensors(foreign)
    keywords = {key: value for key, value in keywords.items() if not (key in _CONVENTIONS and key in given)}
    _check_given(foreign, keywords, recipe, given)
    _check_keywords(foreign, keywords, recipe)
    return {key: value for key, value in keywords.items() if key in recipe.parameters}, tensors


def _has_own_names(tensors: Mapping[str, Tensor], recipe: Recipe) -> bool:
    """Whether most tensors have names of the recipe's network."""
    with torch.device("meta"):
        own = recipe.network().state_dict().keys()
    return 2 * len(own & tensors.keys()) > len(tensors)


def _check_given(
    foreign: ForeignWeights, keywords: Mapping[str, Any], recipe: Recipe, given: Collection[str]
) -> None:
    for key in keywords.keys() & recipe.parameters.keys() & set(given):
        if keywords[key] != recipe.parameters[key]:
            raise WeightsError(
                f"{foreign.path} has {key}={keywords[key]}, not {recipe.parameters[key]}", hint=f"omit {key}"
            )


def _check_keywords(foreign: ForeignWeights, keywords: Mapping[str, Any], recipe: Recipe) -> None:
    """A recipe without a keyword must build its network the way that the file needs."""
    built_with = _constructor_arguments(recipe.network)
    for key, value in keywords.items():
        if key not in recipe.parameters and value != built_with.get(key):
            family = recipe.name.partition(".")[0]
            able = [name for name in list_names() if name.startswith(f"{family}.") and _can_have(name, key, value)]
            verb = "has" if len(able) == 1 else "have"
            more = f"; {' and '.join(able)} {verb} it" if able else ""
            raise WeightsError(f"{foreign.path} needs {key}={value}, which {recipe.name} does not have{more}")


def _can_have(name: str, key: str, value: Any) -> bool:
    """Whether a recipe has a keyword, or builds its network with this value of it."""
    return key in own_keywords(name) or _constructor_arguments(find(name).network).get(key) == value


def _constructor_arguments(build: Callable[[], Network]) -> Mapping[str, Any]:
    """All arguments that a recipe builds its network with, including defaults."""
    constructor, args, keywords = build, (), {}
    if isinstance(build, partial):
        constructor, args, keywords = build.func, build.args, build.keywords
    bound = inspect.signature(constructor).bind(*args, **keywords)
    bound.apply_defaults()
    return bound.arguments
