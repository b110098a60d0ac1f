"""EXIF: a small TIFF as a block in JPEG, PNG and WebP. In a TIFF, the same tags are among those of the samples.

A block is changed in place: only the bytes that describe the size, the orientation and the preview are replaced.
Unknown tags, and maker notes with their offsets, stay as the camera wrote them.
"""

import io
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import IO, Any

from pellucid.pictures import resolution
from pellucid.pictures.geometry import Change
from pellucid.pictures.records import descriptions, maker_notes, xmp
from pellucid.pictures.structures import ifd
from pellucid.pictures.structures.ifd import Layout, Value

HEADER = b"Exif\0\0"

ORIENTATION = 0x0112
DESCRIPTION = 0x010E
MAKER_NOTE = 0x927C

IN_BLOCKS = frozenset(
    {0x010D, DESCRIPTION, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C}
    # document and page name, description, make, model, software, date, artist, computer
    | {0x011A, 0x011B, 0x0128}  # resolution
    | {0x013E, 0x013F}  # white point and primaries
    | {0x4746, 0x4749, 0x8298, 0xC4A5}  # rating, copyright, printing
    | set(range(0x9C9B, 0x9CA0))  # title, comment, author, keywords, subject of Windows
)
"""Tags of the first directory of a TIFF that are also common in EXIF blocks."""

STORAGE = frozenset(
    {0xFE, 0xFF, 0x100, 0x101, 0x102, 0x103, 0x106, 0x107, 0x108, 0x109, 0x10A, 0x111, ORIENTATION, 0x115, 0x116}
    | {0x117, 0x118, 0x119, 0x11C, 0x120, 0x121, 0x124, 0x125, 0x13D, 0x140, 0x141, 0x142, 0x143}
    | {0x144, 0x145, 0x146, 0x147, 0x148, 0x14A, 0x14C, 0x14D, 0x14E, 0x150, 0x152, 0x153, 0x154, 0x155, 0x156}
    | {0x15B, *range(0x200, 0x20A), 0x211, 0x212, 0x213, 0x214, 0x22F, 0x80E5, 0xC5F2, 0xC5F3, 0x828D, 0x828E}
)
"""Tags of the first directory of a TIFF that describe how its samples are stored."""

_EXIF, _GPS, _INTEROP = 0x8769, 0x8825, 0xA005
_POINTERS = frozenset({_EXIF, _GPS, _INTEROP, 0x0190})
_WIDTH, _HEIGHT = 0xA002, 0xA003
_ISO = 0x8827
_XMP = 0x02BC
_SUBJECT_AREA, _SUBJECT_LOCATION = 0x9214, 0xA214
_RESOLUTIONS, _RESOLUTION_UNIT = (0x011A, 0x011B), 0x0128
_FOCAL_PLANE = (0xA20E, 0xA20F)
_RELATED_SIZE = (0x1001, 0x1002)
_COMMENTS = (0x9286, 0x001B, 0x001C)
"""Texts that start with the name of their encoding: of the user, GPS method and GPS area."""

_TOO_LARGE = 2**16


@dataclass(frozen=True)
class Tags:
    """Tags that describe a picture, by number: of the main directory and of EXIF, interoperability and GPS.

    order: byte order of the file. maker_note_offset: where its maker note was, for offsets in the note; 0 if it
    has none, or one that does not depend on the place.
    """

    main: dict[int, Value] = field(default_factory=dict)
    exif: dict[int, Value] = field(default_factory=dict)
    interop: dict[int, Value] = field(default_factory=dict)
    gps: dict[int, Value] = field(default_factory=dict)
    order: str = field(default="<", compare=False)
    maker_note_offset: int = field(default=0, compare=False)

    def __bool__(self) -> bool:
        return bool(self.main or self.exif or self.gps)


