"""Prepare data for training: published data sets, folders and archives -> a store of decoded samples.

Plan, decode in parallel, record each array once it is on disk, write the index. The same call resumes where it was
interrupted. Files that cannot be used are listed by name and do not stop the others.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pellucid.data import archives, registry, store
from pellucid.data.bucket_parts import remove_parts_of
from pellucid.data.dataset import DatasetPlan, DecodeTask, LeftOut
from pellucid.data.pairing import describe_order, match
from pellucid.data.store import Array, Store
from pellucid.data.store_parts import (
    check_planned,
    copy_parts,
    is_current,
    list_parts,
    open_part,
    part_folder,
    remove_parts,
)
from pellucid.data.store_upload import Log, start_upload, upload
from pellucid.data.store_writer import Planned, Stamp, StoreWriter
from pellucid.errors import ArgumentError, DataError, OutputError, PellucidError, PictureError
from pellucid.pictures.formats import SUFFIXES
from pellucid.pictures.kinds import is_picture_head
from pellucid.storage import cache
from pellucid.storage.urls import Location, Url, is_url, locate
from pellucid.system import control_groups, files
from pellucid.system.arguments import check_number, checks_types
from pellucid.system.files import cache_folder, check_name
from pellucid.system.shards import Shard
from pellucid.system.wording import describe_left_out, format_count

Progress = Callable[[int, int], None]
"""(done, total), in files."""


def ignore(_: str) -> None:
    """A log that nobody reads."""


_LEGACY_KEYWORDS = {"split": None, "blur": None, "lists": None, "all_bursts": False}
"""Keywords that a request contains for every kind of data set, because earlier versions wrote them. Without them,
a store that an earlier version started could not be resumed."""


@dataclass(frozen=True)
class Prepared:
    """A finished store; `store.left_out` lists the files that were not used.

    num_decoded: files decoded by this call; the others were in the store before.
    messages: what users should know, one line each.
    """

    store: Store
    num_decoded: int
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedShard:
    """The files of a store that one shard has decoded.

    num_files: files of this shard. num_all_files: files of all shards. num_decoded: files decoded by this call.
    is_finished: whether the store is finished, so that there was nothing to do.
    left_out: files that cannot be decoded, each with the reason.
    """

    folder: Path
    num_files: int
    num_all_files: int
    num_decoded: int
    is_finished: bool
    left_out: tuple[tuple[str, str], ...] = ()


class Elsewhere(NamedTuple):
    """What other processes did: the tasks that are still left, files that cannot be decoded, and their parts."""

    tasks: list[DecodeTask]
    failures: LeftOut
    parts: list[Path]


@dataclass(frozen=True)
class FillSettings:
    """How a store is filled.

    waits: whether to wait for another process that writes the store; otherwise this is an error.
    bring_parts: called before the parts in the folder of the store are copied.
    decode_elsewhere: lets other processes decode these tasks, and copies their results.
    """

    workers: int | None = None
    min_px: int = 1
    overwrite: bool = False
    progress: Progress | None = None
    waits: bool = False
    bring_parts: Callable[[], None] | None = None
    decode_elsewhere: Callable[[Sequence[DecodeTask], StoreWriter], Elsewhere] | None = None


@checks_types()
def prepare(
    kind: str,
    paths: Iterable[str | Location],
    out: str | Location,
    *,
    workers: int | None = None,
    min_px: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    log: Log = ignore,
    **keywords: Any,
) -> Prepared:
    """Decode a data set into a store, or resume an unfinished one.

    kind: name of the data set: folder, pairs, gopro, sid-sony, sid-fuji or patches-h5.
    paths: folders, zip or tar archives. out: the folder of the store. URLs are copied into the cache of this
        computer; a store for a bucket is made there, too, and then uploaded, its index last.
    workers: threads; by default one for each processor. min_px: pictures with a shorter side are left out.
    overwrite: replace a finished store.
    log: called with a line of text before waiting for another process, or copying a finished store from a bucket.
    keywords: of the data set, e.g. split="test"; `pellucid prepare KIND` describes them.
    Files that shards have decoded (see `prepare_shard`) are copied, not decoded again.
    A finished store of the same sources is returned unchanged. Raises DataError if nothing can be stored or a
    keyword is not possible, OutputError if `out` contains other files or another data set, or its disk is full.
    """
    _check_numbers(workers, min_px)
    place = locate(out)
    folder = start_upload(place, log, overwrite=overwrite) if isinstance(place, Url) else place
    preparation = plan_preparation(kind, _get_local(paths), folder, min_px, keywords)
    settings = FillSettings(workers, min_px, overwrite, progress)
    if isinstance(place, Url):
        return fill_and_upload(preparation, folder, place, settings, log)
    return fill_store(preparation.plan, folder, preparation.request, settings)


def _check_numbers(workers: int | None, min_px: int) -> None:
    if workers is not None:
        check_number("workers", workers, 1)
    check_number("min_px", min_px, 1)


def _get_local(paths: Iterable[str | Location]) -> list[Path]:
    return [cache.as_local(path) for path in paths]


@dataclass(frozen=True)
class Preparation:
    """What a store will contain.

    request: as JSON, without paths, because files may move before a store is resumed. facts: with paths, for
    `read_store_status`.
    """

    plan: DatasetPlan
    request: Mapping[str, Any]
    facts: Mapping[str, Any]


def plan_preparation(
    kind: str, sources: Sequence[Path], out: Path, min_px: int, keywords: Mapping[str, Any]
) -> Preparation:
    """The plan of `prepare`, from local sources; nothing is decoded yet. Raises the errors of `prepare`."""
    check_name(out)
    if os.path.lexists(out) and not os.path.isdir(out):  # noqa: PTH112  # Path's own raises on names too long
        raise OutputError(f"{out} is a file", hint="{out} must be a folder")
    plan = registry.plan(kind, sources, keywords)
    _check_outside(out, plan, sources)
    facts = {
        "kind": kind,
        "paths": [os.path.abspath(path) for path in sources],  # noqa: PTH100  # Path's own resolves links
        "keywords": {key: str(value) for key, value in keywords.items()},
    }
    return Preparation(plan, _make_request(kind, keywords, min_px), facts)


@checks_types()
def prepare_shard(
    kind: str,
    paths: Iterable[str | Location],
    out: str | Path,
    shard: Shard,
    *,
    workers: int | None = None,
    min_px: int = 1,
    progress: Progress | None = None,
    **keywords: Any,
) -> PreparedShard:
    """Decode one shard of a data set, selected by a hash of the file names, into its own folder in `out`.

    `prepare` with the same arguments then makes the store: it copies what all shards have decoded, decodes what is
    missing, and removes their folders. A shard can be repeated, and does nothing if the store is finished.

    Arguments and errors are those of `prepare`, but `out` must be a local folder or a network share. If another
    process decodes the same shard, this one waits for it.
    """
    _check_numbers(workers, min_px)
    if isinstance(locate(out), Url):
        raise ArgumentError(f"{out} is a URL, but shards share a folder", hint="choose a folder by {out}")
    out = Path(out)
    preparation = plan_preparation(kind, _get_local(paths), out, min_px, keywords)
    plan, request = preparation.plan, preparation.request
    mine = [task for task in plan.tasks if shard.takes(task.name)]
    folder = part_folder(out, shard.label)
    with StoreWriter(out, request, wait=True) as whole:
        if whole.is_finished:
            _check_unchanged(plan, whole, _find_unfinished(plan, whole)[0])
            return PreparedShard(folder, len(mine), len(plan.tasks), 0, is_finished=True)
    failures: LeftOut = []
    with open_part(out, shard.label, request, preparation.facts, failures) as writer:
        tasks, _ = _find_unfinished(replace(plan, tasks=tuple(mine)), writer)
        failures += _decode_all(tasks, writer, workers or control_groups.count_processors(), progress)
    num_decoded = len(tasks) - len(failures)
    return PreparedShard(folder, len(mine), len(plan.tasks), num_decoded, False, tuple(failures))


def _check_outside(out: Path, plan: DatasetPlan, sources: Sequence[Path]) -> None:
    """Raise OutputError if the store would be among its own pictures. Next to a source file is fine."""
    files = {Path(task.source.location) for task in plan.tasks} - set(sources)
    folders = {os.path.realpath(path.parent) for path in files}
    if folders & {os.path.realpath(out), os.path.realpath(out.parent)}:
        raise OutputError(f"{out} would be among its own sources", hint="choose another folder by {out}")


def open_data(data: str | Path, *, target: str | Path | None = None, log: Log = ignore) -> Store:
    """The store that a training reads: an existing store, or one that is made from a folder of pictures.

    data: a store, or a folder of clean pictures; with `target`, a folder of degraded pictures, whose targets are
    in the folder `target`. log: called with a line of text if files of a folder cannot be used; those of a store
    were listed when it was prepared. Raises DataError for a store with a `target` and for URLs, and the errors of
    `store.open` and `cache_folder_as_store`.
    """
    for given in (data, target):
        if given is not None and is_url(given):
            raise DataError(f"{given} is a URL", hint="copy the data to this computer first")
    if not store.is_store(Path(data)):
        made = cache_folder_as_store(data, target=target)
        if made.left_out:
            num_files = made.num_arrays + len(made.left_out)
            log(f"{data}: {describe_left_out(made.left_out, num_files)}")
        if target is not None:
            for warning in _warn_about_order(Path(data), Path(target)):
                log(warning)
        return made
    if target is not None:
        raise DataError(f"{data} is a store, which contains its targets", hint="omit {target}")
    return store.open(data)


def _warn_about_order(data: Path, target: Path) -> Iterator[str]:
    """One line if no names agree; a store does not contain how pictures were matched."""
    degraded, targets = (archives.list_files(path, SUFFIXES, is_picture_head).sources for path in (data, target))
    pairing = match(*([PurePosixPath(source.name) for source in sources] for sources in (degraded, targets)))
    if not pairing.is_by_name:
        yield describe_order(data / degraded[0].name, target / targets[0].name)


def cache_folder_as_store(
    folder: str | Path,
    *,
    target: str | Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Store:
    """A folder as a store in `files.cache_folder`, to train from it directly. Changed files lead to a new store.

    folder: clean pictures; with `target`, degraded pictures, whose targets are in the folder `target`. If several
    processes call this at the same time, one makes the store and the others wait. Raises the errors of `prepare`.
    """
    given = [Path(path) for path in (folder, target) if path is not None]
    paths = [path.resolve() for path in given]
    kind = "folder" if target is None else "pairs"
    settings = FillSettings(workers, progress=progress, waits=True)
    cache = cache_folder()
    try:
        out = cache / f"{paths[0].name}-{_hash_listing(paths)[:16]}"
        if (out / store.INDEX).exists():
            return store.open(out)
        plan = registry.plan(kind, paths, {})
        return fill_store(plan, out, _make_request(kind, {}, settings.min_px), settings).store
    except OutputError as error:
        hint = "set the environment variable PELLUCID_CACHE to another folder"
        raise OutputError(error.facts, hint=hint) from error
    except PellucidError as error:
        for path, name in zip(paths, given, strict=True):
            error = error.renamed(path, name)
        raise error from error.__cause__


def _make_request(kind: str, keywords: Mapping[str, Any], min_px: int) -> dict[str, Any]:
    """What the store must contain, as JSON. Without paths, because files may move before a store is resumed."""
    given = registry.validate_keywords(kind, keywords)
    content = {key: value for key, value in given.items() if not isinstance(value, Path)}
    return {"kind": kind, "min_px": min_px, **_LEGACY_KEYWORDS, **content}


def _hash_listing(paths: Sequence[Path]) -> str:
    """A hash of the names, sizes and times of all pictures."""
    listing = hashlib.sha256(f"{store.FORMAT} {store.VERSION}".encode())
    for path in paths:
        listing.update(f"{path}\n".encode(errors="surrogateescape"))
        for source in archives.list_files(path, SUFFIXES, is_picture_head).sources:
            line = f"{source.name} {source.num_bytes} {source.mtime_ns}\n"
            listing.update(line.encode(errors="surrogateescape"))
    return listing.hexdigest()


def fill_and_upload(
    preparation: Preparation, folder: Path, place: Url, settings: FillSettings, log: Log
) -> Prepared:
    """`fill_store` in a folder of this computer, then upload the store. Parts in the bucket are deleted."""
    try:
        prepared = fill_store(preparation.plan, folder, preparation.request, settings)
    except OutputError as error:
        if "overwrite" not in error.parameters:  # it is about the disk
            raise
        raise error.renamed(folder, place) from error
    upload(folder, place, log, overwrite=settings.overwrite)
    remove_parts_of(place)
    return prepared


def fill_store(plan: DatasetPlan, out: Path, request: Mapping[str, Any], settings: FillSettings) -> Prepared:
    with StoreWriter(out, request, overwrite=settings.overwrite, wait=settings.waits) as writer:
        if settings.overwrite or writer.is_finished:
            remove_parts(list_parts(out))
        planned = {key for task in plan.tasks for key in task.keys}
        if not writer.is_finished:
            check_planned(writer, planned)
        tasks, changed = _find_unfinished(plan, writer)
        if writer.is_finished:
            _check_unchanged(plan, writer, tasks)
            return Prepared(store.open(out), 0)
        if settings.bring_parts is not None:
            settings.bring_parts()
        parts = list_parts(out)
        num_unfinished = len(tasks)
        tasks = copy_parts(parts, tasks, writer, request, planned)
        num_copied = num_unfinished - len(tasks)
        failures: LeftOut = []
        num_undecoded = len(tasks)
        if settings.decode_elsewhere is not None:
            tasks, failures, new_parts = settings.decode_elsewhere(tasks, writer)
            parts += new_parts
        num_workers = settings.workers or control_groups.count_processors()
        failures += _decode_all(tasks, writer, num_workers, settings.progress)
        failures.sort()
        items, left_out = _select_items(plan, writer, failures, settings.min_px)
        if not items:
            first = f", e.g. {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
            writer.discard()
            found = f"0 of {format_count(len(plan.items), 'item')}" if plan.items else "no pairs"
            raise DataError(f"{found} could be stored{first}")
        messages = [*plan.messages, *_count_changes(items, writer)]
        messages += [f"{format_count(num_copied, 'file')} decoded by shards"] if num_copied else []
        messages += [f"{name} has changed since it was decoded, and was decoded again" for name in changed]
        made = writer.finish(plan.kind, items, left_out)
        remove_parts(parts)
        return Prepared(made, num_undecoded - len(failures), tuple(messages))


def _find_unfinished(plan: DatasetPlan, writer: StoreWriter) -> tuple[list[DecodeTask], list[str]]:
    """The tasks that are not done, and the names of files that have changed since they were decoded."""
    tasks, changed = [], []
    for task in plan.tasks:
        records = [writer.records.get(key) for key in task.keys]
        if any(record is not None and not is_current(record, task.source) for record in records):
            changed.append(task.name)
            for key in task.keys:
                writer.records.pop(key, None)
        if any(key not in writer.records for key in task.keys):
            tasks.append(task)
    return tasks, changed


def _check_unchanged(plan: DatasetPlan, writer: StoreWriter, unfinished: Sequence[DecodeTask]) -> None:
    """Raise OutputError if the sources of a finished store have changed: only users may decide to replace it."""
    known = {name for name, _ in store.open(writer.folder).left_out}
    planned_keys = {key for task in plan.tasks for key in task.keys}
    differing = [task.name for task in unfinished if task.name not in known]
    differing += [name for name in writer.records if name not in planned_keys]
    if differing:
        raise OutputError(
            f"{writer.folder} is finished, but {format_count(len(differing), 'source')} differ"
            f"{'s' if len(differing) == 1 else ''} (new, changed or missing), e.g. {differing[0]}",
            hint="{overwrite} makes it again",
            overwrite=True,
        )


def _decode_all(
    tasks: Sequence[DecodeTask], writer: StoreWriter, workers: int, progress: Progress | None
) -> LeftOut:
    """Decode into the store; returns the files that cannot be decoded, each with the reason."""
    failures: LeftOut = []
    # Threads, because decoders release the GIL: two threads have a speedup of 1.9, but two processes, which must
    # send the samples back, only 1.1.
    with ThreadPoolExecutor(workers) as pool:
        try:
            for done, failure in enumerate(_run_bounded(pool, tasks, writer, 2 * workers), start=1):
                failures += failure
                if progress is not None:
                    progress(done, len(tasks))
        except BaseException:  # a full disk, Ctrl-C: running tasks finish, waiting ones do not start
            pool.shutdown(cancel_futures=True)
            raise
    return sorted(failures)


def _run_bounded(
    pool: ThreadPoolExecutor, tasks: Sequence[DecodeTask], writer: StoreWriter, max_waiting: int
) -> Iterator[LeftOut]:
    """Results in the order in which they finish; only a few tasks are submitted at a time."""
    waiting: set[Future[LeftOut]] = set()
    for task in tasks:
        waiting.add(pool.submit(decode, task, writer))
        if len(waiting) >= max_waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


def decode(task: DecodeTask, writer: StoreWriter) -> LeftOut:
    try:
        with task.source.open_path() as path:
            _decode_file(task, path, writer)
    except PictureError as error:
        return [(task.name, str(error))]
    except MemoryError:
        return [(task.name, "there is not enough memory to decode it")]
    return []


def _decode_file(task: DecodeTask, path: Path, writer: StoreWriter) -> None:
    try:
        stamp = Stamp(task.source.num_bytes, task.source.mtime_ns, files.sha256(path), task.source.place)
        for key, decoded in task.decode(path):
            if key not in writer.records:
                writer.put(key, stamp, decoded.samples, metadata=decoded.metadata, changes=decoded.changes)
    except OSError as error:
        raise PictureError(f"{task.source.location} cannot be read: {error.strerror or error}") from error
    except PictureError as error:  # a file of an archive has a temporary name, which means nothing to users
        raise PictureError(str(error).replace(str(path), task.source.location)) from error


def _select_items(
    plan: DatasetPlan, writer: StoreWriter, failures: LeftOut, min_px: int
) -> tuple[list[Planned], LeftOut]:
    """The items to store, and the names of all others, each with the reason."""
    left_out = [*plan.left_out, *failures]
    items: list[Planned] = []
    seen: dict[tuple[str, ...], str] = {}
    for item in plan.items:
        keys = item.keys
        if any(key not in writer.records for key in keys):
            if item.degraded in writer.records:  # otherwise it is among the failures
                left_out.append((item.name, f"its target {item.target} could not be decoded"))
            continue
        arrays = [writer.records[key].array for key in keys]
        reason = _find_reason_to_omit(arrays, plan, min_px)
        content = tuple(array.sha256 for array in arrays)
        if reason is None and not plan.allows_duplicates and content in seen:
            reason = f"it is the same picture as {seen[content]}"
        if reason is None:
            seen[content] = item.name
            items.append(item)
        else:
            left_out.append((item.name, reason))
    return items, left_out


def _find_reason_to_omit(arrays: Sequence[Array], plan: DatasetPlan, min_px: int) -> str | None:
    """Why the arrays of an item, the target first, cannot be stored; None if they can."""
    (height, width), *others = [array.shape[:2] for array in arrays]
    if min(height, width) < min_px:
        return f"it is too small: {width} x {height} px; {min_px} px are needed"
    for other_height, other_width in others:
        if plan.kind == "raw" and (height, width) != (other_height, other_width):
            return f"its mosaic has {other_width} x {other_height} px and its target {width} x {height}"
        if height % other_height or width % other_width or height // other_height != width // other_width:
            return (
                f"it has {other_width} x {other_height} px and its target {width} x {height}, "
                f"which is not a multiple"
            )
    return None


def _count_changes(items: Sequence[Planned], writer: StoreWriter) -> list[str]:
    keys = dict.fromkeys(key for item in items for key in item.keys)
    counts = Counter(change for key in keys for change in writer.records[key].changes)
    return [f"{count} of {len(keys)}: {change}" for change, count in sorted(counts.items())]
