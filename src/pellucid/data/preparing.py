"""Prepare data to train on: published data sets, folders and archives -> one store of decoded samples.

Plan, decode in parallel, note each array as it is done, write the index. The same command goes on where it was
interrupted. What cannot be used is listed by name and stops nothing.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

from pellucid.data import archives, layouts, store
from pellucid.data.archives import Source
from pellucid.data.layouts import DatasetPlan, DecodeTask, LeftOut, Options
from pellucid.data.store import Array, Store
from pellucid.data.store_writer import Noted, Planned, Stamp, StoreWriter
from pellucid.errors import DataError, OutputError, PictureError
from pellucid.pictures.images import SUFFIXES
from pellucid.system.files import cache_folder

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """A finished store, and how it came about. What was left out is in `store.left_out`."""

    store: Store
    num_decoded: int
    """Files decoded now; the others were there already."""
    remarks: tuple[str, ...] = ()


def prepare(
    kind: str,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    options: Options = Options(),  # noqa: B008  # frozen, so one for all calls will do
    workers: int | None = None,
    min_px: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Decode a data set into a store, or go on with one that was begun.

    kind: one of `layouts.KINDS`. paths: folders, zip or tar archives. workers: threads, else one a processor.
    min_px: pictures with a shorter side are left out.
    A finished store of the same sources is returned as it is. Raises DataError when nothing can be stored,
    OutputError when `out` holds something else or another data set, or its disk is full.
    """
    planned = layouts.plan(kind, [Path(path) for path in paths], options)
    return _stored(kind, planned, Path(out), options, workers, min_px, overwrite, progress, wait_for_others=False)


def open_data(data: str | Path, *, target: str | Path | None = None) -> Store:
    """What a training reads: a store, or a plain folder (with `target`, two) by `cached`. Raises as they do."""
    is_store = target is None and store.is_there(Path(data))
    return store.open(data) if is_store else cache_folder_as_store(data, target=target)