def parse_tiff(file: IO[bytes], offset: int | None = None) -> Tags:
    """All tags of a directory of a TIFF but those of storage, and of what it points to; without damaged ones.

    file: open for reading, with `seek`. offset: of the directory; by default, the first one.
    """
    try:
        layout, first = ifd.parse_header(file)
    except (struct.error, ValueError):
        return Tags()
    main = ifd.parse_directory(file, layout, first if offset is None else offset)
    exif = _parse_linked(file, layout, main, _EXIF)
    gps = _parse_linked(file, layout, main, _GPS)
    interop = _parse_linked(file, layout, exif, _INTEROP)
    place = _find_maker_note(file, layout, ifd.number(main, _EXIF) or 0)
    return Tags(
        _without(main, STORAGE | _POINTERS),
        _without(exif, _POINTERS),
        interop,
        gps,
        layout.order,
        place,
    )


def parse_block(block: bytes) -> Tags:
    """The tags in the EXIF block of a JPEG, PNG or WebP, with or without the header "Exif"."""
    return parse_tiff(io.BytesIO(block.removeprefix(HEADER)))


@lru_cache(maxsize=8)
def _parse_main(block: bytes) -> Mapping[int, Value]:
    """All tags of the main directory; several functions ask for those of the same picture."""
    return MappingProxyType(ifd.first_directory(io.BytesIO(block.removeprefix(HEADER))))


def find_orientation(block: bytes) -> int:
    """The orientation, 1 to 8, in a block; 0 if it contains none that exists."""
    found = ifd.number(_parse_main(block), ORIENTATION)
    return found if found is not None and 1 <= found <= 8 else 0


def find_iso(block: bytes) -> int:
    """The ISO in a block; 0 if it contains none."""
    return ifd.number(parse_block(block).exif, _ISO) or 0


def description(block: bytes) -> str:
    """The description in a block; "" if it contains none."""
    content = _parse_main(block).get(DESCRIPTION, (0, 0, b""))[2]
    return content.rstrip(b"\0").decode("utf-8", "replace")


def read_resolution(block: bytes) -> dict[str, Any]:
    """The resolution in a block as metadata, if it has a unit."""
    tags = _parse_main(block)
    unit = {2: "inch", 3: "cm"}.get(ifd.number(tags, _RESOLUTION_UNIT) or 2)
    x, y = (ifd.fraction(tags, tag) for tag in _RESOLUTIONS)
    return resolution.to_metadata(x, y, unit) if unit else {}


def parse_exif_box(content: bytes) -> bytes:
    """The EXIF block in a box or an item, whose first four bytes say how far after them the TIFF starts."""
    start = 4 + int.from_bytes(content[:4], "big")
    return HEADER + content[start:].removeprefix(HEADER)


def contains(block: bytes, other: bytes) -> bool:
    """Whether a block has all tags of another one that describe the picture, with the same values."""
    own, others = parse_block(block), parse_block(other)
    others = replace(others, main={tag: value for tag, value in others.main.items() if tag in IN_BLOCKS})
    has_orientation = find_orientation(other) in (0, find_orientation(block))
    return has_orientation and all(getattr(others, name).items() <= getattr(own, name).items() for name in _GROUPS)


def contradicts(block: bytes, metadata: Mapping[str, Any]) -> bool:
    """Whether a block has another resolution than the metadata, by more than the rounding of other formats."""
    own, other = (resolution.from_metadata(found) for found in (read_resolution(block), metadata))
    if own is None or other is None or other.unit == "none":
        return False
    pairs = zip(own.to("inch"), other.to("inch"), strict=True)
    return any(abs(one - another) > max(0.01 * another, 1) for one, another in pairs)


def add_resolution(block: bytes, metadata: Mapping[str, Any]) -> bytes:
    """A block with the resolution in metadata, for formats without another place for it."""
    dots = resolution.from_metadata(metadata)
    if dots is None or dots.unit == "none" or read_resolution(block):
        return block
    unit = "cm" if dots.unit == "cm" else "inch"
    ratios = [struct.pack("<II", *resolution.to_ratio(float(f"{value:.8g}"))) for value in dots.to(unit)]
    values: dict[int, Value] = {
        tag: (ifd.FRACTION, 1, ratio) for tag, ratio in zip(_RESOLUTIONS, ratios, strict=True)
    }
    number = struct.pack("<H", 3 if unit == "cm" else 2)
    return set_main(block, {**values, _RESOLUTION_UNIT: (ifd.SHORT, 1, number)})


