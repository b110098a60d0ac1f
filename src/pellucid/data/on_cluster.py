"""Prepare a store on a cluster: Ray's processes decode into parts of the store, which this process copies into it.

Only names of files pass through Ray. This process also checks the parts, and decodes what they lack, e.g. what a
process had decoded but not yet written to disk when it died.
"""

import platform
import secrets
from collections.abc import Generator, Iterator, Mapping, Sequence
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
from pellucid.data.bucket_parts import bring_parts, remove_parts_of, upload_part
from pellucid.data.dataset import DecodeTask, LeftOut
from pellucid.data.preparing import (
    Elsewhere,
    FillSettings,
    Prepared,
    Progress,
    decode,
    fill_and_upload,
    fill_store,
    ignore,
    plan_preparation,
)
from pellucid.data.store_parts import copy_arrays, list_parts, open_part, part_folder
from pellucid.data.store_upload import Log, choose_upload_folder, start_upload
from pellucid.data.store_writer import StoreReader, StoreWriter
from pellucid.errors import ClusterError, PellucidError
from pellucid.pictures import images
from pellucid.pictures.camera import raw
from pellucid.storage import objects
from pellucid.storage.urls import Location, Url, locate
from pellucid.system import memory

_CODEC_BYTES = 100_000_000
"""Memory that decoding takes for any picture."""

_FILES_PER_PART = 4
"""How many files each thread decodes for one part in a bucket: few, because a part is uploaded as a whole."""


def prepare_on(
    cluster: str,
    kind: str,
    paths: Sequence[str | Location],
    out: str | Location,
    *,
    workers: int | None = None,
    processes: int | None = None,
    min_px: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    log: Log = ignore,
    **keywords: Any,
) -> Prepared:
    """`prepare` on a cluster; the store has the same content.

    cluster: see `connection.connect`. paths, out: local folders must be shared with all computers of the cluster,
        under the same path. Sources in buckets are copied into the cache of each computer. A store for a bucket
        needs no shared folder: the processes upload what they decode, and this process makes the store of it.
    workers: threads of each process, by default 1; it also needs as many CPUs. processes: the largest number of
        processes; default: as many as fit.
    The other arguments and the errors are those of `prepare`, and ClusterError. A file whose process dies three
    times is left out.
    """
    check_reachable(cluster)  # before anything is written
    place = locate(out)
    folder = start_upload(place, log, overwrite=overwrite) if isinstance(place, Url) else place
    prepared = [SharedInput.prepare(path) for path in paths]
    sources, inputs = [path for _, path in prepared], [shared for shared, _ in prepared]
    given = {key: to_absolute(value) if isinstance(value, Path) else value for key, value in keywords.items()}
    preparation = plan_preparation(kind, sources, folder, min_px, keywords)
    team, num_threads = f"ray-{secrets.token_hex(4)}", workers or 1
    shared_out = place if isinstance(place, Url) else to_absolute(place)
    assignment = _Assignment(team, kind, inputs, shared_out, min_px, given, num_threads)

    def bring() -> None:
        if isinstance(place, Url):
            bring_parts(place, preparation.request, folder)

    def decode_elsewhere(tasks: Sequence[DecodeTask], writer: StoreWriter) -> Elsewhere:
        if not tasks:
            return Elsewhere([], [], [])
        with open_part(folder, team, preparation.request, preparation.facts, []):
            pass  # the processes look for it, and `pellucid status` reads its facts
        failures = _decode_on(cluster, assignment, tasks, processes, progress)
        bring()
        parts = [part for part in list_parts(folder) if part.name.startswith(part_folder(folder, team).name)]
        failed = {name for name, _ in failures}
        left = copy_arrays(
            [StoreReader(part) for part in parts], [task for task in tasks if task.name not in failed], writer
        )
        return Elsewhere(left, failures, parts)

    settings = FillSettings(
        workers, min_px, overwrite, progress, bring_parts=bring, decode_elsewhere=decode_elsewhere
    )
    if not isinstance(place, Url):
        return fill_store(preparation.plan, folder, preparation.request, settings)
    if overwrite:
        remove_parts_of(place)
    return fill_and_upload(preparation, folder, place, settings, log)


