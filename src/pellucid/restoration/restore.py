"""Restore files: read -> network -> write, for one picture or thousands.

While one picture is in the network, the next ones are decoded and the previous ones encoded. A bad file does not
stop the others, a result is written completely or not at all, and the same call resumes after an interruption.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from pellucid.degradations.degradation import involves, warnings_for
from pellucid.degradations.standard import GaussianNoise, Jpeg
from pellucid.domains import Degraded
from pellucid.errors import OutputError, PellucidError, PictureError
from pellucid.pictures import formats, images, writers
from pellucid.pictures.camera import raw
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.pictures.records import sidecars
from pellucid.pictures.tiff.directories import Page, Pages
from pellucid.recipes.overrides import former_keywords
from pellucid.restoration import planning
from pellucid.restoration.chaining import Progress
from pellucid.restoration.conversion import InMemory, is_in_memory, to_pictures
from pellucid.restoration.entries import stamp
from pellucid.restoration.manifest import Manifests
from pellucid.restoration.one_picture import describe_lost, plan_size, restore_picture
from pellucid.restoration.pipeline import Budget, InFlightItem, run_overlapped, to_pellucid_error
from pellucid.restoration.planning import Job
from pellucid.restoration.reading import read_degraded
from pellucid.restoration.restorer import Restorer, load
from pellucid.restoration.settings import Settings
from pellucid.restoration.tiled_model import TiledModel
from pellucid.system import files, memory
from pellucid.system.keywords import check_number
from pellucid.weights import checkpoint, models

LATER_SETTINGS = ("page", "white", "sidecars", "scale", "size", "crop")
"""Settings that manifests of earlier versions do not contain."""

CODEC_BYTES = 100_000_000
"""Memory that decoding and encoding take for any picture, including samples too small for a memory-mapped file."""

Inputs = str | Path | InMemory | Iterable[str | Path | InMemory | Job]
"""One input or several: paths of files and folders and patterns, or pictures in memory, or jobs from `plan`."""


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

    source: Path | None
    target: Path | None
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
    out: str | Path | None = None,
    settings: Settings = Settings(),  # frozen
    *,
    format: str | None = None,
    workers: int = 2,
    overwrite: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    name: str | None = None,
    mask: str | Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[Outcome]:
    """Restore pictures and wait for all of them; returns one outcome for each, in order.

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
    progress: called with the number of finished pictures, including the finished part of the current one.

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
    out: str | Path | None = None,
    settings: Settings = Settings(),  # frozen
    *,
    format: str | None = None,
    workers: int = 2,
    overwrite: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    name: str | None = None,
    mask: str | Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> Generator[Outcome, None, None]:
    """`restore` as an iterator: pictures are restored while it is iterated, and outcomes are not collected.

    Arguments and errors are those of `restore`. Closing the iterator stops after the pictures in flight.
    """
    check_number("workers", workers, 1)
    if not isinstance(settings, Settings):
        raise PellucidError(f"settings of type {type(settings).__name__}; pellucid.Settings(...) is needed")
    given = _to_list(inputs)
    if (name is not None or mask is not None) and not all(isinstance(one, str | Path) for one in given):
        raise PellucidError(
            "names and masks of results are only for paths", hint="omit {name}; `Restorer.restore` takes masks"
        )
    chosen = restorer if isinstance(restorer, Restorer) else load(restorer)
    if given and all(map(is_in_memory, given)):
        targets = _plan_in_memory(len(given), out, format, overwrite=overwrite)
        return _restore_in_memory(given, targets, chosen, settings, overwrite, progress)
    if given and all(isinstance(one, Job) for one in given):
        if out is not None or format is not None:
            raise OutputError("jobs contain the files to write", hint="omit {out} and {format}")
        planning.check(given)
        return _restore_files(given, chosen, settings, workers, overwrite, progress)
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
    given = [inputs] if isinstance(inputs, str | Path) or is_in_memory(inputs) else inputs
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
    if isinstance(value, str | Path):
        return "paths"
    return "jobs" if isinstance(value, Job) else f"objects of type {type(value).__name__}"


