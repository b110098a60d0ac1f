"""The lines of a manifest: each states which result was made from which input.

One JSON object per line, added just before a result is renamed to its final name. Lines that do not match the file
are ignored. Other lines state what was asked for ("run"), and what happened to each picture ("outcome").
"""

import json
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from pellucid.storage import objects
from pellucid.storage.urls import Location, RealNames, Url, is_url
from pellucid.system.journals import JournalReader
from pellucid.system.tables import Table

NAME = ".pellucid.jsonl"
"""Name of a manifest, in the folder of the results."""

PARTS = ".pellucid"
"""Name of the folder for manifests of single processes, e.g. of shards, in the folder of the results."""

Stamp = list[int | str]
"""See `stamp`."""

Entry = dict[str, Any]


class Entries:
    """The entries of all manifests of a folder, by the path of their result relative to it; and their other lines.

    Iterating it gives all entries, in the order of the manifests. There may be millions.
    runs: what was asked for. outcomes: of all attempts.
    """

    def __init__(self) -> None:
        self._table, self.outcomes = Table(), Table()
        self.runs: list[dict[str, Any]] = []

    def __bool__(self) -> bool:
        """Whether there is an entry."""
        return bool(self._table)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._table)

    def add(self, line: dict[str, Any]) -> None:
        """Add a line of a manifest, unless it is damaged."""
        if _is_entry(line):
            self._table.add(line["target"], line)
        elif isinstance(line.get("run"), dict):
            self.runs.append(line)
        elif isinstance(line.get("outcome"), str) and isinstance(line.get("target"), str):
            self.outcomes.add(line["target"], line)

    def find(self, key: str, now: Stamp) -> Entry | None:
        """The last entry that matches the stamp of the result; later entries for its name may not."""
        return next((entry for entry in reversed(self._table.find(key)) if entry["result"] == now), None)

    def find_outcome(self, key: str, accepted: Container[str]) -> dict[str, Any] | None:
        """The newest outcome of a result with one of these settings, in whichever manifest it is."""
        found = (line for line in reversed(self.outcomes.find(key)) if line.get("settings") in accepted)
        return max(found, key=_written_at_s, default=None)


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


def list_results(folder: Path) -> Iterator[tuple[str, str]]:
    """(result, what it was made from) of all results of a folder that have not changed since; see `real_name`."""
    names = RealNames()
    for entry in read_entries(folder):
        result, place = folder / entry["target"], entry["place"]
        if entry["result"] == stamp(result):
            yield names.find(result), place if is_url(place) else names.find(folder / place)


def _is_entry(line: Mapping[str, Any]) -> bool:
    """Whether a line is about a result, and not damaged."""
    kinds = {"target": str, "source": list, "place": str, "result": list, "settings": str}
    return all(isinstance(line.get(key), kind) for key, kind in kinds.items())
