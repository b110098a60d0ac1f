"""Picture files: reading and writing all formats but camera RAW, which `raw` reads.

Samples are read exactly as stored: without color management (except that CMYK becomes sRGB), gamma or resizing.
The orientation is applied, alpha is separated, other metadata goes into `Picture.metadata`, and the way of storage
into `Picture.encoding`, so that a result is written in the same way. docs/formats.md shows what each format keeps.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pellucid.errors import OutputError, PictureError
from pellucid.pictures import formats, headers, kinds, metadata, readers, writers
from pellucid.pictures.camera import dng
from pellucid.pictures.codecs.decoders import check_size
from pellucid.pictures.contents.check import check_contents
from pellucid.pictures.finding import find_pictures
from pellucid.pictures.formats import FileFormat
from pellucid.pictures.picture import Encoding, Mosaic, Picture
from pellucid.pictures.records import xmp
from pellucid.pictures.tiff import directories, interpretation
from pellucid.pictures.tiff.decoding import list_decoders
from pellucid.pictures.white import check_white, describe_clipped
from pellucid.storage.urls import Location, is_url
from pellucid.system.arguments import check_number, checks_types
from pellucid.system.files import atomic_file, to_picture_path

_DEPTH_IN_HEADER = ("tiff", "png", "jpeg", "webp", "bmp", "gif")
"""Loaders of formats whose depth is known before decoding."""

MAX_PIXELS = 500_000_000
"""Files with more pixels are refused before decoding: a small file can unpack to any size."""


def find(folder: Path, *, takes_raw: bool = False) -> list[Path]:
    """All pictures below a folder by their content, sorted by path; see `finding.find_pictures`.

    takes_raw: also camera RAW files. Raises DataError if it is not a folder, or one that cannot be read.
    """
    return [*find_pictures(folder, takes_raw=takes_raw).pictures]


@checks_types(except_for=["path"])
def read(
    path: str | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    page: int | None = None,
    white: float | None = None,
    sidecar: bytes = b"",
) -> Picture:
    """Read a picture file with its own bit depth, and apply its orientation.

    PNG, JPEG, TIFF, WebP, AVIF, BMP, PNM and still GIF; HEIC, JPEG XL and JPEG 2000 with the extra `formats`.

    Samples of 1, 2 and 4 bits and palettes become 8 bit; 10 and 12 bits become 16 bit. Premultiplied alpha is
    divided out. The format is recognized by the first bytes, not by the suffix. A large picture is decoded into
    a temporary file (see `pellucid.system.memory`) and takes little memory. Forked processes share this file: copy
    the arrays before you change them in one of these.

    Channels of a TIFF that are neither color nor alpha, e.g. infrared, are in `Picture.extra`.

    max_pixels: files with more pixels are refused before decoding.
    page: number of the page of a TIFF, starting at 1. Default: the only one.
    white: the value of white in the file. Default: as the file specifies it (MaxSampleValue, SMaxSampleValue,
        sBIT), else the largest value of the type, or 1 for floating-point samples. The samples are scaled so that
        this value becomes the white of their type; `write` scales them back.
    sidecar: XMP that takes precedence over that in the file, e.g. of `sidecars.read`.
    Raises PictureError if the file is missing, damaged, not a single gray or RGB picture, or too large, or if its
    floating-point samples are far from 0 to 1 and white is not specified.
    """
    path = _to_path(path)
    check_white(white)
    check_number("max_pixels", max_pixels, 1)
    if sidecar and not xmp.is_packet(sidecar):
        raise PictureError("the sidecar is not XMP")
    loader = headers.find_loader(path)
    if loader == "tiff":
        pages = directories.find_pages(path)
        chosen = directories.choose_page(pages, path, page)
        is_partial = directories.DESCRIPTION in chosen.omitted
        notes = ("the description of the whole stack is not kept",) if is_partial else ()
        of_file = headers.describe_suffix(path, "TIFF")
        return readers.read_tiff(chosen, max_pixels, white, (*of_file, *pages.notes, *notes), sidecar)
    if page not in (None, 1):
        raise PictureError(f"{path} has one page; there is no page {page}", hint="omit {page}")
    encoding = headers.read_encoding(path, loader)
    lost = check_contents(path, loader)
    of_file = headers.describe_suffix(path, encoding.format)
    encoding = replace(encoding, notes=(*encoding.notes, *of_file))
    return _add_lost(readers.read(path, loader, encoding, max_pixels, white, sidecar), lost)


def _to_path(path: str | Path) -> Path:
    if is_url(path) and not Path(path).exists():
        raise PictureError(f"{path} is a URL; a file is needed", hint="pellucid.restore reads URLs")
    return to_picture_path(path)


def _add_lost(picture: Picture, parts: Sequence[str]) -> Picture:
    """The picture with a note about parts of its file that are lost, unless the metadata names them already."""
    assert picture.encoding is not None
    notes = picture.encoding.notes
    others = [part for part in parts if not any(part in note for note in notes)]
    if not others:
        return picture
    return replace(picture, encoding=replace(picture.encoding, notes=(*notes, f"not kept: {', '.join(others)}")))


@dataclass(frozen=True)
class PictureHeader:
    """What a file says about its picture. width, height: before the orientation is applied.

    has_alpha: whether the header says so. encoding: see `Picture`; None if its depth is only known after decoding.
    """

    width: int
    height: int
    has_alpha: bool
    encoding: Encoding | None


def read_header(path: str | Path, *, max_pixels: int = MAX_PIXELS, page: int | None = None) -> PictureHeader:
    """The header of a file, or of a page of a TIFF, by default the first.

    Raises PictureError as `read` does, as far as that is known without decoding.
    """
    path = to_picture_path(path)
    loader = headers.find_loader(path)
    if loader == "tiff":
        chosen = directories.choose_page(directories.find_pages(path), path, page or 1)
        stored, (width, height) = interpretation.parse(chosen), chosen.directory.size
        encoding, has_alpha = stored.encoding, stored.alpha_index is not None
    else:
        if page not in (None, 1):
            raise PictureError(f"{path} has one page; there is no page {page}", hint="omit {page}")
        if loader != "jpeg":  # of which the contents are only known after a pass over the whole file
            check_contents(path, loader)
        width, height, has_alpha = readers.probe_header(path, loader)
        encoding = headers.read_encoding(path, loader)
    check_size(width, height, path, max_pixels)
    return PictureHeader(width, height, has_alpha, encoding if loader in _DEPTH_IN_HEADER else None)


def decoding_cost(path: str | Path) -> tuple[int, int]:
    """(number of pixels, bytes of memory that `read` needs), from the header of a file.

    The bytes are in addition to the samples of a small picture and a constant of 80 MB. They are 0 for formats
    that are decoded row by row: PNG, TIFF and JPEG, unless they are interlaced or progressive.
    Raises PictureError as `read` does.
    """
    path = to_picture_path(path)
    loader = headers.find_loader(path)
    if loader == "tiff":
        costs = [_decoding_cost_of(page) for page in directories.find_pages(path).pages]
        return max(num_pixels for num_pixels, _ in costs), max(num_bytes for _, num_bytes in costs)
    return readers.decoding_cost(path, loader, headers.read_encoding(path, loader))


def _decoding_cost_of(page: directories.Page) -> tuple[int, int]:
    width, height = page.directory.size
    return width * height, list_decoders(interpretation.parse(page))[0].working_bytes


def list_pages(path: str | Path) -> directories.Pages | None:
    """The pages of a TIFF that has several, without smaller copies and masks; None for other files.

    Raises PictureError as `read` does.
    """
    path = to_picture_path(path)
    if headers.find_loader(path) != "tiff":
        return None
    pages = directories.find_pages(path)
    of_file = headers.describe_suffix(path, "TIFF")
    return replace(pages, notes=(*of_file, *pages.notes)) if len(pages) > 1 else None


def read_page(
    page: directories.Page, *, max_pixels: int = MAX_PIXELS, white: float | None = None, sidecar: bytes = b""
) -> Picture:
    """Read one of the pages of `list_pages` as `read` does, but with the description of the whole stack."""
    return readers.read_tiff(page, max_pixels, white, sidecar=sidecar)


def encoding_bytes(path: str | Path, num_pixels: int, *, quality: int | None = None) -> int:
    """The most memory that writing a picture to this path needs, in addition to a constant of 80 MB.

    0 except for WebP, JPEG XL, JPEG 2000 and small JPEG files. Raises OutputError if the suffix cannot be written.
    """
    return writers.encoding_bytes(formats.format_by_suffix(Path(path)), num_pixels, quality)


def result_name(name: str, format: str | None = None, *, source: Path | None = None) -> str:
    """The file name of a result, given the name of its input.

    format: png, tiff, jpeg, webp, bmp, ppm, pgm, pam, jxl or jp2. By default the format of the input, or PNG if
    it cannot be written (TIFF for camera RAW). source: the input, whose content decides what its format is;
    without it, the name does. Raises ArgumentError for other formats.
    """
    if format is not None:
        return formats.result_name(name, formats.format_by_name(format))
    kind = None if source is None else kinds.find_kind(source)
    return formats.result_name(name, None if kind is None else formats.own_format(kind.name))


def is_raw(path: Path) -> bool:
    """Whether a file is a camera RAW file, by its content or its suffix; False for files that cannot be read."""
    kind = kinds.find_kind(path)
    return kind is not None and kind.loader == kinds.RAW


def check_format(path: Location, picture: Picture | None = None, *, bit_depth: int | None = None) -> None:
    """Raise OutputError if the suffix of path cannot be written, or its format cannot store the picture."""
    file_format = formats.format_by_suffix(path)
    if picture is not None:
        formats.choose_dtype(file_format, picture, path, bit_depth)


@checks_types(except_for=["picture"])
def write(
    picture: Picture | Mosaic,
    path: str | Path,
    *,
    overwrite: bool = False,
    quality: int | None = None,
    bit_depth: int | None = None,
    before_rename: Callable[[Path], None] | None = None,
) -> tuple[str, ...]:
    """Write a picture atomically, in the format of the path's suffix: PNG, JPEG, TIFF, WebP, BMP, PNM,
    JPEG XL or JPEG 2000; a mosaic as DNG, see `dng.encode`.

    A picture that was read from a file of the same format is written in the same way: a JPEG with its quality and
    chroma subsampling, a TIFF with its compression, a lossy WebP or JPEG XL lossy. A JPEG made from another
    format gets quality 95 and full color resolution. Everything else is lossless.

    Metadata are adapted if the picture has another size than the file that they are from, e.g. the size in EXIF
    and face regions. Returns one line that names the metadata that are not kept, if there are any.

    overwrite: replace an existing file.
    quality: 1 to 100, for JPEG, and for WebP and JPEG XL, which it makes lossy. Other formats ignore it.
    bit_depth: 8, 16 or 32 (floating-point) instead of the picture's own.
    before_rename: called with the complete temporary file, just before it is renamed to path.
    Raises OutputError if the format cannot store the depth or alpha, if the file exists and overwrite is False, or
    if it cannot be written. Nothing incomplete is left behind.
    """
    if isinstance(picture, Mosaic):
        return _write_mosaic(picture, Path(path), overwrite=overwrite, before_rename=before_rename)
    if not isinstance(picture, Picture):
        raise PictureError(
            f"an object of type {type(picture).__name__}; a Picture is needed",
            hint="Picture.from_array, from_pil and from_tensor make one",
        )
    path = Path(path)
    file_format = formats.format_by_suffix(path)
    dtype = formats.choose_dtype(file_format, picture, path, bit_depth)
    if quality is not None and not 1 <= quality <= 100:
        raise OutputError(f"a quality of {quality}; 1 to 100 is needed")
    with atomic_file(path, overwrite=overwrite, before_rename=before_rename) as temporary:
        clipped = describe_clipped(picture, dtype)
        missing = (*clipped, *_write(picture.as_depth(dtype), file_format, temporary, path, quality))
    return _describe_missing(missing, file_format)


def _write_mosaic(
    mosaic: Mosaic, path: Path, *, overwrite: bool, before_rename: Callable[[Path], None] | None
) -> tuple[str, ...]:
    found = formats.format_by_suffix(path)
    if found is not formats.DNG:
        raise OutputError(f"{path}: {found.name} cannot store a mosaic", hint="write .dng")
    content = dng.encode(mosaic)
    with atomic_file(path, overwrite=overwrite, before_rename=before_rename) as temporary:
        temporary.write_bytes(content)
    return ()


def write_pages(
    pictures: Iterable[Picture],
    path: str | Path,
    pages: directories.Pages,
    *,
    scale: int = 1,
    overwrite: bool = False,
    bit_depth: int | None = None,
    before_rename: Callable[[Path], None] | None = None,
) -> tuple[str, ...]:
    """Write pictures as the pages of one TIFF, atomically. Each is written before the next one is asked for.

    pages: those that the pictures come from, as many. scale: how many times as long their sides are.
    Other arguments, result and errors: see `write`.
    """
    path, is_stack = Path(path), directories.describes_stack(pages.pages[0].directory)
    with (
        atomic_file(path, overwrite=overwrite, before_rename=before_rename) as temporary,
        temporary.open("r+b") as file,
        TemporaryDirectory(prefix="pellucid-") as folder,
    ):
        writer = directories.StackWriter(file, is_big=_is_big(pages, scale))
        missing: list[str] = []
        for number, picture in enumerate(pictures):
            page = Path(folder, "page.tif")
            page.write_bytes(b"")
            dtype = formats.choose_dtype(formats.TIFF, picture, path, bit_depth)
            missing += describe_clipped(picture, dtype)
            missing += _write(picture.as_depth(dtype), formats.TIFF, page, path, None)
            # Readers of a stack go by its description, and expect nothing else.
            writer.append(page, {} if is_stack else directories.number_page(number, len(pages)))
        writer.finish()
    return _describe_missing(missing, formats.TIFF)


def _write(
    picture: Picture, file_format: FileFormat, temporary: Path, path: Path, quality: int | None
) -> tuple[str, ...]:
    """Write a picture with metadata that are true for its size into an empty file. Returns what is not kept."""
    own = picture.width, picture.height
    before = picture.metadata.get(metadata.SIZE, own)
    adapted, removed = metadata.adapt(
        picture.metadata,
        before=before,
        after=own,
        channels=sum(plane.shape[2] for plane in picture.planes),
        dtype=picture.dtype,
        value_scale=writers.find_value_scale(picture, file_format),
    )
    return (*removed, *writers.write(replace(picture, metadata=adapted), file_format, temporary, path, quality))


def _describe_missing(missing: Sequence[str], file_format: FileFormat) -> tuple[str, ...]:
    return (f"not kept in {file_format.name}: {', '.join(dict.fromkeys(missing))}",) if missing else ()


def _is_big(pages: directories.Pages, scale: int) -> bool:
    """Whether the pages may not fit into the 4 GB of a classic TIFF; each sample has at most 4 bytes."""
    return sum(4 * scale**2 * page.directory.num_samples for page in pages.pages) > directories.CLASSIC_BYTES
