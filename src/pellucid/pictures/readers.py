"""Reading picture files: libvips decodes all formats except BMP, strip by strip into `memory.allocate`."""

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
from pellucid.pictures import exif, heic, iptc, jpeg_2000, jpeg_xl, png, vips
from pellucid.pictures.limits import check_size
from pellucid.pictures.picture import Encoding, Picture, Samples
from pellucid.system import memory

_COLORS = {"b-w": 1, "grey16": 1, "srgb": 3, "rgb": 3, "rgb16": 3, "scrgb": 3}
_DTYPES = {name: dtype for dtype, name in vips.FORMATS.items()}

# Other fields of libvips describe the file (depth, loader, compression, pages, thumbnail).
_KEPT_FIELDS = {"icc-profile-data", "exif-data", "xmp-data", "iptc-data", "photoshop-data", "image-description"}
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)\d")

_CODECS: dict[str, Any] = {"heic": heic, "jxl": jpeg_xl, "jp2": jpeg_2000}
"""Modules for formats that libvips does not decode, by loader."""

BYTES_PER_PIXEL = {"webp": 9, "heif": 19, "bmp": 4, "gif": 8}
BYTES_PER_PIXEL |= {loader: module.BYTES_PER_PIXEL for loader, module in _CODECS.items()}
"""Memory per pixel of formats that are decoded as a whole, measured by benchmarks/files.py."""


def read(path: Path, loader: str, encoding: Encoding, max_pixels: int) -> Picture:
    """Read a file by a loader of `headers.find_loader`. Raises PictureError as `images.read` does."""
    if loader == "bmp":
        return _read_bmp(path, encoding, max_pixels)
    if loader in _CODECS:
        return _CODECS[loader].read(path, encoding, max_pixels)
    return _read_vips(path, loader, encoding, max_pixels)


def decoding_cost(path: Path, loader: str, encoding: Encoding) -> tuple[int, int]:
    """(pixels, bytes of memory that decoding needs), see `images.decoding_cost`."""
    if loader == "bmp":
        with _open_bmp(path) as file:
            num_pixels = int(file.width * file.height)
        return num_pixels, BYTES_PER_PIXEL[loader] * num_pixels
    if loader in _CODECS:
        width, height = _CODECS[loader].probe_size(path)
        return width * height, BYTES_PER_PIXEL[loader] * width * height
    image = _open(path, loader)
    return image.width * image.height, _decoding_bytes(image, loader, encoding)


def _decoding_bytes(image: pyvips.Image, loader: str, encoding: Encoding) -> int:
    num_pixels = int(image.width * image.height)
    if loader in BYTES_PER_PIXEL:
        return BYTES_PER_PIXEL[loader] * num_pixels
    if not encoding.progressive:
        return 0
    if loader == "png":
        return num_pixels * int(image.bands) * (2 if image.format == "ushort" else 1)
    chroma = {"4:4:4": 1.0, "4:2:2": 0.5, "4:4:0": 0.5}.get(encoding.subsampling or "", 0.25)
    # All coefficients, two bytes each.
    return int(2 * num_pixels * (1 + (image.bands - 1) * chroma))


def _open(path: Path, loader: str) -> pyvips.Image:
    """Read the header; samples are decoded on demand, from top to bottom."""
    vips.begin(PictureError)
    try:
        # A source does not parse options in the file name, e.g. "scan[page=2]", and fsencode takes any bytes.
        source = pyvips.Source.new_from_file(os.fsencode(path))
        # A given loader: libvips would also recognize files that are not pictures, e.g. CSV or SVG.
        return pyvips.Operation.call(f"{loader}load_source", source, access="sequential", fail_on="error")
    except pyvips.Error as error:
        raise _damaged(path, vips.reason(error)) from error


