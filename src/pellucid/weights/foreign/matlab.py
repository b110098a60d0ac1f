"""MATLAB v5 (`save -v6` and `-v7`): the variables of real numbers, by name.

Source: MathWorks, "MAT-File Format". Read here because SciPy's reader crashes the process on some damaged files.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from pellucid.system.wording import format_count
from pellucid.weights.foreign.format import MAX_UNPACKED_BYTES, Format, tensor_from_array

# Types of data elements, the numeric ones among them, and classes and flags of arrays.
MI_MATRIX, MI_COMPRESSED = 14, 15
MI_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MX_DOUBLE, MX_SINGLE, MX_COMPLEX = 6, 7, 0x800


def recognize(content: bytes) -> bool:
    return content.startswith(b"MATLAB 5.0")


def read(content: bytes, path: Path) -> dict[str, Tensor]:
    """The variables as MATLAB shows them. Cells, structures, text and complex numbers are ignored."""
    if content[126:128] not in (b"IM", b"MI"):
        raise ValueError("its header ends early")
    order = "<" if content[126:128] == b"IM" else ">"
    remaining_bytes = MAX_UNPACKED_BYTES
    tensors: dict[str, Tensor] = {}
    for kind, element in _parse_elements(memoryview(content)[128:], order):
        if kind == MI_COMPRESSED:
            unpacked = _unpack(element, remaining_bytes)
            remaining_bytes -= len(unpacked)
            kind, element = next(_parse_elements(memoryview(unpacked), order), (0, element))
        if kind == MI_MATRIX:
            tensors |= _parse_matrix(element, order)
    return tensors


def _parse_elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of each data element."""
    position = 0
    while position < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, position)
        start, end = position + 8, position + 8 + size
        position = end if kind == MI_COMPRESSED else end + -size % 8
        if kind >> 16:  # small elements: up to four bytes of content, in eight bytes with type and size
            kind, size = kind & 0xFFFF, kind >> 16
            start, end, position = start - 4, start - 4 + size, start
        if end > len(content):
            raise ValueError(f"it ends early: an element declares {format_count(size, 'byte')}")
        yield kind, content[start:end]


def _unpack(packed: memoryview, limit: int) -> bytes:
    stream = zlib.decompressobj()
    unpacked = stream.decompress(packed, max(1, limit))  # 0 would mean no limit
    if not stream.eof:
        raise ValueError(f"it ends early, or unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB")
    return unpacked


def _parse_matrix(element: memoryview, order: str) -> dict[str, Tensor]:
    (_, flags), (_, shape), (_, name), *values = _parse_elements(element, order)
    code = int(np.frombuffer(flags, f"{order}u4")[0])
    if code & 0xFF not in (MX_DOUBLE, MX_SINGLE) or code & MX_COMPLEX or len(values) != 1:
        return {}
    kind, content = values[0]
    # Whole numbers are stored in the smallest type that can represent them.
    array = np.frombuffer(content, f"{order}{MI_NUMBERS[kind]}")
    array = array.astype("f8" if code & 0xFF == MX_DOUBLE else "f4")
    return {bytes(name).decode(): tensor_from_array(array.reshape(np.frombuffer(shape, f"{order}i4"), order="F"))}


FORMAT = Format("MATLAB", (".mat",), recognize, read)