def _plan_in_memory(
    count: int, out: str | Path | None, format: str | None, *, overwrite: bool
) -> list[Path | None]:
    """Where the results of pictures in memory go."""
    if out is None:
        return [None] * count
    out = Path(out)
    files.check_name(out)
    if count == 1 and out.suffix and not planning.is_folder(out):
        targets = [planning.check_format(out, format)]
    elif out.suffix in formats.SUFFIXES and not planning.is_folder(out):
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
    progress: Callable[[float], None] | None,
) -> Generator[Outcome, None, None]:
    for i, (given, target) in enumerate(zip(inputs, targets, strict=True), start=1):
        try:
            outcome = _restore_one_in_memory(given, target, restorer, settings, overwrite=overwrite)
        except Exception as error:  # as for files: reported, and the others continue
            outcome = Outcome(None, None, error=to_pellucid_error(error, f"picture {i}"))
        if progress is not None:
            progress(i)
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
        quality, bit_depth = _choose_quality(restorer, settings, target), settings.bit_depth
        notes = images.write(restored[0], target, overwrite=overwrite, quality=quality, bit_depth=bit_depth)
    return Outcome(
        None,
        target,
        to_same_form(restored),
        megapixels=sum(picture.height * picture.width for picture in pictures) / 1e6,
        seconds=seconds,
        info=notes,
        warnings=tuple(warning for picture in pictures for warning in _find_warnings(picture, restorer)),
    )


def _restore_files(
    jobs: Sequence[Job],
    restorer: Restorer,
    settings: Settings,
    workers: int,
    overwrite: bool,
    progress: Callable[[float], None] | None,
) -> Generator[Outcome, None, None]:
    described = _describe(restorer, settings)
    if any(job.mask is not None for job in jobs):
        described["mask"] = "given"
    manifests = Manifests(described, overwrite, restorer.name)
    stages, jobs = _Stages(restorer, settings, manifests), manifests.settle_names(jobs)
    budget = Budget(memory.limit_bytes(settings.memory_bytes), workers, stages.needed_bytes)
    for item in run_overlapped(jobs, stages.read, stages.run, stages.write, budget=budget, progress=progress):
        yield Outcome(
            item.job.source,
            item.job.target,
            megapixels=item.megapixels,
            seconds=item.seconds,
            is_skipped=item.is_skipped,
            error=item.error,
            info=item.info,
            warnings=item.warnings,
        )


