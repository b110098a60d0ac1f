"""What reading and writing share of libvips: its names for samples, its errors in one line, its one process."""

import pyvips

from pellucid.errors import PellucidError
from pellucid.pictures.picture import Picture, Samples
from pellucid.system import memory
from pellucid.system.processes import OneProcess

FORMATS = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}
"""libvips' names for types of samples."""

INTERPRETATIONS = {
    ("uint8", 1): "b-w",
    ("uint8", 3): "srgb",
    ("uint16", 1): "grey16",
    ("uint16", 3): "rgb16",
    ("float32", 1): "b-w",
    ("float32", 3): "scrgb",
}
"""libvips' names for what samples mean, by their type and the number of color channels."""

MM_PER_INCH = 25.4

UNKNOWN_DOTS_PER_MM = (1.0, 72 / MM_PER_INCH)
"""What libvips has for files that tell no resolution: 72 dpi for JPEG and PNG."""

_PROCESS = OneProcess("pictures cannot be read or written")  # seen with libvips 8.18

# Every picture is read once, so the cache of operations would only hold on to memory.
pyvips.cache_set_max(0)


def start(kind: type[PellucidError]) -> None:
    """To be called before libvips is used: raises kind where it would wait forever."""
    _PROCESS.check(kind)
    # What libvips notes about one file, read well or not, would head the next error.
    pyvips.vips_lib.vips_error_clear()


def reason(error: pyvips.Error) -> str:
    """The first line of what libvips has to say."""
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    return lines[0] if lines else "no reason given"


def image(picture: Picture) -> pyvips.Image:
    """Samples and alpha as libvips sees them, without a copy of large ones; they must outlive the image."""
    bands = [_bands(memory.in_one_run(plane)) for plane in picture.planes]
    joined = bands[0].bandjoin(bands[1:]) if len(bands) > 1 else bands[0]
    return joined.copy(interpretation=INTERPRETATIONS[picture.dtype, picture.channels])


def _bands(plane: Samples) -> pyvips.Image:
    height, width, channels = plane.shape
    return pyvips.Image.new_from_memory(plane.data, width, height, channels, FORMATS[plane.dtype.name])
