"""Pixels with the number of a color that the palette of their file does not contain.

Decoders do not report them, and differ in what they show: black, or any color.
"""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL.GifImagePlugin import GifImageFile

from pellucid.errors import PictureError
from pellucid.pictures import vips
from pellucid.pictures.structures.chunks import GIF_FRAME, build_chunk, iterate_gif, iterate_png
from pellucid.pictures.vips import pyvips
from pellucid.system.signals import defer_sigint


def describe_missing_colors(path: Path, loader: str) -> tuple[str, ...]:
    """A warning if a file has such pixels. loader: as `headers.find_loader` returns it.

    Nothing for other formats than PNG and GIF, and for damaged files, which decoding reports.
    """
    count = _COUNTERS.get(loader)
    if count is None:
        return ()
    try:
        return name_missing_colors(count(path))
    except (OSError, pyvips.Error, struct.error, IndexError, ValueError, SyntaxError, EOFError):
        return ()


def name_missing_colors(num_pixels: int) -> tuple[str, ...]:
    """The warning about a number of pixels; none for 0."""
    if not num_pixels:
        return ()
    pixels = "1 pixel has a color" if num_pixels == 1 else f"{num_pixels:,} pixels have colors"
    return (f"damaged ({pixels} that the palette does not contain): parts of the picture may be wrong",)


def _count_in_png(path: Path) -> int:
    """Decodes the file again with a palette that is black where it has colors, and white where it has none."""
    content = path.read_bytes()
    with path.open("rb") as file:
        places = {kind: (start, start + length + 12) for kind, start, length in iterate_png(file)}
    if b"PLTE" not in places or content[25] != _INDEXED:
        return 0
    start, stop = places[b"PLTE"]
    num_bytes, all_bytes = stop - start - 12, 3 * 2 ** content[24]
    if num_bytes >= all_bytes:
        return 0
    palette = build_chunk(b"PLTE", bytes(num_bytes) + b"\xff" * (all_bytes - num_bytes))
    rest = content[stop:].replace(b"tRNS", b"trNS")
    vips.begin(PictureError)
    with defer_sigint():
        source = pyvips.Source.new_from_memory(content[:start] + palette + rest)
        image = pyvips.Image.pngload_source(source, access="sequential")
        return round(image.extract_band(0).avg() / 255 * image.width * image.height)


_INDEXED = 3
"""The type of PNG whose samples are numbers of colors."""


def _count_in_gif(path: Path) -> int:
    """Only where codes may be larger than the palette, which is rare."""
    with path.open("rb") as file:
        flags = file.seek(10) and file.read(1)[0]
        start = next(start for kind, start, _ in iterate_gif(file) if kind == GIF_FRAME)
        file.seek(start + 8)
        own = file.read(1)[0]
        num_colors = 2 ** ((own & 7) + 1) if own & 0x80 else 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
        file.seek(start + 9 + (3 * num_colors if own & 0x80 else 0))
        if not 0 < num_colors < 2 ** file.read(1)[0]:
            return 0
    with GifImageFile(path) as image:
        if image.mode not in ("P", "L"):
            return 0
        transparent = image.info.get("transparency", -1)
        numbers = np.asarray(image)
    return int(((numbers >= num_colors) & (numbers != transparent)).sum())


_COUNTERS: dict[str, Callable[[Path], int]] = {"png": _count_in_png, "gif": _count_in_gif}
