"""`pellucid prepare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.terminal import defer_sigint, print_error, print_leaks, print_note, progress

if TYPE_CHECKING:
    from pellucid.data.preparing import Prepared
    from pellucid.data.store import Store


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
    with defer_sigint():
        from pellucid.data import preparing, store
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
        print_leaks(prepared.store, against)


def _print_prepared(prepared: "Prepared") -> None:
    made = prepared.store
    typer.echo(f"{made.folder}: {_store_text(made)}; {prepared.num_decoded} files decoded now")
    for remark in prepared.remarks:
        print_note(remark)
    for name, reason in made.left_out[:_NUM_LISTED]:
        print_error(f"left out: {name}: {reason}")
    if len(made.left_out) > _NUM_LISTED:
        print_note(f"{len(made.left_out)} left out in all; 'pellucid prepare check {made.folder}' lists them")


def _check_store(made: "Store") -> None:
    with progress() as bar:
        task = bar.add_task("reading", total=None)
        damaged = made.check(lambda done, total: bar.update(task, completed=done, total=total))
    typer.echo(f"{made.folder}: {_store_text(made)}")
    for name, reason in made.left_out:
        typer.echo(f"  left out: {name}: {reason}")
    for name in damaged:
        print_error(f"{name} is not what was stored; prepare the store anew with --overwrite")
    if damaged:
        raise typer.Exit(1)


def _store_text(made: "Store") -> str:
    what = {"clean": "clean pictures", "pairs": "pairs", "raw": "RAW exposures"}[made.kind]
    return f"{len(made)} {what}, {made.num_bytes / 1e6:.1f} MB, fingerprint {made.fingerprint[:12]}"
