"""What may be wrong with a picture, and which model corrects it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from pellucid.domains import RGB, Degraded, PackedRaw, StableRaw
from pellucid.errors import PictureError
from pellucid.pictures import images
from pellucid.pictures.camera import raw
from pellucid.pictures.camera.exposure import estimate_exposure_ratio
from pellucid.pictures.camera.packing import find_phase
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.pictures.records import exif
from pellucid.restoration import measures
from pellucid.restoration.settings import Settings
from pellucid.restoration.stages import read_first_page
from pellucid.restoration.suitability import (
    BLOCKS,
    BLUR,
    CAMERA_NOISE,
    DARK,
    NOISE,
    RAW_NOISE,
    SMALL,
    list_problems,
    list_shipped,
)
from pellucid.weights import checkpoint

MIN_DARK_RATIO = 4.0
"""Two stops: less can be corrected by developing the file brighter."""

MAX_BLOCKY_QUALITY = 60
MIN_BLOCKS_255, MIN_BLOCKS_OF_GOOD_JPEG_255 = 3.0, 4.5
"""As JPEG of quality 40, nine of ten pictures of CBSD68 have more than 3; at quality 80, less than 2.4."""

MIN_NOISE_255 = 3.0
"""In the flattest parts. Photographs without noise have up to 1.5."""

NOISY_ISO = 800
"""From here on, most cameras leave noise in their JPEG files that is coarser than what is measured."""

MAX_CAMERA_CHROMA = 0.4
"""Camera noise has little fine noise in its colors, for its share of that in green; white noise has 0.85."""

MIN_RAW_NOISE = 0.05
"""Noise at a tenth of white, as a share of it: about that of ISO 800 on a full-frame sensor."""

SMALL_PIXELS = 600_000
SOFT_PX = 3.5
"""Width of the sharpest edges. Sharp photographs have about 2, those of a moved camera 3 to 5."""

MIN_COARSE_NOISE_255, MIN_COARSE_RATIO = 0.4, 1.3
"""At half the size, and relative to fine noise. Of the pictures with soft edges, 30 of 37 noisy ones of PolyU have
more, 1 of 60 clean ones, and none of the moved ones of GoPro."""

_LOOK_ALIKE = {
    NOISE: (CAMERA_NOISE,),
    CAMERA_NOISE: (NOISE, BLOCKS),
    BLOCKS: (CAMERA_NOISE,),
    RAW_NOISE: (CAMERA_NOISE,),  # of the developed picture
}


@dataclass(frozen=True)
class Finding:
    """A problem, one of those of `suitability`, and why the picture seems to have it."""

    problem: str
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A model to choose from. corrects: problems. colors: what its domain sees, "gray", "y" or "rgb"."""

    name: str
    corrects: tuple[str, ...]
    colors: str


@dataclass(frozen=True)
class Suggestion:
    """A problem of a picture, why it seems to have it, and the model that corrects it; None if there is none.

    others: models for problems that look alike, which are worth trying.
    """

    problem: str
    reason: str
    model: str | None
    others: tuple[str, ...] = ()


def advise(path: Path, settings: Settings = Settings()) -> tuple[Suggestion, ...]:  # frozen
    """Models that suit a picture file, the most needed first; empty if nothing seems to be wrong with it.

    settings: how it is read; of a TIFF, the chosen page or the first. Takes the time of decoding the file.
    Raises PictureError as reading does.
    """
    degraded = read_for_advice(path, settings)
    return tuple(_add_models(found, is_gray=is_gray(degraded)) for found in find_problems(degraded))


def _add_models(found: Finding, *, is_gray: bool) -> Suggestion:
    problems = (found.problem, *_LOOK_ALIKE.get(found.problem, ()))
    first, *others = (choose_model(problem, list_shipped_candidates(), is_gray=is_gray) for problem in problems)
    return Suggestion(found.problem, found.reason, first, tuple(name for name in others if name and name != first))


def read_for_advice(path: Path, settings: Settings) -> Degraded:
    """The picture of a file, or its mosaic if it has one that can be read."""
    try:
        return read_first_page(path, PackedRaw(), settings)
    except PictureError:
        if not images.is_raw(path):
            raise
    return read_first_page(path, RGB(), settings)  # without a mosaic, e.g. a linear DNG


