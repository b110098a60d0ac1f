"""Translate the tensors of a foreign weight file to the names and layouts of our networks.

How a file stores its network (biases, batch norm, order of output channels) follows from its names and is
returned as recipe keywords. What users choose (depth, channels, scale) does not: a file of another size fails
when its tensors are loaded into the network.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from pellucid.errors import WeightsError
from pellucid.recipes.network import Network
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import list_names, own_keywords
from pellucid.weights.foreign.reading import ForeignWeights


def translate(foreign: ForeignWeights, recipe: Recipe) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Recipe keywords that the file's way of storing needs, and its tensors under our names.

    The file `NETWORK.py` in this folder translates weights of the recipes `NETWORK.*`, by its function
    `translate_tensors(foreign)`, which returns the same. Tensors of unknown names keep them. Raises WeightsError
    if no name is known, or if the recipe does not have a keyword that the file needs.
    """
    family = recipe.name.partition(".")[0]
    module = f"{__name__.rpartition('.')[0]}.{family}"
    if find_spec(module) is None:
        raise WeightsError(f"no foreign weights are known for {family}")
    keywords, tensors = importlib.import_module(module).translate_tensors(foreign)
    _check_keywords(foreign, keywords, recipe)
    return {key: value for key, value in keywords.items() if key in recipe.parameters}, tensors


def _check_keywords(foreign: ForeignWeights, keywords: Mapping[str, Any], recipe: Recipe) -> None:
    """A recipe without a keyword must build its network the way that the file needs."""
    built_with = _constructor_arguments(recipe.network)
    for key, value in keywords.items():
        if key not in recipe.parameters and value != built_with.get(key):
            family = recipe.name.partition(".")[0]
            able = [name for name in list_names() if name.startswith(f"{family}.") and key in own_keywords(name)]
            raise WeightsError(
                f"{foreign.path} needs {key}={value}, which {recipe.name} does not have; "
                f"{' and '.join(able)} {'has' if len(able) == 1 else 'have'} it"
            )


def _constructor_arguments(build: Callable[[], Network]) -> Mapping[str, Any]:
    """All arguments that a recipe builds its network with, including defaults."""
    constructor, args, keywords = build, (), {}
    if isinstance(build, partial):
        constructor, args, keywords = build.func, build.args, build.keywords
    bound = inspect.signature(constructor).bind(*args, **keywords)
    bound.apply_defaults()
    return bound.arguments
