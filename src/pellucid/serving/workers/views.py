"""Decoded pictures, and parts of them that a browser can show."""

from collections.abc import Sequence
from pathlib import Path

from pellucid.domains import RGB, Degraded
from pellucid.errors import NotEnoughMemoryError, PictureError
from pellucid.pictures import images
from pellucid.pictures.camera import raw
from pellucid.pictures.picture import Picture
from pellucid.pictures.vips import pyvips
from pellucid.restoration import advice
from pellucid.restoration.settings import Settings
from pellucid.restoration.stages import read_first_page
from pellucid.system import heap, memory
from pellucid.system.signals import defer_sigint

MAX_DECODED = 2
"""How many decoded pictures are kept. Samples of large ones are in files, see `memory`."""

_CONSTANT_BYTES = 80_000_000
"""What decoding takes in addition to `images.decoding_cost`."""


class Views:
    """Decodes each picture once for several views.

    memory_bytes: limit of this process. Pictures that need more to be decoded raise NotEnoughMemoryError.
    """

    def __init__(self, *, max_pixels: int, memory_bytes: int) -> None:
        self.max_pixels, self.memory_bytes = max_pixels, memory_bytes
        self._settings = Settings(max_pixels=max_pixels)
        self._decoded: dict[str, Picture] = {}

    def draw(self, source: Path, target: Path, *, box: Sequence[int] | None, longest_px: int) -> tuple[int, int]:
        """Write a part as PNG with 8 bits in sRGB, at most longest_px wide and high.

        box: left, top, width, height; None for the whole picture. Returns width and height of the whole.
        Raises PictureError as reading does.
        """
        picture = self._decode(source)
        left, top, width, height = box or (0, 0, picture.width, picture.height)
        right, bottom = min(left + width, picture.width), min(top + height, picture.height)
        if left >= right or top >= bottom:
            raise PictureError(f"the part is outside of the picture of {picture.width} x {picture.height} px")
        part = picture.crop(slice(top, bottom), slice(left, right))
        with defer_sigint():
            _to_srgb(part, longest_px).write_to_file(str(target), compression=1)
        _release(picture)
        return picture.width, picture.height

    def decode_for_advice(self, source: Path) -> Degraded:
        """What `advice.find_problems` takes: of camera RAW, the mosaic."""
        if not images.is_raw(source):
            return self._decode(source)
        self._check_memory(source)
        return advice.read_for_advice(source, self._settings)

    def _decode(self, source: Path) -> Picture:
        key = f"{source}:{source.stat().st_mtime_ns}"
        if key not in self._decoded:
            self._check_memory(source)
            while len(self._decoded) >= MAX_DECODED:
                del self._decoded[next(iter(self._decoded))]
            decoded = read_first_page(source, RGB(), self._settings)
            assert isinstance(decoded, Picture)
            self._decoded[key] = decoded
            _release(decoded)
        self._decoded[key] = self._decoded.pop(key)
        return self._decoded[key]

    def _check_memory(self, source: Path) -> None:
        if images.is_raw(source):
            num_bytes = raw.decoding_bytes(source, developed=True, max_pixels=self.max_pixels)
        else:
            _, num_bytes = images.decoding_cost(source)
        heap.trim()
        needed = memory.used_bytes() + num_bytes + _CONSTANT_BYTES
        if needed > self.memory_bytes:
            limit = f"the limit is {self.memory_bytes / 1e6:.0f} MB"
            raise NotEnoughMemoryError(f"showing {source} needs {needed / 1e6:.0f} MB of memory; {limit}")


def _to_srgb(part: Picture, longest_px: int) -> pyvips.Image:
    """Reduced if it is larger, and converted from the picture's own color space."""
    samples = part.as_depth("uint8" if part.dtype == "uint8" else "uint16").samples
    image = pyvips.Image.new_from_array(memory.as_contiguous(samples))
    space = {1: "b-w", 3: "srgb"} if part.dtype == "uint8" else {1: "grey16", 3: "rgb16"}
    image = image.copy(interpretation=space[part.channels])
    scale = longest_px / max(image.width, image.height)
    if scale < 1:
        image = image.resize(scale, kernel="lanczos3")
    profile = part.metadata.get("icc-profile-data")
    if profile:
        image = image.copy()
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
        try:
            return image.icc_transform("srgb", embedded=True, depth=8)
        except pyvips.Error:  # a damaged profile, or one for other colors: the picture is shown without it
            image.remove("icc-profile-data")
    return image.colourspace("srgb").cast("uchar")


def _release(picture: Picture) -> None:
    """Free the memory of samples that are in files."""
    for plane in picture.planes:
        memory.release(plane)
