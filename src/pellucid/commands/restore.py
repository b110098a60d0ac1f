"""`pellucid restore`."""

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pellucid.commands import restore_options as options
from pellucid.commands.options import (
    Exact,
    FastBackend,
    NetworkFiles,
    Overwrite,
    Precision,
    Shard,
    White,
    add_networks,
    check_cluster,
    check_scale,
    parse_bytes,
    parse_crop,
    parse_exposure,
    parse_keywords,
    parse_shard,
    parse_size,
    refuse,
    settle_backend,
)
from pellucid.commands.restore_auto import AUTO, group_by_model
from pellucid.commands.restore_status import format_duration, show_status
from pellucid.commands.standard_streams import Streams, standard_streams
from pellucid.commands.terminal import (
    is_stdout,
    open_on_screen,
    print_detail,
    print_error,
    print_info,
    print_line,
    print_name,
    print_warning,
    sigterm_as_sigint,
    write_json,
)
from pellucid.errors import OutputError, PellucidError
from pellucid.system.device_names import names_several
from pellucid.system.signals import defer_sigint
from pellucid.system.wording import format_count

if TYPE_CHECKING:
    from pellucid.restoration.planning import Job, Plan
    from pellucid.restoration.position import Position
    from pellucid.restoration.restorer import Restorer
    from pellucid.restoration.sessions import Outcome
    from pellucid.restoration.settings import Settings
    from pellucid.storage.urls import Location


