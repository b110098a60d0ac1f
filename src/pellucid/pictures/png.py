"""PNG metadata that libvips does not copy correctly: texts, XMP, captions, and the meaning of colors.

libvips (8.18) truncates keywords of texts at the first space, writes XMP as a type of text that other programs do
not read, and drops all chunks about color except the ICC profile.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import IO

from pellucid.pictures import iptc
from pellucid.pictures.picture import Picture

_COLOR = {b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI"}
_SIGNIFICANT = b"sBIT"
_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
_XMP_KEY = b"XML:com.adobe.xmp"
_MAX_BYTES = 2**24
_HEADER_END = 33
"""Bytes of the signature and the first chunk, IHDR."""


def read_chunks(file: IO[bytes]) -> tuple[bytes, bytes]:
    """(unchanged chunks about color and texts, IPTC records) of a PNG, without texts that contain XMP or EXIF."""
    chunks, records = b"", b""
    for kind, content in _iterate_chunks(file):
        if kind in _COLOR:
            chunks += _build_chunk(kind, content)
        elif kind in _TEXT:
            key = content.split(b"\0", 1)[0]
            if key == iptc.PNG_KEY.encode():
                records += iptc.parse_png_text(_decode_text(kind, content))
            elif key != _XMP_KEY and not key.startswith(b"Raw profile type "):
                chunks += _build_chunk(kind, content)
    return chunks, records


def significant_bits(file: IO[bytes]) -> int:
    """The most significant bits of a color, as the chunk sBIT specifies them; 0 if there is none."""
    return next(
        (max(content[:3]) for kind, content in _iterate_chunks(file) if kind == _SIGNIFICANT and content), 0
    )


def build_significant_bits(picture: Picture) -> bytes:
    """The chunk sBIT, if the samples are stored in fewer bits than their type has."""
    white = 0.0 if picture.encoding is None else picture.encoding.white or 0.0
    bits = int(white + 1).bit_length() - 1
    if not bits or white != 2**bits - 1:
        return b""
    return _build_chunk(_SIGNIFICANT, bytes([bits] * (picture.channels + (picture.alpha is not None))))


def add_chunks(file: IO[bytes], chunks: bytes, xmp: bytes, records: bytes) -> None:
    """Insert chunks of `read_chunks`, XMP and IPTC records before the samples of a PNG.

    file: open for reading and writing.
    """
    if xmp:
        chunks += _build_chunk(b"iTXt", _XMP_KEY + b"\0\0\0\0\0" + xmp)
    if records:
        chunks += _build_chunk(b"tEXt", f"{iptc.PNG_KEY}\0{iptc.build_png_text(records)}".encode())
    if chunks:
        _insert(file, _HEADER_END, chunks)


def _iterate_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of chunks about color and texts; stops where a file is damaged."""
    offset = 8
    while True:
        file.seek(offset)
        header = file.read(8)
        if len(header) < 8:
            return
        length, kind = struct.unpack(">I4s", header)
        if kind in _COLOR | _TEXT | {_SIGNIFICANT} and length <= _MAX_BYTES:
            yield kind, file.read(length)
        offset += length + 12


def _decode_text(kind: bytes, content: bytes) -> str:
    """The text of a tEXt or zTXt chunk, truncated at 16 MiB; "" if it is damaged."""
    text = content.partition(b"\0")[2]
    try:
        text = zlib.decompressobj().decompress(text[1:], _MAX_BYTES) if kind == b"zTXt" else text
    except zlib.error:
        return ""
    return text.decode("latin-1")


def _build_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _insert(file: IO[bytes], offset: int, content: bytes) -> None:
    """Insert content at an offset: moves the rest of the file, block by block, starting at the end."""
    block_bytes = 2**20
    for stop in range(file.seek(0, 2), offset, -block_bytes):
        start = max(offset, stop - block_bytes)
        file.seek(start)
        block = file.read(stop - start)
        file.seek(start + len(content))
        file.write(block)
    file.seek(offset)
    file.write(content)
