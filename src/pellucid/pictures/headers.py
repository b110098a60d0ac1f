"""Format and encoding of picture files, from their headers."""

import struct
from pathlib import Path
from typing import IO

import numpy as np

from pellucid.errors import PictureError
from pellucid.pictures import formats, kinds
from pellucid.pictures.containers import jpeg
from pellucid.pictures.picture import Encoding
from pellucid.pictures.structures.chunks import iterate_webp

_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".7z", ".rar"}

_READ_ONLY = {
    ".gif": ("GIF",),
    ".avif": ("AVIF",),
    ".heic": ("HEIC",),
    ".heif": ("HEIC", "AVIF"),
    ".hif": ("HEIC", "AVIF"),
}
"""What formats that are not written are called by their suffixes."""

# Tables K.1 (luma) and K.2 (chroma) of the JPEG standard, in the zigzag order of the files.
# fmt: off
_K1 = np.array([
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51,
    61, 60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103, 104, 103, 62, 77,
    113, 121, 112, 100, 120, 92, 101, 103, 99,
])
_K2 = np.array([17, 18, 18, 24, 21, 24, 47, 26, 26, 47, 99, 66, 56, 66, *[99] * 50])
# fmt: on


def find_loader(path: Path) -> str:
    """The loader that a file needs, by its content: png, jpeg, tiff, webp, heif (for AVIF), bmp, gif, heic, ...

    Raises PictureError if it is another file, or cannot be read.
    """
    kind = kinds.identify(path)
    if kind is None:
        raise PictureError(
            f"{path} is not a PNG, JPEG, TIFF, WebP, AVIF, HEIC, JPEG XL, JPEG 2000, GIF, PNM or BMP file",
            hint="unpack it first" if path.suffix.lower() in _ARCHIVES else "convert it to one of them first",
        )
    if kind.loader == kinds.RAW:
        raise PictureError(
            f"{path} is a camera RAW file, which only `pellucid restore` reads",
            hint="develop it to TIFF or PNG first",
        )
    if not kind.loader:
        raise PictureError(
            f"{path} is in {kind.name} format, which is not supported",
            hint=f"convert it to {kind.convertible_to} first",
        )
    return kind.loader


def describe_suffix(path: Path, format: str) -> tuple[str, ...]:
    """A note if the suffix of a file is that of another format than its own, e.g. JPEG."""
    suffix = path.suffix.lower()
    writable = formats.known_format(suffix)
    names = _READ_ONLY.get(suffix, ()) if writable is None else (writable.name,)
    names = ("camera RAW",) if suffix in formats.RAW_SUFFIXES else names
    if not names or format in names:
        return ()
    return (f"a {format} file, not {names[0]} as its name says",)


def read_encoding(path: Path, loader: str) -> Encoding:
    """How a file other than TIFF stores its picture. Fields that a damaged header lacks keep their defaults."""
    parse = {"png": _parse_png, "jpeg": _parse_jpeg, "webp": _parse_webp, "bmp": _parse_bmp}
    try:
        with path.open("rb") as file:
            if loader in parse:
                return parse[loader](file)
            return Encoding(kinds.FORMAT_NAMES[loader], lossless=loader in ("gif", "pnm"))
    except (struct.error, IndexError):
        return Encoding(kinds.FORMAT_NAMES[loader])
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}") from error


def ijg_quality(tables: dict[int, list[int]]) -> int:
    """The quality, 1 to 100, for which the Independent JPEG Group's encoder has the most similar tables.

    tables: 64 numbers each, in the order of the file; 0 is luma, 1 is chroma. Exact for encoders that use the
    tables of the standard, as most programs do; an estimate for cameras, which have their own.
    """
    qualities = np.arange(100, 0, -1)
    scales = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)[:, None]
    distance = np.zeros(len(qualities), np.int64)
    for number, base in ((0, _K1), (1, _K2)):
        if number in tables:
            distance += np.abs(np.clip((base * scales + 50) // 100, 1, 255) - tables[number]).sum(1)
    return int(qualities[distance.argmin()])


def _parse_png(file: IO[bytes]) -> Encoding:
    bits, color, _, _, interlaced = struct.unpack_from(">BBBBB", file.read(29), 24)
    return Encoding("PNG", bits, palette=color == 3, progressive=bool(interlaced))


def _parse_bmp(file: IO[bytes]) -> Encoding:
    head = file.read(32)
    (size,) = struct.unpack_from("<I", head, 14)
    (bits,) = struct.unpack_from("<H", head, 24 if size == 12 else 28)
    return Encoding("BMP", min(bits, 8), palette=bits <= 8)


def _parse_webp(file: IO[bytes]) -> Encoding:
    kinds_of_samples = (kind for kind, _, _ in iterate_webp(file) if kind in (b"VP8 ", b"VP8L"))
    return Encoding("WebP", lossless=next(kinds_of_samples, b"VP8L") == b"VP8L")


def _parse_jpeg(file: IO[bytes]) -> Encoding:
    tables: dict[int, list[int]] = {}
    factors: list[int] = []
    bits, progressive, lossless = 8, False, False
    for marker, segment in jpeg.segments(file):
        if marker == 0xDB:
            tables |= _parse_tables(segment)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # no start of a frame
            bits, progressive, lossless = segment[0], marker % 4 == 2, marker % 4 == 3
            factors = list(segment[7::3])
    return Encoding(
        "JPEG",
        bits,
        quality=ijg_quality(tables) if tables else None,
        subsampling=_name_subsampling(factors),
        lossless=lossless,
        progressive=progressive,
    )


def _parse_tables(segment: bytes) -> dict[int, list[int]]:
    tables, offset = {}, 0
    while offset < len(segment):
        is_16_bit, number = segment[offset] >> 4, segment[offset] & 15
        tables[number] = list(struct.unpack_from(">64H" if is_16_bit else ">64B", segment, offset + 1))
        offset += 1 + 64 * (2 if is_16_bit else 1)
    return tables


def _name_subsampling(factors: list[int]) -> str | None:
    """E.g. "4:2:0". factors: for each component, horizontal in the high 4 bits, vertical in the low 4 bits."""
    if len(factors) < 3 or 0 in (factors[1] >> 4, factors[1] & 15):
        return None
    across, down = (factors[0] >> 4) // (factors[1] >> 4), (factors[0] & 15) // (factors[1] & 15)
    names = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1", (4, 2): "4:1:0"}
    return names.get((across, down))