def restore(
    inputs: options.Inputs,
    model: options.Models,
    out: options.Out = None,
    overwrite: Overwrite = False,
    name: options.Name = None,
    report: options.Report = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    sidecars: options.Sidecars = False,
    page: options.Page = None,
    white: White = None,
    scale: options.Scale = None,
    size: options.Size = None,
    mask: options.Mask = None,
    strength: options.Strength = 1.0,
    ensemble: options.Ensemble = False,
    settings: options.Set = None,
    format: options.Format = None,
    quality: options.Quality = None,
    bit_depth: options.BitDepth = None,
    preview: options.Preview = False,
    compare: options.Compare = False,
    crop: options.Crop = None,
    dry_run: options.DryRun = False,
    exposure_ratio: options.ExposureRatio = "auto",
    reference: options.Reference = None,
    networks: NetworkFiles = None,
    device: options.Devices = "auto",
    backend: FastBackend = None,
    precision: Precision = None,
    exact: Exact = False,
    memory: options.Memory = None,
    workers: options.Workers = 2,
    shard: Shard = None,
    on: options.On = None,
    processes: options.Processes = None,
    tile: options.Tile = None,
    halo: options.Halo = None,
    timeout: options.Timeout = None,
    max_pixels: options.MaxPixels = None,
) -> None:
    """Restore pictures, and folders of them.

    A picture keeps its bit depth, its transparency and, if the format supports it, its metadata; see the table in
    docs/formats.md. Camera RAW files are developed first; models for dark RAW files restore the mosaic itself.
    Finished results in a folder are skipped, and finished tiles of a picture that takes long are kept, so the same
    command resumes after an interruption.
    """
    with defer_sigint():
        from pellucid.backends.backend import list_devices
        from pellucid.pictures import images
        from pellucid.restoration import planning, restorer
        from pellucid.restoration.loading import Loading
        from pellucid.restoration.on_cluster import iter_restore_on, iter_restore_on_devices
        from pellucid.restoration.restore import iter_restore
        from pellucid.restoration.settings import Settings
        from pellucid.storage.urls import is_url
        from pellucid.weights import models

    add_networks(networks)
    check_scale(scale, size)
    is_asked = "auto" in (backend, precision)
    backend, precision = settle_backend(
        backend, precision, exact=exact, models=model, is_distributed=on is not None or names_several(device)
    )
    given = parse_keywords(settings, options=("backend", "device", "overwrite", "precision"))
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
        compare=compare,
        timeout_s=timeout,
        max_pixels=images.MAX_PIXELS if max_pixels is None else max_pixels,
    )
    if preview:
        refuse(
            "--preview only draws a sheet",
            json=report, sidecars=sidecars, scale=scale, size=size, mask=mask, format=format,
            quality=quality, bit_depth=bit_depth, compare=compare, dry_run=dry_run, timeout=timeout, shard=shard,
            on=on,
        )  # fmt: skip
    elif len(model) > 1:
        raise typer.BadParameter("several --model are for --preview; --model A+B runs one after the other")
    if any(AUTO in one.split("+") for one in model if one != AUTO):
        raise typer.BadParameter("--model auto chooses one model for each picture; it cannot be part of a chain")
    if AUTO in model:
        refuse("--model auto draws no sheets; 'pellucid advise --try' does", preview=preview)
        refuse(
            "--model auto chooses a model for each picture; these need the name of one",
            set=settings, scale=scale, size=size, shard=shard, on=on,
        )  # fmt: skip
    if dry_run:
        refuse("--dry-run writes nothing", json=report, on=on)
    check_cluster(on, processes=processes, shard=shard)
    if on is not None and names_several(device):
        raise typer.BadParameter(f"--on divides the work itself; --device {device} must be one device")
    devices = list_devices(device)
    if "-" in inputs or out == "-":
        refuse("- is one picture", name=name, preview=preview, compare=compare, shard=shard, on=on)
    if "-" in inputs:
        refuse("- has no files next to it", sidecars=sidecars)
        if out is not None and out != "-" and not planning.names_file(out):
            raise typer.BadParameter(f"--out {out} names a folder; - is one picture and needs the name of a file")
    if is_stdout(report) and (out == "-" or (out is None and "-" in inputs)):
        raise typer.BadParameter("the result and --json - would both be standard output")
    if sidecars and any(map(is_url, inputs)):
        raise typer.BadParameter("--sidecars is for files and folders of this computer; omit it")
    own_format = "dng" if format is None and restorer.returns_mosaics(model[0]) else format
    with standard_streams(inputs, out, own_format) as streams:
        jobs = planning.plan(
            streams.inputs,
            streams.out,
            format="png" if preview else own_format,
            include=include or (),
            exclude=exclude or (),
            name="{stem}-preview{suffix}" if preview and name is None and not planning.names_file(out) else name,
            model=AUTO if AUTO in model else "+".join(map(models.find_name, model)),
            mask=mask,
            overwrite=overwrite,
            strict=False,
            shard=parse_shard(shard),
        )
        _print_passed_over(jobs, with_sidecars=sidecars)
        names = [str(streams.names.get(place, place)) for job in jobs for place in (job.source, job.target)]
        _check_outputs(jobs, report, names, overwrite=overwrite or preview)
        groups: Mapping[str, Sequence[Job]] = {one: jobs for one in model} if jobs.whole else {}
        others: Sequence[Outcome] = ()
        if AUTO in model:
            groups, others = group_by_model(jobs, choices, streams.names)
        num_failed = sum(one.error is not None for one in others)
        chosen = {
            one: restorer.load(one, device=devices[0], backend=backend, precision=precision, **given)
            for one in groups
        }
        for key, one in chosen.items():
            _print_choices(one, choices, groups[key] if preview or dry_run else [], with_backend=is_asked)
        if preview:
            num_failed = _draw_previews(jobs, [*chosen.values()], choices, overwrite=overwrite)
        elif dry_run:
            num_failed += sum(
                _print_plan(groups[key], one, choices, streams, overwrite=overwrite) for key, one in chosen.items()
            )
        else:
            reporting = _Reporting(
                report, model[0], jobs.problems, [*map(streams.rename, others)], names, overwrite=overwrite
            )
            for key, one in chosen.items():
                own = groups[key]
                iterate: Callable[..., Generator[Outcome, None, None]]
                loading = Loading(key, devices[0], backend, precision, given, networks or ())
                if on is not None:
                    iterate = partial(iter_restore_on, on, own, one, loading, choices, processes=processes)
                elif len(devices) > 1 and len(own) > 1:
                    iterate = partial(iter_restore_on_devices, devices, own, one, loading, choices)
                else:
                    iterate = partial(iter_restore, own, one, settings=choices)
                iterate = partial(iterate, workers=workers, overwrite=overwrite)
                outcomes = _run(iterate, own, one, choices, streams=streams, reporting=reporting)
                has_results = not (streams.is_stdout or is_stdout(report))
                _print_summary(outcomes, one, with_results=has_results)
                num_failed += sum(outcome.error is not None for outcome in outcomes)
            reporting.write()
        for problem in jobs.problems:
            print_error(problem)
        if num_failed or jobs.problems:
            raise typer.Exit(1)


