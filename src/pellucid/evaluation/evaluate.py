"""Score a restorer, or the results of any program: a folder or a store of pictures -> PSNR, SSIM, their means.

The protocol contains everything that affects a score: color space, border, rounding, resize kernel, noise seed,
...
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from pellucid.data import eval_samples
from pellucid.data.eval_samples import EvalSample, EvalSet
from pellucid.degradations.degradation import draws, involves, makes_mosaic
from pellucid.degradations.standard import JPEG_COMPRESSION
from pellucid.errors import ArgumentError, DataError, OutputError
from pellucid.evaluation.comparison import COLORS, Comparison, check_colors, to_8_bits
from pellucid.evaluation.inputs import prepare_input, to_picture, warnings_of_pair
from pellucid.evaluation.report import MAX_SEEDS, Report
from pellucid.evaluation.running import Measured, Progress, ScoreAll, Scoring
from pellucid.evaluation.score_log import ScoreLog
from pellucid.pictures.picture import Picture
from pellucid.recipes.recipe import Recipe
from pellucid.restoration.restorer import Restorer
from pellucid.storage import cache
from pellucid.storage.urls import Location
from pellucid.system.arguments import check_number, checks_types
from pellucid.system.files import check_name
from pellucid.system.shards import Shard
from pellucid.weights.checkpoint import GIVEN_PAIRS


@checks_types()
def evaluate(
    restorer: Restorer,
    data: str | Location,
    *,
    target: str | Location | None = None,
    colors: str | None = None,
    border_px: int | None = None,
    num_seeds: int = 1,
    save: str | Path | None = None,
    overwrite: bool = False,
    white: float | None = None,
    record: str | Path | None = None,
    shard: Shard | None = None,
    progress: Progress | None = None,
) -> Report:
    """Score every picture of a folder or store by the protocol of the restorer's recipe.

    data: a folder of clean pictures, which are degraded here; or, with `target`, a folder of degraded pictures. Or
        a store of clean pictures, of pairs, or of mosaics, which are restored with their exposure ratios; items
        that the store marks as misaligned are not scored.
    target: a folder of the clean pictures, matched by name; by order if no name matches and the counts agree.
        Both may be URLs of folders in buckets, which are copied into the cache of this computer.
    colors: gray, y (luma) or rgb; only for pairs. border_px: width of the border that is not scored. Default:
        those of the recipe.
    num_seeds: how often each picture is degraded, with different noise, and restored. Scores are the means.
    save: a folder for the restored pictures as they are scored, as 8-bit PNG: gray for luma recipes, and without
        rotation for mosaics; those of the first seed. overwrite: replace existing files there.
    white: the value of white in all files, see `read`. Default: as each file specifies it, else that of its type.
    record: a file to which the score of each finished picture is added; pictures in it are not computed again,
        unless data, weights or settings have changed. If it is a folder, or
        with `shard`, each process writes its own file in it, and reads those of all. Default: nothing is recorded.
    shard: score only this shard of the pictures, by a hash of their names; the report may be empty. A call with
        the same `record` and without `shard` reports all pictures, and computes only the missing ones.
    progress: called with (pictures done, all pictures).

    Raises DataError if there is nothing to score or it does not fit the recipe, and OutputError if a saved picture
    would overwrite another file. Pictures that cannot be read are listed in the report. Pictures are scored one by
    one, so memory does not grow with their number.
    """
    planned = plan_evaluation(
        restorer,
        data,
        target=target,
        colors=colors,
        border_px=border_px,
        num_seeds=num_seeds,
        save=save,
        white=white,
    )
    return planned.run(record, overwrite=overwrite, shard=shard, progress=progress)


@dataclass(frozen=True)
class Evaluation:
    """What to score, and how. restorer: None for given results."""

    scoring: Scoring
    protocol: Mapping[str, Any]
    restorer: Restorer | None = None

    def run(
        self,
        record: str | Path | None = None,
        *,
        overwrite: bool = False,
        shard: Shard | None = None,
        progress: Progress | None = None,
        score_all: ScoreAll | None = None,
    ) -> Report:
        """Score everything; see `evaluate` and `Scoring.run`."""
        log = _open_record(record, shard)
        scored = self.scoring.run(log, overwrite=overwrite, shard=shard, progress=progress, score_all=score_all)
        return Report(
            model=self.scoring.model,
            recipe=None if self.restorer is None else self.restorer.recipe,
            protocol={**self.protocol, "num_pictures": len(scored.scores)},
            seeds=tuple(self.scoring.seeds),
            by_seed=scored.by_seed(),
            num_resumed=scored.num_resumed,
            failures=tuple(scored.failures),
            overrides=() if self.restorer is None else tuple(self.restorer.overrides()),
            warnings=(*self.scoring.collection.warnings, *scored.warnings),
        )


def plan_evaluation(
    restorer: Restorer,
    data: str | Location,
    *,
    target: str | Location | None = None,
    colors: str | None = None,
    border_px: int | None = None,
    num_seeds: int = 1,
    save: str | Path | None = None,
    white: float | None = None,
) -> Evaluation:
    """The plan of `evaluate`; nothing is decoded yet. Arguments and errors are those of `evaluate`."""
    recipe = restorer.recipe
    collection = collect(recipe, data, target, white=white)
    comparison = _plan_comparison(recipe, collection, colors, border_px)
    seeds = _plan_seeds(recipe, collection, num_seeds)

    def measure(sample: EvalSample, seed: int | None) -> Measured:
        prepared = prepare_input(recipe, comparison, sample, seed)
        restored = to_picture(restorer.restore(prepared.degraded))
        planes = comparison.convert(restored.to_tensor())
        comparison.check(sample.name, planes, prepared.target)
        score = comparison.score(sample.name, planes, prepared.target, prepared.make_baseline())
        return Measured(score, prepared.warnings, restored.as_depth("uint8"))

    protocol = describe(recipe, collection, comparison, seeds) | _describe_white(white)
    backends = [model.backend.name for model in restorer.models]
    weights = (restorer.fingerprint(), backends, recipe.name, dict(recipe.parameters))
    saved = _plan_saved(collection, None if save is None else Path(save))
    scoring = Scoring(collection, measure, seeds, (protocol, weights, white), saved, restorer.name)
    return Evaluation(scoring, protocol, restorer)


@checks_types()
def score(
    results: str | Location,
    target: str | Location,
    *,
    colors: str = "rgb",
    border_px: int = 0,
    white: float | None = None,
    record: str | Path | None = None,
    shard: Shard | None = None,
    progress: Progress | None = None,
) -> Report:
    """Score the results of any program, in a folder, by comparing them with their targets.

    target: a folder of the clean pictures, matched by name; by order if no name matches and the counts agree. A
        result of another size than its target is not scored, and is listed in the report.
    colors: gray (as MATLAB's rgb2gray), y (luma, as MATLAB's rgb2ycbcr) or rgb. Gray and luma are rounded to 8
        bits, as in MATLAB, where most published scores come from.
    border_px: width of the border that is not scored.
    white, record, shard, progress: as for `evaluate`.

    Raises DataError if there is nothing to score, or if pictures have no target.
    """
    planned = plan_score(results, target, colors=colors, border_px=border_px, white=white)
    return planned.run(record, shard=shard, progress=progress)


def plan_score(
    results: str | Location,
    target: str | Location,
    *,
    colors: str = "rgb",
    border_px: int = 0,
    white: float | None = None,
) -> Evaluation:
    """The plan of `score`; nothing is decoded yet. Arguments and errors are those of `score`."""
    check_number("border_px", border_px, 0)
    comparison = Comparison(check_colors(colors), border_px, rounds=colors != "rgb")
    results = cache.as_local(results)
    collection = eval_samples.collect(results, target, white=white)

    def convert(picture: Picture) -> Tensor:
        planes = comparison.convert(picture.to_tensor())
        return to_8_bits(planes) if comparison.rounds else planes

    def measure(sample: EvalSample, seed: int | None) -> Measured:
        assert sample.read_degraded is not None
        restored, clean = sample.read_degraded(), sample.read_target()
        assert isinstance(restored, Picture)
        comparison.check_channels(sample.name, restored.channels, clean.channels)
        comparison.check_memory(clean)
        planes, wanted = convert(restored), convert(clean)
        comparison.check(sample.name, planes, wanted)
        warnings = warnings_of_pair(restored, clean, comparison)
        return Measured(comparison.score(sample.name, planes, wanted), warnings)

    protocol = {
        "colors": COLORS[colors],
        "degradation": f"given results, matched {collection.pairing}",
        **comparison.describe("both rounded to 8 bit" if comparison.rounds else "not rounded"),
        **_describe_white(white),
    }
    model = Path(results).name or str(results)
    saved = [None] * len(collection)
    return Evaluation(Scoring(collection, measure, (None,), (protocol, white), saved, model), protocol)


def collect(
    recipe: Recipe, data: str | Location, target: str | Location | None = None, *, white: float | None = None
) -> EvalSet:
    """The samples that `evaluate` scores. Raises DataError if there are none, or if they do not fit the recipe."""
    collection = eval_samples.collect(data, target, white=white)
    given = {"clean": "clean pictures", "pairs": "pairs of pictures", "raw": "mosaics"}[collection.kind]
    has_mosaics = collection.kind == "raw" or (
        collection.kind == "clean" and makes_mosaic(recipe.protocol.degradation)
    )
    if recipe.domain.gives_mosaic and collection.kind != "clean":
        raise DataError(f"{data} contains {given}; {recipe.name} is scored on clean pictures")
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


def describe(
    recipe: Recipe, collection: EvalSet, comparison: Comparison, seeds: tuple[int | None, ...]
) -> dict[str, Any]:
    """The protocol: everything that affects a score."""
    protocol, pairing = recipe.protocol, collection.pairing
    degradation = None if pairing else protocol.degradation
    is_raw = collection.kind == "raw"
    given = "given mosaics, times their exposure ratios" if is_raw else f"{GIVEN_PAIRS}, matched {pairing}"
    rounding = "restored rounded to 8 bit" if comparison.rounds else "restored clipped, not rounded"
    return {
        "colors": COLORS[comparison.colors],
        "degradation": given if pairing else repr(degradation),
        "resize_kernel": "MATLAB bicubic, antialiased, in float" if recipe.domain.rate > 1 else None,
        "jpeg_encoder": _jpeg_encoder(recipe) if involves(degradation, JPEG_COMPRESSION) else None,
        "clean_sizes_cut_to_multiples_of": None if pairing else protocol.crop_multiple,
        **comparison.describe(rounding),
        "noise_seed": _describe_seeds(recipe, seeds),
        "num_pictures": len(collection),
        **({"degraded_psnr_of": _describe_baseline(recipe)} if recipe.domain.takes_mosaic else {}),
        **({"misaligned_left_out": collection.num_misaligned} if is_raw else {}),
    }


def _describe_white(white: float | None) -> dict[str, str]:
    """What replaces the peak of a protocol if white is given."""
    return {} if white is None else {"peak": f"white ({white:g}, as given)"}


BASELINE = "the mosaic developed by LibRaw, scaled to the target's mean"
DEVELOPED = "the mosaic developed by LibRaw, like the restored mosaic and the target"


def _describe_baseline(recipe: Recipe) -> str:
    return DEVELOPED if recipe.domain.gives_mosaic else BASELINE


def _jpeg_encoder(recipe: Recipe) -> str:
    return "libjpeg, 4:2:0" if recipe.domain.colors == "rgb" else "libjpeg, gray"


def _describe_seeds(recipe: Recipe, seeds: tuple[int | None, ...]) -> int | str | None:
    if seeds[0] is None or (len(seeds) == 1 and not recipe.protocol.seed_by_name):
        return seeds[0]
    numbers = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"{numbers} and the picture's name" if recipe.protocol.seed_by_name else numbers


def _plan_comparison(recipe: Recipe, collection: EvalSet, colors: str | None, border_px: int | None) -> Comparison:
    """The comparison of the recipe, or with the given colors and border. Raises DataError if impossible."""
    protocol, own = recipe.protocol, recipe.domain.colors
    colors = own if colors is None else check_colors(colors)
    if border_px is not None:
        check_number("border_px", border_px, 0)
    if colors != own and collection.kind != "pairs":
        raise ArgumentError(
            f"{recipe.name} degrades and restores {COLORS[own]} here; only pairs of pictures can be scored in "
            f"other colors",
            hint="omit {colors}",
        )
    return Comparison(colors, protocol.border_px if border_px is None else border_px, protocol.rounds)


def _plan_seeds(recipe: Recipe, collection: EvalSet, num_seeds: int) -> tuple[int | None, ...]:
    """The noise seeds; one None if nothing is drawn. Raises ArgumentError for several without effect."""
    check_number("num_seeds", num_seeds, 1, MAX_SEEDS)
    degradation, first = recipe.protocol.degradation, recipe.protocol.seed
    if collection.kind == "clean" and degradation is not None and draws(degradation):
        return tuple(range(first, first + num_seeds))
    if num_seeds > 1:
        raise ArgumentError(
            "no noise is drawn for these scores, so that seeds have no effect", hint="omit {num_seeds}"
        )
    return (None,)


def _open_record(path: str | Path | None, shard: Shard | None) -> ScoreLog:
    if path is None and shard is not None:
        raise ArgumentError(
            "the scores of a shard would be lost", hint="{record} is a folder that all shards share"
        )
    return ScoreLog(None if path is None else Path(path), shard)


def strip(
    restorer: Restorer, data: str | Path, *, target: str | Path | None = None, width_px: int = 256
) -> Picture:
    """The middle of the first picture that `evaluate` scores: baseline, restored and target, side by side.

    The baseline is that of `Score.degraded_psnr_db`; black if there is none. width_px: of each of the three.
    """
    collection = collect(restorer.recipe, data, target)
    comparison = _plan_comparison(restorer.recipe, collection, None, None)
    (seed,) = _plan_seeds(restorer.recipe, collection, 1)
    prepared = prepare_input(restorer.recipe, comparison, collection.samples[0], seed)
    restored = comparison.convert(to_picture(restorer.restore(prepared.degraded)).to_tensor())
    baseline = prepared.make_baseline()
    shown = (torch.zeros_like(prepared.target) if baseline is None else baseline, restored, prepared.target)
    planes = [_crop_middle(part, width_px).clamp(0, 1) for part in shown]
    return Picture.from_tensor(torch.cat(planes, dim=-1)).as_depth("uint8")


def _crop_middle(planes: Tensor, width_px: int) -> Tensor:
    top, left = (max(0, (size - width_px) // 2) for size in planes.shape[-2:])
    return planes[..., top : top + width_px, left : left + width_px]


def _plan_saved(collection: EvalSet, folder: Path | None) -> list[Path | None]:
    """Where each restored picture goes. Raises OutputError if it is not a place for one."""
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
        saved.append(result)
    return saved