def build_block(tags: Tags) -> bytes:
    """An EXIF block with the header "Exif", for JPEG, PNG and WebP; b"" without tags."""
    if not tags:
        return b""
    content, offset, _ = build_directories(Layout(tags.order), tags, 8)
    magic = b"II" if tags.order == "<" else b"MM"
    return HEADER + magic + struct.pack(tags.order + "HI", 42, offset) + content


def build_directories(
    layout: Layout,
    tags: Tags,
    start: int,
    samples: dict[int, tuple[int, int, bytes]] | None = None,
    following: int = 0,
) -> tuple[bytes, int, bool]:
    """(all directories, offset of the main one, whether the maker note can be read), to be stored from `start`.

    samples: entries of the main directory that are kept unchanged. following: offset of the next main directory.
    """
    tags, content, note, is_readable = _split_maker_note(tags, layout, start)

    def append(
        values: dict[int, Value],
        links: dict[int, int],
        kept: dict[int, tuple[int, int, bytes]] | None = None,
        following: int = 0,
    ) -> int:
        nonlocal content
        directory, offset = ifd.build_directory(
            layout, values | _pointers(layout, links), start + len(content), kept, following
        )
        content += directory
        return offset

    interop = append(tags.interop, {}) if tags.interop else 0
    exif = append(tags.exif, {_INTEROP: interop}, note) if tags.exif or note or interop else 0
    gps = append(tags.gps, {}) if tags.gps else 0
    offset = append(tags.main, {_EXIF: exif, _GPS: gps}, samples, following)
    return content, offset, is_readable


def _split_maker_note(
    tags: Tags, layout: Layout, start: int
) -> tuple[Tags, bytes, dict[int, tuple[int, int, bytes]], bool]:
    """(other tags, the maker note for the offset `start`, its entry, whether it can be read there)."""
    exif = {tag: _recode(tag, value, tags.order, layout.order) for tag, value in tags.exif.items()}
    gps = {tag: _recode(tag, value, tags.order, layout.order) for tag, value in tags.gps.items()}
    kind, count, note = exif.get(MAKER_NOTE, (0, 0, b""))
    if len(note) <= layout.inline_bytes:
        return replace(tags, exif=exif, gps=gps), b"", {}, True
    del exif[MAKER_NOTE]
    is_readable = True
    if tags.maker_note_offset:
        note, is_readable = maker_notes.move(note, tags.maker_note_offset, start, tags.order)
    entry = {MAKER_NOTE: (kind, count, struct.pack(layout.offset, start))}
    return replace(tags, exif=exif, gps=gps), note + bytes(len(note) % 2), entry, is_readable


def _recode(tag: int, value: Value, old: str, new: str) -> Value:
    """A text in UTF-16, for another byte order."""
    kind, count, content = value
    if old == new or tag not in _COMMENTS or not content.startswith(b"UNICODE\0"):
        return value
    units = content[8:]
    swapped = b"".join(units[i : i + 2][::-1] for i in range(0, len(units), 2))
    return kind, count, content[:8] + swapped


def _pointers(layout: Layout, links: dict[int, int]) -> dict[int, Value]:
    kind, code = (ifd.LONG8, "<Q") if layout.is_big else (ifd.LONG, "<I")
    return {tag: (kind, 1, struct.pack(code, offset)) for tag, offset in links.items() if offset}


def _parse_linked(file: IO[bytes], layout: Layout, tags: dict[int, Value], tag: int) -> dict[int, Value]:
    """The directory that a tag points to, or {}."""
    offset = ifd.number(tags, tag)
    return ifd.parse_directory(file, layout, offset) if offset else {}


def _find_maker_note(file: IO[bytes], layout: Layout, offset: int) -> int:
    """The offset of the maker note in an EXIF directory, or 0."""
    for entry in ifd.iterate_entries(file, layout, offset) if offset else ():
        if entry.tag == MAKER_NOTE and entry.count > layout.inline_bytes:
            return int(struct.unpack(layout.offset, entry.raw)[0])
    return 0


def _without(tags: dict[int, Value], unwanted: Iterable[int]) -> dict[int, Value]:
    return {tag: value for tag, value in tags.items() if tag not in unwanted}


