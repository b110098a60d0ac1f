"""Whether a stream of lossless JPEG, as in DNG and CR2 files, is complete.

Every value is a Huffman code followed by as many bits as the code says. Reading the number of values that the
header states must end exactly at the end of the stream; after a cut or a blank part, it practically never does.
Values themselves are not computed: the length of the value that would start at each bit is looked up for a block
of bytes at once, and positions are followed from value to value.

Source: ITU-T T.81, annexes B, F and H.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.pictures.structures.chunks import JPEG_END, iterate_jpeg

_BLOCK_BYTES = 2**16
_DOUBLINGS = 3
_GROUPS = 2**_DOUBLINGS
"""Groups of values that one step passes."""

_MAX_VALUE_BYTES = 4
_MAX_PADDING_BYTES = 8
"""Encoders fill the last byte; some fill a word."""

_SOF3, _DHT, _SOI, _SOS, _DRI = 0xC3, 0xC4, 0xD8, 0xDA, 0xDD
_RESTARTS = range(0xD0, 0xD8)

Lengths = NDArray[np.uint8]
"""For each 16 bits: the bits of the value that starts with them, 0 if there is no such code."""


@dataclass(frozen=True)
class Header:
    """What precedes the values.

    marker: the type of the frame; 0xC3 is lossless. width, height: in groups of values.
    tables: of each value of a group, in order. interval: groups between restart markers, 0 if there are none.
    start: offset of the values.
    """

    marker: int
    width: int
    height: int
    tables: tuple[Lengths, ...]
    interval: int
    start: int

    @property
    def num_values(self) -> int:
        return self.width * self.height * len(self.tables)

    @property
    def is_lossless(self) -> bool:
        return self.marker == _SOF3


def parse_markers(stream: bytes, *, bits_after_16: int = 0) -> Header:
    """Raises ValueError, with the reason, if it is not the start of a JPEG stream.

    bits_after_16: how many bits follow the code of differences of 16 bits: 0 by the standard, 16 before DNG 1.1.
    """
    tables: dict[int, Lengths] = {}
    interval, marker, frame = 0, 0, b""
    try:
        for code, content, end in _segments(stream):
            if code == _DHT:
                tables |= _parse_tables(content, bits_after_16)
            elif code == _DRI:
                (interval,) = struct.unpack(">H", content[:2])
            elif code == _SOS:
                width, height, components = _parse_frame(frame)
                values = [tables[table] for table in _order_tables(content, components)] if marker == _SOF3 else []
                return Header(marker, width, height, tuple(values), interval, end)
            elif 0xC0 <= code <= 0xCF and code != 0xCC:
                marker, frame = code, content
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError("a damaged JPEG header") from error
    raise ValueError("a JPEG header that is cut short")


def check_values(stream: bytes, header: Header) -> None:
    """Raise ValueError, with the reason, unless the values of a lossless stream end where the stream ends."""
    left = header.width * header.height
    for part in _split_at_restarts(stream, header):
        count = min(left, header.interval or left)
        _check_part(part, header.tables, count)
        left -= count
    if left:
        raise ValueError("JPEG data that is cut short")


def _segments(stream: bytes) -> Iterator[tuple[int, bytes, int]]:
    """(marker, content, offset after it) of each segment up to the start of the values."""
    if stream[:2] != bytes([0xFF, _SOI]):
        raise ValueError("no JPEG data where it should be")
    end = 2
    for code, start, stop in iterate_jpeg(stream):
        if stream[end : start - 4].strip(b"\xff") or code == JPEG_END:  # any number of fill bytes precede a marker
            raise ValueError("a damaged JPEG header")
        yield code, stream[start:stop], stop
        end = stop


def _parse_tables(content: bytes, bits_after_16: int) -> dict[int, Lengths]:
    found, offset = {}, 0
    while offset < len(content):
        number, counts = content[offset] & 15, content[offset + 1 : offset + 17]
        categories = content[offset + 17 : offset + 17 + sum(counts)]
        lengths = np.zeros(2**16, np.uint8)
        place, nth = 0, 0
        for bits, count in enumerate(counts, start=1):
            for category in categories[nth : nth + count]:
                following = category if category < 16 else bits_after_16
                lengths[place : place + (1 << (16 - bits))] = bits + following
                place += 1 << (16 - bits)
            nth += count
        found[number] = lengths
        offset += 17 + sum(counts)
    return found


def _parse_frame(frame: bytes) -> tuple[int, int, dict[int, int]]:
    """(width, height) in groups, and how many values of each component a group has, by component."""
    _, height, width, count = struct.unpack_from(">BHHB", frame)
    factors = {frame[6 + 3 * i]: frame[7 + 3 * i] for i in range(count)}
    across, down = max(factor >> 4 for factor in factors.values()), max(factor & 15 for factor in factors.values())
    values = {component: (factor >> 4) * (factor & 15) for component, factor in factors.items()}
    if 0 in values.values() or sum(values.values()) > 16:
        raise ValueError("a damaged JPEG header")
    return -(-width // across), -(-height // down), values


def _order_tables(scan: bytes, components: dict[int, int]) -> Iterator[int]:
    """The number of the table of each value of a group."""
    if scan[0] != len(components):
        raise ValueError("a JPEG in several scans")
    for i in range(scan[0]):
        component, tables = scan[1 + 2 * i], scan[2 + 2 * i]
        yield from [tables >> 4] * components[component]


def _split_at_restarts(stream: bytes, header: Header) -> Iterator[bytes]:
    """The values between markers, up to the first marker that is not a restart, or the end."""
    data = np.frombuffer(stream, np.uint8, offset=header.start)
    marks = np.flatnonzero(data[:-1] == 0xFF)
    codes = data[marks + 1]
    is_marker = (codes != 0) & (codes != 0xFF)
    start = header.start
    for place, code in zip(marks[is_marker].tolist(), codes[is_marker].tolist(), strict=True):
        if code in _RESTARTS and not header.interval:
            raise ValueError("damaged JPEG data")
        yield stream[start : header.start + place]
        start = header.start + place + 2
        if code not in _RESTARTS:
            return
    yield stream[start:]


def _check_part(part: bytes, tables: tuple[Lengths, ...], count: int) -> None:
    data = np.frombuffer(part.replace(b"\xff\0", b"\xff"), np.uint8)
    padding = data[-(-_follow(data, tables, count) // 8) :]
    if len(padding) > _MAX_PADDING_BYTES or np.any(padding != padding[:1]):
        raise ValueError("damaged JPEG data")


def _follow(data: NDArray[np.uint8], tables: tuple[Lengths, ...], count: int) -> int:
    """The bit after so many groups of values. Raises ValueError if there are fewer."""
    margin = _GROUPS * len(tables) * _MAX_VALUE_BYTES
    position = 0
    for start in range(0, len(data), _BLOCK_BYTES):
        stop = min(len(data), start + _BLOCK_BYTES)
        single, many = _find_ends(data[start : stop + margin], margin, tables)
        position, limit = position - 8 * start, 8 * (stop - start)
        while position < limit and count >= _GROUPS:
            position = many[position]
            count -= _GROUPS
        while position < limit and count:
            position = single[position]
            count -= 1
        position += 8 * start
    if count or position > 8 * len(data):
        raise ValueError("JPEG data that is cut short")
    return position


def _find_ends(data: NDArray[np.uint8], margin: int, tables: tuple[Lengths, ...]) -> tuple[Any, Any]:
    """Where one group of values ends, and _GROUPS of them, for each bit at which they start."""
    lengths = {id(table): _find_lengths(data, margin, table) for table in tables}
    size = 8 * (len(data) + margin)
    ends = np.arange(size, dtype=np.int32)
    for table in tables:
        ends = np.minimum(ends + lengths[id(table)][ends], size - 1)
    single = ends
    for _ in range(_DOUBLINGS):
        ends = ends[ends]
    return single.data, ends.data


def _find_lengths(data: NDArray[np.uint8], margin: int, table: Lengths) -> Lengths:
    """The bits of the value that starts at each bit, with a margin of zero bits at the end."""
    padded = np.pad(data, (0, margin + 2)).astype(np.uint32)
    words = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
    lengths = np.empty((len(words), 8), np.uint8)
    for bit in range(8):
        lengths[:, bit] = table[words >> (8 - bit) & 0xFFFF]
    return lengths.ravel()
