"""EXIF as all formats share it: read out of a TIFF, and put into one. libvips does neither.

EXIF is a small TIFF of its own: folders of tags ("IFDs"), each tag an entry of a number, a type, a count and the
value, or the place of the value where that is longer. JPEG, PNG and WebP carry this small TIFF as one block;
in a TIFF the same tags stand among those that describe the samples.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import IO

Value = tuple[int, int, bytes]
"""Type, count and content of one tag; numbers in little-endian order."""

DESCRIPTIVE = frozenset(
    {0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C}
    # document and page name, description, make, model, software, date, artist, computer
    | {0x4746, 0x4749, 0x8298}  # rating, copyright
    | set(range(0x9C9B, 0x9CA0))  # title, comment, author, keywords, subject of Windows
)
"""Tags of the first folder that tell of the picture; its other tags tell where and how the samples lie."""

MAX_VALUE_BYTES = 2**20
"""Longer values are no description; a damaged count would ask for gigabytes."""

_EXIF, _GPS, _INTEROP = 0x8769, 0x8825, 0xA005
_IPTC, _PHOTOSHOP = 0x83BB, 0x8649
_WIDTH, _HEIGHT = 0xA002, 0xA003
_ACROSS, _DOWN, _UNIT = 0x011A, 0x011B, 0x0128
_HEAD = b"Exif\0\0"
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# The numbers a value consists of: a fraction is two.
_UNITS = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True)
class Tags:
    """The tags that describe a picture, by number: of the first folder, of EXIF, its interoperability and GPS."""

    main: dict[int, Value] = field(default_factory=dict)
    exif: dict[int, Value] = field(default_factory=dict)
    interop: dict[int, Value] = field(default_factory=dict)
    gps: dict[int, Value] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.main or self.exif or self.gps)

    def with_captions(self, records: bytes, resources: bytes) -> "Tags":
        """With IPTC records and resources of Photoshop, for which only a TIFF has tags."""
        values = {tag: (7, len(raw), raw) for tag, raw in ((_IPTC, records), (_PHOTOSHOP, resources)) if raw}
        return replace(self, main=self.main | values)


@dataclass(frozen=True)
class _Layout:
    """How a TIFF writes numbers: little or big-endian, with offsets of 4 bytes or (BigTIFF) of 8."""

    order: str
    big: bool

    @property
    def offset(self) -> str:
        return self.order + ("Q" if self.big else "I")

    @property
    def count(self) -> str:
        return self.order + ("Q" if self.big else "H")

    @property
    def entry(self) -> str:
        return self.order + ("HHQ8s" if self.big else "HHI4s")

    @property
    def room(self) -> int:
        """Bytes of a value that stand in the entry itself."""
        return 8 if self.big else 4


def from_tiff(file: IO[bytes]) -> Tags:
    """What the first folder of a TIFF, or of the small TIFF that is an EXIF block, says of the picture.

    file: open for reading, with `seek`. Damaged tags are left out.
    """
    try:
        layout, place = _header(file)
    except (struct.error, ValueError):
        return Tags()
    every = _folder(file, layout, place)
    exif = _linked(file, layout, every, _EXIF)
    gps, interop = _linked(file, layout, every, _GPS), _linked(file, layout, exif, _INTEROP)
    exif.pop(_INTEROP, None)
    return Tags({tag: value for tag, value in every.items() if tag in DESCRIPTIVE}, exif, interop, gps)


def from_block(block: bytes) -> Tags:
    """What an EXIF block of a JPEG, PNG or WebP says, with or without its head "Exif"."""
    return from_tiff(io.BytesIO(block.removeprefix(_HEAD)))


def number(tags: dict[int, Value], tag: int) -> int | None:
    """The first number of a tag that holds whole ones, or None."""
    kind, _, content = tags.get(tag, (0, 0, b""))
    size = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}.get(kind, 0)
    return int.from_bytes(content[:size], "little") if size and len(content) >= size else None


def dots_per_mm(block: bytes) -> tuple[float, float] | None:
    """The resolution across and down that an EXIF block tells, or None."""
    tags = first_folder(io.BytesIO(block.removeprefix(_HEAD)))
    unit_mm = {2: 25.4, 3: 10.0}.get(number(tags, _UNIT) or 2)
    across, down = _fraction(tags, _ACROSS), _fraction(tags, _DOWN)
    return (across / unit_mm, down / unit_mm) if unit_mm and across and down else None


def first_folder(file: IO[bytes]) -> dict[int, Value]:
    """Every tag of the first folder of a TIFF, also those about the samples; {} for what is no TIFF."""
    try:
        return _folder(file, *_header(file))
    except (struct.error, ValueError):
        return {}


def _fraction(tags: dict[int, Value], tag: int) -> float:
    """0 for what is none."""
    kind, _, content = tags.get(tag, (0, 0, b""))
    above, below = struct.unpack("<II", content[:8]) if kind == 5 else (0, 0)
    return above / below if below else 0.0


def to_block(tags: Tags) -> bytes:
    """An EXIF block, headed "Exif", as JPEG, PNG and WebP carry it."""
    layout = _Layout("<", big=False)
    start = struct.pack("<2sHI", b"II", 42, 8)
    content, place = _laid_out(layout, tags, len(start))
    return _HEAD + start[:4] + struct.pack("<I", place) + content


def add_to_tiff(file: IO[bytes], tags: Tags, width: int, height: int) -> None:
    """Put the tags into a TIFF: a new first folder at its end, and the head pointing there.

    file: open for reading and writing, a whole TIFF of one picture. width, height: of that picture, which
    replace the size that EXIF tells.
    """
    layout, place = _header(file)
    samples = {tag: (kind, count, raw) for tag, kind, count, raw in _entries(file, layout, place)}
    size = {tag: (4, 1, struct.pack("<I", px)) for tag, px in ((_WIDTH, width), (_HEIGHT, height))}
    exif = tags.exif | {tag: value for tag, value in size.items() if tag in tags.exif}
    end = file.seek(0, 2)
    content, place = _laid_out(layout, replace(tags, exif=exif), end + end % 2, samples)
    file.write(bytes(end % 2) + content)
    file.seek(8 if layout.big else 4)
    file.write(struct.pack(layout.offset, place))


def _header(file: IO[bytes]) -> tuple[_Layout, int]:
    """The layout, and where the first folder is. Raises ValueError or struct.error for what is no TIFF."""
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        raise ValueError("no TIFF")
    layout = _Layout(order, struct.unpack(order + "H", head[2:4])[0] == 43)
    start = 8 if layout.big else 4
    return layout, struct.unpack(layout.offset, head[start : start + layout.room])[0]


def _entries(file: IO[bytes], layout: _Layout, place: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Number, type, count and the field for the value, as the file has them; none outside the file."""
    head, size = struct.calcsize(layout.count), struct.calcsize(layout.entry)
    count = int.from_bytes(_read(file, place, head), "little" if layout.order == "<" else "big")
    rows = _read(file, place + head, size * min(count, 65535))
    for start in range(0, len(rows) - size + 1, size):
        yield struct.unpack(layout.entry, rows[start : start + size])


