"""The stages of restoring a file: read it, run the network, write the result."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL.Image import Image

from pellucid.degradations.degradation import involves
from pellucid.degradations.standard import JPEG_COMPRESSION
from pellucid.domains import Degraded, Domain
from pellucid.errors import OutputError, PictureError
from pellucid.pictures import formats, images, writers
from pellucid.pictures.camera import dng, raw
from pellucid.pictures.picture import Picture
from pellucid.pictures.records import sidecars
from pellucid.pictures.tiff.directories import Page, Pages
from pellucid.restoration import sheets
from pellucid.restoration.chaining import Progress
from pellucid.restoration.kept_tiles import KeptTiles
from pellucid.restoration.manifest import Manifests, State
from pellucid.restoration.one_picture import describe_lost, limit_time, plan_size, restore_picture, warn_about_time
from pellucid.restoration.pipeline import BASE_BYTES, InFlightItem
from pellucid.restoration.planning import Job
from pellucid.restoration.preview import draw_comparison
from pellucid.restoration.reading import read_degraded
from pellucid.restoration.restorer import Restorer, warn_about_mask
from pellucid.restoration.settings import Settings
from pellucid.restoration.suitability import (
    check_format,
    warn_about,
    warn_about_change,
    warn_about_settings,
    warn_about_size,
)
from pellucid.restoration.transfers import Transfers
from pellucid.storage.urls import Location
from pellucid.system.files import check_name
from pellucid.system.memory import RecentLimit

CODEC_BYTES = 100_000_000
"""Memory that decoding and encoding take for any picture, including samples too small for a memory-mapped file."""


def read_first_page(path: Path, domain: Domain, settings: Settings) -> Degraded:
    """The picture or mosaic in a file, for measurements: the chosen page, by default the first."""
    degraded, _ = read_degraded(
        path,
        domain,
        exposure=settings.exposure,
        max_pixels=settings.max_pixels,
        page=settings.page or 1,
        white=settings.white,
    )
    return degraded


def _read_mask(path: Path, settings: Settings) -> Picture:
    try:
        return images.read(path, max_pixels=settings.max_pixels)
    except PictureError as error:
        if "page" not in error.parameters:
            raise
        raise PictureError(error.facts, hint="save one page of the mask as a file of its own") from error


@dataclass(frozen=True)
class Stages:
    """What `run_overlapped` does with each file; see `InFlightItem`."""

    restorer: Restorer
    settings: Settings
    manifests: Manifests
    transfers: Transfers
    sheet_paths: Mapping[Location, Location]
    limit: RecentLimit

    def read(self, item: InFlightItem) -> InFlightItem:
        """Claim a job, and read its picture unless the result is finished."""
        with self.transfers.naming(item.job):
            return self._read(item)

    def run(self, progress: Progress, reserved_bytes: int, item: InFlightItem) -> InFlightItem:
        """Restore the picture; one with several pages is also written."""
        with self.transfers.naming(item.job):
            try:
                return self._run(progress, reserved_bytes, item)
            except OutputError:  # a folder or a disk, which can be fixed
                raise
            except Exception:  # of any class, and raised again: the picture will not be completed
                item.kept.remove()
                raise

    def write(self, item: InFlightItem) -> InFlightItem:
        """Write the result, and the comparison if requested."""
        with self.transfers.naming(item.job):
            return self._write(item)

    def _read(self, item: InFlightItem) -> InFlightItem:
        job, settings, start = item.job, self.settings, time.monotonic()
        if not self.manifests.claim(job):
            return replace(item, is_deferred=True)
        kept = KeptTiles(job.target if isinstance(job.target, Path) else None)
        if self.manifests.is_done(job):
            kept.remove()  # its process may have been killed before
            return self._skip(item)
        check_format(job.target, self.restorer)
        if settings.compare:
            self._check_sheet(job, self.sheet_paths[job.target])
        files = self.transfers.open(job)
        item = replace(item, files=files, kept=kept)
        mask = None if files.mask is None else _read_mask(files.mask, settings)
        pages = self._find_pages(item)
        if pages is not None and settings.compare:
            raise PictureError(
                f"{job.source} has {len(pages)} pages, which are not compared", hint="choose one by {page}", page=1
            )
        if pages is not None:
            sizes = [page.directory.size for page in pages.pages]
            megapixels = sum(width * height for width, height in sizes) / 1e6
            return replace(
                item,
                pages=pages,
                mask=mask,
                megapixels=megapixels,
                info=pages.notes,
                warnings=(*warn_about_settings(job.target, self.restorer, settings), *warn_about_mask(mask)),
            )
        degraded, info = read_degraded(
            files.source,
            self.restorer.recipe.domain,
            exposure=settings.exposure,
            max_pixels=settings.max_pixels,
            page=settings.page,
            white=settings.white,
            with_sidecars=settings.sidecars,
        )
        if isinstance(degraded, Picture) and not self.restorer.recipe.domain.gives_mosaic:
            images.check_format(job.target, degraded, bit_depth=settings.bit_depth)
        return replace(
            item,
            degraded=degraded,
            mask=mask,
            megapixels=degraded.height * degraded.width / 1e6,
            info=(*info, *describe_lost(degraded, settings)),
            warnings=(
                *warn_about_settings(job.target, self.restorer, settings),
                *warn_about(degraded, self.restorer),
                *warn_about_size(degraded, self.restorer, settings),
                *warn_about_mask(mask),
            ),
            reading_s=time.monotonic() - start,
        )

    def _skip(self, item: InFlightItem) -> InFlightItem:
        """Leave a finished result as it is, but draw its comparison if that is requested and missing."""
        job, item = item.job, replace(item, is_skipped=True)
        if not self.settings.compare or not self._lacks_sheet(job):
            return item
        self._check_sheet(job, self.sheet_paths[job.target])
        files = self.transfers.open(job)
        if not isinstance(job.target, Path) or self._find_pages(replace(item, files=files)) is not None:
            return replace(item, warnings=("it is not compared, because its result exists already",))
        degraded = read_first_page(files.source, self.restorer.recipe.domain, self.settings)
        gives_mosaic = self.restorer.recipe.domain.gives_mosaic
        restored: Degraded = raw.read(job.target) if gives_mosaic else images.read(job.target)
        sheet = self._compare(job, degraded, restored)
        if sheet is not None:
            self._write_sheet(replace(item, files=files), sheet, restored.metadata.get("icc-profile-data"))
        return item

    def _lacks_sheet(self, job: Job) -> bool:
        sheet = replace(job, target=self.sheet_paths[job.target])
        return self.manifests.state(sheet) is not State.DONE

    def _check_sheet(self, job: Job, sheet: Location) -> None:
        """Raise OutputError if a comparison would replace another file."""
        may_replace = self.manifests.may_replace(job)
        if isinstance(sheet, Path):
            parameter = "out" if job.root is None else "name"
            check_name(sheet, hint=f"choose shorter names by {{{parameter}}}, or omit {{compare}}")
            sheets.check_replaceable(sheet, overwrite=may_replace)
        elif self.manifests.state(replace(job, target=sheet)) is State.FOREIGN and not self.manifests.may_replace(
            job
        ):
            raise OutputError(f"{sheet} exists", hint="{overwrite} replaces it", overwrite=True)

    def _run(self, progress: Progress, reserved_bytes: int, item: InFlightItem) -> InFlightItem:
        start = time.monotonic() - item.reading_s
        progress = limit_time(self.settings.timeout_s, start, str(item.job.source), progress)
        if item.pages is not None:
            return self._run_pages(progress, reserved_bytes, item, item.pages)
        start = time.monotonic()
        assert item.degraded is not None
        restored = restore_picture(
            self.restorer,
            item.degraded,
            self.settings,
            mask=item.mask,
            limit_bytes=self.limit.measure(),
            reserved_bytes=reserved_bytes,
            kept=item.kept,
            progress=progress,
        )
        sheet = self._compare(item.job, item.degraded, restored)
        return replace(
            item,
            degraded=None,
            mask=None,
            restored=restored,
            sheet=sheet,
            warnings=(
                *item.warnings,
                *self._warn_about_change(item, item.degraded, restored),
                *warn_about_time(self.settings.timeout_s, time.monotonic() - start + item.reading_s),
            ),
            seconds=time.monotonic() - start + item.kept.found_s,
        )

    def _warn_about_change(self, item: InFlightItem, degraded: Degraded, restored: Degraded) -> Iterator[str]:
        """Warn about little change, unless a mask or a lower strength requests it."""
        if item.mask is None and self.settings.strength == 1:
            yield from warn_about_change(degraded, restored, self.restorer)

    def _write(self, item: InFlightItem) -> InFlightItem:
        if item.pages is not None:
            return item
        assert item.restored is not None and item.files is not None
        notes = images.write(
            item.restored,
            item.files.target,
            overwrite=self.manifests.may_replace(item.job),
            quality=choose_quality(self.restorer, self.settings, item.job.target),
            bit_depth=self.settings.bit_depth,
            before_rename=partial(self.manifests.record, item.job, item.files.stamp),
        )
        item.kept.remove()
        if item.sheet is not None:
            self._write_sheet(item, item.sheet, item.restored.metadata.get("icc-profile-data"))
        return replace(item, restored=None, sheet=None, info=(*item.info, *notes))

    def _compare(self, job: Job, degraded: Degraded, restored: Degraded) -> Image | None:
        """The sheet for a picture, if requested."""
        if not self.settings.compare:
            return None
        title = f"{job.source.name} ({degraded.width} x {degraded.height} px)"
        return draw_comparison(title, degraded, restored, self.restorer, self.settings)

    def _write_sheet(self, item: InFlightItem, sheet: Image, profile: bytes | None) -> None:
        """Next to the result, and in its manifest, so that the sheet is never restored."""
        assert item.files is not None
        job = replace(item.job, target=self.sheet_paths[item.job.target])
        record = partial(self.manifests.record, job, item.files.stamp)
        overwrite = self.manifests.may_replace(job)
        path = job.target if isinstance(job.target, Path) else item.files.target.with_name(job.target.name)
        sheets.write(sheet, path, profile, overwrite=overwrite, before_rename=record)

    def _find_pages(self, item: InFlightItem) -> Pages | None:
        assert item.files is not None
        return choose_pages(item.job, item.files.source, self.settings)

    def _run_pages(
        self, progress: Progress, reserved_bytes: int, item: InFlightItem, pages: Pages
    ) -> InFlightItem:
        """Read, restore and write one page after the other, so that only one is in memory."""
        num_pixels = [width * height for width, height in (page.directory.size for page in pages.pages)]
        info, warnings, seconds, num_done = Counter[str](), Counter[str](), 0.0, 0
        assert item.files is not None
        # Programs look for the XMP of a file in its first page.
        sidecar = sidecars.read(item.files.source) if self.settings.sidecars else b""

        def advance(num_pixels_of_page: int, pixels: int, all_pixels: int) -> None:
            progress(num_done + num_pixels_of_page * pixels // all_pixels, sum(num_pixels))

        def restore_pages() -> Iterator[Picture]:
            nonlocal seconds, num_done
            for number, page in enumerate(pages.pages, start=1):
                degraded = self._read_page(page, number, sidecar if number == 1 else b"")
                assert degraded.encoding is not None
                info.update(degraded.encoding.notes)
                warnings.update(warn_about(degraded, self.restorer))
                start = time.monotonic()
                restored = restore_picture(
                    self.restorer,
                    degraded,
                    self.settings,
                    mask=item.mask,
                    limit_bytes=self.limit.measure(),
                    reserved_bytes=reserved_bytes,
                    kept=item.kept,
                    progress=partial(advance, num_pixels[number - 1]),
                )
                seconds += time.monotonic() - start
                warnings.update(self._warn_about_change(item, degraded, restored))
                yield restored
                del degraded, restored
                num_done += num_pixels[number - 1]

        notes = images.write_pages(
            restore_pages(),
            item.files.target,
            pages,
            scale=max(self._enlargement(*page.directory.size) for page in pages.pages),
            overwrite=self.manifests.may_replace(item.job),
            bit_depth=self.settings.bit_depth,
            before_rename=partial(self.manifests.record, item.job, item.files.stamp),
        )
        item.kept.remove()
        return replace(
            item,
            info=(*item.info, *_count_pages(info, len(pages)), *notes),
            warnings=(*item.warnings, *_count_pages(warnings, len(pages))),
            seconds=seconds + item.kept.found_s,
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
            if self.manifests.is_done(job) and not (self.settings.compare and self._lacks_sheet(job)):
                return 0
            files = self.transfers.open(job)
            return codec_bytes(files.source, files.target, self.restorer, self.settings)
        except Exception:  # any failure of one picture: reading the file reports it, and the others continue
            return 0


def choose_pages(job: Job, source: Path, settings: Settings) -> Pages | None:
    """The pages of a file if several are restored. Raises OutputError if the result cannot have pages."""
    if settings.page is not None or images.is_raw(source):
        return None
    pages = images.list_pages(source)
    target = formats.format_by_suffix(job.target)
    if pages is not None and target is not formats.TIFF:
        raise OutputError(
            f"{job.source} has {len(pages)} pages, and {target.name} can store one",
            hint="write TIFF, or choose one page by {page}",
            page=1,
        )
    return pages


def _count_pages(messages: Counter[str], num_pages: int) -> Iterator[str]:
    """Messages about pages, with the number of pages unless they are about all."""
    for message, count in messages.items():
        yield message if count == num_pages else f"{message} ({count} of {num_pages} pages)"


def choose_quality(restorer: Restorer, settings: Settings, target: Location) -> int | None:
    """The quality in the settings; without one, that of the input (None), but a high one for a deblocked JPEG.

    A low one would add blocks again.
    """
    deblocks = (
        any(involves(model.recipe.degradation, JPEG_COMPRESSION) for model in restorer.models)
        and formats.format_by_suffix(target) is formats.JPEG
    )
    return writers.JPEG_QUALITY if settings.quality is None and deblocks else settings.quality


def _scale_bound(restorer: Restorer, settings: Settings) -> float:
    """How many times as long the sides of results are, at most, as far as that is known before reading one."""
    if settings.crop is not None or settings.size is not None:
        return restorer.scale
    return settings.scale or restorer.scale


def codec_bytes(source: Path, target: Path, restorer: Restorer, settings: Settings) -> int:
    """Memory to decode a picture and to encode its result, estimated from the header."""
    if images.is_raw(source):
        developed = not restorer.recipe.domain.takes_mosaic
        decoding = raw.decoding_bytes(source, developed=developed, max_pixels=settings.max_pixels)
        if restorer.recipe.domain.gives_mosaic:
            decoding += dng.ENCODING_BYTES * raw.probe_pixels(source, max_pixels=settings.max_pixels)
        return CODEC_BYTES + decoding
    num_pixels, decoding = images.decoding_cost(source)
    if num_pixels > settings.max_pixels:
        return 0  # reading refuses it
    num_pixels = int(num_pixels * _scale_bound(restorer, settings) ** 2)
    encoding = images.encoding_bytes(target, num_pixels, quality=settings.quality)
    return min(CODEC_BYTES, BASE_BYTES + 32 * num_pixels) + decoding + encoding
