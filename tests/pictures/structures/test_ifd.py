"""Tags of every type, in TIFF files by tifffile."""

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile

from pellucid.pictures.structures import ifd

TAG, SUB_DIRECTORIES, WIDTH = 65_000, 330, 256
VALUES: dict[int, tuple[str, Any]] = {
    1: ("2B", (1, 255)), 2: ("2s", b"a"), 3: ("2H", (1, 65535)), 4: ("2I", (1, 2**32 - 1)),
    5: ("4I", (1, 3, 5, 7)), 6: ("2b", (-1, 2)), 7: ("2s", b"ab"), 8: ("2h", (-1, 2)), 9: ("2i", (-1, 2)),
    10: ("4i", (-1, 3, 5, 7)), 11: ("2f", (0.5, -2)), 12: ("2d", (0.1, -2)), 13: ("2I", (1, 2)),
    16: ("2Q", (1, 2**63)), 17: ("2q", (-1, 2)), 18: ("2Q", (1, 2**63)),
}  # fmt: skip
"""Type, as the TIFF specifications number them -> code of struct, and two values."""


def write(**options: Any) -> io.BytesIO:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((4, 5), np.uint8), photometric="minisblack", metadata=None, **options)
    return file


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_values_of_every_type_are_read_in_both_byte_orders(order: Any, kind: int) -> None:
    code, values = VALUES[kind]
    file = write(byteorder=order, bigtiff=kind >= 16, extratags=[(TAG, kind, 2, values, True)])
    expected = struct.pack("<" + code, *(values if isinstance(values, tuple) else (values,)))
    assert ifd.first_directory(file)[TAG] == (kind, 2, expected)
    assert ifd.reorder(ifd.reorder(expected, kind, ">"), kind, ">") == expected


def test_directories_below_another_one_are_found() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.zeros((4, 5), np.uint8), subifds=2, metadata=None)
        writer.write(np.zeros((4, 6), np.uint8), metadata=None)
        writer.write(np.zeros((4, 7), np.uint8), metadata=None)
    found = ifd.linked_directories(file, ifd.first_directory(file), SUB_DIRECTORIES)
    assert [ifd.number(tags, WIDTH) for tags in found] == [6, 7]
    assert ifd.linked_directories(file, found[0], SUB_DIRECTORIES) == []
