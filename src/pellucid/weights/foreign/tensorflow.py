"""TensorFlow: checkpoints of `tf.train.Saver` (an .index file and .data files), the format of the authors of SID.

Sources: tensorflow/core/protobuf/tensor_bundle.proto, and LevelDB's doc/table_format.md for the index. Read here,
because TensorFlow takes 2 GB, and its readers accept a checkpoint of any length.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from torch import Tensor

from pellucid.system.wording import format_count
from pellucid.weights.foreign.crc32c import masked_crc32c
from pellucid.weights.foreign.format import Format, tensor_from_bytes
from pellucid.weights.foreign.protobuf import as_bytes, parse_fields, parse_varint

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_TRAILER_BYTES = 5
"""After each block: the kind of compression, and a checksum."""

_DTYPES = {1: "Float32", 2: "Float64", 14: "BFloat16", 19: "Float16"}
_SLOT = re.compile(r".*/(Adam|Adam_1|Momentum|RMSProp|RMSProp_1|ExponentialMovingAverage|\.OPTIMIZER_SLOT/.*)")
_LEAVES = {"weights": "weight", "kernel": "weight", "biases": "bias"}


@dataclass(frozen=True)
class _Entry:
    """A tensor of the index: its type in TensorFlow's numbers, and where it is in the .data files."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int = 0
    is_sliced: bool = False


def recognize(content: bytes) -> bool:
    return len(content) >= _FOOTER_BYTES and content.endswith(_MAGIC)


def find_index(path: Path) -> Path | None:
    """The .index file, given another file of a checkpoint, the name that they share, or their folder."""
    if path.is_dir():
        return _find_latest(path)
    stem = re.sub(r"\.(data-\d{5}-of-\d{5}|meta)$", "", path.name)
    index = path.with_name(f"{stem}.index")
    return index if index.is_file() and (stem != path.name or not path.exists()) else None


def read(content: bytes, path: Path) -> dict[str, Tensor]:
    """The variables as `layer.weight` and `layer.bias`, in torch's layout, without those of the optimizer."""
    entries = dict(_parse_table(memoryview(content)))
    header = dict(parse_fields(entries.pop(b"", memoryview(b""))))
    if 1 not in header:
        raise ValueError(
            "it has no header of a tensor bundle; checkpoints of TensorFlow before 1.0 are not supported"
        )
    if header.get(2):
        raise ValueError("its tensors are big-endian")
    found: dict[str, Tensor] = {}
    for key, value in entries.items():
        name, entry = bytes(key).decode(), _parse_entry(value)
        if entry.dtype in _DTYPES and entry.shape and not _SLOT.fullmatch(name):
            tensor = _read_tensor(path, name, entry, int(header[1]))
            found[_rename(name)] = tensor.permute(3, 2, 0, 1).contiguous() if tensor.ndim == 4 else tensor
    return found


def _find_latest(folder: Path) -> Path | None:
    """The index that the folder's file `checkpoint` names, or the only one."""
    state = folder / "checkpoint"
    if state.is_file():
        named = re.search(r'^model_checkpoint_path: "([^"]*)"', state.read_text(errors="replace")[:10_000], re.M)
        index = folder / f"{Path(named[1]).name}.index" if named else None
        if index is not None and index.is_file():
            return index
    indices = sorted(folder.glob("*.index"))
    return indices[0] if len(indices) == 1 else None


def _parse_table(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """(key, value) of a LevelDB table: the index block lists the data blocks."""
    footer = content[-_FOOTER_BYTES:]
    _, _, position = _parse_handle(footer, 0)  # of the block of filters, which TensorFlow does not use
    offset, size, _ = _parse_handle(footer, position)
    for _, handle in _parse_block(content, offset, size):
        offset, size, _ = _parse_handle(handle, 0)
        yield from _parse_block(content, offset, size)


def _parse_handle(content: memoryview, position: int) -> tuple[int, int, int]:
    """(offset, size) of a block, and the position after them."""
    offset, position = parse_varint(content, position)
    size, position = parse_varint(content, position)
    return offset, size, position


def _parse_block(content: memoryview, offset: int, size: int) -> Iterator[tuple[bytes, memoryview]]:
    """(key, value) of a block; each key shares its beginning with the one before."""
    block, trailer = content[offset : offset + size], content[offset + size : offset + size + _TRAILER_BYTES]
    if len(trailer) < _TRAILER_BYTES or size < 4:
        raise ValueError("its index ends early")
    if trailer[0]:
        raise ValueError("its index is compressed")
    if masked_crc32c(bytes(block) + b"\0") != struct.unpack_from("<I", trailer, 1)[0]:
        raise ValueError("the checksum of its index differs; the file is damaged")
    (num_restarts,) = struct.unpack_from("<I", block, size - 4)
    position, end, key = 0, size - 4 * (num_restarts + 1), b""
    while position < end:
        shared, position = parse_varint(block, position)
        added, position = parse_varint(block, position)
        length, position = parse_varint(block, position)
        key = key[:shared] + bytes(block[position : position + added])
        yield key, block[position + added : position + added + length]
        position += added + length


def _parse_entry(value: memoryview) -> _Entry:
    fields = list(parse_fields(value))
    numbers = {field: number for field, number in fields if isinstance(number, int)}
    shape = next((_parse_shape(as_bytes(message)) for field, message in fields if field == 2), ())
    return _Entry(
        dtype=numbers.get(1, 0),
        shape=shape,
        shard=numbers.get(3, 0),
        offset=numbers.get(4, 0),
        size=numbers.get(5, 0),
        checksum=numbers.get(6, 0),
        is_sliced=any(field == 7 for field, _ in fields),
    )


def _parse_shape(message: memoryview) -> tuple[int, ...]:
    dimensions = (dict(parse_fields(as_bytes(value))) for field, value in parse_fields(message) if field == 2)
    return tuple(size if isinstance(size := dimension.get(1, 0), int) else 0 for dimension in dimensions)


def _read_tensor(index: Path, name: str, entry: _Entry, num_shards: int) -> Tensor:
    if entry.is_sliced:
        raise ValueError(f"{name} is stored in slices, which is not supported")
    path = index.with_name(f"{index.stem}.data-{entry.shard:05}-of-{num_shards:05}")
    if not path.is_file():
        raise ValueError(f"{path.name}, which contains {name}, is not next to it")
    if prod(entry.shape) * 8 < entry.size or entry.offset + entry.size > path.stat().st_size:
        raise ValueError(f"{path.name} ends before {name}, which has {format_count(entry.size, 'byte')}")
    with path.open("rb") as file:
        file.seek(entry.offset)
        content = file.read(entry.size)
    if masked_crc32c(content) != entry.checksum:
        raise ValueError(f"the checksum of {name} differs; {path.name} is damaged")
    return tensor_from_bytes(_DTYPES[entry.dtype], entry.shape, content)


def _rename(name: str) -> str:
    """`g_conv1_1/weights` -> `g_conv1_1.weight`; a variable without a layer is a weight."""
    name = name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
    layer, slash, leaf = name.rpartition("/")
    return f"{layer}.{_LEAVES.get(leaf, leaf)}" if slash else f"{name}.weight"


FORMAT = Format("TensorFlow", (".index",), recognize, read, find_index)