@dataclass(frozen=True)
class _Stages:
    """What `run_overlapped` does with each file."""

    restorer: Restorer
    settings: Settings
    manifests: Manifests

    def read(self, item: InFlightItem) -> InFlightItem:
        job, settings = item.job, self.settings
        if self.manifests.is_done(job):
            return replace(item, is_skipped=True)
        images.check_format(job.target)
        inputs = [job.source] if job.mask is None else [job.source, job.mask]
        source_stamp = stamp(*inputs)  # before they are read: they may change in the meantime
        mask = None if job.mask is None else images.read(job.mask, max_pixels=settings.max_pixels)
        pages = self._find_pages(job)
        if pages is not None:
            return replace(item, pages=pages, mask=mask, info=pages.notes, source_stamp=source_stamp)
        degraded, info = read_degraded(
            job.source,
            self.restorer.recipe.domain,
            exposure=settings.exposure,
            max_pixels=settings.max_pixels,
            page=settings.page,
            white=settings.white,
            with_sidecars=settings.sidecars,
        )
        if isinstance(degraded, Picture):
            images.check_format(job.target, degraded, bit_depth=settings.bit_depth)
        return replace(
            item,
            degraded=degraded,
            mask=mask,
            megapixels=degraded.height * degraded.width / 1e6,
            info=(*info, *describe_lost(degraded, settings)),
            warnings=_find_warnings(degraded, self.restorer),
            source_stamp=source_stamp,
        )

    def run(self, progress: Progress, reserved_bytes: int, item: InFlightItem) -> InFlightItem:
        if item.pages is not None:
            return self._run_pages(progress, reserved_bytes, item, item.pages)
        start = time.monotonic()
        assert item.degraded is not None
        restored = restore_picture(
            self.restorer,
            item.degraded,
            self.settings,
            mask=item.mask,
            reserved_bytes=reserved_bytes,
            progress=progress,
        )
        return replace(item, degraded=None, mask=None, restored=restored, seconds=time.monotonic() - start)

    def write(self, item: InFlightItem) -> InFlightItem:
        if item.pages is not None:
            return item
        assert item.restored is not None
        notes = images.write(
            item.restored,
            item.job.target,
            overwrite=self.manifests.may_replace(item.job),
            quality=_choose_quality(self.restorer, self.settings, item.job.target),
            bit_depth=self.settings.bit_depth,
            before_rename=partial(self.manifests.record, item.job, item.source_stamp),
        )
        return replace(item, restored=None, info=(*item.info, *notes))

    def _find_pages(self, job: Job) -> Pages | None:
        """The pages of a file with several. Raises OutputError if the result cannot have pages."""
        if self.settings.page is not None or images.is_raw(job.source):
            return None
        pages = images.list_pages(job.source)
        target = formats.format_by_suffix(job.target)
        if pages is not None and target is not formats.TIFF:
            raise OutputError(
                f"{job.source} has {len(pages)} pages, and {target.name} can store one",
                hint="write TIFF, or choose one page by {page}",
                page=1,
            )
        return pages

    def _run_pages(
        self, progress: Progress, reserved_bytes: int, item: InFlightItem, pages: Pages
    ) -> InFlightItem:
        """Read, restore and write one page after the other, so that only one is in memory."""
        num_pixels = [width * height for width, height in (page.directory.size for page in pages.pages)]
        info, warnings, seconds, num_done = Counter[str](), Counter[str](), 0.0, 0
        # Programs look for the XMP of a file in its first page.
        sidecar = sidecars.read(item.job.source) if self.settings.sidecars else b""

        def advance(pixels: int, _: int) -> None:
            progress(num_done + pixels, sum(num_pixels))

        def restore_pages() -> Iterator[Picture]:
            nonlocal seconds, num_done
            for number, page in enumerate(pages.pages, start=1):
                degraded = self._read_page(page, number, sidecar if number == 1 else b"")
                assert degraded.encoding is not None
                info.update(degraded.encoding.notes)
                warnings.update(_find_warnings(degraded, self.restorer))
                start = time.monotonic()
                yield restore_picture(
                    self.restorer,
                    degraded,
                    self.settings,
                    mask=item.mask,
                    reserved_bytes=reserved_bytes,
                    progress=advance,
                )
                seconds += time.monotonic() - start
                num_done += num_pixels[number - 1]

        notes = images.write_pages(
            restore_pages(),
            item.job.target,
            pages,
            scale=max(self._enlargement(*page.directory.size) for page in pages.pages),
            overwrite=self.manifests.may_replace(item.job),
            bit_depth=self.settings.bit_depth,
            before_rename=partial(self.manifests.record, item.job, item.source_stamp),
        )
        return replace(
            item,
            info=(*item.info, *_count_pages(info, len(pages)), *notes),
            warnings=tuple(_count_pages(warnings, len(pages))),
            megapixels=sum(num_pixels) / 1e6,
            seconds=seconds,
        )

    def _enlargement(self, width: int, height: int) -> int:
        """How many times as long the sides of a result are, rounded up."""
        target, _ = plan_size(self.restorer, (height, width), self.settings)[1]
        return -(-target // height)

    def _read_page(self, page: Page, number: int, sidecar: bytes) -> Picture:
        """A page. Errors name its number."""
        max_pixels, white = self.settings.max_pixels, self.settings.white
        try:
            return images.read_page(page, max_pixels=max_pixels, white=white, sidecar=sidecar)
        except PictureError as error:
            error.facts = error.facts.replace(str(page.path), f"{page.path}, page {number},", 1)
            raise

    def needed_bytes(self, job: Job) -> int:
        """Memory to decode a picture and to encode its result, estimated from the header."""
        try:
            return 0 if self.manifests.is_done(job) else _codec_bytes(job, self.restorer, self.settings)
        except Exception:  # any failure of one picture: reading the file reports it, and the others continue
            return 0


def _count_pages(messages: Counter[str], num_pages: int) -> Iterator[str]:
    """Messages about pages, with the number of pages unless they are about all."""
    for message, count in messages.items():
        yield message if count == num_pages else f"{message} ({count} of {num_pages} pages)"


def _describe(restorer: Restorer, settings: Settings) -> dict[str, Any]:
    """Everything that affects the result. Manifests contain its hash, so it must not change between versions."""
    without_effect = {"tile_px", "memory_bytes", "max_pixels"}
    without_effect |= {key for key in LATER_SETTINGS if not getattr(settings, key)}
    return {
        "weights": restorer.fingerprint(),
        "recipe": restorer.recipe.name,
        **{key: str(value) for key, value in former_keywords(restorer.recipe.parameters).items()},
        **{key: str(value) for key, value in asdict(settings).items() if key not in without_effect},
    }


def _find_warnings(degraded: Degraded, restorer: Restorer) -> tuple[str, ...]:
    """How a picture differs from those that the network was trained for."""
    first = restorer.models[0].recipe
    if isinstance(degraded, Mosaic):
        of_file = degraded.warnings
    else:
        of_file = () if degraded.encoding is None else degraded.encoding.warnings
    return (
        *of_file,
        *(warning for model in restorer.models for warning in _warn_of_gray(degraded, model)),
        *first.domain.warnings_for(degraded),
        *warnings_for(first.protocol.degradation, degraded),
    )


def _warn_of_gray(degraded: Degraded, model: TiledModel) -> Iterator[str]:
    """Networks for color noise expect other noise in each channel, so they hardly change three equal ones."""
    is_gray = isinstance(degraded, Picture) and degraded.channels == 1
    if is_gray and model.recipe.domain.colors == "rgb" and involves(model.recipe.degradation, GaussianNoise):
        twin = _find_gray_twin(model.recipe.name)
        better = f"{twin} restores it better" if twin else "weights for gray pictures restore it better"
        yield f"a gray picture, but {model.name} learned from noise in color: {better}"


@cache
def _find_gray_twin(recipe_name: str) -> str | None:
    """The name of the model that ships for gray pictures, of this recipe.

    The user's own models do not count: a damaged file among them must not stop a picture.
    """
    for model in models.list_models():
        metadata = checkpoint.read_metadata(model.path) if model.is_shipped else None
        if metadata and metadata.recipe == recipe_name and metadata.parameters.get("channels") == 1:
            return model.name
    return None


def _choose_quality(restorer: Restorer, settings: Settings, target: Path) -> int | None:
    """The quality in the settings; without one, that of the input (None), but a high one for a deblocked JPEG.

    A low one would add blocks again.
    """
    deblocks = (
        any(involves(model.recipe.degradation, Jpeg) for model in restorer.models)
        and formats.format_by_suffix(target) is formats.JPEG
    )
    return writers.JPEG_QUALITY if settings.quality is None and deblocks else settings.quality


def _scale_bound(restorer: Restorer, settings: Settings) -> float:
    """How many times as long the sides of results are, at most, as far as that is known before reading one."""
    if settings.crop is not None or settings.size is not None:
        return restorer.scale
    return settings.scale or restorer.scale


def _codec_bytes(job: Job, restorer: Restorer, settings: Settings) -> int:
    if images.is_raw(job.source):
        developed = not restorer.recipe.domain.takes_mosaic
        decoding = raw.decoding_bytes(job.source, developed=developed, max_pixels=settings.max_pixels)
        return CODEC_BYTES + decoding
    num_pixels, decoding = images.decoding_cost(job.source)
    num_pixels = int(num_pixels * _scale_bound(restorer, settings) ** 2)
    encoding = images.encoding_bytes(job.target, num_pixels, quality=settings.quality)
    return min(CODEC_BYTES, 20_000_000 + 32 * num_pixels) + decoding + encoding
