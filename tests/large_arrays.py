"""Where large arrays are."""

from typing import Any

import numpy as np

from pellucid.system import memory


def is_in_file(array: Any) -> bool:
    """Whether an array, or what it is a view of, is in a file of pellucid."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, memoryview) and isinstance(array.obj, memory.FileMap)
