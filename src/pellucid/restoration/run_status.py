"""How far a restoration is, in all processes: what the manifests of all shards say, compared with the inputs."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pellucid.errors import PellucidError
from pellucid.restoration import planning
from pellucid.restoration.entries import Entries
from pellucid.restoration.ledgers import read_all
from pellucid.restoration.manifest import Manifests, Request, State
from pellucid.restoration.planning import Job
from pellucid.storage.urls import Location, Url, is_url, locate, real_name

PACE_S = 600.0
"""The pace is that of the last ten minutes before the newest result."""


@dataclass(frozen=True)
class PictureStatus:
    """A picture of a run. notes, megapixels, network_s: see `Outcome`; unknown if its process was killed
    just then.

    finished_s: when its result was written, in seconds since 1970.
    """

    source: Location
    target: Location
    status: Literal["restored", "failed", "missing"]
    error: str | None = None
    notes: tuple[str, ...] = ()
    megapixels: float = 0.0
    network_s: float = 0.0
    finished_s: float | None = None


@dataclass(frozen=True)
class RunStatus:
    """All pictures that one model restores with the same settings into one folder, by any number of processes.

    facts: recipe and parameters of the model. shards: those that have recorded something, e.g. 3/16.
    problems: inputs that do not exist, or why missing pictures are not known. settings: by name, as text.
    """

    model: str
    facts: Mapping[str, Any]
    pictures: tuple[PictureStatus, ...]
    shards: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    def select(self, status: Literal["restored", "failed", "missing"]) -> list[PictureStatus]:
        """The pictures with this status."""
        return [picture for picture in self.pictures if picture.status == status]

    @cached_property
    def pictures_per_minute(self) -> float | None:
        """Over the last PACE_S before the newest result; None for less than two results."""
        times = sorted(picture.finished_s for picture in self.pictures if picture.finished_s is not None)
        recent = [time for time in times if time > times[-1] - PACE_S]
        if len(recent) < 2 or recent[0] == recent[-1]:
            return None
        return (len(recent) - 1) / (recent[-1] - recent[0]) * 60

    def to_json(self) -> dict[str, Any]:
        """Counts, pace, and the pictures that are not restored."""
        return {
            "model": self.model,
            "num_pictures": len(self.pictures),
            "num_restored": len(self.select("restored")),
            "num_failed": len(self.select("failed")),
            "num_missing": len(self.select("missing")),
            "pictures_per_minute": self.pictures_per_minute,
            "shards": list(self.shards),
            "failed": [{"source": str(one.source), "error": one.error} for one in self.select("failed")],
            "missing": [str(one.source) for one in self.select("missing")],
            "problems": list(self.problems),
        }

    def to_report(self) -> dict[str, Any]:
        """The report that one process would have written, see `make_report`, with paths from the root."""
        return {
            "model": self.model,
            **self.facts,
            "pictures": [
                {
                    "source": str(one.source),
                    "target": str(one.target),
                    "status": one.status,
                    "error": one.error,
                    "notes": list(one.notes),
                    "megapixels": one.megapixels,
                    "network_s": one.network_s,
                }
                for one in self.pictures
            ],
            "problems": list(self.problems),
        }


def has_results(folder: Location) -> bool:
    """Whether a folder contains a manifest with results."""
    return bool(read_all(folder))


def read_status(folder: Location) -> list[RunStatus]:
    """The status of each model that restores into a folder, oldest first.

    Inputs are listed again, so that pictures that were added since are missing. Results of earlier versions, whose
    manifests do not name the inputs, are not included.
    """
    known = read_all(folder)
    by_settings: dict[str, list[dict[str, Any]]] = {}
    for run in known.runs:
        by_settings.setdefault(str(run["settings"]), []).append(run)
    return [_join(folder, runs, known) for runs in by_settings.values()]


def _join(folder: Location, runs: Sequence[dict[str, Any]], known: Entries) -> RunStatus:
    """The status of runs with the same settings."""
    jobs: dict[Location, Job] = {}
    problems: dict[str, None] = {}
    plans = {json.dumps(run["plan"], sort_keys=True): run for run in runs}
    request = _to_request(runs[-1])
    for run in plans.values():
        manifests = Manifests(_to_request(run), overwrite=bool((run["plan"] or {}).get("overwrite")))
        try:
            planned, found = _plan_again(folder, run)
        except PellucidError as error:
            planned, found = (
                [*_list_recorded(folder, request, known)],
                [f"missing pictures are not known: {error}"],
            )
        jobs |= {job.target: job for job in manifests.settle_names(planned)}
        problems.update(dict.fromkeys(found))
    manifests = Manifests(request, overwrite=False)
    facts = {key: value for key, value in runs[-1]["run"].items() if key != "model"}
    shards = dict.fromkeys(run["shard"] for run in runs if run["shard"])
    return RunStatus(
        request.model,
        facts,
        tuple(_find_status(job, manifests) for job in jobs.values()),
        tuple(sorted(shards, key=lambda text: [*map(int, text.split("/"))][::-1])),
        tuple(problems),
        request.settings,
    )


def label_runs(runs: Sequence[RunStatus]) -> list[str]:
    """The model of each run, with the settings in which it differs from other runs of the same model."""
    return [_label_run(one, [other for other in runs if other.model == one.model]) for one in runs]


def _label_run(run: RunStatus, same_model: Sequence[RunStatus]) -> str:
    differing = [
        f"{key}={_shorten_hashes(value) if key == 'weights' else value}"
        for key, value in run.settings.items()
        if any(other.settings.get(key) != value for other in same_model)
    ]
    return f"{run.model} ({', '.join(differing)})" if differing else run.model


def _shorten_hashes(fingerprint: str) -> str:
    """Without most digits of the hashes of weights; the backends remain."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", fingerprint)


