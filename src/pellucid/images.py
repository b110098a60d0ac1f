"""Picture files: reading and writing PNG, JPEG, TIFF, WebP and BMP, and reading AVIF.

Samples come through exactly as the file holds them: no color management (but CMYK becomes sRGB), no gamma,
no resizing. Orientation is applied, alpha is set apart, everything else travels in `Picture.metadata`.
Not every format holds everything: libvips neither reads nor writes EXIF in TIFF, WebP has no gray (three
equal channels instead) and drops an alpha that is opaque throughout, BMP keeps the resolution only.
"""

import io
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyvips
from PIL.BmpImagePlugin import BmpImageFile

from pellucid.errors import DataError, OutputError, PellucidError, PictureError
from pellucid.files import check_free, write_whole
from pellucid.picture import Picture, Samples

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".avif"})
"""What `find` takes for pictures. HEIC is missing: the libvips that pyvips brings has no HEVC decoder."""

RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".gpr", ".iiq", ".kdc", ".mef", ".mos"}
    | {".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
"""Camera RAW files, of which many start like a TIFF but hold a mosaic."""

MAX_PIXELS = 500_000_000
"""A header that promises more is refused before anything is decoded: a small file can unpack to any size."""

JPEG_QUALITY = 95
"""High, and with full-resolution color: what was just restored shall not gain new block artefacts."""

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",  # BigTIFF
    b"MM\0+": "tiff",
    b"RIFF": "webp",
    b"BM": "bmp",
}
_COLORS = {"b-w": 1, "grey16": 1, "srgb": 3, "rgb": 3, "rgb16": 3, "scrgb": 3}
_INTERPRETATIONS = {
    ("uint8", 1): "b-w",
    ("uint8", 3): "srgb",
    ("uint16", 1): "grey16",
    ("uint16", 3): "rgb16",
    ("float32", 1): "b-w",
    ("float32", 3): "scrgb",
}
_VIPS_FORMATS = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}
_DEPTH_NAMES = {"uint8": "8-bit", "uint16": "16-bit", "float32": "floating-point"}

# All else libvips notes is about the file it came from (depth, loader, compression, pages, preview). The
# exif-ifd fields go along with exif-data because libvips builds the EXIF it writes from those.
_KEPT_FIELDS = {"icc-profile-data", "exif-data", "xmp-data", "iptc-data", "photoshop-data"}
_KEPT_FIELDS |= {"xres", "yres", "resolution-unit", "image-description"}
_KEPT_PREFIXES = ("exif-ifd", "png-comment-")
_MM_PER_INCH = 25.4

_pid_of_libvips: int | None = None
"""The process that used libvips first."""

# Every picture is read once, so the cache of operations would only hold on to memory.
pyvips.cache_set_max(0)


@dataclass(frozen=True)
class _Format:
    """What a file format can hold, and the libvips operation that writes it."""

    name: str
    depths: tuple[str, ...]
    alpha: bool
    saver: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, picture: Picture) -> bool:
        return picture.dtype in self.depths and (self.alpha or picture.alpha is None)


_PNG = _Format("PNG", ("uint8", "uint16"), True, "pngsave_buffer")
_TIFF = _Format("TIFF", ("uint8", "uint16", "float32"), True, "tiffsave_buffer", {"compression": "deflate"})
_JPEG = _Format(
    "JPEG",
    ("uint8",),
    False,
    "jpegsave_buffer",
    {"Q": JPEG_QUALITY, "subsample_mode": "off", "optimize_coding": True},
)
# Lossless like PNG, so that no one loses samples for a suffix; `exact` keeps the colors below alpha = 0.
_WEBP = _Format("WebP", ("uint8",), True, "webpsave_buffer", {"lossless": True, "exact": True})
_BMP = _Format("BMP", ("uint8",), False)
_WRITERS = {".png": _PNG, ".tif": _TIFF, ".tiff": _TIFF, ".jpg": _JPEG, ".jpeg": _JPEG, ".webp": _WEBP}
_WRITERS[".bmp"] = _BMP


