"""Writing picture files, encoded strip by strip, so that no large picture is in memory as a whole."""

import errno
import os
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyvips

from pellucid.errors import OutputError
from pellucid.pictures import associated_alpha, exif, formats, iptc, png, tiff, tiff_channels, vips
from pellucid.pictures.formats import FileFormat
from pellucid.pictures.picture import Encoding, Picture
from pellucid.pictures.white import scale_back
from pellucid.system import memory

JPEG_QUALITY = 95
"""Quality of pictures that were not a JPEG: high, and with full color resolution, to avoid new block artifacts."""

WEBP_QUALITY = 95
"""Quality of pictures that were a lossy WebP, a format that does not store its quality."""

_UNKNOWN_DOTS_PER_MM = vips.UNKNOWN_DOTS_PER_MM[1]
"""The resolution that programs assume for files without one."""

# Memory of libwebp per pixel.
_LOSSLESS_WEBP_BYTES = 32
_LOSSY_WEBP_BYTES = 16

_COMPRESSIONS = ("none", "lzw", "deflate", "packbits")
_TYPES = {bytes: "blob_type", str: "gstr_type", int: "gint_type", float: "gdouble_type"}
_WRITTEN_FIELDS = ("icc-profile-data", "exif-data", "xmp-data", "image-description")
_HALVED_COLOR = ("4:2:0", "4:1:1", "4:1:0")


def write(picture: Picture, target: FileFormat, temporary: Path, path: Path, quality: int | None) -> None:
    """Write a picture that the format can store into an existing empty file.

    path: the final name of the file, for errors. Raises OutputError and OSError.
    """
    if target is formats.BMP:
        _write_bmp(picture, temporary, path)
        return
    options = {**target.options, **_options(picture, target, quality)}
    picture = _to_stored(picture, target)
    _save(picture, target, temporary, path, options)
    with temporary.open("rb+") as file:
        _add_other_metadata(file, picture, target)


def encoding_bytes(target: FileFormat, num_pixels: int, quality: int | None) -> int:
    """The most memory that encoding needs, see `images.encoding_bytes`."""
    if target is formats.WEBP:
        return num_pixels * (_LOSSLESS_WEBP_BYTES if quality is None else _LOSSY_WEBP_BYTES)
    # All coefficients of three channels, two bytes each.
    is_buffered = target is formats.JPEG and num_pixels < memory.LARGE_BYTES
    return 2 * num_pixels * 3 if is_buffered else 0


def _to_stored(picture: Picture, target: FileFormat) -> Picture:
    """The picture with the samples to store: in the units of its own file, if it had this format and depth."""
    original = picture.encoding
    if original is None:
        return picture
    if target is formats.TIFF and tiff_channels.has_associated_alpha(picture):
        picture = associated_alpha.multiply(picture)
    if target in (formats.TIFF, formats.PNG) and (original.format, original.dtype) == (target.name, picture.dtype):
        return scale_back(picture)
    return replace(picture, encoding=replace(original, white=None))


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
        # Classic TIFF is limited to 4 GB; compressed samples can be larger than uncompressed ones.
        "bigtiff": sum(plane.nbytes for plane in picture.planes) > 2_500_000_000,
    }


def _save(picture: Picture, target: FileFormat, temporary: Path, path: Path, options: dict[str, Any]) -> None:
    vips.begin(OutputError)
    try:
        order = tiff_channels.order_channels(picture) if target is formats.TIFF else ()
        image = _add_metadata(vips.to_vips(picture, order), picture.metadata, target)
        kept = ["icc", "xmp", "iptc", "other", *(["exif"] if _needs_exif(picture.metadata, target) else [])]
        _release_on_progress(image, picture)
        file = pyvips.Target.new_to_file(os.fsencode(temporary))
        pyvips.Operation.call(target.saver, image, file, keep=":".join(kept), **options)
    except pyvips.Error as error:
        reason = "no space left on the disk" if _is_disk_full(temporary) else vips.reason(error)
        raise OutputError(f"{path} cannot be written as {target.name}: {reason}") from error


