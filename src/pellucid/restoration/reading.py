"""Reads any file in the form that a domain takes: as a picture, or as a mosaic with its exposure ratio."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pellucid.domains import Degraded, Domain, takes_mosaic
from pellucid.errors import PictureError
from pellucid.pictures import images
from pellucid.pictures.camera import raw
from pellucid.pictures.camera.exposure import compute_exposure_ratio, estimate_exposure_ratio
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.pictures.records import sidecars
from pellucid.restoration.entries import stamp

Exposing = float | Path | Literal["auto"]
"""The exposure ratio of a mosaic, a RAW file with the wanted exposure, or "auto" for an estimate."""


def read_degraded(
    path: Path,
    domain: Domain,
    *,
    exposure: Exposing = "auto",
    max_pixels: int = images.MAX_PIXELS,
    page: int | None = None,
    white: float | None = None,
    with_sidecars: bool = False,
) -> tuple[Degraded, tuple[str, ...]]:
    """The picture or mosaic in a file, and how it was read, e.g. a conversion of colors.

    A camera RAW file becomes a mosaic if the domain takes mosaics; otherwise LibRaw develops it.
    page, white: see `images.read`; a camera RAW file has one picture, and its own white.
    with_sidecars: the XMP in files next to it becomes part of the metadata.
    """
    sidecar = sidecars.read(path) if with_sidecars else b""
    if not images.is_raw(path):
        return _with_notes(images.read(path, max_pixels=max_pixels, page=page, white=white, sidecar=sidecar))
    if page not in (None, 1) or white is not None:
        what, hint = (
            ("its own white level", "omit {white}") if white is not None else ("one picture", "omit {page}")
        )
        raise PictureError(f"{path} is a camera RAW file, which has {what}", hint=hint)
    if takes_mosaic(domain):
        mosaic = raw.read(path, max_pixels=max_pixels, sidecar=sidecar)
        if domain.gives_mosaic:
            completed, facts = domain.complete(mosaic)
            return completed, (*mosaic.notes, *facts)
        mosaic, notes = _set_exposure(mosaic, exposure)
        return mosaic, (*notes, *_describe_cut(mosaic, domain))
    return _with_notes(raw.develop(path, max_pixels=max_pixels, sidecar=sidecar))


def _with_notes(picture: Picture) -> tuple[Picture, tuple[str, ...]]:
    return picture, () if picture.encoding is None else picture.encoding.notes


def _set_exposure(mosaic: Mosaic, exposure: Exposing) -> tuple[Mosaic, tuple[str, ...]]:
    """The mosaic with its exposure ratio, and where the ratio comes from."""
    if isinstance(exposure, Path):
        reference = _read_reference(exposure, tuple(stamp(exposure)))
        ratio, origin = compute_exposure_ratio(mosaic, reference), f"from {exposure.name}"
    elif exposure == "auto":
        ratio, origin = estimate_exposure_ratio(mosaic), "estimated from the brightness of the mosaic"
    else:
        return replace(mosaic, exposure_ratio=exposure), mosaic.notes
    return replace(mosaic, exposure_ratio=ratio), (*mosaic.notes, f"exposure ratio {ratio:.3g}, {origin}")


def _describe_cut(mosaic: Mosaic, domain: Domain) -> tuple[str, ...]:
    """A note if the network gets less than the whole mosaic. Raises PictureError if it gets none of it."""
    whole = domain.accept(mosaic)
    if (whole.width, whole.height) == (mosaic.width, mosaic.height):
        return ()
    before, after = (f"{each.width} x {each.height}" for each in (mosaic, whole))
    return (
        f"cut from {before} to {after} px, where the mosaic starts and ends with a whole block of color filters",
    )


@lru_cache(maxsize=1)
def _read_reference(path: Path, _: tuple[object, ...]) -> Mosaic:
    """Cached, because it is the same file for every picture of a folder, unless its stamp changes."""
    return raw.read(path)
