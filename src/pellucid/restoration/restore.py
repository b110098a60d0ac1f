"""Restore files: read -> network -> write, for one picture or thousands.

While one picture is in the network, the next ones are decoded and the last ones encoded. A bad file stops
nothing; a result is there whole or not at all; the same call goes on where it was interrupted.
"""

import json
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from pellucid.degradations.degradation import involves, warnings_for
from pellucid.degradations.standard import Jpeg
from pellucid.domains import Degraded
from pellucid.errors import PellucidError
from pellucid.pictures import images, raw, writers
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.restoration.manifest import Manifests, stamp
from pellucid.restoration.pipeline import Budget, InFlightItem, run_overlapped
from pellucid.restoration.planning import Job
from pellucid.restoration.restorer import Progress, Restorer
from pellucid.system import files, memory

CODEC_BYTES = 100_000_000
"""What decoding and encoding take whatever the picture, with samples that are too few to lie in a file."""


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
    remembered = Manifests(_described(restorer, settings), overwrite)

    def read(work: InFlightItem) -> InFlightItem:
        if remembered.is_done(work.job):
            return replace(work, skipped=True)
        images.check_format(work.job.target)
        source_stamp = stamp(work.job.source)  # before it is read: it may change while it is in work
        degraded, notes = read_degraded(work.job.source, restorer, settings)
        if isinstance(degraded, Picture):
            images.check_format(work.job.target, degraded, bit_depth=settings.bit_depth)
        megapixels = degraded.height * degraded.width / 1e6
        return replace(work, degraded=degraded, megapixels=megapixels, notes=notes, source_stamp=source_stamp)

    def run(progress: Progress, reserved_bytes: int, work: InFlightItem) -> InFlightItem:
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

    def write(work: InFlightItem) -> InFlightItem:
        assert work.restored is not None
        images.write(
            work.restored,
            work.job.target,
            overwrite=remembered.may_replace(work.job),
            quality=_quality(restorer, settings),
            bit_depth=settings.bit_depth,
            before_rename=partial(remembered.note, work.job, work.source_stamp),
        )
        return replace(work, restored=None)

    def needed_bytes(job: Job) -> int:
        """What it takes to decode a picture and to encode its result, by a look at the header."""
        try:
            return 0 if remembered.is_done(job) else _codec_bytes(job, restorer, settings)
        except PellucidError:
            return 0  # reading it will say what is wrong

    ceiling = memory.limit_bytes(settings.memory_bytes)
    budget = Budget(ceiling, max(1, workers), needed_bytes)
    for work in run_overlapped(jobs, read, run, write, budget=budget, progress=progress):
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
        recipe = restorer.recipe
        warnings = *recipe.domain.warnings_for(mosaic), *warnings_for(recipe.protocol.degradation, mosaic)
        return mosaic, (*origin, *warnings)
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
    files.write_atomic(path, json.dumps(report, indent=2).encode() + b"\n", overwrite=overwrite)


def is_report(path: Path) -> bool:
    """Whether a file is a report of an earlier run, which a later one of the same work may replace."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"model", "recipe", "parameters", "pictures"} <= found.keys()


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
    deblocks = involves(restorer.recipe.degradation, Jpeg)
    return writers.JPEG_QUALITY if settings.quality is None and deblocks else settings.quality


def _codec_bytes(job: Job, restorer: Restorer, settings: Settings) -> int:
    if job.source.suffix.lower() in images.RAW_SUFFIXES:
        developed = not restorer.recipe.domain.takes_mosaic
        decoding = raw.decoding_bytes(job.source, developed=developed, max_pixels=settings.max_pixels)
        return CODEC_BYTES + decoding
    num_pixels, decoding = images.decoding_cost(job.source)
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
        ratio, origin = raw.estimate_exposure_ratio(mosaic), "estimated from the brightness of the mosaic"
    else:
        return replace(mosaic, exposure_ratio=exposure), ()
    return replace(mosaic, exposure_ratio=ratio), (f"exposure ratio {ratio:.3g}, {origin}",)


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
