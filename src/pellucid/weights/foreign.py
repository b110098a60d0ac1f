"""The original authors' weight files: their tensors, under their names. Nothing in a file is run.

MATLAB (v5 and v7.3), PyTorch, MindSpore and PaddlePaddle; the format is known by the content, not by the
file's name. `pellucid.weights.translation` brings names and layouts to ours.
"""

import io
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import MissingExtraError, WeightsError

Framework = Literal["MATLAB", "PyTorch", "MindSpore", "PaddlePaddle"]

MAX_BYTES = 1 << 30  # of a file, and of its tensors; the largest of these networks has 64 MB
MAX_MATLAB_BYTES = 1 << 27  # what a compressed file may unpack to; the largest of these has 3 MB
MAX_TUPLES = 20_000  # of a pickle; MIMO-UNet+ with its optimizer has 8000
TORCH_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # torch.serialization's magic number
# Of MATLAB's "MAT-File Format": types of elements, those of numbers, classes and flags of arrays.
MI_MATRIX, MI_COMPRESSED = 14, 15
MI_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MX_DOUBLE, MX_SINGLE, MX_COMPLEX = 6, 7, 0x800
HDF5 = b"\x89HDF\r\n\x1a\n"

DTYPES = {
    "Float16": torch.float16,
    "BFloat16": torch.bfloat16,
    "Float32": torch.float32,
    "Float64": torch.float64,
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
}


@dataclass(frozen=True)
class Foreign:
    """The tensors of an authors' file, under the authors' names.

    Convolutions of PyTorch, MindSpore, PaddlePaddle and MatConvNet (MATLAB v7.3) are in torch's layout;
    the arrays of MATLAB v5 are as MATLAB shows them.
    """

    path: Path
    framework: Framework
    tensors: Mapping[str, Tensor]


def read(path: Path) -> Foreign:
    """The tensors of an authors' file, under the authors' names.

    Raises WeightsError when this is none of the known formats, or damaged, or asks for anything to be run;
    MissingExtraError when this is MATLAB v7.3 and h5py is not there.
    """
    content = _content(path)
    framework, tensors_in = _format(path, content)
    try:
        tensors = tensors_in(content)
        _check(tensors)
    except MissingExtraError:
        raise
    except Exception as error:  # on damage torch, zipfile and h5py raise nearly every kind there is
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise WeightsError(f"{path} cannot be read as a weight file of {framework}: {reason}") from error
    return Foreign(path, framework, tensors)


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; a weight file is needed")
    if not path.is_file():  # a pipe or a device might never end
        raise WeightsError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{path} is larger than {MAX_BYTES >> 20} MiB; no weights of these are")
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    if not content:
        raise WeightsError(f"{path} is empty; a weight file is needed")
    return content


def _format(path: Path, content: bytes) -> tuple[Framework, Callable[[bytes], dict[str, Tensor]]]:
    if content.startswith(HDF5) or content[512:520] == HDF5:  # MATLAB puts 512 bytes of its own first
        return "MATLAB", _read_matconvnet
    if content.startswith(b"MATLAB 5.0"):
        return "MATLAB", _read_matlab5
    if content.startswith((b"PK\x03\x04", TORCH_LEGACY)):
        return "PyTorch", _read_torch
    if re.match(rb"\x80[\x02-\x05]", content):  # a pickle states its protocol first
        return "PaddlePaddle", _read_paddle
    if content.startswith(b"\n"):  # field 1 of a protobuf message
        return "MindSpore", _read_mindspore
    raise WeightsError(
        f"{path} is no weight file of MATLAB (.mat), PyTorch (.pth, .pt, .pkl), MindSpore (.ckpt) or "
        f"PaddlePaddle (.pdparams): it begins with {content[:8]!r}"
    )


def _check(tensors: Mapping[str, Tensor]) -> None:
    """Refuse what is no plain array of numbers, or would need more memory than the file holds."""
    if not tensors:
        raise ValueError("it holds no tensors")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise ValueError(f"{name} is no plain tensor")
        if not tensor.is_floating_point() and not name.endswith("num_batches_tracked"):
            raise ValueError(f"{name} holds {tensor.dtype}, not floating-point numbers")
        # A stride of 0 repeats one number any number of times.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} declares {tuple(tensor.shape)}, more than the file holds")


