"""Moves maker notes, the private EXIF data of camera makers, to another place in a file.

Most maker notes are a directory of tags whose long values are found by offsets. Some makers (Canon, Sony,
Panasonic, older Nikon, Olympus and Pentax) count these offsets from the start of the TIFF structure, so they
depend on where the note is. Others (Nikon, Olympus, Fuji, Apple) count from the start of the note. Which one it is
can be seen from the offsets: they point into the note.
"""

import struct
from dataclasses import dataclass

_STARTS = (0, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22)
"""Bytes that the known headers of maker notes have before the directory."""

_ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_OWN_TIFF = (b"Nikon\0\x02", b"OLYMPUS\0", b"OM SYSTEM\0", b"FUJIFILM", b"GENERALE", b"Apple iOS\0", b"PENTAX \0")
"""Headers of notes with their own offsets, which never have to be adapted."""

_NESTED = range(0x2010, 0x5001)
"""Tags of directories in the notes of older Olympus cameras."""

_CANON_FOOTER = (b"II*\0", b"MM\0*")
"""Starts the last 8 bytes of Canon's notes; the offset of the note follows."""


@dataclass(frozen=True)
class _Entry:
    """A tag whose value is not in the directory itself: where its offset is stored in the note, and the value."""

    tag: int
    place: int
    offset: int
    length: int


@dataclass(frozen=True)
class _Directory:
    """A directory in a note: entries with an offset, byte order, and how many offsets point into the note, counted
    from the start of the TIFF structure and from the start of the note.
    """

    entries: list[_Entry]
    order: str
    num_absolute: int
    num_relative: int


def move(note: bytes, old: int, new: int, order: str) -> tuple[bytes, bool]:
    """(the note for another offset, whether all of its values can be found there).

    old, new: offsets of the note in the TIFF structure. order: byte order of that structure, "<" or ">".
    """
    if old == new or note.startswith(_OWN_TIFF):
        return note, True
    found = _find_directory(note, old, order)
    if found is None or found.num_absolute < found.num_relative:
        return note, True
    moved, order = bytearray(note), found.order
    for entry in [*found.entries, *_nested_entries(note, found.entries, old, order)]:
        if _is_inside(entry, range(old, old + len(note))):
            struct.pack_into(order + "I", moved, entry.place, (entry.offset - old + new) % 2**32)
    _move_footer(moved, old, new, order)
    return bytes(moved), found.num_absolute == len(found.entries)


def _is_inside(entry: _Entry, span: range) -> bool:
    return span.start <= entry.offset and entry.offset + entry.length <= span.stop


def _find_directory(note: bytes, old: int, order: str) -> "_Directory | None":
    """The directory of a note: of the places where one can be read, that with the most offsets into the note."""
    other = ">" if order == "<" else "<"
    found = []
    for start in _STARTS:
        for each in (order, other):
            entries = _parse(note, start, each)
            if entries is not None:
                num_absolute = sum(_is_inside(entry, range(old, old + len(note))) for entry in entries)
                num_relative = sum(_is_inside(entry, range(len(note))) for entry in entries)
                found.append(_Directory(entries, each, num_absolute, num_relative))
    return max(found, key=lambda each: max(each.num_absolute, each.num_relative), default=None)


def _parse(note: bytes, start: int, order: str) -> list[_Entry] | None:
    """Entries with an offset of the directory at a place in the note; None if there is no directory."""
    if len(note) < start + 2:
        return None
    (count,) = struct.unpack_from(order + "H", note, start)
    if not 0 < count <= 512 or len(note) < start + 2 + 12 * count:
        return None
    entries = []
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, num_items, offset = struct.unpack_from(order + "HHII", note, place)
        if kind not in _ITEM_BYTES:
            if (kind, num_items) == (0, 0):  # some cameras leave entries empty
                continue
            return None
        length = _ITEM_BYTES[kind] * num_items
        if length > 4:
            entries.append(_Entry(tag, place + 8, offset, length))
    return entries


def _nested_entries(note: bytes, entries: list[_Entry], old: int, order: str) -> list[_Entry]:
    """Entries of the directories in a note of an older Olympus camera."""
    if not note.startswith((b"OLYMP\0", b"EPSON\0")):
        return []
    span = range(old, old + len(note))
    nested: list[_Entry] = []
    for entry in entries:
        inner = _parse(note, entry.offset - old, order) if entry.tag in _NESTED else None
        nested += [each for each in inner or [] if _is_inside(each, span)]
    return nested


def _move_footer(note: bytearray, old: int, new: int, order: str) -> None:
    if bytes(note[-8:-4]) in _CANON_FOOTER and struct.unpack_from(order + "I", note, len(note) - 4)[0] == old:
        struct.pack_into(order + "I", note, len(note) - 4, new)
