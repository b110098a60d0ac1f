"""`pellucid plot`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pellucid.commands.options import Json, Overwrite
from pellucid.commands.terminal import (
    add_row,
    is_stdout,
    print_name,
    print_table,
    print_warning,
    table,
    write_json,
)
from pellucid.system.wording import format_count

if TYPE_CHECKING:
    from pellucid.training.comparing import RunSummary


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders of 'pellucid train'.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also plot loss and PSNR into this .png, .pdf or .svg.", show_default="no plot"
        ),
    ] = None,
    against: Annotated[
        Literal["step", "time"], typer.Option(help="Horizontal axis of the plot: steps or time.")
    ] = "step",
    json_file: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare trainings: what differs, progress, time, loss and PSNR, as a table and as a plot."""
    from pellucid.system.figures import check_figure
    from pellucid.training import comparing, plotting, run_folder

    folders = Counter(run.resolve() for run in runs)
    if len(folders) < len(runs):
        raise typer.BadParameter(f"{folders.most_common(1)[0][0]} is given twice; omit one")
    if out is not None:
        check_figure(out, overwrite=overwrite)
    summaries = comparing.compare_runs(runs)
    for run in runs:
        if num_damaged := run_folder.count_damaged_metrics(run):
            print_warning(f"{run / 'metrics.jsonl'}: {format_count(num_damaged, 'damaged line')} left out")
    if out is not None:
        plotting.plot(runs, out, against=against, overwrite=overwrite)
    if json_file is not None:
        write_json(json_file, [summary.to_json() for summary in summaries], overwrite=overwrite)
    if is_stdout(json_file):
        return
    _print_runs(summaries)
    if out is not None:
        print_name(out)


def _print_runs(summaries: "Sequence[RunSummary]") -> None:
    rows = table(
        "run", "recipe, and what differs", "step", "hours", "loss", "last dB", "best dB", right=(2, 3, 4, 5, 6)
    )
    for run in summaries:
        differences = " ".join(f"{key}={value}" for key, value in run.differences.items())
        add_row(
            rows,
            run.name,
            " ".join(part for part in (run.recipe, differences) if part),
            f"{run.step}/{run.num_steps}",
            _cell(run.hours, ".2f"),
            _cell(run.loss, ".4g"),
            _cell(run.psnr_db, ".2f"),
            _cell(run.best_psnr_db, ".2f") + ("" if run.best_step is None else f" at {run.best_step}"),
        )
    print_table(rows)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