def shrink_block(block: bytes, max_bytes: int) -> tuple[bytes, tuple[int, ...]]:
    """A block of at most max_bytes, and the tags that were removed for it, the longest first."""
    removed: list[int] = []
    tags = parse_block(block)
    while len(block) > max_bytes:
        values = [(len(value[2]), tag, name) for name in _GROUPS for tag, value in getattr(tags, name).items()]
        if not values:
            return b"", tuple(removed)
        _, tag, name = max(values)
        del getattr(tags, name)[tag]
        removed.append(tag)
        block = build_block(tags)
    return block, tuple(removed)


_GROUPS = ("main", "exif", "interop", "gps")


def set_main(block: bytes, values: dict[int, Value]) -> bytes:
    """A block with these tags added to the main directory, or replaced; nothing else changes its place.

    A block that is not EXIF is replaced.
    """
    try:
        editor = _Editor(block)
    except (struct.error, ValueError):
        return build_block(Tags(main=values))
    editor.set_main(values)
    return editor.block


def adapt(block: bytes, change: Change) -> tuple[bytes, tuple[str, ...]]:
    """(a block that is true for a turned and scaled picture, what was removed).

    All other bytes stay as they are. Blocks that are damaged at the start stay the same.
    """
    try:
        editor = _Editor(block)
    except (struct.error, ValueError):
        return block, ()
    editor.set_numbers("main", ORIENTATION, lambda _: [1])
    for directory, tags in (("main", (0x100, 0x101)), ("exif", (_WIDTH, _HEIGHT))):
        for tag, size in zip(tags, change.after, strict=True):
            editor.set_numbers(directory, tag, lambda _, size=size: [size])  # type: ignore[misc]  # mypy does not infer the default
    _adapt_related_size(editor, change)
    _adapt_subject(editor, change)
    if change.swaps_axes:
        editor.swap("main", *_RESOLUTIONS)
        editor.swap("exif", *_FOCAL_PLANE)
    for tag, factor in zip(_FOCAL_PLANE, change.scale, strict=True):
        editor.scale_fraction("exif", tag, factor)
    removed = (*_adapt_description(editor, change), *_adapt_packet(editor, change))
    had_preview = editor.drop_preview()
    return editor.block, (*removed, *(["the preview in EXIF"] if had_preview else []))


def _adapt_related_size(editor: "_Editor", change: Change) -> None:
    size = tuple(editor.numbers("interop", tag)[:1] for tag in _RELATED_SIZE)
    if size == tuple([px] for px in change.before):
        for tag, px in zip(_RELATED_SIZE, change.after, strict=True):
            editor.set_numbers("interop", tag, lambda _, px=px: [px])  # type: ignore[misc]  # as above


def _adapt_subject(editor: "_Editor", change: Change) -> None:
    """Center of the subject, and the diameter of a circle or the sides of a rectangle around it."""

    def move(numbers: list[int]) -> list[int]:
        if len(numbers) < 2:
            return numbers
        center = change.move_px(*numbers[:2])
        size: tuple[float, ...] = ()
        if len(numbers) == 3:
            size = (numbers[2] * min(change.scale),)
        elif len(numbers) >= 4:
            size = change.resize(*numbers[2:4])
        return [round(value) for value in (*center, *size)]

    if change.is_turned or change.is_scaled:
        editor.set_numbers("exif", _SUBJECT_AREA, move)
        editor.set_numbers("exif", _SUBJECT_LOCATION, move)


def _adapt_description(editor: "_Editor", change: Change) -> tuple[str, ...]:
    """Returns what was removed."""
    kind, _, content = editor.value("main", DESCRIPTION)
    text = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
    adapted, removed = descriptions.adapt(text, change)
    if adapted != text and kind in (ifd.ASCII, 129):
        raw = adapted.encode("utf-8", "surrogateescape") + b"\0"
        editor.set_main({DESCRIPTION: (kind, len(raw), raw)})
        return removed
    return ()


