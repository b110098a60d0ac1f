"""Parts of an unfinished store: folders into which shards, or processes of a cluster, decode."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pellucid.data.archives import Source
from pellucid.data.dataset import DecodeTask, LeftOut
from pellucid.data.store import SOURCES
from pellucid.data.store_writer import Record, StoreReader, StoreWriter
from pellucid.errors import OutputError, PictureError
from pellucid.system import files

_FACTS = "shard.json"
"""A file in a part: what was asked for and, once the part is done, the files that could not be decoded."""

_NAME = "shard-{}"


def part_folder(folder: Path, label: str) -> Path:
    """The folder of a part in an unfinished store. label: of a shard, or of a process of a cluster."""
    return folder / _NAME.format(label)


def list_parts(folder: Path) -> list[Path]:
    """The folders of all parts."""
    return sorted(path.parent for path in folder.glob(f"{_NAME.format('*')}/{SOURCES}"))


def list_shards(folder: Path) -> tuple[str, ...]:
    """The labels of all shards that have started, e.g. 3-of-16."""
    labels = [part.name.removeprefix(_NAME.format("")) for part in list_parts(folder)]
    return tuple(label for label in labels if "-of-" in label)


def remove_parts(parts: Sequence[Path]) -> None:
    """Remove parts whose content is in the store."""
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)  # leftovers are harmless


@contextmanager
def open_part(
    folder: Path, label: str, request: Mapping[str, Any], facts: Mapping[str, Any], failures: LeftOut
) -> Iterator[StoreWriter]:
    """A writer of a part; waits for another process that writes it.

    facts: about the sources, as JSON, for `read_facts`. failures: recorded at the end, unless there is an error.
    """
    part = part_folder(folder, label)
    with StoreWriter(part, request, wait=True) as writer:
        _write_facts(part, facts, None)
        yield writer
        _write_facts(part, facts, failures)


def read_facts(folder: Path) -> Iterator[dict[str, Any]]:
    """The facts of all parts, each with "left_out": files that could not be decoded, or None if it is not done."""
    for part in list_parts(folder):
        try:
            yield json.loads((part / _FACTS).read_bytes())
        except (OSError, ValueError):
            continue


def _write_facts(part: Path, facts: Mapping[str, Any], failures: LeftOut | None) -> None:
    content = {**facts, "left_out": failures}
    files.write_atomic(part / _FACTS, f"{json.dumps(content)}\n".encode(), overwrite=True)


def copy_parts(
    parts: Sequence[Path],
    tasks: Sequence[DecodeTask],
    writer: StoreWriter,
    request: Mapping[str, Any],
    planned: Set[str],
) -> list[DecodeTask]:
    """Copy what is in parts, in the order of the tasks; returns the remaining tasks.

    planned: what the store will contain.

    Raises OutputError if a part is still being written, was made with other arguments, or of other data.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(StoreWriter(part, request)) for part in parts]
        for part in opened:
            check_planned(part, planned)
        return copy_arrays(opened, tasks, writer)


def check_planned(decoded: StoreWriter, planned: Set[str]) -> None:
    """Raise OutputError if nothing that is decoded is planned, so that it is not lost by a wrong command."""
    if decoded.records and planned.isdisjoint(decoded.records):
        raise OutputError(
            f"{decoded.folder} contains other data that is decoded already, e.g. {next(iter(decoded.records))}",
            hint="choose another {out}, or delete that by {overwrite}",
            overwrite=True,
        )


def copy_arrays(
    parts: Sequence[StoreReader], tasks: Sequence[DecodeTask], writer: StoreWriter
) -> list[DecodeTask]:
    """`copy_parts` of parts that no other process writes."""
    by_key = {key: part for part in parts for key in part.records}
    unfinished = []
    for task in tasks:
        found = [by_key.get(key) for key in task.keys]
        if not all(_copy(key, part, task.source, writer) for key, part in zip(task.keys, found, strict=True)):
            unfinished.append(task)
    return unfinished


def _copy(key: str, part: StoreReader | None, source: Source, writer: StoreWriter) -> bool:
    """Copy an array of a part; returns False if the file has changed since, or the array is damaged."""
    if key in writer.records:
        return True
    if part is None or not is_current(part.records[key], source):
        return False
    samples = part.read(key)
    if samples is None:
        return False
    record = part.records[key]
    writer.put(key, record.stamp, samples, metadata=record.array.metadata, changes=record.changes)
    return True


def is_current(record: Record, source: Source) -> bool:
    """Whether a file is as it was decoded, by size, time and place or, if only sizes agree, by content.

    Files in other places may have the same size and time, e.g. uncompressed ones from an archive.
    """
    stamp = record.stamp
    if stamp.num_bytes != source.num_bytes:
        return False
    if stamp.mtime_ns == source.mtime_ns and stamp.place in ("", source.place):
        return True
    try:
        with source.open_path() as path:
            return files.sha256(path) == stamp.sha256
    except (PictureError, OSError):
        return False
