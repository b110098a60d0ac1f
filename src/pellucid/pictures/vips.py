"""libvips: the package, which other modules import from here, and what reading and writing with it share."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from pellucid.errors import PellucidError
from pellucid.pictures.picture import Picture
from pellucid.pictures.samples import Samples
from pellucid.system import memory
from pellucid.system.processes import ForkGuard

# Before libvips is loaded: it would print its warnings about damaged files, which are warnings of the picture.
os.environ.setdefault("VIPS_WARNING", "0")
import pyvips as pyvips

FORMATS = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}
"""Type of the samples -> libvips format."""

INTERPRETATIONS = {
    ("uint8", 1): "b-w",
    ("uint8", 3): "srgb",
    ("uint16", 1): "grey16",
    ("uint16", 3): "rgb16",
    ("float32", 1): "b-w",
    ("float32", 3): "scrgb",
}
"""(type of the samples, number of color channels) -> libvips interpretation."""

_FORK_GUARD = ForkGuard("pictures cannot be read or written")  # hangs with libvips 8.18

# Loaders that libvips does not recommend for files from others (SVG, MATLAB, ...) are never needed.
pyvips.block_untrusted_set(True)

# Every picture is read once, so the cache of operations would only waste memory.
pyvips.cache_set_max(0)


_ABOUT_FILE = re.compile(r"(.+): bad seek to \d+")


def begin(error_class: type[PellucidError]) -> None:
    """Call before each use of libvips. Raises error_class in a forked process, where libvips would hang."""
    _FORK_GUARD.check(error_class)
    # Otherwise warnings about one file would be in the next error.
    pyvips.vips_lib.vips_error_clear()


def reason(error: pyvips.Error, path: Path | None = None) -> str:
    """The first line of a libvips error that is about a file; "" if it gives no reason.

    Errors of all threads are in one buffer: lines that name another file are ignored.
    """
    lines = [line.strip(" :") for line in str(error.detail).splitlines() if line.strip()]
    for line in lines:
        match = _ABOUT_FILE.fullmatch(line)
        if match is None or match[1] == str(path):
            return "the file ends too early" if match else line
    return ""


def make_source(file: IO[bytes]) -> pyvips.Source:
    """A source that reads an open file. Both must be kept until the image is decoded.

    Use it within `defer_sigint`: to libvips, an interruption would be the end of the file.
    """

    def read(length: int) -> bytes:
        try:
            return file.read(length)
        except OSError:  # e.g. a network drive that disconnects; libvips reports a truncated file
            return b""

    source = pyvips.SourceCustom()
    source.on_read(read)
    source.on_seek(file.seek)
    return source


def make_target(file: IO[bytes], failures: list[OSError]) -> pyvips.Target:
    """A target that writes into an open, unbuffered file; for TIFF, it must also be readable.

    Use it within `defer_sigint`: an interruption would be lost, or look like a failure to write.
    libvips reports no reason if a file cannot be written: it is added to failures.
    """

    def write(block: Any) -> int:
        try:
            return file.write(block)
        except OSError as error:
            failures.append(error)
            return -1

    target = pyvips.TargetCustom()
    target.on_write(write)
    target.on_read(file.read)
    target.on_seek(file.seek)
    return target


def to_vips(picture: Picture, order: Sequence[int] = ()) -> pyvips.Image:
    """Samples, alpha and extra channels as a libvips image. It shares their memory: the picture must outlive it.

    order: which channel comes at each place; by default colors, alpha, extra channels.
    """
    bands = [_bands(memory.as_contiguous(plane)) for plane in picture.planes]
    joined = bands[0].bandjoin(bands[1:]) if len(bands) > 1 else bands[0]
    if list(order) != sorted(order):
        first, *others = (joined.extract_band(channel) for channel in order)
        joined = first.bandjoin(others)
    return joined.copy(interpretation=INTERPRETATIONS[picture.dtype, picture.channels])


def _bands(plane: Samples) -> pyvips.Image:
    height, width, channels = plane.shape
    return pyvips.Image.new_from_memory(plane.data, width, height, channels, FORMATS[plane.dtype.name])
