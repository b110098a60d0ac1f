"""`pellucid advise`."""

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.options import Json, check_overwrite
from pellucid.commands.terminal import (
    add_row,
    is_stdout,
    print_error,
    print_info,
    print_line,
    print_name,
    print_table,
    print_warning,
    progress,
    show_progress,
    table,
    write_json,
)
from pellucid.errors import DataError, PellucidError
from pellucid.system.signals import defer_sigint

if TYPE_CHECKING:
    from pellucid.restoration.advice import Suggestion


def advise(
    inputs: Annotated[
        list[str], typer.Argument(metavar="PICTURE", help="Pictures, folders of them, and patterns (scans/*.tif).")
    ],
    sheets: Annotated[
        Path | None,
        typer.Option(
            "--try",
            metavar="FOLDER",
            help="Also draw a sheet for each picture: a few crops, before and after each suggested model.",
        ),
    ] = None,
    json_file: Json = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file of --json and the sheets of --try.")
    ] = False,
) -> None:
    """Detect what may be wrong with pictures, and suggest a model that corrects it.

    Looks at the format, the compression, the measured noise and the size. Nothing is restored or changed.
    """
    with defer_sigint():
        from pellucid.restoration.advice import advise as advise_about

    check_overwrite(overwrite, {"--json": json_file, "--try": sheets})
    if sheets is not None and sheets.exists() and not sheets.is_dir():
        raise typer.BadParameter(f"--try {sheets} is a file; a folder for the sheets is needed")
    found: dict[Path, Sequence[Suggestion]] = {}
    paths, failed = _find_pictures(inputs)
    with progress() as bar:
        update = show_progress(bar, "looking")
        for done, path in enumerate(paths):
            update(done, len(paths))
            try:
                found[path] = advise_about(path)
            except PellucidError as error:
                print_error(error.about(path))
                failed += 1
    if json_file is not None:
        content = [{"picture": str(path), "advice": [*map(vars, advice)]} for path, advice in found.items()]
        write_json(json_file, content, overwrite=overwrite)
    if found and not is_stdout(json_file):
        _print(found)
    if sheets is not None:
        failed += _draw(found, sheets, overwrite=overwrite)
    if failed:
        raise typer.Exit(1)


def _find_pictures(inputs: Sequence[str]) -> tuple[list[Path], int]:
    """All pictures, each one once, and the number of inputs without one, which are reported."""
    from pellucid.pictures.finding import describe_ignored, find_pictures
    from pellucid.restoration.planning import expand

    found: dict[str, Path] = {}
    ignored: Counter[str] = Counter()
    failed = 0
    for given in inputs:
        try:
            for place in expand(given):
                pictures: Sequence[Path] = [place]
                if place.is_dir():
                    inside = find_pictures(place)
                    pictures = inside.pictures
                    ignored.update(inside.ignored)
                if not pictures:
                    raise DataError(f"{place} contains no pictures; pictures, or folders of them, are needed")
                for path in pictures:
                    found.setdefault(os.path.realpath(path), path)
        except PellucidError as error:
            print_error(error)
            failed += 1
    if ignored:
        print_info(describe_ignored(ignored))
    return list(found.values()), failed


def _print(found: "dict[Path, Sequence[Suggestion]]") -> None:
    """A table of 80 columns, and what to do."""
    rows = table("picture", "problem", "model", "reason")
    rows.show_edge = False
    rows.columns[1].no_wrap = rows.columns[2].no_wrap = True
    labels = _tell_apart(found)
    for path, advice in found.items():
        if not advice:
            add_row(rows, labels[path], "none found", "", "")
        for i, one in enumerate(advice):
            add_row(rows, "" if i else labels[path], one.problem, one.model or "-", one.reason)
    print_table(rows)
    first = next(((path, one) for path, advice in found.items() for one in advice if one.model), None)
    if first is not None:
        path, one = first
        name = f"./{path}" if str(path).startswith("-") else str(path)  # not an option
        print_line(f"e.g.  pellucid restore {_quote(name)} --model {one.model}")


def _tell_apart(paths: Iterable[Path]) -> dict[Path, str]:
    """The name of each picture, after as many of its folders as tell it from others of the same name."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.name, []).append(path)
    labels: dict[Path, str] = {}
    for group in groups.values():
        # Real folders contain no "..", and differ for different pictures of one name; a root is no name.
        parts = {path: (*Path(os.path.realpath(path.parent)).parts[1:], path.name) for path in group}
        count = 1
        while len({each[-count:] for each in parts.values()}) < len(group):
            count += 1
        labels |= {path: "/".join(each[-count:]) for path, each in parts.items()}
    return labels


def _quote(name: str) -> str:
    """A name for the shell. Bytes that are not text, and control characters, become $'\\xff', as bash reads."""
    if name.isprintable():
        return shlex.quote(name)
    characters = (
        chr(byte) if 32 <= byte < 127 and chr(byte) not in "'\\" else f"\\x{byte:02x}"
        for byte in os.fsencode(name)
    )
    return f"$'{''.join(characters)}'"


def _draw(found: "dict[Path, Sequence[Suggestion]]", folder: Path, *, overwrite: bool) -> int:
    """Draw a sheet for each picture with advice, and print its path. Returns how many failed."""
    from pellucid.restoration.advice import list_models_to_try
    from pellucid.restoration.preview import write_preview
    from pellucid.restoration.restorer import load
    from pellucid.restoration.settings import Settings

    labels = _tell_apart(found)
    failed = 0
    for path, advice in found.items():
        models = list_models_to_try(advice)
        if not models:
            continue
        target = folder / f"{labels[path]}-advice.png"
        try:
            restorers = [*map(load, models)]
            rename = "a copy of the picture with a shorter name can be drawn"
            warnings = write_preview(path, target, restorers, Settings(), overwrite=overwrite, rename=rename)
        except PellucidError as error:
            print_error(error.about(path))
            failed += 1
            continue
        for warning in warnings:
            print_warning(f"{path}: {warning}")
        print_name(target)
    return failed
