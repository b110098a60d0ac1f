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
    NetworkFiles,
    Overwrite,
    Precision,
    White,
    add_networks,
    parse_bytes,
    parse_crop,
    parse_exposure,
    parse_keywords,
    parse_size,
)
from pellucid.commands.terminal import (
    defer_sigint,
    is_stdout,
    print_error,
    print_info,
    print_warning,
    progress,
    sigterm_as_sigint,
    write_json,
)
from pellucid.errors import PellucidError

if TYPE_CHECKING:
    from pellucid.restoration.planning import Job, Plan
    from pellucid.restoration.restore import Outcome
    from pellucid.restoration.restorer import Restorer
    from pellucid.restoration.settings import Settings

STATUS_EVERY_S = 30.0
"""How often the status is printed if there is no terminal for a progress bar."""

_RESULTS, _RAW, _EFFORT = "Results", "Camera RAW", "Memory and time"


def restore(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="Pictures, folders of them, or patterns, e.g. 'scans/**/*.tif'."),
    ],
    model: Model,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="File to write (for one picture), or folder.",
            show_default="NAME-restored next to each input",
        ),
    ] = None,
    overwrite: Overwrite = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--json",
            "--report",
            metavar="FILE",
            help="Write what happened to every picture, as JSON; - is standard output, without any other text.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Of the pictures in folders only these, e.g. `*.tif` or `scans/*`; repeatable.",
            show_default="all",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Not these pictures in folders, e.g. '**/raw/*'; repeatable."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="png, tiff, jpeg, webp, bmp, ppm, jxl or jp2.",
            show_default="that of the input",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            metavar="N",
            help="Quality of JPEG, and of WebP and JPEG XL, which it makes lossy.",
            show_default="that of the input",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    bit_depth: Annotated[
        int | None,
        typer.Option(
            metavar="BITS",
            help="8, 16 or 32 (floating point).",
            show_default="that of the input",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble",
            help="Mean over all eight rotations and reflections; takes eight times as long.",
            rich_help_panel=_RESULTS,
        ),
    ] = False,
    strength: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="0 is the input (enlarged bicubically, if the model enlarges), 1 the full effect.",
            rich_help_panel=_RESULTS,
        ),
    ] = 1.0,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Names of results, e.g. '{stem}-{model}{suffix}'; then --out may be the folder of the inputs.",
            show_default="as the inputs; next to them {stem}-restored{suffix}",
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A picture, white where to restore, black where not; or a folder of them, named as the inputs.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="How many times as long the sides of results are, e.g. 1.5: enlarged by the model, then reduced.",
            show_default="that of the model",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Size that results fit into, e.g. 3000x2000, 3000x or x2000; as --scale.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="Restore only this part of the picture, in its pixels; the same as in the whole result.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A keyword of the recipe, e.g. scale=3; repeatable.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    sidecars: Annotated[
        bool,
        typer.Option(
            "--sidecars",
            help="Add the XMP in files next to the pictures (NAME.xmp, NAME.EXT.xmp) to the results.",
            rich_help_panel=_RESULTS,
        ),
    ] = False,
    page: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Restore only this page of a TIFF; the first one is 1.",
            show_default="all pages, written as pages",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    white: White = None,
    exposure_ratio: Annotated[
        str,
        typer.Option(
            metavar="RATIO",
            help="Brighten as if the exposure had been RATIO times longer; auto estimates it.",
            rich_help_panel=_RAW,
        ),
    ] = "auto",
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Brighten to the exposure of this RAW file instead.",
            rich_help_panel=_RAW,
        ),
    ] = None,
    networks: NetworkFiles = None,
    device: Device = "auto",
    backend: Backend = None,
    precision: Precision = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory limit of the process, e.g. 2GB.",
            show_default="half of the free memory",
            rich_help_panel=_EFFORT,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of pictures to decode, and to encode, while another one is in the network.",
            rich_help_panel=_EFFORT,
        ),
    ] = 2,
    tile: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PX",
            help="Side of the tiles. Affects time and memory, not the result.",
            show_default="as large as is fast and fits the memory",
            rich_help_panel=_EFFORT,
        ),
    ] = None,
    halo: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="PX",
            help="How far around each tile the picture is read. Less is faster, but not exact.",
            show_default="as far as the network sees: exact",
            rich_help_panel=_EFFORT,
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Refuse larger pictures before they are decoded.",
            show_default="500 million",
            rich_help_panel=_EFFORT,
        ),
    ] = None,
) -> None:
    """Restore pictures, and folders of them.

    A picture keeps its bit depth, its transparency and, if the format supports it, its metadata; see the table in
    docs/formats.md. Camera RAW files are developed first; models for dark RAW files restore the mosaic itself.
    Finished results in a folder are skipped, so the same command resumes after an interruption.
    """
    with defer_sigint():
        from pellucid.pictures import formats, images
        from pellucid.restoration import planning, restorer
        from pellucid.restoration.report import is_report, make_report
        from pellucid.restoration.settings import Settings
        from pellucid.system import files
        from pellucid.weights import models

    add_networks(networks)
    choices = Settings(
        tile_px=tile,
        halo_px=halo,
        ensemble=ensemble,
        strength=strength,
        memory_bytes=None if memory is None else parse_bytes(memory),
        quality=quality,
        bit_depth=bit_depth,
        exposure=parse_exposure(exposure_ratio, reference),
        sidecars=sidecars,
        page=page,
        white=white,
        scale=scale,
        size=None if size is None else parse_size(size),
        crop=None if crop is None else parse_crop(crop),
        max_pixels=images.MAX_PIXELS if max_pixels is None else max_pixels,
    )
    jobs = planning.plan(
        inputs,
        out,
        format=format,
        include=include or (),
        exclude=exclude or (),
        name=name,
        model=models.find_name(model),
        mask=mask,
        overwrite=overwrite,
        strict=False,
    )
    _print_passed_over(jobs, with_sidecars=sidecars)
    if len(jobs) == 1 and jobs[0].root is None:
        files.check_overwrite(jobs[0].target, overwrite=overwrite)
    if report is not None and not is_stdout(report):
        used = [path for job in jobs for path in (job.source, job.target)]
        files.check_report(report, used, overwrite=overwrite or is_report(report))
    given = parse_keywords(settings, options=("backend", "device", "overwrite", "precision"))
    chosen = restorer.load(model, device=device, backend=backend, precision=precision, **given)
    for one in chosen.models:
        if one.choice is not None:
            print_info(f"{one.name}: {one.choice}" if len(chosen.models) > 1 else one.choice)
    for override in chosen.overrides():
        print_warning(override)
    if choices.exposure != "auto" and not chosen.recipe.domain.takes_mosaic:
        print_warning(
            f"{chosen.name} restores developed pictures; --exposure-ratio and --reference have no effect"
        )
    if quality is not None:
        targets = {kind.name: kind for kind in (formats.format_by_suffix(job.target) for job in jobs)}
        for name in sorted(name for name, kind in targets.items() if not kind.takes_quality):
            print_warning(f"--quality has no effect on {name}, which is written without loss")
    if halo is not None and halo < chosen.halo_px:
        _print_halo_error(chosen, jobs, choices)
    outcomes, is_interrupted = _run(jobs, chosen, choices, workers=workers, overwrite=overwrite)
    if report is not None:
        write_json(report, make_report(outcomes, chosen, jobs.problems), overwrite=overwrite or is_report(report))
    if is_interrupted:
        print_info(f"interrupted after {len(outcomes)} of {len(jobs)} pictures; the same command resumes")
        raise typer.Exit(130)
    _print_summary(outcomes, chosen, with_results=not is_stdout(report))
    for problem in jobs.problems:
        print_error(problem)
    if jobs.problems or any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


