"""Strips and tiles of TIFF: what is missing is named, and what old programs leave out is computed."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pellucid.errors import PictureError
from pellucid.pictures import images
from pellucid.pictures.samples import Samples

ROWS_PER_STRIP, STRIP_LENGTHS, TILE_OFFSETS, UNUSED = 278, 279, 324, 65000


def noise() -> Samples:
    return np.random.default_rng(0).integers(0, 256, (23, 31, 3), np.uint8)


def change_entry(tag: int, field: int, value: int, **options: Any) -> bytes:
    """A TIFF by tifffile with another number in an entry. field: 0 to 3 for tag, type, count, value."""
    written = io.BytesIO()
    tifffile.imwrite(written, noise(), photometric="rgb", **options)
    content = bytearray(written.getvalue())
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        offset = file.pages.first.tags[tag].offset
    code, place = (("<H", 0), ("<H", 2), ("<I", 4), ("<I", 8))[field]
    struct.pack_into(code, content, offset + place, value)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (change_entry(STRIP_LENGTHS, 3, 2000), "its strips have 2,000 bytes; its samples need 2,139"),
        (change_entry(STRIP_LENGTHS, 3, 2**31), "a strip ends at byte 2,147,483,"),
        (change_entry(ROWS_PER_STRIP, 3, 5), "it has 1 strips of 5"),
        (change_entry(TILE_OFFSETS, 3, 2**31, tile=(16, 16)), "it has 0 of 4 tiles"),
        (change_entry(STRIP_LENGTHS, 0, UNUSED, compression="zlib"), r"\(StripByteCounts\) are missing"),
    ],
)
def test_missing_strips_and_tiles_are_named(content: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(PictureError, match=found):
        images.read(tmp_path / "x.tif")


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 9}, {"planarconfig": "separate", "rowsperstrip": 9}])
def test_lengths_of_strips_that_are_not_stated_are_computed(options: dict[str, Any], tmp_path: Path) -> None:
    samples = noise() if "planarconfig" not in options else np.ascontiguousarray(noise().transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="rgb", **options)
    content = bytearray((tmp_path / "x.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        struct.pack_into("<H", content, file.pages.first.tags[STRIP_LENGTHS].offset, UNUSED)
    (tmp_path / "x.tif").write_bytes(content)
    np.testing.assert_array_equal(images.read(tmp_path / "x.tif").samples, noise())
