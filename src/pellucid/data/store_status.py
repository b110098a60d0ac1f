"""How far the preparation of a store is, in all shards together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.data import registry, store
from pellucid.data.store_parts import list_parts, list_shards, read_facts
from pellucid.data.store_writer import read_records
from pellucid.errors import PellucidError


@dataclass(frozen=True)
class StoreStatus:
    """The files of a store: how many are decoded, those that cannot be, with reasons, and the missing ones.

    is_finished: whether the store is complete. shards: those that have started, e.g. 3-of-16.
    problem: why missing files are not known.
    """

    num_decoded: int
    failed: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    shards: tuple[str, ...] = ()
    is_finished: bool = False
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Counts, and the files that are not decoded."""
        return {
            "is_finished": self.is_finished,
            "num_decoded": self.num_decoded,
            "num_failed": len(self.failed),
            "num_missing": len(self.missing),
            "shards": list(self.shards),
            "failed": [{"name": name, "reason": reason} for name, reason in self.failed],
            "missing": list(self.missing),
            "problems": [] if self.problem is None else [self.problem],
        }


def is_begun(folder: Path) -> bool:
    """Whether a folder is a store, finished or not."""
    return (folder / store.SOURCES).exists() or (folder / store.INDEX).exists()


def read_store_status(folder: Path) -> StoreStatus:
    """The status of a store. Sources are listed again, so that files that were added since are missing.

    Raises DataError if the store is damaged.
    """
    if (folder / store.INDEX).exists():
        made = store.open(folder)
        return StoreStatus(len(made), made.left_out, (), is_finished=True)
    parts = list_parts(folder)
    decoded = set(read_records(folder)).union(*map(read_records, parts))
    facts, shards = list(read_facts(folder)), list_shards(folder)
    failed = {name: reason for fact in facts for name, reason in fact["left_out"] or () if name not in decoded}
    try:
        if not facts:
            raise PellucidError("no process has recorded its sources")
        kind, paths = facts[-1]["kind"], [Path(path) for path in facts[-1]["paths"]]
        tasks = registry.plan(kind, paths, facts[-1]["keywords"]).tasks
    except PellucidError as error:
        return StoreStatus(len(decoded), tuple(failed.items()), (), shards, problem=str(error))
    is_done = {task.name: decoded.issuperset(task.keys) for task in tasks}
    return StoreStatus(
        sum(is_done.values()),
        tuple((name, reason) for name, reason in failed.items() if not is_done.get(name, True)),
        tuple(name for name, done in is_done.items() if not done and name not in failed),
        shards,
    )
