"""Errors that a user can cause and fix, in one tree.

    PellucidError
    ├── PictureError         a picture cannot be read, or is of the wrong kind
    ├── ArgumentError        an argument has a value that it cannot have
    ├── RecipeError          an unknown recipe or keyword, or a value out of range
    ├── WeightsError         not a weight file, a damaged one, or one of another network
    ├── DataError            a folder contains no pictures, or pairs that do not match
    ├── OutputError          a result cannot be written, or would replace a file
    ├── StorageError         an object or a bucket does not exist, or cannot be reached or used
    ├── ClusterError         a cluster cannot be reached, or its processes cannot be started
    ├── NotEnoughMemoryError more memory is needed than is available or allowed
    └── MissingExtraError    an optional package is not installed; the hint is the pip command

An error states facts (what was found, what was expected) and a hint (what to do). A hint names parameters in
braces, e.g. "{overwrite} replaces it": Python programs read `overwrite=True`, the command line `--overwrite`.
The command line prints the message in one line and exits with status 1; after ArgumentError and RecipeError 2.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import SequenceMatcher, get_close_matches
from typing import Any, Self

Wording = Callable[[str, Any], str | None]
"""(parameter, value) -> text, e.g. `overwrite=True`; a value of None means only the name of the parameter. Where
the parameter cannot be given, it returns None, and the hint is left out."""


def word_as_argument(parameter: str, value: Any) -> str:
    """A parameter as a Python program writes it: `overwrite=True`, or `out` if the value is None."""
    return parameter if value is None else f"{parameter}={value!r}"


_wordings: list[Wording] = [word_as_argument]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def current_wording() -> Wording:
    """How parameters are written now, see `use_wording`."""
    return _wordings[-1]


@contextmanager
def use_wording(word: Wording) -> Iterator[None]:
    """Write parameters like this in the texts of errors, also in reports and records: those of one program."""
    _wordings.append(word)
    try:
        yield
    finally:
        _wordings.pop()


class PellucidError(Exception):
    """Base class of all errors that a user can cause and fix.

    facts: what was found and what was expected.
    hint: what to do; names of parameters in braces.
    parameters: values of the parameters that the hint names.
    """

    def __init__(self, facts: str, *, hint: str = "", **parameters: Any) -> None:
        super().__init__(facts)
        self.facts, self.hint, self.parameters = facts, hint, parameters

    def __str__(self) -> str:
        return self.describe()

    def describe(self, word: Wording | None = None) -> str:
        """Facts and hint in one line, with parameters written by `word`, or else as `use_wording` has chosen."""
        text = f"{self.facts}; {hint}" if (hint := self._word_hint(word or _wordings[-1])) else self.facts
        return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)  # names of files may contain them

    def _word_hint(self, word: Wording) -> str:
        """The hint with its parameters; empty if one of them cannot be given."""
        words = {name: word(name, self.parameters.get(name)) for name in re.findall(r"\{(\w+)\}", self.hint)}
        return "" if None in words.values() else re.sub(r"\{(\w+)\}", lambda name: words[name[1]] or "", self.hint)

    def about(self, path: object) -> Self:
        """A copy of this error that starts with the file it is about, unless it names the file.

        Always a copy: `raise error.about(path) from error` would make an error its own cause.
        """
        return self._with_facts(self.facts if str(path) in str(self) else f"{path}: {self.facts}")

    def renamed(self, place: object, name: object) -> Self:
        """A copy of this error that mentions a place by another name, e.g. a bucket instead of a copy of it."""
        return self._with_facts(self.facts.replace(str(place), str(name)))

    def _with_facts(self, facts: str) -> Self:
        error = self.__class__.__new__(self.__class__)
        vars(error).update(vars(self), facts=facts)
        error.args, error.__cause__ = (facts,), self.__cause__
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_error, (self.__class__, vars(self))


def _restore_error(error_class: type[PellucidError], state: dict[str, Any]) -> PellucidError:
    """Unpickle an error, e.g. one raised in another process."""
    error = error_class.__new__(error_class)
    vars(error).update(state)
    error.args = (error.facts,)
    return error


class PictureError(PellucidError):
    """A picture cannot be read, or is of the wrong kind."""


class ArgumentError(PellucidError):
    """An argument has a value that it cannot have, whatever files and models there are."""


class RecipeError(PellucidError):
    """An unknown recipe or keyword, or a value out of range."""


class WeightsError(PellucidError):
    """Not a weight file, a damaged one, or one of another network."""


class DataError(PellucidError):
    """A folder contains no pictures, or pairs that do not match."""


class OutputError(PellucidError):
    """A result cannot be written, or would replace a file."""


class StorageError(PellucidError):
    """An object or a bucket does not exist, or cannot be reached or used."""


class ClusterError(PellucidError):
    """A cluster cannot be reached, or its processes cannot be started."""


class NotEnoughMemoryError(PellucidError):
    """More memory is needed than is available or allowed."""


class MissingExtraError(PellucidError):
    """An optional package is not installed."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs an optional package", hint=f"pip install 'pellucid[{extra}]'")


def describe_damage(error: Exception) -> str:
    """What is wrong with data that cannot be parsed, without the names of Python's exceptions."""
    if isinstance(error, KeyError):
        return f"{str(error.args[0])[:40]!r} is missing"
    if isinstance(error, TypeError | AttributeError):
        return "an entry has the wrong type"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON, from line {error.lineno}, character {error.colno} on"
    return str(error)[:80]


_SHORT, _CUTOFF_OF_SHORT, _CUTOFF = 3, 0.5, 0.6
"""Names that are less similar share only letters: colors and clip_norm have 0.53, but dm and dn 0.5."""


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: "did you mean a or b?" with the most similar known names, or all known names."""
    known = list(dict.fromkeys(known))
    cutoff = _CUTOFF if len(name) > _SHORT else _CUTOFF_OF_SHORT
    name = name if get_close_matches(name, known, cutoff=cutoff) else name.lower()
    similar = get_close_matches(name, known, n=3, cutoff=cutoff)
    if similar:
        # Most similar first; equally similar ones in the order of `known`.
        similar.sort(key=lambda other: (-SequenceMatcher(None, other, name).ratio(), known.index(other)))
        return f"did you mean {' or '.join(similar)}?"
    return f"known: {', '.join(known) or 'none'}"
