"""Reads EXIF from a TIFF and writes it into one, which libvips does not do.

EXIF has the structure of a TIFF: directories of tags (IFDs), where each entry has a tag number, a type, a count
and the value, or the offset of the value if it is longer. JPEG, PNG and WebP contain this small TIFF as one block.
In a TIFF, the same tags are among those that describe the samples.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import IO

Value = tuple[int, int, bytes]
"""(type, count, content) of a tag, in little-endian order."""

DESCRIPTIVE = frozenset(
    {0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C}
    # document and page name, description, make, model, software, date, artist, computer
    | {0x4746, 0x4749, 0x8298}  # rating, copyright
    | set(range(0x9C9B, 0x9CA0))  # title, comment, author, keywords, subject of Windows
)
"""Tags of the first directory that describe the picture; the others describe how the samples are stored."""

MAX_VALUE_BYTES = 2**20
"""Longer values are ignored: a damaged count could mean gigabytes."""

MAX_DIRECTORIES = 100
"""More are ignored: no camera writes so many, but a damaged file may contain any number."""

_SUB_DIRECTORIES = 0x014A
_EXIF, _GPS, _INTEROP = 0x8769, 0x8825, 0xA005
_IPTC, _PHOTOSHOP = 0x83BB, 0x8649
_WIDTH, _HEIGHT = 0xA002, 0xA003
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
_HEADER = b"Exif\0\0"
_ITEM_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
# Bytes per number, for the byte order: a fraction consists of two numbers.
_NUMBER_BYTES = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True)
class Tags:
    """Tags that describe a picture, by number: of the main directory and of EXIF, interoperability and GPS."""

    main: dict[int, Value] = field(default_factory=dict)
    exif: dict[int, Value] = field(default_factory=dict)
    interop: dict[int, Value] = field(default_factory=dict)
    gps: dict[int, Value] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.main or self.exif or self.gps)

    def with_captions(self, records: bytes, resources: bytes) -> "Tags":
        """These tags and those for IPTC records and Photoshop's resources, which only TIFF has."""
        values = {tag: (7, len(raw), raw) for tag, raw in ((_IPTC, records), (_PHOTOSHOP, resources)) if raw}
        return replace(self, main=self.main | values)


@dataclass(frozen=True)
class _Layout:
    """How a TIFF stores numbers: order is "<" or ">", offsets have 4 bytes, or 8 bytes in a BigTIFF."""

    order: str
    is_big: bool

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


def parse_tiff(file: IO[bytes]) -> Tags:
    """The descriptive tags of a TIFF, or of the small TIFF in an EXIF block; without damaged ones.

    file: open for reading, with `seek`.
    """
    try:
        layout, offset = _parse_header(file)
    except (struct.error, ValueError):
        return Tags()
    first = _parse_directory(file, layout, offset)
    exif = _parse_linked(file, layout, first, _EXIF)
    gps = _parse_linked(file, layout, first, _GPS)
    interop = _parse_linked(file, layout, exif, _INTEROP)
    exif.pop(_INTEROP, None)
    return Tags({tag: value for tag, value in first.items() if tag in DESCRIPTIVE}, exif, interop, gps)


def parse_block(block: bytes) -> Tags:
    """The tags in the EXIF block of a JPEG, PNG or WebP, with or without the header "Exif"."""
    return parse_tiff(io.BytesIO(block.removeprefix(_HEADER)))


def number(tags: dict[int, Value], tag: int) -> int | None:
    """The first number of a tag with integers, or None."""
    kind, _, content = tags.get(tag, (0, 0, b""))
    size = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}.get(kind, 0)
    return int.from_bytes(content[:size], "little") if size and len(content) >= size else None


def dots_per_mm(block: bytes) -> tuple[float, float] | None:
    """The horizontal and vertical resolution in an EXIF block, or None."""
    tags = first_directory(io.BytesIO(block.removeprefix(_HEADER)))
    unit_mm = {2: 25.4, 3: 10.0}.get(number(tags, _RESOLUTION_UNIT) or 2)
    across, down = _parse_fraction(tags, _X_RESOLUTION), _parse_fraction(tags, _Y_RESOLUTION)
    return (across / unit_mm, down / unit_mm) if unit_mm and across and down else None


