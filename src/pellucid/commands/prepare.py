"""`pellucid prepare`."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.commands.options import (
    Json,
    On,
    Processes,
    Shard,
    White,
    as_local,
    check_cluster,
    check_overwrite,
    parse_keywords,
    parse_shard,
    refuse,
)
from pellucid.commands.terminal import (
    add_row,
    is_stdout,
    print_error,
    print_info,
    print_leaks,
    print_line,
    print_table,
    progress,
    show_progress,
    table,
    write_json,
)
from pellucid.system.signals import defer_sigint
from pellucid.system.wording import format_count

if TYPE_CHECKING:
    from pathlib import Path

    from pellucid.data.preparing import Prepared, PreparedShard
    from pellucid.data.store import Store


_NUM_LISTED = 20
"""How many of the files that were left out are named."""


def prepare(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="Data set: folder (clean pictures), pairs (two sources: degraded pictures, targets), gopro, "
            "sid-sony, sid-fuji, patches-h5. Or check: verify a finished store, given as SOURCE.",
        ),
    ],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Folders, or zip and tar archives, which are read without unpacking; also URLs. Without SOURCE: "
            "print the keywords of KIND.",
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="STORE", help="Folder of the store to create; also as a URL.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A keyword of KIND, e.g. split=test; repeatable."),
    ] = None,
    min_px: Annotated[
        int,
        typer.Option("--min-px", min=1, metavar="PX", help="Leave out pictures whose shorter side is below this."),
    ] = 1,
    against: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Report leaks: pictures of this test set that are also in the store."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of threads; with --on, of each worker process, which needs as many CPUs.",
            show_default="one per processor; 1 with --on",
        ),
    ] = None,
    shard: Shard = None,
    on: On = None,
    processes: Processes = None,
    white: White = None,
    json_file: Json = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a store that already exists, and the file of --json.")
    ] = False,
) -> None:
    """Decode a data set once, into a store for training.

    The same command resumes where it was interrupted. Files that cannot be used (damaged, too small, unmatched,
    duplicates) are listed at the end and do not stop the others; the exit status is 1 only if nothing could be
    stored. With --shard, only one shard is decoded; the same command without --shard then makes the store. With
    --on, worker processes of a Ray cluster decode.
    """
    with defer_sigint():
        from pellucid.data import preparing, registry, store
        from pellucid.data.on_cluster import prepare_on
        from pellucid.pictures import images
        from pellucid.storage.urls import is_url

    of_preparing = {
        "out": out, "set": settings, "min_px": min_px if min_px > 1 else None, "against": against,
        "workers": workers, "shard": shard, "on": on, "processes": processes, "white": white,
    }  # fmt: skip
    if not paths:
        if kind == "check":
            raise typer.BadParameter("check needs the path of a store")
        if out is not None or shard is not None:
            raise typer.BadParameter(f"{kind} needs a SOURCE: a folder or an archive")
        refuse(
            "without a SOURCE, the keywords of KIND are printed",
            **of_preparing,
            json=json_file,
            overwrite=overwrite,
        )
        _describe_kind(kind)
        return
    if kind == "check":
        refuse("check only reads a store", **of_preparing)
        check_overwrite(overwrite, {"--json": json_file})
    if shard is not None:
        _check_shard_options(against, json_file, overwrite=overwrite)
    check_cluster(on, processes=processes, shard=shard)
    if kind == "check":
        checked = [_check_store(store.open(as_local(path))) for path in paths]
        for made, damaged in checked:
            if not is_stdout(json_file):
                _print_checked(made)
            for name in damaged:
                print_error(f"the stored samples of {name} are damaged; prepare the store again with --overwrite")
        if json_file is not None:
            results = [{**_store_as_json(made), "damaged": damaged} for made, damaged in checked]
            write_json(json_file, results, overwrite=overwrite)
        if any(damaged for _, damaged in checked):
            raise typer.Exit(1)
        return
    if out is None:
        raise typer.BadParameter("--out STORE is needed: the folder to create")
    given = parse_keywords(settings, options=("white",)) | ({} if white is None else {"white": str(white)})
    keywords = registry.validate_keywords(kind, given)
    part = parse_shard(shard)
    sources = [as_local(path) for path in paths]
    test_set = None if against is None else as_local(against)
    if test_set is not None:
        images.find(test_set)  # is it a folder?
    try:
        with progress() as bar:
            update = show_progress(bar, "decoding")
            if part is not None:
                decoded = preparing.prepare_shard(
                    kind, sources, out, part, workers=workers, min_px=min_px, progress=update, **keywords
                )
            else:
                verb = (
                    partial(preparing.prepare, kind, sources, log=print_info)
                    if on is None
                    else partial(prepare_on, on, kind, paths, processes=processes, log=print_info)
                )
                prepared = verb(
                    out=out, workers=workers, min_px=min_px, overwrite=overwrite, progress=update, **keywords
                )
    except KeyboardInterrupt:
        print_info("interrupted; the same command resumes from here")
        raise typer.Exit(130) from None
    if part is not None:
        _print_shard(str(part), out, decoded)
        return
    if json_file is not None:
        content = {**_store_as_json(prepared.store), "num_decoded": prepared.num_decoded}
        write_json(json_file, content, overwrite=overwrite)
    if not is_stdout(json_file):
        print_line(
            f"{out if is_url(out) else prepared.store.folder}: {_store_text(prepared.store)}; "
            f"{format_count(prepared.num_decoded, 'file')} decoded by this run"
        )
    _print_messages(prepared)
    if test_set is not None:
        print_leaks(prepared.store, test_set)


def _check_shard_options(against: str | None, json_file: "Path | None", *, overwrite: bool) -> None:
    """Raise typer.BadParameter for options that are about a whole store."""
    given = {"--against": against, "--json": json_file, "--overwrite": overwrite}
    used = [option for option, value in given.items() if value]
    if used:
        raise typer.BadParameter(f"{', '.join(used)} and --shard exclude each other: the store is made at the end")


def _print_shard(shard: str, out: str, decoded: "PreparedShard") -> None:
    if decoded.is_finished:
        print_line(f"{out} is finished; there is nothing to do for shard {shard}")
        return
    print_line(
        f"{out}, shard {shard}: {decoded.num_files} of {format_count(decoded.num_all_files, 'file')}, "
        f"{decoded.num_decoded} decoded by this run; after all shards, the same command without --shard makes the "
        f"store"
    )
    for name, reason in decoded.left_out[:_NUM_LISTED]:
        print_error(f"cannot be decoded: {name}: {reason}")
    if len(decoded.left_out) > _NUM_LISTED:
        print_info(f"{len(decoded.left_out)} cannot be decoded in all")


def _describe_kind(kind: str) -> None:
    from pellucid.data import registry

    print_line(f"{kind}: {registry.summarize(kind)}")
    rows = table("keyword", "default", "values", "meaning")
    for key, keyword in registry.own_keywords(kind).items():
        default = "-" if keyword.default is None else str(keyword.default).lower()
        add_row(rows, key, default, keyword.values, keyword.meaning)
    if rows.row_count:
        print_table(rows)


def _print_messages(prepared: "Prepared") -> None:
    """What is worth knowing about the files, and which were left out."""
    made = prepared.store
    for message in prepared.messages:
        print_info(message)
    for name, reason in made.left_out[:_NUM_LISTED]:
        print_error(f"left out: {name}: {reason}")
    if len(made.left_out) > _NUM_LISTED:
        print_info(f"{len(made.left_out)} left out in all; 'pellucid prepare check {made.folder}' lists them")


def _check_store(made: "Store") -> "tuple[Store, list[str]]":
    """The store, and the names of the files whose stored samples are damaged."""
    with progress() as bar:
        return made, list(made.check(show_progress(bar, "reading")))


def _print_checked(made: "Store") -> None:
    print_line(f"{made.folder}: {_store_text(made)}")
    for name, reason in made.left_out:
        print_line(f"  left out: {name}: {reason}")


def _store_as_json(made: "Store") -> dict[str, Any]:
    return {
        "store": str(made.folder),
        "kind": made.kind,
        "num_items": len(made),
        "num_bytes": made.num_bytes,
        "fingerprint": made.fingerprint,
        "left_out": [{"name": name, "reason": reason} for name, reason in made.left_out],
    }


def _store_text(made: "Store") -> str:
    what = {"clean": "clean picture", "pairs": "pair", "raw": "RAW exposure"}[made.kind]
    return f"{format_count(len(made), what)}, {made.num_bytes / 1e6:.1f} MB, fingerprint {made.fingerprint[:12]}"
