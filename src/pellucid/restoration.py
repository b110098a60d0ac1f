"""Restore files: read -> network -> write, for one picture or thousands.

While one picture is in the network, the next ones are decoded and the last ones encoded. A bad file stops
nothing; a result is there whole or not at all; the same call goes on where it was interrupted.
"""

import glob
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from pellucid import degrade, files, images, memory, raw, writers
from pellucid.domains import Degraded, PackedRaw
from pellucid.errors import DataError, NotEnoughMemoryError, OutputError, PellucidError, PictureError, about
from pellucid.manifest import Manifest, Stamp, State, stamp
from pellucid.picture import Mosaic, Picture
from pellucid.recipe import Recipe
from pellucid.restorer import Progress, Restorer

FAULT = "a fault of pellucid's own; please report it"

CODEC_BYTES = 100_000_000
"""What decoding and encoding take whatever the picture, with samples that are too few to lie in a file."""

TAKEN_SUFFIXES = images.SUFFIXES | images.RAW_SUFFIXES | images.OTHER_SUFFIXES
"""Of the files in a folder: what can be read, and what should be but cannot, to be named at the end."""


@dataclass(frozen=True)
class Job:
    """One picture to restore, and where it goes. root: the folder that remembers what is done, if any."""

    source: Path
    target: Path
    root: Path | None = None


@dataclass(frozen=True)
class Settings:
    """How pictures are read, restored and written; None leaves a choice to the picture or the machine.

    tile_px, halo_px, ensemble, strength, memory_bytes: as for `Restorer.restore`.
    quality: of JPEG and lossy WebP, 1..100. bit_depth: 8, 16 or 32 (floating point) bits a sample.
    exposure: of camera RAW files, for recipes that brighten: how many times longer the result shall look
        exposed, a file exposed as long as that, or "auto".
    max_pixels: larger pictures are refused before they are decoded.
    """

    tile_px: int | None = None
    halo_px: int | None = None
    ensemble: bool = False
    strength: float = 1.0
    memory_bytes: int | None = None
    quality: int | None = None
    bit_depth: int | None = None
    exposure: float | Path | Literal["auto"] = "auto"
    max_pixels: int = images.MAX_PIXELS

    def deciding(self) -> dict[str, Any]:
        """Those that decide how a result looks: not tiles and memory."""
        free = ("tile_px", "memory_bytes", "max_pixels")
        return {key: str(value) for key, value in asdict(self).items() if key not in free}


@dataclass(frozen=True)
class Outcome:
    """What became of a job: restored, left alone since its result is there, or failed and why.

    seconds: in the network. notes: what people should know about how it was read or written.
    """

    job: Job
    megapixels: float = 0.0
    seconds: float = 0.0
    skipped: bool = False
    error: PellucidError | None = None
    notes: tuple[str, ...] = ()


def plan(inputs: Sequence[str | Path], out: str | Path | None = None, *, format: str | None = None) -> list[Job]:
    """Which file becomes which: files, folders and patterns (scans/**/*.tif) in, a file or a folder out.

    Without out, a file goes beside itself as NAME-restored.EXT, and a folder to FOLDER-restored; with out, one
    file goes there under a name that has a suffix, and into a folder otherwise. Results beside their inputs are
    no inputs themselves.

    format: png, jpeg, tiff, ...; that of each input when None.
    Raises when an input does not exist, two results would have one name, or a result would replace a source.
    """
    given = [path for name in inputs for path in _expanded(name)]
    out = None if out is None else Path(out)
    if len(given) == 1 and not given[0].is_dir() and (out is None or (out.suffix and not out.is_dir())):
        jobs = [Job(given[0], _beside(given[0], format) if out is None else out)]
    elif out is not None and not out.is_dir() and (os.path.lexists(out) or out.suffix in images.SUFFIXES):
        raise OutputError(f"{out} is a file; for folders and several pictures, --out is a folder")
    else:
        jobs = _told_apart([job for path in given for job in _jobs(path, out, format)])
        if out is None:
            jobs = _without_results(jobs)
    _check(jobs)
    return jobs


