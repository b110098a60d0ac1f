"""What a file contains besides its picture: other pictures, which are refused, and parts that are lost.

Counted by the marks of each format itself, because libraries differ: libvips counts neither the frames of an
animated PNG nor the pictures of an MPO.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from pellucid.errors import PictureError
from pellucid.pictures.contents.heif import inspect_heif
from pellucid.pictures.contents.jpeg import inspect_jpeg
from pellucid.pictures.contents.parts import (
    CREDENTIALS,
    GAIN_MAP,
    GEOGRAPHIC,
    Contents,
    describe_trailer,
    name_box,
)
from pellucid.pictures.structures.boxes import Box, iterate_own_boxes
from pellucid.pictures.structures.chunks import GIF_END, GIF_FRAME, iterate_gif, iterate_png, iterate_webp
from pellucid.pictures.structures.jpeg_2000 import find_jp2_end


def check_contents(path: Path, loader: str) -> tuple[str, ...]:
    """The parts that a result does not contain, e.g. "the HDR gain map".

    loader: as `headers.find_loader` returns it. Raises PictureError if the file contains several pictures.
    """
    inspect = _INSPECTORS.get(loader)
    if inspect is None:
        return ()
    try:
        with path.open("rb") as file:
            found = inspect(file)
    except (struct.error, LookupError, ValueError):  # damaged; decoding reports it
        return ()
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}") from error
    if found.num_pictures > 1:
        raise PictureError(f"{path} is {found.kind} of {found.num_pictures} {found.unit}", hint=found.hint)
    return tuple(dict.fromkeys(found.parts))


_ANIMATION = {"unit": "frames", "hint": "restore its frames one by one, e.g. after `ffmpeg -i FILE frame%04d.png`"}


def _inspect_png(file: IO[bytes]) -> Contents:
    """Frames are fcTL chunks; one before the samples (IDAT) is about the picture that other programs show."""
    num_declared, num_controls, has_own_control, has_samples, end = 0, 0, False, False, 0
    for kind, start, length in iterate_png(file):
        if kind == b"acTL":
            file.seek(start + 8)
            (num_declared,) = struct.unpack(">I", file.read(4))
        elif kind == b"fcTL":
            num_controls += 1
            has_own_control |= not has_samples
        elif kind == b"IDAT":
            has_samples = True
        elif kind == b"IEND":
            end = start + length + 12
    num_frames = 0 if num_declared == 0 else max(num_declared, num_controls) + (not has_own_control)
    return Contents(num_frames, "an animated PNG", parts=describe_trailer(file, end), **_ANIMATION)


def _inspect_webp(file: IO[bytes]) -> Contents:
    (size,) = struct.unpack("<4xI", file.read(8))
    end = 8 + size + size % 2
    num_frames = sum(kind == b"ANMF" for kind, place, _ in iterate_webp(file) if place < end)
    return Contents(num_frames, "an animated WebP", parts=describe_trailer(file, end), **_ANIMATION)


def _inspect_gif(file: IO[bytes]) -> Contents:
    """Frames are image descriptors, also in files whose frames together make one picture of more colors."""
    blocks = [*iterate_gif(file)]
    num_frames = sum(kind == GIF_FRAME for kind, _, _ in blocks)
    end = blocks[-1][2] if blocks and blocks[-1][0] == GIF_END else 0
    return Contents(num_frames, "a GIF", parts=describe_trailer(file, end), **_ANIMATION)


_BOX_PARTS = {
    b"asoc": GEOGRAPHIC,
    b"jhgm": GAIN_MAP,
    b"jumb": f"{CREDENTIALS} or other JUMBF data",
    b"jbrd": "the data from which the JPEG that it was made of can be rebuilt",
}
_KNOWN_BOXES = {
    *(b"ftyp", b"xml ", b"uuid", b"free", b"skip"),
    *(b"JXL ", b"jxlc", b"jxlp", b"jxll", b"jxli", b"Exif"),
    *(b"jP  ", b"jp2h", b"jp2c", b"moov", b"rreq"),
}
"""Boxes of the picture and of metadata, and those that say nothing about it."""


def _inspect_jp2(file: IO[bytes]) -> Contents:
    """Pictures are codestreams; a file that is only a codestream has no boxes."""
    kinds = _list_kinds(file, iterate_own_boxes(file)) if file.read(4) == _FIRST_BOX else [b"jp2c"]
    return Contents(
        kinds.count(b"jp2c") + kinds.count(b"moov"),
        "a JPEG 2000 file",
        "pictures",
        "save each as a file of its own first",
        (*_name_parts(kinds), *describe_trailer(file, find_jp2_end(file))),
    )


def _inspect_bmp(file: IO[bytes]) -> Contents:
    """The last of three ends: that in the header, which may be too small, of the samples and of the profile."""
    head = file.read(138).ljust(138, b"\0")
    stated, start, size = struct.unpack_from("<I4xII", head, 2)
    if size < 40:
        width, height, bits, compression, num_bytes = *struct.unpack_from("<HH2xH", head, 18), 0, 0
    else:
        width, height, bits, compression, num_bytes = struct.unpack_from("<ii2xHII", head, 18)
    is_packed = compression not in (0, 3, 6)  # neither RGB nor bit fields
    samples_end = start + (num_bytes if is_packed else (width * bits + 31) // 32 * 4 * abs(height))
    profile_end = 14 + sum(struct.unpack_from("<II", head, 126)) if size >= 124 else 0
    return Contents(parts=describe_trailer(file, max(stated, samples_end, profile_end)))


def _inspect_jxl(file: IO[bytes]) -> Contents:
    """A file that is only a codestream has no boxes."""
    boxes = [*iterate_own_boxes(file)] if file.read(4) == _FIRST_BOX else []
    end = boxes[-1].stop if boxes else 0
    return Contents(parts=(*_name_parts(_list_kinds(file, boxes)), *describe_trailer(file, end)))


_FIRST_BOX = b"\0\0\0\x0c"


def _list_kinds(file: IO[bytes], boxes: Iterable[Box]) -> list[bytes]:
    """The types of boxes. One of the type brob is compressed, and its own type comes first."""
    return [box.read(file)[:4] if box.kind == b"brob" else box.kind for box in boxes]


def _name_parts(kinds: Iterable[bytes]) -> Iterator[str]:
    return (_BOX_PARTS.get(kind, name_box(kind)) for kind in kinds if kind not in _KNOWN_BOXES)


_INSPECTORS: dict[str, Callable[[IO[bytes]], Contents]] = {
    "png": _inspect_png,
    "webp": _inspect_webp,
    "gif": _inspect_gif,
    "jpeg": inspect_jpeg,
    "heif": inspect_heif,
    "heic": inspect_heif,
    "jp2": _inspect_jp2,
    "jxl": _inspect_jxl,
    "bmp": _inspect_bmp,
}