def find(folder: Path) -> list[Path]:
    """Every picture below a folder, sorted by path, without hidden ones and linked folders."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; a folder of pictures is needed")
    found = []
    for parent, folders, names in os.walk(folder, onerror=_cannot_be_entered):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.suffix.lower() in SUFFIXES]
    return sorted(found)


def _cannot_be_entered(error: OSError) -> None:
    """A folder that is passed over in silence is taken for one without pictures."""
    raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def read(path: str | Path) -> Picture:
    """The picture in a file, at the file's depth and upright.

    1, 2 and 4-bit samples and palettes come as 8 bit; 10 and 12 bit fill 16. Premultiplied alpha is divided
    out. What a file is follows from its first bytes, not from its suffix.
    Raises PictureError when the file is missing, damaged, or no single gray or RGB picture.
    """
    path = Path(path)
    kind = _kind(path)
    picture = _read_bmp(path) if kind == "bmp" else _read_vips(path, kind)
    _check_finite(picture, path)
    return picture


def written_name(name: str) -> str:
    """The name for a result of a file of this name: the same, or as PNG where its format cannot be written."""
    path = Path(name)
    return name if path.suffix.lower() in _WRITERS else path.with_suffix(".png").name


def can_write(path: Path) -> None:
    """Raise OutputError when no picture can be written under such a name."""
    if path.suffix.lower() not in _WRITERS:
        found = f"{path} ends in {path.suffix}, which" if path.suffix else f"{path} has no suffix and"
        raise OutputError(f"{found} cannot be written; name it {', '.join(_WRITERS)}")


def write(picture: Picture, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a picture in the format its suffix names, whole or not at all.

    Everything but JPEG is lossless. Raises OutputError, before anything is written, when the format cannot
    hold the picture's depth or alpha, or when something is at path and overwrite is False.
    """
    path = Path(path)
    can_write(path)
    target = _WRITERS[path.suffix.lower()]
    _check_holds(target, picture, path)
    check_free(path, overwrite=overwrite)
    content = _encode_bmp(picture, path) if target is _BMP else _encode_vips(picture, target, path)
    write_whole(path, content, overwrite=overwrite)


def _kind(path: Path) -> str:
    """Which reader a file needs, by its first bytes."""
    head = _head(path)
    if path.suffix.lower() in RAW_SUFFIXES:
        raise PictureError(
            f"{path} is a camera RAW file, which this command cannot read yet; develop it to TIFF or PNG first"
        )
    if not head:
        raise PictureError(f"{path} is empty; a picture is needed")
    if head[4:12] in (b"ftypavif", b"ftypmif1"):
        return "heif"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic) and (kind != "webp" or head[8:12] == b"WEBP"):
            return kind
    raise PictureError(f"{path} is not a PNG, JPEG, TIFF, WebP, AVIF or BMP file; convert it to one of them")


def _head(path: Path) -> bytes:
    try:
        if stat.S_ISFIFO(path.stat().st_mode):
            raise PictureError(f"{path} is a pipe; a picture file is needed")
        with path.open("rb") as file:
            return file.read(16)
    except IsADirectoryError as error:
        raise PictureError(f"{path} is a folder; a picture file is needed") from error
    except FileNotFoundError as error:
        raise PictureError(f"{path} does not exist; check the name") from error
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}") from error


