"""HEIC, by libheif in the package pillow-heif: 8, 10 and 12 bits, transparency, ICC profiles; read only."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.pictures import associated_alpha
from pellucid.pictures.codecs.decoders import check_size, damage_error, import_decoder
from pellucid.pictures.containers import heif
from pellucid.pictures.picture import Encoding, Picture, Samples
from pellucid.pictures.records import exif

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
        raise damage_error(path, error) from error
    samples = samples[..., None] if samples.ndim == 2 else samples
    if bits > 8:
        samples = samples.astype(np.uint16) << (16 - bits) | samples >> (2 * bits - 16)
    num_colors = 3 if samples.shape[2] > 2 else 1
    alpha = np.ascontiguousarray(samples[..., num_colors:]) if samples.shape[2] > num_colors else None
    colors = np.ascontiguousarray(samples[..., :num_colors])
    with path.open("rb") as file:
        dropped, coding = heif.list_dropped(file), heif.read_coding(file)
    colors = heif.complete_range(colors, coding, bits)
    notes = (*encoding.notes, *([f"not kept: {', '.join(dropped)}"] if dropped else []))
    encoding = replace(encoding, bits=bits, lossless=False, notes=notes)
    picture = Picture(colors, alpha, _build_metadata(info, path), encoding)
    return associated_alpha.divide(picture) if alpha is not None and image.premultiplied_alpha else picture


def _open(path: Path) -> Any:
    package = import_decoder("pillow_heif", path)
    try:
        file = package.open_heif(path, convert_hdr_to_8bit=False, hdr_to_16bit=False)
        return file[file.primary_index]
    except (OSError, RuntimeError, ValueError, EOFError, SyntaxError, IndexError) as error:
        raise damage_error(path, error) from error


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
