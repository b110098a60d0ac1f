"""Small maker notes in the structure of each camera maker, as ExifTool reads them."""

import struct
from typing import NamedTuple


class Entry(NamedTuple):
    """tag, type, count and value of a tag."""

    tag: int
    kind: int
    num_items: int
    content: bytes


def text(tag: int, value: str) -> Entry:
    return Entry(tag, 2, len(value) + 1, value.encode() + b"\0")


def number(tag: int, value: int, order: str) -> Entry:
    return Entry(tag, 4, 1, struct.pack(order + "I", value))


def directory(entries: list[Entry], order: str, start: int, following: int = 0) -> bytes:
    """A directory for the offset `start`, followed by its long values."""
    rows, values, place = b"", b"", start + 6 + 12 * len(entries)
    for entry in sorted(entries):
        raw = entry.content.ljust(4, b"\0")
        if len(raw) > 4:
            raw = struct.pack(order + "I", place + len(values))
            values += entry.content + bytes(len(entry.content) % 2)
        rows += struct.pack(order + "HHI", *entry[:3]) + raw
    return struct.pack(order + "H", len(entries)) + rows + struct.pack(order + "I", following) + values


# Make -> (header, entries, where offsets count from: 0 for the start of EXIF, 1 for that of the note, 2 for a TIFF
# structure of its own in the note).
MAKERS: dict[str, tuple[bytes, list[Entry], int]] = {
    "Canon": (
        b"",
        [
            text(6, "Canon EOS test"),
            text(9, "Owner"),
            Entry(0x95, 2, 64, b"EF24-70mm f/2.8L".ljust(64, b"\0")),
        ],
        0,
    ),
    "SONY": (
        b"SONY DSC \0\0\0",
        [text(0xB020, "Standard style x"), Entry(0xB02B, 4, 2, struct.pack("<II", 4000, 6000))],
        0,
    ),
    "Panasonic": (b"Panasonic\0\0\0", [text(0x51, "LUMIX G 20mm lens"), text(0x52, "LENSSERIAL123")], 0),
    "PENTAX": (b"AOC\0II", [text(0x229, "SERIAL7654321"), Entry(0x3F, 1, 4, b"\3\xff\0\0")], 0),
    "OLYMPUS OPTICAL CO.,LTD": (
        b"OLYMP\0\1\0",
        [Entry(0x209, 7, 32, b"OLYMPUS DIGITAL CAMERA".ljust(32, b"\0")), text(0x207, "SX0123456")],
        0,
    ),
    "NIKON": (b"Nikon\0\1\0", [text(3, "xxxxxx"), text(2, "080-longer")], 0),
    "SIGMA": (b"SIGMA\0\0\0\1\0", [text(2, "SERIAL55667788"), text(0x17, "Soft 1.0 build 5")], 0),
    "CASIO COMPUTER CO.,LTD": (b"QVC\0\0\0", [text(0x2001, "0210011200")], 0),
    "OLYMPUS CORPORATION": (b"OLYMPUS\0II\3\0", [text(0x207, "E-M1 camtype"), text(0x404, "SER00112233")], 1),
    "FUJIFILM": (
        b"FUJIFILM\x0c\0\0\0",
        [Entry(0x1000, 2, 8, b"FINE   \0"), text(0x10, "FF02B012345 SERIAL")],
        1,
    ),
    "Apple": (b"Apple iOS\0\0\1II", [text(0x15, "ABCD-EFGH-UNIQUE-ID"), Entry(0x14, 9, 1, b"\x0a\0\0\0")], 1),
    "NIKON CORPORATION": (
        b"Nikon\0\2\x10\0\0II*\0\x08\0\0\0",
        [text(5, "AUTO WB   "), Entry(0x84, 5, 4, struct.pack("<8I", 240, 10, 700, 10, 28, 10, 28, 10))],
        2,
    ),
}


def note(make: str, start: int) -> bytes:
    """The maker note for an offset in EXIF."""
    header, entries, base = MAKERS[make]
    content = header + directory(entries, "<", (start + len(header), len(header), 8)[base])
    return content + b"II*\0" + struct.pack("<I", start) if make == "Canon" else content


def block(make: str, order: str, *more: Entry, size: tuple[int, int] = (64, 48)) -> bytes:
    """EXIF with the maker note, more tags in its EXIF directory, and a preview."""
    first = [text(0x10F, make), text(0x110, "Model X"), Entry(0x112, 3, 1, struct.pack(order + "H", 1))]
    own = [number(0xA002, size[0], order), number(0xA003, size[1], order), *more]
    start = 8 + len(directory([*first, number(0x8769, 0, order)], order, 8))

    def build_exif(place: int) -> bytes:
        content = note(make, place)
        return directory([*own, Entry(0x927C, 7, len(content), content)], order, start)

    taken = build_exif(start + build_exif(0).index(note(make, 0)))
    preview = b"\xff\xd8\xff\xdb" + b"T" * 200 + b"\xff\xd9"
    place = start + len(taken)
    of_preview = [
        Entry(0x103, 3, 1, struct.pack(order + "H", 6)),
        number(0x201, place + 42, order),
        number(0x202, len(preview), order),
    ]
    main = directory([*first, number(0x8769, start, order)], order, 8, place)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return b"Exif\0\0" + head + main + taken + directory(of_preview, order, place) + preview
