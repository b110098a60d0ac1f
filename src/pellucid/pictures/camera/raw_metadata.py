"""What a camera RAW file says about its picture: EXIF, GPS, XMP and IPTC, without what describes its samples.

Most RAW files have the structure of a TIFF. Others contain the same directories as blocks (CR3, MRW), or the JPEG
of the camera with them (RAF, RW2, and, through LibRaw, any other).
"""

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any

from pellucid.pictures.containers import jpeg, tiff
from pellucid.pictures.records import exif, xmp
from pellucid.pictures.records.exif import Tags
from pellucid.pictures.structures import ifd
from pellucid.pictures.structures.boxes import XMP_UUID, iterate_boxes
from pellucid.pictures.structures.ifd import Value

_PRINTING, _WHITE_POINT, _PRIMARIES = 0xC4A5, 0x013E, 0x013F
_OF_CAMERA = frozenset({0xC614, 0xC615, 0xC62F, 0xC630, 0xC68B, 0xC763, 0xC764, 0xC772, 0xC789, 0xC7A1})
"""Tags of DNG about the camera and the shot: model, serial number, lens, name of the original file, film."""

_MAIN = exif.IN_BLOCKS - {_PRINTING, _WHITE_POINT, _PRIMARIES} | _OF_CAMERA
_IN_EXIF = frozenset(
    {0x829A, 0x829D, 0x8822, 0x8827, 0x882A, 0x9003, 0x9004, 0x9211, 0x9212, 0x9213, 0x9217}
    | {*range(0x9201, 0x920B), 0x9214}
)
"""Tags that TIFF/EP puts into the main directory, and EXIF into its own."""

_COLOR_SPACE, _CFA_PATTERN, _COMPRESSED_BITS, _INTEROP_INDEX = 0xA001, 0xA302, 0x9102, 0x0001
_OF_SAMPLES = {_CFA_PATTERN, _COMPRESSED_BITS}
_SRGB: Value = (ifd.SHORT, 1, struct.pack("<H", 1))
_SRGB_INDEX = b"R98\0"

_PANASONIC_MAGIC, _PANASONIC_JPEG = b"IIU\0", 0x002E
_FUJI_MAGIC, _FUJI_JPEG = b"FUJIFILMCCD-RAW", 84
_MINOLTA_MAGIC, _MINOLTA_TIFF = b"\0MRM", b"\0TTW"
_CANON_UUID = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")

_MAX_BLOCK_BYTES = 2**26


@dataclass(frozen=True)
class _Found:
    """What a file contains. others: XMP, IPTC and Photoshop's resources, by the key of `Picture.metadata`."""

    tags: Tags = field(default_factory=Tags)
    others: Mapping[str, Any] = field(default_factory=dict)

    def complete(self, other: "_Found") -> "_Found":
        """With the tags and texts of another one that this does not have."""
        return _Found(_complete(self.tags, other.tags), {**other.others, **self.others})


