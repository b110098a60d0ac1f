"""From pictures to files, encoded from where the samples lie, so that no large picture is in memory as a whole."""

import errno
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyvips

from pellucid.errors import OutputError
from pellucid.pictures import exif, formats, iptc, png, vips
from pellucid.pictures.formats import FileFormat
from pellucid.pictures.picture import Encoding, Picture
from pellucid.system import memory

JPEG_QUALITY = 95
"""Of results that did not come from a JPEG: high, and with full-resolution color, for no new block artifacts."""

WEBP_QUALITY = 95
"""Of results that came from a lossy WebP, which does not tell what its own was."""

_UNKNOWN_DOTS_PER_MM = vips.UNKNOWN_DOTS_PER_MM[1]
"""What programs take for a resolution that a file does not tell."""

# What libwebp takes for each pixel.
_LOSSLESS_WEBP_BYTES = 32
_LOSSY_WEBP_BYTES = 16

_COMPRESSIONS = ("none", "lzw", "deflate", "packbits", "zstd")
_TYPES = {bytes: "blob_type", str: "gstr_type", int: "gint_type", float: "gdouble_type"}
_WRITTEN_FIELDS = ("icc-profile-data", "exif-data", "xmp-data", "image-description")
_HALVED_COLOR = ("4:2:0", "4:1:1", "4:1:0")


def write(picture: Picture, target: FileFormat, temporary: Path, path: Path, quality: int | None) -> None:
    """Write a picture that the format holds into a file that is there and empty.

    path: how the file will be called, for errors. Raises OutputError and OSError.
    """
    if target is formats.BMP:
        _write_bmp(picture, temporary, path)
        return
    options = {**target.options, **_options(picture, target, quality)}
    _save(picture, target, temporary, path, options)
    with temporary.open("rb+") as file:
        _add_unwritten(file, picture, target)


def encoding_bytes(target: FileFormat, num_pixels: int, quality: int | None) -> int:
    """How much memory encoding takes beyond the samples and a constant, at most; see `images.encoding_bytes`."""
    if target is formats.WEBP:
        return num_pixels * (_LOSSLESS_WEBP_BYTES if quality is None else _LOSSY_WEBP_BYTES)
    # All coefficients of three colors, of two bytes each.
    in_memory = target is formats.JPEG and num_pixels < memory.LARGE_BYTES
    return 2 * num_pixels * 3 if in_memory else 0


def _options(picture: Picture, target: FileFormat, quality: int | None) -> dict[str, Any]:
    """Options of libvips' saver: as the picture's own file was, where it was of this format."""
    known = picture.encoding
    same = known if known and known.format == target.name else Encoding(target.name)
    if target is formats.JPEG:
        return {
            "Q": quality or same.quality or JPEG_QUALITY,
            "subsample_mode": "on" if same.subsampling in _HALVED_COLOR else "off",
            # Better tables need two passes, and these all coefficients in memory.
            "optimize_coding": picture.samples.nbytes < memory.LARGE_BYTES,
        }
    if target is formats.WEBP:
        lossless = quality is None and same.lossless
        return {"lossless": True} if lossless else {"Q": quality or WEBP_QUALITY, "smart_subsample": True}
    return _tiff_options(picture, same) if target is formats.TIFF else {}


def _tiff_options(picture: Picture, same: Encoding) -> dict[str, Any]:
    compression = same.compression if same.compression in _COMPRESSIONS else "deflate"
    return {
        "compression": compression,
        # Few readers know the predictor for floating-point samples.
        "predictor": "none" if picture.dtype == "float32" else "horizontal",
        # A plain TIFF ends at 4 GB; compression may need a little more room than the samples.
        "bigtiff": sum(plane.nbytes for plane in picture.planes) > 2_500_000_000,
    }


def _save(picture: Picture, target: FileFormat, temporary: Path, path: Path, options: dict[str, Any]) -> None:
    vips.start(OutputError)
    try:
        image = _described(vips.image(picture), picture.metadata, target)
        kept = ["icc", "xmp", "iptc", "other", *(["exif"] if _needs_exif(picture.metadata, target) else [])]
        _forget_on_the_way(image, picture)
        to = pyvips.Target.new_to_file(os.fsencode(temporary))
        pyvips.Operation.call(target.saver, image, to, keep=":".join(kept), **options)
    except pyvips.Error as error:
        reason = "no space left on the disk" if _is_full(temporary) else vips.reason(error)
        raise OutputError(f"{path} cannot be written as {target.name}: {reason}") from error


