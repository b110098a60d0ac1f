"""One picture through a restorer: in the size that was asked for, and only the part that was asked for."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, overload

from pellucid.domains import Degraded
from pellucid.errors import ArgumentError, PictureError
from pellucid.pictures import formats, metadata
from pellucid.pictures.containers import png
from pellucid.pictures.images import MAX_PIXELS
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.pictures.resize import find_span
from pellucid.pictures.samples import Samples
from pellucid.restoration import tiling
from pellucid.restoration.chaining import Progress, run_models
from pellucid.restoration.kept_tiles import KeptTiles
from pellucid.restoration.resizing import Shape, resize_region
from pellucid.restoration.restorer import Restorer, to_mask
from pellucid.restoration.settings import Settings
from pellucid.restoration.tiled_model import FILL_PX, Effort
from pellucid.system import memory
from pellucid.system.arguments import checks_types

CROP_METADATA = (
    *("icc-profile-data", "png-chunks", "bmp-colors"),
    *("xres", "yres", "resolution-unit", "jfif"),
)
"""What is also true for a part of a picture: colors and resolution."""


@dataclass(frozen=True)
class Region:
    """A rectangle in pixels: rows and columns."""

    rows: slice
    cols: slice

    @classmethod
    def whole(cls, shape: Shape) -> "Region":
        return cls(slice(0, shape[0]), slice(0, shape[1]))

    def map(self, change: Callable[[slice, int], slice]) -> "Region":
        """Both sides changed; the function also gets the axis, 0 for rows and 1 for columns."""
        return Region(change(self.rows, 0), change(self.cols, 1))

    def within(self, outer: "Region") -> "Region":
        """The same region, counted from the corner of another one."""
        starts = outer.rows.start, outer.cols.start
        return self.map(lambda side, axis: slice(side.start - starts[axis], side.stop - starts[axis]))


def limit_time(limit_s: float | None, start: float, name: str, progress: Progress | None = None) -> Progress:
    """A progress callback that also raises PictureError if a picture takes too long.

    start: when it began, on the clock of `time.monotonic`. name: of the picture, for the message.
    """

    def advance(pixels: int, all_pixels: int) -> None:
        if limit_s is not None and time.monotonic() - start > limit_s and pixels < all_pixels:
            raise PictureError(
                f"{name} takes longer than {limit_s:g} s ({pixels / all_pixels:.0%} is done)",
                hint="{timeout_s} sets the limit",
            )
        if progress is not None:
            progress(pixels, all_pixels)

    return advance


def check_for_memory(settings: Settings) -> None:
    """Raise ArgumentError for settings that are about files."""
    for name in ("page", "compare", "sidecars"):
        if getattr(settings, name):
            raise ArgumentError(f"{name} is only for files, not for pictures in memory", hint=f"omit {{{name}}}")


def restore_in_memory(restorer: Restorer, degraded: Degraded, settings: Settings) -> Degraded:
    """`restore_picture` for one picture that is not in a file, with the limit of time."""
    check_for_memory(settings)
    progress = limit_time(settings.timeout_s, time.monotonic(), "it")
    limit_bytes = memory.limit_bytes(settings.memory_bytes)
    with memory.sharing_free_memory(limit_bytes):
        return restore_picture(restorer, degraded, settings, limit_bytes=limit_bytes, progress=progress)


def warn_about_time(limit_s: float | None, took_s: float) -> Iterator[str]:
    """One line for a picture that was done before the limit was checked, e.g. of a single tile."""
    if limit_s is not None and took_s > limit_s:
        yield f"took {took_s:.2g} s, longer than {limit_s:g} s; the time is checked after each tile but the last"


@checks_types(except_for=["degraded"])
def restore_crop(
    restorer: Restorer,
    degraded: Degraded,
    x: int,
    y: int,
    width: int,
    height: int,
    settings: Settings = Settings(),  # frozen
) -> Picture:
    """A part of the restored picture: the same pixels as in the whole result, without restoring the rest.

    x, y, width, height: of the part, in pixels of the upright degraded picture, which is also read around the part
    as far as the models see. Raises PictureError unless the part is inside, and ArgumentError for numbers below 0,
    for a part without pixels, and for settings that have a crop, too, or are only for files.
    """
    if settings.crop is not None:
        raise ArgumentError("the settings have a crop, too", hint="omit {crop}")
    restored = restore_in_memory(restorer, degraded, replace(settings, crop=(x, y, width, height)))
    assert isinstance(restored, Picture)  # a mosaic is not cropped
    return restored


@overload
def restore_picture(
    restorer: Restorer,
    degraded: Picture,
    settings: Settings,
    *,
    mask: Picture | Samples | None = None,
    limit_bytes: int | None = None,
    reserved_bytes: int = 0,
    kept: KeptTiles | None = None,
    progress: Progress | None = None,
) -> Picture: ...


@overload
def restore_picture(
    restorer: Restorer,
    degraded: Degraded,
    settings: Settings,
    *,
    mask: Picture | Samples | None = None,
    limit_bytes: int | None = None,
    reserved_bytes: int = 0,
    kept: KeptTiles | None = None,
    progress: Progress | None = None,
) -> Degraded: ...


def restore_picture(
    restorer: Restorer,
    degraded: Degraded,
    settings: Settings,
    *,
    mask: Picture | Samples | None = None,
    limit_bytes: int | None = None,
    reserved_bytes: int = 0,
    kept: KeptTiles | None = None,
    progress: Progress | None = None,
) -> Degraded:
    """A restored picture of the size in the settings, or the part of it that the settings ask for.

    mask, reserved_bytes, progress: see `Restorer.restore`, whose errors it raises. kept: see `Effort`.
    limit_bytes: memory limit of the process, by default that of the settings.
    Raises PictureError for a crop outside of the picture, for a size that the models cannot reach, and for both if
    the result is a mosaic.
    """
    accepted = restorer.recipe.domain.accept(degraded)
    if limit_bytes is None:
        limit_bytes = memory.limit_bytes(settings.memory_bytes)
    if restorer.recipe.domain.gives_mosaic:
        _check_whole(restorer, settings)
        effort = _plan_effort(accepted, settings, mask, limit_bytes, reserved_bytes, kept)
        restored = run_models(restorer.models, accepted, effort, accepted.dtype, progress)
        return restorer.recipe.domain.finish(restored, degraded)
    shape = upright_shape(accepted)
    runner, target = plan_size(restorer, shape, settings)
    wanted = _find_crop(shape, target, settings)
    enlarged = shape[0] * runner.scale, shape[1] * runner.scale
    is_resized = target != enlarged
    result_dtype = _choose_dtype(accepted.dtype, settings.bit_depth)
    needed = wanted
    fill_px = max(map(_kernel_reach_px, enlarged, target)) if is_resized and _has_alpha(accepted) else 0
    if is_resized:
        needed = wanted.map(lambda side, axis: find_span(enlarged[axis], target[axis], side))
    filled = needed.map(
        lambda side, axis: slice(max(0, side.start - fill_px), min(enlarged[axis], side.stop + fill_px))
    )
    effort = _plan_effort(accepted, settings, mask, limit_bytes, reserved_bytes, kept)
    dtype = "float32" if is_resized else result_dtype
    picture = _run_region(runner, accepted, filled, effort, dtype, progress)
    if is_resized:
        inner = needed.within(filled)
        picture = picture.fill_hidden(fill_px).crop(inner.rows, inner.cols)
        picture = resize_region(picture, enlarged, target, wanted.rows, wanted.cols, result_dtype)
    return picture if settings.crop is None else _without_places(picture)


def _choose_dtype(accepted_dtype: str, bit_depth: int | None) -> str:
    """The type of the samples of a result: that of the picture, or of its file if it is deeper.

    Writing converts to a lower depth, and reports floating-point samples that are clipped.
    """
    bits = next(bits for bits, dtype in formats.DEPTHS.items() if dtype == accepted_dtype)
    return formats.DEPTHS[max(bits, bit_depth or bits)]


def _plan_effort(
    accepted: Degraded,
    settings: Settings,
    mask: Picture | Samples | None,
    limit_bytes: int,
    reserved_bytes: int,
    kept: KeptTiles | None,
) -> Effort:
    return Effort(
        settings.tile_px,
        settings.halo_px,
        settings.ensemble,
        settings.strength,
        limit_bytes,
        reserved_bytes,
        None if mask is None else to_mask(mask, accepted),
        kept or KeptTiles(),
    )


def _check_whole(restorer: Restorer, settings: Settings) -> None:
    """Raise PictureError for a setting that a mosaic does not allow."""
    for name in ("crop", "scale", "size"):
        if getattr(settings, name) is not None:
            raise PictureError(
                f"{restorer.name} returns a whole mosaic, which is neither cropped nor resized",
                hint=f"omit {{{name}}}, and do it when developing the DNG",
            )


def describe_lost(degraded: Degraded, settings: Settings) -> tuple[str, ...]:
    """One line if a result does not have the metadata of the whole picture because it is a crop."""
    given = {key: value for key, value in degraded.metadata.items() if key != metadata.SIZE}
    is_lost = settings.crop and _keep_for_crop(given) != given
    return ("a crop keeps colors and resolution, no other metadata",) if is_lost else ()


def upright_shape(accepted: Degraded) -> Shape:
    """Height and width of a picture, or of a mosaic when it is upright."""
    swaps = isinstance(accepted, Mosaic) and accepted.orientation > 4
    return (accepted.width, accepted.height) if swaps else (accepted.height, accepted.width)


def plan_size(restorer: Restorer, shape: Shape, settings: Settings) -> tuple[Restorer, Shape]:
    """The restorer that enlarges a picture enough, and the (height, width) of the result.

    The last model that enlarges is repeated if needed. Raises PictureError if no model enlarges, if the picture
    would be enlarged only to be reduced below its own size, or if the result would be too large or too small.
    """
    if restorer.recipe.domain.gives_mosaic:
        _check_whole(restorer, settings)
    height, width = shape
    if settings.scale is None and settings.size is None:
        enlarged = height * restorer.scale, width * restorer.scale
        _check_target(shape, _part_of(enlarged, restorer.scale, settings), max(settings.max_pixels, MAX_PIXELS))
        return restorer, enlarged
    factor = _find_factor(width, height, settings)
    if _round(max(shape) * factor) == 0:
        raise PictureError(
            f"{settings.scale:g} times {width} x {height} px is less than a pixel", hint="raise {scale}"
        )
    target = max(1, _round(height * factor)), max(1, _round(width * factor))
    _check_target(shape, _part_of(target, factor, settings), settings.max_pixels)
    found = _describe_sizes(shape, target)
    enlargers = [model for model in restorer.models if model.scale > 1]
    if factor > 1 and not enlargers:
        raise PictureError(
            f"{found}, but {restorer.name} does not enlarge", hint="append a model that does, e.g. +srcnn-x2"
        )
    if enlargers and (factor <= 1 or target == shape):
        raise PictureError(f"{found}, but {restorer.name} only enlarges", hint="use a model that does not enlarge")
    while restorer.scale < factor:
        restorer = Restorer.of([*restorer.models, enlargers[-1]])
    return restorer, target


def _part_of(target: Shape, factor: Fraction | int, settings: Settings) -> Shape:
    """The size of the part of the result that is asked for."""
    if settings.crop is None:
        return target
    height, width = (_round(Fraction(side * factor)) for side in settings.crop[:1:-1])
    return min(height, target[0]), min(width, target[1])


def _describe_sizes(shape: Shape, target: Shape) -> str:
    return f"the picture has {shape[1]} x {shape[0]} px, and the result would have {target[1]} x {target[0]} px"


def _check_target(shape: Shape, target: Shape, max_pixels: int) -> None:
    """Raise PictureError if the result would be larger than a picture may be."""
    if target[0] * target[1] > max(max_pixels, shape[0] * shape[1]):
        limit = f"more than the {max_pixels:,} pixels that are allowed"
        raise PictureError(f"{_describe_sizes(shape, target)}, {limit}", hint="{max_pixels} sets the limit")


def _has_alpha(accepted: Degraded) -> bool:
    return isinstance(accepted, Picture) and accepted.alpha is not None


def _kernel_reach_px(old: int, new: int) -> int:
    """How far the resizing kernel mixes pixels, so that hidden colors within must be replaced first."""
    return 1 + -(-2 * max(old, new) // new)


def _find_factor(width: int, height: int, settings: Settings) -> Fraction:
    if settings.scale is not None:
        return Fraction(settings.scale).limit_denominator(10**6)
    assert settings.size is not None
    sides = zip(settings.size, (width, height), strict=True)
    return min(Fraction(wanted, side) for wanted, side in sides if wanted is not None)


def _round(length: Fraction) -> int:
    """To the nearest pixel, halves up."""
    return int(length + Fraction(1, 2))


def _find_crop(shape: Shape, target: Shape, settings: Settings) -> Region:
    """The part of the result that is wanted."""
    if settings.crop is None:
        return Region.whole(target)
    x, y, width, height = settings.crop
    if x + width > shape[1] or y + height > shape[0]:
        raise PictureError(
            f"the crop {x},{y},{width},{height} is not inside of a picture of {shape[1]} x {shape[0]} px",
            hint="{crop} is x, y, width and height",
        )

    def scale(side: slice, axis: int) -> slice:
        start, stop = (_round(Fraction(end * target[axis], shape[axis])) for end in (side.start, side.stop))
        return slice(min(start, target[axis] - 1), max(stop, start + 1))

    return Region(slice(y, y + height), slice(x, x + width)).map(scale)


def _run_region(
    runner: Restorer,
    accepted: Degraded,
    needed: Region,
    effort: Effort,
    dtype: str,
    progress: Progress | None,
) -> Picture:
    """A region of the enlarged result, from the part of the picture that it depends on."""
    shape = accepted.height, accepted.width
    orientation = accepted.orientation if isinstance(accepted, Mosaic) else 1
    height, width = upright_shape(accepted)
    if needed == Region.whole((height * runner.scale, width * runner.scale)):
        whole = run_models(runner.models, accepted, effort, dtype, progress)
        assert isinstance(whole, Picture)  # others are not cropped or resized
        return whole
    halo_px = runner.halo_px + FILL_PX * len(runner.models) * _has_alpha(accepted)
    if any(model.backend.fixed_shape is not None for model in runner.models):
        halo_px = max(shape)  # a part may be smaller than the shape
    covered = needed.map(lambda side, _: slice(side.start // runner.scale, -(-side.stop // runner.scale)))
    outer = _turn_back(covered, orientation, (height, width)).map(
        lambda side, axis: _add_halo(side, shape[axis], halo_px, runner.grid_px, from_end=effort.ensemble)
    )
    part = accepted.crop(outer.rows, outer.cols)
    mask = None if effort.mask is None else effort.mask.crop(outer.rows, outer.cols)
    restored = run_models(runner.models, part, replace(effort, mask=mask), dtype, progress)
    assert isinstance(restored, Picture)
    enlarged = _turn(outer, orientation, shape).map(
        lambda side, _: slice(side.start * runner.scale, side.stop * runner.scale)
    )
    inner = needed.within(enlarged)
    return restored.crop(inner.rows, inner.cols)


def _add_halo(side: slice, size: int, halo_px: int, grid_px: int, *, from_end: bool) -> slice:
    """What to read along a side. It starts on the grid, and so does a mirrored one, whose grid is `from_end`."""
    read = tiling.span(side.start, side.stop, size, halo_px=halo_px, grid_px=grid_px).read
    if not from_end:
        return read
    mirrored = tiling.span(size - side.stop, size - side.start, size, halo_px=halo_px, grid_px=grid_px)
    return slice(read.start, mirrored.mirrored(size).read_stop)


def _turn(region: Region, orientation: int, shape: Shape) -> Region:
    """Where a region of this shape is after `Picture.apply_orientation`."""
    if orientation > 4:
        region, shape = Region(region.cols, region.rows), shape[::-1]
    return _flip(region, orientation, shape)


def _turn_back(region: Region, orientation: int, shape: Shape) -> Region:
    """The inverse of `_turn`. shape: of the upright picture."""
    region = _flip(region, orientation, shape)
    return Region(region.cols, region.rows) if orientation > 4 else region


def _flip(region: Region, orientation: int, shape: Shape) -> Region:
    flips = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return region.map(
        lambda side, axis: slice(shape[axis] - side.stop, shape[axis] - side.start) if flips[axis] else side
    )


def _without_places(part: Picture) -> Picture:
    """A part of a picture without metadata that describe the whole."""
    return replace(part, metadata={**_keep_for_crop(part.metadata), metadata.SIZE: (part.width, part.height)})


def _keep_for_crop(given: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: given[key] for key in CROP_METADATA if key in given}
    colors = png.select_color(kept.pop("png-chunks", b""))
    return {**kept, "png-chunks": colors} if colors else kept