def first_directory(file: IO[bytes]) -> dict[int, Value]:
    """All tags of the first directory of a TIFF, including those about the samples; {} for other files."""
    try:
        return _parse_directory(file, *_parse_header(file))
    except (struct.error, ValueError):
        return {}


def iterate_directories(file: IO[bytes]) -> Iterator[dict[int, Value]]:
    """All tags of each directory that describes samples: the first one, those after it, and their sub-directories.

    Nothing for files that are not a TIFF.
    """
    try:
        layout, offset = _parse_header(file)
        waiting, seen = [offset], {0}
        while waiting and len(seen) <= MAX_DIRECTORIES:
            offset = waiting.pop(0)
            while offset not in seen:
                seen.add(offset)
                tags = _parse_directory(file, layout, offset)
                yield tags
                waiting += numbers(tags, _SUB_DIRECTORIES)
                offset = _parse_next(file, layout, offset)
    except (struct.error, ValueError):
        return


def numbers(tags: dict[int, Value], tag: int) -> list[int]:
    """All numbers of a tag with integers, or []."""
    kind, _, content = tags.get(tag, (0, 0, b""))
    size = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}.get(kind, 0)
    return [int.from_bytes(content[i : i + size], "little") for i in range(0, len(content), size)] if size else []


def _parse_next(file: IO[bytes], layout: _Layout, offset: int) -> int:
    """The offset of the directory after this one, or 0."""
    header_bytes, entry_bytes = struct.calcsize(layout.count), struct.calcsize(layout.entry)
    count = int.from_bytes(_read(file, offset, header_bytes), "little" if layout.order == "<" else "big")
    raw = _read(file, offset + header_bytes + entry_bytes * count, layout.inline_bytes)
    return int(struct.unpack(layout.offset, raw)[0]) if len(raw) == layout.inline_bytes else 0


def _parse_fraction(tags: dict[int, Value], tag: int) -> float:
    """0 if the tag is missing or not a fraction."""
    kind, _, content = tags.get(tag, (0, 0, b""))
    numerator, denominator = struct.unpack("<II", content[:8]) if kind == 5 else (0, 0)
    return numerator / denominator if denominator else 0.0


def build_block(tags: Tags, order: str = "<") -> bytes:
    """An EXIF block with the header "Exif", for JPEG, PNG and WebP, in the byte order "<" or ">"."""
    layout = _Layout(order, is_big=False)
    content, offset = _build_directories(layout, tags, 8)
    return _HEADER + _build_header(order, offset) + content


def _build_header(order: str, offset: int) -> bytes:
    return struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, offset)


def add_to_tiff(file: IO[bytes], tags: Tags, width: int, height: int) -> None:
    """Add tags to a TIFF: appends a new first directory and points the header to it.

    file: a complete TIFF with one picture, open for reading and writing.
    width, height: size of that picture, written in place of the size in EXIF.
    """
    layout, offset = _parse_header(file)
    samples = {tag: (kind, count, raw) for tag, kind, count, raw in _parse_entries(file, layout, offset)}
    size = {tag: (4, 1, struct.pack("<I", px)) for tag, px in ((_WIDTH, width), (_HEIGHT, height))}
    exif = tags.exif | {tag: value for tag, value in size.items() if tag in tags.exif}
    end = file.seek(0, 2)
    content, offset = _build_directories(layout, replace(tags, exif=exif), end + end % 2, samples)
    file.write(bytes(end % 2) + content)
    file.seek(8 if layout.is_big else 4)
    file.write(struct.pack(layout.offset, offset))


def _parse_header(file: IO[bytes]) -> tuple[_Layout, int]:
    """(layout, offset of the first directory). Raises ValueError or struct.error if it is not a TIFF."""
    file.seek(0)
    header = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(header[:2])
    if order is None:
        raise ValueError("not a TIFF")
    layout = _Layout(order, struct.unpack(order + "H", header[2:4])[0] == 43)
    start = 8 if layout.is_big else 4
    return layout, struct.unpack(layout.offset, header[start : start + layout.inline_bytes])[0]


