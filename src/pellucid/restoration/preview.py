"""Which parts of a picture show best what models do, and a sheet of them before and after."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL.Image import Image

from pellucid.domains import Degraded
from pellucid.errors import PictureError
from pellucid.pictures.camera import raw
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.restoration import sheets
from pellucid.restoration.one_picture import restore_crop
from pellucid.restoration.reading import read_degraded
from pellucid.restoration.resizing import Shape
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.settings import Settings
from pellucid.restoration.sheets import CELL_PX, Pixels, Row
from pellucid.restoration.suitability import warn_about
from pellucid.storage.urls import Location
from pellucid.system import files

NUM_ROWS = 3
"""Parts of the picture on a sheet."""

_NUM_DETAILED, _NUM_FLAT = 4, 2
_LIMITS = 0.03, 0.97
"""Mean brightness of flat parts: in black and white ones there is nothing to see."""


@dataclass(frozen=True)
class Part:
    """A rectangle of a picture, in pixels. detail: mean change from pixel to pixel; white is 1."""

    top: int
    left: int
    height: int
    width: int
    detail: float = 0.0
    brightness: float = 0.5

    def crop(self, picture: Picture, shape: Shape) -> Picture:
        """The part of a picture that shows the same as one of this (height, width)."""
        down, across = picture.height / shape[0], picture.width / shape[1]
        rows, cols = (
            slice(round(start * factor), max(round(stop * factor), round(start * factor) + 1))
            for start, stop, factor in (
                (self.top, self.top + self.height, down),
                (self.left, self.left + self.width, across),
            )
        )
        return picture.crop(rows, cols)


@dataclass(frozen=True)
class Column:
    """What a sheet shows next to the original: the name and scale of a model, and a part of its result.

    can_crop: whether `restore` takes the place of a part.
    """

    name: str
    scale: int
    restore: Callable[[Part], Picture]
    can_crop: bool = True


def write_preview(
    source: Path,
    target: Path,
    restorers: Sequence[Restorer],
    settings: Settings,
    *,
    overwrite: bool,
    progress: Callable[[float], None] | None = None,
    rename: str = "give this picture alone, and the file to write by {out}",
) -> tuple[str, ...]:
    """Read a picture and write its preview; an older sheet is replaced. See `draw_preview`.

    rename: what to do if the name of the sheet is too long. Returns why results may be worse than expected.
    """
    files.check_name(target, hint=rename)
    sheets.check_replaceable(target, overwrite=overwrite)
    if len({one.recipe.domain.takes_mosaic for one in restorers}) > 1:
        names = " and ".join(one.name for one in restorers)
        raise PictureError(f"{names}: some take mosaics of camera RAW files, some developed pictures")
    for one in restorers:
        if one.recipe.domain.gives_mosaic:
            raise PictureError(
                f"{one.name} returns mosaics, of which no parts are drawn",
                hint="omit {preview}; {compare} draws a sheet of the whole result",
            )
    degraded, _ = read_degraded(
        source,
        restorers[0].recipe.domain,
        exposure=settings.exposure,
        max_pixels=settings.max_pixels,
        page=settings.page,
        white=settings.white,
    )
    title = f"{source.name} ({degraded.width} x {degraded.height} px)"
    sheet = draw_preview(title, degraded, restorers, settings, progress=progress)
    profile = degraded.metadata.get("icc-profile-data") if isinstance(degraded, Picture) else None
    sheets.write(sheet, target, profile, overwrite=overwrite)
    return tuple(dict.fromkeys(warning for one in restorers for warning in warn_about(degraded, one)))


def draw_preview(
    title: str,
    degraded: Degraded,
    restorers: Sequence[Restorer],
    settings: Settings = Settings(),  # frozen
    *,
    progress: Callable[[float], None] | None = None,
) -> Image:
    """A sheet with a few crops of a picture, before and after each restorer. The rest is not restored.

    settings: with a `crop`, the sheet shows that part. progress: called with the part of the work that is done.
    Raises the errors of `restore_crop`, and PictureError if a restorer does not take this kind of picture.
    """
    before = _develop(degraded, restorers[0])
    num_done, num_all = 0, (_NUM_DETAILED + _NUM_FLAT) + NUM_ROWS * (len(restorers) - 1)

    def restore(restorer: Restorer, part: Part) -> Picture:
        nonlocal num_done
        own = replace(settings, crop=None)
        restored = restore_crop(restorer, degraded, part.left, part.top, part.width, part.height, own)
        num_done += 1
        if progress is not None:
            progress(min(1.0, num_done / num_all))
        return restored

    columns = [Column(one.name, one.scale, _remember(restore, one)) for one in restorers]
    if settings.crop is None:
        return _draw(title, before, columns, max(one.scale for one in restorers), isinstance(degraded, Mosaic))
    x, y, width, height = settings.crop
    if x + width > before.width or y + height > before.height:
        raise PictureError(
            f"the crop {x},{y},{width},{height} is not inside of a picture of {before.width} x {before.height} px"
        )
    parts = [Part(y, x, height, width)]
    scale = max(one.scale for one in restorers)
    return _draw(title, before, columns, scale, isinstance(degraded, Mosaic), parts)


def draw_comparison(
    title: str, degraded: Degraded, restored: Degraded, restorer: Restorer, settings: Settings
) -> Image:
    """A sheet with a few crops of a picture, before and after it was restored with these settings."""
    before, after = _develop(degraded, restorer), _develop(restored, restorer)
    x = y = 0
    if settings.crop is not None:
        x, y, width, height = settings.crop
        before = before.crop(slice(y, y + height), slice(x, x + width))
    shape = before.height, before.width
    scale = max(1, round(after.width / before.width))
    can_crop = not isinstance(restored, Mosaic)
    columns = [Column(restorer.name, scale, lambda part: part.crop(after, shape), can_crop)]
    return _draw(title, before, columns, scale, isinstance(degraded, Mosaic), corner=(x, y))


def name_sheets(targets: Sequence[Location]) -> dict[Location, Location]:
    """The comparison of each result: NAME-compare.png, or NAME.EXT-compare.png if two results have that NAME."""
    count = Counter(map(_without_suffix, targets))
    stems = {target: target.stem if count[_without_suffix(target)] == 1 else target.name for target in targets}
    return {target: target.with_name(f"{stem}-compare.png") for target, stem in stems.items()}


def _without_suffix(target: Location) -> Location:
    return target.with_name(target.stem)


def find_parts(picture: Picture, side_px: int) -> list[Part]:
    """Candidates for a sheet: the most detailed parts and flat ones of a picture, not next to each other."""
    parts = sorted(_list_parts(picture, side_px), key=lambda part: -part.detail)
    chosen = _spread(parts, _NUM_DETAILED)
    flat = [part for part in reversed(parts) if _LIMITS[0] <= part.brightness <= _LIMITS[1]]
    return _spread(flat, _NUM_FLAT, chosen)


def _draw(
    title: str,
    before: Picture,
    columns: Sequence[Column],
    scale: int,
    is_mosaic: bool,
    parts: Sequence[Part] | None = None,
    corner: tuple[int, int] = (0, 0),
) -> Image:
    """corner: x and y of `before` in the picture, for captions."""
    candidates = find_parts(before, _choose_side_px(before, scale)) if parts is None else parts
    zoom = max(1, CELL_PX // (scale * max(max(part.height, part.width) for part in candidates)))
    shape = before.height, before.width

    def show(part: Part) -> tuple[Pixels, Pixels]:
        """Before, and after by the first column."""
        restored = columns[0].restore(part)
        given = part.crop(before, shape)
        gain = float(restored.to_tensor().mean() / given.to_tensor().mean().clamp(min=1e-6)) if is_mosaic else 1
        size = part.height * scale, part.width * scale
        return sheets.to_pixels(given, *size, gain=gain), sheets.to_pixels(restored, *size)

    shown = {part: show(part) for part in candidates}
    changes = {part: _rms(*pair) for part, pair in shown.items()}
    rows = []
    for part in _choose(candidates, changes):
        first, size = shown[part], (part.height * scale, part.width * scale)
        others = [sheets.to_pixels(column.restore(part), *size) for column in columns[1:]]
        cells = [np.repeat(np.repeat(cell, zoom, 0), zoom, 1) for cell in (*first, *others)]
        place = f"{corner[0] + part.left},{corner[1] + part.top},{part.width},{part.height}"
        captions = [f"--crop {place}" if columns[0].can_crop else place]
        captions += [f"changed by {_rms(cells[0], cell):.1f} of 255" for cell in cells[1:]]
        rows.append(Row(cells, captions, part.top, part.left, part.height, part.width))
    original = "developed by LibRaw" if is_mosaic else "before"
    names = [(original, 1), *((column.name, column.scale) for column in columns)]
    headings = [f"{name}, enlarged bicubically" if own < scale else name for name, own in names]
    return sheets.draw(f"{title} at {100 * zoom} %", headings, before, rows)


def _choose_side_px(before: Picture, scale: int) -> int:
    """The side of parts that fill a cell, but small enough for several of them in a small picture."""
    return min(CELL_PX // scale, max(64, min(before.height, before.width) * 3 // 5))


def _choose(candidates: Sequence[Part], changes: dict[Part, float]) -> list[Part]:
    """The part that changes most, the most detailed one of the others, and the flattest."""
    chosen: list[Part] = []
    for key in (changes.__getitem__, lambda part: part.detail, lambda part: -part.detail):
        others = [part for part in candidates if part not in chosen]
        chosen += sorted(others, key=key)[-1:]
    return chosen[:NUM_ROWS]


def _develop(degraded: Degraded, restorer: Restorer) -> Picture:
    """The picture as it is before: a mosaic is developed, cropped to what the model takes, and turned upright."""
    if isinstance(degraded, Picture):
        return degraded
    rows, cols = restorer.recipe.domain.covered_area(degraded)
    whole = raw.develop_mosaic(replace(degraded, orientation=1))
    return whole.crop(rows, cols).apply_orientation(degraded.orientation)


def _remember(restore: Callable[[Restorer, Part], Picture], restorer: Restorer) -> Callable[[Part], Picture]:
    """Each part only once."""
    known: dict[Part, Picture] = {}

    def get(part: Part) -> Picture:
        if part not in known:
            known[part] = restore(restorer, part)
        return known[part]

    return get


def _list_parts(picture: Picture, side_px: int) -> Iterator[Part]:
    """Squares of this side that cover the picture, or its whole short side, with their detail and brightness."""
    height, width = min(side_px, picture.height), min(side_px, picture.width)
    for top in _places(picture.height, height):
        band = Picture(picture.samples[top : top + height]).to_tensor()[0].mean(0).numpy()
        change = np.zeros_like(band)
        change[:, 1:] += abs(np.diff(band, axis=1))
        change[1:] += abs(np.diff(band, axis=0))
        for left in _places(picture.width, width):
            cols = slice(left, left + width)
            detail, brightness = float(change[:, cols].mean()), float(band[:, cols].mean())
            yield Part(top, left, height, width, detail, brightness)


def _places(size: int, side_px: int) -> list[int]:
    """Where parts start that cover a side evenly, from end to end."""
    count = -(-size // side_px)
    return [(size - side_px) * i // max(1, count - 1) for i in range(count)]


def _spread(parts: Sequence[Part], count: int, taken: Sequence[Part] = ()) -> list[Part]:
    """The taken parts and the first others: those that are not next to each other, as far as there are enough."""
    chosen = [*taken]
    for gap in (1.0, 0.0):
        for part in parts:
            is_near = any(
                abs(part.top - other.top) <= gap * part.height and abs(part.left - other.left) <= gap * part.width
                for other in chosen
            )
            if len(chosen) < len(taken) + count and not is_near:
                chosen.append(part)
    return chosen


def _rms(one: Pixels, two: Pixels) -> float:
    """The root of the mean squared difference; white is 255."""
    return float(np.sqrt(np.mean((one.astype(np.float32) - two.astype(np.float32)) ** 2)))
