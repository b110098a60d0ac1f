"""Checks of the arguments of public functions: types, which annotations give, and ranges of numbers."""

import inspect
import math
import operator
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pellucid.errors import ArgumentError
from pellucid.system.keywords import describe_number, shorten

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def checks_types(*, except_for: Collection[str] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function raise ArgumentError for arguments that do not fit its annotations, before anything runs.

    Without it, many wrong arguments would work by accident, e.g. the text "no" as True, or fail after hours.
    except_for: parameters that the function checks itself, with a better hint.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters.values()
        by_position = [
            one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        ]
        checked_names = {
            one.name
            for one in parameters
            if one.annotation is not one.empty
            and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
            and one.name not in except_for
        }

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            # Not `Signature.bind`, which takes longer than the rest. The function itself raises an error if there
            # are too many or too few arguments, and may have keywords with the names of positional ones.
            given = {**kwargs, **dict(zip(by_position, args, strict=False))}
            _check({name: value for name, value in given.items() if name in checked_names}, function)
            return function(*args, **kwargs)

        return checked

    return decorate


def checks_methods(*, except_for: Collection[str] = ()) -> Callable[[type[T]], type[T]]:
    """The same for all public methods of a class."""

    def decorate(owner: type[T]) -> type[T]:
        for name, member in list(vars(owner).items()):
            if name.startswith("_"):
                continue
            if isinstance(member, classmethod):
                setattr(owner, name, classmethod(checks_types(except_for=except_for)(member.__func__)))
            elif inspect.isfunction(member):
                setattr(owner, name, checks_types(except_for=except_for)(member))
        return owner

    return decorate


def check_fields(value: object, *, except_for: Collection[str] = ()) -> None:
    """Raise ArgumentError for a field of a dataclass that does not fit its annotation."""
    assert is_dataclass(value)
    names = [field.name for field in fields(value) if field.name not in except_for]
    _check({name: getattr(value, name) for name in names}, type(value))


def check_number(
    parameter: str,
    value: object,
    low: float,
    high: float = math.inf,
    *,
    is_whole: bool = True,
    is_above: bool = False,
) -> None:
    """Raise ArgumentError unless an argument is a number in this range; is_above: `low` is not in it."""
    try:
        number: float = operator.index(value) if is_whole else float(value)  # type: ignore[arg-type]  # they check the type
        is_possible = low <= number <= high and not (is_above and number == low)
        is_possible &= not isinstance(value, str | bytes | bool)
    except (TypeError, ValueError, OverflowError):
        is_possible = False
    if not is_possible:
        raise range_error(parameter, value, low, high, is_whole=is_whole, is_above=is_above)


def range_error(
    parameter: str, value: object, low: float | None, high: float | None, *, is_whole: bool, is_above: bool = False
) -> ArgumentError:
    """The error for a value that is not a number in this range; None is no limit."""
    highest = None if high == math.inf else high
    lowest, above = (None, low) if is_above else (low, None)
    expected = describe_number(is_whole=is_whole, low=lowest, above=above, high=highest)
    return ArgumentError(f"{shorten(value)} is not possible", hint=f"{{{parameter}}} can be {expected}")


# Types

MAX_SHOWN = 80
"""Characters of a wrong value in a message."""

_LISTS = (list, tuple, Sequence, Collection, Iterable)
_NAMES = {
    str: "text",
    bytes: "bytes",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    Path: "a path",
    Callable: "a function",
    Mapping: "a dictionary",
}
_FOREIGN_NAMES = {"ndarray": "an array", "Tensor": "a tensor", "Image": "an image of Pillow", "Url": "a URL"}
_MODELS = {"name_or_file", "model", "restorer"}
"""Parameters for which a text is the name of a model, too."""

_MAKERS = {
    "a pellucid.Recipe": "pellucid.find",
    "a pellucid.Restorer": "pellucid.load",
    "a pellucid.Shard": "pellucid.Shard.parse",
    "a pellucid.Picture or a pellucid.Mosaic": "pellucid.read",
}

_annotations = cache(get_type_hints)


class _Misfit(NamedTuple):
    """A value that does not fit its annotation. place: where it is, e.g. mix or inputs[2]."""

    place: str
    value: object
    annotation: Any


def _check(values: Mapping[str, object], owner: Callable[..., object]) -> None:
    if not values:
        return
    annotations = _annotations(owner)
    for name, value in values.items():
        misfit = _find_misfit(name, value, annotations.get(name, Any))
        if misfit is not None:
            needed = describe_type(misfit.annotation)
            if misfit.place in _MODELS and str in _list_choices(misfit.annotation):
                needed = needed.replace("a path", "the name of a model or a path")
            maker = _MAKERS.get(needed)
            raise ArgumentError(
                f"{misfit.place} is {_describe(misfit.value)}; {needed} is needed",
                hint="" if maker is None else f"{maker} returns one",
            )


def _describe(value: object) -> str:
    is_short = value is None or isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 2**64)
    return repr(value)[:MAX_SHOWN] if is_short else f"of type {type(value).__name__}"


