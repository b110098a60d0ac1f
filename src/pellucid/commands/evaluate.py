"""`pellucid evaluate`."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.commands.options import (
    Backend,
    Device,
    Json,
    NetworkFiles,
    On,
    Overwrite,
    Parameters,
    Precision,
    Processes,
    Shard,
    White,
    add_networks,
    as_local,
    check_cluster,
    check_overwrite,
    parse_keywords,
    parse_shard,
)
from pellucid.commands.terminal import (
    add_row,
    is_stdout,
    print_error,
    print_info,
    print_leaks,
    print_line,
    print_table,
    print_warning,
    progress,
    show_progress,
    table,
    write_json,
    write_result,
)
from pellucid.system.signals import defer_sigint
from pellucid.system.wording import format_count

if TYPE_CHECKING:
    from pellucid.evaluation.report import Report
    from pellucid.restoration.loading import Loading
    from pellucid.restoration.restorer import Restorer
    from pellucid.system import shards


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Name of a model (see 'pellucid models') or path of a weight file. Without one, the pictures in "
            "--data are scored as they are.",
        ),
    ] = None,
    parameters: Parameters = None,
    *,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="NAME_OR_FILE", help="Another model to compare; repeatable."),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="Clean pictures, or degraded pictures with --target, or a store; without MODEL, the results to "
            "score. Also as a URL, e.g. s3://bucket/Set12.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Targets of the pictures in --data, matched by name, or in order if no names agree.",
        ),
    ] = None,
    colors: Annotated[
        str | None,
        typer.Option(
            metavar="COLORS",
            help="Score rgb, y (luma, as in super-resolution papers) or gray; only for pairs.",
            show_default="those of the recipe, or rgb",
        ),
    ] = None,
    border: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="PX",
            help="Width of the border that is not scored.",
            show_default="that of the recipe, or 0",
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1, max=30, metavar="N", help="Score with N noise seeds: mean and 95 % confidence interval."
        ),
    ] = 1,
    networks: NetworkFiles = None,
    json_file: Json = None,
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", help="Write a row for each model, picture and seed as CSV; - as for --json."
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the restored pictures into this folder, as PNG.")
    ] = None,
    train_data: Annotated[
        list[str] | None,
        typer.Option(
            "--train-data",
            metavar="STORE",
            help="Report leaks: pictures that are also in this training data. Repeatable.",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for the scores of single pictures, which all shards share.",
            show_default="a file in the cache until everything is scored",
        ),
    ] = None,
    shard: Shard = None,
    on: On = None,
    processes: Processes = None,
    white: White = None,
    device: Device = "auto",
    backend: Backend = None,
    precision: Precision = None,
    overwrite: Overwrite = False,
) -> None:
    """Score models or results on a folder or store: PSNR and SSIM of each picture, their means, and the protocol.

    The same command resumes an interrupted evaluation: finished pictures are not computed again, unless data,
    weights or settings have changed. With --shard, only one shard is scored and saved in --record; the same
    command without --shard then reports all scores. With --on, worker processes of a Ray cluster do the work.
    """
    with defer_sigint():
        from pellucid.data import store
        from pellucid.evaluation.report import to_csv
        from pellucid.restoration.loading import Loading

    check_overwrite(overwrite, {"--json": json_file, "--csv": csv_file, "--save": save})
    add_networks(networks)
    keywords, names = parameters or [], models or []
    if model is not None and re.match(r"[a-z_0-9]+=", model):
        keywords = [model, *keywords]  # every model is an option
    elif model is not None:
        names = [model, *names]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise typer.BadParameter(f"{repeated[0]} is given twice; omit one")
    for keyword in keywords:
        if "=" not in keyword:
            raise typer.BadParameter(f"{keyword!r} is not a keyword, KEY=VALUE; --model adds another model")
    given = parse_keywords(keywords, options=("backend", "colors", "device", "overwrite", "precision", "seeds"))
    of_models = {"save": save, "seeds": seeds, "device": device, "backend": backend, "precision": precision}
    _check_usage(names, given, target, of_models)
    check_cluster(on, processes=processes, shard=shard)
    part = parse_shard(shard)
    if part is not None:
        _check_shard_options(record, {"json": json_file, "csv": csv_file, "train-data": train_data or None})
    if is_stdout(json_file) and is_stdout(csv_file):
        raise typer.BadParameter("--json - and --csv - would both be standard output")
    pictures, targets = as_local(data), None if target is None else as_local(target)
    train_stores = [store.open(as_local(place)) for place in train_data or ()]
    loadings = [Loading(name, device, backend, precision, given, networks or ()) for name in names]
    chosen = [loading.load() for loading in loadings]
    if len({one.name for one in chosen}) < len(chosen):  # e.g. the weights.safetensors of two trainings
        for one, name in zip(chosen, names, strict=True):
            one.name = name
    for one in chosen:
        for line in one.describe_backends():
            print_info(line)
    _check_files(chosen, pictures, targets, white, [json_file, csv_file], overwrite=overwrite)
    settings = {"target": targets, "colors": colors, "border_px": border, "white": white}
    with _record(record, [names, given, data, {**settings, "overwrite": overwrite}, seeds, save]) as path:
        if on is None:
            verbs = _verbs(chosen, pictures, shard=part, **settings)
        else:
            verbs = _verbs_on(on, chosen, loadings, data, processes=processes, **{**settings, "target": target})
        with _connected(on, len(chosen)):
            reports = list(_score_each(verbs, chosen, seeds, save, record=path, overwrite=overwrite))
    if json_file is not None:
        content = [report.to_json() for report in reports]
        write_json(json_file, content if len(names) > 1 else content[0], overwrite=overwrite)
    if csv_file is not None:
        write_result(csv_file, to_csv(reports), overwrite=overwrite)
    if part is not None:
        _print_shard(part, reports)
    elif not is_stdout(json_file, csv_file):
        _print_scores(reports)
    _print_messages(reports)
    for train_store in train_stores:
        print_leaks(train_store, targets or pictures)
    for error in dict.fromkeys(str(error) for report in reports for _, error in report.failures):
        print_error(error)
    if any(report.failures for report in reports):
        raise typer.Exit(1)


def _check_usage(names: Sequence[str], given: Any, target: str | None, of_models: dict[str, Any]) -> None:
    """Without a model, only pictures and their targets are needed, and options of models cannot act."""
    if names:
        return
    if target is None:
        raise typer.BadParameter("a MODEL is needed, or --target to score the pictures in --data as they are")
    if given:
        raise typer.BadParameter(f"{next(iter(given))}= is a keyword of a recipe, which needs a MODEL")
    for option, value in of_models.items():
        if value not in (None, 1, "auto"):
            raise typer.BadParameter(f"--{option} needs a MODEL")


def _check_files(
    chosen: "Sequence[Restorer]",
    data: Path,
    target: Path | None,
    white: float | None,
    results: Sequence[Path | None],
    *,
    overwrite: bool,
) -> None:
    """Raise OutputError if a result would replace one of the pictures; print which files are not used."""
    from pellucid.data import eval_samples
    from pellucid.evaluation import evaluate as evaluation
    from pellucid.system import files

    if chosen:
        collections = [evaluation.collect(one.recipe, data, target, white=white) for one in chosen]
    else:
        collections = [eval_samples.collect(data, target, white=white)]
    for message in collections[0].messages:
        print_info(message)
    used = [path for sample in collections[0].samples for path in sample.files]
    for result in results:
        if result is not None and not is_stdout(result):
            files.check_report(result, used, overwrite=overwrite)
            used.append(result)


def _check_shard_options(record: Path | None, whole: dict[str, object]) -> None:
    """Raise typer.BadParameter without a folder for the scores, and for options that need those of all shards."""
    if record is None:
        raise typer.BadParameter("--shard needs --record FOLDER, which all shards share")
    used = [f"--{option}" for option, path in whole.items() if path is not None]
    if used:
        raise typer.BadParameter(
            f"{', '.join(used)} and --shard exclude each other: scores are complete at the end"
        )


def _print_shard(shard: "shards.Shard", reports: "Sequence[Report]") -> None:
    for report in reports:
        print_line(
            f"{report.model}, shard {shard}: {format_count(len(report.scores), 'picture')} scored; after all "
            f"shards, the same command without --shard reports the scores"
        )


@contextmanager
def _record(folder: Path | None, command: object) -> Iterator[Path | None]:
    """Where finished pictures are recorded: a folder, or a file in the cache.

    The file is deleted at the end, but not if there is an interruption. command: what the file belongs to. None if
    the cache cannot be written.
    """
    from pellucid.errors import OutputError
    from pellucid.evaluation.score_log import ScoreLog, make_key
    from pellucid.system import files

    if folder is not None:
        with _resumable():
            files.make_folder(folder)
            yield folder
        return
    path = files.cache_folder() / "evaluations" / f"{make_key(command, Path.cwd())[:32]}.jsonl"
    try:
        record = ScoreLog(path)
    except OutputError as error:
        print_info(f"{error.facts}; if interrupted, this evaluation starts again")
        yield None
        return
    with _resumable():
        yield path
    record.remove()


@contextmanager
def _resumable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print_info("interrupted; the same command resumes, without the pictures that are finished")
        raise typer.Exit(130) from None


Verb = Callable[..., "Report"]
"""`evaluate` or `score`, with all arguments but those about results and progress."""


def _verbs(chosen: "Sequence[Restorer]", data: Path, **settings: Any) -> list[Verb]:
    """What makes the report of each model, or of the results in `data`."""
    from pellucid.evaluation import evaluate as evaluation

    if not chosen:
        return [partial(evaluation.score, data, **_given(settings))]
    return [partial(evaluation.evaluate, restorer, data, **settings) for restorer in chosen]


def _verbs_on(
    cluster: str, chosen: "Sequence[Restorer]", loadings: "Sequence[Loading]", data: str, **settings: Any
) -> list[Verb]:
    """`_verbs` on a cluster."""
    from pellucid.evaluation.on_cluster import evaluate_on, score_on

    if not chosen:
        return [partial(score_on, cluster, data, **_given(settings))]
    return [
        partial(evaluate_on, cluster, restorer, loading, data, **settings)
        for restorer, loading in zip(chosen, loadings, strict=True)
    ]


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _connected(on: str | None, num_models: int) -> AbstractContextManager[object]:
    """One connection for several models, because starting Ray takes long."""
    from pellucid.clusters.connection import connect

    return nullcontext() if on is None or num_models < 2 else connect(on)


def _score_each(
    verbs: Iterable[Verb], chosen: "Sequence[Restorer]", seeds: int, save: Path | None, **options: Any
) -> "Iterator[Report]":
    """The report of each model, under a name that no other model has; or the report of given results."""
    for verb, restorer in zip_longest(verbs, chosen):
        if restorer is None:
            del options["overwrite"]  # of reports only
        else:
            options["save"] = save if len(chosen) == 1 or save is None else save / restorer.name
            options["num_seeds"] = seeds
        with progress() as bar:
            name = "scoring" if restorer is None else f"scoring {restorer.name}"
            yield verb(progress=show_progress(bar, name), **options)


def _print_scores(reports: "Sequence[Report]") -> None:
    """The scores of each picture, the means of each model, and the protocols."""
    if len(reports) == 1:
        _print_pictures(reports[0])
    else:
        _print_comparison(reports)
    for report in reports:
        print_line(report.model if report.recipe is None else f"{report.model}: {report.recipe.name}")
        for line in report.statement():
            print_line(f"  {line}")


def _print_messages(reports: "Sequence[Report]") -> None:
    """Why scores may be wrong, or cannot be compared with each other."""
    from pellucid.evaluation.report import describe_differences

    differences = describe_differences(reports)
    if differences is not None:
        print_warning(f"these scores cannot be compared, because protocols differ: {differences}")
    if len({tuple(score.name for score in report.scores) for report in reports}) > 1:
        print_warning("these means cannot be compared: not every model was scored on the same pictures")
    for warning in dict.fromkeys(line for report in reports for line in (*report.overrides, *report.warnings)):
        print_warning(warning)
    num_resumed = sum(report.num_resumed for report in reports)
    if num_resumed:
        print_info(f"from earlier runs: {format_count(num_resumed, 'score')}")


def _print_pictures(report: "Report") -> None:
    """A table with a line for each picture."""
    rows = table("picture", "degraded dB", "PSNR dB", "SSIM", right=(1, 2, 3))
    for score in report.scores:
        add_row(rows, score.name, *_cells(score.degraded_psnr_db, score.psnr_db, score.ssim))
    rows.add_section()
    add_row(rows, f"mean of {len(report.scores)}", *_mean_cells(report), style="bold")
    print_table(rows)


def _print_comparison(reports: "Sequence[Report]") -> None:
    """The PSNR of each picture by each model, and the means of all models."""
    names = dict.fromkeys(score.name for report in reports for score in report.scores)
    psnr_db = [{score.name: score.psnr_db for score in report.scores} for report in reports]
    rows = table("PSNR dB", *(report.model for report in reports), right=range(1, len(reports) + 1))
    for name in names:
        add_row(rows, name, *(_cell(by_name.get(name), 2) for by_name in psnr_db))
    print_table(rows)
    means = table("mean", "pictures", "degraded dB", "PSNR dB", "SSIM", right=(1, 2, 3, 4))
    for report in reports:
        add_row(means, report.model, str(len(report.scores)), *_mean_cells(report))
    print_table(means)


def _mean_cells(report: "Report") -> tuple[str, str, str]:
    degraded, psnr_db, ssim = _cells(report.mean_degraded_psnr_db, report.mean_psnr_db, report.mean_ssim)
    if len(report.by_seed) == 1:
        return degraded, psnr_db, ssim
    return (
        degraded,
        f"{psnr_db} ± {_cell(report.psnr_db_confidence, 3)}",
        f"{ssim} ± {_cell(report.ssim_confidence, 5)}",
    )


def _cells(degraded_db: float | None, psnr_db: float, ssim: float | None) -> tuple[str, str, str]:
    return _cell(degraded_db, 2), _cell(psnr_db, 2), _cell(ssim, 4)


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
