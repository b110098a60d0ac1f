"""The report of a restoration: what happened to every picture, as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pellucid.errors import PellucidError
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


def is_report(path: Path) -> bool:
    """Whether a file is a report of an earlier run, which may be overwritten."""
    try:
        found = json.loads(path.read_bytes() if path.is_file() else b"")  # a device may never end
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"model", "recipe", "parameters", "pictures"} <= found.keys()


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
