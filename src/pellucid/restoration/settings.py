"""How pictures are read, restored and written, as one value."""

from dataclasses import dataclass
from math import inf
from numbers import Integral
from pathlib import Path
from typing import Literal

from pellucid.errors import ArgumentError
from pellucid.pictures import formats, images
from pellucid.pictures.white import check_white
from pellucid.system.arguments import check_fields, check_number

MAX_SCALE, MAX_EXPOSURE = 1000.0, 1e6


@dataclass(frozen=True)
class Settings:
    """How pictures are read, restored and written. None means: chosen for each picture, or for this machine.

    Raises ArgumentError for a value that is not possible.

    tile_px, halo_px, ensemble, strength, memory_bytes: see `Restorer.restore`.
    quality: of JPEG, and of WebP and JPEG XL, which it makes lossy; 1 to 100.
    bit_depth: 8, 16 or 32 (floating point) bits per sample.
    exposure: for recipes that brighten camera RAW files: how many times longer the exposure of the result should
        appear; or the path of a RAW file with the wanted exposure; or "auto", an estimate. A `Mosaic` in memory
        keeps its own `exposure_ratio`.
    max_pixels: larger files are refused before they are decoded, and so are sizes of results that are larger.
    sidecars: the XMP in files named NAME.xmp and NAME.EXT.xmp next to a picture becomes part of its result.
    page: number of the page of a TIFF to restore, starting at 1. Default: all pages, written as pages of a TIFF.
    white: the value of white in the files, see `read`. Default: as each file specifies it, else that of its type.
    scale: how many times as long the sides of results are, e.g. 1.5: enlarged by the models, the last one that
        enlarges repeatedly if needed, and reduced with MATLAB's bicubic kernel. Default: the scale of the models.
    size: (width, height) in pixels that results fit into, as large as possible; one of them may be None.
    timeout_s: a picture that takes longer, in seconds of reading and restoring, fails; checked after each tile but
        the last: a picture that is done is kept, and gets a warning.
    compare: also write a sheet with a few crops of each picture, before and after, as NAME-compare.png.
    crop: (x, y, width, height) in pixels of the picture: the result is this part of the whole result. Its metadata
        are the color profile and the resolution.
    """

    tile_px: int | None = None
    halo_px: int | None = None
    ensemble: bool = False
    strength: float = 1.0
    memory_bytes: int | None = None
    quality: int | None = None
    bit_depth: int | None = None
    exposure: float | Path | Literal["auto"] = "auto"
    max_pixels: int = images.MAX_PIXELS
    sidecars: bool = False
    page: int | None = None
    white: float | None = None
    scale: float | None = None
    size: tuple[int | None, int | None] | None = None
    crop: tuple[int, int, int, int] | None = None
    compare: bool = False
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_number("strength", self.strength, 0, 1, is_whole=False)
        limits = {"tile_px": 1, "halo_px": 0, "memory_bytes": 1, "quality": 1, "max_pixels": 1, "page": 1}
        for name, low in limits.items():
            value = getattr(self, name)
            if value is not None or name == "max_pixels":
                check_number(name, value, low, 100 if name == "quality" else inf)
        formats.check_depth(self.bit_depth)
        check_white(self.white)
        self._check_size()
        if not isinstance(self.exposure, str | Path) and not 0 < self.exposure <= MAX_EXPOSURE:
            raise ArgumentError(
                f"{self.exposure!r} is not possible",
                hint="{exposure} can be auto, a number above 0 up to 1000000, or the Path of a RAW file",
            )

    def _check_size(self) -> None:
        if self.timeout_s is not None:
            check_number("timeout_s", self.timeout_s, 0, is_whole=False, is_above=True)
        if self.scale is not None:
            check_number("scale", self.scale, 0, MAX_SCALE, is_whole=False, is_above=True)
            if self.size is not None:
                raise ArgumentError("a scale and a size exclude each other", hint="omit {scale} or {size}")
        if self.size is not None and len(self.size) != 2:
            raise ArgumentError(
                f"{self.size!r} is not possible", hint="{size} is a width and a height, (3000, 2000)"
            )
        for side in self.size or ():
            if side is not None:
                check_number("size", side, 1)
        if self.size == (None, None):
            raise ArgumentError("a size without numbers", hint="{size} needs a width or a height")
        if self.crop is not None:
            fits = len(self.crop) == 4 and all(isinstance(value, Integral) for value in self.crop)
            if not (fits and min(self.crop) >= 0 and min(self.crop[2:]) >= 1):
                raise ArgumentError(
                    f"a crop of {self.crop} is not possible",
                    hint="{crop} is x, y, width and height in whole pixels, the last two at least 1",
                )
