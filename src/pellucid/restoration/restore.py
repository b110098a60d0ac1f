"""Restore files: read -> network -> write, for one picture or thousands.

While one picture is in the network, the next ones are decoded and the previous ones encoded. A bad file does not
stop the others, a result is written completely or not at all, and the same call resumes after an interruption.
"""

import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.domains import Degraded, takes_mosaic
from pellucid.errors import ArgumentError, OutputError, PellucidError, PictureError
from pellucid.pictures import formats, images
from pellucid.pictures.picture import Picture
from pellucid.recipes.overrides import former_keywords
from pellucid.restoration import planning
from pellucid.restoration.conversion import InMemory, is_in_memory, to_pictures
from pellucid.restoration.manifest import Manifests, Request, hash_settings
from pellucid.restoration.one_picture import check_for_memory, plan_size, restore_in_memory, warn_about_time
from pellucid.restoration.pipeline import to_pellucid_error
from pellucid.restoration.planning import Job, Plan
from pellucid.restoration.position import Position
from pellucid.restoration.preview import name_sheets
from pellucid.restoration.restorer import Restorer, default_format, load, mask_size_error
from pellucid.restoration.sessions import Outcome, Session
from pellucid.restoration.settings import Settings
from pellucid.restoration.stages import choose_pages, choose_quality, codec_bytes
from pellucid.restoration.suitability import check_format, warn_about, warn_about_exposure
from pellucid.storage.urls import Location, Url, is_folder, locate
from pellucid.system import files
from pellucid.system.arguments import check_number, checks_types

LATER_SETTINGS = ("page", "white", "sidecars", "scale", "size", "crop")
"""Settings that manifests of earlier versions do not contain."""

Inputs = str | Location | InMemory | Iterable[str | Location | InMemory | Job]
"""One input or several: paths and URLs of files and folders, patterns, pictures in memory, or jobs from `plan`."""