def _run(
    jobs: "Sequence[Job]", restorer: "Restorer", settings: "Settings", *, workers: int, overwrite: bool
) -> "tuple[list[Outcome], bool]":
    """The outcomes of all jobs, or of those before an interruption, and whether there was one."""
    from pellucid.restoration.restore import iter_restore

    finished: list[Outcome] = []
    with sigterm_as_sigint(), progress("{task.fields[rate]}") as bar:
        task = bar.add_task("restoring", total=len(jobs), rate="")
        start, megapixels = time.monotonic(), 0.0
        printed_at = start
        outcomes = iter_restore(
            jobs,
            restorer,
            settings=settings,
            workers=workers,
            overwrite=overwrite,
            progress=lambda position: bar.update(task, completed=position),
        )
        try:
            for outcome in outcomes:
                finished.append(outcome)
                megapixels += outcome.megapixels
                now = time.monotonic()
                rate = f"{megapixels / (now - start):.2f} MP/s" if megapixels else ""
                bar.update(task, rate=rate)
                if bar.disable and now - printed_at > STATUS_EVERY_S:
                    print_info(f"{len(finished)} of {len(jobs)} pictures, {rate}")
                    printed_at = now
        except KeyboardInterrupt:
            outcomes.close()
            return finished, True
    return finished, False


