"""MindSpore: files of `mindspore.save_checkpoint`, which are protobuf messages."""

import zlib
from pathlib import Path

from torch import Tensor

from pellucid.weights.foreign.format import Format, tensor_from_bytes
from pellucid.weights.foreign.protobuf import as_bytes, parse_fields
from pellucid.weights.foreign.safetensors_file import looks_like_safetensors
from pellucid.weights.foreign.state_dicts import strip_prefixes


def recognize(content: bytes) -> bool:
    # Field 1 of a protobuf message; or the length of the header of a safetensors file.
    return content.startswith(b"\n") and not looks_like_safetensors(content)


def read(content: bytes, path: Path) -> dict[str, Tensor]:
    """Each record is {1: name, 2: {1: dimensions, 2: type, 3: bytes}}; a large tensor has several records."""
    declared: dict[str, tuple[str, tuple[int, ...]]] = {}
    parts: dict[str, list[bytes]] = {}
    for field, value in parse_fields(_strip_checksum(content)):
        if field != 1:
            raise ValueError(f"it has a field {field}; records of tensors are field 1")
        record = dict(parse_fields(as_bytes(value)))
        name = bytes(as_bytes(record[1])).decode()
        if _is_weight(name):
            dtype, shape, part = _parse_tensor(as_bytes(record[2]))
            if declared.setdefault(name, (dtype, shape)) != (dtype, shape):
                raise ValueError(f"the parts of {name} differ in type or shape")
            parts.setdefault(name, []).append(part)
    tensors = {name: tensor_from_bytes(*declared[name], b"".join(parts[name])) for name in parts}
    return strip_prefixes(tensors)


def _is_weight(name: str) -> bool:
    """False for the optimizer's state and counters: `moment1.conv1.weight`, `global_step`, `beta1_power`."""
    return "." in name and not name.startswith(("moment1.", "moment2.", "moments.", "accum."))


def _strip_checksum(content: bytes) -> memoryview:
    if content[-17:-10] != b"crc_num":
        return memoryview(content)
    records = memoryview(content)[:-17]
    if zlib.crc32(records) != int.from_bytes(content[-10:], "big"):
        raise ValueError("its checksum differs; the file is damaged")
    return records


def _parse_tensor(message: memoryview) -> tuple[str, tuple[int, ...], bytes]:
    fields = list(parse_fields(message))
    shape = tuple(value for field, value in fields if field == 1 and isinstance(value, int))
    rest = {field: as_bytes(value) for field, value in fields if field != 1}
    return bytes(rest[2]).decode(), shape, bytes(rest[3])


FORMAT = Format("MindSpore", (".ckpt",), recognize, read)
