"""The command line: each sub-command parses, calls the Python function of its name, and prints.

Nothing heavy is imported before a sub-command runs, so that `--help` answers at once.
"""

import json
import math
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from pellucid.errors import PellucidError

if TYPE_CHECKING:
    from rich.progress import Progress

    from pellucid.evaluation import Report
    from pellucid.preparing import Prepared
    from pellucid.restoration import Job, Outcome, Settings
    from pellucid.restorer import Restorer
    from pellucid.store import Store
    from pellucid.training import Status

_NUM_LISTED = 20
"""Of what was left out of a store, so many are named at once."""

app = typer.Typer(
    name="pellucid",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Learned image restoration: enlarge, denoise, deblock, deblur, brighten.",
    epilog="First steps: `pellucid models`, then `pellucid restore photo.png --model srcnn-x2`",
)

Parameters = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Keywords of the recipe; see 'pellucid recipes NAME'."),
]
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="NAME_OR_FILE", help="Name (see 'pellucid models') or path of a weight file."
    ),
]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps, ...: where the network runs.")
]
_RESULTS, _RAW, _EFFORT = "How results look", "Camera RAW", "Memory and time"

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are already there.")]


def main() -> None:
    """Entry point: errors that users can mend are one line and exit status 1."""
    # Half of the time of a shallow network goes into page faults on fresh activations; huge pages halve it.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold anything
    try:
        app()
    except PellucidError as error:
        _fail(str(error))
    except OSError as error:  # what no function expected: a full disk, a name too long, a lost share
        _fail(f"{error.strerror or error}: {str(error.filename)[:200]}")
    except MemoryError:
        _fail("not enough memory; smaller tiles need less: --tile 256")


def _version(wanted: bool) -> None:
    if wanted:
        from pellucid import __version__

        typer.echo(f"pellucid {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command(
    rich_help_panel="Use",
    epilog="Example: `pellucid restore scans/ --model srcnn-x2 --out larger/`",
)
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
            help="A file for one picture, else a folder. Without it: NAME-restored beside the input.",
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
            metavar="RAW", help="Take the ratio from a RAW file of the right exposure.", rich_help_panel=_RAW
        ),
    ] = None,
    device: Device = "auto",
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
    with _interrupts_held():
        from pellucid import files, restoration, restorer

    wishes = restoration.Settings(
        tile_px=tile,
        halo_px=halo,
        ensemble=ensemble,
        strength=strength,
        memory_bytes=None if memory is None else _bytes(memory),
        quality=quality,
        bit_depth=bit_depth,
        exposure=_exposure(exposure_ratio, reference),
        **({} if max_pixels is None else {"max_pixels": max_pixels}),
    )
    jobs = restoration.plan(inputs, out, format=format)
    if len(jobs) == 1 and jobs[0].root is None:
        files.check_free(jobs[0].target, overwrite=overwrite)
    if report is not None:
        files.check_free(report, overwrite=overwrite)
    chosen = restorer.load(model, device=device, **_parameters(settings))
    for change in chosen.changes():
        _note(change)
    if halo is not None and halo < chosen.halo_px:
        _say_what_is_given_up(chosen, jobs, wishes)
    outcomes = _restored(jobs, chosen, wishes, workers=workers, overwrite=overwrite)
    if report is not None:
        restoration.write_report(report, outcomes, chosen, overwrite=overwrite)
    _finish(outcomes, chosen)