def _print_summary(outcomes: "Sequence[Outcome]", restorer: "Restorer", *, with_results: bool) -> None:
    """Where the results are, how inputs were read, and what failed."""
    restored = [outcome for outcome in outcomes if outcome.error is None and not outcome.is_skipped]
    num_skipped = sum(outcome.is_skipped for outcome in outcomes)
    messages = [
        (message, outcome.source)
        for outcome in outcomes
        for message in (*outcome.info, *(f"warning: {warning}" for warning in outcome.warnings))
    ]
    first = {message: source for message, source in reversed(messages)}
    for message, count in Counter(message for message, _ in messages).items():
        print_info(f"{first[message]}{f' and {count - 1} more' if count > 1 else ''}: {message}")
    if not with_results:
        pass
    elif len(outcomes) == 1 and num_skipped:
        typer.echo(f"{outcomes[0].target} already exists (--overwrite restores it again)")
    elif len(outcomes) == 1 and restored:
        typer.echo(restored[0].target)
    elif len(outcomes) > 1:
        skipped = f", {num_skipped} already exist (--overwrite restores them again)" if num_skipped else ""
        typer.echo(f"{len(restored)} of {len(outcomes)} pictures restored by {restorer.name}{skipped}")
    for outcome in outcomes:
        if outcome.error is not None:
            print_error(outcome.error)


def _print_passed_over(plan: "Plan", *, with_sidecars: bool) -> None:
    """Which files of the folders are not used."""
    from pellucid.pictures.finding import describe_ignored

    ignored = {suffix: count for suffix, count in plan.ignored.items() if suffix != ".xmp" or not with_sidecars}
    if ignored:
        hint = "; --sidecars adds the XMP to the results" if ".xmp" in ignored else ""
        print_info(describe_ignored(ignored) + hint)
    if plan.num_excluded:
        print_info(f"{plan.num_excluded} pictures left out by --include and --exclude")
    if plan.num_results:
        print_info(f"{plan.num_results} results of earlier runs left out")


def _print_halo_error(restorer: "Restorer", jobs: "Sequence[Job]", settings: "Settings") -> None:
    from pellucid.restoration.reading import read_degraded

    assert settings.halo_px is not None
    try:
        degraded, _ = read_degraded(
            jobs[0].source,
            restorer.recipe.domain,
            exposure=settings.exposure,
            max_pixels=settings.max_pixels,
            page=settings.page or 1,
            white=settings.white,
        )
        error = restorer.halo_error(degraded, halo_px=settings.halo_px, tile_px=settings.tile_px)
    except PellucidError:
        return  # restoring the picture will report it
    if error == 0:
        return
    print_warning(
        f"with a halo of {settings.halo_px} px instead of {restorer.halo_px}, results are not exact: in "
        f"the middle of {jobs[0].source.name} they differ by up to {error * 255:.2g} of 255"
    )
