"""Trainings next to each other: what differs between them, how far they are, and what they reached."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import OutputError
from pellucid.training.run_folder import Json, describe_run, read_metrics


@dataclass(frozen=True)
class RunSummary:
    """One training of several.

    differences: the keywords, seed and data that not all of these trainings share. step, num_steps: how far it is.
    hours: of training so far, without validations and interruptions; None if its speed was not recorded.
    loss: the last one. psnr_db, best_psnr_db, best_step: of the last and the best validation.
    """

    name: str
    recipe: str
    differences: dict[str, Any]
    step: int
    num_steps: int
    hours: float | None
    loss: float | None
    psnr_db: float | None
    best_psnr_db: float | None
    best_step: int | None
    device: str

    def to_json(self) -> Json:
        """All fields."""
        return asdict(self)


def compare_runs(folders: Sequence[str | Path]) -> list[RunSummary]:
    """Summaries of run folders. Raises OutputError if one is not a run folder, or has no metrics yet."""
    described = [describe_run(Path(folder)) for folder in folders]
    identities = [description["identity"] for description in described]
    keys = dict.fromkeys(key for identity in identities for key in identity if key != "recipe")
    differing = [key for key in keys if any(one.get(key) != identities[0].get(key) for one in identities)]
    return [
        _summarize(name, Path(folder), description, differing)
        for name, folder, description in zip(name_runs(folders), folders, described, strict=True)
    ]


def name_runs(folders: Sequence[str | Path]) -> list[str]:
    """Names of runs: those of their folders, or the paths if names are repeated."""
    names = [Path(folder).resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def read_known_metrics(folder: Path) -> list[Json]:
    """The metrics of a run folder. Raises OutputError if there are none."""
    lines = read_metrics(folder)
    if not lines:
        raise OutputError(f"{folder} has no metrics yet")
    return lines


def hours_at_steps(lines: Sequence[Json], batch_size: int) -> dict[int, float]:
    """Step -> hours of training until then, from the recorded speed; no entries if that is not recorded."""
    hours, step, total = dict[int, float](), 0, 0.0
    for line in lines:
        speed = line.get("images_per_s")
        if speed:
            total += (line["step"] - step) * batch_size / speed / 3600
            step = line["step"]
            hours[step] = total
    return hours


def _summarize(name: str, folder: Path, description: Json, differing: Sequence[str]) -> RunSummary:
    lines = read_known_metrics(folder)
    training, starts = description.get("training", {}), description.get("starts", [])
    losses = [line["loss"] for line in lines if line.get("loss") is not None]
    scores = [(line["psnr_db"], line["step"]) for line in lines if line.get("psnr_db") is not None]
    best = max(scores, default=(None, None), key=lambda score: score[0] or 0.0)
    hours = hours_at_steps(lines, int(training.get("batch_size", 0)))
    return RunSummary(
        name=name,
        recipe=str(description["identity"].get("recipe", "")),
        differences={key: description["identity"].get(key) for key in differing},
        step=max(line["step"] for line in lines),
        num_steps=int(training.get("num_steps", 0)),
        hours=max(hours.values(), default=None),
        loss=losses[-1] if losses else None,
        psnr_db=scores[-1][0] if scores else None,
        best_psnr_db=best[0],
        best_step=best[1],
        device=str(starts[-1].get("device", "")) if starts else "",
    )
