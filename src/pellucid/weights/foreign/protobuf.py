"""Protobuf messages, as far as weight files need them: fields with numbers and bytes."""

from collections.abc import Iterator

from pellucid.system.wording import format_count

_FIXED_BYTES = {1: 8, 5: 4}
"""Bytes of numbers with a fixed size, by wire type."""


def as_bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it has a number where bytes are expected")
    return value


def parse_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protobuf message: number, and an integer or the bytes of a string or message."""
    position = 0
    while position < len(message):
        key, position = parse_varint(message, position)
        if key & 7 == 0:
            value, position = parse_varint(message, position)
            yield key >> 3, value
        elif key & 7 == 2:
            length, position = parse_varint(message, position)
            yield key >> 3, _slice(message, position, length)
            position += length
        elif key & 7 in _FIXED_BYTES:
            yield key >> 3, int.from_bytes(_slice(message, position, _FIXED_BYTES[key & 7]), "little")
            position += _FIXED_BYTES[key & 7]
        else:
            raise ValueError(f"a field has wire type {key & 7}; numbers (0, 1, 5) and bytes (2) are expected")


def _slice(message: memoryview, start: int, length: int) -> memoryview:
    if length > len(message) - start:
        raise ValueError(f"it ends early: a field declares {format_count(length, 'byte')}")
    return message[start : start + length]


def parse_varint(message: memoryview, position: int) -> tuple[int, int]:
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
