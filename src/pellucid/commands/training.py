"""`pellucid prepare`, `train` and `plot`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pellucid.commands.options import Device, Overwrite, Parameters, keywords
from pellucid.commands.terminal import complain, interrupts_held, note, progress, say_first, say_leaks

if TYPE_CHECKING:
    from pellucid.data.store import Store
    from pellucid.preparing import Prepared
    from pellucid.training import Status

_NUM_LISTED = 20
"""Of what was left out of a store, so many are named at once."""


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
    with interrupts_held():
        from pellucid import preparing
        from pellucid.data import store
        from pellucid.data.layouts import Options

    if kind == "check":
        for path in paths:
            _check_store(store.open(path))
        return
    if out is None:
        raise typer.BadParameter("--out STORE is needed: the folder to make")
    try:
        with progress() as bar:
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
        say_leaks(prepared.store, against)


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
        Path | None,
        typer.Option(metavar="FOLDER", help="Score these pictures, or this store, every now and then."),
    ] = None,
    val_target: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The clean partners of --val, by name.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N pictures.")] = None,
    save_every: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="A checkpoint at least so often.")
    ] = 300.0,
    profile: Annotated[bool, typer.Option("--profile", help="Trace some steps into RUN/trace.json.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write metrics for TensorBoard into RUN/tensorboard, too.")
    ] = False,
    measure: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Only say how fast N steps are; keeps nothing.")
    ] = None,
) -> None:
    """Train a recipe. The same command goes on where it was stopped, to the same weights.

    Recipes take keywords of training beside their own: lr, batch_size, num_steps, ... as listed by
    'pellucid recipes NAME'. For many processes: `torchrun --nproc-per-node N -m pellucid train ...`
    """
    with interrupts_held():
        from pellucid import recipe, training
        from pellucid.learning.keeping import Validation

    length = {} if steps is None else {"num_steps": steps}
    found = recipe.find(name, **{**keywords(parameters), **length})
    shared: dict[str, Any] = {
        "target": target,
        "seed": seed,
        "device": device,
        "tune": tune == "auto",
        "limit": limit,
        "note": note,
    }
    if measure is not None:
        speed = training.measure(found, data, num_steps=measure, **shared)
        say_first(
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
                tensorboard=tensorboard,
                progress=progress,
                **shared,
            )
    except training.Stopped as stopped:
        say_first(f"{stopped}; the same command goes on from here", err=True)
        raise typer.Exit(128 + stopped.signal_number) from None
    except KeyboardInterrupt:
        say_first("interrupted; the same command goes on from the last checkpoint", err=True)
        raise typer.Exit(130) from None
    say_first(str(weights))


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders of 'pellucid train'.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture to draw: .png, .pdf or .svg.")],
    overwrite: Overwrite = False,
) -> None:
    """Draw loss and PSNR of trainings against their steps."""
    from pellucid.learning import plotting

    plotting.plot(runs, out, overwrite=overwrite)
    typer.echo(out)


def _print_prepared(prepared: "Prepared") -> None:
    made = prepared.store
    typer.echo(f"{made.folder}: {_store_text(made)}; {prepared.num_decoded} files decoded now")
    for remark in prepared.remarks:
        note(remark)
    for name, reason in made.left_out[:_NUM_LISTED]:
        complain(f"left out: {name}: {reason}")
    if len(made.left_out) > _NUM_LISTED:
        note(f"{len(made.left_out)} left out in all; 'pellucid prepare check {made.folder}' lists them")


def _check_store(made: "Store") -> None:
    with progress() as bar:
        task = bar.add_task("reading", total=None)
        damaged = made.check(lambda done, total: bar.update(task, completed=done, total=total))
    typer.echo(f"{made.folder}: {_store_text(made)}")
    for name, reason in made.left_out:
        typer.echo(f"  left out: {name}: {reason}")
    for name in damaged:
        complain(f"{name} is not what was stored; prepare the store anew with --overwrite")
    if damaged:
        raise typer.Exit(1)


def _store_text(made: "Store") -> str:
    what = {"clean": "clean pictures", "pairs": "pairs", "raw": "RAW exposures"}[made.kind]
    return f"{len(made)} {what}, {made.num_bytes / 1e6:.1f} MB, fingerprint {made.fingerprint[:12]}"


@contextmanager
def _training_progress(num_steps: int) -> "Iterator[Callable[[Status], None]]":
    """A bar on a terminal; elsewhere a line for every hundredth of the steps."""
    if not sys.stderr.isatty():
        every = max(1, num_steps // 100)
        yield lambda s: note(f"step {s.step}/{num_steps}: {_in_short(s)}") if s.step % every == 0 else None
        return
    with progress("{task.fields[status]}") as bar:
        task = bar.add_task("training", total=num_steps, status="")
        yield lambda s: bar.update(task, completed=s.step, status=_in_short(s))


def _in_short(status: "Status") -> str:
    psnr = "" if status.psnr_db is None else f", {status.psnr_db:.2f} dB"
    left_s = round(status.seconds_left)
    return (
        f"loss {status.loss:.4g}{psnr}, lr {status.lr:.3g}, {status.images_per_s:.0f} images/s, "
        f"{left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02} left, data {status.waiting:.0%}"
    )