def _as_tensor(dtype: str, shape: tuple[int, ...], content: bytes) -> Tensor:
    if dtype not in DTYPES:
        raise ValueError(f"a tensor has type {dtype[:20]!r}; known: {', '.join(DTYPES)}")
    if prod(shape) * DTYPES[dtype].itemsize != len(content) or not content:
        raise ValueError(f"a tensor declares {shape[:6]} of {dtype} and holds {len(content)} bytes")
    return torch.frombuffer(bytearray(content), dtype=DTYPES[dtype]).reshape(shape)


# MATLAB


def _read_matlab5(content: bytes) -> dict[str, Tensor]:
    """The variables of real numbers, by name. Cells, structures and texts are not looked at.

    Read here, as SciPy's reader crashes the process on some damaged files.
    """
    if content[126:128] not in (b"IM", b"MI"):
        raise ValueError("its header ends early")
    order = "<" if content[126:128] == b"IM" else ">"
    left = MAX_MATLAB_BYTES
    tensors: dict[str, Tensor] = {}
    for kind, element in _elements(memoryview(content)[128:], order):
        if kind == MI_COMPRESSED:
            unpacked = _unpacked(element, left)
            left -= len(unpacked)
            kind, element = next(_elements(memoryview(unpacked), order), (0, element))
        if kind == MI_MATRIX:
            tensors |= _matrix(element, order)
    return tensors


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of each data element, as MATLAB's "MAT-File Format" calls them."""
    position = 0
    while position < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, position)
        start, end = position + 8, position + 8 + size
        position = end if kind == MI_COMPRESSED else end + -size % 8
        if kind >> 16:  # at most four bytes of content share eight with their type and size
            kind, size = kind & 0xFFFF, kind >> 16
            start, end, position = start - 4, start - 4 + size, start
        if end > len(content):
            raise ValueError(f"it ends early: an element declares {size} bytes")
        yield kind, content[start:end]


def _unpacked(packed: memoryview, limit: int) -> bytes:
    stream = zlib.decompressobj()
    unpacked = stream.decompress(packed, max(1, limit))  # 0 would be no limit
    if not stream.eof:
        raise ValueError(f"it ends early, or unpacks to more than {MAX_MATLAB_BYTES >> 20} MiB")
    return unpacked


def _matrix(element: memoryview, order: str) -> dict[str, Tensor]:
    (_, flags), (_, shape), (_, name), *values = _elements(element, order)
    code = int(np.frombuffer(flags, f"{order}u4")[0])
    if code & 0xFF not in (MX_DOUBLE, MX_SINGLE) or code & MX_COMPLEX or len(values) != 1:
        return {}
    kind, content = values[0]
    # Whole numbers are stored in the smallest type that holds them.
    array = np.frombuffer(content, f"{order}{MI_NUMBERS[kind]}")
    array = array.astype("f8" if code & 0xFF == MX_DOUBLE else "f4")
    return {bytes(name).decode(): _native(array.reshape(np.frombuffer(shape, f"{order}i4"), order="F"))}


