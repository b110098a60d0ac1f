"""The picture formats that can be written, and what each can store."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pellucid.errors import ArgumentError, OutputError
from pellucid.pictures.picture import Picture, count_channels
from pellucid.storage.urls import Location
from pellucid.system.optional_packages import check_installed

RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".gpr", ".iiq", ".kdc", ".mef", ".mos"}
    | {".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
"""Camera RAW files. Many start like a TIFF, but contain a mosaic."""

OTHER_SUFFIXES = frozenset(
    {".psd", ".psb", ".exr", ".hdr", ".qoi", ".pfm", ".jls", ".ico", ".xcf", ".dds", ".jxr", ".wdp"}
)
"""Pictures that cannot be read; reported if a folder contains them, instead of silently ignored."""

DEPTHS = {8: "uint8", 16: "uint16", 32: "float32"}
"""Bits per sample -> type of the samples."""

_DEPTH_NAMES = {"uint8": "8-bit", "uint16": "16-bit", "float32": "floating-point"}


@dataclass(frozen=True)
class FileFormat:
    """What a file format can store.

    suffixes: the first one is the default.
    dtypes: types of samples, smallest first.
    has_extra: whether channels that are neither color nor alpha can be stored.
    saver: the libvips operation that writes it, and its options; "" for formats that libvips does not write.
    package: the optional package that writes it, or "". takes_quality: whether it can be lossy.
    """

    name: str
    suffixes: tuple[str, ...]
    dtypes: tuple[str, ...]
    has_alpha: bool
    has_extra: bool = False
    saver: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    package: str = ""
    takes_quality: bool = False

    def can_store(self, dtype: str, picture: Picture) -> bool:
        """Whether it can store the channels of a picture, with this type of samples."""
        has_channels = (self.has_alpha or picture.alpha is None) and (self.has_extra or picture.extra is None)
        return dtype in self.dtypes and has_channels


PNG = FileFormat("PNG", (".png",), ("uint8", "uint16"), True, saver="pngsave_target")
TIFF = FileFormat("TIFF", (".tif", ".tiff"), ("uint8", "uint16", "float32"), True, True, "tiffsave_target")
JPEG = FileFormat(
    "JPEG",
    (".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif"),
    ("uint8",),
    False,
    saver="jpegsave_target",
    takes_quality=True,
)
# `exact` keeps the colors of fully transparent pixels.
WEBP = FileFormat(
    "WebP", (".webp",), ("uint8",), True, saver="webpsave_target", options={"exact": True}, takes_quality=True
)
BMP = FileFormat("BMP", (".bmp", ".dib"), ("uint8",), False)
PNM = FileFormat("PNM", (".ppm", ".pgm", ".pam", ".pnm"), ("uint8", "uint16"), True)
JPEG_XL = FileFormat(
    "JPEG XL", (".jxl",), ("uint8", "uint16", "float32"), True, package="pyjpegxl", takes_quality=True
)
JPEG_2000 = FileFormat("JPEG 2000", (".jp2",), ("uint8", "uint16"), True, package="openjpeg")
DNG = FileFormat("DNG", (".dng",), (), False)
"""For mosaics, which other formats do not store; DNG does not store pictures."""
WRITABLE = (PNG, TIFF, JPEG, WEBP, BMP)
_OTHERS = (PNM, JPEG_XL, JPEG_2000)
"""Formats that are written only if they are asked for, or the input has them."""

_BITMAP, _GRAY_MAP, _COLOR_MAP = ".pbm", ".pgm", ".ppm"

_BY_SUFFIX = {suffix: file_format for file_format in (*WRITABLE, *_OTHERS) for suffix in file_format.suffixes}

SUFFIXES = frozenset(_BY_SUFFIX) | {
    ".apng", ".avif", ".gif", ".heic", ".heif", ".hif", ".j2c", ".j2k", ".jpc", ".jpf", ".jph", ".jpx", ".mpo",
    _BITMAP,
}  # fmt: skip
"""The usual suffixes of pictures. The content of a file decides what it is; a file with one of these that is not a
picture is damaged."""


_HINT_FOR_BITMAPS = "PBM has only black and white; write .pgm for gray"


def format_by_name(name: str) -> FileFormat:
    """The format of a suffix without the dot, e.g. png, tif or jpg. Raises ArgumentError for others."""
    found = known_format(f".{name}")
    if found is None:
        known = ", ".join([*(file_format.name.lower() for file_format in WRITABLE), "ppm", "jxl", "jp2"])
        others = f"known: {known}" if f".{name.lower()}" != _BITMAP else _HINT_FOR_BITMAPS
        raise ArgumentError(f"the format {name} cannot be written; {others}")
    # The suffixes of PNM are not names for the same content.
    return replace(PNM, suffixes=(f".{name.lower()}",)) if found is PNM else found


def known_format(suffix: str) -> FileFormat | None:
    """The format that a suffix stands for, if it can be written."""
    return DNG if suffix.lower() in DNG.suffixes else _BY_SUFFIX.get(suffix.lower())


def format_by_suffix(path: Location) -> FileFormat:
    """The format of a file name. Raises ArgumentError if it has no suffix, or one that cannot be written."""
    found = known_format(path.suffix)
    if found is None:
        reason = f"the suffix {path.suffix} is not supported" if path.suffix else "it has no suffix"
        is_bitmap = path.suffix.lower() == _BITMAP
        hint = _HINT_FOR_BITMAPS if is_bitmap else f"choose one of {', '.join(_BY_SUFFIX)}"
        raise ArgumentError(f"{path} cannot be written, because {reason}", hint=hint)
    if found.package:
        check_installed(found.package)
    return found


def result_name(name: str, file_format: FileFormat | None) -> str:
    """The file name of a result, given the name of its input and the format to write, if it is not the same.

    A suffix of another kind of picture is replaced; anything else after a dot is part of the name.
    """
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix == _BITMAP and file_format in (None, PNM):
        return f"{path.stem}{_GRAY_MAP}"
    file_format = file_format or _BY_SUFFIX.get(suffix, TIFF if suffix in RAW_SUFFIXES else PNG)
    if suffix in file_format.suffixes:
        return name
    is_suffix = suffix in SUFFIXES | RAW_SUFFIXES | OTHER_SUFFIXES
    return f"{path.stem if is_suffix else path.name}{file_format.suffixes[0]}"


def own_format(name: str) -> FileFormat:
    """The format for the result of a file of this kind, a name of `kinds.FileKind`: the same, if it is written."""
    if name == "camera RAW":
        return TIFF
    return next((known for known in (*WRITABLE, *_OTHERS) if known.name == name), PNG)


def check_depth(bit_depth: int | None) -> None:
    """Raise ArgumentError for a number of bits that no format has."""
    if bit_depth is not None and bit_depth not in tuple(DEPTHS):  # a tuple: lists have no hash
        raise ArgumentError(f"bit depth {bit_depth} is not supported; known: {', '.join(map(str, DEPTHS))}")


def choose_dtype(file_format: FileFormat, picture: Picture, path: Location, bit_depth: int | None) -> str:
    """The type of the samples to write. Raises OutputError if the format cannot store it, or alpha."""
    check_depth(bit_depth)
    _check_netpbm(picture, path)
    if file_format is DNG:
        raise OutputError(f"{path}: DNG stores mosaics, and this is a developed picture", hint="write TIFF")
    dtype = picture.dtype if bit_depth is None else DEPTHS[bit_depth]
    if file_format.can_store(dtype, picture):
        return dtype
    what = _name_unsupported(file_format, dtype, picture)
    origin = picture.encoding.format if picture.encoding else file_format.name
    is_asked = dtype != picture.dtype and dtype not in file_format.dtypes  # by {bit_depth}, not by the file
    origin = f" of the original {origin} file" if origin != file_format.name and not is_asked else ""
    others = " or ".join(other.name for other in WRITABLE if other.can_store(dtype, picture))
    bits = next(bits for bits, other in DEPTHS.items() if other == file_format.dtypes[-1])
    can_convert = file_format.can_store(DEPTHS[bits], picture)
    raise OutputError(
        f"{path}: {file_format.name} cannot store {what}{origin}",
        hint=f"write {others}, or set {{bit_depth}}" if can_convert else f"write {others}",
        bit_depth=bits,
    )


def _check_netpbm(picture: Picture, path: Location) -> None:
    """Raise OutputError for channels that a PGM or PPM does not have."""
    suffix = path.suffix.lower()
    if suffix == _GRAY_MAP and picture.channels == 3:
        raise OutputError(f"{path}: PGM cannot store colors", hint="write .ppm")
    if suffix in (_GRAY_MAP, _COLOR_MAP) and picture.alpha is not None:
        raise OutputError(f"{path}: {suffix[1:].upper()} cannot store alpha", hint="write .pam or PNG")


def _name_unsupported(file_format: FileFormat, dtype: str, picture: Picture) -> str:
    """What a format cannot store."""
    if dtype not in file_format.dtypes:
        return f"{_DEPTH_NAMES[dtype]} samples"
    if picture.extra is None or file_format.has_extra:
        return "alpha"
    return f"{count_channels(picture.extra)} (neither color nor alpha)"
