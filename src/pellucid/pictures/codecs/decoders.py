"""What the codecs of all formats share: their packages, limits, and their errors in one line."""

from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import MissingExtraError, PictureError
from pellucid.pictures.samples import Samples
from pellucid.system.optional_packages import import_optional


def import_decoder(name: str, path: Path) -> Any:
    """The optional package, or module of it, that decodes a file. Raises PictureError if it is not installed."""
    try:
        return import_optional(name)
    except MissingExtraError as error:
        raise PictureError(f"{path}: {error.facts}", hint=error.hint) from error


def check_size(width: int, height: int, path: Path, max_pixels: int) -> None:
    """Raise PictureError for a picture of more than max_pixels."""
    if width * height > max_pixels:
        raise PictureError(
            f"{path} has {width} x {height} = {width * height:,} pixels; at most {max_pixels:,} are allowed",
            hint="cut it into parts first, or set {max_pixels}",
            max_pixels=width * height,
        )


def count_not_finite(samples: Samples) -> int:
    """How many samples are NaN or infinite."""
    return int((~np.isfinite(samples)).sum()) if samples.dtype.kind == "f" else 0


def check_finite(num_bad: int, path: Path) -> None:
    """Raise PictureError if there are NaN or infinite samples."""
    if num_bad:
        raise PictureError(f"{path} has {num_bad} NaN or infinite samples", hint="replace them first")


def damage_error(path: Path, reason: object) -> PictureError:
    """The error for a file that its decoder refuses. reason: an error of the decoder, or a text."""
    return PictureError(
        f"{path} is damaged, truncated or of an unsupported type ({summarize(reason)})",
        hint="save it again as PNG, or as 8-bit or 16-bit TIFF",
    )


def summarize(reason: object) -> str:
    """An error of a package, or a text, in one line: its first one, or the name of the error if it has no text."""
    return (str(reason).splitlines() or [type(reason).__name__])[0][:100]
