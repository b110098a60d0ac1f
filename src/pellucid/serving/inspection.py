"""What a worker tells about files without restoring them: their kind and size, views for the page, models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pellucid.errors import PellucidError, PictureError
from pellucid.pictures import images, kinds
from pellucid.pictures.camera import raw
from pellucid.pictures.picture import Picture
from pellucid.pictures.vips import pyvips
from pellucid.recipes import registry
from pellucid.recipes.recipe import Recipe
from pellucid.serving import advice
from pellucid.weights import models
from pellucid.weights.checkpoint import describe_score

MAX_VIEWS = 2
"""Decoded pictures that are kept for further views; large ones are in files, not in memory."""


def inspect(views: dict[str, Picture], path: Path, *, max_pixels: int, with_advice: bool) -> dict[str, Any]:
    """Kind, number of pixels and pages of a file, from its header.

    with_advice: also what may be wrong with the picture, which is decoded for that.
    views: see `draw`. Raises PictureError as reading does.
    """
    kind = kinds.identify(path)
    if kind is None:
        raise PictureError(f"{path} is not a file of a known picture format")
    if images.is_raw(path):
        num_pixels, num_pages = raw.probe_pixels(path, max_pixels=max_pixels), 1
    else:
        num_pixels, _ = images.decoding_cost(path)
        pages = images.list_pages(path)
        num_pages = 1 if pages is None else len(pages)
    if num_pixels > max_pixels:
        raise PictureError(f"{path} has {num_pixels / 1e6:.0f} megapixels; the limit is {max_pixels / 1e6:.0f}")
    return {
        "kind": kind.name,
        "pixels": num_pixels,
        "pages": num_pages,
        "advice": _advise(views, path, max_pixels) if with_advice else None,
    }


def _advise(views: dict[str, Picture], path: Path, max_pixels: int) -> dict[str, Any]:
    return advice.advise_raw() if images.is_raw(path) else advice.advise(_decode(views, path, max_pixels))


def draw(
    views: dict[str, Picture],
    source: Path,
    target: Path,
    *,
    box: Sequence[int] | None,
    longest_px: int,
    max_pixels: int,
) -> dict[str, Any]:
    """Write a part of a picture as PNG with 8 bits in sRGB, at most longest_px wide and high.

    views: pictures decoded before; changed. box: left, top, width, height; None for the whole picture.
    """
    picture = _decode(views, source, max_pixels)
    left, top, width, height = box or (0, 0, picture.width, picture.height)
    right, bottom = min(left + width, picture.width), min(top + height, picture.height)
    if left >= right or top >= bottom:
        raise PictureError(f"the part is outside of the picture of {picture.width} x {picture.height} px")
    part = picture.crop(slice(top, bottom), slice(left, right))
    _to_srgb(part, longest_px).write_to_file(str(target), compression=1)
    return {"width": picture.width, "height": picture.height}


def _decode(views: dict[str, Picture], source: Path, max_pixels: int) -> Picture:
    key = f"{source}:{source.stat().st_mtime_ns}"
    if key not in views:
        while len(views) >= MAX_VIEWS:
            del views[next(iter(views))]
        if images.is_raw(source):
            views[key] = raw.develop(source, max_pixels=max_pixels)
        else:
            pages = images.list_pages(source)
            views[key] = images.read(source, max_pixels=max_pixels, page=None if pages is None else 1)
    views[key] = views.pop(key)
    return views[key]


def _to_srgb(part: Picture, longest_px: int) -> pyvips.Image:
    """Reduced if it is larger, and converted from the picture's own color space."""
    samples = part.as_depth("uint8" if part.dtype == "uint8" else "uint16").samples
    image = pyvips.Image.new_from_array(samples.copy())
    space = {1: "b-w", 3: "srgb"} if part.dtype == "uint8" else {1: "grey16", 3: "rgb16"}
    image = image.copy(interpretation=space[part.channels])
    scale = longest_px / max(image.width, image.height)
    if scale < 1:
        image = image.resize(scale, kernel="lanczos3")
    profile = part.metadata.get("icc-profile-data")
    if profile:
        image = image.copy()
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
        try:
            return image.icc_transform("srgb", embedded=True, depth=8)
        except pyvips.Error:  # a damaged profile, or one for other colors: the picture is shown without it
            image.remove("icc-profile-data")
    return image.colourspace("srgb").cast("uchar")


def describe_models() -> list[dict[str, Any]]:
    """Each model that can be read: name, purpose, factor of enlargement, input, scores, license."""
    listed = []
    for model, metadata in models.list_metadata():
        if isinstance(metadata, PellucidError):
            continue
        try:
            recipe = registry.find(metadata.recipe, **metadata.parameters)
        except PellucidError:  # of another version
            continue
        listed.append(
            {
                "name": model.name,
                "corrects": advice.list_problems(recipe),
                "recipe": metadata.recipe,
                "scale": int(recipe.domain.rate * _network_scale(recipe)),
                "takes_raw_only": recipe.domain.takes_mosaic,
                "colors": recipe.domain.colors,
                "license": metadata.license,
                "scores": [_describe_score(score) for score in metadata.scores],
            }
        )
    return listed


def _network_scale(recipe: Recipe) -> int:
    """Output pixels per input pixel of the network, which is built without memory for its weights."""
    with torch.device("meta"):
        return int(recipe.network().scale)


def _describe_score(score: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": describe_score(score), "psnr_db": score["psnr_db"], "ssim": score.get("ssim")}
