"""What was changed in a recipe with `dataclasses.replace`: its name and its keywords do not say so."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import partial
from hashlib import sha256
from types import MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import RecipeError, suggest
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import find, list_names

_MAX_LENGTH = 200
_MAX_DEPTH = 8
_MAX_PARTS = 2_000
"""Of one description; further ones are only described by their types."""


def describe_changes(recipe: Recipe) -> dict[str, str]:
    """The fields that differ from the recipe that `find` returns for its name and parameters: field -> value.

    The values are the same in all processes, see `describe_part`. Fields that differ each time `find` is called,
    e.g. because a recipe contains random numbers, are not compared. Raises RecipeError if `find` does.
    """
    if recipe.name not in list_names():
        hint = f"{suggest(recipe.name, list_names())}; `pellucid.add_network` adds those of a file"
        raise RecipeError(f"a recipe with the name {recipe.name[:80]!r} cannot be found again", hint=hint)
    found, again = (find(recipe.name, **recipe.parameters) for _ in range(2))
    names = [field.name for field in fields(Recipe) if field.name not in ("name", "parameters", "network_sha256")]
    return {
        name: describe_part(getattr(recipe, name))
        for name in names
        if not _are_equal(getattr(recipe, name), getattr(found, name))
        and _are_equal(getattr(again, name), getattr(found, name))
    }


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
    """A part of a recipe in one line, similar to its repr, but without addresses of objects.

    Objects are described by their classes and attributes, functions by their names, their default values and the
    variables that they use from outside. Names include those of modules, except for pellucid's own.
    """
    text = _Description().describe(value, _MAX_DEPTH)
    if len(text) <= _MAX_LENGTH:
        return text
    return f"{text[: _MAX_LENGTH - 40]}... (SHA-256 {sha256(text.encode()).hexdigest()[:16]})"


def _are_equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    with suppress(Exception):  # arrays in a comparison, or whatever the user's code raises
        if one == other:
            return True
    return describe_part(one) == describe_part(other)


class _Description:
    """The description of one value. It stops at a depth, and after a number of parts."""

    def __init__(self) -> None:
        self._num_parts = 0

    def describe(self, value: Any, depth: int) -> str:
        self._num_parts += 1
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return repr(value)
        if isinstance(value, ModuleType):
            return f"module {value.__name__}"
        if depth == 0 or self._num_parts > _MAX_PARTS:
            return _name(value if _has_name(value) else type(value))
        if isinstance(value, Tensor):
            return _describe_tensor(value)
        if isinstance(value, np.ndarray):
            return self._describe_array(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            items = [self.describe(item, depth - 1) for item in value]
            return f"({', '.join(sorted(items) if isinstance(value, set | frozenset) else items)})"
        if isinstance(value, Mapping):
            return f"{{{self._describe_items(value, depth)}}}"
        if isinstance(value, partial):
            items = [self.describe(item, depth - 1) for item in value.args]
            items += [self._describe_items(value.keywords, depth)] if value.keywords else []
            return f"{self.describe(value.func, depth - 1)}({', '.join(items)})"
        if isinstance(value, MethodType):
            return f"{self.describe(value.__self__, depth - 1)}.{value.__name__}"
        if _has_name(value):
            used = [*_list_cells(value), *_list_defaults(value)]
            return f"{_name(value)}{self.describe(used, depth - 1)}" if used else _name(value)
        attributes = dict(_list_attributes(value))
        if (_is_standard(type(value)) or not attributes) and " at 0x" not in (text := repr(value)):
            return text
        return f"{_name(type(value))}({self._describe_items(attributes, depth)})"

    def _describe_items(self, items: Mapping[Any, Any], depth: int) -> str:
        described = ((key if isinstance(key, str) else self.describe(key, depth - 1), items[key]) for key in items)
        return ", ".join(f"{key}={self.describe(value, depth - 1)}" for key, value in described)

    def _describe_array(self, array: np.ndarray[Any, Any], depth: int) -> str:
        if array.dtype.hasobject:
            return self.describe(array.tolist(), depth)
        return _describe_bytes(f"{array.dtype}{list(array.shape)}", np.ascontiguousarray(array).tobytes())


def _describe_tensor(tensor: Tensor) -> str:
    name = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
    with suppress(Exception):  # no samples (meta), sparse, quantized, ...
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # NumPy has no bfloat16
        return _describe_bytes(name, flat.numpy().tobytes())
    return name


def _describe_bytes(name: str, content: bytes) -> str:
    return f"{name} (SHA-256 {sha256(content).hexdigest()[:16]})"


def _has_name(value: Any) -> bool:
    """Whether a value is a class or a function."""
    return isinstance(getattr(type(value), "__qualname__", None), str) and isinstance(
        getattr(value, "__qualname__", None), str
    )


def _name(value: Any) -> str:
    """The name of a class or function."""
    module = getattr(value, "__module__", None) or ""
    is_ours = module.partition(".")[0] in ("pellucid", "builtins")
    return value.__qualname__ if is_ours or not module else f"{module}.{value.__qualname__}"


def _is_standard(kind: type) -> bool:
    """Whether a class is of Python's library: its repr is complete; attributes may be set late, as in paths."""
    return kind.__module__.partition(".")[0] in sys.stdlib_module_names


def _list_cells(function: Any) -> Iterator[Any]:
    """The values of variables outside of a function that it uses, without global ones."""
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # not set yet
            yield cell.cell_contents


def _list_defaults(function: Any) -> Iterator[Any]:
    yield from getattr(function, "__defaults__", None) or ()
    yield from (getattr(function, "__kwdefaults__", None) or {}).values()


def _list_attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass, or all attributes of another object, e.g. of a plain subclass of a dataclass."""
    if "__dataclass_fields__" in vars(type(value)):
        names = [field.name for field in fields(value)]
    else:
        slots = (getattr(kind, "__slots__", ()) for kind in type(value).__mro__)
        named = [name for each in slots for name in ([each] if isinstance(each, str) else each)]
        names = [*named, *getattr(value, "__dict__", {})]
    for name in names:
        with suppress(Exception):  # not set, or a property of a foreign class that fails
            yield name, getattr(value, name)
