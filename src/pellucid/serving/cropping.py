"""A part of a result, without computing the rest."""

from pathlib import Path
from typing import Any

from pellucid.errors import PictureError
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.restoration.reading import read_degraded
from pellucid.restoration.restore import Outcome, Settings
from pellucid.restoration.restorer import FILL_PX, Restorer


def restore_part(
    source: Path, target: Path, restorer: Restorer, settings: Settings, box: tuple[int, int, int, int]
) -> Outcome:
    """Restore a part of a file: the same pixels as that part of the whole result.

    box: left, top, width, height in pixels of the picture. Raises PictureError for a part outside of the picture,
    and for models that take a mosaic.
    """
    if restorer.recipe.domain.takes_mosaic:
        raise PictureError(f"{restorer.name} restores whole camera RAW files only", hint="omit {crop}")
    picture, info = read_degraded(
        source, restorer.recipe.domain, max_pixels=settings.max_pixels, page=settings.page, white=settings.white
    )
    assert isinstance(picture, Picture)
    left, top, width, height = box
    if not (width and height and left + width <= picture.width and top + height <= picture.height):
        raise PictureError(
            f"{source} has {picture.width} x {picture.height} px, and the part {left},{top},{width},{height} is "
            "empty or outside of it",
            hint="choose another {crop}",
        )
    rows = _with_halo(restorer, picture, top, height, picture.height)
    cols = _with_halo(restorer, picture, left, width, picture.width)
    restored: Any = restorer.restore(
        picture.crop(rows, cols),
        ensemble=settings.ensemble,
        strength=settings.strength,
        memory_bytes=settings.memory_bytes,
    )
    part = restored.crop(
        _scaled(top - rows.start, height, restorer.scale), _scaled(left - cols.start, width, restorer.scale)
    )
    notes = images.write(part, target, overwrite=True, quality=settings.quality, bit_depth=settings.bit_depth)
    return Outcome(source, target, megapixels=width * height / 1e6, info=(*info, *notes))


def _with_halo(restorer: Restorer, picture: Picture, start: int, length: int, whole: int) -> slice:
    """What the network must read, from a multiple of its grid on."""
    halo_px = restorer.halo_px + (FILL_PX if picture.alpha is not None else 0)
    first = max(0, start - halo_px)
    return slice(first - first % restorer.grid_px, min(whole, start + length + halo_px))


def _scaled(start: int, length: int, scale: int) -> slice:
    return slice(start * scale, (start + length) * scale)
