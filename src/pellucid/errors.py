"""Everything a user can cause, as one tree.

    PellucidError
    ├── PictureError         a picture cannot be read, or is not of the kind that is needed
    ├── RecipeError          no such recipe or keyword, or a value out of range
    ├── WeightsError         not a weight file, damaged, or it does not fit its recipe
    ├── DataError            a folder holds no pictures, or pairs that do not match
    ├── OutputError          a result cannot be written, or would overwrite something
    ├── NotEnoughMemoryError the memory that there is, or may be taken, does not do
    └── MissingExtraError    an optional package is needed; says which pip command brings it

The command line prints the message in one line and exits with status 1. Each message says what was
found, what was expected and what to do.
"""

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches


class PellucidError(Exception):
    """Anything that a user can cause and mend."""


class PictureError(PellucidError):
    """A picture cannot be read, or is not of the kind that is needed."""


class RecipeError(PellucidError):
    """No such recipe or keyword, or a value out of range."""


class WeightsError(PellucidError):
    """Not a weight file, damaged, or it does not fit its recipe."""


class DataError(PellucidError):
    """A folder holds no pictures, or pairs that do not match."""


class OutputError(PellucidError):
    """A result cannot be written, or would overwrite something."""


class NotEnoughMemoryError(PellucidError):
    """The memory that there is, or that may be taken, does not do."""


class MissingExtraError(PellucidError):
    """An optional package is needed."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs an optional package: pip install 'pellucid[{extra}]'")


def naming(path: object, error: PellucidError) -> PellucidError:
    """The same error, naming the file it came up with."""
    return error if str(path) in str(error) else PellucidError(f"{path}: {error}")


def suggest(name: str, known: Iterable[str]) -> str:
    """Name the nearest known names, or list them all: "did you mean a or b?"."""
    known = list(dict.fromkeys(known))
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        # Nearest first, as found; equally near ones in the order known.
        near.sort(key=lambda other: (-SequenceMatcher(None, other, name).ratio(), known.index(other)))
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(known) or 'none'}"
