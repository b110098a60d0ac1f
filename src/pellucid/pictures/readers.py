"""Reading picture files: by libvips, strip by strip into `memory.allocate`, or by `_CODECS` and Pillow."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile

from pellucid.errors import PictureError
from pellucid.pictures import associated_alpha, metadata, vips
from pellucid.pictures.codecs import heic, jpeg_2000, jpeg_xl, pnm
from pellucid.pictures.codecs.decoders import check_finite, check_size, count_not_finite, damage_error
from pellucid.pictures.containers import bmp, heif, png
from pellucid.pictures.palettes import describe_missing_colors, name_missing_colors
from pellucid.pictures.picture import Encoding, Picture
from pellucid.pictures.records import descriptions, exif, xmp
from pellucid.pictures.samples import PEAKS, Samples
from pellucid.pictures.structures.chunks import JPEG_END, iterate_jpeg
from pellucid.pictures.tiff import directories, interpretation
from pellucid.pictures.tiff.decoding import TiffDecoder, find_strip_damage, list_decoders
from pellucid.pictures.tiff.interpretation import TiffSamples
from pellucid.pictures.vips import pyvips
from pellucid.pictures.white import apply_white, change_samples
from pellucid.system import memory
from pellucid.system.signals import defer_sigint

_COLORS = {"b-w": 1, "grey16": 1, "srgb": 3, "rgb": 3, "rgb16": 3, "scrgb": 3}
_DTYPES = {name: dtype for dtype, name in vips.FORMATS.items()}

_NO_REASON = "its decoder gives no reason"

_CODECS: dict[str, Any] = {"heic": heic, "jxl": jpeg_xl, "jp2": jpeg_2000, "pnm": pnm}
"""Modules for formats that libvips does not decode, by loader."""

BYTES_PER_PIXEL = {"webp": 9, "heif": 19, "bmp": 4, "gif": 8}
BYTES_PER_PIXEL |= {loader: module.BYTES_PER_PIXEL for loader, module in _CODECS.items()}
"""Memory per pixel of formats that are decoded as a whole, measured by benchmarks/files.py."""


@dataclass(frozen=True)
class _Channels:
    """The channels of an image: colors first, then others. alpha_index: the index of alpha among the others."""

    num_colors: int
    num_others: int = 0
    alpha_index: int | None = None

    @property
    def extra_indices(self) -> list[int]:
        """Indices, among the others, of channels that are neither color nor alpha."""
        return [i for i in range(self.num_others) if i != self.alpha_index]


@dataclass(frozen=True)
class _Stored:
    """A picture before its EXIF orientation (1 to 8) is applied. dropped: metadata that are not kept."""

    picture: Picture
    orientation: int
    dropped: tuple[str, ...]


def read(
    path: Path, loader: str, encoding: Encoding, max_pixels: int, white: float | None, sidecar: bytes = b""
) -> Picture:
    """Read a file by a loader of `headers.find_loader`. Raises PictureError as `images.read` does."""
    if loader == "bmp":
        stored = _read_bmp(path, encoding, max_pixels, white)
    elif loader in _CODECS:
        stored = _read_by_codec(path, loader, encoding, max_pixels, white)
    elif loader == "jpeg":
        stored = _read_jpeg(path, encoding, max_pixels, white)
    else:
        stored = _read_vips(path, loader, encoding, max_pixels, white)
    return _make_upright(stored, sidecar)


def _read_jpeg(path: Path, encoding: Encoding, max_pixels: int, white: float | None) -> _Stored:
    try:
        return _read_vips(path, "jpeg", encoding, max_pixels, white, fail_on="warning")
    except PictureError as error:
        if not isinstance(error.__cause__, pyvips.Error):
            raise
        # In a progressive JPEG, whole scans may be missing, which cannot be detected.
        if not encoding.progressive and (completed := _add_end_marker(path)):
            noted = replace(encoding, notes=(*encoding.notes, "a JPEG without an end marker"))
            source = pyvips.Source.new_from_memory(completed)
            with suppress(PictureError):
                return _read_vips(path, "jpeg", noted, max_pixels, white, fail_on="warning", source=source)
        warning = (
            f"damaged ({vips.reason(error.__cause__, path) or _NO_REASON}): parts of the picture may be wrong"
        )
        encoding = replace(encoding, warnings=(*encoding.warnings, warning))
        return _read_vips(path, "jpeg", encoding, max_pixels, white)


def _add_end_marker(path: Path) -> bytes:
    """A JPEG with the missing end marker added, as its samples may be complete; b"" if it has the marker."""
    content = path.read_bytes()
    has_end = any(marker == JPEG_END for marker, _, _ in iterate_jpeg(content))
    return b"" if has_end else content + b"\xff" + bytes([JPEG_END])


def _read_by_codec(path: Path, loader: str, encoding: Encoding, max_pixels: int, white: float | None) -> _Stored:
    """Read by one of _CODECS. libheif and libjxl apply the orientation, OpenJPEG does not."""
    picture: Picture = _CODECS[loader].read(path, encoding, max_pixels)
    with path.open("rb") as file:
        found, dropped = metadata.read(file, loader)
    found = {**picture.metadata, **found}
    if loader == "jxl":
        found |= exif.read_resolution(found.get("exif-data", b""))
    picture = apply_white(replace(picture, metadata=found), path, white=white)
    return _Stored(picture, _find_orientation(found) if loader == "jp2" else 1, dropped)


def read_tiff(
    page: directories.Page,
    max_pixels: int,
    white: float | None,
    notes: tuple[str, ...] = (),
    sidecar: bytes = b"",
) -> Picture:
    """Read a page of a TIFF. notes: about the file. Raises PictureError as `images.read` does."""
    picture = _make_upright(_read_tiff(interpretation.parse(page), max_pixels, white), sidecar)
    assert picture.encoding is not None
    return replace(picture, encoding=replace(picture.encoding, notes=(*notes, *picture.encoding.notes)))


def probe_header(path: Path, loader: str) -> tuple[int, int, bool]:
    """(width, height, whether alpha is known to exist) from the header of a file; not of TIFF.

    The size is that before the orientation is applied. Raises PictureError, also for a file with several pictures.
    """
    if loader == "bmp":
        with _open_bmp(path) as file:
            return file.width, file.height, False
    if loader in _CODECS:
        width, height = _CODECS[loader].probe_size(path)
        return width, height, False
    with _explained(path, partial(_find_damage, path, loader)):
        image = _open(path, loader)
    _check_single(image, path)
    return image.width, image.height, image.hasalpha()


def decoding_cost(path: Path, loader: str, encoding: Encoding) -> tuple[int, int]:
    """(pixels, bytes of memory that decoding needs), see `images.decoding_cost`; not of TIFF."""
    if loader == "bmp" or loader in _CODECS:
        width, height, _ = probe_header(path, loader)
        return width * height, BYTES_PER_PIXEL[loader] * width * height
    with _explained(path, partial(_find_damage, path, loader)):
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
    """Read the header; samples are decoded on demand, from top to bottom. source: default is the file.

    Raises pyvips.Error, see `_explained`.
    """
    vips.begin(PictureError)
    # A source does not parse options in the file name, e.g. "scan[page=2]", and fsencode takes any bytes.
    source = source or pyvips.Source.new_from_file(os.fsencode(path))
    # The loader is given, because libvips would also recognize files that are not pictures, e.g. CSV or SVG.
    # A compressed strip of a TIFF may have more than 50 MB; `decoding_cost` counts them.
    options = {"unlimited": True} if loader == "tiff" else {}
    with defer_sigint():
        return pyvips.Operation.call(
            f"{loader}load_source", source, access="sequential", fail_on=fail_on, **options
        )


@contextmanager
def _explained(path: Path, find_damage: Callable[[], str]) -> Iterator[None]:
    """Raise errors of libvips as one-line errors. find_damage: a better reason than that of libvips, or ""."""
    try:
        yield
    except pyvips.Error as error:
        reason = find_damage() or vips.reason(error, path) or _NO_REASON
        raise damage_error(path, reason) from error


def _find_damage(path: Path, loader: str) -> str:
    if loader != "png":
        return ""
    with path.open("rb") as file:
        return png.find_damage(file)


def _read_vips(
    path: Path,
    loader: str,
    encoding: Encoding,
    max_pixels: int,
    white: float | None,
    *,
    fail_on: str = "error",
    source: pyvips.Source | None = None,
) -> _Stored:
    if loader == "jpeg" and encoding.bits != 8:
        raise PictureError(
            f"{path} is a JPEG of {encoding.bits} bits; only 8 bits are supported", hint="save it as PNG or TIFF"
        )
    with _explained(path, partial(_find_damage, path, loader)):
        image = _open(path, loader, source, fail_on=fail_on)
        check_size(image.width, image.height, path, max_pixels)
        _check_single(image, path)
        found, orientation, dropped = _read_metadata(path, loader)
        if loader == "heif":
            encoding = replace(encoding, bits=image.get("bits-per-sample"))
            image = _select_gray(image, path)
        if image.interpretation == "cmyk":
            image, note = _convert_cmyk(image)
            found["icc-profile-data"] = image.get("icc-profile-data")
            encoding = replace(encoding, notes=(*encoding.notes, note))
        channels = _find_channels(image, path)
        fetch = partial(_fetch_strips, image, partial(_expand_to_16_bits, encoding=encoding))
        size = image.height, image.width
        samples, alpha, _ = _decode(fetch, size, _DTYPES[image.format], channels, path)
    picture = Picture(samples, alpha, found, encoding)
    if loader == "heif":
        picture = _finish_heif(picture, path)
    if loader in ("png", "gif"):
        encoding = replace(encoding, warnings=(*encoding.warnings, *describe_missing_colors(path, loader)))
        picture = replace(picture, encoding=encoding)
    significant_bits = png.significant_bits(found.get("png-chunks", b"")) if loader == "png" else 0
    picture = apply_white(picture, path, white=white, significant_bits=significant_bits)
    return _Stored(picture, orientation, dropped)


def _read_tiff(stored: TiffSamples, max_pixels: int, white: float | None) -> _Stored:
    path, encoding = stored.page.path, stored.encoding
    width, height = stored.directory.size
    check_size(width, height, path, max_pixels)
    if stored.color == interpretation.CMYK and white is not None:
        raise PictureError(f"{path} is CMYK, for which white cannot be set", hint="omit {white}")
    with ExitStack() as stack:
        decoders = list_decoders(stored)
        files = [stack.enter_context(directories.open_page(stored.page, decoder.changes)) for decoder in decoders]
        sources = [vips.make_source(file) for file in files]
        found, dropped = metadata.read(stack.enter_context(directories.open_page(stored.page)), "tiff")
        if descriptions.has_own_unit(stored.page.of_file):
            found[metadata.OWN_UNIT] = True
        stack.enter_context(_explained(path, partial(find_strip_damage, stored)))
        pages = [_open(path, "tiff", source, fail_on="warning") for source in sources]
        num_colors = stored.num_colors
        if stored.color == interpretation.CMYK:
            pages, (note,) = map(list, zip(*map(_convert_cmyk, pages), strict=True))
            num_colors, found["icc-profile-data"] = 3, pages[0].get("icc-profile-data")
            encoding = replace(encoding, notes=(*encoding.notes, note))
        channels = _Channels(num_colors, len(stored.extra_samples), stored.alpha_index)
        fetch = partial(_fetch_planes, pages, decoders, width)
        samples, alpha, extra = _decode(fetch, (height, width), stored.dtype, channels, path)
        del sources  # libvips needs them until here
    picture = Picture(samples, alpha, found, encoding, extra)
    picture = apply_white(picture, path, white=white, origin=stored.white[1])
    if stored.is_associated:
        picture = associated_alpha.divide(picture)
    if decoders[0].is_inverted:
        change_samples(picture.samples, lambda strip: strip.dtype.type(PEAKS[picture.dtype]) - strip)
    return _Stored(picture, stored.orientation or _find_orientation(found), dropped)


def _check_single(image: pyvips.Image, path: Path) -> None:
    num_pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    if num_pages > 1:
        raise PictureError(f"{path} has {num_pages} pages or frames; one is needed", hint="split it first")


def _convert_cmyk(image: pyvips.Image) -> tuple[pyvips.Image, str]:
    """The image in sRGB with its other channels, and a note about it for the user."""
    depth = 16 if image.format == "ushort" else 8
    has_profile = bool(image.get_typeof("icc-profile-data"))
    profile = "its own profile" if has_profile else "a general profile, because it has none"
    colors = image.extract_band(0, n=4) if image.bands > 4 else image
    converted = colors.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
    if image.bands > 4:
        converted = converted.bandjoin(image.extract_band(4, n=image.bands - 4))
    return converted, f"CMYK converted to sRGB by {profile}"


def _decode(
    fetch: Callable[[Sequence[Samples]], Iterator[tuple[slice, Samples]]],
    size: tuple[int, int],
    dtype: str,
    channels: _Channels,
    path: Path,
) -> tuple[Samples, Samples | None, Samples | None]:
    """Samples, alpha and extra channels, separated strip by strip, without a copy of the whole.

    fetch: iterates over (rows, all channels of these rows); called with the arrays that are filled.
    size: (height, width).
    """
    (height, width), extra_indices = size, channels.extra_indices
    samples = memory.allocate((height, width, channels.num_colors), dtype)
    alpha = None if channels.alpha_index is None else memory.allocate((height, width, 1), dtype)
    extra = memory.allocate((height, width, len(extra_indices)), dtype) if extra_indices else None
    num_bad = 0
    for rows, strip in fetch([plane for plane in (samples, alpha, extra) if plane is not None]):
        num_bad += count_not_finite(strip)
        samples[rows], others = strip[..., : channels.num_colors], strip[..., channels.num_colors :]
        if alpha is not None:
            alpha[rows] = others[..., channels.alpha_index, None]
        if extra is not None:
            extra[rows] = others[..., extra_indices]
    check_finite(num_bad, path)
    return samples, alpha, extra


def _fetch_strips(
    image: pyvips.Image, decode: Callable[[Samples], Samples], planes: Sequence[Samples]
) -> Iterator[tuple[slice, Samples]]:
    """(rows, all channels of these rows), from top to bottom. decode: converts the samples of libvips."""
    region = pyvips.Region.new(image)
    for rows in memory.strips(*planes):
        yield rows, decode(_fetch(region, image, rows.start, rows.stop - rows.start))


def _fetch_planes(
    images: Sequence[pyvips.Image], decoders: Sequence[TiffDecoder], width: int, planes: Sequence[Samples]
) -> Iterator[tuple[slice, Samples]]:
    """The same for a page of a TIFF: one image with all channels, or one for each channel."""
    regions = [pyvips.Region.new(image) for image in images]
    parts = list(zip(regions, images, decoders, strict=True))
    tile = decoders[0].tile
    if tile is None:
        for rows in memory.strips(*planes):
            num_rows = rows.stop - rows.start
            strips = [
                decoder.decode(_fetch(region, image, rows.start, num_rows), width)
                for region, image, decoder in parts
            ]
            yield rows, np.concatenate(strips, axis=2) if len(strips) > 1 else strips[0]
        return
    (tile_width, tile_height), height = tile, len(planes[0])
    across = -(-width // tile_width)
    for top in range(0, height, tile_height):
        rows = slice(top, min(top + tile_height, height))
        tiles = [
            decoder.decode(_fetch(region, image, top * across, tile_height * across), tile_width)
            for region, image, decoder in parts
        ]
        joined = np.concatenate(tiles, axis=2).reshape(across, tile_height, tile_width, -1)
        strip = joined.swapaxes(0, 1).reshape(tile_height, across * tile_width, -1)
        yield rows, strip[: rows.stop - top, :width]
        for plane in planes:
            memory.release(plane)


def _fetch(region: pyvips.Region, image: pyvips.Image, top: int, num_rows: int) -> Samples:
    with defer_sigint():
        content = region.fetch(0, top, image.width, num_rows)
    return np.frombuffer(content, _DTYPES[image.format]).reshape(num_rows, image.width, image.bands)


def _find_channels(image: pyvips.Image, path: Path) -> _Channels:
    """The channels of an image with or without alpha. Raises PictureError for other channels or sample types."""
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
    return _Channels(colors, 1, 0) if image.bands > colors else _Channels(colors)


def _expand_to_16_bits(strip: Samples, encoding: Encoding) -> Samples:
    """Scale 10 and 12-bit samples of AVIF to white at 65535; libvips puts them into the high bits."""
    is_shifted = encoding.format == "AVIF" and 8 < encoding.bits < 16
    return strip | strip >> encoding.bits if is_shifted else strip


def _make_upright(stored: _Stored, sidecar: bytes) -> Picture:
    """The upright picture with adapted metadata, and a note about metadata that are not kept.

    Of a large picture, it is a view, because a copy would need another temporary file; otherwise it is contiguous.
    sidecar: XMP that takes precedence.
    """
    picture, orientation, dropped = stored.picture, stored.orientation, stored.dropped
    if sidecar:
        packet = xmp.complete(sidecar, picture.metadata.get("xmp-data", b""))
        picture = replace(picture, metadata={**picture.metadata, "xmp-data": packet})
    upright = picture.apply_orientation(orientation)
    size, turned = (picture.width, picture.height), (upright.width, upright.height)
    adapted, removed = metadata.adapt(
        picture.metadata,
        orientation=orientation,
        before=size,
        after=turned,
        channels=sum(plane.shape[2] for plane in picture.planes),
    )
    encoding = picture.encoding
    if encoding is not None and (dropped or removed):
        encoding = replace(encoding, notes=(*encoding.notes, f"not kept: {', '.join((*dropped, *removed))}"))
    upright = replace(upright, metadata=adapted, encoding=encoding)
    if upright.samples.nbytes >= memory.LARGE_BYTES:
        return upright
    return upright.map_planes(np.ascontiguousarray)


def _read_metadata(path: Path, loader: str) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """(metadata of the stored samples, EXIF orientation, what is not kept)."""
    with path.open("rb") as file:
        found, dropped = metadata.read(file, loader)
    # libheif has applied the orientation of the container, and that in EXIF must be ignored.
    return found, 1 if loader == "heif" else _find_orientation(found), dropped


def _find_orientation(found: dict[str, Any]) -> int:
    """The orientation in EXIF, 1 if there is none."""
    return exif.find_orientation(found.get("exif-data", b"")) or 1


def _select_gray(image: pyvips.Image, path: Path) -> pyvips.Image:
    """Gray as one channel instead of three equal ones, with its alpha."""
    with path.open("rb") as file:
        is_gray = heif.read_coding(file).is_gray
    if not is_gray or image.bands < 3:
        return image
    bands = [image.extract_band(0), *([image.extract_band(3)] if image.bands > 3 else [])]
    gray = bands[0].bandjoin(bands[1:]) if len(bands) > 1 else bands[0]
    return gray.copy(interpretation="grey16" if image.format == "ushort" else "b-w")


def _finish_heif(picture: Picture, path: Path) -> Picture:
    """Complete what libheif decodes, and convert associated (premultiplied) alpha to straight alpha."""
    assert picture.encoding is not None
    with path.open("rb") as file:
        coding, is_associated = heif.read_coding(file), heif.has_associated_alpha(file)
    heif.complete_colors(picture.samples, coding, picture.encoding.bits)
    return associated_alpha.divide(picture) if is_associated and picture.alpha is not None else picture


def _open_bmp(path: Path) -> BmpImageFile:
    # The libvips of pyvips cannot read BMP. Not PIL.Image.open, which has its own limit of pixels.
    try:
        return BmpImageFile(path)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError for files that are not BMP
        raise damage_error(path, error) from error


def _read_bmp(path: Path, encoding: Encoding, max_pixels: int, white: float | None) -> _Stored:
    with _open_bmp(path) as file:
        check_size(file.width, file.height, path, max_pixels)
        try:
            file.load()
        except (OSError, SyntaxError, ValueError) as error:
            raise damage_error(path, error) from error
        with path.open("rb") as opened:
            found, dropped = metadata.read(opened, "bmp")
            num_colors, has_alpha = bmp.read_num_colors(opened), bmp.has_alpha(opened)
        samples, alpha, num_missing = _decode_bmp(file, num_colors)
    if alpha is None and has_alpha:  # Pillow reads it if it has 8 bits
        dropped = (*dropped, "the transparency")
    encoding = replace(encoding, warnings=(*encoding.warnings, *name_missing_colors(num_missing)))
    return _Stored(apply_white(Picture(samples, alpha, found, encoding), path, white=white), 1, dropped)


def _decode_bmp(file: BmpImageFile, num_colors: int) -> tuple[Samples, Samples | None, int]:
    """(samples, alpha, number of pixels with an index beyond the palette). num_colors: size of the palette."""
    mode = {"1": "L", "P": "RGB"}.get(file.mode, file.mode)
    num_channels, num_missing = min(len(mode), 3), 0
    samples = memory.allocate((file.height, file.width, num_channels), "uint8")
    alpha = memory.allocate((file.height, file.width, 1), "uint8") if len(mode) > num_channels else None
    for rows in memory.strips(samples):
        part = file.crop((0, rows.start, file.width, rows.stop))
        if file.mode in ("L", "P"):  # palette indices
            num_missing += int((np.asarray(part) >= num_colors).sum())
        strip = np.asarray(part.convert(mode)).reshape(rows.stop - rows.start, file.width, -1)
        samples[rows] = strip[..., :num_channels]
        if alpha is not None:
            alpha[rows] = strip[..., num_channels:]
    return samples, alpha, num_missing