def restore(
    jobs: Sequence[Job],
    restorer: Restorer,
    settings: Settings = Settings(),  # frozen
    *,
    workers: int = 2,
    overwrite: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Generator[Outcome, None, None]:
    """Restore files and say what became of each, in order; a bad one does not stop the others.

    workers: how many pictures are decoded ahead, and how many encoded behind, while one is in the network.
    overwrite: also replace results that are already there. Without it, a finished one is left alone, one whose
        input has changed since is done again, and anything else that is in the way is an error.
    progress: called with the number of jobs that are through the network, the part of the current one included.
    """
    remembered = _Remembered(_described(restorer, settings), overwrite)

    def read(work: _Work) -> _Work:
        if remembered.is_done(work.job):
            return replace(work, skipped=True)
        images.can_write(work.job.target)
        source_stamp = stamp(work.job.source)  # before it is read: it may change while it is in work
        degraded, notes = read_degraded(work.job.source, restorer, settings)
        if isinstance(degraded, Picture):
            images.can_write(work.job.target, degraded, bit_depth=settings.bit_depth)
        megapixels = degraded.height * degraded.width / 1e6
        return replace(work, degraded=degraded, megapixels=megapixels, notes=notes, source_stamp=source_stamp)

    def run(progress: Progress, reserved_bytes: int, work: _Work) -> _Work:
        assert work.degraded is not None
        start = time.monotonic()
        restored = restorer.restore(
            work.degraded,
            tile_px=settings.tile_px,
            halo_px=settings.halo_px,
            ensemble=settings.ensemble,
            strength=settings.strength,
            memory_bytes=settings.memory_bytes,
            reserved_bytes=reserved_bytes,
            progress=progress,
        )
        return replace(work, degraded=None, restored=restored, seconds=time.monotonic() - start)

    def write(work: _Work) -> _Work:
        assert work.restored is not None
        images.write(
            work.restored,
            work.job.target,
            overwrite=remembered.may_replace(work.job),
            quality=_quality(restorer, settings),
            bit_depth=settings.bit_depth,
            when_whole=partial(remembered.note, work.job, work.source_stamp),
        )
        return replace(work, restored=None)

    def needed_bytes(job: Job) -> int:
        """What it takes to decode a picture and to encode its result, by a look at the header."""
        try:
            return 0 if remembered.is_done(job) else _codec_bytes(job, restorer, settings)
        except PellucidError:
            return 0  # reading it will say what is wrong

    ceiling = memory.ceiling(settings.memory_bytes)
    budget = _Budget(ceiling, max(1, workers), needed_bytes)
    for work in _overlapped(jobs, read, run, write, budget=budget, progress=progress):
        yield Outcome(work.job, work.megapixels, work.seconds, work.skipped, work.error, work.notes)


def read_degraded(
    path: Path,
    restorer: Restorer,
    settings: Settings = Settings(),
) -> tuple[Degraded, tuple[str, ...]]:
    """What the restorer takes, from any file, and notes on how it came about.

    A picture, or a mosaic for recipes that take those; a camera RAW file is developed by LibRaw first where the
    recipe takes pictures.
    """
    if path.suffix.lower() not in images.RAW_SUFFIXES:
        picture = images.read(path, max_pixels=settings.max_pixels)
        return picture, () if picture.encoding is None else picture.encoding.notes
    if restorer.recipe.domain.takes_mosaic:
        mosaic, origin = _exposed(raw.read(path, max_pixels=settings.max_pixels), settings.exposure)
        return mosaic, (*origin, *_cautions(mosaic, restorer.recipe))
    developed = raw.develop(path, max_pixels=settings.max_pixels)
    return developed, ("camera RAW developed by LibRaw: 16 bit, camera white balance, sRGB",)


def write_report(path: Path, outcomes: Sequence[Outcome], restorer: Restorer, *, overwrite: bool) -> None:
    """What became of every picture, as JSON."""
    report = {
        "model": restorer.name,
        "recipe": restorer.recipe.name,
        "parameters": dict(restorer.recipe.parameters),
        "pictures": [_reported(outcome) for outcome in outcomes],
    }
    files.write_whole(path, json.dumps(report, indent=2).encode() + b"\n", overwrite=overwrite)


def is_report(path: Path) -> bool:
    """Whether a file is a report of an earlier run, which a later one of the same work may replace."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"model", "recipe", "parameters", "pictures"} <= found.keys()


@dataclass(frozen=True)
class _Work:
    """A job on its way: degraded once it is read, restored once it went through the network."""

    job: Job
    degraded: Degraded | None = None
    restored: Picture | None = None
    megapixels: float = 0.0
    seconds: float = 0.0
    skipped: bool = False
    error: PellucidError | None = None
    notes: tuple[str, ...] = ()
    source_stamp: Stamp = field(default_factory=list)


Stage = Callable[[_Work], _Work]


class _Budget:
    """How many pictures may be on their way: so many to be read ahead, and no more than memory holds.

    One alone is always let in, or refused where even that is too much.
    """

    def __init__(self, ceiling: int, workers: int, needed_bytes: Callable[[Job], int]) -> None:
        self.ceiling, self.workers, self.needed_bytes = ceiling, workers, needed_bytes
        self._shared_bytes = max(0, ceiling - memory.taken_bytes()) // 2
        self._taken: dict[Job, int] = {}
        self._waiting: dict[Job, int] = {}

    @property
    def taken_bytes(self) -> int:
        """What all that are on their way take to be decoded and encoded."""
        return sum(self._taken.values())

    def lets_in(self, job: Job) -> bool:
        """Whether this one may be on its way now, too; if so, it is from here on."""
        if job not in self._waiting:
            self._waiting[job] = self.needed_bytes(job)
        if self._taken and self.taken_bytes + self._waiting[job] > self._shared_bytes:
            return False
        self._taken[job] = self._waiting.pop(job)
        return True

    def check(self, job: Job) -> None:
        """Raise NotEnoughMemoryError for one that does not fit even alone."""
        least = memory.taken_bytes() + self._taken[job]
        if len(self._taken) == 1 and least > self.ceiling:
            raise NotEnoughMemoryError(
                f"{job.source} needs more than the {self.ceiling // 10**6} MB that may be taken to be decoded and "
                f"encoded; --memory {memory.enough(least)} does"
            )

    def leave(self, job: Job) -> None:
        del self._taken[job]


def _overlapped(
    jobs: Sequence[Job],
    read: Stage,
    run: Callable[[Progress, int, _Work], _Work],
    write: Stage,
    *,
    budget: _Budget,
    progress: Callable[[float], None] | None,
) -> Iterator[_Work]:
    """All jobs through three stages, in order: reading and writing in threads, running here."""
    waiting = deque(jobs)
    reading: deque[Future[_Work]] = deque()
    writing: deque[Future[_Work]] = deque()

    def checked_read(work: _Work) -> _Work:
        budget.check(work.job)
        return read(work)

    def written() -> _Work:
        work = writing.popleft().result()
        budget.leave(work.job)
        return work

    with _pool(budget.workers) as readers, _pool(budget.workers) as writers:
        for done in range(len(jobs)):
            while not reading and not budget.lets_in(waiting[0]):
                yield written()
            if not reading:
                reading.append(readers.submit(_attempt, checked_read, _Work(waiting.popleft())))
            while waiting and len(reading) <= budget.workers and budget.lets_in(waiting[0]):
                reading.append(readers.submit(_attempt, checked_read, _Work(waiting.popleft())))
            work = reading.popleft().result()
            work = _attempt(partial(run, _shifted(progress, done), budget.taken_bytes), work)
            writing.append(writers.submit(_attempt, write, work))
            del work  # or its picture would stay until the next one is restored
            while writing and (writing[0].done() or len(writing) > budget.workers):
                yield written()
        while writing:
            yield written()


def _attempt(stage: Stage, work: _Work) -> _Work:
    """One stage, unless there is nothing left to do; its failure is kept with the job."""
    if work.skipped or work.error is not None:
        return work
    try:
        return stage(work)
    except PellucidError as error:
        failure = about(work.job.source, error)
    except MemoryError:
        failure = NotEnoughMemoryError(f"{work.job.source}: not enough memory; --memory sets a ceiling")
    except OSError as error:  # what no leaf expected: a lost share, a disk that fails
        failure = PellucidError(f"{work.job.source}: {error.strerror or error}")
    except Exception as error:  # one odd file among thousands shall not end the work of a night
        failure = PellucidError(f"{work.job.source}: {FAULT} ({type(error).__name__}: {str(error)[:200]})")
    return _Work(work.job, error=failure)


def _shifted(progress: Callable[[float], None] | None, done: int) -> Progress:
    """Progress within one picture as progress in all of them."""
    return lambda pixels, all_pixels: progress(done + pixels / all_pixels) if progress else None


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that, on the way out, finish what they are at and begin nothing new."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class _Remembered:
    """The manifests of all folders that results go to."""

    def __init__(self, settings: Mapping[str, Any], overwrite: bool) -> None:
        self._settings, self._overwrite = settings, overwrite
        self._by_root: dict[Path, Manifest] = {}

    def is_done(self, job: Job) -> bool:
        """Whether there is nothing to do. Raises OutputError when something is in the way."""
        state = self._state(job)
        if state in (State.FOREIGN, State.OTHERWISE) and not self._overwrite:
            how = " and was made by another model or with other settings" if state is State.OTHERWISE else ""
            raise OutputError(f"{job.target} exists{how}; --overwrite replaces it")
        if state is State.MISSING or self._overwrite:
            files.check_free(job.target, overwrite=True)
        return state is State.DONE and not self._overwrite

    def may_replace(self, job: Job) -> bool:
        """Whether the result may take the place of what is there."""
        return self._overwrite or self._state(job) is State.OUTDATED

    def note(self, job: Job, source_stamp: Stamp, whole: Path) -> None:
        """Remember a result that is about to take its name, made of a source as it was then."""
        manifest = self._of(job)
        if manifest is not None:
            manifest.note(job.source, source_stamp, job.target, whole)

    def _state(self, job: Job) -> State:
        manifest = self._of(job)
        if manifest is not None:
            return manifest.state(job.source, job.target)
        return State.FOREIGN if os.path.lexists(job.target) else State.MISSING

    def _of(self, job: Job) -> Manifest | None:
        if job.root is None:
            return None
        if job.root not in self._by_root:
            # Where two threads come here at once, both go on with the first one's.
            self._by_root.setdefault(job.root, Manifest(job.root, self._settings))
        return self._by_root[job.root]


def _described(restorer: Restorer, settings: Settings) -> dict[str, Any]:
    """All that decides how a result looks."""
    return {
        "weights": restorer.backend.fingerprint(),
        "recipe": restorer.recipe.name,
        **{key: str(value) for key, value in restorer.recipe.parameters.items()},
        **settings.deciding(),
    }


def _quality(restorer: Restorer, settings: Settings) -> int | None:
    """As asked, or the input's own; high after deblocking, or JPEG would put its blocks back."""
    deblocks = degrade.involves(restorer.recipe.degradation, degrade.Jpeg)
    return writers.JPEG_QUALITY if settings.quality is None and deblocks else settings.quality


def _codec_bytes(job: Job, restorer: Restorer, settings: Settings) -> int:
    if job.source.suffix.lower() in images.RAW_SUFFIXES:
        developed = not restorer.recipe.domain.takes_mosaic
        decoding = raw.decoding_bytes(job.source, developed=developed, max_pixels=settings.max_pixels)
        return CODEC_BYTES + decoding
    num_pixels, decoding = images.size(job.source)
    num_pixels *= restorer.scale**2
    encoding = images.encoding_bytes(job.target, num_pixels, quality=settings.quality)
    return min(CODEC_BYTES, 20_000_000 + 32 * num_pixels) + decoding + encoding


@lru_cache(maxsize=1)
def _reference(path: Path) -> Mosaic:
    """The same file for every picture of a folder."""
    return raw.read(path)


def _exposed(mosaic: Mosaic, exposure: float | Path | Literal["auto"]) -> tuple[Mosaic, tuple[str, ...]]:
    """The mosaic with its exposure ratio, and where that is from."""
    if isinstance(exposure, Path):
        ratio, origin = raw.exposure_ratio(mosaic, _reference(exposure)), f"from {exposure.name}"
    elif exposure == "auto":
        ratio, origin = raw.estimated_exposure_ratio(mosaic), "estimated from the brightness of the mosaic"
    else:
        return replace(mosaic, exposure_ratio=exposure), ()
    return replace(mosaic, exposure_ratio=ratio), (f"exposure ratio {ratio:.3g}, {origin}",)


def _cautions(mosaic: Mosaic, recipe: Recipe) -> Iterator[str]:
    """Where a mosaic is not what the weights were trained for."""
    if isinstance(recipe.domain, PackedRaw) and recipe.domain.white_balanced and mosaic.white_balance is None:
        yield "the file tells no white balance, so that colors may be off: a typical one was taken"
    learned = recipe.protocol.degradation
    if isinstance(learned, degrade.SyntheticRaw) and isinstance(learned.exposure_ratio, tuple):
        low, high = learned.exposure_ratio
        if not low <= mosaic.exposure_ratio <= high:
            yield (
                f"an exposure ratio of {mosaic.exposure_ratio:.3g}, but the weights were trained for {low:g} to "
                f"{high:g}: they are for pictures much too dark"
            )


def _reported(outcome: Outcome) -> dict[str, Any]:
    status = "failed" if outcome.error else "left alone" if outcome.skipped else "restored"
    return {
        "source": str(outcome.job.source),
        "target": str(outcome.job.target),
        "status": status,
        "error": None if outcome.error is None else str(outcome.error),
        "notes": list(outcome.notes),
        "megapixels": outcome.megapixels,
        "network_s": outcome.seconds,
    }


def _expanded(name: str | Path) -> list[Path]:
    """A file or folder, or all that a pattern stands for."""
    if not str(name):
        raise PictureError("an empty name among the inputs; a picture or a folder is needed")
    if os.path.lexists(name):
        return [Path(name)]
    found: list[str] = []
    if glob.has_magic(str(name)):
        found = sorted(glob.glob(str(name), recursive=True))  # noqa: PTH207  # Path's takes no absolute patterns
    if not found:
        raise PictureError(f"{name} does not exist")
    return [Path(path) for path in found]


def _jobs(given: Path, out: Path | None, format: str | None) -> Iterator[Job]:
    if not given.is_dir():
        target = _beside(given, format) if out is None else out / images.written_name(given.name, format)
        yield Job(given, target, target.parent)
        return
    folder = _folder_beside(given) if out is None else out
    # Results of an earlier run may lie below the folder they came from.
    inside = _lies_in(folder, given)
    found = [path for path in images.find(given, TAKEN_SUFFIXES) if not (inside and _lies_in(path, folder))]
    if not found:
        raise DataError(f"{given} holds no pictures ({', '.join(sorted(images.SUFFIXES))})")
    for source in found:
        name = images.written_name(source.name, format)
        yield Job(source, folder / source.relative_to(given).with_name(name), folder)


def _told_apart(jobs: Sequence[Job]) -> list[Job]:
    """Pictures that differ by their suffix only keep it, where all become one format: a.jpg.png, a.tif.png."""
    count = Counter(job.target for job in jobs)
    return [job if count[job.target] == 1 else replace(job, target=_with_both_suffixes(job)) for job in jobs]


def _with_both_suffixes(job: Job) -> Path:
    if job.source.suffix == job.target.suffix:
        return job.target
    return job.target.with_name(f"{job.target.stem}{job.source.suffix}{job.target.suffix}")


def _without_results(jobs: Sequence[Job]) -> list[Job]:
    """Without what an earlier run has put beside its input, where a pattern catches it, too."""
    targets = {os.path.realpath(job.target) for job in jobs}
    return [job for job in jobs if os.path.realpath(job.source) not in targets]


def _lies_in(path: Path, folder: Path) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep)


def _beside(path: Path, format: str | None) -> Path:
    return path.with_name(images.written_name(f"{path.stem}-restored{path.suffix}", format))


def _folder_beside(folder: Path) -> Path:
    named = folder if folder.name else folder.resolve()
    if not named.name or named.name == "..":
        raise OutputError(f"{folder} has no name to put -restored behind; say with --out where results go")
    return named.with_name(f"{named.name}-restored")


def _check(jobs: Sequence[Job]) -> None:
    """Refuse what would replace a source or another result."""
    sources = {os.path.realpath(job.source) for job in jobs}
    taken: dict[str, Path] = {}
    for job in jobs:
        target = os.path.realpath(job.target)
        if target in sources:
            raise OutputError(f"{job.target} is the input itself; choose another --out")
        if target in taken:
            raise OutputError(
                f"{taken[target]} and {job.source} would both become {job.target}; "
                f"restore them into different folders"
            )
        taken[target] = job.source
