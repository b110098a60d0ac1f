"""`pellucid train`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pellucid.commands.options import Device, Parameters, parse_keywords
from pellucid.commands.terminal import defer_sigint, print_note, print_once, progress

if TYPE_CHECKING:
    from pellucid.training.train import Status


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
    with defer_sigint():
        from pellucid.recipes import registry
        from pellucid.training import train
        from pellucid.training.recorder import Validation

    length = {} if steps is None else {"num_steps": steps}
    found = registry.find(name, **{**parse_keywords(parameters), **length})
    shared: dict[str, Any] = {
        "target": target,
        "seed": seed,
        "device": device,
        "tune": tune == "auto",
        "limit": limit,
        "note": print_note,
    }
    if measure is not None:
        speed = train.measure(found, data, num_steps=measure, **shared)
        print_once(
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
            weights = train.train(
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
    except train.Stopped as stopped:
        print_once(f"{stopped}; the same command goes on from here", err=True)
        raise typer.Exit(128 + stopped.signal_number) from None
    except KeyboardInterrupt:
        print_once("interrupted; the same command goes on from the last checkpoint", err=True)
        raise typer.Exit(130) from None
    print_once(str(weights))


@contextmanager
def _training_progress(num_steps: int) -> "Iterator[Callable[[Status], None]]":
    """A bar on a terminal; elsewhere a line for every hundredth of the steps."""
    if not sys.stderr.isatty():
        every = max(1, num_steps // 100)
        yield lambda s: print_note(f"step {s.step}/{num_steps}: {_in_short(s)}") if s.step % every == 0 else None
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
