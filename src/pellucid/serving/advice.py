"""What may be wrong with a picture, from its header and its measured noise, and what each model corrects."""

from typing import Any

import numpy as np

from pellucid.degradations.degradation import involves
from pellucid.degradations.motion_blur import MotionBlur
from pellucid.degradations.raw_synthesis import SyntheticRaw
from pellucid.degradations.standard import GaussianNoise, Jpeg, Shrink
from pellucid.pictures.picture import PEAKS, Picture
from pellucid.recipes.recipe import Recipe

NOISE, BLOCKS, BLUR, SMALL, DARK = "noise", "JPEG blocks", "motion blur", "too small", "too dark"

_CORRECTS: dict[str, type] = {
    NOISE: GaussianNoise,
    BLOCKS: Jpeg,
    BLUR: MotionBlur,
    SMALL: Shrink,
    DARK: SyntheticRaw,
}
_LOW_QUALITY = 60
_SMALL_PIXELS = 1_000_000
_VISIBLE_SIGMA_255 = 4.0
_MEASURED_PX = 1024


def list_problems(recipe: Recipe) -> list[str]:
    """What the models of a recipe correct: those of the problems above that its degradation causes."""
    if recipe.domain.takes_mosaic:
        return [DARK]
    found = [problem for problem, kind in _CORRECTS.items() if involves(recipe.degradation, kind)]
    return [BLUR] if BLUR in found else found  # a deblurrer learns from noise and JPEG so that it survives them


def advise(picture: Picture) -> dict[str, Any]:
    """What may be wrong with a picture, the most disturbing first, each with the reason.

    Returns {"is_gray", "problems": [{"problem", "reason"}]}. Motion blur is not recognized.
    """
    problems = []
    quality = None if picture.encoding is None else picture.encoding.quality
    if quality is not None and quality < _LOW_QUALITY:
        problems.append((BLOCKS, f"a JPEG of quality {quality}"))
    sigma_255 = estimate_noise(_take_middle(picture))
    if sigma_255 >= _VISIBLE_SIGMA_255 and not problems:  # blocks look like noise to the measurement
        problems.append((NOISE, f"noise with a standard deviation of about {sigma_255:.0f} of 255"))
    num_pixels = picture.height * picture.width
    if num_pixels < _SMALL_PIXELS:
        problems.append((SMALL, f"only {num_pixels / 1e6:.2f} megapixels"))
    return {"is_gray": picture.channels == 1, "problems": [_describe(*problem) for problem in problems]}


def advise_raw() -> dict[str, Any]:
    """The same for a camera RAW file."""
    reason = "a camera RAW file; models for dark RAW files brighten its mosaic"
    return {"is_gray": False, "problems": [_describe(DARK, reason)]}


def _describe(problem: str, reason: str) -> dict[str, str]:
    return {"problem": problem, "reason": reason}


def _take_middle(picture: Picture) -> Picture:
    top, left = (max(0, (side - _MEASURED_PX) // 2) for side in (picture.height, picture.width))
    return picture.crop(slice(top, top + _MEASURED_PX), slice(left, left + _MEASURED_PX))


def estimate_noise(picture: Picture) -> float:
    """The standard deviation of white noise in the gray or green samples, on the scale where white is 255.

    The median of absolute Laplacians of 3 x 3 pixels, which edges and most textures hardly change (after
    J. Immerkaer, Fast Noise Variance Estimation, 1996, with the median in place of the mean).
    """
    plane = picture.samples[:, :, picture.channels // 2].astype(np.float32) / PEAKS[picture.dtype] * 255
    if min(plane.shape) < 3:
        return 0.0
    rows = plane[:-2] - 2 * plane[1:-1] + plane[2:]
    laplacians = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]  # of white noise: a deviation of 6 sigma
    return float(np.median(np.abs(laplacians)) / 0.6745 / 6)