def _read_vips(path: Path, kind: str) -> Picture:
    _check_process(PictureError)
    # What libvips notes about one file, read well or not, would head the next error.
    pyvips.vips_lib.vips_error_clear()
    try:
        # A source takes no options from the file's name, as "scan[page=2]" would be, and fsencode any bytes.
        source = pyvips.Source.new_from_file(os.fsencode(path))
        # The named loader: guessing would let in formats that are no pictures, such as CSV or SVG.
        image = pyvips.Operation.call(f"{kind}load_source", source, access="sequential", fail_on="error")
        _check_size(image.width, image.height, path)
        _check_single(image, path)
        image = _to_srgb(_upright(image), path)
        num_colors = _num_colors(image, path)
        samples: Samples = image.numpy().reshape(image.height, image.width, image.bands)
    except pyvips.Error as error:
        raise _damaged(path, _reason(error)) from error
    if kind == "heif":
        samples = _fill_16_bits(samples, image.get("bits-per-sample"))
    return _picture(samples, num_colors, {name: image.get(name) for name in image.get_fields() if _is_kept(name)})


def _check_process(kind: type[PellucidError]) -> None:
    """Refuse where libvips would wait forever: its threads do not survive a fork (seen with 8.18)."""
    global _pid_of_libvips
    _pid_of_libvips = _pid_of_libvips or os.getpid()
    if _pid_of_libvips != os.getpid():
        raise kind(
            "pictures cannot be read or written in a process forked after its parent did so; "
            "start workers with 'spawn' or 'forkserver'"
        )


def _check_size(width: int, height: int, path: Path) -> None:
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"{path} has {width} x {height} = {width * height} pixels; "
            f"at most {MAX_PIXELS} are taken, so cut it into parts first"
        )


def _check_single(image: pyvips.Image, path: Path) -> None:
    num_pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    if num_pages > 1:
        raise PictureError(f"{path} holds {num_pages} pages or frames; one is needed, so split it first")


def _upright(image: pyvips.Image) -> pyvips.Image:
    """Turned as its orientation tag says, and without the tag."""
    tagged = image.get_typeof("orientation") and image.get("orientation") > 1
    # Turning needs rows in another order than they are decoded in.
    return (image.copy_memory() if tagged else image).autorot()


def _to_srgb(image: pyvips.Image, path: Path) -> pyvips.Image:
    """CMYK turned into sRGB by its own profile; everything else as it is."""
    if image.interpretation != "cmyk":
        return image
    if not image.get_typeof("icc-profile-data"):
        raise PictureError(f"{path} is CMYK without a color profile; convert it to RGB first")
    return image.icc_transform("srgb", embedded=True, depth=16 if image.format == "ushort" else 8)


def _num_colors(image: pyvips.Image, path: Path) -> int:
    """1 for gray, 3 for RGB; PictureError for other channels and sample types."""
    if image.format not in _VIPS_FORMATS.values():
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


def _fill_16_bits(samples: Samples, bits: int) -> Samples:
    """10 and 12-bit samples with white at 65535; libvips leaves them in the high bits."""
    return samples | samples >> bits if 8 < bits < 16 else samples


def _check_finite(picture: Picture, path: Path) -> None:
    planes = [picture.samples] if picture.alpha is None else [picture.samples, picture.alpha]
    bad = sum(int((~np.isfinite(plane)).sum()) for plane in planes) if picture.dtype == "float32" else 0
    if bad:
        raise PictureError(f"{path} holds {bad} NaN or infinite samples; replace them first")


def _picture(samples: Samples, num_colors: int, metadata: Mapping[str, Any]) -> Picture:
    alpha = samples[..., num_colors:].copy() if samples.shape[2] > num_colors else None
    return Picture(np.ascontiguousarray(samples[..., :num_colors]), alpha, metadata)


def _is_kept(name: str) -> bool:
    # The pixels are upright already; a tag kept along would turn them again.
    if name == "exif-ifd0-Orientation":
        return False
    return name in _KEPT_FIELDS or name.startswith(_KEPT_PREFIXES)


def _damaged(path: Path, reason: object) -> PictureError:
    return PictureError(
        f"{path} is damaged, cut short or of a rare kind ({reason}); save it anew as PNG or 8 or 16-bit TIFF"
    )