def _read_vips(path: Path, loader: str, encoding: Encoding, max_pixels: int) -> Picture:
    if loader == "jpeg" and encoding.bits != 8:
        raise PictureError(
            f"{path} is a JPEG of {encoding.bits} bits; only 8 bits are supported", hint="save it as PNG or TIFF"
        )
    image = _open(path, loader)
    check_size(image.width, image.height, path, max_pixels)
    _check_single(image, path)
    metadata = _read_metadata(image, path, loader)
    try:
        orientation = image.get("orientation") if image.get_typeof("orientation") else 1
        if loader == "heif":
            encoding = replace(encoding, bits=image.get("bits-per-sample"))
        if image.interpretation == "cmyk":
            image, note = _convert_cmyk(image)
            metadata["icc-profile-data"] = image.get("icc-profile-data")
            encoding = replace(encoding, notes=(*encoding.notes, note))
        samples, alpha = _decode(image, encoding, path)
    except pyvips.Error as error:
        raise _damaged(path, vips.reason(error)) from error
    return _apply_orientation(Picture(samples, alpha, metadata, encoding), orientation)


def _check_single(image: pyvips.Image, path: Path) -> None:
    num_pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    if num_pages > 1:
        raise PictureError(f"{path} has {num_pages} pages or frames; one is needed", hint="split it first")


def _convert_cmyk(image: pyvips.Image) -> tuple[pyvips.Image, str]:
    """The image in sRGB, and a note about it for the user."""
    depth = 16 if image.format == "ushort" else 8
    has_profile = bool(image.get_typeof("icc-profile-data"))
    profile = "its own profile" if has_profile else "a general profile, because it has none"
    return image.icc_transform(
        "srgb", embedded=True, input_profile="cmyk", depth=depth
    ), f"CMYK converted to sRGB by {profile}"


def _decode(image: pyvips.Image, encoding: Encoding, path: Path) -> tuple[Samples, Samples | None]:
    """Samples and alpha, separated strip by strip, without a copy of the whole."""
    num_colors, dtype = _num_colors(image, path), _DTYPES[image.format]
    height, width, bands = image.height, image.width, image.bands
    samples = memory.allocate((height, width, num_colors), dtype)
    alpha = memory.allocate((height, width, 1), dtype) if bands > num_colors else None
    region, num_bad = pyvips.Region.new(image), 0
    for rows in memory.strips(samples, *([] if alpha is None else [alpha])):
        num_rows = rows.stop - rows.start
        strip: Samples = np.frombuffer(region.fetch(0, rows.start, width, num_rows), dtype)
        strip = _expand_to_16_bits(strip.reshape(num_rows, width, bands), encoding)
        num_bad += int((~np.isfinite(strip)).sum()) if dtype == "float32" else 0
        samples[rows] = strip[..., :num_colors]
        if alpha is not None:
            alpha[rows] = strip[..., num_colors:]
    if num_bad:
        raise PictureError(f"{path} has {num_bad} NaN or infinite samples", hint="replace them first")
    return samples, alpha


def _num_colors(image: pyvips.Image, path: Path) -> int:
    """1 for gray, 3 for RGB. Raises PictureError for other channels and sample types."""
    if image.format not in _DTYPES:
        raise PictureError(
            f"{path} has samples of libvips type '{image.format}'; 8-bit or 16-bit unsigned, or 32-bit "
            f"floating-point samples are needed"
        )
    colors = _COLORS.get(image.interpretation)
    if colors is None or image.bands - colors not in (0, 1):
        colors_of = "" if colors else f" of type '{image.interpretation}'"
        raise PictureError(
            f"{path} has {image.bands} channels{colors_of}; gray or RGB, with or without alpha, is needed"
        )
    return colors


def _expand_to_16_bits(strip: Samples, encoding: Encoding) -> Samples:
    """Scale 10 and 12-bit samples of AVIF to white at 65535; libvips puts them into the high bits."""
    is_shifted = encoding.format == "AVIF" and 8 < encoding.bits < 16
    return strip | strip >> encoding.bits if is_shifted else strip


def _apply_orientation(picture: Picture, orientation: int) -> Picture:
    """The upright picture: a view of a large one, because a copy would take another file; else contiguous."""
    upright = picture.apply_orientation(orientation)
    if upright.samples.nbytes >= memory.LARGE_BYTES:
        return upright
    alpha = None if upright.alpha is None else np.ascontiguousarray(upright.alpha)
    return replace(upright, samples=np.ascontiguousarray(upright.samples), alpha=alpha)


