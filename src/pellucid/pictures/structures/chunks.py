"""The parts of files: chunks of PNG and WebP, blocks of GIF, segments of JPEG.

Chunks of PNG are also the form in which metadata describe colors.
"""

import mmap
import re
import struct
import zlib
from collections.abc import Iterator
from typing import IO

_GIF_EXTENSION = 0x21
_JPEG_TEMPORARY = 0x01
"""The only other marker without a length."""


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


GIF_FRAME, GIF_END = 0x2C, 0x3B
"""Types of blocks that are not extensions."""


def iterate_gif(file: IO[bytes]) -> Iterator[tuple[int, int, int]]:
    """(type, start, end) of each frame and extension of a GIF, and of its last byte; stops where it is damaged.

    type: GIF_FRAME, GIF_END, or the label of an extension. The content of an extension, or the place and size of a
    frame, starts at `start`.
    """
    file.seek(10)
    flags, _, _ = file.read(3).ljust(3, b"\0")
    offset = 13 + _palette_bytes(flags)
    while head := _read_at(file, offset, 10):
        if head[0] == GIF_END:
            yield GIF_END, offset, offset + 1
            return
        if head[0] == GIF_FRAME and len(head) == 10:
            kind, start = GIF_FRAME, offset + 1
            offset += 11 + _palette_bytes(head[9])
        elif head[0] == _GIF_EXTENSION and len(head) > 1:
            kind, start = head[1], offset + 2
            offset = start
        else:
            return
        while length := _read_at(file, offset, 1):
            offset += 1 + length[0]
            if length == b"\0":
                break
        else:
            return
        yield kind, start, offset


def split_gif_blocks(content: bytes) -> list[bytes]:
    """The blocks of an extension, each of which follows its length."""
    blocks, offset = list[bytes](), 0
    while offset < len(content) and (length := content[offset]):
        blocks.append(content[offset + 1 : offset + 1 + length])
        offset += 1 + length
    return blocks


JPEG_SCAN, JPEG_END = 0xDA, 0xD9
"""Markers: of the start of the samples, and of the end of the picture."""

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker other than stuffing, fill bytes and restarts, which are parts of the samples."""


def iterate_jpeg(content: bytes | mmap.mmap, offset: int = 0) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of the content of each segment of the JPEG at an offset, also between its scans.

    The last one is JPEG_END. Stops where the content ends.
    """
    offset += 2
    while match := _JPEG_MARKER.search(content, offset):
        marker, start = content[match.start() + 1], match.end()
        if marker in (JPEG_END, _JPEG_TEMPORARY):
            length = 0
        elif start + 2 <= len(content):
            length = int.from_bytes(content[start : start + 2], "big")
        else:
            return
        offset = start + length
        yield marker, min(start + 2, offset), min(offset, len(content))
        if marker == JPEG_END:
            return


def _palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _read_head(file: IO[bytes], offset: int) -> bytes:
    return _read_at(file, offset, 8)


def _read_at(file: IO[bytes], offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
