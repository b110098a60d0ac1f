"""What libvips does not carry through a PNG as it should: texts, XMP, captions, and how its colors are meant.

libvips (8.18) cuts the names of texts at the first space, writes XMP as a kind of text that other programs do
not look for, and leaves out all chunks about color but the ICC profile.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import IO

from pellucid.pictures import iptc

_COLOR = {b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI"}
_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
_XMP_KEY = b"XML:com.adobe.xmp"
_MAX_BYTES = 2**24
_HEADER_END = 33
"""Behind the signature and the first chunk, IHDR."""


def kept_chunks(file: IO[bytes]) -> tuple[bytes, bytes]:
    """(chunks about color and texts, as they are; IPTC records) of a PNG. XMP and EXIF in texts are left out."""
    chunks, records = b"", b""
    for kind, content in _chunks(file):
        if kind in _COLOR:
            chunks += _chunk(kind, content)
        elif kind in _TEXT:
            key = content.split(b"\0", 1)[0]
            if key == iptc.PNG_KEY.encode():
                records += iptc.from_png(_text(kind, content))
            elif key != _XMP_KEY and not key.startswith(b"Raw profile type "):
                chunks += _chunk(kind, content)
    return chunks, records


def add_chunks(file: IO[bytes], chunks: bytes, xmp: bytes, records: bytes) -> None:
    """Put chunks as `kept_chunks` gives them, XMP and IPTC records into a PNG, where every reader looks.

    file: open for reading and writing.
    """
    if xmp:
        chunks += _chunk(b"iTXt", _XMP_KEY + b"\0\0\0\0\0" + xmp)
    if records:
        chunks += _chunk(b"tEXt", f"{iptc.PNG_KEY}\0{iptc.to_png(records)}".encode())
    if chunks:
        _insert(file, _HEADER_END, chunks)


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of those that are of interest, of a damaged file up to the damage."""
    place = 8
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        if kind in _COLOR | _TEXT and length <= _MAX_BYTES:
            yield kind, file.read(length)
        place += length + 12


def _text(kind: bytes, content: bytes) -> str:
    """The text of a tEXt or zTXt chunk; "" where it cannot be unpacked or is longer than any caption."""
    packed = content.partition(b"\0")[2]
    try:
        raw = zlib.decompressobj().decompress(packed[1:], _MAX_BYTES) if kind == b"zTXt" else packed
    except zlib.error:
        return ""
    return raw.decode("latin-1")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _insert(file: IO[bytes], place: int, content: bytes) -> None:
    """Move what is behind place, from the end on, block by block."""
    block_bytes = 2**20
    for stop in range(file.seek(0, 2), place, -block_bytes):
        start = max(place, stop - block_bytes)
        file.seek(start)
        block = file.read(stop - start)
        file.seek(start + len(content))
        file.write(block)
    file.seek(place)
    file.write(content)
