"""Writing picture files, encoded strip by strip, so that no large picture is in memory as a whole."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import OutputError
from pellucid.pictures import associated_alpha, formats, metadata, vips
from pellucid.pictures.codecs import jpeg_2000, jpeg_xl, pnm
from pellucid.pictures.containers import bmp
from pellucid.pictures.formats import FileFormat
from pellucid.pictures.picture import Encoding, Picture
from pellucid.pictures.samples import PEAKS
from pellucid.pictures.tiff import channels, directories
from pellucid.pictures.vips import pyvips
from pellucid.pictures.white import scale_back
from pellucid.system import memory
from pellucid.system.signals import defer_sigint

JPEG_QUALITY = 95
"""Quality of pictures that were not a JPEG: high, and with full color resolution, to avoid new block artifacts."""

WEBP_QUALITY = 95
"""Quality of pictures that were a lossy WebP, a format that does not store its quality."""

_MAX_SIDES_PX = {"JPEG": 65_500, "WebP": 16_383}
"""The largest sides that the encoders accept."""

# Memory of libwebp per pixel.
_LOSSLESS_WEBP_BYTES = 32
_LOSSY_WEBP_BYTES = 16

_COMPRESSIONS = ("none", "lzw", "deflate", "packbits")
_MAX_BMP_HEADER_BYTES = 2**26
_HALVED_COLOR = ("4:2:0", "4:1:0")
"""Subsamplings of the original that become 4:2:0, which keeps at least as much; the others become 4:4:4."""


def write(
    picture: Picture, target: FileFormat, temporary: Path, path: Path, quality: int | None
) -> tuple[str, ...]:
    """Write a picture that the format can store into an existing empty file. Returns what is not kept.

    path: the final name of the file, for errors. Raises OutputError and OSError.
    """
    picture = _to_stored(picture, target)
    if target is formats.BMP:
        return _write_bmp(picture, temporary, path)
    if target is formats.PNM:
        with temporary.open("wb") as file:
            pnm.write_pnm(picture, file, path.suffix.lower())
        return metadata.list_missing(picture.metadata, target.name)
    if target in (formats.JPEG_XL, formats.JPEG_2000):
        is_jxl = target is formats.JPEG_XL
        content, missing = (
            jpeg_xl.encode_jxl(picture, path, quality) if is_jxl else (jpeg_2000.encode_jp2(picture, path), ())
        )
        temporary.write_bytes(content)
        return (*missing, *metadata.list_missing(picture.metadata, target.name))
    options = {**target.options, **_options(picture, target, quality)}
    _save(picture, target, temporary, path, options)
    with temporary.open("rb+") as file:
        missing = metadata.write(file, picture, target.name)
    is_lossless = picture.encoding is not None and picture.encoding.format == "JPEG" and picture.encoding.lossless
    return (*missing, *(["lossless compression"] if target is formats.JPEG and is_lossless else []))


def encoding_bytes(target: FileFormat, num_pixels: int, quality: int | None) -> int:
    """The most memory that encoding needs, see `images.encoding_bytes`."""
    if target is formats.WEBP:
        return num_pixels * (_LOSSLESS_WEBP_BYTES if quality is None else _LOSSY_WEBP_BYTES)
    if target in (formats.JPEG_XL, formats.JPEG_2000):
        return num_pixels * (jpeg_xl if target is formats.JPEG_XL else jpeg_2000).ENCODING_BYTES_PER_PIXEL
    # All coefficients of three channels, two bytes each.
    is_buffered = target is formats.JPEG and num_pixels < memory.LARGE_BYTES
    return 2 * num_pixels * 3 if is_buffered else 0


def _to_stored(picture: Picture, target: FileFormat) -> Picture:
    """The picture with the samples to store: in the units of its own file, if it had this format and depth."""
    original = picture.encoding
    if original is None:
        return picture
    if target is formats.TIFF and channels.has_associated_alpha(picture):
        picture = associated_alpha.multiply(picture)
    if (original.format, original.dtype) == (target.name, picture.dtype):
        return scale_back(picture)
    return replace(picture, encoding=replace(original, white=None))


def find_value_scale(picture: Picture, target: FileFormat) -> float:
    """What samples are multiplied by, from those in the picture's own file to those that `write` stores."""
    original = picture.encoding
    if original is None or (original.format, original.dtype) == (target.name, picture.dtype):
        return 1.0
    return PEAKS[picture.dtype] / (original.white or PEAKS[original.dtype])


