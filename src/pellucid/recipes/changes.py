"""What was changed in a recipe with `dataclasses.replace`: its name and its keywords do not say so."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
from torch import Tensor

from pellucid.errors import RecipeError
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import find

_MAX_DEPTH = 8
_MAX_LENGTH = 200


def describe_changes(recipe: Recipe) -> dict[str, str]:
    """The fields that differ from the recipe that `find` returns for its name and parameters: field -> value.

    The values are the same in all processes, without addresses of objects. Two functions differ by their names,
    and two objects by the names of their classes and by their attributes. Raises RecipeError if `find` does.
    """
    found = find(recipe.name, **recipe.parameters)
    pairs = {
        name: (describe_part(getattr(recipe, name)), describe_part(getattr(found, name)))
        for name in (field.name for field in fields(Recipe))
        if name not in ("name", "parameters")
    }
    return {name: value for name, (value, original) in pairs.items() if value != original}


def check_usable(recipe: Recipe, changes: Mapping[str, str]) -> None:
    """Raise RecipeError if weights would not be used as they were trained.

    A weight file contains the name and keywords of its recipe, from which the network and its inputs are built.
    """
    wrong = [name for name in ("network", "domain") if name in changes]
    if wrong:
        raise RecipeError(
            f"{recipe.name} has another {' and '.join(wrong)}, which its weights would not be used with later",
            hint="write a recipe in a network file, for `pellucid.add_network`",
        )


def describe_part(value: Any) -> str:
    """A part of a recipe in one line, similar to its repr."""
    text = _describe(value, _MAX_DEPTH)
    if len(text) <= _MAX_LENGTH:
        return text
    return f"{text[: _MAX_LENGTH - 40]}... (SHA-256 {sha256(text.encode()).hexdigest()[:16]})"


def _describe(value: Any, depth: int) -> str:
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value)
    if isinstance(value, Tensor | np.ndarray):
        return _describe_array(np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value))
    name = getattr(value, "__qualname__", None)  # of functions, methods and classes
    if depth == 0:
        return name or type(value).__qualname__
    if isinstance(value, list | tuple | set | frozenset):
        items = [_describe(item, depth - 1) for item in value]
        return f"({', '.join(sorted(items) if isinstance(value, set | frozenset) else items)})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(_describe_items(value, depth))}}}"
    if isinstance(value, partial):
        arguments = [*(_describe(item, depth - 1) for item in value.args), *_describe_items(value.keywords, depth)]
        return f"{_describe(value.func, depth - 1)}({', '.join(arguments)})"
    if name is not None:
        cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
        return f"{name}{_describe(cells, depth - 1)}" if cells else name
    attributes = (
        {field.name: getattr(value, field.name) for field in fields(value)}
        if is_dataclass(value)
        else getattr(value, "__dict__", {})
    )
    return f"{type(value).__qualname__}({', '.join(_describe_items(attributes, depth))})"


def _describe_items(items: Mapping[Any, Any], depth: int) -> list[str]:
    return [f"{key}={_describe(value, depth - 1)}" for key, value in items.items()]


def _describe_array(array: np.ndarray[Any, Any]) -> str:
    digest = sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    return f"{array.dtype}{list(array.shape)} (SHA-256 {digest})"