def _check_outputs(jobs: "Plan", report: Path | None, names: "Sequence[str]", *, overwrite: bool) -> None:
    """Raise OutputError, before any work, if a result or the report would replace a file.

    names: of sources and results, see `is_report_of`.
    """
    from pellucid.restoration.report import is_report_of
    from pellucid.system import files

    if len(jobs.whole) == 1 and jobs.whole[0].root is None and isinstance(jobs.whole[0].target, Path):
        files.check_overwrite(jobs.whole[0].target, overwrite=overwrite)
    if report is not None and not is_stdout(report):
        places = (place for job in jobs.whole for place in (job.source, job.target))
        used = [path for path in places if isinstance(path, Path)]
        files.check_report(report, used, overwrite=overwrite or is_report_of(report, names))


class _Reporting:
    """The file of --json.

    others: outcomes of pictures without a model ("auto"). names: of sources and results, see `is_report_of`.
    """

    def __init__(
        self,
        file: Path | None,
        model: str,
        problems: "Sequence[PellucidError]",
        others: "Sequence[Outcome]",
        names: "Sequence[str]",
        *,
        overwrite: bool,
    ) -> None:
        self._file, self._model, self._problems, self._overwrite = file, model, problems, overwrite
        self._others, self._names = others, names
        self._parts: list[dict[str, Any]] = []

    def add(self, outcomes: "Sequence[Outcome]", restorer: "Restorer") -> None:
        from pellucid.restoration.report import make_report

        self._parts.append(make_report(outcomes, restorer, self._problems))

    def write(self) -> None:
        from pellucid.restoration.report import is_report_of, join_reports

        if self._file is not None:
            if self._model == AUTO or not self._parts:
                content = join_reports(self._model, self._parts, self._others, self._problems)
            else:
                content = self._parts[0]
            is_own = is_report_of(self._file, self._names)
            write_json(self._file, content, overwrite=self._overwrite or is_own)


def _run(
    iterate: "Callable[..., Generator[Outcome, None, None]]",
    jobs: "Sequence[Job]",
    restorer: "Restorer",
    settings: "Settings",
    *,
    streams: Streams,
    reporting: _Reporting,
) -> "list[Outcome]":
    """The outcomes of all jobs, renamed. After an interruption, the report contains those until then.

    iterate: restores them, given `progress`, a function that shows the progress.
    """
    if settings.halo_px is not None and settings.halo_px < restorer.halo_px:
        _print_halo_error(restorer, jobs, settings)
    finished: list[Outcome] = []
    is_interrupted, last = False, None

    def follow(position: "Position") -> None:
        nonlocal last
        last = position
        update(position)

    with sigterm_as_sigint(), show_status(len(jobs), finished) as update:
        outcomes = iterate(progress=follow)
        try:
            for outcome in outcomes:
                finished.append(streams.rename(outcome))
        except KeyboardInterrupt:
            outcomes.close()
            is_interrupted = True
    places: dict[Location | None, int] = {job.source: place for place, job in enumerate(jobs)}
    finished.sort(key=lambda outcome: places.get(outcome.source, 0))  # several processes finish in any order
    reporting.add(finished, restorer)
    if is_interrupted:
        reporting.write()
        print_info(_describe_interruption(len(jobs), len(finished), None if streams.is_stdout else last))
        raise typer.Exit(130)
    return finished


def _print_plan(
    jobs: "Sequence[Job]", restorer: "Restorer", settings: "Settings", streams: Streams, *, overwrite: bool
) -> int:
    """Print which file would become which result, and what would fail; returns how many would."""
    from pellucid.restoration.restore import check_files

    failures = 0
    for outcome in map(streams.rename, check_files(jobs, restorer, settings, overwrite=overwrite)):
        if outcome.error is None:
            exists = " (exists already)" * outcome.is_skipped
            print_line(f"{outcome.source} -> {outcome.target}{exists}")
        else:
            print_error(outcome.error)
            failures += 1
    return failures


