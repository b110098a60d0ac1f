"""`pellucid train`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pellucid.commands.options import (
    Device,
    Json,
    NetworkFiles,
    OverwriteJson,
    Parameters,
    add_networks,
    as_local,
    check_overwrite,
    parse_keywords,
    parse_mix,
    refuse,
)
from pellucid.commands.terminal import (
    is_first_process,
    is_stdout,
    print_info,
    print_line,
    progress,
    write_json,
)
from pellucid.system.signals import defer_sigint

if TYPE_CHECKING:
    from pellucid.training.train import Status

MIN_SHOWN_S = 5.0
"""A bucket that is less far behind is not mentioned."""


def train(
    name: Annotated[
        str, typer.Argument(metavar="RECIPE", help="E.g. dncnn.gaussian; 'pellucid recipes' lists them.")
    ],
    parameters: Parameters = None,
    *,
    data: Annotated[
        str, typer.Option(metavar="FOLDER", help="Training pictures, or a prepared store; also as a URL.")
    ],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Targets of the degraded pictures in --data, matched by name, or in order if no names agree.",
        ),
    ] = None,
    mix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STORE=SHARE",
            help="Also learn from this store, or folder of clean pictures, e.g. gopro.store=0.4: its share of the "
            "patches. The rest is from --data. Repeatable.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Run folder: checkpoints, metrics, weights. Also s3://BUCKET/RUN."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Same as num_steps=N.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Random seed: initial weights, patches, noise.")
    ] = 0,
    device: Device = "auto",
    start_from: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME_OR_FILE", help="Initialize from these weights, where they fit."),
    ] = None,
    tune: Annotated[
        Literal["auto", "off"],
        typer.Option(help="auto first measures which mode is fastest; off runs eagerly, in float32."),
    ] = "auto",
    val: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Validation pictures, or a store; scored at regular intervals."),
    ] = None,
    val_target: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Targets of the degraded pictures in --val, matched by name, or in order if no names agree.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Use only the first N pictures.")] = None,
    save_every: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Longest time between checkpoints.")
    ] = 300.0,
    profile: Annotated[
        bool, typer.Option("--profile", help="Write a profiler trace of a few steps to RUN/trace.json.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write metrics for TensorBoard to RUN/tensorboard.")
    ] = False,
    measure: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Only measure the speed of N steps; writes nothing.")
    ] = None,
    networks: NetworkFiles = None,
    json_file: Json = None,
    overwrite: OverwriteJson = False,
) -> None:
    """Train a recipe. The same command resumes an interrupted training and ends with the same weights.

    In addition to its own keywords, each recipe takes training keywords: lr, batch_size, num_steps, ...
    ('pellucid recipes NAME' lists all of them). With several processes:
    `torchrun --nproc-per-node N -m pellucid train ...`
    """
    with defer_sigint():
        from pellucid.recipes import registry
        from pellucid.storage.urls import locate
        from pellucid.training import comparing
        from pellucid.training import train as training
        from pellucid.training.recorder import Validation
        from pellucid.training.stopping import Stopped

    check_overwrite(overwrite, {"--json": json_file})
    add_networks(networks)
    given, mixed = parse_keywords(parameters, options=("device",)), parse_mix(mix)
    if steps is not None and "num_steps" in given:
        raise typer.BadParameter("--steps and num_steps are the same; use one of them")
    if "validate_every" in given and val is None:
        raise typer.BadParameter("validate_every needs --val")
    if measure is not None:
        refuse(
            "--measure only measures the speed of a new training",
            val=val, val_target=val_target, **{"from": start_from}, profile=profile, tensorboard=tensorboard,
        )  # fmt: skip
    recipe = registry.find(name, **given, **({} if steps is None else {"num_steps": steps}))
    shared: dict[str, Any] = {
        "target": target,
        "mix": mixed,
        "seed": seed,
        "device": device,
        "tune": tune == "auto",
        "limit": limit,
        "log": print_info,
    }
    for place in (data, target, *mixed):
        if place is not None:
            as_local(place)  # with progress; the training finds the copy
    if measure is not None:
        speed = training.measure(recipe, data, num_steps=measure, **shared)
        text = (
            f"{speed.images_per_s:.1f} images/s, {speed.waiting:.1%} of the time waiting for data ({speed.mode})"
        )
        _report(text, json_file, lambda: asdict(speed), overwrite=overwrite)
        return
    if out is None:
        raise typer.BadParameter("--out RUN is needed, except with --measure")
    if val is None and val_target is not None:
        raise typer.BadParameter("--val-target needs --val")
    validation = (
        None if val is None else Validation(as_local(val), None if val_target is None else as_local(val_target))
    )
    try:
        with _show_progress(recipe.num_steps) as progress:
            weights = training.train(
                recipe,
                data,
                out,
                start_from=start_from,
                validation=validation,
                save_every_s=save_every,
                profile=profile,
                tensorboard=tensorboard,
                progress=progress,
                **shared,
            )
    except Stopped as stopped:
        _print_first(f"{stopped}; the same command resumes from here")
        raise typer.Exit(128 + stopped.signal_number) from None
    except KeyboardInterrupt:
        _print_first("interrupted; the same command resumes from the last checkpoint")
        raise typer.Exit(130) from None
    place = str(locate(out) / weights.name)
    _report(
        place,
        json_file,
        lambda: {"weights": place, **comparing.compare_runs([weights.parent])[0].to_json()},
        overwrite=overwrite,
    )


def _report(text: str, json_file: Path | None, make_content: "Callable[[], object]", *, overwrite: bool) -> None:
    """Print the result, from the first of several processes only, and write it as JSON."""
    if not is_first_process():
        return
    if json_file is not None:
        write_json(json_file, make_content(), overwrite=overwrite)
    if not is_stdout(json_file):
        print_line(text)


def _print_first(text: str) -> None:
    """A message from the first of several processes only."""
    if is_first_process():
        print_info(text)


@contextmanager
def _show_progress(num_steps: int) -> "Iterator[Callable[[Status], None]]":
    """A progress bar on a terminal; otherwise a line for every hundredth of the steps."""
    if not sys.stderr.isatty():
        every = max(1, num_steps // 100)
        yield lambda s: print_info(f"step {s.step}/{num_steps}: {_summarize(s)}") if s.step % every == 0 else None
        return
    with progress("{task.fields[status]}") as bar:
        task = bar.add_task("training", total=num_steps, status="")
        yield lambda s: bar.update(task, completed=s.step, status=_summarize(s))


def _summarize(status: "Status") -> str:
    psnr = "" if status.psnr_db is None else f", {status.psnr_db:.2f} dB"
    left_s = round(status.seconds_left)
    waiting = f"{status.waiting:.0%} waiting for data"
    behind = f", bucket {status.behind_s:.0f} s behind" if status.behind_s >= MIN_SHOWN_S else ""
    return (
        f"loss {status.loss:.4g}{psnr}, lr {status.lr:.3g}, {status.images_per_s:.0f} images/s, "
        f"{left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02} left, {waiting}{behind}"
    )
