"""Where a JPEG 2000 file ends; programs append videos and other data to it.

Source: ISO/IEC 15444-1, Annexes A and I.
"""

import struct
from typing import IO

from pellucid.pictures.structures.boxes import iterate_own_boxes

CODESTREAM = b"\xff\x4f\xff\x51"
"""How a codestream starts. A file may be only a codestream, without boxes."""

_TILE_PART, _CODESTREAM_END = b"\xff\x90", b"\xff\xd9"


def find_jp2_end(file: IO[bytes]) -> int:
    """The offset after the last byte of the picture; 0 if it is unknown."""
    file.seek(0)
    if file.read(4) == CODESTREAM:
        return _find_codestream_end(file, 0)
    boxes = [*iterate_own_boxes(file)]
    if not boxes:
        return 0
    # The length of the last box may be "up to the end of the file", to which something was appended.
    end = _find_codestream_end(file, boxes[-1].start) if boxes[-1].kind == b"jp2c" else 0
    return end or boxes[-1].stop


def _find_codestream_end(file: IO[bytes], start: int) -> int:
    """Where a codestream ends; 0 if a tile-part does not state its length (A.4.2)."""
    place = start + 2
    while True:
        file.seek(place)
        marker, *lengths = struct.unpack(">2sHHI", file.read(10).ljust(10, b"\0"))
        if marker == _CODESTREAM_END:
            return place + 2
        length = lengths[2] if marker == _TILE_PART else lengths[0] + 2
        if not marker.startswith(b"\xff") or length < 4:
            return 0
        place += length
