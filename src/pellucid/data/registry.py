"""Data sets by name. The file system is the registry: a function in `pellucid.data.datasets` is a data set."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pellucid.data.dataset import DatasetFunction, DatasetPlan, is_dataset
from pellucid.errors import ArgumentError, DataError, suggest
from pellucid.system.keywords import Keyword, describe, validate


def plan(kind: str, paths: Sequence[Path], keywords: Mapping[str, Any]) -> DatasetPlan:
    """Look into the sources and plan the work; nothing is decoded yet.

    Raises ArgumentError if there is no such kind or keyword, or if the sources do not contain the data set.
    """
    valid = validate_keywords(kind, keywords)
    if not paths:
        raise DataError(f"{kind} needs a source", hint="give a folder or an archive")
    return _find(kind)(paths, **valid)


def list_kinds() -> list[str]:
    """The kinds of all data sets."""
    return list(_functions())


def summarize(kind: str) -> str:
    """The first line of a data set's docstring. Raises DataError if there is no such kind."""
    return (inspect.getdoc(_find(kind)) or "").partition("\n")[0]


def own_keywords(kind: str) -> dict[str, Keyword]:
    """The keywords of a data set. Raises DataError if there is no such kind."""
    return {key: describe(parameter.annotation, parameter.default) for key, parameter in _parameters(kind).items()}


def validate_keywords(kind: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The values of these keywords as the data set takes them; text is parsed, as from a command line.

    Raises ArgumentError if there is no such kind or keyword, or if a value is not possible.
    """
    known = _parameters(kind)
    for key in keywords:
        if key not in known:
            facts = f"{kind} has no keyword {key[:80]!r} ({suggest(key, known)})"
            raise ArgumentError(facts, hint=_list_keywords(kind))
    return {
        key: validate(kind, key, known[key].annotation, value, error=ArgumentError)
        for key, value in keywords.items()
    }


def _list_keywords(kind: str) -> str:
    """All keywords with their meanings; empty if there are none."""
    keywords = own_keywords(kind).items()
    return "; ".join(f"{key}: {keyword.meaning} ({keyword.values})" for key, keyword in keywords)


def _parameters(kind: str) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(_find(kind), eval_str=True).parameters
    return {key: parameter for key, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}


def _find(kind: str) -> DatasetFunction:
    known = _functions()
    if kind not in known:
        raise ArgumentError(f"no data set {kind[:80]!r}; {suggest(kind, known)}")
    return known[kind]


def _functions() -> dict[str, DatasetFunction]:
    package = importlib.import_module("pellucid.data.datasets")
    found = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")):
        for value in vars(importlib.import_module(name)).values():
            if is_dataset(value, name):
                found[value.__name__.replace("_", "-")] = value
    return found