def _native(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _read_matconvnet(content: bytes) -> dict[str, Tensor]:
    """A MatConvNet simplenn: `net.layers.N.weight`, `.bias` and `.moments`, N from 1 as MATLAB counts."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("reading MATLAB files", "convert") from error
    with h5py.File(io.BytesIO(content), "r") as file:
        if "net/layers" not in file:
            raise ValueError(f"it has {', '.join(list(file)[:4])}, not the net.layers of MatConvNet")
        datasets: dict[str, Any] = {}
        for number, reference in enumerate(_few(file["net/layers"]), start=1):
            stored = _simplenn_weights(file, file[reference], number)
            datasets |= {f"net.layers.{number}.{leaf}": dataset for leaf, dataset in stored.items()}
        # Before anything is read: a shape costs nothing to declare, and may be declared many times.
        if sum(dataset.nbytes for dataset in datasets.values()) > MAX_MATLAB_BYTES:
            raise ValueError(f"its layers declare more than {MAX_MATLAB_BYTES >> 20} MiB")
        return {name: _from_matconvnet(name, _native(dataset[()])) for name, dataset in datasets.items()}


def _simplenn_weights(file: Any, layer: Any, number: int) -> dict[str, Any]:
    """The layer's datasets, unread."""
    leaves = {"conv": ("weight", "bias"), "bnorm": ("weight", "bias", "moments"), "relu": (), "loss": ()}
    kind = "".join(chr(code) for code in _few(layer["type"]))
    if kind not in leaves:
        raise ValueError(f"layer {number} is a {kind[:20]!r}; known: {', '.join(leaves)}")
    for option in ("stride", "dilate"):
        if option in layer and any(value != 1 for value in _few(layer[option])):
            raise ValueError(f"layer {number} has a {option} other than 1, as no DnCNN has")
    if not leaves[kind]:
        return {}
    datasets = [file[reference] for reference in _few(layer["weights"])]
    return dict(zip(leaves[kind], datasets, strict=True))


def _few(dataset: Any) -> list[Any]:
    if dataset.size > 1000:
        raise ValueError(f"{dataset.name} declares {dataset.size} values")
    return list(np.asarray(dataset[()]).ravel())


def _from_matconvnet(name: str, array: Tensor) -> Tensor:
    """HDF5 shows MATLAB's axes in reverse: (out, in, width, height) for a convolution."""
    if name.endswith(".moments"):
        return array
    if array.ndim < 3:
        return array.flatten()
    if array.ndim == 3:  # MATLAB drops the last axis where there is one output
        array = array.unsqueeze(0)
    return array.transpose(-1, -2).contiguous()


# PyTorch


def _read_torch(content: bytes) -> dict[str, Tensor]:
    _check_torch_pickles(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is damaged; the error says it
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's message tells how to run the file all the same
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ValueError(_refusal(asked[1]) if asked else "it is damaged, or not only tensors") from error
    return _named_tensors(loaded)


def _check_torch_pickles(content: bytes) -> None:
    if content.startswith(TORCH_LEGACY):
        stream = io.BytesIO(content)
        for _ in ("magic number", "version", "machine", "state dict", "names of storages"):
            _check_pickle(stream)
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # torch stores tensors as they are; a compressed archive could unpack to any size.
        if sum(entry.file_size for entry in archive.infolist()) > len(content):
            raise ValueError("the archive unpacks to more than the file holds")
        for name in archive.namelist():
            if name.endswith(".pkl"):
                _check_pickle(io.BytesIO(archive.read(name)))


def _check_pickle(stream: io.BytesIO) -> None:
    """Read one pickle without doing what it says, and refuse what would end the process."""
    size = stream.getbuffer().nbytes
    num_tuples = 0
    for opcode, argument, _ in pickletools.genops(stream):
        # The unpickler makes room for the largest index of its memo, which may be 4 billion.
        if "PUT" in opcode.name and int(argument or 0) > size:
            raise ValueError("its memo declares more entries than the file has bytes")
        # A key made of 100 000 tuples, each within the next, overflows the stack when it is hashed.
        num_tuples += opcode.name.startswith("TUPLE")
        if num_tuples > MAX_TUPLES:
            raise ValueError(f"it has more than {MAX_TUPLES} tuples")


def _refusal(name: str) -> str:
    return f"it asks for {name[:100]}, which no weights need, so it was not run; a plain state_dict is needed"


def _named_tensors(loaded: Any) -> dict[str, Tensor]:
    """The state dict, which may lie beside an optimizer's, without the prefix of DataParallel."""
    for key in ("model", "state_dict", "params_ema", "params"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds a {type(loaded).__name__}, not named tensors")
    tensors = {name: _tensor_in(value) for name, value in loaded.items() if isinstance(name, str)}
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items() if tensor is not None}


def _tensor_in(value: Any) -> Tensor | None:
    if isinstance(value, tuple) and len(value) == 2:  # PaddlePaddle's (name, array) inside other containers
        value = value[1]
    if isinstance(value, _PickledArray):
        return value.tensor
    return value.detach() if isinstance(value, Tensor) else None


# PaddlePaddle


def _read_paddle(content: bytes) -> dict[str, Tensor]:
    _check_pickle(io.BytesIO(content))
    return _named_tensors(_ArraysOnly(io.BytesIO(content)).load())


class _PickledType:
    """What a pickle says of numpy.dtype."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "|", "="):
            raise ValueError("an array is big-endian")


class _PickledArray:
    """What a pickle says of numpy.ndarray. numpy itself trusts what it is given here."""

    tensor: Tensor | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, column_major, content = state
        if not isinstance(dtype, _PickledType) or not isinstance(content, bytes):
            raise ValueError("an array holds objects")
        if column_major:
            self.tensor = _as_tensor(dtype.code, shape[::-1], content).permute(*reversed(range(len(shape))))
        else:
            self.tensor = _as_tensor(dtype.code, shape, content)


class _ArraysOnly(pickle.Unpickler):
    """Builds containers and arrays, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)
        # Methods bound to this object, as a pickle may set attributes of what it gets.
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
            raise ValueError(_refusal(full_name))
        return allowed[full_name]

    def _encode(self, text: str, encoding: str) -> bytes:
        return text.encode("latin1")  # the only one that pickles of bytes use

    def _array(self, kind: str, shape: tuple[int, ...], code: bytes) -> _PickledArray:
        return _PickledArray()

    def _dtype(self, code: str, align: bool = False, copy: bool = False) -> _PickledType:
        return _PickledType(code)


# MindSpore


def _read_mindspore(content: bytes) -> dict[str, Tensor]:
    """Each record is {1: name, 2: {1: dimensions, 2: type, 3: bytes}}; large tensors come in several."""
    declared: dict[str, tuple[str, tuple[int, ...]]] = {}
    parts: dict[str, list[bytes]] = {}
    for field, value in _fields(_without_checksum(content)):
        if field != 1:
            raise ValueError(f"it has a field {field}; records of tensors are field 1")
        record = dict(_fields(_message(value)))
        name = bytes(_message(record[1])).decode()
        if _is_weight(name):
            dtype, shape, part = _tensor_record(_message(record[2]))
            if declared.setdefault(name, (dtype, shape)) != (dtype, shape):
                raise ValueError(f"the parts of {name} differ in type or shape")
            parts.setdefault(name, []).append(part)
    return {name: _as_tensor(*declared[name], b"".join(parts[name])) for name in parts}


def _is_weight(name: str) -> bool:
    """Not the optimizer's state nor its counters: `moment1.conv1.weight`, `global_step`, `beta1_power`."""
    return "." in name and not name.startswith(("moment1.", "moment2.", "moments.", "accum."))


def _without_checksum(content: bytes) -> memoryview:
    if content[-17:-10] != b"crc_num":
        return memoryview(content)
    records = memoryview(content)[:-17]
    if zlib.crc32(records) != int.from_bytes(content[-10:], "big"):
        raise ValueError("its checksum differs; the file is damaged")
    return records


def _tensor_record(message: memoryview) -> tuple[str, tuple[int, ...], bytes]:
    fields = list(_fields(message))
    shape = tuple(value for field, value in fields if field == 1 and isinstance(value, int))
    rest = {field: _message(value) for field, value in fields if field != 1}
    return bytes(rest[2]).decode(), shape, bytes(rest[3])


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes are expected")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protobuf message: its number, and an integer or the bytes of a string or message."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        value, position = _varint(message, position)
        if key & 7 == 0:
            yield key >> 3, value
        elif key & 7 == 2:
            if value > len(message) - position:
                raise ValueError(f"it ends early: a field declares {value} bytes")
            yield key >> 3, message[position : position + value]
            position += value
        else:
            raise ValueError(f"a field has wire type {key & 7}; numbers (0) and bytes (2) are expected")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """The integer at this position, seven bits a byte, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it ends early")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("an integer has more than ten bytes")
