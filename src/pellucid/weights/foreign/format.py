"""The interface of a foreign format. Each module in this folder that has a `FORMAT` adds one."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.system.wording import format_count

MAX_UNPACKED_BYTES = 1 << 27
"""Limit on what a compressed file may unpack to; the largest compressed weights of these networks have 3 MB."""

DTYPES = {
    "Float16": torch.float16,
    "BFloat16": torch.bfloat16,
    "Float32": torch.float32,
    "Float64": torch.float64,
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
}
"""Types of tensors by their names in MindSpore and numpy."""


@dataclass(frozen=True)
class Format:
    """A file format of another framework.

    framework: its name. suffixes: the usual ones. Both are only for messages: the content of a file decides.
    recognize: whether content is of this format. No two formats recognize the same content.
    read: content and path -> tensors by the names in the file. For damaged content it may raise any exception.
        The path is for formats whose tensors are in other files.
    locate: for formats of several files, the file to read if another one of them was given; None if none was.
    """

    framework: str
    suffixes: tuple[str, ...]
    recognize: Callable[[bytes], bool]
    read: Callable[[bytes, Path], dict[str, Tensor]]
    locate: Callable[[Path], Path | None] = lambda path: None


def tensor_from_bytes(dtype: str, shape: tuple[int, ...], content: bytes) -> Tensor:
    """The tensor of this type (a key of DTYPES) and shape. Raises ValueError if the content is of another size."""
    if dtype not in DTYPES:
        raise ValueError(f"a tensor has type {dtype[:20]!r}; known: {', '.join(DTYPES)}")
    if prod(shape) * DTYPES[dtype].itemsize != len(content) or not content:
        raise ValueError(f"a tensor declares {shape[:6]} of {dtype} but has {format_count(len(content), 'byte')}")
    return torch.frombuffer(bytearray(content), dtype=DTYPES[dtype]).reshape(shape)


def tensor_from_array(array: Any) -> Tensor:
    """A copy of a numpy array, in the byte order of this machine."""
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
