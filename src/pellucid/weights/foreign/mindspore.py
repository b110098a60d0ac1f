"""MindSpore: files of `mindspore.save_checkpoint`, which are protobuf messages."""

import zlib
from collections.abc import Iterator

from torch import Tensor

from pellucid.weights.foreign.format import Format, tensor_from_bytes


def recognize(content: bytes) -> bool:
    return content.startswith(b"\n")  # field 1 of a protobuf message


def read(content: bytes) -> dict[str, Tensor]:
    """Each record is {1: name, 2: {1: dimensions, 2: type, 3: bytes}}; a large tensor has several records."""
    declared: dict[str, tuple[str, tuple[int, ...]]] = {}
    parts: dict[str, list[bytes]] = {}
    for field, value in _parse_fields(_strip_checksum(content)):
        if field != 1:
            raise ValueError(f"it has a field {field}; records of tensors are field 1")
        record = dict(_parse_fields(_as_bytes(value)))
        name = bytes(_as_bytes(record[1])).decode()
        if _is_weight(name):
            dtype, shape, part = _parse_tensor(_as_bytes(record[2]))
            if declared.setdefault(name, (dtype, shape)) != (dtype, shape):
                raise ValueError(f"the parts of {name} differ in type or shape")
            parts.setdefault(name, []).append(part)
    return {name: tensor_from_bytes(*declared[name], b"".join(parts[name])) for name in parts}


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
    fields = list(_parse_fields(message))
    shape = tuple(value for field, value in fields if field == 1 and isinstance(value, int))
    rest = {field: _as_bytes(value) for field, value in fields if field != 1}
    return bytes(rest[2]).decode(), shape, bytes(rest[3])


def _as_bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it has a number where bytes are expected")
    return value


def _parse_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protobuf message: number, and an integer or the bytes of a string or message."""
    position = 0
    while position < len(message):
        key, position = _parse_varint(message, position)
        value, position = _parse_varint(message, position)
        if key & 7 == 0:
            yield key >> 3, value
        elif key & 7 == 2:
            if value > len(message) - position:
                raise ValueError(f"it ends early: a field declares {value} bytes")
            yield key >> 3, message[position : position + value]
            position += value
        else:
            raise ValueError(f"a field has wire type {key & 7}; numbers (0) and bytes (2) are expected")


def _parse_varint(message: memoryview, position: int) -> tuple[int, int]:
    """The integer at this position, seven bits per byte, and the position after it."""
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


FORMAT = Format("MindSpore", (".ckpt",), recognize, read)
