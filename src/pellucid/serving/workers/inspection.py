"""What a worker reports without restoring anything: kind and size of files, advice, and the models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pellucid.errors import NotEnoughMemoryError, PellucidError, PictureError
from pellucid.pictures import images, kinds
from pellucid.pictures.camera import raw
from pellucid.recipes import registry
from pellucid.recipes.recipe import Recipe
from pellucid.restoration import advice, suitability
from pellucid.serving.workers.views import Views
from pellucid.weights import models
from pellucid.weights.checkpoint import describe_score


def inspect(path: Path, views: Views, *, advise_among: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Kind, number of pixels and pages of a file, from its header.

    advise_among: models of `describe_models`. If given, the picture is decoded, and for each problem that one of
        them corrects, the result names that model.
    Raises PictureError as reading does.
    """
    kind = kinds.identify(path)
    if kind is None:
        raise PictureError(f"{path} is not a file of a known picture format")
    if images.is_raw(path):
        num_pixels, num_pages = raw.probe_pixels(path, max_pixels=views.max_pixels), 1
    else:
        num_pixels, _ = images.decoding_cost(path)
        pages = images.list_pages(path)
        num_pages = 1 if pages is None else len(pages)
    if num_pixels > views.max_pixels:
        raise PictureError(f"{path} has {num_pixels:,} pixels; the limit is {views.max_pixels:,}")
    return {
        "kind": kind.name,
        "pixels": num_pixels,
        "pages": num_pages,
        "advice": None if advise_among is None else _advise(path, views, advise_among),
    }


def _advise(path: Path, views: Views, models: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns [{"model", "problem", "reason"}], the most important first; none without the memory to decode."""
    try:
        degraded = views.decode_for_advice(path)
    except NotEnoughMemoryError:  # restoring, with a larger limit, may still be possible
        return []
    is_gray = advice.is_gray(degraded)
    candidates = [advice.Candidate(one["name"], tuple(one["corrects"]), one["colors"]) for one in models]
    found = advice.find_problems(degraded)
    chosen = ((advice.choose_model(one.problem, candidates, is_gray=is_gray), one) for one in found)
    return [{"model": model, **vars(one)} for model, one in chosen if model is not None]


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
                "corrects": suitability.list_problems(recipe),
                "recipe": metadata.recipe,
                "scale": recipe.domain.result_scale(_network_scale(recipe)),
                "takes_raw_only": recipe.domain.takes_mosaic,
                "gives_raw": recipe.domain.gives_mosaic,
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