@dataclass(frozen=True)
class _Assignment:
    """Everything that a process needs to decode: pickled, and called there to make the worker.

    team: label of the first part, which is made before the processes start.
    """

    team: str
    kind: str
    sources: Sequence[SharedInput]
    out: Location
    min_px: int
    keywords: Mapping[str, Any]
    num_threads: int

    def __call__(self) -> "_DecodingWorker | _UploadingWorker":
        if isinstance(self.out, Url):
            objects.contains_objects(self.out)  # raises an error without credentials
        elif not part_folder(self.out, self.team).exists():
            raise no_access(self.out)
        sources = [source.as_local() for source in self.sources]
        folder = choose_upload_folder(self.out) if isinstance(self.out, Url) else self.out
        preparation = plan_preparation(self.kind, sources, folder, self.min_px, self.keywords)
        tasks = _Tasks({task.name: task for task in preparation.plan.tasks}, self.num_threads)
        if isinstance(self.out, Url):
            return _UploadingWorker(tasks, partial(upload_part, self.out, self.team, preparation.request))
        label = f"{self.team}-{secrets.token_hex(4)}"
        open_writer = partial(open_part, self.out, label, preparation.request, preparation.facts)
        return _DecodingWorker(tasks, open_writer)


@dataclass(frozen=True)
class _Tasks:
    """The files of a data set by name, and the number of threads that decode them."""

    by_name: Mapping[str, DecodeTask]
    num_threads: int

    def decode(self, names: Sequence[str], writer: StoreWriter) -> Generator[tuple[int, LeftOut], None, None]:
        """(index in names, failures) of each file, once it is decoded."""
        tasks = [self._find(name) for name in names]
        pool = ThreadPoolExecutor(self.num_threads)
        try:
            indices = {pool.submit(decode, task, writer): index for index, task in enumerate(tasks)}
            for future in as_completed(indices):
                yield indices[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _find(self, name: str) -> DecodeTask:
        if name not in self.by_name:
            raise ClusterError(
                f"{platform.node()} has no file {name}, which this computer has",
                hint="use folders that all computers share, and change nothing in them during a run",
            )
        return self.by_name[name]


class _DecodingWorker:
    """Decodes the files that one process is given, into its own part; see `member.MemberWorker`."""

    def __init__(self, tasks: _Tasks, open_writer: Any) -> None:
        self._tasks, self._failures = tasks, list[tuple[str, str]]()
        self._stack = ExitStack()
        self._writer: StoreWriter = self._stack.enter_context(open_writer(self._failures))

    def work(self, items: Sequence[str]) -> Iterator[tuple[int, LeftOut]]:
        with closing(self._tasks.decode(items, self._writer)) as results:
            for index, failures in results:
                self._failures += failures
                yield index, failures

    def close(self) -> None:
        self._stack.close()


class _UploadingWorker:
    """Decodes the files that one process is given, and uploads a few at a time; see `member.MemberWorker`."""

    def __init__(self, tasks: _Tasks, upload: Any) -> None:
        self._tasks, self._upload = tasks, upload

    def work(self, items: Sequence[str]) -> Iterator[tuple[int, LeftOut]]:
        size = _FILES_PER_PART * self._tasks.num_threads
        for start in range(0, len(items), size):
            for index, failures in self._upload(partial(self._decode, items[start : start + size])):
                yield start + index, failures

    def _decode(self, names: Sequence[str], writer: StoreWriter) -> list[tuple[int, LeftOut]]:
        return list(self._tasks.decode(names, writer))

    def close(self) -> None:
        """Nothing is left to store: parts are uploaded before their results are returned."""


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