def read(
    file: IO[bytes],
    *,
    read_preview: Callable[[], bytes] = bytes,
    known: bytes = b"",
    sidecar: bytes = b"",
    developed: bool = True,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata of the developed picture, what is not kept), by the keys of `Picture.metadata`.

    read_preview: finds the JPEG in the file, for files of unknown structure.
    known: an EXIF block for files without EXIF.
    sidecar: XMP that takes precedence over that in the file.
    developed: False: that of a file with the same samples, in which the settings of RAW programs and the color
        space stay.
    """
    found = _read_file(file)
    if not found.tags:
        found = found.complete(_read_jpeg(read_preview()))
    if not found.tags.exif:
        found = found.complete(_Found(exif.parse_block(known)))
    if not developed:
        block = exif.build_block(_describe_samples(found.tags))
        packet = xmp.complete(sidecar, found.others.get("xmp-data", b""))
        metadata = {"exif-data": block, **found.others, "xmp-data": packet, **exif.read_resolution(block)}
        return {key: value for key, value in metadata.items() if value}, ()
    block = exif.build_block(_describe_developed(found.tags))
    packet, removed = xmp.remove_development(xmp.complete(sidecar, found.others.get("xmp-data", b"")))
    metadata = {
        "exif-data": block,
        **found.others,
        "xmp-data": xmp.reset_orientation(packet),
        **exif.read_resolution(block),
    }
    return {key: value for key, value in metadata.items() if value}, removed


def _read_file(file: IO[bytes]) -> _Found:
    file.seek(0)
    head = file.read(16)
    if head[:2] in (b"II", b"MM"):
        found = _read_tiff(file)
        return _read_panasonic(file).complete(found) if head.startswith(_PANASONIC_MAGIC) else found
    if head[4:8] == b"ftyp":
        return _read_boxes(file)
    if head.startswith(_FUJI_MAGIC):
        return _read_jpeg(_read_fuji_jpeg(file))
    return _read_minolta(file) if head.startswith(_MINOLTA_MAGIC) else _Found()


def _read_tiff(file: IO[bytes]) -> _Found:
    return _Found(exif.parse_tiff(file), _select_texts(tiff.read(file)[0]))


def _read_jpeg(content: bytes) -> _Found:
    if not content.startswith(b"\xff\xd8"):
        return _Found()
    found, _ = jpeg.read(io.BytesIO(content))
    return _Found(exif.parse_block(found["exif-data"]), _select_texts(found))


def _select_texts(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("xmp-data", "iptc-data", "photoshop-data") if found.get(key)}


def _read_panasonic(file: IO[bytes]) -> _Found:
    return _read_jpeg(ifd.first_directory(file).get(_PANASONIC_JPEG, (0, 0, b""))[2])


def _read_fuji_jpeg(file: IO[bytes]) -> bytes:
    file.seek(_FUJI_JPEG)
    offset, length = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
    return ifd.read_at(file, offset, min(length, _MAX_BLOCK_BYTES))


def _read_minolta(file: IO[bytes]) -> _Found:
    """A sequence of (name, length, content); one of them is a TIFF without samples."""
    offset = 8
    while len(head := ifd.read_at(file, offset, 8)) == 8:
        name, length = struct.unpack(">4sI", head)
        if name == _MINOLTA_TIFF:
            return _read_tiff(io.BytesIO(ifd.read_at(file, offset + 8, min(length, _MAX_BLOCK_BYTES))))
        offset += 8 + length
    return _Found()


def _read_boxes(file: IO[bytes]) -> _Found:
    """CR3: Canon's box contains the directories of a TIFF as one small TIFF each."""
    texts, blocks = {}, dict[bytes, bytes]()
    for box in iterate_boxes(file):
        if box.kind == b"uuid" and box.read(file).startswith(XMP_UUID):
            texts["xmp-data"] = box.read(file)[len(XMP_UUID) :].rstrip(b"\0")
        elif box.kind == b"moov":
            for inner in iterate_boxes(file, box.start, box.stop):
                if inner.kind == b"uuid" and inner.read(file).startswith(_CANON_UUID):
                    parts = iterate_boxes(file, inner.start + len(_CANON_UUID), inner.stop)
                    blocks |= {part.kind: part.read(file) for part in parts}
    return _Found(_join_canon_blocks(blocks), texts)


def _join_canon_blocks(blocks: Mapping[bytes, bytes]) -> Tags:
    main, taken, note, place = (blocks.get(name, b"") for name in (b"CMT1", b"CMT2", b"CMT3", b"CMT4"))
    values = ifd.first_directory(io.BytesIO(taken))
    if len(note) > 8:  # offsets in it count from the header of its TIFF
        values[exif.MAKER_NOTE] = (ifd.BINARY, len(note) - 8, note[8:])
    tags = exif.parse_tiff(io.BytesIO(main))
    gps = ifd.first_directory(io.BytesIO(place))
    return replace(tags, exif=values, gps=gps, maker_note_offset=8 if len(note) > 8 else 0)


def _complete(tags: Tags, other: Tags) -> Tags:
    """With the tags of another file. A maker note belongs to the byte order of its file."""
    if not tags:
        return other
    keeps_note = exif.MAKER_NOTE in tags.exif or tags.order != other.order
    return replace(
        tags,
        main=other.main | tags.main,
        exif=(_without_note(other.exif) if keeps_note else other.exif) | tags.exif,
        interop=other.interop | tags.interop,
        gps=other.gps | tags.gps,
        maker_note_offset=(tags if keeps_note else other).maker_note_offset,
    )


def _without_note(tags: dict[int, Value]) -> dict[int, Value]:
    return {tag: value for tag, value in tags.items() if tag != exif.MAKER_NOTE}


def _describe_samples(tags: Tags) -> Tags:
    """The tags that are also true for another file of the same samples, in the directories where EXIF has them."""
    moved = {tag: value for tag, value in tags.main.items() if tag in _IN_EXIF}
    taken = {tag: value for tag, value in (moved | tags.exif).items() if tag not in _OF_SAMPLES}
    return replace(tags, main={tag: value for tag, value in tags.main.items() if tag in _MAIN}, exif=taken)


def _describe_developed(tags: Tags) -> Tags:
    """The tags that are true for the developed picture, in the directories where EXIF has them."""
    moved = {tag: value for tag, value in tags.main.items() if tag in _IN_EXIF}
    taken = {tag: value for tag, value in (moved | tags.exif).items() if tag not in _OF_SAMPLES}
    index = tags.interop.get(_INTEROP_INDEX, (0, 0, _SRGB_INDEX))[2]
    return replace(
        tags,
        main={tag: value for tag, value in tags.main.items() if tag in _MAIN},
        exif=taken | {_COLOR_SPACE: _SRGB},
        interop=tags.interop if index == _SRGB_INDEX else {},
    )
