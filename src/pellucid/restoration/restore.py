"""Restore files: read -> network -> write, for one picture or thousands.

While one picture is in the network, the next ones are decoded and the previous ones encoded. A bad file does not
stop the others, a result is written completely or not at all, and the same call resumes after an interruption.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pellucid.errors import OutputError, PellucidError, PictureError
from pellucid.pictures import formats, images
from pellucid.pictures.picture import Picture
from pellucid.recipes.overrides import former_keywords
from pellucid.restoration import planning
from pellucid.restoration.conversion import InMemory, is_in_memory, to_pictures
from pellucid.restoration.manifest import Manifests, Request
from pellucid.restoration.one_picture import restore_picture
from pellucid.restoration.pipeline import Budget, InFlightItem, Tracker, run_overlapped, to_pellucid_error
from pellucid.restoration.planning import Job, Plan
from pellucid.restoration.position import Position
from pellucid.restoration.preview import name_sheets
from pellucid.restoration.restorer import Restorer, load
from pellucid.restoration.settings import Settings
from pellucid.restoration.stages import Stages, choose_quality, codec_bytes
from pellucid.restoration.suitability import warn_about
from pellucid.restoration.transfers import Transfers
from pellucid.storage.urls import Location, Url, is_folder, locate
from pellucid.system import files, memory
from pellucid.system.keywords import check_number

CLAIM_EVERY_S, CLAIM_IN_BUCKET_EVERY_S = 0.2, 2.0
"""How often to look whether another process has finished a result."""

LATER_SETTINGS = ("page", "white", "sidecars", "scale", "size", "crop")
"""Settings that manifests of earlier versions do not contain."""

Inputs = str | Location | InMemory | Iterable[str | Location | InMemory | Job]
"""One input or several: paths and URLs of files and folders, patterns, pictures in memory, or jobs from `plan`."""


@dataclass(frozen=True)
class Outcome:
    """What happened to one picture: it was restored, or it was skipped, or it failed.

    source: the file; None for a picture in memory. target: where the result is; None if it was not written.
    restored: the result of a picture in memory, in the same form; None for files and failures.
    megapixels: of the degraded picture. seconds: in the network.
    is_skipped: the result already existed, made from the same input in the same way.
    error: why it failed; None if it did not. See `raise_error`.
    info: how the picture was read, and which metadata are not kept. warnings: why the result may be worse than
        expected.
    """

    source: Location | None
    target: Location | None
    restored: Any = None
    megapixels: float = 0.0
    seconds: float = 0.0
    is_skipped: bool = False
    error: PellucidError | None = None
    info: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def raise_error(self) -> None:
        """Raise the error, if there is one."""
        if self.error is not None:
            raise self.error


def restore(
    inputs: Inputs,
    restorer: Restorer | str | Path,
    out: str | Location | None = None,
    settings: Settings = Settings(),  # frozen
    *,
    format: str | None = None,
    workers: int = 2,
    overwrite: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    name: str | None = None,
    mask: str | Location | None = None,
    progress: Callable[[Position], None] | None = None,
) -> list[Outcome]:
    """Restore pictures and wait for all of them; returns one outcome for each, in order.

    Several processes may restore the same folder: they share the work, and each result is made once. Outcomes of
    results that another process was making come last.

        pellucid.restore("photo.png", "srcnn-x2")                  # writes photo-restored.png
        pellucid.restore("scans/**/*.tif", restorer, "restored")   # writes into the folder `restored`
        (outcome,) = pellucid.restore(array, restorer)             # outcome.restored is an array

    A picture that fails does not stop the others and raises nothing: its outcome has an `error`. Scripts that must
    not continue after one can call `outcome.raise_error()`.

    inputs: one path or several: files, folders, patterns (scans/**/*.tif). Or one picture in memory or several, in
        any form that `Restorer.restore` takes. Or jobs, as `plan` returns them.
    restorer: as `load` returns it, or a name or path for `load`.
    out: a file (for one picture) or a folder. Default: NAME-restored.EXT next to a file and FOLDER-restored next
        to a folder; pictures in memory are not written, only returned. See `plan`. Several pictures in memory are
        written as 1.png, 2.png, ...
    format: png, tiff, jpeg, webp, bmp, ppm, jxl or jp2. Default: that of each input; png for pictures in memory.
    workers: how many files are decoded ahead and how many are encoded while one is in the network.
    overwrite: replace existing results. Without it, a finished result is skipped, a result is made again if its
        input has changed since, and any other existing file is an error.
    include, exclude: patterns for pictures in folders, see `plan`.
    name: pattern for the names of results, e.g. "{stem}-{model}{suffix}", see `plan`.
    mask: a picture that is white where files must be restored, or a folder of such pictures, see `plan`.
    progress: called with the `Position` after each tile and each picture.

    Raises PictureError or DataError for inputs that do not exist, OutputError for an `out` that does not fit them,
    and what `load` raises, all before any work.
    """
    return list(
        iter_restore(
            inputs,
            restorer,
            out,
            settings,
            format=format,
            workers=workers,
            overwrite=overwrite,
            include=include,
            exclude=exclude,
            name=name,
            mask=mask,
            progress=progress,
        )
    )


def iter_restore(
    inputs: Inputs,
    restorer: Restorer | str | Path,
    out: str | Location | None = None,
    settings: Settings = Settings(),  # frozen
    *,
    format: str | None = None,
    workers: int = 2,
    overwrite: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    name: str | None = None,
    mask: str | Location | None = None,
    progress: Callable[[Position], None] | None = None,
) -> Generator[Outcome, None, None]:
    """`restore` as an iterator: pictures are restored while it is iterated, and outcomes are not collected.

    Arguments and errors are those of `restore`. Closing the iterator stops after the pictures in flight.
    """
    check_number("workers", workers, 1)
    if not isinstance(settings, Settings):
        raise PellucidError(f"settings of type {type(settings).__name__}; pellucid.Settings(...) is needed")
    given = _to_list(inputs)
    if (name is not None or mask is not None) and not all(isinstance(one, str | Path | Url) for one in given):
        raise PellucidError(
            "names and masks of results are only for paths", hint="omit {name}; `Restorer.restore` takes masks"
        )
    chosen = restorer if isinstance(restorer, Restorer) else load(restorer)
    if given and all(map(is_in_memory, given)):
        targets = _plan_in_memory(len(given), out, format, overwrite=overwrite)
        return _restore_in_memory(given, targets, chosen, settings, overwrite, progress)
    if isinstance(inputs, Plan) or (given and all(isinstance(one, Job) for one in given)):
        if out is not None or format is not None:
            raise OutputError("jobs contain the files to write", hint="omit {out} and {format}")
        jobs = inputs if isinstance(inputs, Plan) else given
        planning.check(jobs)
        return _restore_files(jobs, chosen, settings, workers, overwrite, progress)
    jobs = planning.plan(
        given,
        out,
        format=format,
        include=include,
        exclude=exclude,
        name=name,
        model=chosen.name,
        mask=mask,
        overwrite=overwrite,
    )
    return _restore_files(jobs, chosen, settings, workers, overwrite, progress)


def _to_list(inputs: Any) -> list[Any]:
    """One input or several. Raises PictureError if they are neither all in memory nor all paths nor all jobs."""
    given = [inputs] if isinstance(inputs, str | Path | Url) or is_in_memory(inputs) else inputs
    if not isinstance(given, Iterable):
        raise PictureError(
            f"an input of type {type(inputs).__name__}; paths, pictures or a list of jobs are needed"
        )
    given = list(given)
    kinds = sorted(set(map(_kind_of, given)))
    if len(kinds) > 1 or not {*kinds} <= {"pictures", "paths", "jobs"}:
        raise PictureError(f"inputs are {' and '.join(kinds)}; only paths or only pictures are needed")
    return given


def _kind_of(value: object) -> str:
    """What an input is, in the plural."""
    if is_in_memory(value):
        return "pictures"
    if isinstance(value, str | Path | Url):
        return "paths"
    return "jobs" if isinstance(value, Job) else f"objects of type {type(value).__name__}"


def _plan_in_memory(
    count: int, out: str | Location | None, format: str | None, *, overwrite: bool
) -> list[Path | None]:
    """Where the results of pictures in memory go."""
    if out is None:
        return [None] * count
    out = locate(out)
    if isinstance(out, Url):
        raise OutputError(f"{out}: results of pictures in memory are written to this computer", hint="omit {out}")
    files.check_name(out)
    if count == 1 and out.suffix and not is_folder(out):
        planning.check_format(out, format)
        targets = [out]
    elif out.suffix in formats.SUFFIXES and not is_folder(out):
        raise OutputError(f"{out} is a file, but there are {count} pictures", hint="{out} must be a folder")
    else:
        targets = [out / images.result_name(f"{i}.png", format) for i in range(1, count + 1)]
    for target in targets:
        images.check_format(target)
        files.check_overwrite(target, overwrite=overwrite)
    return [*targets]


def _restore_in_memory(
    inputs: Sequence[InMemory],
    targets: Sequence[Path | None],
    restorer: Restorer,
    settings: Settings,
    overwrite: bool,
    progress: Callable[[Position], None] | None,
) -> Generator[Outcome, None, None]:
    megapixels = 0.0
    for i, (given, target) in enumerate(zip(inputs, targets, strict=True), start=1):
        try:
            outcome = _restore_one_in_memory(given, target, restorer, settings, overwrite=overwrite)
        except Exception as error:  # as for files: reported, and the others continue
            outcome = Outcome(None, None, error=to_pellucid_error(error, f"picture {i}"))
        megapixels += outcome.megapixels
        if progress is not None:
            progress(Position(i, len(inputs), None, outcome.megapixels, megapixels))
        yield outcome


def _restore_one_in_memory(
    given: InMemory, target: Path | None, restorer: Restorer, settings: Settings, *, overwrite: bool
) -> Outcome:
    pictures, to_same_form = to_pictures(given, white=settings.white)
    if target is not None and len(pictures) > 1:
        raise OutputError(f"a tensor of {len(pictures)} pictures; {target} can contain one")
    if target is not None and isinstance(pictures[0], Picture):
        images.check_format(target, pictures[0], bit_depth=settings.bit_depth)
    start = time.monotonic()
    restored = [restore_picture(restorer, picture, settings) for picture in pictures]
    seconds = time.monotonic() - start
    notes: tuple[str, ...] = ()
    if target is not None:
        quality, bit_depth = choose_quality(restorer, settings, target), settings.bit_depth
        notes = images.write(restored[0], target, overwrite=overwrite, quality=quality, bit_depth=bit_depth)
    return Outcome(
        None,
        target,
        to_same_form(restored),
        megapixels=sum(picture.height * picture.width for picture in pictures) / 1e6,
        seconds=seconds,
        info=notes,
        warnings=tuple(warning for picture in pictures for warning in warn_about(picture, restorer)),
    )


def _restore_files(
    jobs: Sequence[Job],
    restorer: Restorer,
    settings: Settings,
    workers: int,
    overwrite: bool,
    progress: Callable[[Position], None] | None,
) -> Generator[Outcome, None, None]:
    manifests = _open_manifests(jobs, restorer, settings, overwrite)
    jobs, targets = _settle_names(jobs, manifests)
    transfers = Transfers(jobs, manifests.is_done)
    stages = Stages(restorer, settings, manifests, transfers, name_sheets(targets))
    budget = Budget(memory.limit_bytes(settings.memory_bytes), workers, stages.needed_bytes)
    tracker = Tracker(len(jobs), progress)

    def run(jobs: Sequence[Job]) -> Generator[InFlightItem, None, None]:
        return run_overlapped(jobs, stages.read, stages.run, stages.write, budget=budget, tracker=tracker)

    try:
        manifests.check_claims(jobs)
        deferred = []
        with closing(run(jobs)) as items:
            for item in items:
                if not item.is_deferred:
                    _record_outcome(manifests, item)
                manifests.release(item.job)
                transfers.close_job(item.job)
                if item.is_deferred:
                    deferred.append(item.job)
                else:
                    yield _to_outcome(item)
        while deferred:  # until other processes have made them, or ended
            ready = [job for job in deferred if _may_begin(manifests, job)]
            deferred = [job for job in deferred if job not in ready]
            with closing(run(ready)) as items:
                for item in items:
                    _record_outcome(manifests, item)
                    manifests.release(item.job)
                    transfers.close_job(item.job)
                    yield _to_outcome(item)
            if not ready:
                is_bucket = any(isinstance(job.root, Url) for job in deferred)
                time.sleep(CLAIM_IN_BUCKET_EVERY_S if is_bucket else CLAIM_EVERY_S)
    finally:
        transfers.close()
        manifests.close()


def _may_begin(manifests: Manifests, job: Job) -> bool:
    """Whether a result can be claimed, or whether trying it again tells the user why not."""
    try:
        return manifests.claim(job)
    except PellucidError:
        return True


def check_files(
    jobs: Sequence[Job], restorer: Restorer, settings: Settings, *, overwrite: bool
) -> Iterator[Outcome]:
    """What `restore` would do with each job, from the headers of the files; nothing is restored or written."""
    manifests = _open_manifests(jobs, restorer, settings, overwrite)
    for job in _settle_names(jobs, manifests)[0]:
        outcome = Outcome(job.source, job.target)
        try:
            if manifests.is_done(job):
                yield replace(outcome, is_skipped=True)
                continue
            images.check_format(job.target)
            if isinstance(job.mask, Path):
                files.read_head(job.mask)
            if isinstance(job.source, Path):  # other files are not fetched for this
                codec_bytes(job.source, Path(job.target.name), restorer, settings)
        except PellucidError as error:
            outcome = replace(outcome, error=error.about(job.source))
        yield outcome


def _open_manifests(jobs: Sequence[Job], restorer: Restorer, settings: Settings, overwrite: bool) -> Manifests:
    described = _describe(restorer, settings)
    if any(job.mask is not None for job in (jobs.whole if isinstance(jobs, Plan) else jobs)):
        described["mask"] = "given"
    facts = {"recipe": restorer.recipe.name, "parameters": dict(restorer.recipe.parameters)}
    shard, arguments = (jobs.shard, jobs.arguments) if isinstance(jobs, Plan) else (None, None)
    return Manifests(Request(described, restorer.name, shard, facts, arguments), overwrite)


def _settle_names(jobs: Sequence[Job], manifests: Manifests) -> tuple[list[Job], list[Location]]:
    """The jobs with settled names, and the targets of all shards."""
    whole = jobs.whole if isinstance(jobs, Plan) else jobs
    settled = manifests.settle_names(whole)
    chosen = {job.target for job in jobs}
    mine = [after for before, after in zip(whole, settled, strict=True) if before.target in chosen]
    return mine, [job.target for job in settled]


def _record_outcome(manifests: Manifests, item: InFlightItem) -> None:
    """For `pellucid status`. Results that existed before have one from the run that made them."""
    if item.is_skipped:
        return
    outcome = {
        "outcome": "restored" if item.error is None else "failed",
        "error": None if item.error is None else str(item.error),
        "notes": [*item.info, *item.warnings],
        "megapixels": item.megapixels,
        "network_s": item.seconds,
    }
    manifests.record_outcome(item.job, outcome)


def _to_outcome(item: InFlightItem) -> Outcome:
    return Outcome(
        item.job.source,
        item.job.target,
        megapixels=item.megapixels,
        seconds=item.seconds,
        is_skipped=item.is_skipped,
        error=item.error,
        info=item.info,
        warnings=item.warnings,
    )


def _describe(restorer: Restorer, settings: Settings) -> dict[str, Any]:
    """Everything that affects the result. Manifests contain its hash, so it must not change between versions."""
    without_effect = {"tile_px", "memory_bytes", "max_pixels", "compare", "timeout_s"}
    without_effect |= {key for key in LATER_SETTINGS if not getattr(settings, key)}
    return {
        "weights": restorer.fingerprint(),
        "recipe": restorer.recipe.name,
        **{key: str(value) for key, value in former_keywords(restorer.recipe.parameters).items()},
        **{key: str(value) for key, value in asdict(settings).items() if key not in without_effect},
    }
