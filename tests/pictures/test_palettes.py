"""Numbers of colors that a palette does not contain, in files of Pillow whose palettes were shortened."""

import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pellucid.pictures import images

NUMBERS = np.random.default_rng(5).integers(0, 12, (30, 47), dtype=np.uint8)
NUM_MISSING = {8: int((NUMBERS >= 8).sum()), 12: 0}
"""Colors in the palette -> pixels without a color."""


def save(path: Path) -> bytearray:
    image = PIL.Image.frombytes("P", NUMBERS.shape[::-1], NUMBERS.tobytes())
    image.putpalette([*range(30, 30 + 36)])
    image.save(path)
    return bytearray(path.read_bytes())


def shorten(path: Path, num_colors: int) -> None:
    """Cut the palette of a file after a number of colors; GIF has 16 or 8."""
    content = save(path)
    if path.suffix == ".png":
        start = content.index(b"PLTE")
        old = int.from_bytes(content[start - 4 : start], "big")
        palette = bytes(content[start : start + 4 + 3 * num_colors])
        chunk = struct.pack(">I", 3 * num_colors) + palette + struct.pack(">I", zlib.crc32(palette))
        content[start - 4 : start + 8 + old] = chunk
    elif path.suffix == ".bmp":
        (old,) = struct.unpack_from("<I", content, 46)
        del content[54 + 4 * num_colors : 54 + 4 * old]
        struct.pack_into("<I", content, 46, num_colors)
        struct.pack_into("<I", content, 10, 54 + 4 * num_colors)
        struct.pack_into("<I", content, 2, len(content))
    elif num_colors == 8:
        content[10] = content[10] & 0xF8 | 2
        del content[13 + 24 : 13 + 48]
    path.write_bytes(content)


@pytest.mark.parametrize("num_colors", [12, 8])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif"])
def test_missing_colors_are_counted(suffix: str, num_colors: int, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    shorten(path, num_colors)
    encoding = images.read(path).encoding
    assert encoding is not None
    count = NUM_MISSING[num_colors]
    reason = f"{count} pixels have colors that the palette does not contain"
    assert encoding.warnings == ((f"damaged ({reason}): parts of the picture may be wrong",) if count else ())


def test_missing_colors_are_counted_next_to_transparency(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    image = PIL.Image.frombytes("P", NUMBERS.shape[::-1], NUMBERS.tobytes())
    image.putpalette([*range(36)])
    image.save(path, transparency=bytes([0, 128, 255]))
    shown = images.read(path)
    assert shown.alpha is not None and shown.encoding is not None and shown.encoding.warnings == ()
    content = path.read_bytes()
    start = content.index(b"PLTE")
    palette = content[start : start + 7]
    chunk = struct.pack(">I", 3) + palette + struct.pack(">I", zlib.crc32(palette))
    # libvips ignores transparency for more colors than there are.
    path.write_bytes(content[: start - 4] + chunk + content[start + 8 + 36 :])
    encoding = images.read(path).encoding
    assert encoding is not None
    assert f"{(NUMBERS >= 1).sum():,} pixels have colors" in encoding.warnings[0]
