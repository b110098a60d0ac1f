"""Directories of tags (IFDs), of which TIFF files and EXIF consist.

Each entry of a directory has a tag number, a type, a count and the value, or the offset of the value if it is
longer than the entry.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from PIL import TiffTags

Value = tuple[int, int, bytes]
"""(type, count, content) of a tag, in little-endian order."""

ASCII, SHORT, LONG, FRACTION, BINARY, IFD, LONG8, IFD8 = 2, 3, 4, 5, 7, 13, 16, 18
"""Types of values."""

MAX_VALUE_BYTES = 2**26
"""Longer values are ignored: a damaged count could mean gigabytes."""

_MAX_DIRECTORIES = 10_000
ITEM_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1
}  # fmt: skip
"""Bytes per item of each type. 129 is the UTF-8 text of EXIF 3.0."""

_INTEGER_BYTES = {1: 1, SHORT: 2, LONG: 4, IFD: 4, LONG8: 8, IFD8: 8}
_SUB_DIRECTORIES = 0x014A

# Bytes per number, for the byte order: a fraction consists of two numbers.
_NUMBER_BYTES = ITEM_BYTES | {FRACTION: 4, 10: 4}


@dataclass(frozen=True)
class Layout:
    """How a TIFF stores numbers: order is "<" or ">", offsets have 4 bytes, or 8 bytes in a BigTIFF."""

    order: str
    is_big: bool = False

    @property
    def offset(self) -> str:
        return self.order + ("Q" if self.is_big else "I")

    @property
    def count(self) -> str:
        return self.order + ("Q" if self.is_big else "H")

    @property
    def entry(self) -> str:
        return self.order + ("HHQ8s" if self.is_big else "HHI4s")

    @property
    def inline_bytes(self) -> int:
        """Bytes of the longest value that is stored in the entry itself."""
        return 8 if self.is_big else 4

    @property
    def first_pointer(self) -> int:
        """Where the offset of the first directory is stored."""
        return 8 if self.is_big else 4


@dataclass(frozen=True)
class Entry:
    """An entry of a directory. raw: its value field. place: where it is in the file."""

    tag: int
    kind: int
    count: int
    raw: bytes
    place: int


def parse_header(file: IO[bytes]) -> tuple[Layout, int]:
    """(layout, offset of the first directory). Raises ValueError or struct.error if it is not a TIFF."""
    file.seek(0)
    header = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(header[:2])
    if order is None:
        raise ValueError("not a TIFF")
    layout = Layout(order, struct.unpack(order + "H", header[2:4])[0] == 43)
    start = layout.first_pointer
    return layout, struct.unpack(layout.offset, header[start : start + layout.inline_bytes])[0]


def _find_chain(file: IO[bytes]) -> tuple[Layout, list[int]]:
    """(layout, offset of each directory in the chain of a TIFF).

    Raises ValueError or struct.error if it is not a TIFF.
    """
    layout, offset = parse_header(file)
    found: dict[int, None] = {}  # a set that keeps the order
    while offset and offset not in found and len(found) < _MAX_DIRECTORIES:
        found[offset] = None
        pointer = read_at(file, end_of_entries(file, layout, offset), layout.inline_bytes)
        offset = struct.unpack(layout.offset, pointer)[0] if len(pointer) == layout.inline_bytes else 0
    return layout, [*found]


def end_of_entries(file: IO[bytes], layout: Layout, offset: int) -> int:
    """Where a directory stores the offset of the next one."""
    header_bytes, entry_bytes = struct.calcsize(layout.count), struct.calcsize(layout.entry)
    return offset + header_bytes + entry_bytes * _count_entries(file, layout, offset)


def iterate_entries(file: IO[bytes], layout: Layout, offset: int) -> Iterator[Entry]:
    """The entries of a directory; stops at the end of the file."""
    header_bytes, entry_bytes = struct.calcsize(layout.count), struct.calcsize(layout.entry)
    rows = read_at(file, offset + header_bytes, entry_bytes * _count_entries(file, layout, offset))
    for start in range(0, len(rows) - entry_bytes + 1, entry_bytes):
        tag, kind, count, raw = struct.unpack(layout.entry, rows[start : start + entry_bytes])
        yield Entry(tag, kind, count, raw, offset + header_bytes + start)


def _count_entries(file: IO[bytes], layout: Layout, offset: int) -> int:
    head = read_at(file, offset, struct.calcsize(layout.count))
    return min(int.from_bytes(head, "little" if layout.order == "<" else "big"), 65535)


def parse_directory(file: IO[bytes], layout: Layout, offset: int) -> dict[int, Value]:
    """The values of a directory, without damaged ones and those of unknown types."""
    found: dict[int, Value] = {}
    for entry in list(iterate_entries(file, layout, offset)):
        raw = read_value(file, layout, entry)
        if raw:
            found[entry.tag] = entry.kind, entry.count, reorder(raw, entry.kind, layout.order)
    return found


def read_value(file: IO[bytes], layout: Layout, entry: Entry) -> bytes:
    """The value as stored; b"" if it is damaged, too long or of an unknown type."""
    length, raw = ITEM_BYTES.get(entry.kind, 0) * entry.count, entry.raw
    if not 0 < length <= MAX_VALUE_BYTES:
        return b""
    if length > layout.inline_bytes:
        raw = read_at(file, struct.unpack(layout.offset, raw)[0], length)
    return raw[:length] if len(raw) >= length else b""


def first_directory(file: IO[bytes]) -> dict[int, Value]:
    """All tags of the first directory of a TIFF; {} for other files."""
    try:
        return parse_directory(file, *parse_header(file))
    except (struct.error, ValueError):
        return {}


def name(tag: int) -> str:
    """The name of a tag, or its number as 0x0123."""
    known = _NAMES.get(tag) or TiffTags.lookup(tag).name
    return f"0x{tag:04X}" if known == "unknown" else str(known)


_NAMES = {
    0x927C: "MakerNote",
    0x830E: "ModelPixelScale",
    0x8482: "ModelTiepoint",
    0x85D8: "ModelTransformation",
    0x87AF: "GeoKeyDirectory",
    0x87B0: "GeoDoubleParams",
    0x87B1: "GeoAsciiParams",
    0xA480: "GDAL_METADATA",
    0xA481: "GDAL_NODATA",
    0xC69C: "RPCCoefficients",
    0x935C: "ImageSourceData",
}


def iterate_directories(file: IO[bytes]) -> Iterator[dict[int, Value]]:
    """All tags of each directory that describes samples: those of the chain, in order, then their sub-directories.

    Nothing for files that are not a TIFF.
    """
    try:
        layout, waiting = _find_chain(file)
    except (struct.error, ValueError):
        return
    seen: set[int] = set()
    while waiting and len(seen) < _MAX_DIRECTORIES:
        offset = waiting.pop(0)
        if offset not in seen:
            seen.add(offset)
            tags = parse_directory(file, layout, offset)
            yield tags
            waiting += numbers(tags, _SUB_DIRECTORIES)


def numbers(tags: Mapping[int, Value], tag: int) -> list[int]:
    """All numbers of a tag with integers, or []."""
    kind, _, content = tags.get(tag, (0, 0, b""))
    size = _INTEGER_BYTES.get(kind, 0)
    return [int.from_bytes(content[i : i + size], "little") for i in range(0, len(content), size)] if size else []


def linked_directories(file: IO[bytes], tags: dict[int, Value], tag: int) -> list[dict[int, Value]]:
    """The directories of a TIFF that a tag with offsets points to, at most eight."""
    offsets = [offset for offset in numbers(tags, tag)[:8] if offset]
    if not offsets:
        return []
    layout, _ = parse_header(file)
    return [parse_directory(file, layout, offset) for offset in offsets]


def number(tags: Mapping[int, Value], tag: int) -> int | None:
    """The first number of a tag with integers, or None."""
    kind, _, content = tags.get(tag, (0, 0, b""))
    size = _INTEGER_BYTES.get(kind, 0)
    return int.from_bytes(content[:size], "little") if size and len(content) >= size else None


def fraction(tags: Mapping[int, Value], tag: int) -> float:
    """The first number of a tag of fractions or floating-point numbers; 0 if there is none."""
    kind, _, content = tags.get(tag, (0, 0, b""))
    if kind == FRACTION and len(content) >= 8:
        numerator, denominator = struct.unpack("<II", content[:8])
        return numerator / denominator if denominator else 0.0
    if kind in (11, 12):
        return float(struct.unpack_from("<f" if kind == 11 else "<d", content)[0])
    return float(number(tags, tag) or 0)


def read_at(file: IO[bytes], offset: int, length: int) -> bytes:
    """b"" for offsets beyond the end, some of which would be an error of the file system."""
    if offset >= file.seek(0, 2):
        return b""
    file.seek(offset)
    return file.read(length)


def reorder(content: bytes, kind: int, order: str) -> bytes:
    """Convert from little-endian to this byte order, or back."""
    size = _NUMBER_BYTES.get(kind, 1)
    if order == "<" or size == 1:
        return content
    return b"".join(content[i : i + size][::-1] for i in range(0, len(content), size))


def build_directory(
    layout: Layout, values: dict[int, Value], start: int, kept: dict[int, Value] | None = None, following: int = 0
) -> tuple[bytes, int]:
    """(long values and the directory, offset of the directory), to be stored at the offset `start`.

    kept: more entries, with their raw value fields. following: offset of the next directory.
    """
    long_values, entries = b"", dict(kept or {})
    for tag, (kind, count, content) in values.items():
        raw = reorder(content, kind, layout.order)
        if len(raw) > layout.inline_bytes:
            offset = start + len(long_values)
            long_values += raw + bytes(len(raw) % 2)
            raw = struct.pack(layout.offset, offset)
        entries[tag] = kind, count, raw.ljust(layout.inline_bytes, b"\0")
    rows = [struct.pack(layout.entry, tag, *entries[tag]) for tag in sorted(entries)]
    directory = struct.pack(layout.count, len(rows)) + b"".join(rows) + struct.pack(layout.offset, following)
    return long_values + directory + bytes(len(directory) % 2), start + len(long_values)
