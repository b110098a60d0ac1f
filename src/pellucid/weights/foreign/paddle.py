"""PaddlePaddle: files of `paddle.save`, which are pickles of numpy arrays."""

import io
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

from torch import Tensor

from pellucid.weights.foreign.format import Format, tensor_from_bytes
from pellucid.weights.foreign.pickles import TORCH_MAGIC, check_pickle, refuse
from pellucid.weights.foreign.safetensors_file import looks_like_safetensors
from pellucid.weights.foreign.state_dicts import find_tensors


def recognize(content: bytes) -> bool:
    # A pickle starts with its protocol; so do PyTorch's old files, and safetensors with headers of some lengths.
    is_pickle = re.match(rb"\x80[\x02-\x05]", content) is not None
    return is_pickle and not content.startswith(TORCH_MAGIC) and not looks_like_safetensors(content)


def read(content: bytes, path: Path) -> dict[str, Tensor]:
    check_pickle(io.BytesIO(content))
    return find_tensors(_ArrayUnpickler(io.BytesIO(content)).load(), _to_tensor)


def _to_tensor(value: Any) -> Tensor | None:
    if isinstance(value, tuple) and len(value) == 2:  # (name, array), inside other containers
        value = value[1]
    return value.tensor if isinstance(value, _PickledArray) else None


class _PickledType:
    """The state of a pickled numpy.dtype."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "|", "="):
            raise ValueError("an array is big-endian")


class _PickledArray:
    """The state of a pickled numpy.ndarray. numpy's own class does not check it."""

    tensor: Tensor | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, column_major, content = state
        if not isinstance(dtype, _PickledType) or not isinstance(content, bytes):
            raise ValueError("an array contains objects")
        if column_major:
            transposed = tensor_from_bytes(dtype.code, shape[::-1], content)
            self.tensor = transposed.permute(*reversed(range(len(shape))))
        else:
            self.tensor = tensor_from_bytes(dtype.code, shape, content)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds containers and arrays, and refuses every other class and function."""

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)
        # Methods bound to this object, because a pickle may set attributes of the functions it gets.
        allowed: dict[str, Any] = {
            "collections.OrderedDict": OrderedDict,
            "builtins.tuple": tuple,
            "__builtin__.tuple": tuple,
            "_codecs.encode": self._encode,
            "numpy.core.multiarray._reconstruct": self._array,
            "numpy.ndarray": "ndarray",
            "numpy.dtype": self._dtype,
        }
        if full_name not in allowed:
            raise refuse(full_name)
        return allowed[full_name]

    def _encode(self, text: str, encoding: str) -> bytes:
        return text.encode("latin1")  # the only encoding that pickles use for bytes

    def _array(self, kind: str, shape: tuple[int, ...], code: bytes) -> _PickledArray:
        return _PickledArray()

    def _dtype(self, code: str, align: bool = False, copy: bool = False) -> _PickledType:
        return _PickledType(code)


FORMAT = Format("PaddlePaddle", (".pdparams",), recognize, read)