def _adapt_packet(editor: "_Editor", change: Change) -> tuple[str, ...]:
    """XMP as a tag, as in TIFF. Returns what was removed."""
    _, _, packet = editor.value("main", _XMP)
    adapted, removed = xmp.adapt(packet, change) if packet else (b"", ())
    if editor.numbers("main", ORIENTATION):
        adapted = xmp.reset_orientation(adapted)
    if adapted != packet:
        editor.set_main({_XMP: (1, len(adapted), adapted)})
    return removed


class _Editor:
    """Changes values of a block where they are. Raises ValueError or struct.error if it is not a TIFF."""

    def __init__(self, block: bytes) -> None:
        self._header = block[: len(HEADER)] if block.startswith(HEADER) else b""
        self._data = bytearray(block[len(self._header) :])
        self._layout, self._first = ifd.parse_header(self._file)
        if self._layout.is_big:
            raise ValueError("a BigTIFF, which EXIF cannot be")
        self._entries: dict[str, dict[int, ifd.Entry]] = {}
        """By the name of a directory and the tag; forgotten at each change."""

    @property
    def block(self) -> bytes:
        return self._header + bytes(self._data)

    @property
    def _file(self) -> IO[bytes]:
        return io.BytesIO(self._data)

    def _offset(self, directory: str) -> int:
        """Where a directory is; 0 if there is none."""
        if directory == "main":
            return self._first
        parent, tag = {"exif": ("main", _EXIF), "gps": ("main", _GPS), "interop": ("exif", _INTEROP)}[directory]
        return (self.numbers(parent, tag) or [0])[0]

    def _entry(self, directory: str, tag: int) -> ifd.Entry | None:
        """The first entry with this tag."""
        if directory not in self._entries:
            offset = self._offset(directory)
            entries = [*ifd.iterate_entries(self._file, self._layout, offset)] if offset else []
            self._entries[directory] = {entry.tag: entry for entry in reversed(entries)}
        return self._entries[directory].get(tag)

    def value(self, directory: str, tag: int) -> Value:
        """(0, 0, b"") if there is none."""
        entry = self._entry(directory, tag)
        if entry is None:
            return 0, 0, b""
        raw = ifd.read_value(self._file, self._layout, entry)
        return entry.kind, entry.count, ifd.reorder(raw, entry.kind, self._layout.order)

    def numbers(self, directory: str, tag: int) -> list[int]:
        """The whole numbers of a tag; [] if there are none."""
        kind, count, content = self.value(directory, tag)
        code = {1: "B", ifd.SHORT: "H", ifd.LONG: "I", ifd.IFD: "I"}.get(kind)
        return [*struct.unpack(f"<{count}{code}", content)] if code and content else []

    def set_numbers(self, directory: str, tag: int, change: Callable[[list[int]], list[int]]) -> None:
        """Change the whole numbers of a tag, if it exists. Numbers that do not fit remove it."""
        entry, numbers = self._entry(directory, tag), self.numbers(directory, tag)
        if entry is None or not numbers or entry.kind not in (ifd.SHORT, ifd.LONG):
            return
        changed = change(numbers)
        if changed == numbers:
            return
        kind = entry.kind
        if max(changed) >= _TOO_LARGE and len(changed) == 1:
            kind = ifd.LONG
        limit = _TOO_LARGE if kind == ifd.SHORT else 2**32
        if min(changed) < 0 or max(changed) >= limit or len(changed) > entry.count:
            self._remove(directory, entry)
            return
        changed += numbers[len(changed) :]
        order, code = self._layout.order, "H" if kind == ifd.SHORT else "I"
        self._entries.clear()
        raw = struct.pack(f"{order}{len(changed)}{code}", *changed)
        place = entry.place + 8 if len(raw) <= 4 else struct.unpack(order + "I", entry.raw)[0]
        self._data[place : place + len(raw)] = raw
        if len(raw) <= 4:
            self._data[place + len(raw) : place + 4] = bytes(4 - len(raw))
        struct.pack_into(order + "H", self._data, entry.place + 2, kind)

    def swap(self, directory: str, one: int, other: int) -> None:
        """Exchange the values of two tags of the same type and length."""
        entries = [self._entry(directory, tag) for tag in (one, other)]
        if entries[0] is None or entries[1] is None:
            return
        first, second = entries[0], entries[1]
        if (first.kind, first.count) == (second.kind, second.count):
            self._entries.clear()
            for entry, source in ((first, second), (second, first)):
                self._data[entry.place + 8 : entry.place + 12] = source.raw

    def scale_fraction(self, directory: str, tag: int, factor: float) -> None:
        entry = self._entry(directory, tag)
        if entry is None or entry.kind != ifd.FRACTION or entry.count != 1 or factor == 1:
            return
        order, raw = self._layout.order, ifd.read_value(self._file, self._layout, entry)
        if len(raw) == 8:
            numerator, denominator = struct.unpack(order + "II", raw)
            fraction = Fraction(numerator, denominator or 1) * Fraction(factor).limit_denominator(2**16)
            limited = fraction.limit_denominator(max(1, int(2**31 / max(1.0, float(fraction)))))
            if denominator and limited.numerator < 2**32:
                place = struct.unpack(order + "I", entry.raw)[0]
                self._entries.clear()
                struct.pack_into(order + "II", self._data, place, limited.numerator, limited.denominator)

    def set_main(self, values: dict[int, Value]) -> None:
        """Add or replace tags of the main directory: its changed copy is added at the end."""
        kept = {
            entry.tag: (entry.kind, entry.count, entry.raw)
            for entry in ifd.iterate_entries(self._file, self._layout, self._first)
            if entry.tag not in values
        }
        following = self._following(self._first)
        self._entries.clear()
        self._data += bytes(len(self._data) % 2)
        content, self._first = ifd.build_directory(self._layout, values, len(self._data), kept, following)
        self._data += content
        struct.pack_into(self._layout.offset, self._data, self._layout.first_pointer, self._first)

    def _following(self, offset: int) -> int:
        place = ifd.end_of_entries(self._file, self._layout, offset)
        if place + 4 > len(self._data):
            return 0
        return int(struct.unpack_from(self._layout.order + "I", self._data, place)[0])

    def _remove(self, directory: str, entry: ifd.Entry) -> None:
        """Remove an entry: the ones behind it move up."""
        offset = self._offset(directory)
        end = ifd.end_of_entries(self._file, self._layout, offset) + 4
        self._entries.clear()
        self._data[entry.place : end] = self._data[entry.place + 12 : end] + bytes(12)
        (count,) = struct.unpack_from(self._layout.order + "H", self._data, offset)
        struct.pack_into(self._layout.order + "H", self._data, offset, count - 1)

    def drop_preview(self) -> bool:
        """Remove the directory after the main one and its picture. Returns whether there was one."""
        place = ifd.end_of_entries(self._file, self._layout, self._first)
        offset = self._following(self._first)
        if not offset:
            return False
        unused = self._spans(offset)
        self._entries.clear()
        struct.pack_into(self._layout.order + "I", self._data, place, 0)
        used = [span for name in ("main", "exif", "interop", "gps") for span in self._spans(self._offset(name))]
        free = [span for span in unused if not any(_overlap(span, other) for other in used)]
        for start, stop in free:
            self._data[start:stop] = bytes(max(0, min(stop, len(self._data)) - start))
        for start, stop in sorted(free, reverse=True):
            if stop >= len(self._data) - 1:
                del self._data[start:]
        return True

    def _spans(self, offset: int) -> list[tuple[int, int]]:
        """(start, stop) of a directory, of its long values and of a preview that it describes."""
        if not offset:
            return []
        spans = [(offset, ifd.end_of_entries(self._file, self._layout, offset) + 4)]
        for entry in ifd.iterate_entries(self._file, self._layout, offset):
            length = ifd.ITEM_BYTES.get(entry.kind, 0) * entry.count
            if length > 4:
                start = struct.unpack(self._layout.order + "I", entry.raw)[0]
                spans.append((start, start + length))
        tags = ifd.parse_directory(self._file, self._layout, offset)
        for start_tag, length_tag in ((0x0201, 0x0202), (0x0111, 0x0117)):
            place, num_bytes = ifd.number(tags, start_tag), ifd.number(tags, length_tag)
            if place and num_bytes:
                spans.append((place, place + num_bytes))
        return spans


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]