def _is_full(temporary: Path) -> bool:
    """Told by the disk, since libvips does not tell: not a block more goes into the file."""
    try:
        with temporary.open("ab") as file:
            file.write(bytes(2**16))
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def _needs_exif(metadata: Mapping[str, Any], target: FileFormat) -> bool:
    """Whether there is something to say in it; libvips would make EXIF up for files that had none."""
    return "exif-data" in metadata or ("xres" in metadata and target in (formats.JPEG, formats.WEBP))


def _forget_on_the_way(image: pyvips.Image, picture: Picture) -> None:
    """Give back the memory of what was encoded, at every percent."""
    percent = 0

    def progressed(_: pyvips.Image, progress: Any) -> None:
        nonlocal percent
        if progress.percent > percent:
            percent = progress.percent
            for plane in picture.planes:
                memory.forget(plane)

    if picture.samples.nbytes >= memory.LARGE_BYTES:
        image.set_progress(True)
        image.signal_connect("eval", progressed)


def _described(image: pyvips.Image, metadata: Mapping[str, Any], target: FileFormat) -> pyvips.Image:
    """With all of the metadata that this format can hold."""
    dots = [metadata.get(name, _UNKNOWN_DOTS_PER_MM) for name in ("xres", "yres")]
    image = image.copy(xres=dots[0], yres=dots[1])
    for name, value in _fields(metadata, target).items():
        if type(value) in _TYPES:
            image.set_type(getattr(pyvips.GValue, _TYPES[type(value)]), name, value)
    # Setting exif-data makes libvips take all of it apart, also what shall not be written: the orientation,
    # which would turn the picture once more, and a preview of what it was.
    for name in ("orientation", "exif-ifd0-Orientation", "jpeg-thumbnail-data"):
        image.remove(name)
    return image


def _fields(metadata: Mapping[str, Any], target: FileFormat) -> dict[str, Any]:
    """The metadata for libvips to write, by its names; `_add_unwritten` sees to the rest."""
    fields = {name: metadata[name] for name in _WRITTEN_FIELDS if name in metadata}
    records, others = metadata.get("iptc-data", b""), metadata.get("photoshop-data", b"")
    if target is formats.JPEG and (records or others):
        fields["iptc-data"] = iptc.to_jpeg(records, others)
    if target is formats.PNG:
        fields.pop("xmp-data", None)
    return fields


def _add_unwritten(file: IO[bytes], picture: Picture, target: FileFormat) -> None:
    """Put in what libvips does not write, or not as it should: EXIF and IPTC of TIFF, texts and XMP of PNG."""
    known = picture.metadata
    records, others = known.get("iptc-data", b""), known.get("photoshop-data", b"")
    if target is formats.PNG:
        png.add_chunks(file, known.get("png-chunks", b""), known.get("xmp-data", b""), records)
    if target is formats.TIFF:
        tags = exif.from_block(known.get("exif-data", b"")).with_captions(records, others)
        if tags:
            exif.add_to_tiff(file, tags, picture.width, picture.height)


def _write_bmp(picture: Picture, temporary: Path, path: Path) -> None:
    """24 bits for color, 8 with a palette for gray; rows from the bottom up, each filled up to 4 bytes."""
    height, width, channels = picture.samples.shape
    palette = b"".join(bytes([gray, gray, gray, 0]) for gray in range(256)) if channels == 1 else b""
    row_bytes, start = (width * channels + 3) // 4 * 4, 54 + len(palette)
    if start + row_bytes * height >= 2**32:
        raise OutputError(f"{path} cannot be written as BMP, which ends at 4 GB; write PNG or TIFF")
    dots = [_dots_per_m(picture.metadata.get(name, _UNKNOWN_DOTS_PER_MM)) for name in ("xres", "yres")]
    head = struct.pack("<2sIII", b"BM", start + row_bytes * height, 0, start)
    head += struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 8 * channels, 0, row_bytes * height, *dots, len(palette) // 4, 0
    )
    with temporary.open("wb") as file:
        file.write(head + palette)
        upside_down = picture.samples[::-1, :, ::-1]
        for rows in memory.strips(upside_down):
            strip = upside_down[rows].reshape(rows.stop - rows.start, width * channels)
            file.write(np.pad(strip, ((0, 0), (0, row_bytes - width * channels))).tobytes())


def _dots_per_m(dots_per_mm: float) -> int:
    """As far as BMP can count; 0, which says nothing, for what no picture has."""
    dots = 1000 * dots_per_mm
    return round(dots) if 0 < dots < 2**31 - 1 else 0