def find_problems(degraded: Degraded) -> list[Finding]:
    """What may be wrong with a picture, the most disturbing first."""
    if isinstance(degraded, Mosaic):
        ratio = estimate_exposure_ratio(degraded)
        if ratio >= MIN_DARK_RATIO:
            return [Finding(DARK, f"a camera RAW file that is about {ratio:.0f} times too dark")]
        if found := _find_raw_noise(degraded):
            return found
        degraded = raw.develop_mosaic(degraded)
    middle = measures.take_middle(degraded)
    green = measures.to_plane_255(middle, middle.channels // 2)
    # Blocks look like noise and noise hides blocks; soft edges do not count where either one is.
    found = _find_blocks(degraded, green) or _find_noise(middle, green) or _find_soft_edges(green)
    num_pixels = degraded.height * degraded.width
    if num_pixels < SMALL_PIXELS:
        found.append(Finding(SMALL, f"only {degraded.width} x {degraded.height} px"))
    return found


def _find_raw_noise(mosaic: Mosaic) -> list[Finding]:
    domain = StableRaw()
    if find_phase(mosaic.pattern, domain.pattern) is None:
        return []  # no model denoises mosaics of other patterns
    level, _ = domain.find_noise_level(mosaic)
    share = math.sqrt(level.shot * 0.1 + level.read) / 0.1
    if share < MIN_RAW_NOISE:
        return []
    iso = "" if mosaic.exposure.iso is None else f" at ISO {mosaic.exposure.iso:g}"
    return [Finding(RAW_NOISE, f"a camera RAW file{iso} with noise of about {share:.0%} of its dark tones")]


def _find_blocks(picture: Picture, green: measures.Plane) -> list[Finding]:
    quality = None if picture.encoding is None else picture.encoding.quality
    if quality is not None and quality < MAX_BLOCKY_QUALITY:
        return [Finding(BLOCKS, f"a JPEG of quality {quality}")]
    if measures.measure_blocks(green) < (MIN_BLOCKS_255 if quality is None else MIN_BLOCKS_OF_GOOD_JPEG_255):
        return []
    return [Finding(BLOCKS, "visible edges of blocks of 8 x 8 px, as after strong JPEG compression")]


def _find_noise(middle: Picture, green: measures.Plane) -> list[Finding]:
    fine = measures.measure_flat_noise(green)
    if fine < MIN_NOISE_255:
        iso = exif.find_iso(middle.metadata.get("exif-data", b""))
        return [Finding(CAMERA_NOISE, f"taken at ISO {iso}")] if iso >= NOISY_ISO else []
    about = f"noise of about {measures.estimate_noise(middle):.0f} (white is 255)"
    if middle.channels == 1:
        return [Finding(NOISE, about)]
    difference = (measures.to_plane_255(middle, 0) - green) / np.float32(2) + np.float32(128)
    is_camera = measures.measure_flat_noise(difference) < MAX_CAMERA_CHROMA * fine
    return [Finding(CAMERA_NOISE if is_camera else NOISE, about)]


def _find_soft_edges(green: measures.Plane) -> list[Finding]:
    width_px = measures.measure_edges(green)
    if width_px < SOFT_PX:
        return []
    coarse = measures.measure_coarse_noise(green)
    if coarse > max(MIN_COARSE_NOISE_255, MIN_COARSE_RATIO * measures.measure_flat_noise(green)):
        return [Finding(CAMERA_NOISE, "soft edges and coarse noise, as after the denoising of a camera")]
    return [Finding(BLUR, f"its sharpest edges are {width_px:.1f} px wide: moved, out of focus or enlarged")]


def is_gray(degraded: Degraded) -> bool:
    return isinstance(degraded, Picture) and degraded.channels == 1


def choose_model(problem: str, candidates: Iterable[Candidate], *, is_gray: bool) -> str | None:
    """The model for a problem: first by the colors that it sees, then the one that corrects the fewest others.

    Models for several levels of noise are preferred to those for one. None if no candidate corrects the problem.
    """
    candidates = tuple(candidates)
    preferred = ["gray", "y", "rgb"] if is_gray else ["rgb", "y"]
    if problem in (NOISE, CAMERA_NOISE) and not is_gray:
        preferred.remove("y")  # the noise of the colors would stay
    suitable = [one for one in candidates if problem in one.corrects and one.colors in preferred]
    if not suitable and problem == CAMERA_NOISE:
        return choose_model(NOISE, candidates, is_gray=is_gray)

    def rank(one: Candidate) -> tuple[int, int, bool, str]:
        return preferred.index(one.colors), len(one.corrects), "blind" not in one.name, one.name

    return min(suitable, key=rank).name if suitable else None


def choose_sure(advice: Sequence[Suggestion], *, writes_mosaics: bool = False) -> Suggestion | None:
    """The first suggestion that is worth following without a look at the picture; None if there is none.

    Soft edges may be wanted, and enlarging is a decision of the user.
    writes_mosaics: whether the result is stored as a mosaic, which only models for noise in RAW files return.
    Otherwise, a RAW file with noise is developed, and a model for pictures restores it.
    """
    if writes_mosaics:
        return next((one for one in advice if one.model and one.problem == RAW_NOISE), None)
    first = next((one for one in advice if one.model and one.problem not in (BLUR, SMALL)), None)
    if first is None or first.problem != RAW_NOISE:
        return first
    return replace(first, model=first.others[0], others=first.others[1:]) if first.others else None


def list_models_to_try(advice: Sequence[Suggestion]) -> list[str]:
    """The advised models, then those for problems that look alike, then those that enlarge; at most three."""
    first = [one.model for one in advice if one.problem != SMALL]
    similar = [name for one in advice for name in one.others]
    last = [one.model for one in advice if one.problem == SMALL]
    return [name for name in dict.fromkeys([*first, *similar, *last]) if name is not None][:3]


@cache
def list_shipped_candidates() -> tuple[Candidate, ...]:
    """The models that ship."""
    recipes = ((model.name, checkpoint.find_recipe(metadata, source="")) for model, metadata in list_shipped())
    return tuple(Candidate(name, tuple(list_problems(recipe)), recipe.domain.colors) for name, recipe in recipes)