def _to_request(run: Mapping[str, Any]) -> Request:
    return Request(run["described"], run["run"]["model"], accepted=run.get("accepted", ()))


def _plan_again(folder: Location, run: Mapping[str, Any]) -> tuple[list[Job], list[str]]:
    """The jobs whose results belong into this folder, which may have been moved, and problems of other inputs."""
    if run["plan"] is None:
        raise PellucidError("the program that started the run chose the files")
    plan = planning.plan(**run["plan"], strict=False)
    if plan.problems and not plan.whole:
        raise plan.problems[0]
    jobs = [job for job in plan if job.root is not None and real_name(job.root) == run["root"]]
    moved = [replace(job, target=folder / job.name, root=folder) for job in jobs]
    return moved, [str(problem) for problem in plan.problems]


def _list_recorded(folder: Location, request: Request, known: Entries) -> Iterator[Job]:
    """What the manifests know: results, and pictures that failed."""
    for line in chain(known, known.outcomes):
        if line["settings"] in (request.settings_sha256, *request.accepted):
            yield Job(_find_place(folder, line["place"]), folder / line["target"], folder)


def _find_place(folder: Location, place: str) -> Location:
    if isinstance(folder, Url) or is_url(place):
        return locate(place)
    return Path(os.path.normpath(Path(os.path.realpath(folder), place)))


_REPLACED_BY = {
    State.OTHER_SETTINGS: "is now the result with other settings",
    State.OTHER_MODEL: "is now the result of another model",
}


def _find_status(job: Job, manifests: Manifests) -> PictureStatus:
    outcome = manifests.find_outcome(job) or {}
    state = manifests.state(job)
    if state is not State.DONE:
        if outcome.get("outcome") == "failed":
            return PictureStatus(job.source, job.target, "failed", outcome.get("error"))
        return PictureStatus(job.source, job.target, "missing", _explain_other(job, state))
    is_known = outcome.get("outcome") == "restored"
    return PictureStatus(
        job.source,
        job.target,
        "restored",
        notes=tuple(outcome["notes"]) if is_known else (),
        megapixels=outcome["megapixels"] if is_known else 0.0,
        network_s=outcome["network_s"] if is_known else 0.0,
        finished_s=job.target.stat().st_mtime if isinstance(job.target, Path) else None,
    )


def _explain_other(job: Job, state: State) -> str | None:
    """Why a file with the name of a result is not counted as the result; None if no file has this name."""
    if not (isinstance(job.target, Path) and os.path.lexists(job.target)):
        return None
    if state in _REPLACED_BY:
        return f"{job.target} {_REPLACED_BY[state]}"
    if isinstance(job.source, Path) and not job.source.exists():
        return f"{job.target} cannot be checked, because {job.source} does not exist"
    return f"{job.target} is not the file that was written: replaced, changed or copied"
