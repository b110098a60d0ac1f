"""XMP files next to pictures: ratings, keywords and texts of programs that do not change the pictures themselves.

Adobe's programs name them NAME.xmp, and only for camera RAW; darktable, digiKam and others NAME.EXT.xmp.
"""

import os
from pathlib import Path

from pellucid.errors import PictureError
from pellucid.pictures.formats import RAW_SUFFIXES
from pellucid.pictures.records import xmp

MAX_BYTES = 2**26


def read(path: Path) -> bytes:
    """The XMP of the files next to a picture; b"" if there are none. What they both contain is from NAME.EXT.xmp.

    Raises PictureError if one is not XMP.
    """
    packet = b""
    for sidecar in find(path):
        packet = xmp.complete(packet, _read_packet(sidecar))
    return packet


def find(path: Path) -> list[Path]:
    """The XMP files of a picture. NAME.xmp next to NAME.NEF and NAME.JPG belongs to the NEF."""
    names = [f"{path.name}.xmp", f"{path.name}.XMP"]
    if path.suffix.lower() in RAW_SUFFIXES or not _has_raw(path):
        names += [f"{path.stem}.xmp", f"{path.stem}.XMP"]
    found = [path.with_name(name) for name in names]
    # On file systems that ignore case, both spellings are the same file.
    return list({file.stat().st_ino: file for file in reversed(found) if _is_file(file)}.values())[::-1]


def _has_raw(path: Path) -> bool:
    suffixes = (suffix for known in RAW_SUFFIXES for suffix in (known, known.upper()))
    return any(_is_file(path.with_suffix(suffix)) for suffix in suffixes)


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  # Path's raises on names that are too long with a suffix


def _read_packet(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            packet = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(packet) > MAX_BYTES or not xmp.is_packet(packet):
        raise PictureError(f"{path} is not an XMP file", hint="remove it, or omit {sidecars}")
    return packet