def _parse_entries(file: IO[bytes], layout: _Layout, offset: int) -> Iterator[tuple[int, int, int, bytes]]:
    """(tag, type, count, raw value field) of the entries of a directory; stops at the end of the file."""
    header_bytes, entry_bytes = struct.calcsize(layout.count), struct.calcsize(layout.entry)
    count = int.from_bytes(_read(file, offset, header_bytes), "little" if layout.order == "<" else "big")
    rows = _read(file, offset + header_bytes, entry_bytes * min(count, 65535))
    for start in range(0, len(rows) - entry_bytes + 1, entry_bytes):
        yield struct.unpack(layout.entry, rows[start : start + entry_bytes])


def _parse_directory(file: IO[bytes], layout: _Layout, offset: int) -> dict[int, Value]:
    found: dict[int, Value] = {}
    for tag, kind, count, raw in list(_parse_entries(file, layout, offset)):
        length = _ITEM_BYTES.get(kind, 0) * count
        if not 0 < length <= MAX_VALUE_BYTES:
            continue
        if length > layout.inline_bytes:
            raw = _read(file, struct.unpack(layout.offset, raw)[0], length)
        if len(raw) >= length:
            found[tag] = kind, count, _reorder(raw[:length], kind, layout.order)
    return found


def _parse_linked(file: IO[bytes], layout: _Layout, tags: dict[int, Value], tag: int) -> dict[int, Value]:
    """The directory that a tag points to, or {}."""
    offset = number(tags, tag)
    return _parse_directory(file, layout, offset) if offset else {}


def _read(file: IO[bytes], offset: int, length: int) -> bytes:
    """b"" for offsets beyond the end, or beyond the maximum of files."""
    if offset >= 2**62:
        return b""
    file.seek(offset)
    return file.read(length)


def _reorder(content: bytes, kind: int, order: str) -> bytes:
    """Convert from little-endian to this byte order, or back."""
    size = _NUMBER_BYTES.get(kind, 1)
    if order == "<" or size == 1:
        return content
    return b"".join(content[i : i + size][::-1] for i in range(0, len(content), size))


def _build_directories(
    layout: _Layout, tags: Tags, start: int, samples: dict[int, tuple[int, int, bytes]] | None = None
) -> tuple[bytes, int]:
    """(all directories, one after the other, offset of the first one), to be stored from the offset `start`.

    samples: entries of the first directory that are kept unchanged.
    """
    content = b""

    def append(values: dict[int, Value], links: dict[int, int], kept: dict[int, Value] | None = None) -> int:
        nonlocal content
        directory, offset = _build_directory(
            layout, values | _pointers(layout, links), start + len(content), kept or {}
        )
        content += directory
        return offset

    interop = append(tags.interop, {}) if tags.interop else 0
    exif = append(tags.exif, {_INTEROP: interop}) if tags.exif or interop else 0
    gps = append(tags.gps, {}) if tags.gps else 0
    offset = append(tags.main, {_EXIF: exif, _GPS: gps}, samples)
    return content, offset


def _pointers(layout: _Layout, links: dict[int, int]) -> dict[int, Value]:
    kind, code = (16, "<Q") if layout.is_big else (4, "<I")
    return {tag: (kind, 1, struct.pack(code, offset)) for tag, offset in links.items() if offset}


def _build_directory(
    layout: _Layout, values: dict[int, Value], start: int, kept: dict[int, Value]
) -> tuple[bytes, int]:
    """(long values and the directory, offset of the directory)."""
    long_values, entries = b"", dict(kept)
    for tag, (kind, count, content) in values.items():
        raw = _reorder(content, kind, layout.order)
        if len(raw) > layout.inline_bytes:
            offset = start + len(long_values)
            long_values += raw + bytes(len(raw) % 2)
            raw = struct.pack(layout.offset, offset)
        entries[tag] = kind, count, raw.ljust(layout.inline_bytes, b"\0")
    rows = [struct.pack(layout.entry, tag, *entries[tag]) for tag in sorted(entries)]
    directory = struct.pack(layout.count, len(rows)) + b"".join(rows) + struct.pack(layout.offset, 0)
    return long_values + directory + bytes(len(directory) % 2), start + len(long_values)
