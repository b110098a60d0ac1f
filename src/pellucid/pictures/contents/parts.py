"""The parts of a file other than its picture, and what programs append to files."""

from dataclasses import dataclass
from typing import IO

from pellucid.system.wording import format_count

GAIN_MAP = "the HDR gain map"
VIDEO = "the video of a motion photo"
DEPTH_MAP = "the depth map"
PREVIEW = "the preview"
GEOGRAPHIC = "geographic data (GeoJP2)"
CREDENTIALS = "content credentials (C2PA)"

_SEARCHED_BYTES = 2**20
"""How far into appended data its kind is looked for."""


@dataclass(frozen=True)
class Contents:
    """What a file contains.

    num_pictures: pictures of equal rank; files with more than one are refused. kind, unit, hint: words for the
    error about them. parts: what else there is, and is not kept.
    """

    num_pictures: int = 1
    kind: str = ""
    unit: str = "pictures"
    hint: str = ""
    parts: tuple[str, ...] = ()


def name_box(kind: bytes) -> str:
    """A box of a type that is not known."""
    return f"the box {ascii(kind)[1:]}"


def describe_trailer(file: IO[bytes], end: int) -> tuple[str, ...]:
    """What was appended after the end of a picture: nothing if `end` is unknown (0), or only padding follows."""
    size = file.seek(0, 2) - end
    if end <= 0 or size <= 0:
        return ()
    file.seek(end)
    head = file.read(_SEARCHED_BYTES)
    if not head.strip(b"\0\xff\r\n \x1a"):
        return ()
    file.seek(-4, 2)
    found = []
    if _has_video(head):
        found.append(VIDEO)
    if file.read(4) == b"SEFT":
        found.append("data that Samsung's camera appended")
    return tuple(found) or (f"{format_count(size, 'byte')} appended to the picture",)


def _has_video(content: bytes) -> bool:
    """Whether there is the first box of an MP4 or MOV file."""
    at = content.find(b"ftyp")
    while at >= 0:
        if at >= 4 and 16 <= int.from_bytes(content[at - 4 : at], "big") <= 256:
            return True
        at = content.find(b"ftyp", at + 1)
    return False
