"""The lines of a manifest: each states which result was made from which input.

One JSON object per line, added just before a result is renamed to its final name. Lines that do not match the file
are ignored. Other lines state what was asked for ("run"), and what happened to each picture ("outcome").
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pellucid.storage import objects
from pellucid.storage.urls import Location, Url, is_url
from pellucid.system.journals import JournalReader

NAME = ".pellucid.jsonl"
"""Name of a manifest, in the folder of the results."""

PARTS = ".pellucid"
"""Name of the folder for manifests of single processes, e.g. of shards, in the folder of the results."""

Stamp = list[int | str]
"""See `stamp`."""

Entry = dict[str, Any]


class Entries(dict[str, list[Entry]]):
    """The entries of all manifests of a folder, by the path of their result relative to it; and their other lines.

    runs: what was asked for. outcomes: the newest one of each result, by its path, in whichever manifest it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[dict[str, Any]] = []
        self.outcomes: dict[str, dict[str, Any]] = {}

    def add(self, line: dict[str, Any]) -> None:
        """Add a line of a manifest, unless it is damaged."""
        if _is_entry(line):
            self.setdefault(line["target"], []).append(line)
        elif isinstance(line.get("run"), dict):
            self.runs.append(line)
        elif isinstance(line.get("outcome"), str) and isinstance(line.get("target"), str):
            former = self.outcomes.get(line["target"])
            if former is None or _written_at_s(line) >= _written_at_s(former):
                self.outcomes[line["target"]] = line


def _written_at_s(outcome: dict[str, Any]) -> float:
    """By the clock of the computer that wrote it; 0 if it is not known."""
    at_s = outcome.get("at_s")
    return at_s if isinstance(at_s, int | float) else 0.0


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


def manifest_path(folder: Path, journal: str | None) -> Path:
    """A manifest to which processes add: the one of all processes, or another one by its name."""
    return folder / NAME if journal is None else folder / PARTS / f"{journal}.jsonl"


def read_lines(folder: Path, reader: JournalReader) -> Iterator[dict[str, Any]]:
    """The new lines of all manifests of a folder."""
    for path in (folder / NAME, *sorted((folder / PARTS).glob("*.jsonl"))):
        yield from reader.read_new(path)


def read_entries(folder: Path) -> Entries:
    """All entries of a folder's manifests; none without one."""
    entries = Entries()
    for line in read_lines(folder, JournalReader()):
        entries.add(line)
    return entries


def parse_entries(entries: Entries, lines: bytes) -> None:
    """Add the entries in the lines of a manifest."""
    for line in lines.decode(errors="replace").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            entries.add(found)


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


def _is_entry(line: Mapping[str, Any]) -> bool:
    """Whether a line is about a result, and not damaged."""
    kinds = {"target": str, "source": list, "place": str, "result": list, "settings": str}
    return all(isinstance(line.get(key), kind) for key, kind in kinds.items())
