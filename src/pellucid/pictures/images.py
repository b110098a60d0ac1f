"""Picture files: reading and writing PNG, JPEG, TIFF, WebP and BMP, and reading AVIF.

Samples come through exactly as the file holds them: no color management (but CMYK becomes sRGB), no gamma,
no resizing. Orientation is applied, alpha is set apart, everything else travels in `Picture.metadata`, and how
the file held it in `Picture.encoding`, so that a result is written in the same way. docs/formats.md has the
table of what each format holds.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from pellucid.errors import DataError, OutputError
from pellucid.pictures import formats, headers, readers, writers
from pellucid.pictures.formats import OTHER_SUFFIXES as OTHER_SUFFIXES
from pellucid.pictures.formats import RAW_SUFFIXES as RAW_SUFFIXES
from pellucid.pictures.formats import SUFFIXES as SUFFIXES
from pellucid.pictures.picture import Picture
from pellucid.system.files import atomic_file, find_files

MAX_PIXELS = 500_000_000
"""A header that promises more is refused before anything is decoded: a small file can unpack to any size."""


def find(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """Every picture below a folder, sorted by path, without hidden ones and linked folders."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; a folder of pictures is needed")
    return sorted(find_files(folder, suffixes))


def read(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in a file, at the file's depth and upright.

    1, 2 and 4-bit samples and palettes come as 8 bit; 10 and 12 bit fill 16. Premultiplied alpha is divided
    out. What a file is follows from its first bytes, not from its suffix. A large picture is decoded into a
    file of its own (see `memory`), and takes little memory.
    Raises PictureError when the file is missing, damaged, no single gray or RGB picture, or when its header
    promises more than max_pixels.
    """
    path = Path(path)
    kind = headers.kind(path)
    return readers.read(path, kind, headers.encoding(path, kind), max_pixels)


def size(path: str | Path) -> tuple[int, int]:
    """How many pixels a file has, and how many bytes `read` takes for it, after a look at the header.

    The bytes are beyond the samples of a small picture and a constant of 80 MB: 0 where rows are decoded one
    after the other. Progressive JPEG, interlaced PNG, WebP, AVIF and BMP take the whole picture at once.
    Raises PictureError as `read` does.
    """
    path = Path(path)
    kind = headers.kind(path)
    return readers.size(path, kind, headers.encoding(path, kind))


def encoding_bytes(path: str | Path, num_pixels: int, *, quality: int | None = None) -> int:
    """How much memory writing so many pixels under this name takes beyond a constant of 80 MB, at most.

    0 but for WebP and small JPEG files. Raises OutputError when no picture can be written under such a name.
    """
    return writers.encoding_bytes(formats.of(Path(path)), num_pixels, quality)


def written_name(name: str, format: str | None = None) -> str:
    """The name for a result of a file of this name.

    The same, or as PNG (TIFF for camera RAW) where its format cannot be written, or as the format asked for:
    png, tiff, jpeg, webp or bmp. Raises OutputError for another one.
    """
    return formats.written_name(name, None if format is None else formats.named(format))


def can_write(path: Path, picture: Picture | None = None, *, bit_depth: int | None = None) -> None:
    """Raise OutputError when no picture, or not this one at this depth, can be written under such a name."""
    target = formats.of(path)
    if picture is not None:
        formats.check_holds(target, picture, path, bit_depth)


def write(
    picture: Picture,
    path: str | Path,
    *,
    overwrite: bool = False,
    quality: int | None = None,
    bit_depth: int | None = None,
    before_rename: Callable[[Path], None] | None = None,
) -> None:
    """Write a picture in the format its suffix names, whole or not at all.

    What came from a file of the same format is written as that was: a JPEG with its quality and color
    resolution, a TIFF with its compression, a lossy WebP lossy. A JPEG of another origin gets a quality of 95
    and full color resolution; everything else is lossless.

    quality: 1 to 100, for JPEG and, which makes it lossy, for WebP. Other formats lose nothing whatever it is.
    bit_depth: 8, 16 or 32 (floating-point) instead of the picture's own.
    before_rename: called with the finished file just before it takes its name.
    Raises OutputError, before anything is written, when the format cannot hold the depth or alpha, or when
    something is at path and overwrite is False.
    """
    path = Path(path)
    target = formats.of(path)
    dtype = formats.check_holds(target, picture, path, bit_depth)
    if quality is not None and not 1 <= quality <= 100:
        raise OutputError(f"a quality of {quality}; 1 to 100 is needed")
    with atomic_file(path, overwrite=overwrite, before_rename=before_rename) as temporary:
        writers.write(picture.as_depth(dtype), target, temporary, path, quality)