def _reason(error: pyvips.Error) -> str:
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    return lines[0] if lines else "no reason given"


def _read_bmp(path: Path) -> Picture:
    # libvips' binary cannot read BMP. Not PIL.Image.open, which has another limit of pixels.
    try:
        with BmpImageFile(io.BytesIO(path.read_bytes())) as file:
            _check_size(file.width, file.height, path)
            file.load()
            dots = file.info.get("dpi")
            image = file.convert({"1": "L", "P": "RGB"}.get(file.mode, file.mode))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow says SyntaxError where it means no BMP
        raise _damaged(path, error) from error
    metadata = {"xres": dots[0] / _MM_PER_INCH, "yres": dots[1] / _MM_PER_INCH} if dots else {}
    return _picture(np.array(image).reshape(image.height, image.width, -1), min(len(image.mode), 3), metadata)


def _check_holds(target: _Format, picture: Picture, path: Path) -> None:
    if target.holds(picture):
        return
    depth = _DEPTH_NAMES[picture.dtype]
    what = "alpha" if picture.dtype in target.depths else f"{depth} samples"
    others = dict.fromkeys(other.name for other in _WRITERS.values() if other.holds(picture))
    raise OutputError(f"{path}: {target.name} cannot hold {what}; write {' or '.join(others)}")


def _encode_bmp(picture: Picture, path: Path) -> bytes:
    content = io.BytesIO()
    known = picture.metadata
    dots = (known["xres"] * _MM_PER_INCH, known["yres"] * _MM_PER_INCH) if "xres" in known else None
    try:
        image = PIL.Image.fromarray(picture.samples.squeeze(2) if picture.channels == 1 else picture.samples)
        image.save(content, "BMP", **({"dpi": dots} if dots else {}))
    except (OSError, ValueError, OverflowError) as error:
        raise OutputError(f"{path} cannot be written as BMP: {error}") from error
    return content.getvalue()


def _encode_vips(picture: Picture, target: _Format, path: Path) -> bytes:
    _check_process(OutputError)
    pyvips.vips_lib.vips_error_clear()
    options = dict(target.options)
    if target is _TIFF:
        # Few readers know the predictor for floating-point samples.
        options["predictor"] = "none" if picture.dtype == "float32" else "horizontal"
        # A plain TIFF ends at 4 GB; deflate may need a little more room than the samples.
        options["bigtiff"] = picture.samples.nbytes > 2_500_000_000
    try:
        content: bytes = pyvips.Operation.call(target.saver, _vips_image(picture), **options)
    except pyvips.Error as error:
        raise OutputError(f"{path} cannot be written as {target.name}: {_reason(error)}") from error
    return content


def _vips_image(picture: Picture) -> pyvips.Image:
    planes = [picture.samples] if picture.alpha is None else [picture.samples, picture.alpha]
    joined = np.concatenate(planes, axis=2)  # also one run of memory where the picture is a crop
    image = pyvips.Image.new_from_memory(
        joined.data, picture.width, picture.height, joined.shape[2], _VIPS_FORMATS[picture.dtype]
    ).copy(interpretation=_INTERPRETATIONS[picture.dtype, picture.channels])
    types = {bytes: "blob_type", str: "gstr_type", int: "gint_type", float: "gdouble_type"}
    kept = {name: value for name, value in picture.metadata.items() if _is_kept(name)}
    resolution = {name: kept.pop(name) for name in ("xres", "yres") if name in kept}
    for name, value in kept.items():
        if type(value) in types:
            image.set_type(getattr(pyvips.GValue, types[type(value)]), name, value)
    # Setting exif-data makes libvips take all of it apart, also what shall not be written: the orientation,
    # which would turn the picture once more, and a preview of what it was.
    for name in ("orientation", "exif-ifd0-Orientation", "jpeg-thumbnail-data"):
        image.remove(name)
    return image.copy(**resolution)
