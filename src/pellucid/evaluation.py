"""Score a restorer: a folder of clean pictures (or of pairs) -> PSNR and SSIM of each, the means, the protocol.

A score says how it was counted: color space, border, rounding, resize kernel, noise seed, number of pictures.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid import images, metrics
from pellucid.degrade import GaussianNoise, Jpeg
from pellucid.errors import DataError, OutputError, PellucidError, PictureError, about
from pellucid.files import check_free, write_whole
from pellucid.pairing import match
from pellucid.picture import Picture
from pellucid.recipe import Recipe, ScoringProtocol
from pellucid.restorer import Restorer

COLORS = {
    "gray": "gray",
    "y": "luma (Y of BT.601, 16..235, as MATLAB's rgb2ycbcr; gray pictures as they are)",
    "rgb": "RGB, all channels together",
}


@dataclass(frozen=True)
class Score:
    """Of one picture. degraded_psnr_db is that of the network's input, which the network should beat."""

    name: str
    psnr_db: float
    ssim: float | None
    degraded_psnr_db: float


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
        known = [score.ssim for score in self.scores if score.ssim is not None]
        return _mean(known) if known else None

    @property
    def mean_degraded_psnr_db(self) -> float:
        return _mean([score.degraded_psnr_db for score in self.scores])

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
        write_whole(path, content.encode(), overwrite=overwrite)


