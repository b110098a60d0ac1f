"""Reading picture files: libvips decodes all formats except BMP, strip by strip into `memory.allocate`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyvips
from PIL.BmpImagePlugin import BmpImageFile

from pellucid.errors import PictureError
from pellucid.pictures import exif, heic, jpeg_2000, jpeg_xl, metadata, pnm, vips, xmp
from pellucid.pictures.containers import heif, tiff
from pellucid.pictures.limits import check_size
from pellucid.pictures.picture import Encoding, Picture, Samples
from pellucid.system import memory

_COLORS = {"b-w": 1, "grey16": 1, "srgb": 3, "rgb": 3, "rgb16": 3, "scrgb": 3}
_DTYPES = {name: dtype for dtype, name in vips.FORMATS.items()}

_HEIF_FIELDS = ("icc-profile-data", "exif-data", "xmp-data")

_STRICT = ("jpeg", "tiff")
"""Loaders that report damaged samples, and tiles that are missing or cannot be decoded, only as warnings."""

_CODECS: dict[str, Any] = {"heic": heic, "jxl": jpeg_xl, "jp2": jpeg_2000, "pnm": pnm}
"""Modules for formats that libvips does not decode, by loader."""

BYTES_PER_PIXEL = {"webp": 9, "heif": 19, "bmp": 4, "gif": 8}
BYTES_PER_PIXEL |= {loader: module.BYTES_PER_PIXEL for loader, module in _CODECS.items()}
"""Memory per pixel of formats that are decoded as a whole, measured by benchmarks/files.py."""


def read(path: Path, loader: str, encoding: Encoding, max_pixels: int, sidecar: bytes = b"") -> Picture:
    """Read a file by a loader of `headers.find_loader`. Raises PictureError as `images.read` does."""
    if loader == "bmp":
        return _read_bmp(path, encoding, max_pixels, sidecar)
    if loader in _CODECS:
        return _read_by_codec(path, loader, encoding, max_pixels, sidecar)
    return _read_vips(path, loader, encoding, max_pixels, sidecar)


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


def _open(path: Path, loader: str, source: pyvips.Source | None = None, *, fail_on: str = "error") -> pyvips.Image:
    """Read the header; samples are decoded on demand, from top to bottom. source: by default the file."""
    vips.begin(PictureError)
    try:
        # A source does not parse options in the file name, e.g. "scan[page=2]", and fsencode takes any bytes.
        source = source or pyvips.Source.new_from_file(os.fsencode(path))
        # A given loader: libvips would also recognize files that are not pictures, e.g. CSV or SVG.
        return pyvips.Operation.call(f"{loader}load_source", source, access="sequential", fail_on=fail_on)
    except pyvips.Error as error:
        raise _damaged(path, vips.reason(error)) from error


def _read_vips(path: Path, loader: str, encoding: Encoding, max_pixels: int, sidecar: bytes) -> Picture:
    if loader == "jpeg" and encoding.bits != 8:
        raise PictureError(
            f"{path} is a JPEG of {encoding.bits} bits; only 8 bits are supported", hint="save it as PNG or TIFF"
        )
    read = partial(_read_source, path, loader, encoding, max_pixels, sidecar)
    try:
        return read()
    except PictureError as error:
        if loader not in _STRICT or not isinstance(error.__cause__, pyvips.Error):
            raise
        if loader == "jpeg":
            note = f"damaged ({vips.reason(error.__cause__)}): parts of the picture may be wrong"
            return _add_note(read(fail_on="error"), note)
        # libtiff refuses files for values that decoding does not need, e.g. orientation 0.
        with path.open("rb") as file:
            return read(vips.patched_source(file, tiff.hide_metadata(file)))


def _read_by_codec(path: Path, loader: str, encoding: Encoding, max_pixels: int, sidecar: bytes) -> Picture:
    """libheif and libjxl apply the orientation, OpenJPEG does not."""
    picture: Picture = _CODECS[loader].read(path, encoding, max_pixels)
    found = _add_sidecar(dict(picture.metadata), sidecar)
    orientation = exif.find_orientation(found.get("exif-data", b"")) if loader == "jp2" else 1
    return _apply_orientation(replace(picture, metadata=found), orientation or 1)


def _add_note(picture: Picture, note: str) -> Picture:
    encoding = picture.encoding
    assert encoding is not None
    return replace(picture, encoding=replace(encoding, notes=(*encoding.notes, note)))


def _read_source(
    path: Path,
    loader: str,
    encoding: Encoding,
    max_pixels: int,
    sidecar: bytes,
    source: pyvips.Source | None = None,
    *,
    fail_on: str = "warning",
) -> Picture:
    image = _open(path, loader, source, fail_on=fail_on if loader in _STRICT else "error")
    check_size(image.width, image.height, path, max_pixels)
    _check_single(image, path)
    found, orientation, dropped = _read_metadata(image, path, loader)
    found = _add_sidecar(found, sidecar)
    try:
        if loader == "heif":
            encoding = replace(encoding, bits=image.get("bits-per-sample"))
        if image.interpretation == "cmyk":
            image, note = _convert_cmyk(image)
            found["icc-profile-data"] = image.get("icc-profile-data")
            encoding = replace(encoding, notes=(*encoding.notes, note))
        samples, alpha = _decode(image, encoding, path)
    except pyvips.Error as error:
        raise _damaged(path, vips.reason(error)) from error
    return _apply_orientation(Picture(samples, alpha, found, encoding), orientation, dropped)


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


def _apply_orientation(picture: Picture, orientation: int, dropped: Sequence[str] = ()) -> Picture:
    """The upright picture with metadata that are true for it, and with a note about those that are not kept.

    A view of a large picture, because a copy would take another file; otherwise contiguous.
    """
    upright = picture.apply_orientation(orientation)
    size, turned = (picture.width, picture.height), (upright.width, upright.height)
    adapted, removed = metadata.adapt(picture.metadata, orientation=orientation, before=size, after=turned)
    encoding = picture.encoding
    if encoding is not None and (dropped or removed):
        encoding = replace(encoding, notes=(*encoding.notes, f"not kept: {', '.join((*dropped, *removed))}"))
    upright = replace(upright, metadata=adapted, encoding=encoding)
    if upright.samples.nbytes >= memory.LARGE_BYTES:
        return upright
    alpha = None if upright.alpha is None else np.ascontiguousarray(upright.alpha)
    return replace(upright, samples=np.ascontiguousarray(upright.samples), alpha=alpha)


def _read_metadata(image: pyvips.Image, path: Path, loader: str) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """(metadata of the stored samples, EXIF orientation, what is not kept)."""
    with path.open("rb") as file:
        if loader == "heif":  # libheif has applied the orientation of the container, the only one that counts
            return _read_heif(image, file), 1, ()
        found, dropped = metadata.read(file, loader)
        orientation = tiff.find_orientation(file) if loader == "tiff" else 0
    return found, orientation or exif.find_orientation(found.get("exif-data", b"")) or 1, dropped


def _add_sidecar(found: dict[str, Any], sidecar: bytes) -> dict[str, Any]:
    return {**found, "xmp-data": xmp.complete(sidecar, found.get("xmp-data", b""))} if sidecar else found


def _read_heif(image: pyvips.Image, file: IO[bytes]) -> dict[str, Any]:
    found = {name: image.get(name) for name in _HEIF_FIELDS if image.get_typeof(name)}
    if "icc-profile-data" not in found:
        found["png-chunks"] = heif.read_colors(file)
    return {name: value for name, value in found.items() if value}


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


def _read_bmp(path: Path, encoding: Encoding, max_pixels: int, sidecar: bytes) -> Picture:
    with _open_bmp(path) as file:
        check_size(file.width, file.height, path, max_pixels)
        try:
            file.load()
        except (OSError, SyntaxError, ValueError) as error:
            raise _damaged(path, error) from error
        samples, alpha = _decode_bmp(file)
    with path.open("rb") as opened:
        found, dropped = metadata.read(opened, "bmp")
        found = _add_sidecar(found, sidecar)
    return _apply_orientation(Picture(samples, alpha, found, encoding), 1, dropped)


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
