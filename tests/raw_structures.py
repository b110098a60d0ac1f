"""The structures of camera RAW files other than DNG, around a JPEG with metadata. They contain no samples."""

import io
import struct

import PIL.Image


def exif_of(content: bytes) -> bytes:
    """The TIFF with the EXIF of a JPEG."""
    with PIL.Image.open(io.BytesIO(content)) as file:
        return bytes(file.info["exif"][6:])


def box(kind: bytes, content: bytes) -> bytes:
    """A box of ISO media files."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def build_raf(preview: bytes) -> bytes:
    """Fuji: the places of the JPEG of the camera, of a header and of the samples."""
    places = struct.pack(">6I", 160, len(preview), 160 + len(preview), 8, 168 + len(preview), 100)
    return (b"FUJIFILMCCD-RAW ".ljust(84, b"\0") + places).ljust(160, b"\0") + preview + bytes(108)


def build_mrw(preview: bytes) -> bytes:
    """Minolta: blocks, of which one is a TIFF."""
    exif = exif_of(preview)
    blocks = b"\0PRD" + struct.pack(">I", 24) + bytes(24) + b"\0TTW" + struct.pack(">I", len(exif)) + exif
    return b"\0MRM" + struct.pack(">I", len(blocks)) + blocks + bytes(100)


def build_rw2(preview: bytes) -> bytes:
    """Panasonic: the JPEG of the camera is the value of a tag in the first directory."""
    entries = struct.pack("<HHII", 0x002E, 7, len(preview), 100) + struct.pack("<HHII", 0x010F, 2, 4, 0x434241)
    return (b"IIU\0" + struct.pack("<IH", 8, 2) + entries).ljust(100, b"\0") + preview


def small_tiff(tags: dict[int, tuple[int, bytes]]) -> bytes:
    """A TIFF with one directory of texts and fractions. tags: (type, content)."""
    rows, values, start = b"", b"", 8 + 2 + 12 * len(tags) + 4
    for tag, (kind, content) in sorted(tags.items()):
        place = struct.pack("<I", start + len(values)) if len(content) > 4 else content.ljust(4, b"\0")
        count = len(content) // {2: 1, 5: 8, 10: 8}[kind]
        rows += struct.pack("<HHI", tag, kind, count) + place
        values += content if len(content) > 4 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + bytes(4) + values


def build_cr3(xmp: bytes) -> bytes:
    """Canon: directories as blocks of their own, the maker note with offsets from the start of its block."""
    main = {0x010E: b"a night\0", 0x010F: b"Canon\0", 0x0110: b"EOS X\0", 0x013B: b"A. Uthor\0", 0x8298: b"C\0"}
    taken = {
        0x829A: (5, struct.pack("<II", 1, 50)),
        0x9204: (10, struct.pack("<ii", -1, 1)),
        0x9011: (2, b"+02:00\0"),
        0x9291: (2, b"12\0"),
        0xA435: (2, b"9\0"),
    }
    latitude = struct.pack("<6I", 48, 1, 6, 1, 0, 1)
    canon = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
    blocks = [
        (b"CMT1", small_tiff({tag: (2, text) for tag, text in main.items()})),
        (b"CMT2", small_tiff(taken)),
        (b"CMT3", small_tiff({0x0006: (2, b"IMG:EOS X JPEG\0")})),
        (b"CMT4", small_tiff({1: (2, b"N\0"), 2: (5, latitude)})),
    ]
    moov = box(b"moov", box(b"uuid", canon + b"".join(box(*block) for block in blocks)))
    xmp_box = box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + xmp)
    return box(b"ftyp", b"crx \0\0\0\1crx isom") + moov + xmp_box + box(b"mdat", bytes(100))
