"""The lines of a manifest: each states which result was made from which input.

One JSON object per line, added just before a result is renamed to its final name. Lines that do not match the file
are ignored. Other lines state what was asked for ("run"), and what happened to each picture ("outcome").
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pellucid.system.journals import JournalReader
from pellucid.system.shards import Shard

NAME = ".pellucid.jsonl"
"""Name of a manifest, in the folder of the results."""

SHARDS = ".pellucid"
"""Name of the folder with the manifests of shards, in the folder of the results: one for each shard."""

Stamp = list[int]
"""See `stamp`."""

Entry = dict[str, Any]


def stamp(*paths: Path) -> Stamp:
    """Size and modification time of each file, which change if it does; nothing for a file that does not exist."""
    stamps: Stamp = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        stamps += [status.st_size, status.st_mtime_ns]
    return stamps


def manifest_path(folder: Path, shard: Shard | None) -> Path:
    """The manifest to which this process adds."""
    return folder / NAME if shard is None else folder / SHARDS / f"{shard.label}.jsonl"


def read_lines(folder: Path, reader: JournalReader) -> Iterator[dict[str, Any]]:
    """The new lines of all manifests of a folder."""
    for path in (folder / NAME, *sorted((folder / SHARDS).glob("*.jsonl"))):
        yield from reader.read_new(path)


def read_entries(folder: Path) -> dict[str, list[Entry]]:
    """All entries of a folder's manifests, by the path of their result relative to the folder; {} without one."""
    entries: dict[str, list[Entry]] = {}
    for line in read_lines(folder, JournalReader()):
        if is_entry(line):
            entries.setdefault(line["target"], []).append(line)
    return entries


def find_entry(entries: dict[str, list[Entry]], target: Path, key: str) -> Entry | None:
    """The last entry that matches the file at target; later entries for its name may not."""
    now = stamp(target)
    return next((entry for entry in reversed(entries.get(key, [])) if entry["result"] == now), None)


def list_results(folder: Path) -> Iterator[tuple[Path, Path]]:
    """(result, what it was made from) of all results of a folder that have not changed since, as real paths."""
    for key, entries in read_entries(folder).items():
        entry = find_entry({key: entries}, folder / key, key)
        if entry is not None:
            yield Path(os.path.realpath(folder / key)), Path(os.path.realpath(folder / entry["place"]))


def is_entry(line: Mapping[str, Any]) -> bool:
    """Whether a line is about a result, and not damaged."""
    kinds = {"target": str, "source": list, "place": str, "result": list, "settings": str}
    return all(isinstance(line.get(key), kind) for key, kind in kinds.items())
