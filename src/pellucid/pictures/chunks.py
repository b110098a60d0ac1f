"""Chunks of PNG, which are also the form in which metadata describe colors."""

import struct
import zlib
from collections.abc import Iterator


def build_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def split_chunks(chunks: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of chunks that follow each other."""
    offset = 0
    while offset + 12 <= len(chunks):
        length, kind = struct.unpack_from(">I4s", chunks, offset)
        yield kind, chunks[offset + 8 : offset + 8 + length]
        offset += length + 12
