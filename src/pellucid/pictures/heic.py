"""HEIC, by libheif in the package pillow-heif: 8, 10 and 12 bits, transparency, ICC profiles; read only."""

import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import PictureError
from pellucid.pictures import box_metadata
from pellucid.pictures.limits import check_size
from pellucid.pictures.picture import Encoding, Picture, Samples
from pellucid.system.optional_packages import import_optional

BYTES_PER_PIXEL = 24
"""Memory to decode a pixel, next to its samples, measured with 10 bits."""

_SRGB_PRIMARIES, _SRGB_TRANSFERS = (1, 2), (1, 2, 6, 13)
"""Numbers of ITU-T H.273 that mean sRGB, or that nothing is known."""


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
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise _damaged(path, error) from error
    samples = samples[..., None] if samples.ndim == 2 else samples
    if bits > 8:
        samples = samples.astype(np.uint16) << (16 - bits) | samples >> (2 * bits - 16)
    num_colors = 3 if samples.shape[2] > 2 else 1
    alpha = np.ascontiguousarray(samples[..., num_colors:]) if samples.shape[2] > num_colors else None
    colors = np.ascontiguousarray(samples[..., :num_colors])
    if alpha is not None and image.premultiplied_alpha:
        colors = _divide(colors, alpha)
    return Picture(colors, alpha, _build_metadata(info), replace(encoding, bits=bits, lossless=False))


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


def _build_metadata(info: dict[str, Any]) -> dict[str, Any]:
    metadata = {
        "exif-data": box_metadata.as_upright(info.get("exif") or b""),
        "xmp-data": info.get("xmp") or b"",
        "icc-profile-data": info.get("icc_profile") or b"",
    }
    if not metadata["icc-profile-data"]:
        metadata["png-chunks"] = _build_color_chunk(info.get("nclx_profile") or {})
    return {name: value for name, value in metadata.items() if value}


def _build_color_chunk(colors: dict[str, Any]) -> bytes:
    """The color space of a file without a profile, as a chunk of PNG; nothing if it is sRGB."""
    names = ("color_primaries", "transfer_characteristics")
    primaries, transfer = (int(colors.get(name, 2)) for name in names)
    if primaries in _SRGB_PRIMARIES and transfer in _SRGB_TRANSFERS:
        return b""
    content = b"cICP" + bytes([primaries, transfer, 0, 1])
    return struct.pack(">I", 4) + content + struct.pack(">I", zlib.crc32(content))


def _damaged(path: Path, error: Exception) -> PictureError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
    return PictureError(
        f"{path} is damaged, truncated or of an unsupported type ({reason})", hint="save it again as PNG"
    )