def _folder(file: IO[bytes], layout: _Layout, place: int) -> dict[int, Value]:
    found: dict[int, Value] = {}
    for tag, kind, count, raw in list(_entries(file, layout, place)):
        length = _SIZES.get(kind, 0) * count
        if not 0 < length <= MAX_VALUE_BYTES:
            continue
        if length > layout.room:
            raw = _read(file, struct.unpack(layout.offset, raw)[0], length)
        if len(raw) >= length:
            found[tag] = kind, count, _turned(raw[:length], kind, layout.order)
    return found


def _linked(file: IO[bytes], layout: _Layout, tags: dict[int, Value], tag: int) -> dict[int, Value]:
    """The folder that a tag points to, or {}."""
    place = number(tags, tag)
    return _folder(file, layout, place) if place else {}


def _read(file: IO[bytes], place: int, length: int) -> bytes:
    """b"" from beyond the end, also where no file can reach."""
    if place >= 2**62:
        return b""
    file.seek(place)
    return file.read(length)


def _turned(content: bytes, kind: int, order: str) -> bytes:
    """From little-endian into this order, or back."""
    unit = _UNITS.get(kind, 1)
    if order == "<" or unit == 1:
        return content
    return b"".join(content[i : i + unit][::-1] for i in range(0, len(content), unit))


def _laid_out(
    layout: _Layout, tags: Tags, start: int, samples: dict[int, tuple[int, int, bytes]] | None = None
) -> tuple[bytes, int]:
    """The folders one behind the other as they stand from `start` on, and the place of the first folder.

    samples: entries of the first folder that stay as they are.
    """
    content = b""

    def linked(values: dict[int, Value], links: dict[int, int], kept: dict[int, Value] | None = None) -> int:
        nonlocal content
        written, place = _written(layout, values | _pointers(layout, links), start + len(content), kept or {})
        content += written
        return place

    interop = linked(tags.interop, {}) if tags.interop else 0
    exif = linked(tags.exif, {_INTEROP: interop}) if tags.exif or interop else 0
    gps = linked(tags.gps, {}) if tags.gps else 0
    place = linked(tags.main, {_EXIF: exif, _GPS: gps}, samples)
    return content, place


def _pointers(layout: _Layout, links: dict[int, int]) -> dict[int, Value]:
    kind, code = (16, "<Q") if layout.big else (4, "<I")
    return {tag: (kind, 1, struct.pack(code, place)) for tag, place in links.items() if place}


def _written(layout: _Layout, values: dict[int, Value], start: int, kept: dict[int, Value]) -> tuple[bytes, int]:
    """Long values, then the folder: (content, place of the folder)."""
    long_values, entries = b"", dict(kept)
    for tag, (kind, count, content) in values.items():
        raw = _turned(content, kind, layout.order)
        if len(raw) > layout.room:
            place = start + len(long_values)
            long_values += raw + bytes(len(raw) % 2)
            raw = struct.pack(layout.offset, place)
        entries[tag] = kind, count, raw.ljust(layout.room, b"\0")
    rows = [struct.pack(layout.entry, tag, *entries[tag]) for tag in sorted(entries)]
    folder = struct.pack(layout.count, len(rows)) + b"".join(rows) + struct.pack(layout.offset, 0)
    return long_values + folder + bytes(len(folder) % 2), start + len(long_values)
