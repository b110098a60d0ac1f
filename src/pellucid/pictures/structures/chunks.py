"""Chunks of PNG, which are also the form in which metadata describe colors, and of WebP."""

import struct
import zlib
from collections.abc import Iterator
from typing import IO


def build_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def split_chunks(chunks: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of chunks that follow each other."""
    offset = 0
    while offset + 12 <= len(chunks):
        length, kind = struct.unpack_from(">I4s", chunks, offset)
        yield kind, chunks[offset + 8 : offset + 8 + length]
        offset += length + 12


def iterate_png(file: IO[bytes], offset: int = 8) -> Iterator[tuple[bytes, int, int]]:
    """(type, offset, length of the content) of each chunk of a PNG file, up to the last one."""
    while len(head := _read_head(file, offset)) == 8:
        length, kind = struct.unpack(">I4s", head)
        yield kind, offset, length
        if kind == b"IEND":
            return
        offset += length + 12


def iterate_webp(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """(type, offset, length of the content) of each chunk of a WebP file."""
    offset = 12
    while len(head := _read_head(file, offset)) == 8:
        kind, length = struct.unpack("<4sI", head)
        yield kind, offset, length
        offset += 8 + length + length % 2


def _read_head(file: IO[bytes], offset: int) -> bytes:
    file.seek(offset)
    return file.read(8)
