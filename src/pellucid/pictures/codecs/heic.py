"""Samples of HEIC, by libheif in the package pillow-heif: 8, 10 and 12 bits, transparency; read only."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.pictures import associated_alpha
from pellucid.pictures.codecs.decoders import check_size, damage_error, import_decoder
from pellucid.pictures.containers import heif
from pellucid.pictures.picture import Encoding, Picture
from pellucid.pictures.samples import Samples

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
    bits = int(image.info["bit_depth"])
    try:
        samples: Samples = np.asarray(image)
    except (OSError, RuntimeError, ValueError, EOFError, SyntaxError) as error:
        raise damage_error(path, error) from error
    samples = samples[..., None] if samples.ndim == 2 else samples
    if bits > 8:
        samples = samples.astype(np.uint16) << (16 - bits) | samples >> (2 * bits - 16)
    num_colors = 3 if samples.shape[2] > 2 else 1
    alpha = np.ascontiguousarray(samples[..., num_colors:]) if samples.shape[2] > num_colors else None
    colors = np.require(samples[..., :num_colors], requirements=["C", "W"])
    with path.open("rb") as file:
        coding = heif.read_coding(file)
    heif.complete_colors(colors, coding, bits)
    picture = Picture(colors, alpha, encoding=replace(encoding, bits=bits, lossless=False))
    return associated_alpha.divide(picture) if alpha is not None and image.premultiplied_alpha else picture


def _open(path: Path) -> Any:
    package = import_decoder("pillow_heif", path)
    try:
        file = package.open_heif(path, convert_hdr_to_8bit=False, hdr_to_16bit=False)
        return file[file.primary_index]
    except (OSError, RuntimeError, ValueError, EOFError, SyntaxError, IndexError) as error:
        raise damage_error(path, error) from error
