"""What may be wrong with a picture, from its header and its measured noise, and what each model corrects."""

from pathlib import Path
from typing import Any

import numpy as np

from pellucid.degradations.degradation import involves
from pellucid.degradations.motion_blur import MotionBlur
from pellucid.degradations.raw_synthesis import SyntheticRaw
from pellucid.degradations.standard import GaussianNoise, Jpeg, Shrink
from pellucid.pictures import headers, images
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
_MAX_MEASURED_PIXELS = 60_000_000


def list_problems(recipe: Recipe) -> list[str]:
    """What the models of a recipe correct: those of the problems above that its degradation causes."""
    if recipe.domain.takes_mosaic:
        return [DARK]
    found = [problem for problem, kind in _CORRECTS.items() if involves(recipe.degradation, kind)]
    return [BLUR] if BLUR in found else found  # a deblurrer learns from noise and JPEG so that it survives them


def advise(path: Path, *, is_raw: bool) -> dict[str, Any]:
    """What may be wrong with a picture, the most disturbing first, each with the reason.

    Returns {"is_gray", "problems": [{"problem", "reason"}]}. Motion blur is not recognized.
    """
    if is_raw:
        reason = "a camera RAW file; models for dark RAW files brighten its mosaic"
        return {"is_gray": False, "problems": [{"problem": DARK, "reason": reason}]}
    encoding = headers.read_encoding(path, loader) if (loader := headers.find_loader(path)) != "tiff" else None
    num_pixels, _ = images.decoding_cost(path)
    problems = []
    if encoding is not None and encoding.quality is not None and encoding.quality < _LOW_QUALITY:
        problems.append((BLOCKS, f"a JPEG of quality {encoding.quality}"))
    is_gray = False
    if num_pixels <= _MAX_MEASURED_PIXELS:
        pages = images.list_pages(path)
        picture = images.read(path, page=None if pages is None else 1)
        is_gray = picture.channels == 1
        sigma_255 = estimate_noise(picture)
        if sigma_255 >= _VISIBLE_SIGMA_255 and not problems:  # blocks look like noise to the measurement
            problems.append((NOISE, f"noise with a standard deviation of about {sigma_255:.0f} of 255"))
    if num_pixels < _SMALL_PIXELS:
        problems.append((SMALL, f"only {num_pixels / 1e6:.2f} megapixels"))
    return {
        "is_gray": is_gray,
        "problems": [{"problem": problem, "reason": reason} for problem, reason in problems],
    }


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
