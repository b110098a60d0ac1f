"""Everything that a user can cause and fix, as one tree.

    PellucidError
    ├── PictureError         a picture cannot be read, or is not of the kind that is needed
    ├── RecipeError          no such recipe or keyword, or a value out of range
    ├── WeightsError         not a weight file, damaged, or it does not fit its recipe
    ├── DataError            a folder contains no pictures, or pairs that do not match
    ├── OutputError          a result cannot be written, or would overwrite something
    ├── NotEnoughMemoryError the available or permitted memory is not enough
    └── MissingExtraError    an optional package is needed; the hint is the pip command

An error states facts (what was found, what was expected) and a hint (what to do). A hint names parameters in
braces, e.g. "{overwrite} replaces it": Python programs read `overwrite=True`, the command line `--overwrite`.
The command line prints the message in one line and exits with status 1.
"""

import re
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher, get_close_matches
from typing import Any, Self

Wording = Callable[[str, Any], str]
"""(parameter, value) -> how to write it, e.g. `overwrite=True`; a value of None means the parameter itself."""


def word_as_argument(parameter: str, value: Any) -> str:
    """A parameter as a Python program writes it: `overwrite=True`, or only `out` if there is no value."""
    return parameter if value is None else f"{parameter}={value!r}"


class PellucidError(Exception):
    """Anything that a user can cause and fix.

    facts: what was found and what was expected. hint: what to do; parameters in braces. parameters: their values.
    """

    def __init__(self, facts: str, *, hint: str = "", **parameters: Any) -> None:
        super().__init__(facts)
        self.facts, self.hint, self.parameters = facts, hint, parameters

    def __str__(self) -> str:
        return self.describe()

    def describe(self, word: Wording = word_as_argument) -> str:
        """Facts and hint in one line, parameters written by `word`."""
        if not self.hint:
            return self.facts
        hint = re.sub(r"\{(\w+)\}", lambda name: word(name[1], self.parameters.get(name[1])), self.hint)
        return f"{self.facts}; {hint}"

    def about(self, path: object) -> Self:
        """The same error, of the same class, with the file that it is about in front."""
        if str(path) in str(self):
            return self
        error = self.__class__.__new__(self.__class__)
        vars(error).update(vars(self))
        error.facts = f"{path}: {self.facts}"
        error.args = (error.facts,)
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_error, (self.__class__, vars(self))


def _restore_error(kind: type[PellucidError], state: dict[str, Any]) -> PellucidError:
    """An error from another process."""
    error = kind.__new__(kind)
    vars(error).update(state)
    error.args = (error.facts,)
    return error


class PictureError(PellucidError):
    """A picture cannot be read, or is not of the kind that is needed."""


class RecipeError(PellucidError):
    """No such recipe or keyword, or a value out of range."""


class WeightsError(PellucidError):
    """Not a weight file, damaged, or it does not fit its recipe."""


class DataError(PellucidError):
    """A folder contains no pictures, or pairs that do not match."""


class OutputError(PellucidError):
    """A result cannot be written, or would overwrite something."""


class NotEnoughMemoryError(PellucidError):
    """The available or permitted memory is not enough."""


class MissingExtraError(PellucidError):
    """An optional package is needed."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs an optional package", hint=f"pip install 'pellucid[{extra}]'")


def suggest(name: str, known: Iterable[str]) -> str:
    """The nearest known names, e.g. "did you mean a or b?", or all of them."""
    known = list(dict.fromkeys(known))
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        # Nearest first, as found; equally near ones in the order of `known`.
        near.sort(key=lambda other: (-SequenceMatcher(None, other, name).ratio(), known.index(other)))
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(known) or 'none'}"
