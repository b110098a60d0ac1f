"""What a picture file says about itself before any sample is decoded."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from pellucid.errors import PictureError
from pellucid.pictures import exif
from pellucid.pictures.formats import RAW_SUFFIXES
from pellucid.pictures.picture import Encoding
from pellucid.system import files

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
_NOT_DECODED = {
    b"\0\0\0\x0cjP  \r\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL \r\n": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"GIF8": "GIF",
}
_HEIC_BRANDS = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftyphevx", b"ftypheim", b"ftypheis")
_COMPRESSIONS = {1: "none", 5: "lzw", 7: "jpeg", 8: "deflate", 32946: "deflate", 32773: "packbits", 50000: "zstd"}

# Tables K.1 (brightness) and K.2 (color) of the JPEG standard, in the zigzag order of the files.
# fmt: off
_K1 = np.array([
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51,
    61, 60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103, 104, 103, 62, 77,
    113, 121, 112, 100, 120, 92, 101, 103, 99,
])
_K2 = np.array([17, 18, 18, 24, 21, 24, 47, 26, 26, 47, 99, 66, 56, 66, *[99] * 50])
# fmt: on


def kind(path: Path) -> str:
    """Which reader a file needs, by its first bytes: png, jpeg, tiff, webp, heif (AVIF) or bmp.

    Raises PictureError when it is none of them, or cannot be read.
    """
    head = files.read_head(path)
    if path.suffix.lower() in RAW_SUFFIXES:
        raise PictureError(
            f"{path} is a camera RAW file, which only `restore` takes; develop it to TIFF or PNG first"
        )
    if head[4:12] in (b"ftypavif", b"ftypmif1"):
        return "heif"
    for magic, found in _MAGIC.items():
        if head.startswith(magic) and (found != "webp" or head[8:12] == b"WEBP"):
            return found
    raise PictureError(_other(path, head))


def encoding(path: Path, kind: str) -> Encoding:
    """How a file of this kind holds its picture. What a damaged one does not say is left at its default."""
    describe = {"png": _png, "jpeg": _jpeg, "tiff": _tiff, "webp": _webp, "bmp": _bmp}.get(kind)
    try:
        with path.open("rb") as file:
            return describe(file) if describe else Encoding("AVIF", lossless=False)
    except (struct.error, IndexError):
        return Encoding({"webp": "WebP"}.get(kind, kind.upper()))
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}") from error


def ijg_quality(tables: dict[int, list[int]]) -> int:
    """The quality whose tables of the Independent JPEG Group are nearest to these.

    tables: 64 numbers each, in the order of the file, brightness as 0 and color as 1. Exact for encoders that
    use the standard's tables, as most programs do; a fair guess for cameras, which have their own.
    """
    qualities = np.arange(100, 0, -1)
    scales = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)[:, None]
    distance = np.zeros(len(qualities), np.int64)
    for number, base in ((0, _K1), (1, _K2)):
        if number in tables:
            # The standard's numbers beyond 8 bits cannot be told apart from those cut there.
            found = np.minimum(tables[number], 255)
            distance += np.abs(np.clip((base * scales + 50) // 100, 1, 255) - found).sum(1)
    return int(qualities[distance.argmin()])


def _other(path: Path, head: bytes) -> str:
    known = [name for magic, name in _NOT_DECODED.items() if head.startswith(magic)]
    known += ["HEIC"] if head[4:12] in _HEIC_BRANDS else []
    found = (
        f"a {known[0]} file, which cannot be decoded here"
        if known
        else "not a PNG, JPEG, TIFF, WebP, AVIF or BMP file"
    )
    return f"{path} is {found}; convert it to {'PNG or TIFF' if known else 'one of them'} first"


def _png(file: IO[bytes]) -> Encoding:
    bits, color, _, _, interlaced = struct.unpack_from(">BBBBB", file.read(29), 24)
    return Encoding("PNG", bits, palette=color == 3, progressive=bool(interlaced))


def _bmp(file: IO[bytes]) -> Encoding:
    head = file.read(32)
    (size,) = struct.unpack_from("<I", head, 14)
    (bits,) = struct.unpack_from("<H", head, 24 if size == 12 else 28)
    return Encoding("BMP", min(bits, 8), palette=bits <= 8)


def _webp(file: IO[bytes]) -> Encoding:
    file.seek(12)
    while len(head := file.read(8)) == 8:
        if head[:4] in (b"VP8 ", b"VP8L"):
            return Encoding("WebP", lossless=head[:4] == b"VP8L")
        (length,) = struct.unpack_from("<I", head, 4)
        file.seek(length + length % 2, 1)
    return Encoding("WebP")


def _tiff(file: IO[bytes]) -> Encoding:
    tags = exif.first_folder(file)
    compression = _COMPRESSIONS.get(exif.number(tags, 0x0103) or 1)
    return Encoding(
        "TIFF",
        exif.number(tags, 0x0102) or 1,
        palette=exif.number(tags, 0x0106) == 3,
        compression=compression,
        lossless=compression != "jpeg",
    )


def _jpeg(file: IO[bytes]) -> Encoding:
    tables: dict[int, list[int]] = {}
    bits, progressive, sampling = 8, False, []
    for marker, segment in _segments(file):
        if marker == 0xDB:
            tables |= _tables(segment)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # those start no frame
            bits, progressive = segment[0], marker % 4 == 2
            sampling = list(segment[7::3])
    return Encoding(
        "JPEG",
        bits,
        quality=ijg_quality(tables) if tables else None,
        subsampling=_subsampling(sampling),
        lossless=False,
        progressive=progressive,
    )


def _segments(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment up to the first samples."""
    file.seek(2)
    while (head := file.read(2)) and head[0] == 0xFF:
        while head[1] == 0xFF:  # any number of these may fill up before a marker
            head = head[1:] + file.read(1)
        if head[1] == 0xDA:
            return
        (length,) = struct.unpack(">H", file.read(2))
        yield head[1], file.read(max(0, length - 2))


def _tables(segment: bytes) -> dict[int, list[int]]:
    found, place = {}, 0
    while place < len(segment):
        wide, number = segment[place] >> 4, segment[place] & 15
        found[number] = list(struct.unpack_from(">64H" if wide else ">64B", segment, place + 1))
        place += 1 + 64 * (2 if wide else 1)
    return found


def _subsampling(sampling: list[int]) -> str | None:
    """ "4:2:0" and the like, from the factors of each component (across in the high bits, down in the low)."""
    if len(sampling) < 3 or 0 in (sampling[1] >> 4, sampling[1] & 15):
        return None
    across, down = (sampling[0] >> 4) // (sampling[1] >> 4), (sampling[0] & 15) // (sampling[1] & 15)
    names = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1", (4, 2): "4:1:0"}
    return names.get((across, down))
