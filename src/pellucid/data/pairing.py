"""Which target belongs to which degraded picture: by name or, if no names agree, by sorted order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from pellucid.errors import DataError


@dataclass(frozen=True)
class Pairing:
    """partners: for each degraded picture the number of its target, or None. is_by_name: or by sorted order."""

    partners: tuple[int | None, ...]
    is_by_name: bool = True

    @property
    def method(self) -> str:
        """How pictures were matched, in words, for a report."""
        return "by name" if self.is_by_name else "in sorted order, as no names agree"

    @property
    def unmatched(self) -> tuple[int, ...]:
        """The numbers of the degraded pictures without a target."""
        return tuple(i for i, partner in enumerate(self.partners) if partner is None)


def describe_order(degraded: object, target: object) -> str:
    """A warning about pictures that were matched in sorted order, with the names of one pair."""
    return f"no names agree, so pictures were matched in sorted order, e.g. {degraded} with {target}"


def match(degraded: Sequence[PurePath], targets: Sequence[PurePath]) -> Pairing:
    """Match two sorted lists of relative paths by name, ignoring suffixes.

    If not a single name agrees and the lists are equally long, their order decides. Raises DataError if two
    targets have the same name.
    """
    by_name: dict[PurePath, int] = {}
    for number, path in enumerate(targets):
        name = path.with_suffix("")
        if name in by_name:
            raise DataError(f"{targets[by_name[name]]} and {path} could both be the target of {name}")
        by_name[name] = number
    partners = tuple(by_name.get(path.with_suffix("")) for path in degraded)
    if len(degraded) == len(targets) and not any(partner is not None for partner in partners):
        return Pairing(tuple(range(len(targets))), is_by_name=False)
    return Pairing(partners)