def _read_metadata(image: pyvips.Image, path: Path, loader: str) -> dict[str, Any]:
    """The metadata to keep, in the same form for every format."""
    found = {name: image.get(name) for name in _KEPT_FIELDS if image.get_typeof(name)}
    with path.open("rb") as file:
        found |= _read_other_metadata(file, loader, found)
    if "xmp-data" in found:
        # The samples are upright already; some programs would rotate them again.
        found["xmp-data"] = _XMP_ORIENTATION.sub(rb"\g<1>1", found["xmp-data"])
    found |= _read_resolution(image, found.get("exif-data", b""))
    return {name: value for name, value in found.items() if value}


def _read_other_metadata(file: IO[bytes], loader: str, found: Mapping[str, Any]) -> dict[str, bytes]:
    """What libvips does not read, or not correctly: EXIF of TIFF, texts and color chunks of PNG, IPTC."""
    if loader == "png":
        chunks, records = png.read_chunks(file)
        return {"png-chunks": chunks, "iptc-data": records}
    if loader == "jpeg":
        records, others = iptc.parse_resources(found.get("iptc-data", b""))
        return {"iptc-data": records, "photoshop-data": others}
    if loader == "tiff":
        records, others = iptc.parse_resources(found.get("photoshop-data", b""))
        tags = exif.parse_tiff(file)
        block = exif.build_block(tags) if tags else b""
        return {"exif-data": block, "iptc-data": found.get("iptc-data", records), "photoshop-data": others}
    return {}


def _read_resolution(image: pyvips.Image, block: bytes) -> dict[str, float]:
    dots = image.xres, image.yres
    if any(np.allclose(dots, unknown, atol=1e-3) for unknown in vips.UNKNOWN_DOTS_PER_MM):
        in_exif = exif.dots_per_mm(block)
        return {"xres": in_exif[0], "yres": in_exif[1]} if in_exif else {}
    return {"xres": dots[0], "yres": dots[1]}


def _damaged(path: Path, reason: object) -> PictureError:
    return PictureError(
        f"{path} is damaged, truncated or of an unsupported type ({reason})",
        hint="save it again as PNG, or as 8-bit or 16-bit TIFF",
    )


def _open_bmp(path: Path) -> BmpImageFile:
    # The libvips of pyvips cannot read BMP. Not PIL.Image.open, which has its own limit of pixels.
    try:
        return BmpImageFile(path)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError for files that are not BMP
        raise _damaged(path, error) from error


def _read_bmp(path: Path, encoding: Encoding, max_pixels: int) -> Picture:
    with _open_bmp(path) as file:
        check_size(file.width, file.height, path, max_pixels)
        dots = file.info.get("dpi")
        metadata = {"xres": dots[0] / vips.MM_PER_INCH, "yres": dots[1] / vips.MM_PER_INCH} if dots else {}
        try:
            file.load()
        except (OSError, SyntaxError, ValueError) as error:
            raise _damaged(path, error) from error
        samples, alpha = _decode_bmp(file)
    return Picture(samples, alpha, metadata, encoding)


def _decode_bmp(file: BmpImageFile) -> tuple[Samples, Samples | None]:
    mode = {"1": "L", "P": "RGB"}.get(file.mode, file.mode)
    num_colors = min(len(mode), 3)
    samples = memory.allocate((file.height, file.width, num_colors), "uint8")
    alpha = memory.allocate((file.height, file.width, 1), "uint8") if len(mode) > num_colors else None
    for rows in memory.strips(samples):
        strip = np.asarray(file.crop((0, rows.start, file.width, rows.stop)).convert(mode))
        strip = strip.reshape(rows.stop - rows.start, file.width, -1)
        samples[rows] = strip[..., :num_colors]
        if alpha is not None:
            alpha[rows] = strip[..., num_colors:]
    return samples, alpha