def evaluate(
    restorer: Restorer,
    data: str | Path,
    *,
    target: str | Path | None = None,
    save: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Score every picture below a folder by the protocol of the restorer's recipe.

    data: clean pictures, degraded here; with `target`, degraded ones, whose clean partners lie there under
        the same names (or in the same order, where the two folders name them otherwise).
    save: a folder for the restored pictures as they are scored (luma recipes: gray), as 8-bit PNG.
    Raises DataError when there is nothing to score, OutputError when a picture to save would replace another;
    pictures that cannot be read are listed in the report.
    """
    data = Path(data)
    if target is None and restorer.recipe.protocol.degradation is None:
        raise DataError(
            f"{restorer.recipe.name} is scored on pairs of degraded and clean pictures; "
            f"give the clean ones with --target"
        )
    pairs, pairing = _paired(data, None if target is None else Path(target))
    saved = {} if save is None else _saved(pairs, data, Path(save), overwrite=overwrite)
    scores, failures = [], []
    for done, (path, partner) in enumerate(pairs, start=1):
        try:
            clean, degraded = _sample(restorer.recipe, path, partner)
            score, restored = _scored(restorer, path.relative_to(data).as_posix(), clean, degraded)
            if path in saved:
                images.write(restored, saved[path], overwrite=overwrite)
            scores.append(score)
        except PictureError as error:
            failures.append((path, about(path, error)))
        if progress is not None:
            progress(done, len(pairs))
    if not scores:
        raise DataError(f"none of the {len(pairs)} pictures in {data} could be scored: {failures[0][1]}")
    protocol = describe(restorer.recipe, num_pictures=len(scores), pairing=pairing)
    changes = tuple(restorer.changes())
    return Report(restorer.name, restorer.recipe, protocol, tuple(scores), tuple(failures), changes)


def describe(recipe: Recipe, *, num_pictures: int, pairing: str | None) -> dict[str, Any]:
    """The protocol in words and numbers: all that moves a score. pairing: how given pairs were matched."""
    protocol = recipe.protocol
    degradation = None if pairing else protocol.degradation
    return {
        "colors": COLORS[recipe.domain.colors],
        "degradation": f"given pairs, matched {pairing}" if pairing else repr(degradation),
        "resize_kernel": "MATLAB bicubic, antialiased, in float" if recipe.domain.rate > 1 else None,
        "jpeg_encoder": "libjpeg, gray" if isinstance(degradation, Jpeg) else None,
        "clean_sizes_cut_to_multiples_of": None if pairing else protocol.crop_multiple,
        "border_px_left_out": protocol.border_px,
        "rounding": "restored rounded to 8 bit" if protocol.rounds else "restored clipped, not rounded",
        "noise_seed": protocol.seed if isinstance(degradation, GaussianNoise) else None,
        "peak": "white (255 of 8 bit)",
        "ssim": "Gaussian window 11 px, deviation 1.5, K 0.01 and 0.03, valid area",
        "mean": "of the pictures' values",
        "num_pictures": num_pictures,
    }


def strip(restorer: Restorer, data: Path, *, target: Path | None = None, width_px: int = 256) -> Picture:
    """The middle of the first picture that `evaluate` scores, side by side: degraded, restored, target."""
    path, partner = _paired(data, target)[0][0]
    domain = restorer.recipe.domain
    clean, degraded = _sample(restorer.recipe, path, partner)
    restored = domain.to_target(restorer.restore(degraded))
    before = domain.encode(domain.to_target(degraded))
    planes = [_middle(part, width_px).clamp(0, 1) for part in (before, restored, clean)]
    return Picture.from_tensor(torch.cat(planes, dim=-1)).as_depth("uint8")


def _middle(planes: Tensor, width_px: int) -> Tensor:
    top, left = (max(0, (size - width_px) // 2) for size in planes.shape[-2:])
    return planes[..., top : top + width_px, left : left + width_px]


def _sample(recipe: Recipe, path: Path, partner: Path | None) -> tuple[Tensor, Picture]:
    """(clean planes, degraded picture in float): from a pair, or degraded by the protocol."""
    protocol, domain = recipe.protocol, recipe.domain
    if partner is not None:
        clean = _rounded(domain.to_target(images.read(partner)))
        _check_size(clean, partner, protocol)
        return clean, images.read(path).as_depth("float32")
    assert protocol.degradation is not None
    # Color conversion rounds to 8 bit, as it does in MATLAB, where the published scores come from.
    clean = _rounded(domain.to_target(images.read(path)))
    height, width = (size // protocol.crop_multiple * protocol.crop_multiple for size in clean.shape[-2:])
    clean = clean[..., :height, :width]
    _check_size(clean, path, protocol)
    degraded = protocol.degradation(clean, torch.Generator().manual_seed(protocol.seed))
    return clean, Picture.from_tensor(degraded)


def _check_size(clean: Tensor, path: Path, protocol: ScoringProtocol) -> None:
    if min(clean.shape[-2:]) <= 2 * protocol.border_px:
        raise PictureError(
            f"{path} is too small to be scored: {clean.shape[-1]} x {clean.shape[-2]} px, cut to multiples of "
            f"{protocol.crop_multiple}, of which {protocol.border_px} px on each side are left out"
        )


def _saved(
    pairs: Sequence[tuple[Path, Path | None]], data: Path, folder: Path, *, overwrite: bool
) -> dict[Path, Path]:
    """Where each restored picture goes; refused before any work when one would replace something."""
    saved = {path: folder / path.relative_to(data).with_suffix(".png") for path, _ in pairs}
    inputs = {os.path.realpath(path) for pair in pairs for path in pair if path is not None}
    taken: dict[str, Path] = {}
    for path, result in saved.items():
        if os.path.realpath(result) in inputs:
            raise OutputError(f"{result} is one of the pictures to score; choose another --save")
        if os.path.realpath(result) in taken:
            raise OutputError(f"{taken[os.path.realpath(result)]} and {path} would both be saved as {result}")
        taken[os.path.realpath(result)] = path
        check_free(result, overwrite=overwrite)
    return saved


def _scored(restorer: Restorer, name: str, clean: Tensor, degraded: Picture) -> tuple[Score, Picture]:
    domain, protocol = restorer.recipe.domain, restorer.recipe.protocol
    restored = restorer.restore(degraded)
    planes = domain.to_target(restored).clamp(0, 1)
    before = domain.encode(domain.to_target(degraded))
    if planes.shape != clean.shape:
        raise PictureError(
            f"{name} is restored to {planes.shape[-1]} x {planes.shape[-2]} px, "
            f"but its clean partner has {clean.shape[-1]} x {clean.shape[-2]}"
        )
    if protocol.rounds:
        planes, before = _rounded(planes), _rounded(before)
    inner = _inner(protocol.border_px)
    score = Score(
        name=name,
        psnr_db=metrics.psnr(planes[inner], clean[inner]),
        ssim=metrics.ssim(planes[inner], clean[inner]),
        degraded_psnr_db=metrics.psnr(before[inner], clean[inner]),
    )
    return score, restored.as_depth("uint8")


def _inner(border_px: int) -> tuple[Any, ...]:
    side = slice(border_px, -border_px) if border_px else slice(None)
    return (..., side, side)


def _rounded(planes: Tensor) -> Tensor:
    return (planes.clamp(0, 1) * 255 + 0.5).floor() / 255


def _pictures(folder: Path) -> list[Path]:
    if not folder.exists():
        raise DataError(f"{folder} does not exist")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; a folder of pictures is needed")
    found = images.find(folder)
    if not found:
        raise DataError(f"{folder} holds no pictures ({', '.join(sorted(images.SUFFIXES))})")
    return found


def _paired(data: Path, target: Path | None) -> tuple[list[tuple[Path, Path | None]], str | None]:
    """Each picture with its clean partner, if any, and how they were matched.

    By relative name; where no name agrees, in sorted order when the counts do.
    """
    degraded = _pictures(data)
    if target is None:
        return [(path, None) for path in degraded], None
    clean = _pictures(target)
    names = [path.relative_to(data) for path in degraded]
    pairing = match(names, [path.relative_to(target) for path in clean])
    if pairing.lonely:
        raise DataError(
            f"{len(pairing.lonely)} of {len(names)} pictures in {data} have no partner of their name in {target}, "
            f"first {names[pairing.lonely[0]].with_suffix('')}"
        )
    partners = [clean[number] for number in pairing.partners if number is not None]
    return list(zip(degraded, partners, strict=True)), pairing.how


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
