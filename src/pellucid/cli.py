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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from pellucid.errors import PellucidError

if TYPE_CHECKING:
    from rich.progress import Progress

    from pellucid.evaluation import Report
    from pellucid.restoration import Job, Outcome, Settings
    from pellucid.restorer import Restorer

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
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Score a model on a folder: PSNR and SSIM of each picture, the means, and how they were counted."""
    with _interrupts_held():
        from pellucid import evaluation, files, restorer

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
    for _, error in report.failures:
        _complain(error)
    if report.failures:
        raise typer.Exit(1)


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
    _print(table)


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
