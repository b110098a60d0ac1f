"""`pellucid restore`."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.options import (
    Backend,
    Device,
    Model,
    Overwrite,
    Precision,
    parse_bytes,
    parse_exposure,
    parse_keywords,
)
from pellucid.commands.terminal import defer_sigint, print_error, print_note, progress, sigterm_as_sigint
from pellucid.errors import PellucidError

if TYPE_CHECKING:
    from pellucid.restoration.planning import Job
    from pellucid.restoration.restore import Outcome, Settings
    from pellucid.restoration.restorer import Restorer

SAID_EVERY_S = 30.0
"""How often work tells how far it is where no terminal shows it."""

_RESULTS, _RAW, _EFFORT = "How results look", "Camera RAW", "Memory and time"


def restore(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="Pictures, folders of them, or patterns as 'scans/**/*.tif'."),
    ],
    model: Model,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A file for one picture, else a folder. Without it, beside the input: NAME-restored.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what became of every picture, as JSON.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="png, tiff, jpeg, webp or bmp; that of the input by itself.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            metavar="1..100",
            help="Of JPEG and lossy WebP; that of the input by itself.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    bit_depth: Annotated[
        int | None,
        typer.Option(
            metavar="BITS",
            help="8, 16 or 32 (floating point); that of the input by itself.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble",
            help="Mean over eight turned and mirrored versions: 8x the work.",
            rich_help_panel=_RESULTS,
        ),
    ] = False,
    strength: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="0..1",
            help="0 is the input (enlarged, bicubically), 1 the full effect.",
            rich_help_panel=_RESULTS,
        ),
    ] = 1.0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A keyword of the recipe, as scale=3; repeatable.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    exposure_ratio: Annotated[
        str,
        typer.Option(
            metavar="RATIO",
            help="How many times longer a dark RAW shall look exposed, or auto.",
            rich_help_panel=_RAW,
        ),
    ] = "auto",
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="RAW", help="Take the ratio from a RAW file of the right parse_exposure.", rich_help_panel=_RAW
        ),
    ] = None,
    device: Device = "auto",
    backend: Backend = None,
    precision: Precision = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="All that may be taken, as 2GB; half of what is free by itself.",
            rich_help_panel=_EFFORT,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Pictures read ahead and written behind the network.",
            rich_help_panel=_EFFORT,
        ),
    ] = 2,
    tile: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PX",
            help="Side of the tiles. Changes time and memory, not the result.",
            rich_help_panel=_EFFORT,
        ),
    ] = None,
    halo: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="PX",
            help="Read less around each tile: faster, no longer exact.",
            rich_help_panel=_EFFORT,
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Refuse larger pictures unread; 500 million by itself.",
            rich_help_panel=_EFFORT,
        ),
    ] = None,
) -> None:
    """Restore pictures, and folders of them.

    A picture keeps its depth, transparency and, where the format can hold it, its metadata; docs/formats.md has
    the table. Camera RAW files are developed first, or, by the recipes for dark ones, restored from the mosaic.
    In a folder, finished results are left alone, so the same command goes on where it was interrupted.
    """
    with defer_sigint():
        from pellucid.restoration import planning, restore, restorer
        from pellucid.system import files

    wishes = restore.Settings(
        tile_px=tile,
        halo_px=halo,
        ensemble=ensemble,
        strength=strength,
        memory_bytes=None if memory is None else parse_bytes(memory),
        quality=quality,
        bit_depth=bit_depth,
        exposure=parse_exposure(exposure_ratio, reference),
        **({} if max_pixels is None else {"max_pixels": max_pixels}),
    )
    jobs = planning.plan(inputs, out, format=format)
    if len(jobs) == 1 and jobs[0].root is None:
        files.check_overwrite(jobs[0].target, overwrite=overwrite)
    if report is not None:
        files.check_writable(report, overwrite=overwrite or restore.is_report(report))
    given = parse_keywords(settings, options=("backend", "precision"))
    chosen = restorer.load(model, device=device, backend=backend, precision=precision, **given)
    if chosen.choice is not None:
        print_note(chosen.choice)
    for change in chosen.changes():
        print_note(change)
    if wishes.exposure != "auto" and not chosen.recipe.domain.takes_mosaic:
        print_note(f"{chosen.name} takes developed pictures; --exposure-ratio and --reference change nothing")
    if halo is not None and halo < chosen.halo_px:
        _say_what_is_given_up(chosen, jobs, wishes)
    outcomes, interrupted = _restored(jobs, chosen, wishes, workers=workers, overwrite=overwrite)
    if report is not None:
        restore.write_report(report, outcomes, chosen, overwrite=overwrite or restore.is_report(report))
    if interrupted:
        print_note(f"interrupted after {len(outcomes)} of {len(jobs)}; the same command goes on from here")
        raise typer.Exit(130)
    _finish(outcomes, chosen)


def _restored(
    jobs: "Sequence[Job]", restorer: "Restorer", settings: "Settings", *, workers: int, overwrite: bool
) -> "tuple[list[Outcome], bool]":
    """What became of the jobs, or, when the work was interrupted, of as many as were done, and whether it was."""
    from pellucid.restoration import restore

    done: list[Outcome] = []
    with sigterm_as_sigint(), progress("{task.fields[rate]}") as bar:
        task = bar.add_task("restoring", total=len(jobs), rate="")
        start, megapixels = time.monotonic(), 0.0
        said_at = start
        outcomes = restore.restore(
            jobs,
            restorer,
            settings,
            workers=workers,
            overwrite=overwrite,
            progress=lambda position: bar.update(task, completed=position),
        )
        try:
            for outcome in outcomes:
                done.append(outcome)
                megapixels += outcome.megapixels
                now = time.monotonic()
                rate = f"{megapixels / (now - start):.2f} MP/s" if megapixels else ""
                bar.update(task, rate=rate)
                if bar.disable and now - said_at > SAID_EVERY_S:
                    print_note(f"{len(done)} of {len(jobs)} pictures done, {rate}")
                    said_at = now
        except KeyboardInterrupt:
            outcomes.close()
            return done, True
    return done, False


def _finish(done: "Sequence[Outcome]", restorer: "Restorer") -> None:
    """Say where results lie, what is to be known about them, and what failed."""
    restored = [outcome for outcome in done if outcome.error is None and not outcome.skipped]
    failed = [outcome for outcome in done if outcome.error is not None]
    num_skipped = sum(outcome.skipped for outcome in done)
    for remark, count in Counter(remark for outcome in done for remark in outcome.notes).items():
        first = next(outcome.job.source for outcome in done if remark in outcome.notes)
        print_note(f"{first}{f' and {count - 1} more' if count > 1 else ''}: {remark}")
    if len(done) == 1 and num_skipped:
        typer.echo(f"{done[0].job.target} is already there (--overwrite does it again)")
    elif len(done) == 1 and restored:
        typer.echo(restored[0].job.target)
    elif len(done) > 1:
        skipped = f", {num_skipped} already there (--overwrite does them again)" if num_skipped else ""
        typer.echo(f"{len(restored)} of {len(done)} pictures restored by {restorer.name}{skipped}")
    for outcome in failed:
        print_error(outcome.error)
    if failed:
        raise typer.Exit(1)


def _say_what_is_given_up(restorer: "Restorer", jobs: "Sequence[Job]", settings: "Settings") -> None:
    from pellucid.restoration import restore

    assert settings.halo_px is not None
    try:
        degraded, _ = restore.read_degraded(jobs[0].source, restorer, settings)
        difference = restorer.given_up(degraded, halo_px=settings.halo_px, tile_px=settings.tile_px)
    except PellucidError:
        return  # the run will name it
    if difference == 0:
        return
    print_note(
        f"halo of {settings.halo_px} px instead of {restorer.halo_px}: tiles no longer equal the whole; in the "
        f"middle of {jobs[0].source.name} they are off by up to {difference * 255:.2g} of 255"
    )