def _find_misfit(place: str, value: object, annotation: Any) -> _Misfit | None:
    """The value, or the first of its entries that does not fit."""
    if _is_plain(value, annotation):
        return None
    possible = _list_choices(annotation)
    if isinstance(value, os.PathLike) and {str, Path} <= {*possible}:
        return None
    choices = [choice for choice in possible if _is_instance(value, choice)]
    is_empty = isinstance(value, str) and not value and Path in possible  # it would be the current folder
    if not choices or (is_empty and place not in _MODELS):
        return _Misfit(place, value, annotation)
    in_entries = [_find_in_entries(place, value, choice) for choice in choices]
    return None if None in in_entries else in_entries[0]


def _find_in_entries(place: str, value: object, choice: Any) -> _Misfit | None:
    """The first entry of a list that does not fit. Iterators are not consumed, and arrays have no entries here."""
    arguments = get_args(choice)
    if isinstance(value, Mapping) and len(arguments) == 2:
        key_type, entry_type = arguments
        misfits = (
            _find_misfit(f"a key of {place}", key, key_type)
            or _find_misfit(f"{place}[{key!r}]", entry, entry_type)
            for key, entry in value.items()
            if not (_is_plain(key, key_type) and _is_plain(entry, entry_type))
        )
    elif isinstance(value, list | tuple) and arguments:
        is_fixed = len(arguments) == len(value) and ... not in arguments
        entry_types = arguments if is_fixed else [arguments[0]] * len(value)
        misfits = (
            _find_misfit(f"{place}[{number}]", entry, entry_type)
            for number, (entry, entry_type) in enumerate(zip(value, entry_types, strict=True))
            if not _is_plain(entry, entry_type)
        )
    else:
        return None
    return next((misfit for misfit in misfits if misfit is not None), None)


def _is_plain(value: object, annotation: Any) -> bool:
    """Whether a value fits because of its type alone: a fast answer in most cases."""
    kind = type(value)
    return annotation is Any or (kind in _plain_types(annotation) and not (kind is str and not value))


@cache
def _list_choices(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the only one."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return tuple(choice for part in get_args(annotation) for choice in _list_choices(part))
    return (annotation,)


@cache
def _plain_types(annotation: Any) -> frozenset[type]:
    """Types whose values fit whatever they contain."""
    classes = {choice for choice in _list_choices(annotation) if isinstance(choice, type) and not get_args(choice)}
    return frozenset(classes | ({int} if float in classes else set()))


def _is_instance(value: object, choice: Any) -> bool:
    """Whether a value has this type, whatever its entries are. Lists count as tuples, whole numbers as numbers."""
    origin = get_origin(choice) or choice
    if origin is Literal:
        return any(isinstance(value, type(one)) and value == one for one in get_args(choice))
    if origin is Callable:
        return callable(value)
    if origin is bool:
        return type(value).__name__ in ("bool", "bool_")  # also NumPy's
    is_array = type(value).__name__ == "ndarray"  # of NumPy, which takes long to import
    if origin is float and is_array:
        return getattr(value, "ndim", None) == 0
    if origin in (int, float):
        return isinstance(value, Integral if origin is int else Real) and not isinstance(value, bool)
    if origin in _LISTS:
        expected = (list, tuple) if origin is tuple else origin
        return (is_array or isinstance(value, expected)) and not isinstance(value, str | bytes | bytearray)
    if origin is Any or not isinstance(origin, type) or getattr(origin, "_is_protocol", False):  # or variables
        return True
    return isinstance(value, origin)


def describe_type(annotation: Any, *, is_plural: bool = False) -> str:
    """What an annotation accepts, in words, e.g. "a path or a URL"; names of models are paths here."""
    choices = [choice for choice in _list_choices(annotation) if choice is not NoneType]
    names = list(dict.fromkeys(_name(choice) for choice in choices if not (choice is str and Path in choices)))
    if str not in choices:
        names = ["a pathlib.Path" if name == "a path" else name for name in names]
    if is_plural:
        names = [_to_plural(name) for name in names]
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _to_plural(name: str) -> str:
    if name.startswith("a list"):
        return name.replace("a list", "lists", 1)
    return re.sub("^an? ", "", name) + "s"


def _name(choice: Any) -> str:
    origin, arguments = get_origin(choice) or choice, get_args(choice)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in _LISTS:
        count = f"{len(arguments)} " if origin is tuple and ... not in arguments else ""
        return f"a list of {count}{describe_type(arguments[0], is_plural=True)}" if arguments else "a list"
    package = origin.__module__.partition(".")[0]
    name = origin.__name__ if package == "builtins" else f"{package}.{origin.__name__}"
    return _NAMES.get(origin) or _FOREIGN_NAMES.get(origin.__name__, f"a {name}")
