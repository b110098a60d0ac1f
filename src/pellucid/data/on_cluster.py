"""Prepare a store on a cluster: Ray's processes decode into parts of the store, which this process copies into it.

Only names of files pass through Ray. This process also checks the parts, and decodes what they lack, e.g. what a
process had decoded but not yet written to disk when it died.
"""

import platform
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pellucid.clusters.connection import check_reachable
from pellucid.clusters.inputs import SharedInput, no_access, to_absolute
from pellucid.clusters.team import MIN_PROCESS_BYTES, LostItem, Requirements, run_team
from pellucid.data.archives import Source
from pellucid.data.dataset import DecodeTask, LeftOut
from pellucid.data.preparing import (
    Elsewhere,
    FillSettings,
    Prepared,
    Progress,
    decode,
    fill_store,
    plan_preparation,
)
from pellucid.data.store_parts import copy_arrays, list_parts, open_part, part_folder
from pellucid.data.store_writer import StoreReader, StoreWriter
from pellucid.errors import ArgumentError, ClusterError, PellucidError
from pellucid.pictures import images
from pellucid.pictures.camera import raw
from pellucid.storage.urls import Location, Url, locate
from pellucid.system import memory

_CODEC_BYTES = 100_000_000
"""Memory that decoding takes for any picture."""


def prepare_on(
    cluster: str,
    kind: str,
    paths: Sequence[str | Location],
    out: str | Path,
    *,
    workers: int | None = None,
    processes: int | None = None,
    min_px: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    **keywords: Any,
) -> Prepared:
    """`prepare` on a cluster; the store has the same content.

    cluster: see `connection.connect`. paths, out: local folders must be shared with all computers of the cluster,
        under the same path. Sources in buckets are copied into the cache of each computer.
    workers: threads of each process, by default 1; it also needs as many CPUs. processes: the largest number of
        processes; default: as many as fit.
    The other arguments and the errors are those of `prepare`, and ClusterError. A file whose process dies three
    times is left out.
    """
    if isinstance(locate(out), Url):
        raise ArgumentError(f"{out} is a URL, but the processes share a folder", hint="choose a folder by {out}")
    check_reachable(cluster)  # before anything is written
    out = Path(out)
    prepared = [SharedInput.prepare(path) for path in paths]
    sources, inputs = [path for _, path in prepared], [shared for shared, _ in prepared]
    given = {key: to_absolute(value) if isinstance(value, Path) else value for key, value in keywords.items()}
    preparation = plan_preparation(kind, sources, out, min_px, keywords)
    team, num_threads = f"ray-{secrets.token_hex(4)}", workers or 1
    assignment = _Assignment(team, kind, inputs, to_absolute(out), min_px, given, num_threads)

    def decode_elsewhere(tasks: Sequence[DecodeTask], writer: StoreWriter) -> Elsewhere:
        if not tasks:
            return Elsewhere([], [], [])
        with open_part(out, team, preparation.request, preparation.facts, []):
            pass  # the processes look for it, and `pellucid status` reads its facts
        failures = _decode_on(cluster, assignment, tasks, processes, progress)
        parts = [part for part in list_parts(out) if part.name.startswith(part_folder(out, team).name)]
        failed = {name for name, _ in failures}
        left = copy_arrays(
            [StoreReader(part) for part in parts], [task for task in tasks if task.name not in failed], writer
        )
        return Elsewhere(left, failures, parts)

    settings = FillSettings(workers, min_px, overwrite, progress, decode_elsewhere=decode_elsewhere)
    return fill_store(preparation.plan, out, preparation.request, settings)


@dataclass(frozen=True)
class _Assignment:
    """Everything that a process needs to decode: pickled, and called there to make the worker.

    team: label of the first part, which is made before the processes start.
    """

    team: str
    kind: str
    sources: Sequence[SharedInput]
    out: Path
    min_px: int
    keywords: Mapping[str, Any]
    num_threads: int

    def __call__(self) -> "_DecodingWorker":
        if not part_folder(self.out, self.team).exists():
            raise no_access(self.out)
        sources = [source.as_local() for source in self.sources]
        preparation = plan_preparation(self.kind, sources, self.out, self.min_px, self.keywords)
        tasks = {task.name: task for task in preparation.plan.tasks}
        label = f"{self.team}-{secrets.token_hex(4)}"
        open_writer = partial(open_part, self.out, label, preparation.request, preparation.facts)
        return _DecodingWorker(tasks, open_writer, self.num_threads)


class _DecodingWorker:
    """Decodes the files that one process is given, into its own part; see `member.MemberWorker`."""

    def __init__(self, tasks: Mapping[str, DecodeTask], open_writer: Any, num_threads: int) -> None:
        self._tasks, self._num_threads, self._failures = tasks, num_threads, list[tuple[str, str]]()
        self._stack = ExitStack()
        self._writer: StoreWriter = self._stack.enter_context(open_writer(self._failures))

    def work(self, items: Sequence[str]) -> Iterator[tuple[int, LeftOut]]:
        tasks = [self._find(name) for name in items]
        pool = ThreadPoolExecutor(self._num_threads)
        try:
            indices = {pool.submit(decode, task, self._writer): index for index, task in enumerate(tasks)}
            for future in as_completed(indices):
                self._failures += future.result()
                yield indices[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        self._stack.close()

    def _find(self, name: str) -> DecodeTask:
        if name not in self._tasks:
            raise ClusterError(
                f"{platform.node()} has no file {name}, which this computer has",
                hint="use folders that all computers share, and change nothing in them during a run",
            )
        return self._tasks[name]


def _decode_on(
    cluster: str,
    assignment: _Assignment,
    tasks: Sequence[DecodeTask],
    processes: int | None,
    progress: Progress | None,
) -> LeftOut:
    """Decode on the cluster; returns the files that cannot be decoded, each with the reason."""
    failures: LeftOut = []
    names, resources = [task.name for task in tasks], _estimate_resources(tasks, assignment.num_threads)
    with closing(run_team(cluster, assignment, names, resources, max_processes=processes)) as results:
        for num_done, (index, result) in enumerate(results, start=1):
            if isinstance(result, LostItem):
                location = tasks[index].source.location
                failures.append((names[index], str(result.to_error(location, "decoded"))))
            else:
                failures += result
            if progress is not None:
                progress(num_done, len(tasks))
    return failures


def _estimate_resources(tasks: Sequence[DecodeTask], num_threads: int) -> Requirements:
    """The resources of each process: memory for the largest file, for each of its threads."""
    largest = max((task.source for task in tasks), key=lambda source: source.num_bytes)
    try:
        needed = num_threads * (_CODEC_BYTES + _decoding_bytes(largest))
    except PellucidError:  # its own process reports it
        needed = 0
    num_bytes = max(MIN_PROCESS_BYTES, memory.enough_bytes(memory.used_bytes() + needed))
    return Requirements(num_bytes, num_cpus=num_threads)


def _decoding_bytes(source: Source) -> int:
    with source.open_path() as path:
        return raw.decoding_bytes(path, developed=True) if images.is_raw(path) else images.decoding_cost(path)[1]
