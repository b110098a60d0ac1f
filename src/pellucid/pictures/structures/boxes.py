"""ISO base media boxes, the containers of HEIC, AVIF, JPEG 2000 and JPEG XL: finding them, and adding some.

Source: ISO/IEC 14496-12, 4.2: a box is its length, its type, and its content.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""What a box of the type uuid with XMP starts with."""

MAX_BYTES = 2**26
"""Limit on the content of a box that is read as a whole; only samples are longer."""


_PADDING = b"\0\0\0\0"


@dataclass(frozen=True)
class Box:
    """kind: e.g. b"ftyp". start, stop: where its content is in the file."""

    kind: bytes
    start: int
    stop: int

    def read(self, file: IO[bytes]) -> bytes:
        """The content, up to 64 MiB of it."""
        file.seek(self.start)
        return file.read(min(self.stop - self.start, MAX_BYTES))


def iterate_boxes(file: IO[bytes], start: int = 0, stop: int | None = None) -> Iterator[Box]:
    """The boxes in a part of a file, one after the other; stops where a length is impossible."""
    end = file.seek(0, 2) if stop is None else stop
    while end - start >= 8:
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if length == 1:
            header, length = 16, int.from_bytes(file.read(8), "big")
        elif length == 0:  # up to the end of the file
            length = end - start
        if length < header or start + length > end or kind == _PADDING:
            return
        yield Box(kind, start + header, start + length)
        start += length


def iterate_own_boxes(file: IO[bytes]) -> Iterator[Box]:
    """The outermost boxes, without those of an appended video, which starts like a file of its own (ftyp)."""
    num_types = 0
    for box in iterate_boxes(file):
        num_types += box.kind == b"ftyp"
        if num_types > 1:
            return
        yield box


def find_box(file: IO[bytes], *kinds: bytes, inside: Box | None = None) -> Box | None:
    """The first box of the last kind, inside the first box of the kind before it, and so on.

    inside: the outermost box to search; by default the file.
    """
    start, stop = (0, None) if inside is None else (inside.start, inside.stop)
    found = None
    for kind in kinds:
        found = next((box for box in iterate_boxes(file, start, stop) if box.kind == kind), None)
        if found is None:
            return None
        start, stop = found.start + _FULL_BOXES.get(kind, 0), found.stop
    return found


def build_box(kind: bytes, content: bytes) -> bytes:
    """A box of less than 4 GiB."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


_FULL_BOXES = {b"meta": 4, b"iref": 4}
"""Boxes that contain boxes after a version and flags: bytes before the first one."""
