"""The lines of a manifest: each states which result was made from which input.

One JSON object per line, added just before a result is renamed to its final name. Lines that do not match the file
are ignored.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pellucid.storage import objects
from pellucid.storage.urls import Location, Url, is_url

NAME = ".pellucid.jsonl"
"""Name of a manifest, in the folder of the results."""

Stamp = list[int | str]
"""See `stamp`."""

Entry = dict[str, Any]


def stamp(*paths: Location) -> Stamp:
    """Size and modification time of each file, which change if it does; nothing for a file that does not exist.

    Of an object, its e-tag and size when it was listed, or now if it was not.
    """
    stamps: Stamp = []
    for path in paths:
        if isinstance(path, Url):
            stamps += path.tag or objects.stat(path) or ()
            continue
        try:
            status = path.stat()
        except OSError:
            continue
        stamps += [status.st_size, status.st_mtime_ns]
    return stamps


def read_entries(folder: Path) -> dict[str, list[Entry]]:
    """All entries of a folder's manifest, by the path of their result relative to the folder; {} without one."""
    entries: dict[str, list[Entry]] = {}
    add_entries(entries, folder, start=0)
    return entries


def add_entries(entries: dict[str, list[Entry]], folder: Path, *, start: int) -> int:
    """Add the entries of a folder's manifest from a place of the file on. Returns the place after them."""
    try:
        with (folder / NAME).open("rb") as file:
            file.seek(start)
            content = file.read()
    except OSError:
        return start
    stop = content.rfind(b"\n") + 1  # what follows may still be written by another process
    parse_entries(entries, content[:stop])
    return start + stop


def parse_entries(entries: dict[str, list[Entry]], lines: bytes) -> None:
    """Add the entries in the lines of a manifest."""
    for entry in map(_parse, lines.decode(errors="replace").splitlines()):
        if entry is not None:
            entries.setdefault(entry["target"], []).append(entry)


def find_entry(entries: dict[str, list[Entry]], key: str, now: Stamp) -> Entry | None:
    """The last entry that matches the stamp of the result; later entries for its name may not."""
    return next((entry for entry in reversed(entries.get(key, [])) if entry["result"] == now), None)


def list_results(folder: Path) -> Iterator[tuple[str, str]]:
    """(result, what it was made from) of all results of a folder that have not changed since; see `real_name`."""
    for key, entries in read_entries(folder).items():
        entry = find_entry({key: entries}, key, stamp(folder / key))
        if entry is not None:
            place = entry["place"]
            yield os.path.realpath(folder / key), place if is_url(place) else os.path.realpath(folder / place)


def _parse(line: str) -> Entry | None:
    """None for a line that a crash truncated, or that pellucid did not write."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    kinds = {"target": str, "source": list, "place": str, "result": list, "settings": str}
    is_entry = isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in kinds.items())
    return entry if is_entry else None