def _is_disk_full(temporary: Path) -> bool:
    """Whether no more can be appended to the file; libvips does not report a full disk."""
    try:
        with temporary.open("ab") as file:
            file.write(bytes(2**16))
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def _needs_exif(metadata: Mapping[str, Any], target: FileFormat) -> bool:
    """Whether to write EXIF; libvips would add it to files that had none."""
    return "exif-data" in metadata or ("xres" in metadata and target in (formats.JPEG, formats.WEBP))


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


def _add_metadata(image: pyvips.Image, metadata: Mapping[str, Any], target: FileFormat) -> pyvips.Image:
    """The image with all metadata that the format can store."""
    dots = [metadata.get(name, _UNKNOWN_DOTS_PER_MM) for name in ("xres", "yres")]
    image = image.copy(xres=dots[0], yres=dots[1])
    for name, value in _fields(metadata, target).items():
        if type(value) in _TYPES:
            image.set_type(getattr(pyvips.GValue, _TYPES[type(value)]), name, value)
    # Setting exif-data makes libvips parse all of it, including fields that must not be written: the orientation,
    # which would rotate the picture again, and the thumbnail of the original.
    for name in ("orientation", "exif-ifd0-Orientation", "jpeg-thumbnail-data"):
        image.remove(name)
    return image


def _fields(metadata: Mapping[str, Any], target: FileFormat) -> dict[str, Any]:
    """The metadata that libvips writes, by its field names; `_add_other_metadata` writes the rest."""
    fields = {name: metadata[name] for name in _WRITTEN_FIELDS if name in metadata}
    records, others = metadata.get("iptc-data", b""), metadata.get("photoshop-data", b"")
    if target is formats.JPEG and (records or others):
        fields["iptc-data"] = iptc.build_segment(records, others)
    if target is formats.PNG:
        fields.pop("xmp-data", None)
    return fields


def _add_other_metadata(file: IO[bytes], picture: Picture, target: FileFormat) -> None:
    """Add what libvips does not write, or not correctly: EXIF and IPTC of TIFF, texts and XMP of PNG."""
    metadata = picture.metadata
    records, others = metadata.get("iptc-data", b""), metadata.get("photoshop-data", b"")
    if target is formats.PNG:
        chunks = png.build_significant_bits(picture) + metadata.get("png-chunks", b"")
        png.add_chunks(file, chunks, metadata.get("xmp-data", b""), records)
    if target is formats.TIFF:
        tags = exif.parse_block(metadata.get("exif-data", b"")).with_captions(records, others)
        if tags:
            exif.add_to_tiff(file, tags, picture.width, picture.height)
        tiff.set_tags(file, tiff_channels.describe(picture))


def _write_bmp(picture: Picture, temporary: Path, path: Path) -> None:
    """24 bits for RGB, 8 bits with a palette for gray; rows from the bottom up, each padded to 4 bytes."""
    height, width, channels = picture.samples.shape
    palette = b"".join(bytes([gray, gray, gray, 0]) for gray in range(256)) if channels == 1 else b""
    row_bytes, start = (width * channels + 3) // 4 * 4, 54 + len(palette)
    if start + row_bytes * height >= 2**32:
        raise OutputError(f"{path} cannot be written as BMP, which is limited to 4 GB", hint="write PNG or TIFF")
    dots = [_dots_per_m(picture.metadata.get(name, _UNKNOWN_DOTS_PER_MM)) for name in ("xres", "yres")]
    header = struct.pack("<2sIII", b"BM", start + row_bytes * height, 0, start)
    header += struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 8 * channels, 0, row_bytes * height, *dots, len(palette) // 4, 0
    )
    with temporary.open("wb") as file:
        file.write(header + palette)
        upside_down = picture.samples[::-1, :, ::-1]
        for rows in memory.strips(upside_down):
            strip = upside_down[rows].reshape(rows.stop - rows.start, width * channels)
            file.write(np.pad(strip, ((0, 0), (0, row_bytes - width * channels))).tobytes())


def _dots_per_m(dots_per_mm: float) -> int:
    """0, for unknown, if it does not fit into BMP's field."""
    dots = 1000 * dots_per_mm
    return round(dots) if 0 < dots < 2**31 - 1 else 0
