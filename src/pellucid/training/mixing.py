"""Several stores in one training: how many of its patches are from each, and which shard of a batch is from which.

The shards of all batches are numbered through the whole run and dealt out evenly: after any number of shards, each
source has had its share of them, to within a few shards. This depends on nothing but the number of the shard, so
batches are still functions of the seed and the step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path

from pellucid.data import preparing
from pellucid.data.store import Store
from pellucid.data.store_upload import Log
from pellucid.errors import ArgumentError, DataError
from pellucid.storage import cache


@dataclass(frozen=True)
class MixedStore:
    """A store that is mixed into a training.

    share: of the patches, above 0 and below 1. name: of the store, for messages.
    """

    store: Store
    share: float
    name: str


class Shares:
    """Deals the shards of a run out to the data of a training and the sources that are mixed into it."""

    all: tuple[Fraction, ...]
    """The share of the data, which is what remains, and of each mixed source."""

    def __init__(self, mixed: Sequence[float]) -> None:
        exact = [Fraction(str(share)) for share in mixed]  # 0.1 is a tenth, not the nearest binary number
        self.all = (Fraction(1) - sum(exact), *exact)
        # Each source takes its share of the shards that the sources before it leave.
        self._rates = [share / sum(self.all[i:]) for i, share in enumerate(self.all[:-1])]

    def deal(self, shard: int) -> tuple[int, int]:
        """The source of a shard, 0 for the data, and the number of the shard among those of this source.

        shard: 0 or more, numbered through the whole run.
        """
        for source, rate in enumerate(self._rates):
            num_before = floor(shard * rate)
            if floor((shard + 1) * rate) > num_before:
                return source, num_before
            shard -= num_before
        return len(self._rates), shard


def check_shares(mix: Mapping[str, float]) -> None:
    """Raise ArgumentError if shares are not between 0 and 1, or leave nothing for the data."""
    for place, share in mix.items():
        if not 0 < share < 1:
            raise ArgumentError(f"the share of {place} is {share}; expected a number above 0 and below 1")
    if Shares(list(mix.values())).all[0] <= 0:
        total = " + ".join(map(str, mix.values()))
        raise ArgumentError(f"the shares {total} leave nothing for the data", hint="their sum must be below 1")


def open_sources(
    mix: Mapping[str, float], data: Store, limit: int | None, log: Log = preparing.ignore
) -> list[MixedStore]:
    """The stores to mix into a training on `data`: prepared ones, or made from folders of clean pictures.

    limit: use only this many pictures of each. log: see `preparing.open_data`. Raises its errors, and DataError if
    a store is given twice.
    """
    sources = list[MixedStore]()
    seen = {data.folder.resolve()}
    for place, share in mix.items():
        store = preparing.open_data(cache.as_local(place), log=log)
        if store.folder.resolve() in seen:
            raise DataError(f"{place} would be mixed with itself", hint="give each store only once")
        seen.add(store.folder.resolve())
        sources.append(MixedStore(store if limit is None else store.take(limit), float(share), str(place)))
    return sources


def name_of(place: str) -> str:
    """The name of a file, folder or URL, without the folder that contains it."""
    return Path(place).name
