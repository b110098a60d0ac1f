"""`pellucid evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.options import Backend, Device, Overwrite, Parameters, Precision, White, parse_keywords
from pellucid.commands.terminal import (
    add_row,
    defer_sigint,
    print_error,
    print_info,
    print_leaks,
    print_table,
    print_warning,
    progress,
    table,
)

if TYPE_CHECKING:
    from pellucid.evaluation import Report


def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Name of a model (see 'pellucid models') or path of a weight file."),
    ],
    parameters: Parameters = None,
    *,
    data: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Clean pictures, or degraded pictures with --target, or a store."),
    ],
    target: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Targets of the degraded pictures in --data, matched by name."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the restored pictures into this folder, as PNG.")
    ] = None,
    train_data: Annotated[
        Path | None,
        typer.Option("--train-data", metavar="STORE", help="Report pictures that are also in this training data."),
    ] = None,
    white: White = None,
    device: Device = "auto",
    backend: Backend = None,
    precision: Precision = None,
    overwrite: Overwrite = False,
) -> None:
    """Score a model on a folder or store: PSNR and SSIM of each picture, their means, and the protocol."""
    with defer_sigint():
        from pellucid import evaluation
        from pellucid.data import store
        from pellucid.restoration import restorer
        from pellucid.system import files

    train_store = None if train_data is None else store.open(train_data)
    given = parse_keywords(parameters, options=("backend", "device", "overwrite", "precision"))
    chosen = restorer.load(model, device=device, backend=backend, precision=precision, **given)
    if chosen.choice is not None:
        print_info(chosen.choice)
    collection = evaluation.collect(chosen.recipe, data, target, white=white)
    for message in collection.messages:
        print_info(message)
    if json_file is not None:
        samples = collection.samples
        files.check_report(json_file, [path for sample in samples for path in sample.files], overwrite=overwrite)
    with progress() as bar:
        task = bar.add_task("scoring", total=None)
        report = evaluation.evaluate(
            chosen,
            data,
            target=target,
            save=save,
            overwrite=overwrite,
            white=white,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json_file is not None:
        report.write_json(json_file, overwrite=overwrite)
    _print_report(report)
    for override in report.overrides:
        print_warning(override)
    for warning in report.warnings:
        print_warning(warning)
    if train_store is not None:
        print_leaks(train_store, target or data)
    for _, error in report.failures:
        print_error(error)
    if report.failures:
        raise typer.Exit(1)


def _print_report(report: "Report") -> None:
    rows = table("picture", "degraded dB", "PSNR dB", "SSIM", right=(1, 2, 3))
    for score in report.scores:
        add_row(rows, score.name, *_cells(score.degraded_psnr_db, score.psnr_db, score.ssim))
    rows.add_section()
    means = _cells(report.mean_degraded_psnr_db, report.mean_psnr_db, report.mean_ssim)
    add_row(rows, f"mean of {len(report.scores)}", *means, style="bold")
    print_table(rows)
    typer.echo(f"{report.model}: {report.recipe.name}")
    for line in report.statement():
        typer.echo(f"  {line}")


def _cells(degraded_db: float | None, psnr_db: float, ssim: float | None) -> tuple[str, str, str]:
    return _cell(degraded_db, 2), _cell(psnr_db, 2), _cell(ssim, 4)


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