def cache_folder_as_store(
    folder: str | Path,
    *,
    target: str | Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Store:
    """A plain folder as a store, for training straight from it: in `files.cache_folder`, made anew on a change.

    folder: clean pictures; with `target`, degraded ones, whose clean partners lie there. Several processes may
    ask at once; one makes the store, the others wait. Raises as `prepare`.
    """
    paths = [Path(path).resolve() for path in (folder, target) if path is not None]
    out = cache_folder() / f"{paths[0].name}-{_listing_digest(paths)[:16]}"
    if (out / store.INDEX).exists():
        return store.open(out)
    kind = "folder" if target is None else "pairs"
    planned = layouts.plan(kind, paths, Options())
    return _stored(kind, planned, out, Options(), workers, 1, False, progress, wait_for_others=True).store


def _listing_digest(paths: Sequence[Path]) -> str:
    listing = hashlib.sha256(f"{store.FORMAT} {store.VERSION}".encode())
    for path in paths:
        listing.update(f"{path}\n".encode(errors="surrogateescape"))
        for source in archives.find(path, SUFFIXES).sources:
            line = f"{source.name} {source.num_bytes} {source.mtime_ns}\n"
            listing.update(line.encode(errors="surrogateescape"))
    return listing.hexdigest()


def _stored(
    kind: str,
    planned: DatasetPlan,
    out: Path,
    options: Options,
    workers: int | None,
    min_px: int,
    overwrite: bool,
    progress: Progress | None,
    *,
    wait_for_others: bool,
) -> Prepared:
    request = {"kind": kind, "min_px": min_px, **asdict(options), "lists": None}
    with StoreWriter(out, request, overwrite=overwrite, wait=wait_for_others) as writer:
        todo, changed = _todo(planned, writer)
        if writer.is_finished:
            _check_unchanged(planned, writer, todo)
            return Prepared(store.open(out), 0)
        failures = _decode_all(todo, writer, workers or _num_processors(), progress)
        items, left_out = _sound_items(planned, writer, failures, min_px)
        if not items:
            first = f", first {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
            raise DataError(f"none of {len(planned.items)} could be stored{first}")
        remarks = [*planned.remarks, *_changes(items, writer)]
        remarks += [f"{name} changed since it was decoded, and was decoded anew" for name in changed]
        made = writer.finish(planned.kind, items, left_out)
        return Prepared(made, len(todo) - len(failures), tuple(remarks))


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _todo(planned: DatasetPlan, writer: StoreWriter) -> tuple[list[DecodeTask], list[str]]:
    """The jobs not yet done, and the names of those whose file is no longer what was decoded."""
    todo, changed = [], []
    for job in planned.jobs:
        noted = [writer.noted.get(key) for key in job.keys]
        if any(each is not None and not _is_current(each, job.source) for each in noted):
            changed.append(job.name)
            for key in job.keys:
                writer.noted.pop(key, None)
        if any(key not in writer.noted for key in job.keys):
            todo.append(job)
    return todo, changed


def _is_current(noted: Noted, source: Source) -> bool:
    """Whether a file is what it was: by size and time, else by its content."""
    stamp = noted.stamp
    if stamp.num_bytes != source.num_bytes or stamp.mtime_ns == source.mtime_ns:
        return stamp.num_bytes == source.num_bytes
    try:
        with source.file() as path:
            return _sha256(path) == stamp.sha256
    except (PictureError, OSError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_unchanged(planned: DatasetPlan, writer: StoreWriter, todo: Sequence[DecodeTask]) -> None:
    """A finished store is what it is: another listing needs a word of the user."""
    finished = store.open(writer.folder)
    known = {name for name, _ in finished.left_out}
    planned_keys = {key for job in planned.jobs for key in job.keys}
    differing = [job.name for job in todo if job.name not in known]
    differing += [name for name in writer.noted if name not in planned_keys]
    if differing:
        raise OutputError(
            f"{writer.folder} is finished, but {len(differing)} of its sources are new, changed or gone, "
            f"first {differing[0]}; --overwrite makes it anew"
        )


def _decode_all(
    todo: Sequence[DecodeTask], writer: StoreWriter, workers: int, progress: Progress | None
) -> LeftOut:
    """Decode into the store; the files that cannot be, each with the reason."""
    failures: LeftOut = []
    # Threads, as decoders work outside of Python: 1.9 times as fast with two, where two processes that send the
    # samples back gain 1.1 times.
    with ThreadPoolExecutor(workers) as pool:
        try:
            for done, failure in enumerate(_run_few(pool, todo, writer, 2 * workers), start=1):
                failures += failure
                if progress is not None:
                    progress(done, len(todo))
        except BaseException:  # a full disk, Ctrl-C: what is under way comes to its end, nothing more begins
            pool.shutdown(cancel_futures=True)
            raise
    return sorted(failures)


def _run_few(
    pool: ThreadPoolExecutor, todo: Sequence[DecodeTask], writer: StoreWriter, num_waiting: int
) -> Iterator[LeftOut]:
    """Results as they come, with few jobs handed in at a time."""
    waiting: set[Future[LeftOut]] = set()
    for job in todo:
        waiting.add(pool.submit(_decode, job, writer))
        if len(waiting) >= num_waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


def _decode(job: DecodeTask, writer: StoreWriter) -> LeftOut:
    try:
        with job.source.file() as path:
            _decode_file(job, path, writer)
    except PictureError as error:
        return [(job.name, str(error))]
    except MemoryError:
        return [(job.name, "it needs more memory than there is")]
    return []


def _decode_file(job: DecodeTask, path: Path, writer: StoreWriter) -> None:
    try:
        stamp = Stamp(job.source.num_bytes, job.source.mtime_ns, _sha256(path))
        for key, decoded in job.decode(path):
            if key not in writer.noted:
                writer.put(key, stamp, decoded.samples, facts=decoded.facts, changes=decoded.changes)
    except OSError as error:
        raise PictureError(f"{job.source.place} cannot be read: {error.strerror or error}") from error
    except PictureError as error:  # a file of an archive has a passing name, which tells nobody anything
        raise PictureError(str(error).replace(str(path), job.source.place)) from error


def _sound_items(
    planned: DatasetPlan, writer: StoreWriter, failures: LeftOut, min_px: int
) -> tuple[list[Planned], list[tuple[str, str]]]:
    """The items that go into the store; the others by name, each with the reason."""
    left_out = [*planned.left_out, *failures]
    items: list[Planned] = []
    seen: dict[tuple[str, ...], str] = {}
    for item in planned.items:
        keys = [key for key in (item.target, item.degraded) if key is not None]
        if any(key not in writer.noted for key in keys):
            if item.degraded in writer.noted:  # what failed itself is listed already
                left_out.append((item.name, f"its target {item.target} could not be decoded"))
            continue
        arrays = [writer.noted[key].array for key in keys]
        reason = _why_not(arrays, planned, min_px)
        same = tuple(array.sha256 for array in arrays)
        if reason is None and not planned.repeats and same in seen:
            reason = f"it is the same picture as {seen[same]}"
        if reason is None:
            seen[same] = item.name
            items.append(item)
        else:
            left_out.append((item.name, reason))
    return items, left_out


def _why_not(arrays: Sequence[Array], planned: DatasetPlan, min_px: int) -> str | None:
    (height, width), *others = [array.shape[:2] for array in arrays]
    if min(height, width) < min_px:
        return f"it is too small: {width} x {height} px, {min_px} are needed"
    for other_height, other_width in others:
        if planned.kind == "raw" and (height, width) != (other_height, other_width):
            return f"its mosaic has {other_width} x {other_height} px and its target {width} x {height}"
        if height % other_height or width % other_width or height // other_height != width // other_width:
            return (
                f"it has {other_width} x {other_height} px and its target {width} x {height}, "
                f"which is no whole multiple"
            )
    return None


def _changes(items: Sequence[Planned], writer: StoreWriter) -> list[str]:
    keys = dict.fromkeys(key for item in items for key in (item.target, item.degraded) if key is not None)
    counts = Counter(change for key in keys for change in writer.noted[key].changes)
    return [f"{count} of {len(keys)}: {change}" for change, count in sorted(counts.items())]
