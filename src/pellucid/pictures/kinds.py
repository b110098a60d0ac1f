"""Which kind of file a picture is, by its content: suffixes are often wrong, and many files have none."""

import struct
from dataclasses import dataclass
from pathlib import Path

from pellucid.errors import PictureError
from pellucid.pictures.formats import RAW_SUFFIXES
from pellucid.pictures.structures import ifd
from pellucid.system import files

RAW = "raw"

_HEAD_BYTES = 64


@dataclass(frozen=True)
class FileKind:
    """A kind of file. name: for messages. loader: what decodes it; "" if nothing does.

    convertible_to: formats for people whose file is not read.
    """

    name: str
    loader: str = ""
    convertible_to: str = "PNG or TIFF"


_FLOATS = "32-bit floating-point TIFF"
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": FileKind("PNG", "png"),
    b"\xff\xd8\xff": FileKind("JPEG", "jpeg"),
    b"BM": FileKind("BMP", "bmp"),
    b"GIF8": FileKind("GIF", "gif"),
    b"\0\0\0\x0cjP  \r\n\x87\n": FileKind("JPEG 2000", "jp2"),
    b"\xff\x4f\xff\x51": FileKind("JPEG 2000", "jp2"),
    b"\0\0\0\x0cJXL \r\n\x87\n": FileKind("JPEG XL", "jxl"),
    b"\xff\x0a": FileKind("JPEG XL", "jxl"),
    b"FUJIFILMCCD-RAW": FileKind("camera RAW", RAW),
    b"IIRO": FileKind("camera RAW", RAW),  # Olympus
    b"IIRS": FileKind("camera RAW", RAW),
    b"MMOR": FileKind("camera RAW", RAW),
    b"IIU\0": FileKind("camera RAW", RAW),  # Panasonic
    b"II\x1a\0\0\0HEAPCCDR": FileKind("camera RAW", RAW),  # Canon CRW
    b"\0MRM": FileKind("camera RAW", RAW),  # Minolta
    b"FOVb": FileKind("camera RAW", RAW),  # Sigma
    b"8BPS": FileKind("Photoshop"),
    b"\x76\x2f\x31\x01": FileKind("OpenEXR", convertible_to=_FLOATS),
    b"#?RADIANCE": FileKind("Radiance HDR", convertible_to=_FLOATS),
    b"#?RGBE": FileKind("Radiance HDR", convertible_to=_FLOATS),
    b"PF\n": FileKind("PFM", convertible_to=_FLOATS),
    b"Pf\n": FileKind("PFM", convertible_to=_FLOATS),
    b"qoif": FileKind("QOI"),
    b"\xff\xd8\xff\xf7": FileKind("JPEG-LS"),
    b"\0\0\1\0": FileKind("Windows icon"),
    b"icns": FileKind("Apple icon"),
    b"DDS ": FileKind("DDS"),
    b"\x8aMNG": FileKind("MNG"),
    b"\x8bJNG": FileKind("JNG"),
    b"gimp xcf": FileKind("GIMP"),
    b"II\xbc\x01": FileKind("JPEG XR"),
    b"\x01\xda": FileKind("SGI"),
    b"SIMPLE  =": FileKind("FITS"),
    b"DIRM": FileKind("DjVu"),
}
_MAGIC |= {
    b"P%d" % number + space: FileKind("PNM", "pnm")
    for number in range(1, 8)
    for space in (b"\n", b" ", b"\t", b"\r")
}
_TIFF, _WEBP, _AVIF, _HEIC = (
    FileKind("TIFF", "tiff"),
    FileKind("WebP", "webp"),
    FileKind("AVIF", "heif"),
    FileKind("HEIC", "heic"),
)
_BY_FIRST_BYTE = {
    start: [magic for magic in _MAGIC if magic[:1] == start] for start in {magic[:1] for magic in _MAGIC}
}
"""Signatures by their first byte, because each file is identified several times."""

FORMAT_NAMES = {kind.loader: kind.name for kind in (*_MAGIC.values(), _TIFF, _WEBP, _AVIF, _HEIC)}
"""Loader -> name of the format that it decodes."""

_CGBI = FileKind("PNG for iOS (CgBI)", convertible_to="PNG, e.g. by `pngcrush -revert-iphone-optimizations`,")
"""Apple's variant, which starts like a PNG; its samples are stored in another way."""

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}

_DNG_VERSION, _PHOTOMETRIC, _SUB_DIRECTORIES = 0xC612, 0x0106, 0x014A
_MOSAIC_PHOTOMETRICS = (32803, 34892)
"""A color filter array, and LinearRaw."""


def identify(path: Path) -> FileKind | None:
    """The kind of a file by its content; None if it is not a known picture.

    A TIFF, or a file of no known kind, with the suffix of a RAW file is a RAW file: some makers' mosaics have no
    mark that TIFF defines. Raises PictureError if the file cannot be read.
    """
    head = files.read_head(path, _HEAD_BYTES)
    found = identify_head(head)
    if found in (None, _TIFF) and path.suffix.lower() in RAW_SUFFIXES:
        return FileKind("camera RAW", RAW)
    if found == _TIFF and (head[8:10] == b"CR" or _has_mosaic(path)):
        return FileKind("camera RAW", RAW)
    return found


def identify_head(head: bytes) -> FileKind | None:
    """The kind of a file by its first 64 bytes; a RAW file with the structure of a TIFF is TIFF here."""
    if head.startswith(_TIFF_MAGIC):
        return _TIFF
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _WEBP
    if head[4:8] == b"ftyp":
        return _identify_brands(head)
    if head[12:16] == b"CgBI":
        return _CGBI
    matches = [magic for magic in _BY_FIRST_BYTE.get(head[:1], ()) if head.startswith(magic)]
    return _MAGIC[max(matches, key=len)] if matches else None


def is_picture_head(head: bytes) -> bool:
    """Whether a file is a picture by its first 64 bytes, and not a camera RAW file."""
    kind = identify_head(head)
    return kind is not None and bool(kind.loader) and kind.loader != RAW


def _identify_brands(head: bytes) -> FileKind | None:
    (length,) = struct.unpack_from(">I", head)
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, min(length, len(head)), 4))}
    if brands & _AVIF_BRANDS:
        return _AVIF
    if head[8:12] == b"crx ":
        return FileKind("camera RAW", RAW)  # Canon CR3
    return _HEIC if brands & _HEIC_BRANDS else None


def _has_mosaic(path: Path) -> bool:
    """Whether a TIFF is a DNG, or has a mosaic in its first directory or those below it, as NEF and ARW have."""
    with path.open("rb") as file:
        first = ifd.first_directory(file)
        if _DNG_VERSION in first:
            return True
        directories = [first, *ifd.linked_directories(file, first, _SUB_DIRECTORIES)]
    return any(ifd.number(tags, _PHOTOMETRIC) in _MOSAIC_PHOTOMETRICS for tags in directories)


def find_kind(path: Path) -> FileKind | None:
    """`identify`, or None for a file that cannot be read: reading it reports the error."""
    try:
        return identify(path)
    except PictureError:
        return None
