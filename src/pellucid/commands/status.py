"""`pellucid status`."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.options import Json, check_overwrite
from pellucid.commands.restore_status import format_duration, format_number
from pellucid.commands.terminal import (
    is_stdout,
    print_error,
    print_info,
    print_line,
    print_warning,
    write_json,
)
from pellucid.errors import DataError
from pellucid.system.signals import defer_sigint
from pellucid.system.wording import format_count

if TYPE_CHECKING:
    from pellucid.data.store_status import StoreStatus
    from pellucid.evaluation.score_status import ScoreStatus
    from pellucid.restoration.run_status import RunStatus
    from pellucid.storage.urls import Location

_NUM_LISTED = 20
"""How many failed pictures are printed, and how many missing ones."""


def status(
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT", help="A folder of results (also as a URL), a store, or the folder of --record."
        ),
    ],
    json_file: Json = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the report that a single 'pellucid restore --report' would have written; - as for --json.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of --json and --report.")
    ] = False,
) -> None:
    """Report the progress of `pellucid restore`, `prepare` or `evaluate` in a folder, over all shards.

    Lists the inputs again and reads the manifests of all processes: what is done, what failed, what is missing,
    and the pace. The exit code is 0 if everything is done, and 1 if something failed or is missing.
    """
    with defer_sigint():
        from pellucid.data import store_status
        from pellucid.evaluation import score_status
        from pellucid.restoration import report as reports
        from pellucid.restoration.run_status import label_runs, read_status
        from pellucid.storage.urls import locate

    check_overwrite(overwrite, {"--json": json_file, "--report": report})
    if is_stdout(json_file) and is_stdout(report):
        raise typer.BadParameter("--json - and --report - would both be standard output")
    place = locate(out)
    if isinstance(place, Path) and not place.is_dir():
        reason = "is a file; a folder of results is needed" if os.path.lexists(place) else "does not exist"
        raise DataError(f"{out} {reason}")
    if isinstance(place, Path) and store_status.is_begun(place):
        if report is not None:
            raise typer.BadParameter(f"--report is for folders of restored pictures; {out} is a store")
        _show_store(out, store_status.read_store_status(place), json_file, overwrite=overwrite)
        return
    scores = score_status.read_score_status(place) if isinstance(place, Path) else []
    if scores:
        if report is not None:
            raise typer.BadParameter(f"--report is for folders of restored pictures; {out} contains scores")
        _show_scores(out, scores, json_file, overwrite=overwrite)
        return
    found = read_status(place)
    if not found:
        raise DataError(f"{out} {_describe_missing_manifest(place)}")
    if json_file is not None:
        write_json(json_file, [one.to_json() for one in found], overwrite=overwrite)
    if report is not None:
        if len(found) > 1:
            raise DataError(
                f"{out} contains results of {len(found)} runs: {'; '.join(label_runs(found))}",
                hint="a report is about one run; use a folder of its own for each model and its settings",
            )
        content = found[0].to_report()
        is_own = not is_stdout(report) and reports.is_report_of(report, reports.list_places(content))
        write_json(report, content, overwrite=overwrite or is_own)
    if not is_stdout(json_file, report):
        _print(out, label_runs(found), found)
    if any(picture.status != "restored" for one in found for picture in one.pictures):
        raise typer.Exit(1)


def _show_store(out: str, found: "StoreStatus", json_file: Path | None, *, overwrite: bool) -> None:
    if json_file is not None:
        write_json(json_file, found.to_json(), overwrite=overwrite)
    if not is_stdout(json_file):
        if found.is_finished:
            text = f"finished, {format_count(found.num_decoded, 'item')}"
        else:
            total = found.num_decoded + len(found.failed) + len(found.missing)
            text = f"{found.num_decoded} of {format_count(total, 'file')} decoded"
            text += f", {len(found.missing)} missing" if found.missing else ""
            text += f", shards {', '.join(found.shards)}" if found.shards else ""
            text += "" if found.missing or found.problem else "; the command without --shard makes the store"
        print_line(f"{out}: {text}")
        for name, reason in found.failed[:_NUM_LISTED]:
            print_error(f"{name}: {reason}")
        for name in found.missing[:_NUM_LISTED]:
            print_info(f"missing: {name}")
    if found.problem is not None:
        print_warning(f"missing files are not known: {found.problem}")
    if found.missing or found.problem or not found.is_finished:
        raise typer.Exit(1)


def _show_scores(out: str, found: "Sequence[ScoreStatus]", json_file: Path | None, *, overwrite: bool) -> None:
    if json_file is not None:
        write_json(json_file, [one.to_json() for one in found], overwrite=overwrite)
    for one in found:
        if not is_stdout(json_file):
            text = f"{out}: {one.model}: {one.num_scored} of {format_count(one.num_pictures, 'picture')} scored"
            text += f", {len(one.failed)} failed" if one.failed else ""
            print_line(text + (f", {one.num_missing} missing" if one.num_missing else ""))
        for _, reason in one.failed[:_NUM_LISTED]:
            print_error(reason)
    if any(one.failed or one.num_missing for one in found):
        raise typer.Exit(1)


def _print(out: str, names: "Sequence[str]", found: "Sequence[RunStatus]") -> None:
    for name, one in zip(names, found, strict=True):
        print_line(f"{out}: {name}: {_describe(one)}")
        for problem in one.problems:
            print_warning(problem)
        failed, missing = one.select("failed"), one.select("missing")
        for picture in failed[:_NUM_LISTED]:
            print_error(picture.error)
        if len(failed) > _NUM_LISTED:
            print_info(f"{len(failed)} failed in all; --json lists them")
        for picture in missing[:_NUM_LISTED]:
            print_info(f"missing: {picture.error or picture.source}")
        if len(missing) > _NUM_LISTED:
            print_info(f"{len(missing)} are missing in all; --json lists them")


def _describe(one: "RunStatus") -> str:
    num_missing = len(one.select("missing"))
    parts = [f"{len(one.select('restored'))} of {format_count(len(one.pictures), 'picture')} restored"]
    parts += [f"{len(one.select('failed'))} failed"] if one.select("failed") else []
    parts += [f"{num_missing} missing"] if num_missing else []
    pace = one.pictures_per_minute
    if pace is not None:
        parts.append(f"{format_number(pace)} per minute")
        parts += [f"about {format_duration(num_missing / pace * 60)} left"] if num_missing else []
    if one.shards:
        parts.append(f"shards {', '.join(one.shards)}")
    return ", ".join(parts)


def _describe_missing_manifest(place: "Location") -> str:
    from pellucid.restoration.entries import manifest_path
    from pellucid.restoration.run_status import has_results

    if has_results(place):
        return "was made by an earlier version, which did not record its inputs"
    path = manifest_path(place, None) if isinstance(place, Path) else None
    if path is not None and path.exists() and not os.access(path, os.R_OK):
        return f"contains {path.name}, which cannot be read: {os.strerror(errno.EACCES)}"
    if path is not None and path.exists():
        return f"contains {path.name}, which is damaged; 'pellucid restore --overwrite' makes all of it again"
    others = "no store, and no recorded scores; 'pellucid plot' shows trainings"
    return f"contains no manifest of 'pellucid restore', {others}"
