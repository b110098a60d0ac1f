"""Which clean picture belongs to which degraded one: by name or, where no names agree, in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from pellucid.errors import DataError


@dataclass(frozen=True)
class Pairing:
    """partners: for each degraded picture the number of its clean one, or None. how: in words, for a report."""

    partners: tuple[int | None, ...]
    how: str

    @property
    def lonely(self) -> tuple[int, ...]:
        """The degraded pictures without a partner."""
        return tuple(i for i, partner in enumerate(self.partners) if partner is None)


def match(degraded: Sequence[PurePath], clean: Sequence[PurePath]) -> Pairing:
    """Match two sorted lists of relative paths; suffixes do not count.

    Raises DataError when a clean picture's name stands for two of them.
    """
    by_name: dict[PurePath, int] = {}
    for number, path in enumerate(clean):
        name = path.with_suffix("")
        if name in by_name:
            raise DataError(f"{clean[by_name[name]]} and {path} could both be the partner of {name}")
        by_name[name] = number
    partners = tuple(by_name.get(path.with_suffix("")) for path in degraded)
    if len(degraded) == len(clean) and not any(partner is not None for partner in partners):
        return Pairing(tuple(range(len(clean))), "in sorted order, as no names agree")
    return Pairing(partners, "by name")