@checks_types(except_for=["inputs", "mask"])
def restore(
    inputs: Inputs,
    restorer: Restorer | str | Path,
    out: str | Location | None = None,
    settings: Settings = Settings(),  # frozen
    *,
    format: str | None = None,
    workers: int = 2,
    overwrite: bool = False,
    include: str | Collection[str] = (),
    exclude: str | Collection[str] = (),
    name: str | None = None,
    mask: str | Location | None = None,
    progress: Callable[[Position], None] | None = None,
) -> list[Outcome]:
    """Restore pictures and wait for all of them; returns one outcome for each, in order.

    Several processes may restore the same folder: they share the work, and each result is made once. Outcomes of
    results that another process was making come last. Finished tiles of pictures that take long are kept until the
    result is complete, so the same call resumes after an interruption.

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
    format: png, tiff, jpeg, webp, bmp, ppm, jxl, jp2 or dng. Default: that of each input; png for pictures in
        memory; dng if the restorer returns mosaics.
    workers: how many files are decoded ahead, unless they are small, and how many are encoded while one is in the
        network.
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


@checks_types(except_for=["inputs", "mask"])
def iter_restore(
    inputs: Inputs,
    restorer: Restorer | str | Path,
    out: str | Location | None = None,
    settings: Settings = Settings(),  # frozen
    *,
    format: str | None = None,
    workers: int = 2,
    overwrite: bool = False,
    include: str | Collection[str] = (),
    exclude: str | Collection[str] = (),
    name: str | None = None,
    mask: str | Location | None = None,
    progress: Callable[[Position], None] | None = None,
) -> Generator[Outcome, None, None]:
    """`restore` as an iterator: pictures are restored while it is iterated, and outcomes are not collected.

    Arguments and errors are those of `restore`. Closing the iterator stops after the pictures in flight.
    """
    check_number("workers", workers, 1)
    if mask is not None and not isinstance(mask, str | Path | Url):
        raise ArgumentError(
            f"mask is of type {type(mask).__name__}; a path or a URL is needed",
            hint="`Restorer.restore` takes masks in memory",
        )
    given = _to_list(inputs)
    if (name is not None or mask is not None) and not all(isinstance(one, str | Path | Url) for one in given):
        hint = "omit {name}" if mask is None else "omit {mask}; `Restorer.restore` takes masks"
        raise ArgumentError("names and masks of results are only for paths", hint=hint)
    chosen = restorer if isinstance(restorer, Restorer) else load(restorer)
    _check_tiles(chosen, settings)
    if given and all(map(is_in_memory, given)):
        check_for_memory(settings)
        targets = _plan_in_memory(len(given), out, format or default_format(chosen), overwrite=overwrite)
        if out is None:
            _refuse_for_files(settings, format)
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
        format=format or default_format(chosen),
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
    if not isinstance(given, Iterable) or isinstance(given, bytes | bytearray):
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
    if format is not None:
        formats.format_by_name(format)
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


def _refuse_for_files(settings: Settings, format: str | None) -> None:
    """Raise ArgumentError for what only affects files, if none are written."""
    given = {"format": format, "quality": settings.quality, "bit_depth": settings.bit_depth}
    for name, value in given.items():
        if value is not None:
            raise ArgumentError(
                f"{name} is only for files, and none are written", hint=f"set {{out}}, or omit {{{name}}}"
            )


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
    if target is not None:
        check_format(target, restorer)
    if target is not None and isinstance(pictures[0], Picture):
        images.check_format(target, pictures[0], bit_depth=settings.bit_depth)
    start = time.monotonic()
    restored = [restore_in_memory(restorer, picture, settings) for picture in pictures]
    seconds = time.monotonic() - start
    notes: tuple[str, ...] = ()
    if target is not None:
        quality, bit_depth = choose_quality(restorer, settings, target), settings.bit_depth
        notes = images.write(restored[0], target, overwrite=overwrite, quality=quality, bit_depth=bit_depth)
    return Outcome(
        None,
        target,
        to_same_form([_with_depth_of(given, result) for given, result in zip(pictures, restored, strict=True)]),
        megapixels=sum(picture.height * picture.width for picture in pictures) / 1e6,
        seconds=seconds,
        info=notes,
        warnings=(
            *(warning for picture in pictures for warning in warn_about(picture, restorer)),
            *warn_about_exposure(restorer, settings, in_memory=True),
            *warn_about_time(settings.timeout_s, seconds / len(pictures)),
        ),
    )


def _with_depth_of(given: Degraded, restored: Degraded) -> Degraded:
    """The result as deep as the picture in memory: its file may be deeper."""
    if isinstance(given, Picture) and isinstance(restored, Picture):
        return restored.as_depth(given.dtype)
    return restored


def _restore_files(
    jobs: Sequence[Job],
    restorer: Restorer,
    settings: Settings,
    workers: int,
    overwrite: bool,
    progress: Callable[[Position], None] | None,
) -> Generator[Outcome, None, None]:
    manifests = open_manifests(jobs, restorer, settings, overwrite)
    with closing(Session(restorer, settings, manifests, workers)) as session:
        jobs, targets = settle_names(jobs, manifests)
        yield from session.restore(jobs, name_sheets(targets), progress)


def check_files(
    jobs: Sequence[Job], restorer: Restorer, settings: Settings, *, overwrite: bool
) -> Iterator[Outcome]:
    """What `restore` would do with each job, from the headers of the files; nothing is restored or written."""
    _check_tiles(restorer, settings)
    manifests = open_manifests(jobs, restorer, settings, overwrite)
    for job in settle_names(jobs, manifests)[0]:
        outcome = Outcome(job.source, job.target)
        try:
            if manifests.is_done(job):
                yield replace(outcome, is_skipped=True)
                continue
            check_format(job.target, restorer)
            if isinstance(job.mask, Path):
                files.read_head(job.mask)
            if isinstance(job.source, Path):  # other files are not fetched for this
                codec_bytes(job.source, Path(job.target.name), restorer, settings)
                if not images.is_raw(job.source):
                    _check_header(job, job.source, restorer, settings)
        except PellucidError as error:
            outcome = replace(outcome, error=error.about(job.source))
        yield outcome


def _check_header(job: Job, source: Path, restorer: Restorer, settings: Settings) -> None:
    """Raise what `restore` would, as far as the headers of a picture and of its mask show it."""
    domain = restorer.recipe.domain
    if takes_mosaic(domain):
        domain.accept(Picture(np.zeros((1, 1, 1), np.uint8)))
    header = images.read_header(source, max_pixels=settings.max_pixels, page=settings.page)
    choose_pages(job, source, settings)
    if header.encoding is not None:
        pixel = np.zeros((1, 1, 1), header.encoding.dtype)
        sample = Picture(pixel, pixel if header.has_alpha else None, encoding=header.encoding)
        images.check_format(job.target, sample, bit_depth=settings.bit_depth)
    if settings.crop is None and settings.size is None:  # these are of the upright picture
        plan_size(restorer, (header.height, header.width), settings)
    if isinstance(job.mask, Path):
        mask = images.read_header(job.mask, max_pixels=settings.max_pixels)
        sizes = (mask.width, mask.height), (header.width, header.height)
        if sorted(sizes[0]) != sorted(sizes[1]):  # either one may be turned
            raise mask_size_error(*sizes)


def _check_tiles(restorer: Restorer, settings: Settings) -> None:
    """Raise ArgumentError, before any work, for tiles that a model cannot compute."""
    for model in restorer.models:
        model.check_tile_px(settings.tile_px)


def open_manifests(
    jobs: Sequence[Job], restorer: Restorer, settings: Settings, overwrite: bool, *, journal: str | None = None
) -> Manifests:
    """The manifests of all folders of results. journal: see `Request`; default: that of the shard."""
    described = _describe(restorer, settings)
    if any(job.mask is not None for job in (jobs.whole if isinstance(jobs, Plan) else jobs)):
        described["mask"] = "given"
    facts = restorer.describe()
    shard, arguments = (jobs.shard, jobs.arguments) if isinstance(jobs, Plan) else (None, None)
    if journal is None and shard is not None:
        journal = shard.label
    accepted = [
        hash_settings({**described, "weights": weights})
        for weights in restorer.accepted_fingerprints()
        if weights != described["weights"]
    ]
    return Manifests(Request(described, restorer.name, shard, facts, arguments, journal, accepted), overwrite)


def settle_names(jobs: Sequence[Job], manifests: Manifests) -> tuple[list[Job], list[Location]]:
    """The jobs with settled names, and the targets of all shards."""
    whole = jobs.whole if isinstance(jobs, Plan) else jobs
    settled = manifests.settle_names(whole)
    chosen = {job.target for job in jobs}
    mine = [after for before, after in zip(whole, settled, strict=True) if before.target in chosen]
    return mine, [job.target for job in settled]


def _describe(restorer: Restorer, settings: Settings) -> dict[str, Any]:
    """Everything that affects the result. Manifests contain its hash, so it must not change between versions."""
    without_effect = {"tile_px", "memory_bytes", "max_pixels", "compare", "timeout_s"}
    without_effect |= {key for key in LATER_SETTINGS if not getattr(settings, key)}
    return {
        "weights": restorer.fingerprint(),
        "recipe": restorer.recipe.name,
        **{key: str(value) for key, value in former_keywords(restorer.recipe.parameters).items()},
        **{key: str(value) for key, value in asdict(settings).items() if key not in without_effect},
        **({"reference": _hash_reference(settings.exposure)} if isinstance(settings.exposure, Path) else {}),
    }


def _hash_reference(path: Path) -> str:
    """The SHA-256 of the RAW file with the wanted exposure; empty if it cannot be read: that is reported later."""
    try:
        return files.sha256(path)
    except OSError:
        return ""