@app.command(
    rich_help_panel="Use",
    epilog="Example: `pellucid evaluate mine.safetensors --data Set12 sigma_255=50`",
)
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name or path of a weight file.")],
    parameters: Parameters = None,
    *,
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Clean pictures; with --target, degraded ones.")],
    target: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The clean partners of --data, by name.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the restored pictures here, as PNG.")
    ] = None,
    train_data: Annotated[
        Path | None,
        typer.Option("--train-data", metavar="STORE", help="Warn of pictures the model was trained on."),
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Score a model on a folder: PSNR and SSIM of each picture, the means, and how they were counted."""
    with _interrupts_held():
        from pellucid import evaluation, files, restorer, store

    trained_on = None if train_data is None else store.open(train_data)
    if json_file is not None:
        files.check_free(json_file, overwrite=overwrite)
    chosen = restorer.load(model, device=device, **_parameters(parameters))
    with _progress() as bar:
        task = bar.add_task("scoring", total=None)
        report = evaluation.evaluate(
            chosen,
            data,
            target=target,
            save=save,
            overwrite=overwrite,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json_file is not None:
        report.write_json(json_file, overwrite=overwrite)
    _print_report(report)
    for change in report.changes:
        _note(change)
    if trained_on is not None:
        _say_leaks(trained_on, target or data)
    for _, error in report.failures:
        _complain(error)
    if report.failures:
        raise typer.Exit(1)


@app.command(
    rich_help_panel="Train",
    epilog="Example: `pellucid prepare gopro GOPRO_Large.zip --out stores/gopro`, then "
    "`pellucid prepare check stores/gopro`",
)
def prepare(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="folder (clean pictures), pairs (DEGRADED TARGET), gopro, sid-sony, sid-fuji, patches-h5; "
            "or check, which reads a finished STORE through.",
        ),
    ],
    paths: Annotated[
        list[Path], typer.Argument(metavar="SOURCE", help="Folders, or zip and tar archives, read in place.")
    ],
    out: Annotated[Path | None, typer.Option(metavar="STORE", help="The folder to make.")] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="train, test, of SID also val. [default: train]")
    ] = None,
    blur: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of gopro: blur or blur_gamma. [default: blur]")
    ] = None,
    lists: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Of SID: the published list of the split, or their folder.")
    ] = None,
    all_bursts: Annotated[
        bool, typer.Option("--all-bursts", help="Of SID: every short exposure, not only the first of a setting.")
    ] = False,
    min_px: Annotated[
        int, typer.Option("--min-px", min=1, metavar="PX", help="Leave out pictures with a shorter side.")
    ] = 1,
    against: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Test pictures: name those that the store holds.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads. [default: one a processor]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make a store anew that is there.")] = False,
) -> None:
    """Decode a data set once, into a store to train from.

    The same command goes on where it was interrupted. What cannot be used (damaged, too small, without partner,
    there twice) is listed at the end and stops nothing; the exit status is 1 only when nothing could be stored.
    """
    with _interrupts_held():
        from pellucid import preparing, store
        from pellucid.layouts import Options

    if kind == "check":
        for path in paths:
            _check_store(store.open(path))
        return
    if out is None:
        raise typer.BadParameter("--out STORE is needed: the folder to make")
    try:
        with _progress() as bar:
            task = bar.add_task("decoding", total=None)
            prepared = preparing.prepare(
                kind,
                paths,
                out,
                options=Options(split, blur, lists, all_bursts),
                workers=workers,
                min_px=min_px,
                overwrite=overwrite,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on from here", err=True)
        raise typer.Exit(130) from None
    _print_prepared(prepared)
    if against is not None:
        _say_leaks(prepared.store, against)


@app.command(rich_help_panel="Weights")
def models(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """List the models that ship and those in your own folder, with scores and license."""
    from pellucid import models
    from pellucid.checkpoint import Card

    cards = models.cards()
    if as_json:
        typer.echo(json.dumps([_model_as_json(model, card) for model, card in cards], indent=2))
        return
    table = _table("model", "recipe", "PSNR in dB", "license", "from")
    for model, card in cards:
        origin = "pellucid" if model.ships else str(model.path.parent)
        if isinstance(card, Card):
            scores = ", ".join(f"{score['data']} {score['psnr_db'] or math.inf:.2f}" for score in card.scores)
            _add(table, model.name, _recipe_text(card), scores or "not measured", card.license, origin)
        else:
            _add(table, model.name, str(card), "", "", origin, style="red")
    _print(table)
    typer.echo(f"Your own weight files go to {models.user_folder()}")


@app.command(rich_help_panel="Weights")
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="As dncnn.gaussian.")] = None,
) -> None:
    """List the recipes, or the keywords of one."""
    from pellucid import recipe

    if name is None:
        table = _table("recipe", "what it is")
        for known in recipe.names():
            _add(table, known, recipe.describe(known)[0])
    else:
        summary, keywords = recipe.describe(name)
        typer.echo(f"{name}: {summary}")
        table = _table("keyword", "default", "values")
        for keyword, (kind, default) in keywords.items():
            _add(table, keyword, str(default), kind)
        table.add_section()
        for keyword, (kind, current) in recipe.training_keywords(recipe.find(name)).items():
            if keyword not in keywords:
                _add(table, keyword, "-" if current is None else str(current), kind)
    _print(table)


@app.command(
    rich_help_panel="Train",
    epilog="Example: `pellucid train dncnn.gaussian sigma_255=15 --data photos/ --out runs/s15`",
)
def train(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="As dncnn.gaussian; see 'pellucid recipes'.")],
    parameters: Parameters = None,
    *,
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Pictures to learn from, or a prepared store.")],
    target: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The clean partners of --data, by name.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run folder: checkpoints, metrics, weights.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="The same as num_steps=N.")] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The same seed gives the same batches.")] = 0,
    device: Device = "auto",
    start_from: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME_OR_FILE", help="Begin with these weights, as far as they fit."),
    ] = None,
    tune: Annotated[
        Literal["auto", "off"], typer.Option(help="auto finds the fastest way first; off is plain float32.")
    ] = "auto",
    val: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Score these pictures every now and then; keep the best.")
    ] = None,
    val_target: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The clean partners of --val, by name.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N pictures.")] = None,
    save_every: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="A checkpoint at least so often.")
    ] = 300.0,
    profile: Annotated[bool, typer.Option("--profile", help="Trace some steps into RUN/trace.json.")] = False,
    measure: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Only say how fast N steps are; keeps nothing.")
    ] = None,
) -> None:
    """Train a recipe. The same command goes on where it was stopped, to the same weights.

    Recipes take keywords of training beside their own: lr, batch_size, num_steps, ... as listed by
    'pellucid recipes NAME'. For many processes: `torchrun --nproc-per-node N -m pellucid train ...`
    """
    with _interrupts_held():
        from pellucid import recipe, training
        from pellucid.keeping import Validation

    length = {} if steps is None else {"num_steps": steps}
    found = recipe.find(name, **{**_parameters(parameters), **length})
    shared: dict[str, Any] = {
        "target": target,
        "seed": seed,
        "device": device,
        "tune": tune == "auto",
        "limit": limit,
        "note": _note,
    }
    if measure is not None:
        speed = training.measure(found, data, num_steps=measure, **shared)
        _say_first(
            f"{speed.images_per_s:.1f} images/s, {speed.waiting:.1%} of the time waiting for data ({speed.choice})"
        )
        return
    if out is None:
        raise typer.BadParameter("--out RUN is needed; only --measure does without")
    if val is None and val_target is not None:
        raise typer.BadParameter("--val-target needs --val")
    validation = None if val is None else Validation(val, val_target)
    try:
        with _training_progress(found.num_steps) as progress:
            weights = training.train(
                found,
                data,
                out,
                start_from=start_from,
                validation=validation,
                save_every_s=save_every,
                profile=profile,
                progress=progress,
                **shared,
            )
    except training.Stopped as stopped:
        _say_first(f"{stopped}; the same command goes on from here", err=True)
        raise typer.Exit(128 + stopped.signal_number) from None
    except KeyboardInterrupt:
        _say_first("interrupted; the same command goes on from the last checkpoint", err=True)
        raise typer.Exit(130) from None
    _say_first(str(weights))


@app.command(rich_help_panel="Train", epilog="Example: `pellucid plot runs/a runs/b --out curves.png`")
def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders of 'pellucid train'.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture to draw: .png, .pdf or .svg.")],
    overwrite: Overwrite = False,
) -> None:
    """Draw loss and PSNR of trainings against their steps."""
    from pellucid import plotting

    plotting.plot(runs, out, overwrite=overwrite)
    typer.echo(out)


@app.command(
    rich_help_panel="Weights",
    epilog="Example: `pellucid convert net.pth --recipe dncnn.gaussian sigma_255=25 --out mine.safetensors`",
)
def convert(
    source: Annotated[Path, typer.Argument(metavar="AUTHORS_FILE", help=".mat, .pth, .pkl, .ckpt, .pdparams")],
    parameters: Parameters = None,
    *,
    recipe: Annotated[str, typer.Option(metavar="RECIPE", help="What the weights are, as dncnn.gaussian.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The weight file to write, .safetensors.")],
    license: Annotated[
        str, typer.Option(metavar="TEXT", help="License of the weights.")
    ] = "unknown; see the authors of the weights",
    overwrite: Overwrite = False,
) -> None:
    """Turn a weight file of the original authors into one that knows what it is. Runs no code of the file."""
    with _interrupts_held():
        from pellucid import converting, files

    files.check_free(out, overwrite=overwrite)
    card = converting.convert(source, recipe, out, license=license, overwrite=overwrite, **_parameters(parameters))
    typer.echo(f"{out}: {_recipe_text(card)}")


def _parameters(pairs: Sequence[str] | None) -> dict[str, Any]:
    parameters = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is no KEY=VALUE, as sigma_255=25")
        if key in ("device", "license", "overwrite"):
            raise typer.BadParameter(f"{key} is an option: --{key}")
        parameters[key] = value
    return parameters


def _bytes(text: str) -> int:
    """2GB, 1.5 GiB, 800m: decimal units, and binary ones with an i."""
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no amount of memory, as 2GB or 800MB")
    number, unit, binary = match.groups()
    power = " kmgt".find(unit.lower() or " ")
    return int(float(number) * (1024 if binary else 1000) ** power)


def _exposure(ratio: str, reference: Path | None) -> "float | Path | Literal['auto']":
    if reference is not None:
        if ratio != "auto":
            raise typer.BadParameter("--exposure-ratio and --reference are alternatives; give one")
        return reference
    if ratio == "auto":
        return "auto"
    try:
        number = float(ratio)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise typer.BadParameter(f"--exposure-ratio {ratio}: a number above 0, as 100, or auto is needed")
    return number


def _restored(
    jobs: "Sequence[Job]", restorer: "Restorer", settings: "Settings", *, workers: int, overwrite: bool
) -> "list[Outcome]":
    """Do the work; when it is interrupted, say so and leave."""
    from pellucid import restoration

    done: list[Outcome] = []
    with _progress("{task.fields[rate]}") as bar:
        task = bar.add_task("restoring", total=len(jobs), rate="")
        start, megapixels = time.monotonic(), 0.0
        outcomes = restoration.restore(
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
                bar.update(task, rate=f"{megapixels / (time.monotonic() - start):.2f} MP/s" if megapixels else "")
        except KeyboardInterrupt:
            outcomes.close()
            bar.stop()
            typer.echo(
                f"interrupted after {len(done)} of {len(jobs)}; the same command goes on from here", err=True
            )
            raise typer.Exit(130) from None
    return done


def _finish(done: "Sequence[Outcome]", restorer: "Restorer") -> None:
    """Say where results lie, what is to be known about them, and what failed."""
    restored = [outcome for outcome in done if outcome.error is None and not outcome.skipped]
    failed = [outcome for outcome in done if outcome.error is not None]
    num_skipped = sum(outcome.skipped for outcome in done)
    for note, count in Counter(note for outcome in done for note in outcome.notes).items():
        _note(note if len(done) == 1 else f"{count} of {len(done)}: {note}")
    if len(done) == 1 and restored:
        typer.echo(restored[0].job.target)
    elif len(done) > 1:
        skipped = f", {num_skipped} already there (--overwrite does them again)" if num_skipped else ""
        typer.echo(f"{len(restored)} of {len(done)} pictures restored by {restorer.name}{skipped}")
    for outcome in failed:
        _complain(outcome.error)
    if failed:
        raise typer.Exit(1)


def _say_what_is_given_up(restorer: "Restorer", jobs: "Sequence[Job]", settings: "Settings") -> None:
    from pellucid import restoration

    assert settings.halo_px is not None
    try:
        degraded, _ = restoration.read_degraded(jobs[0].source, restorer, settings)
        difference = restorer.given_up(degraded, halo_px=settings.halo_px, tile_px=settings.tile_px)
    except PellucidError:
        return  # the run will name it
    if difference == 0:
        return
    _note(
        f"halo of {settings.halo_px} px instead of {restorer.halo_px}: tiles no longer equal the whole; in the "
        f"middle of {jobs[0].source.name} they are off by up to {difference * 255:.2g} of 255"
    )


def _print_prepared(prepared: "Prepared") -> None:
    made = prepared.store
    typer.echo(f"{made.folder}: {_store_text(made)}; {prepared.num_decoded} files decoded now")
    for remark in prepared.remarks:
        _note(remark)
    for name, reason in made.left_out[:_NUM_LISTED]:
        _complain(f"left out: {name}: {reason}")
    if len(made.left_out) > _NUM_LISTED:
        _note(f"{len(made.left_out)} left out in all; 'pellucid prepare check {made.folder}' lists them")


def _check_store(made: "Store") -> None:
    with _progress() as bar:
        task = bar.add_task("reading", total=None)
        damaged = made.check(lambda done, total: bar.update(task, completed=done, total=total))
    typer.echo(f"{made.folder}: {_store_text(made)}")
    for name, reason in made.left_out:
        typer.echo(f"  left out: {name}: {reason}")
    for name in damaged:
        _complain(f"{name} is not what was stored; prepare the store anew with --overwrite")
    if damaged:
        raise typer.Exit(1)


def _store_text(made: "Store") -> str:
    what = {"clean": "clean pictures", "pairs": "pairs", "raw": "RAW exposures"}[made.kind]
    return f"{len(made)} {what}, {made.num_bytes / 1e6:.1f} MB, fingerprint {made.fingerprint[:12]}"


def _say_leaks(made: "Store", folder: Path) -> None:
    from pellucid import leaks

    with _progress() as bar:
        task = bar.add_task("comparing", total=None)
        found = leaks.in_folder(made, folder, lambda done, total: bar.update(task, completed=done, total=total))
    for leak in found:
        _note(f"warning: {leak}")
    _note(f"{len(found)} pictures of {folder} were found in {made.folder}")


def _print_report(report: "Report") -> None:
    table = _table("picture", "degraded dB", "PSNR dB", "SSIM", right=(1, 2, 3))
    for score in report.scores:
        _add(table, score.name, *_cells(score.degraded_psnr_db, score.psnr_db, score.ssim))
    table.add_section()
    means = _cells(report.mean_degraded_psnr_db, report.mean_psnr_db, report.mean_ssim)
    _add(table, f"mean of {len(report.scores)}", *means, style="bold")
    _print(table)
    typer.echo(f"{report.model}: {report.recipe.name}")
    for line in report.statement():
        typer.echo(f"  {line}")


def _cells(degraded_db: float, psnr_db: float, ssim: float | None) -> tuple[str, str, str]:
    return f"{degraded_db:.2f}", f"{psnr_db:.2f}", "-" if ssim is None else f"{ssim:.4f}"


def _recipe_text(card: Any) -> str:
    return " ".join(
        [card.recipe, *(f"{key}={value}" for key, value in card.parameters.items() if value is not None)]
    )


def _model_as_json(model: Any, card: Any) -> dict[str, Any]:
    described = {"error": str(card)} if isinstance(card, PellucidError) else dict(vars(card))
    return {"name": model.name, "path": str(model.path), "ships": model.ships, **described}


def _table(*columns: str, right: Sequence[int] = ()) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in right else "left", overflow="fold")
    return table


def _add(table: Any, *cells: str, style: str | None = None) -> None:
    from rich.text import Text

    table.add_row(*map(Text, cells), style=style)  # as it stands: names may hold what looks like markup


def _print(table: Any) -> None:
    from rich.console import Console

    # Into a pipe or a file, lines are as long as they need to be.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@contextmanager
def _progress(*extra: str) -> "Iterator[Progress]":
    """A bar on the error stream: how far, how fast, how long still."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    columns += [TextColumn(text) for text in extra]
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar


@contextmanager
def _training_progress(num_steps: int) -> "Iterator[Callable[[Status], None]]":
    """A bar on a terminal; elsewhere a line for every hundredth of the steps."""
    if not sys.stderr.isatty():
        every = max(1, num_steps // 100)
        yield lambda s: _note(f"step {s.step}/{num_steps}: {_in_short(s)}") if s.step % every == 0 else None
        return
    with _progress("{task.fields[status]}") as bar:
        task = bar.add_task("training", total=num_steps, status="")
        yield lambda s: bar.update(task, completed=s.step, status=_in_short(s))


def _in_short(status: "Status") -> str:
    psnr = "" if status.psnr_db is None else f", {status.psnr_db:.2f} dB"
    left_s = round(status.seconds_left)
    return (
        f"loss {status.loss:.4g}{psnr}, lr {status.lr:.3g}, {status.images_per_s:.0f} images/s, "
        f"{left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02} left, data {status.waiting:.0%}"
    )


def _say_first(text: str, *, err: bool = False) -> None:
    """Said once, by the first of many processes."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(text, err=err)


def _note(text: object) -> None:
    """One line on the error stream, whatever a file is called."""
    typer.echo(" ".join(str(text).split()), err=True)


def _complain(problem: object) -> None:
    _note(f"pellucid: {problem}")


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the imports are done: in the midst of torch's own it is lost, or breaks them."""
    pressed: list[bool] = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _fail(message: str) -> NoReturn:
    _complain(message)
    raise SystemExit(1)
