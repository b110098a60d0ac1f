"""HEIC, by libheif in the package pillow-heif: 8, 10 and 12 bits, transparency, ICC profiles; read only."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import PictureError
from pellucid.pictures import exif
from pellucid.pictures.containers import heif
from pellucid.pictures.limits import check_size
from pellucid.pictures.picture import Encoding, Picture, Samples
from pellucid.system.optional_packages import import_optional

BYTES_PER_PIXEL = 24
"""Memory to decode a pixel, next to its samples, measured with 10 bits."""


def probe_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header."""
    width, height = _open(path).size
    return int(width), int(height)


def read(path: Path, encoding: Encoding, max_pixels: int) -> Picture:
    """Read the primary picture of a file. libheif rotates and mirrors as the file says. Raises PictureError."""
    image = _open(path)
    width, height = image.size
    check_size(width, height, path, max_pixels)
    info = image.info
    bits = int(info["bit_depth"])
    try:
        samples: Samples = np.asarray(image)
    except (OSError, RuntimeError, ValueError, EOFError, SyntaxError) as error:
        raise _damaged(path, error) from error
    samples = samples[..., None] if samples.ndim == 2 else samples
    if bits > 8:
        samples = samples.astype(np.uint16) << (16 - bits) | samples >> (2 * bits - 16)
    num_colors = 3 if samples.shape[2] > 2 else 1
    alpha = np.ascontiguousarray(samples[..., num_colors:]) if samples.shape[2] > num_colors else None
    colors = np.ascontiguousarray(samples[..., :num_colors])
    if alpha is not None and image.premultiplied_alpha:
        colors = _divide(colors, alpha)
    with path.open("rb") as file:
        dropped = heif.list_dropped(file)
    notes = (*encoding.notes, *([f"not kept: {', '.join(dropped)}"] if dropped else []))
    encoding = replace(encoding, bits=bits, lossless=False, notes=notes)
    return Picture(colors, alpha, _build_metadata(info, path), encoding)


def _open(path: Path) -> Any:
    try:
        package = import_optional("pillow_heif")
    except Exception as error:
        raise PictureError(
            f"{path} is a HEIC file, which needs an optional package", hint="pip install 'pellucid[formats]'"
        ) from error
    try:
        file = package.open_heif(path, convert_hdr_to_8bit=False, hdr_to_16bit=False)
        return file[file.primary_index]
    except (OSError, RuntimeError, ValueError, EOFError, SyntaxError, IndexError) as error:
        raise _damaged(path, error) from error


def _divide(colors: Samples, alpha: Samples) -> Samples:
    """The colors without the factor of alpha; 0 where it is 0."""
    peak = float(np.iinfo(colors.dtype).max)
    divided = colors * (peak / np.maximum(alpha, 1).astype(np.float32))
    return np.minimum(divided + 0.5, peak).astype(colors.dtype)


def _build_metadata(info: dict[str, Any], path: Path) -> dict[str, Any]:
    block = info.get("exif") or b""
    kept = {
        "exif-data": exif.HEADER + block.removeprefix(exif.HEADER) if block else b"",
        "xmp-data": info.get("xmp") or b"",
        "icc-profile-data": info.get("icc_profile") or b"",
    }
    if not kept["icc-profile-data"]:
        with path.open("rb") as file:
            kept["png-chunks"] = heif.read_colors(file)
    return {name: value for name, value in kept.items() if value}


def _damaged(path: Path, error: Exception) -> PictureError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
    return PictureError(
        f"{path} is damaged, truncated or of an unsupported type ({reason})", hint="save it again as PNG"
    )
