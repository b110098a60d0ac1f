"""Score a restorer: a folder or a store of pictures -> PSNR and SSIM of each, the means, the protocol.

A score says how it was counted: color space, border, rounding, resize kernel, noise seed, number of pictures.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from pellucid.data import eval_samples
from pellucid.data.eval_samples import EvalSample, EvalSet
from pellucid.degradations.degradation import degrade, draws, involves, makes_mosaic
from pellucid.degradations.standard import Jpeg
from pellucid.domains import Degraded, Domain
from pellucid.errors import DataError, OutputError, PellucidError, PictureError
from pellucid.pictures import images, metrics, raw
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.recipes.recipe import Recipe, ScoringProtocol
from pellucid.restoration.restorer import Restorer
from pellucid.system.files import check_overwrite, write_atomic
from pellucid.weights.checkpoint import GIVEN_PAIRS

COLORS = {
    "gray": "gray",
    "y": "luma (Y of BT.601, 16..235, as MATLAB's rgb2ycbcr; gray pictures as they are)",
    "rgb": "RGB, all channels together",
}


@dataclass(frozen=True)
class Score:
    """Of one picture.

    degraded_psnr_db is that of the network's input, which the network should beat. Of a mosaic it is that of
    LibRaw's development, scaled to the target's mean; None where LibRaw takes none so small.
    """

    name: str
    psnr_db: float
    ssim: float | None
    degraded_psnr_db: float | None


@dataclass(frozen=True)
class _Sample:
    """What is scored. clean, before: (1, C, H, W) planes in the domain's colors, white is 1.

    before: what the network should beat, as Score says; made when it is asked for.
    """

    clean: Tensor
    degraded: Degraded
    before: Callable[[], Tensor | None]


@dataclass(frozen=True)
class Report:
    """Scores of a folder, and all that is needed to compare them with others."""

    model: str
    recipe: Recipe
    protocol: dict[str, Any]
    scores: tuple[Score, ...]
    failures: tuple[tuple[Path, PellucidError], ...] = ()
    changes: tuple[str, ...] = ()
    """Where the recipe is another than the weights were made for."""

    @property
    def mean_psnr_db(self) -> float:
        """The mean of the pictures' dB, as papers take it."""
        return _mean([score.psnr_db for score in self.scores])

    @property
    def mean_ssim(self) -> float | None:
        return _mean_of_known([score.ssim for score in self.scores])

    @property
    def mean_degraded_psnr_db(self) -> float | None:
        return _mean_of_known([score.degraded_psnr_db for score in self.scores])

    def statement(self) -> Iterator[str]:
        """The protocol for people, a fact a line."""
        for fact, value in self.protocol.items():
            if value is not None:
                yield f"{fact.replace('_', ' ')}: {value}"

    def to_json(self) -> dict[str, Any]:
        """What `--json` writes. An infinite PSNR, of equal pictures, is null."""
        return {
            "model": self.model,
            "recipe": {"name": self.recipe.name, "parameters": dict(self.recipe.parameters)},
            "changes": list(self.changes),
            "protocol": self.protocol,
            "mean": {
                "psnr_db": _finite(self.mean_psnr_db),
                "ssim": self.mean_ssim,
                "degraded_psnr_db": _finite(self.mean_degraded_psnr_db),
            },
            "pictures": [
                {
                    "name": score.name,
                    "psnr_db": _finite(score.psnr_db),
                    "ssim": score.ssim,
                    "degraded_psnr_db": _finite(score.degraded_psnr_db),
                }
                for score in self.scores
            ],
            "failures": [{"name": str(path), "reason": str(error)} for path, error in self.failures],
        }

    def write_json(self, path: Path, *, overwrite: bool = False) -> None:
        """Write `to_json`, whole or not at all."""
        content = json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n"
        write_atomic(path, content.encode(), overwrite=overwrite)


