"""How far an evaluation is, in all shards together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.evaluation.score_log import read_log_lines


@dataclass(frozen=True)
class ScoreStatus:
    """How many pictures of an evaluation are scored. failed: names of those that cannot be, with reasons."""

    model: str
    num_pictures: int
    num_scored: int
    failed: tuple[tuple[str, str], ...]

    @property
    def num_missing(self) -> int:
        """Pictures that no shard has done."""
        return self.num_pictures - self.num_scored - len(self.failed)

    def to_json(self) -> dict[str, Any]:
        """Counts, and the pictures that cannot be scored."""
        return {
            "model": self.model,
            "num_pictures": self.num_pictures,
            "num_scored": self.num_scored,
            "num_failed": len(self.failed),
            "num_missing": self.num_missing,
            "failed": [{"name": name, "reason": reason} for name, reason in self.failed],
        }


def read_score_status(folder: Path) -> list[ScoreStatus]:
    """The status of each evaluation whose scores are recorded in a folder, in the order in which they began."""
    runs: dict[str, dict[str, Any]] = {}
    scored: dict[str, dict[str, set[object]]] = {}
    failed: dict[str, dict[str, str]] = {}
    for line in read_log_lines(folder):
        run = line.get("run")
        if not isinstance(run, str):
            continue
        if "num_pictures" in line:
            runs.setdefault(run, line)
        elif isinstance(line.get("failed"), str):
            failed.setdefault(run, {})[line["failed"]] = str(line.get("error"))
        elif isinstance(line.get("score"), dict):
            scored.setdefault(run, {}).setdefault(line["score"]["name"], set()).add(line.get("seed"))
    return [_count(run, scored.get(key, {}), failed.get(key, {})) for key, run in runs.items()]


def _count(run: dict[str, Any], scored: dict[str, set[object]], failed: dict[str, str]) -> ScoreStatus:
    done = {name for name, seeds in scored.items() if seeds.issuperset(run["seeds"])}
    others = tuple((name, reason) for name, reason in failed.items() if name not in done)
    return ScoreStatus(run["model"], run["num_pictures"], len(done), others)
