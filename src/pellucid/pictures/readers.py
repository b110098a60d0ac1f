"""From files to pictures: libvips decodes all formats but BMP, strip by strip into `memory.empty`."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyvips
from PIL.BmpImagePlugin import BmpImageFile

from pellucid.errors import PictureError
from pellucid.pictures import exif, iptc, png, vips
from pellucid.pictures.picture import Encoding, Picture, Samples
from pellucid.system import memory

_COLORS = {"b-w": 1, "grey16": 1, "srgb": 3, "rgb": 3, "rgb16": 3, "scrgb": 3}
_DTYPES = {name: dtype for dtype, name in vips.FORMATS.items()}

# All else libvips notes is about the file it came from (depth, loader, compression, pages, preview).
_KEPT_FIELDS = {"icc-profile-data", "exif-data", "xmp-data", "iptc-data", "photoshop-data", "image-description"}
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)\d")

WHOLE_BYTES = {"webp": 9, "heif": 19, "bmp": 4}
"""What decoding takes for each pixel where it is the whole at once, measured by benchmarks/files.py."""


def read(path: Path, kind: str, encoding: Encoding, max_pixels: int) -> Picture:
    """The picture in a file of this kind, upright. Raises PictureError as `images.read` does."""
    if kind == "bmp":
        return _read_bmp(path, encoding, max_pixels)
    return _read_vips(path, kind, encoding, max_pixels)


def size(path: Path, kind: str, encoding: Encoding) -> tuple[int, int]:
    """Pixels, and the memory that decoding them takes; see `images.size`."""
    if kind == "bmp":
        with _open_bmp(path) as file:
            num_pixels = int(file.width * file.height)
        return num_pixels, WHOLE_BYTES[kind] * num_pixels
    image = _open(path, kind)
    return image.width * image.height, _decoding_bytes(image, kind, encoding)


def _decoding_bytes(image: pyvips.Image, kind: str, encoding: Encoding) -> int:
    num_pixels = int(image.width * image.height)
    if kind in WHOLE_BYTES:
        return WHOLE_BYTES[kind] * num_pixels
    if not encoding.progressive:
        return 0
    if kind == "png":
        return num_pixels * int(image.bands) * (2 if image.format == "ushort" else 1)
    chroma = {"4:4:4": 1.0, "4:2:2": 0.5, "4:4:0": 0.5}.get(encoding.subsampling or "", 0.25)
    # All coefficients, of two bytes each.
    return int(2 * num_pixels * (1 + (image.bands - 1) * chroma))


def _open(path: Path, kind: str) -> pyvips.Image:
    """The header; samples are decoded from top to bottom as they are asked for."""
    vips.start(PictureError)
    try:
        # A source takes no options from the file's name, as "scan[page=2]" would be, and fsencode any bytes.
        source = pyvips.Source.new_from_file(os.fsencode(path))
        # The named loader: guessing would let in formats that are no pictures, such as CSV or SVG.
        return pyvips.Operation.call(f"{kind}load_source", source, access="sequential", fail_on="error")
    except pyvips.Error as error:
        raise _damaged(path, vips.reason(error)) from error


def _read_vips(path: Path, kind: str, encoding: Encoding, max_pixels: int) -> Picture:
    if kind == "jpeg" and encoding.bits != 8:
        raise PictureError(
            f"{path} is a JPEG of {encoding.bits} bits, of which 8 are read; save it as PNG or TIFF"
        )
    image = _open(path, kind)
    _check_size(image.width, image.height, path, max_pixels)
    _check_single(image, path)
    metadata = _metadata(image, path, kind)
    try:
        orientation = image.get("orientation") if image.get_typeof("orientation") else 1
        if kind == "heif":
            encoding = replace(encoding, bits=image.get("bits-per-sample"))
        if image.interpretation == "cmyk":
            image, note = _to_srgb(image)
            metadata["icc-profile-data"] = image.get("icc-profile-data")
            encoding = replace(encoding, notes=(*encoding.notes, note))
        samples, alpha = _decoded(image, encoding, path)
    except pyvips.Error as error:
        raise _damaged(path, vips.reason(error)) from error
    return _turned(Picture(samples, alpha, metadata, encoding), orientation)


def _check_size(width: int, height: int, path: Path, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PictureError(
            f"{path} has {width} x {height} = {width * height:,} pixels; at most {max_pixels:,} are taken, "
            f"so cut it into parts first, or allow more with --max-pixels"
        )


def _check_single(image: pyvips.Image, path: Path) -> None:
    num_pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    if num_pages > 1:
        raise PictureError(f"{path} holds {num_pages} pages or frames; one is needed, so split it first")


def _to_srgb(image: pyvips.Image) -> tuple[pyvips.Image, str]:
    """CMYK turned into sRGB, and what to tell people about it."""
    depth = 16 if image.format == "ushort" else 8
    own = bool(image.get_typeof("icc-profile-data"))
    note = "CMYK turned into sRGB by " + ("its own profile" if own else "a general profile, as it has none")
    return image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth), note


def _decoded(image: pyvips.Image, encoding: Encoding, path: Path) -> tuple[Samples, Samples | None]:
    """Samples and alpha, set apart on the way so that no copy of the whole is needed."""
    num_colors, dtype = _num_colors(image, path), _DTYPES[image.format]
    height, width, bands = image.height, image.width, image.bands
    samples = memory.empty((height, width, num_colors), dtype)
    alpha = memory.empty((height, width, 1), dtype) if bands > num_colors else None
    region, num_bad = pyvips.Region.new(image), 0
    for rows in memory.strips(samples, *([] if alpha is None else [alpha])):
        num_rows = rows.stop - rows.start
        strip: Samples = np.frombuffer(region.fetch(0, rows.start, width, num_rows), dtype)
        strip = _filling_16_bits(strip.reshape(num_rows, width, bands), encoding)
        num_bad += int((~np.isfinite(strip)).sum()) if dtype == "float32" else 0
        samples[rows] = strip[..., :num_colors]
        if alpha is not None:
            alpha[rows] = strip[..., num_colors:]
    if num_bad:
        raise PictureError(f"{path} holds {num_bad} NaN or infinite samples; replace them first")
    return samples, alpha


def _num_colors(image: pyvips.Image, path: Path) -> int:
    """1 for gray, 3 for RGB; PictureError for other channels and sample types."""
    if image.format not in _DTYPES:
        raise PictureError(
            f"{path} has samples of libvips type '{image.format}'; "
            f"unsigned 8 or 16-bit or 32-bit floating-point samples are needed"
        )
    colors = _COLORS.get(image.interpretation)
    if colors is None or image.bands - colors not in (0, 1):
        kind = "" if colors else f" of kind '{image.interpretation}'"
        raise PictureError(
            f"{path} has {image.bands} channels{kind}; gray or RGB, with or without alpha, is needed"
        )
    return colors


def _filling_16_bits(strip: Samples, encoding: Encoding) -> Samples:
    """10 and 12-bit samples of AVIF with white at 65535; libvips leaves them in the high bits."""
    few = encoding.format == "AVIF" and 8 < encoding.bits < 16
    return strip | strip >> encoding.bits if few else strip


def _turned(picture: Picture, orientation: int) -> Picture:
    """Upright. Large pictures stay as they lie: they are looked at in parts, and a copy would take a file more."""
    upright = picture.upright(orientation)
    if upright.samples.nbytes >= memory.LARGE_BYTES:
        return upright
    alpha = None if upright.alpha is None else np.ascontiguousarray(upright.alpha)
    return replace(upright, samples=np.ascontiguousarray(upright.samples), alpha=alpha)


def _metadata(image: pyvips.Image, path: Path, kind: str) -> dict[str, Any]:
    """What goes along with the samples, in the same form whatever format it came from."""
    found = {name: image.get(name) for name in _KEPT_FIELDS if image.get_typeof(name)}
    with path.open("rb") as file:
        found |= _unread(file, kind, found)
    if "xmp-data" in found:
        # The pixels are upright; some programs would turn them again.
        found["xmp-data"] = _XMP_ORIENTATION.sub(rb"\g<1>1", found["xmp-data"])
    found |= _resolution(image, found.get("exif-data", b""))
    return {name: value for name, value in found.items() if value}


def _unread(file: IO[bytes], kind: str, found: Mapping[str, Any]) -> dict[str, bytes]:
    """What libvips does not read, or not as it should: EXIF of TIFF, texts and colors of PNG, IPTC captions."""
    if kind == "png":
        chunks, records = png.kept_chunks(file)
        return {"png-chunks": chunks, "iptc-data": records}
    if kind == "jpeg":
        records, others = iptc.from_jpeg(found.get("iptc-data", b""))
        return {"iptc-data": records, "photoshop-data": others}
    if kind == "tiff":
        records, others = iptc.from_jpeg(found.get("photoshop-data", b""))
        tags = exif.from_tiff(file)
        block = exif.to_block(tags) if tags else b""
        return {"exif-data": block, "iptc-data": found.get("iptc-data", records), "photoshop-data": others}
    return {}


def _resolution(image: pyvips.Image, block: bytes) -> dict[str, float]:
    dots = image.xres, image.yres
    if any(np.allclose(dots, unknown, atol=1e-3) for unknown in vips.UNKNOWN_DOTS_PER_MM):
        told = exif.dots_per_mm(block)
        return {"xres": told[0], "yres": told[1]} if told else {}
    return {"xres": dots[0], "yres": dots[1]}


def _damaged(path: Path, reason: object) -> PictureError:
    return PictureError(
        f"{path} is damaged, cut short or of a rare kind ({reason}); save it anew as PNG or 8 or 16-bit TIFF"
    )


def _open_bmp(path: Path) -> BmpImageFile:
    # libvips' binary cannot read BMP. Not PIL.Image.open, which has another limit of pixels.
    try:
        return BmpImageFile(path)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow says SyntaxError where it means no BMP
        raise _damaged(path, error) from error


def _read_bmp(path: Path, encoding: Encoding, max_pixels: int) -> Picture:
    with _open_bmp(path) as file:
        _check_size(file.width, file.height, path, max_pixels)
        dots = file.info.get("dpi")
        metadata = {"xres": dots[0] / vips.MM_PER_INCH, "yres": dots[1] / vips.MM_PER_INCH} if dots else {}
        try:
            file.load()
        except (OSError, SyntaxError, ValueError) as error:
            raise _damaged(path, error) from error
        samples, alpha = _decoded_bmp(file)
    return Picture(samples, alpha, metadata, encoding)


def _decoded_bmp(file: BmpImageFile) -> tuple[Samples, Samples | None]:
    mode = {"1": "L", "P": "RGB"}.get(file.mode, file.mode)
    num_colors = min(len(mode), 3)
    samples = memory.empty((file.height, file.width, num_colors), "uint8")
    alpha = memory.empty((file.height, file.width, 1), "uint8") if len(mode) > num_colors else None
    for rows in memory.strips(samples):
        strip = np.asarray(file.crop((0, rows.start, file.width, rows.stop)).convert(mode))
        strip = strip.reshape(rows.stop - rows.start, file.width, -1)
        samples[rows] = strip[..., :num_colors]
        if alpha is not None:
            alpha[rows] = strip[..., num_colors:]
    return samples, alpha
