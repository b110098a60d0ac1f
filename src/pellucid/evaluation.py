"""Score a restorer: a folder or a store of pictures -> PSNR and SSIM of each, their means, and the protocol.

The protocol contains everything that affects a score: color space, border, rounding, resize kernel, noise seed,
...
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from pellucid.pictures import images, metrics
from pellucid.pictures.camera import raw
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.recipes.recipe import Recipe, ScoringProtocol
from pellucid.restoration.restorer import Restorer
from pellucid.system.files import check_name, check_overwrite, write_atomic
from pellucid.weights.checkpoint import GIVEN_PAIRS

COLORS = {
    "gray": "gray",
    "y": "luma (Y of BT.601, 16..235, as MATLAB's rgb2ycbcr; gray pictures as they are)",
    "rgb": "RGB, all channels together",
}


@dataclass(frozen=True)
class Score:
    """The scores of one picture.

    psnr_db: infinite if the result equals the target. ssim: None if the picture is smaller than the window.
    degraded_psnr_db: of the network's input, as a baseline. For a mosaic, of LibRaw's development, scaled to the
        mean of the target; None if the mosaic is too small for LibRaw.
    """

    name: str
    psnr_db: float
    ssim: float | None
    degraded_psnr_db: float | None


@dataclass(frozen=True)
class _ScoringInput:
    """A picture to score. Planes are (1, C, H, W) in the colors of the domain; white is 1.

    make_baseline: the planes of `Score.degraded_psnr_db`. warnings: why the files may be misunderstood.
    """

    target: Tensor
    degraded: Degraded
    make_baseline: Callable[[], Tensor | None]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Scores of a folder or store, and everything that is needed to compare them with others.

    model: name of the restorer. protocol: how scores were computed, see `statement`.
    scores: of each picture, sorted by path. failures: pictures that could not be scored, and why.
    overrides: see `Restorer.overrides`. warnings: why scores may be wrong, e.g. because white is not known.
    """

    model: str
    recipe: Recipe
    protocol: dict[str, Any]
    scores: tuple[Score, ...]
    failures: tuple[tuple[Path, PellucidError], ...] = ()
    overrides: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def mean_psnr_db(self) -> float:
        """The mean over the pictures of their PSNR in dB, as in papers."""
        return _mean([score.psnr_db for score in self.scores])

    @property
    def mean_ssim(self) -> float | None:
        """The mean over the pictures that have an SSIM; None if there are none."""
        return _mean_of_known([score.ssim for score in self.scores])

    @property
    def mean_degraded_psnr_db(self) -> float | None:
        """The mean over the pictures that have a baseline; None if there are none."""
        return _mean_of_known([score.degraded_psnr_db for score in self.scores])

    def statement(self) -> Iterator[str]:
        """The protocol as text, one fact per line."""
        for fact, value in self.protocol.items():
            if value is not None:
                yield f"{fact.replace('_', ' ')}: {value}"

    def to_json(self) -> dict[str, Any]:
        """What `write_json` writes. An infinite PSNR is null."""
        return {
            "model": self.model,
            "recipe": {"name": self.recipe.name, "parameters": dict(self.recipe.parameters)},
            "changes": list(self.overrides),
            "warnings": list(self.warnings),
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

    def write_json(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the report as JSON, completely or not at all. Raises OutputError if the file exists."""
        content = json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n"
        write_atomic(Path(path), content.encode(), overwrite=overwrite)


def evaluate(
    restorer: Restorer,
    data: str | Path,
    *,
    target: str | Path | None = None,
    save: str | Path | None = None,
    overwrite: bool = False,
    white: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Score every picture of a folder or store by the protocol of the restorer's recipe.

    data: a folder of clean pictures, which are degraded here; or, with `target`, a folder of degraded pictures. Or
        a store of clean pictures, of pairs, or of mosaics, which are restored with their exposure ratios; items
        that the store marks as misaligned are not scored.
    target: a folder of the clean pictures, matched by name; by order if no name matches and the counts agree.
    save: a folder for the restored pictures as they are scored, as 8-bit PNG: gray for luma recipes, and without
        rotation for mosaics. overwrite: replace existing files there.
    white: the value of white in all files, see `read`. Default: as each file specifies it, else that of its type.
    progress: called with (pictures done, all pictures).

    Raises DataError if there is nothing to score or it does not fit the recipe, and OutputError if a saved picture
    would overwrite another file. Pictures that cannot be read are listed in the report. Pictures are scored one by
    one, so memory does not grow with their number.
    """
    if not isinstance(restorer, Restorer):
        raise PellucidError(
            f"an object of type {type(restorer).__name__} cannot be scored", hint="use what load returns"
        )
    data = Path(data)
    collection = collect(restorer.recipe, data, target, white=white)
    saved = _plan_saved(collection, None if save is None else Path(save), overwrite=overwrite)
    scores, failures, warnings = [], [], dict[str, None]()
    for done, (sample, result) in enumerate(zip(collection.samples, saved, strict=True), start=1):
        try:
            prepared = _prepare(restorer.recipe, sample)
            warnings.update(dict.fromkeys(f"{sample.name}: {warning}" for warning in prepared.warnings))
            score, restored = _score(restorer, sample.name, prepared)
            if result is not None:
                images.write(restored, result, overwrite=overwrite)
            scores.append(score)
        except PictureError as error:
            failures.append((sample.path, error.about(sample.path)))
        if progress is not None:
            progress(done, len(collection))
    if not scores:
        first = failures[0][1]
        facts = f"none of the {len(collection)} pictures in {data} could be scored: {first.facts}"
        raise DataError(facts, hint=first.hint, **first.parameters)
    protocol = describe(restorer.recipe, collection, num_pictures=len(scores))
    overrides = tuple(restorer.overrides())
    return Report(
        restorer.name, restorer.recipe, protocol, tuple(scores), tuple(failures), overrides, tuple(warnings)
    )


def collect(
    recipe: Recipe, data: str | Path, target: str | Path | None = None, *, white: float | None = None
) -> EvalSet:
    """What `evaluate` scores. Raises DataError if there is nothing, or if it does not fit the recipe."""
    collection = eval_samples.collect(Path(data), None if target is None else Path(target), white=white)
    given = {"clean": "clean pictures", "pairs": "pairs of pictures", "raw": "mosaics"}[collection.kind]
    has_mosaics = collection.kind == "raw" or (
        collection.kind == "clean" and makes_mosaic(recipe.protocol.degradation)
    )
    if recipe.domain.takes_mosaic != has_mosaics:
        mosaics = "a store of mosaics, e.g. of the data set sid-sony"
        needed = mosaics if recipe.domain.takes_mosaic else "developed pictures"
        raise DataError(f"{data} contains {given}; {recipe.name} is scored on {needed}")
    if collection.kind == "clean" and recipe.protocol.degradation is None:
        raise DataError(
            f"{recipe.name} is scored on pairs of degraded and clean pictures",
            hint="give a store of pairs, or a folder and its clean pictures as {target}",
        )
    return collection


def describe(recipe: Recipe, collection: EvalSet, *, num_pictures: int) -> dict[str, Any]:
    """The protocol: everything that affects a score."""
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
    """The middle of the first picture that `evaluate` scores: baseline, restored and target, side by side.

    The baseline is that of `Score.degraded_psnr_db`; black if there is none. width_px: of each of the three.
    """
    sample = collect(restorer.recipe, data, target).samples[0]
    prepared = _prepare(restorer.recipe, sample)
    restored = restorer.recipe.domain.to_target(restorer.restore(prepared.degraded))
    baseline = prepared.make_baseline()
    shown = (torch.zeros_like(prepared.target) if baseline is None else baseline, restored, prepared.target)
    planes = [_crop_middle(part, width_px).clamp(0, 1) for part in shown]
    return Picture.from_tensor(torch.cat(planes, dim=-1)).as_depth("uint8")


def _crop_middle(planes: Tensor, width_px: int) -> Tensor:
    top, left = (max(0, (size - width_px) // 2) for size in planes.shape[-2:])
    return planes[..., top : top + width_px, left : left + width_px]


def _prepare(recipe: Recipe, sample: EvalSample) -> _ScoringInput:
    """Target and degraded picture, the latter as given, or made by the protocol."""
    protocol, domain = recipe.protocol, recipe.domain
    # Color conversion rounds to 8 bit, as it does in MATLAB, where the published scores come from.
    clean = sample.read_target()
    target, warnings = _round(domain.to_target(clean)), _warnings_of(clean)
    if sample.read_degraded is None:
        assert protocol.degradation is not None
        height, width = (size // protocol.crop_multiple * protocol.crop_multiple for size in target.shape[-2:])
        target = target[..., :height, :width]
        _check_size(target, sample.path, protocol)
        degraded = degrade(protocol.degradation, target, protocol.generator(sample.name))
    else:
        _check_size(target, sample.path, protocol)
        degraded = sample.read_degraded()
    if isinstance(degraded, Mosaic):
        return _prepare_mosaic(domain, target, degraded)
    if sample.read_degraded is not None:
        warnings = (*_warnings_of(degraded), *(f"target: {warning}" for warning in warnings))
    picture = replace(degraded, extra=None).as_depth("float32")
    return _ScoringInput(target, picture, lambda: domain.encode(domain.to_target(picture)), warnings)


def _warnings_of(picture: Picture) -> tuple[str, ...]:
    return () if picture.encoding is None else picture.encoding.warnings


def _prepare_mosaic(domain: Domain, target: Tensor, mosaic: Mosaic) -> _ScoringInput:
    """The mosaic in float, as pictures are, and its target, both cropped to the area that the domain accepts."""
    if (mosaic.height, mosaic.width) != tuple(target.shape[-2:]):
        raise PictureError(
            f"a mosaic of {mosaic.width} x {mosaic.height} px, "
            f"but its target has {target.shape[-1]} x {target.shape[-2]}"
        )
    rows, cols = domain.covered_area(mosaic)
    target = target[:, :, rows, cols]
    accepted = domain.accept(mosaic).as_depth("float32")
    return _ScoringInput(target, accepted, lambda: _develop_baseline(mosaic, rows, cols, target))


def _develop_baseline(mosaic: Mosaic, rows: slice, cols: slice, target: Tensor) -> Tensor | None:
    """The baseline of Chen et al. 2018: developed like the target, and scaled to its mean."""
    try:
        planes = raw.develop_mosaic(mosaic).crop(rows, cols).to_tensor()
    except PictureError:
        return None
    return (planes * (target.mean() / planes.mean().clamp(min=1e-6))).clamp(0, 1)


def _check_size(target: Tensor, path: Path, protocol: ScoringProtocol) -> None:
    if min(target.shape[-2:]) <= 2 * protocol.border_px:
        raise PictureError(
            f"{path} is too small to be scored: {target.shape[-1]} x {target.shape[-2]} px after cropping to "
            f"multiples of {protocol.crop_multiple}; {protocol.border_px} px on each side are not scored"
        )


def _plan_saved(collection: EvalSet, folder: Path | None, *, overwrite: bool) -> list[Path | None]:
    """Where each restored picture goes. Raises OutputError, before any work, if one would overwrite something."""
    if folder is None:
        return [None] * len(collection)
    check_name(folder)
    inputs = {os.path.realpath(path) for sample in collection.samples for path in sample.files}
    taken: dict[str, Path] = {}
    saved: list[Path | None] = []
    for sample in collection.samples:
        name = PurePosixPath(sample.name)
        if name.is_absolute() or ".." in name.parts:  # the index of a store may contain any names
            raise OutputError(f"{sample.path} would be saved outside of {folder}", hint="omit {save}")
        result = folder / name.with_suffix(".png")
        if os.path.realpath(result) in inputs:
            raise OutputError(f"{result} is one of the pictures to score", hint="choose another {save}")
        if os.path.realpath(result) in taken:
            both = f"{taken[os.path.realpath(result)]} and {sample.path}"
            raise OutputError(f"{both} would both be saved as {result}")
        taken[os.path.realpath(result)] = sample.path
        check_overwrite(result, overwrite=overwrite)
        saved.append(result)
    return saved


def _score(restorer: Restorer, name: str, prepared: _ScoringInput) -> tuple[Score, Picture]:
    domain, protocol, target = restorer.recipe.domain, restorer.recipe.protocol, prepared.target
    restored = restorer.restore(prepared.degraded)
    planes = domain.to_target(restored).clamp(0, 1)
    if planes.shape != target.shape:
        raise PictureError(
            f"{name} is restored to {planes.shape[-1]} x {planes.shape[-2]} px, "
            f"but its target has {target.shape[-1]} x {target.shape[-2]}"
        )
    baseline = prepared.make_baseline()
    if protocol.rounds:
        planes, baseline = _round(planes), None if baseline is None else _round(baseline)
    inner = _without_border(protocol.border_px)
    score = Score(
        name=name,
        psnr_db=metrics.psnr(planes[inner], target[inner]),
        ssim=metrics.ssim(planes[inner], target[inner]),
        degraded_psnr_db=None if baseline is None else metrics.psnr(baseline[inner], target[inner]),
    )
    return score, restored.as_depth("uint8")


def _without_border(border_px: int) -> tuple[Any, ...]:
    side = slice(border_px, -border_px) if border_px else slice(None)
    return (..., side, side)


def _round(planes: Tensor) -> Tensor:
    return (planes.clamp(0, 1) * 255 + 0.5).floor() / 255


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.inf


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
