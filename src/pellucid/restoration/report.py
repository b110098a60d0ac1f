"""The report of a restoration: what happened to every picture, as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pellucid.errors import PellucidError
from pellucid.restoration.planning import to_absolute_text
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.sessions import Outcome


def make_report(
    outcomes: Sequence[Outcome], restorer: Restorer, problems: Sequence[PellucidError] = ()
) -> dict[str, Any]:
    """A report of what happened to every picture. problems: of inputs that are not pictures, see `Plan`."""
    return {
        "model": restorer.name,
        **restorer.describe(),
        "pictures": [_to_json(outcome) for outcome in outcomes],
        "problems": [str(problem) for problem in problems],
    }


def join_reports(
    model: str,
    reports: Sequence[dict[str, Any]],
    others: Sequence[Outcome] = (),
    problems: Sequence[PellucidError] = (),
) -> dict[str, Any]:
    """One report of several models, each with pictures of its own, which then name their model.

    model: what was asked for, e.g. "auto". others: pictures without a model.
    """
    pictures = [
        picture | {key: one[key] for key in ("model", "backend")} for one in reports for picture in one["pictures"]
    ]
    return {
        "model": model,
        "recipe": None,
        "parameters": {},
        "backend": None,
        "pictures": [*pictures, *(_to_json(outcome) | {"model": None, "backend": None} for outcome in others)],
        "problems": [str(problem) for problem in problems],
    }


def list_places(report: Mapping[str, Any]) -> set[str]:
    """The sources and results in a report."""
    names = (picture[key] for picture in report["pictures"] for key in ("source", "target"))
    return {name for name in names if name is not None}


def is_report_of(path: Path, names: Iterable[str]) -> bool:
    """Whether a file is the report of an earlier run of the same command, which may be overwritten.

    names: results and sources of this run. The earlier one must have made one of these results, or failed for one
    of these sources, or contain no picture, because it was interrupted.
    """
    try:
        found = json.loads(path.read_bytes() if path.is_file() else b"")  # a device may never end
        if {"model", "recipe", "parameters", "pictures"} <= found.keys():
            places = [to_absolute_text(picture["target"] or picture["source"]) for picture in found["pictures"]]
            return not places or not {*map(to_absolute_text, names)}.isdisjoint(places)
    except (OSError, ValueError, AttributeError, LookupError, TypeError):  # it is something else
        return False
    return False


def _to_json(outcome: Outcome) -> dict[str, Any]:
    status = "failed" if outcome.error else "left alone" if outcome.is_skipped else "restored"
    return {
        "source": str(outcome.source),
        "target": None if outcome.target is None else str(outcome.target),
        "status": status,
        "error": None if outcome.error is None else str(outcome.error),
        "notes": [*outcome.info, *outcome.warnings],
        "megapixels": outcome.megapixels,
        "network_s": outcome.seconds,
    }