def _draw_previews(
    jobs: "Sequence[Job]", restorers: "Sequence[Restorer]", settings: "Settings", *, overwrite: bool
) -> int:
    """Draw a sheet for each picture, print its path, and show a single one if there is a screen.

    Returns how many pictures failed.
    """
    from pellucid.restoration.position import Position
    from pellucid.restoration.preview import write_preview
    from pellucid.storage.objects import local_copy

    failures = 0
    with sigterm_as_sigint(), show_status(len(jobs)) as update:
        for i, job in enumerate(jobs):

            def advance(part: float, i: int = i, job: "Job" = job) -> None:
                update(Position(i + part, len(jobs), job.source))

            try:
                if not isinstance(job.target, Path):
                    raise OutputError(f"{job.target}: sheets are written to this computer", hint="choose {out}")
                with local_copy(job.source) as source:
                    warnings = write_preview(
                        source, job.target, restorers, settings, overwrite=overwrite, progress=advance
                    )
                for warning in warnings:
                    print_warning(f"{job.source}: {warning}")
                print_name(job.target)
            except PellucidError as error:
                print_error(error.about(job.source))
                failures += 1
    if len(jobs) == 1 and not failures and isinstance(jobs[0].target, Path):
        open_on_screen(jobs[0].target)
    return failures


def _describe_interruption(num_jobs: int, num_done: int, position: "Position | None") -> str:
    """What is finished, and what the same command does. position: the last one, if tiles may be kept."""
    kept_s = 0.0 if position is None else position.kept_s
    kept = f"; {format_duration(kept_s)} of its work are kept" if kept_s else ""
    if num_jobs > 1:
        done = f"{num_done} of {format_count(num_jobs, 'picture')}"
        return f"interrupted after {done}; the same command resumes with the next one{kept}"
    if position is None or not kept:
        return "interrupted; nothing is written, and the same command starts again"
    return f"interrupted at {position.num_done:.0%}{kept}, and the same command resumes"


def _print_choices(
    restorer: "Restorer", settings: "Settings", jobs: "Sequence[Job]", *, with_backend: bool
) -> None:
    """How a model runs, and which settings have no effect on these jobs; jobs that run warn by themselves.

    with_backend: whether "auto" was asked for, not just the default.
    """
    from pellucid.restoration.suitability import warn_about_settings

    is_default = not with_backend and any(model.choice is not None for model in restorer.models)
    for line in restorer.describe_backends():
        (print_detail if is_default else print_info)(line)
    ineffective = (line for job in jobs for line in warn_about_settings(job.target, restorer, settings))
    idle = (line for model in restorer.models for line in model.describe_idle())
    for warning in dict.fromkeys((*restorer.overrides(), *idle, *ineffective)):
        print_warning(warning)


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
        pass  # standard output contains the result itself
    elif len(outcomes) == 1 and num_skipped:
        print_line(f"{outcomes[0].target} already exists (--overwrite restores it again)")
    elif len(outcomes) == 1 and restored:
        print_name(restored[0].target)
    elif len(outcomes) > 1:
        skipped = f", {num_skipped} already exist (--overwrite restores them again)" if num_skipped else ""
        print_line(f"{len(restored)} of {len(outcomes)} pictures restored by {restorer.name}{skipped}")
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
        print_info(f"{format_count(plan.num_excluded, 'picture')} left out by --include and --exclude")
    if plan.shard is not None:
        print_info(f"shard {plan.shard}: {len(plan)} of {format_count(len(plan.whole), 'picture')}")
    if plan.num_results:
        print_info(f"{format_count(plan.num_results, 'result')} of earlier runs left out")


def _print_halo_error(restorer: "Restorer", jobs: "Sequence[Job]", settings: "Settings") -> None:
    from pellucid.restoration.stages import read_first_page
    from pellucid.storage.objects import local_copy

    assert settings.halo_px is not None
    try:
        with local_copy(jobs[0].source) as source:
            degraded = read_first_page(source, restorer.recipe.domain, settings)
        error = restorer.halo_error(degraded, halo_px=settings.halo_px, tile_px=settings.tile_px)
    except PellucidError:
        return  # restoring the picture will report it
    if error == 0:
        return
    print_warning(
        f"with a halo of {settings.halo_px} px instead of {restorer.halo_px}, results are not exact: in "
        f"the middle of {jobs[0].source.name} they differ by up to {error * 255:.2g} of 255"
    )
