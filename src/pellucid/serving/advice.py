"""What may be wrong with a picture, from its header and its measured noise."""

from typing import Any

from pellucid.pictures.picture import Picture
from pellucid.restoration.noise import estimate_noise
from pellucid.restoration.suitability import BLOCKS, DARK, NOISE, SMALL

_LOW_QUALITY = 60
_SMALL_PIXELS = 1_000_000
_VISIBLE_SIGMA_255 = 4.0


def advise(picture: Picture) -> dict[str, Any]:
    """What may be wrong with a picture, the most disturbing first, each with the reason.

    Returns {"is_gray", "problems": [{"problem", "reason"}]}. Motion blur is not recognized.
    """
    problems = []
    quality = None if picture.encoding is None else picture.encoding.quality
    if quality is not None and quality < _LOW_QUALITY:
        problems.append((BLOCKS, f"a JPEG of quality {quality}"))
    sigma_255 = estimate_noise(picture)
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