def _options(picture: Picture, target: FileFormat, quality: int | None) -> dict[str, Any]:
    """Options of the libvips saver, the same as in the picture's own file if it had this format."""
    original = picture.encoding
    if original is None or original.format != target.name:
        original = Encoding(target.name)
    if target is formats.JPEG:
        return {
            "Q": quality or original.quality or JPEG_QUALITY,
            "subsample_mode": "on" if original.subsampling in _HALVED_COLOR else "off",
            # Optimized tables need two passes, with all coefficients in memory.
            "optimize_coding": picture.samples.nbytes < memory.LARGE_BYTES,
        }
    if target is formats.WEBP:
        lossless = quality is None and original.lossless
        return {"lossless": True} if lossless else {"Q": quality or WEBP_QUALITY, "smart_subsample": True}
    return _tiff_options(picture, original) if target is formats.TIFF else {}


def _tiff_options(picture: Picture, original: Encoding) -> dict[str, Any]:
    compression = original.compression if original.compression in _COMPRESSIONS else "deflate"
    return {
        "compression": compression,
        # Few readers support the predictor for floating-point samples.
        "predictor": "none" if picture.dtype == "float32" else "horizontal",
        "bigtiff": sum(plane.nbytes for plane in picture.planes) > directories.CLASSIC_BYTES,
    }


def _save(picture: Picture, target: FileFormat, temporary: Path, path: Path, options: dict[str, Any]) -> None:
    vips.begin(OutputError)
    order = channels.order_channels(picture) if target is formats.TIFF else ()
    failures: list[OSError] = []
    try:
        image = vips.to_vips(picture, order)
        _release_on_progress(image, picture)
        with temporary.open("rb+", buffering=0) as file, defer_sigint():
            pyvips.Operation.call(target.saver, image, vips.make_target(file, failures), keep="none", **options)
    except pyvips.Error as error:
        if failures:  # e.g. a full disk
            raise failures[0] from None
        reason = vips.reason(error) or str(error.message)
        side_px, limit_px = max(picture.height, picture.width), _MAX_SIDES_PX.get(target.name)
        hint = ""
        if limit_px is not None and side_px > limit_px:
            reason = f"one side has {side_px:,} px, and at most {limit_px:,} are possible"
            hint = "{format} can be png or tiff"
        raise OutputError(f"{path} cannot be written as {target.name}: {reason}", hint=hint) from error


def _release_on_progress(image: pyvips.Image, picture: Picture) -> None:
    """Release the memory of encoded rows of a large picture, at every percent."""
    percent = 0

    def on_progress(_: pyvips.Image, progress: Any) -> None:
        nonlocal percent
        if progress.percent > percent:
            percent = progress.percent
            for plane in picture.planes:
                memory.release(plane)

    if picture.samples.nbytes >= memory.LARGE_BYTES:
        image.set_progress(True)
        image.signal_connect("eval", on_progress)


def _write_bmp(picture: Picture, temporary: Path, path: Path) -> tuple[str, ...]:
    """Rows from the bottom up, each padded to 4 bytes."""
    height, width, channels = picture.samples.shape
    row_bytes = (width * channels + 3) // 4 * 4
    if _MAX_BMP_HEADER_BYTES + row_bytes * height >= 2**32:
        raise OutputError(f"{path} cannot be written as BMP, which is limited to 4 GB", hint="write PNG or TIFF")
    head, tail, missing = bmp.build_headers(width, height, channels, row_bytes, picture.metadata)
    with temporary.open("wb") as file:
        file.write(head)
        upside_down = picture.samples[::-1, :, ::-1]
        for rows in memory.strips(upside_down):
            strip = upside_down[rows].reshape(rows.stop - rows.start, width * channels)
            file.write(np.pad(strip, ((0, 0), (0, row_bytes - width * channels))).tobytes())
        file.write(tail)
    return (*missing, *metadata.list_missing(picture.metadata, formats.BMP.name))