def evaluate(
    restorer: Restorer,
    data: str | Path,
    *,
    target: str | Path | None = None,
    save: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Score every picture of a folder or a store by the protocol of the restorer's recipe.

    data: clean pictures, degraded here; with `target`, degraded ones, whose clean partners lie there under
        the same names (or in the same order, where the two folders name them otherwise). Or a prepared store of
        clean pictures, of pairs, or of mosaics, which are restored with their exposure ratio; what it marks as
        misaligned is not scored.
    save: a folder for the restored pictures as they are scored (luma recipes: gray; mosaics: as the sensor lay),
        as 8-bit PNG.
    Raises DataError when there is nothing to score or not what the recipe takes, OutputError when a picture to
    save would replace another; pictures that cannot be read are listed in the report.
    """
    data = Path(data)
    collection = collect(restorer.recipe, data, target)
    saved = _saved(collection, None if save is None else Path(save), overwrite=overwrite)
    scores, failures = [], []
    for done, (specimen, result) in enumerate(zip(collection.samples, saved, strict=True), start=1):
        try:
            score, restored = _scored(restorer, specimen.name, _sample(restorer.recipe, specimen))
            if result is not None:
                images.write(restored, result, overwrite=overwrite)
            scores.append(score)
        except PictureError as error:
            failures.append((specimen.path, error.about(specimen.path)))
        if progress is not None:
            progress(done, len(collection))
    if not scores:
        raise DataError(f"none of the {len(collection)} pictures in {data} could be scored: {failures[0][1]}")
    protocol = describe(restorer.recipe, collection, num_pictures=len(scores))
    changes = tuple(restorer.changes())
    return Report(restorer.name, restorer.recipe, protocol, tuple(scores), tuple(failures), changes)


def collect(recipe: Recipe, data: str | Path, target: str | Path | None = None) -> EvalSet:
    """What `evaluate` scores. Raises DataError when there is nothing, or not what the recipe takes."""
    collection = eval_samples.collect(Path(data), None if target is None else Path(target))
    given = {"clean": "clean pictures", "pairs": "pairs of pictures", "raw": "mosaics"}[collection.kind]
    has_mosaics = collection.kind == "raw" or (
        collection.kind == "clean" and makes_mosaic(recipe.protocol.degradation)
    )
    if recipe.domain.takes_mosaic != has_mosaics:
        mosaics = "a store of mosaics, as 'pellucid prepare sid-sony' makes one"
        needed = mosaics if recipe.domain.takes_mosaic else "developed pictures"
        raise DataError(f"{data}: {given}; {recipe.name} is scored on {needed}")
    if collection.kind == "clean" and recipe.protocol.degradation is None:
        raise DataError(
            f"{recipe.name} is scored on pairs of degraded and clean pictures; give the clean ones with --target, "
            f"or a store of pairs"
        )
    return collection


def describe(recipe: Recipe, collection: EvalSet, *, num_pictures: int) -> dict[str, Any]:
    """The protocol in words and numbers: all that moves a score."""
    protocol, pairing = recipe.protocol, collection.pairing
    degradation = None if pairing else protocol.degradation
    is_raw = collection.kind == "raw"
    given = "given mosaics, times their exposure ratios" if is_raw else f"{GIVEN_PAIRS}, matched {pairing}"
    return {
        "colors": COLORS[recipe.domain.colors],
        "degradation": given if pairing else repr(degradation),
        "resize_kernel": "MATLAB bicubic, antialiased, in float" if recipe.domain.rate > 1 else None,
        "jpeg_encoder": _jpeg_encoder(recipe) if involves(degradation, Jpeg) else None,
        "clean_sizes_cut_to_multiples_of": None if pairing else protocol.crop_multiple,
        "border_px_left_out": protocol.border_px,
        "rounding": "restored rounded to 8 bit" if protocol.rounds else "restored clipped, not rounded",
        "noise_seed": _noise_seed(protocol) if degradation is not None and draws(degradation) else None,
        "peak": "white (255 of 8 bit)",
        "ssim": "Gaussian window 11 px, deviation 1.5, K 0.01 and 0.03, valid area",
        "mean": "of the pictures' values",
        "num_pictures": num_pictures,
        **({"degraded_psnr_of": BASELINE} if recipe.domain.takes_mosaic else {}),
        **({"misaligned_left_out": collection.num_misaligned} if is_raw else {}),
    }


BASELINE = "the mosaic developed by LibRaw, scaled to the target's mean"


def _jpeg_encoder(recipe: Recipe) -> str:
    return "libjpeg, 4:2:0" if recipe.domain.colors == "rgb" else "libjpeg, gray"


def _noise_seed(protocol: ScoringProtocol) -> int | str:
    return f"{protocol.seed} and the picture's name" if protocol.seed_by_name else protocol.seed


def strip(restorer: Restorer, data: Path, *, target: Path | None = None, width_px: int = 256) -> Picture:
    """The middle of the first picture that `evaluate` scores, side by side: degraded, restored, target.

    The degraded one is as Score says; black for a mosaic that LibRaw does not take.
    """
    specimen = collect(restorer.recipe, data, target).samples[0]
    sample = _sample(restorer.recipe, specimen)
    restored = restorer.recipe.domain.to_target(restorer.restore(sample.degraded))
    before = sample.before()
    shown = (torch.zeros_like(sample.clean) if before is None else before, restored, sample.clean)
    planes = [_middle(part, width_px).clamp(0, 1) for part in shown]
    return Picture.from_tensor(torch.cat(planes, dim=-1)).as_depth("uint8")


def _middle(planes: Tensor, width_px: int) -> Tensor:
    top, left = (max(0, (size - width_px) // 2) for size in planes.shape[-2:])
    return planes[..., top : top + width_px, left : left + width_px]


def _sample(recipe: Recipe, specimen: EvalSample) -> _Sample:
    """As it is given, or degraded by the protocol."""
    protocol, domain = recipe.protocol, recipe.domain
    # Color conversion rounds to 8 bit, as it does in MATLAB, where the published scores come from.
    clean = _rounded(domain.to_target(specimen.read_target()))
    if specimen.read_degraded is None:
        height, width = (size // protocol.crop_multiple * protocol.crop_multiple for size in clean.shape[-2:])
        clean = clean[..., :height, :width]
        _check_size(clean, specimen.path, protocol)
        degraded = _degraded(protocol, clean, specimen.name)
    else:
        _check_size(clean, specimen.path, protocol)
        degraded = specimen.read_degraded()
    if isinstance(degraded, Mosaic):
        return _mosaic_sample(domain, clean, degraded)
    picture = degraded.as_depth("float32")
    return _Sample(clean, picture, lambda: domain.encode(domain.to_target(picture)))


def _degraded(protocol: ScoringProtocol, clean: Tensor, name: str) -> Degraded:
    assert protocol.degradation is not None
    return degrade(protocol.degradation, clean, protocol.generator(name))


def _mosaic_sample(domain: Domain, clean: Tensor, mosaic: Mosaic) -> _Sample:
    """Cut to what of the mosaic a recipe takes: whole blocks of its filters. In float, as pictures are."""
    if (mosaic.height, mosaic.width) != tuple(clean.shape[-2:]):
        raise PictureError(
            f"a mosaic of {mosaic.width} x {mosaic.height} px, "
            f"but its target has {clean.shape[-1]} x {clean.shape[-2]}"
        )
    covered = domain.covered_area(mosaic)
    clean = clean[:, :, covered[0], covered[1]]
    accepted = domain.accept(mosaic).as_depth("float32")
    return _Sample(clean, accepted, lambda: _developed(mosaic, covered, clean))


def _developed(mosaic: Mosaic, covered: tuple[slice, slice], clean: Tensor) -> Tensor | None:
    """The baseline of Chen et al. 2018: developed as the target is, and scaled to its mean."""
    try:
        planes = raw.develop_mosaic(mosaic).crop(*covered).to_tensor()
    except PictureError:
        return None
    return (planes * (clean.mean() / planes.mean().clamp(min=1e-6))).clamp(0, 1)


def _check_size(clean: Tensor, path: Path, protocol: ScoringProtocol) -> None:
    if min(clean.shape[-2:]) <= 2 * protocol.border_px:
        raise PictureError(
            f"{path} is too small to be scored: {clean.shape[-1]} x {clean.shape[-2]} px, cut to multiples of "
            f"{protocol.crop_multiple}, of which {protocol.border_px} px on each side are left out"
        )


def _saved(collection: EvalSet, folder: Path | None, *, overwrite: bool) -> list[Path | None]:
    """Where each restored picture goes; refused before any work when one would replace something."""
    if folder is None:
        return [None] * len(collection)
    inputs = {os.path.realpath(path) for specimen in collection.samples for path in specimen.files}
    taken: dict[str, Path] = {}
    saved: list[Path | None] = []
    for specimen in collection.samples:
        name = PurePosixPath(specimen.name)
        if name.is_absolute() or ".." in name.parts:  # names in a store are whatever its index says
            raise OutputError(f"{specimen.path} would be saved outside {folder}; it is scored without --save only")
        result = folder / name.with_suffix(".png")
        if os.path.realpath(result) in inputs:
            raise OutputError(f"{result} is one of the pictures to score; choose another --save")
        if os.path.realpath(result) in taken:
            both = f"{taken[os.path.realpath(result)]} and {specimen.path}"
            raise OutputError(f"{both} would both be saved as {result}")
        taken[os.path.realpath(result)] = specimen.path
        check_overwrite(result, overwrite=overwrite)
        saved.append(result)
    return saved


def _scored(restorer: Restorer, name: str, sample: _Sample) -> tuple[Score, Picture]:
    domain, protocol, clean = restorer.recipe.domain, restorer.recipe.protocol, sample.clean
    restored = restorer.restore(sample.degraded)
    planes = domain.to_target(restored).clamp(0, 1)
    if planes.shape != clean.shape:
        raise PictureError(
            f"{name} is restored to {planes.shape[-1]} x {planes.shape[-2]} px, "
            f"but its clean partner has {clean.shape[-1]} x {clean.shape[-2]}"
        )
    before = sample.before()
    if protocol.rounds:
        planes, before = _rounded(planes), None if before is None else _rounded(before)
    inner = _inner(protocol.border_px)
    score = Score(
        name=name,
        psnr_db=metrics.psnr(planes[inner], clean[inner]),
        ssim=metrics.ssim(planes[inner], clean[inner]),
        degraded_psnr_db=None if before is None else metrics.psnr(before[inner], clean[inner]),
    )
    return score, restored.as_depth("uint8")


def _inner(border_px: int) -> tuple[Any, ...]:
    side = slice(border_px, -border_px) if border_px else slice(None)
    return (..., side, side)


def _rounded(planes: Tensor) -> Tensor:
    return (planes.clamp(0, 1) * 255 + 0.5).floor() / 255


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.inf


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
