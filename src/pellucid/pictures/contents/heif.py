"""What a HEIC or AVIF file contains besides its picture: other pictures, frames, gain maps, depth maps, videos.

Sources: ISO/IEC 23008-12 (HEIF), ISO 21496-1 (gain maps).
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

from pellucid.pictures.contents.parts import (
    CREDENTIALS,
    DEPTH_MAP,
    GAIN_MAP,
    VIDEO,
    Contents,
    describe_trailer,
    name_box,
)
from pellucid.pictures.structures.boxes import (
    MAX_BYTES,
    XMP_UUID,
    Box,
    find_box,
    iterate_boxes,
    iterate_own_boxes,
)

_PICTURE_ITEMS = {
    b"hvc1",
    b"av01",
    b"grid",
    b"iovl",
    b"iden",
    b"jpeg",
    b"j2k1",
    b"avc1",
    b"vvc1",
    b"unci",
    b"mski",
}
_BOXES = {b"ftyp", b"meta", b"mdat", b"moov", b"uuid", b"free", b"skip", b"wide", b"styp", b"pdin"}
"""Outermost boxes of pictures, and those that say nothing about them."""

_GAIN_MAP_ITEM = b"tmap"
_VIDEO_BOX = b"mpvd"
_EXIF, _TYPED = b"Exif", b"mime"
_XMP = b"application/rdf+xml"
_CREDENTIALS_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_HINT = "save each picture as a file of its own first, e.g. by `heif-dec`"
_ALPHA = (b"auxiliary:alpha", b"auxid:1")


@dataclass
class _Items:
    """kinds: type by item number, without hidden ones. references: (type, from, to). primary: item number.

    records: (type, its content type, its compression) of items that are not pictures, by number.
    """

    kinds: dict[int, bytes] = field(default_factory=dict)
    records: dict[int, tuple[bytes, bytes, bytes]] = field(default_factory=dict)
    references: list[tuple[bytes, int, int]] = field(default_factory=list)
    primary: int = 0
    alternatives: list[set[int]] = field(default_factory=list)
    properties: list[bytes] = field(default_factory=list)


def inspect_heif(file: IO[bytes]) -> Contents:
    """Pictures and parts."""
    boxes = [*iterate_own_boxes(file)]
    num_frames = count_frames(file, boxes)
    if num_frames > 1:
        return Contents(num_frames, "an image sequence", "frames", _HINT)
    items = _parse_items(file)
    parts = [*_describe_auxiliaries(items)]
    parts += [VIDEO if box.kind == _VIDEO_BOX else name_box(box.kind) for box in boxes if box.kind not in _BOXES]
    parts += describe_trailer(file, boxes[-1].stop if boxes else 0)
    others = _find_top_level(items) - {items.primary}
    for group in items.alternatives:
        if items.primary in group and others & group:
            others -= group
            parts.append("other versions of the picture")
    return Contents(1 + len(others), "a HEIF file", "pictures", _HINT, tuple(parts))


def find_coded_item(file: IO[bytes]) -> int:
    """The number of the main item, or of the first one with samples that it is made of, e.g. a tile."""
    items = _parse_items(file)
    parts = {source: target for kind, source, target in reversed(items.references) if kind == b"dimg"}
    number = items.primary
    while number in parts:
        number = parts.pop(number)
    return number


@dataclass
class HeifRecords:
    """Metadata of the main picture. blocks: EXIF, as in the file. packets: XMP. dropped: what else there is."""

    blocks: list[bytes] = field(default_factory=list)
    packets: list[bytes] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def find_records(file: IO[bytes]) -> HeifRecords:
    """All metadata but those that describe only other pictures, e.g. a depth map; 64 MiB of them."""
    found, items, places, rest_bytes = HeifRecords(), _parse_items(file), _locate_items(file), MAX_BYTES
    described = dict[int, set[int]]()
    for name, source, target in items.references:
        if name == b"cdsc":
            described.setdefault(source, set()).add(target)
    for number, (kind, content_type, encoding) in items.records.items():
        if items.primary not in described.get(number, {items.primary}):
            continue
        content = _decompress(_read_extents(file, places.get(number, []), rest_bytes), encoding, rest_bytes)
        rest_bytes -= len(content)
        if kind == _EXIF and content:
            found.blocks.append(content)
        elif kind == _TYPED and content_type == _XMP and content:
            found.packets.append(content)
        else:
            type_name = content_type.decode("latin-1") if kind == _TYPED else ascii(kind)[2:-1]
            found.dropped.append(f"an item of type {type_name}")
    for box in iterate_own_boxes(file):
        if box.kind == b"uuid":
            uuid, content = box.read(file)[:16], box.read(file)[16:]
            if uuid == XMP_UUID:
                found.packets.append(content)
            else:
                is_known = uuid == _CREDENTIALS_UUID
                found.dropped.append(CREDENTIALS if is_known else f"the box of UUID {uuid.hex()}")
    return found


def _locate_items(file: IO[bytes]) -> dict[int, list[tuple[int, int]]]:
    """(start, length) of the parts of each item in the file; none for items that are parts of other items."""
    box, data = find_box(file, b"meta", b"iloc"), find_box(file, b"meta", b"idat")
    if box is None:
        return {}
    content, places = _Numbers(box.read(file)), dict[int, list[tuple[int, int]]]()
    version, _, sizes, more_sizes = content.take(1), content.take(3), content.take(1), content.take(1)
    index_size = more_sizes & 15 if version else 0
    for _ in range(content.take(4 if version == 2 else 2)):
        number = content.take(4 if version == 2 else 2)
        method = content.take(2) & 15 if version else 0
        content.take(2)
        base = content.take(more_sizes >> 4) + (data.start if method == 1 and data else 0)
        num_extents = content.take(2)
        for _ in range(num_extents if index_size or sizes else min(num_extents, 1)):
            content.take(index_size)
            place = base + content.take(sizes >> 4), content.take(sizes & 15)
            if method in (0, 1):
                places.setdefault(number, []).append(place)
    return places


class _Numbers:
    """Big-endian numbers, one after the other. Raises IndexError after the last one."""

    def __init__(self, content: bytes) -> None:
        self._content, self._offset = content, 0

    def take(self, num_bytes: int) -> int:
        self._offset += num_bytes
        if self._offset > len(self._content):
            raise IndexError("a box ends early")
        return int.from_bytes(self._content[self._offset - num_bytes : self._offset], "big")


def _read_extents(file: IO[bytes], extents: Sequence[tuple[int, int]], max_bytes: int) -> bytes:
    size, content = file.seek(0, 2), b""
    for start, length in extents:
        if start < size:
            file.seek(start)
            content += file.read(min(length or size, max_bytes - len(content)))  # a length of 0: up to the end
    return content


def _decompress(content: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """b"" if it is damaged, or compressed in another way than by deflate."""
    if not encoding:
        return content
    for bits in (zlib.MAX_WBITS, -zlib.MAX_WBITS) if encoding in (b"deflate", b"compress_zlib") else ():
        try:
            return zlib.decompressobj(bits).decompress(content, max(1, max_bytes))
        except zlib.error:
            continue
    return b""


def count_frames(file: IO[bytes], boxes: Sequence[Box]) -> int:
    """The most samples of any track."""
    movie = next((box for box in boxes if box.kind == b"moov"), None)
    counts = [0]
    for track in iterate_boxes(file, movie.start, movie.stop) if movie else ():
        if track.kind == b"trak":
            sizes = find_box(file, b"mdia", b"minf", b"stbl", b"stsz", inside=track)
            counts += struct.unpack_from(">8xI", sizes.read(file)) if sizes else ()
    return max(counts)


def _parse_items(file: IO[bytes]) -> _Items:
    items = _Items()
    meta = find_box(file, b"meta")
    for box in iterate_boxes(file, meta.start + 4, meta.stop) if meta else ():
        if box.kind == b"pitm":
            content = box.read(file)
            (items.primary,) = struct.unpack_from(">H" if content[0] == 0 else ">I", content, 4)
        elif box.kind == b"iinf":
            start = box.start + (6 if box.read(file)[0] == 0 else 8)
            for entry in iterate_boxes(file, start, box.stop):
                items.kinds.update(_parse_entry(entry.read(file)))
                items.records.update(_parse_record(entry.read(file)))
        elif box.kind == b"iref":
            wide = box.read(file)[0] > 0
            for reference in iterate_boxes(file, box.start + 4, box.stop):
                items.references += _parse_reference(reference.kind, reference.read(file), wide=wide)
        elif box.kind == b"grpl":
            items.alternatives = [
                set(
                    struct.unpack_from(
                        f">{struct.unpack_from('>8xI', group.read(file))[0]}I", group.read(file), 12
                    )
                )
                for group in iterate_boxes(file, box.start, box.stop)
                if group.kind == b"altr"
            ]
        elif box.kind == b"iprp":
            properties = next(iterate_boxes(file, box.start, box.stop), None)
            for entry in iterate_boxes(file, properties.start, properties.stop) if properties else ():
                if entry.kind == b"auxC":
                    items.properties.append(entry.read(file)[4:])
    return items


def _parse_entry(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(item number, type) of an infe box, unless it is hidden or of an old version."""
    version, is_hidden = content[0], content[3] & 1
    if version >= 2 and not is_hidden:
        number, kind = struct.unpack_from(">H2x4s" if version == 2 else ">I2x4s", content, 4)
        yield number, kind


def _parse_record(content: bytes) -> Iterator[tuple[int, tuple[bytes, bytes, bytes]]]:
    """(item number, (type, its content type, its compression)) of an infe box of an item that is not a picture."""
    if content[0] < 2:
        return
    code = ">H2x4s" if content[0] == 2 else ">I2x4s"
    number, kind = struct.unpack_from(code, content, 4)
    if kind in _PICTURE_ITEMS or kind == _GAIN_MAP_ITEM:
        return
    _, *texts = content[4 + struct.calcsize(code) :].split(b"\0")
    content_type, encoding = (*(texts if kind == _TYPED else ()), b"", b"")[:2]
    yield number, (kind, content_type, encoding)


def _parse_reference(kind: bytes, content: bytes, *, wide: bool) -> Iterator[tuple[bytes, int, int]]:
    code = "I" if wide else "H"
    source, count = struct.unpack_from(f">{code}H", content)
    for target in struct.unpack_from(f">{count}{code}", content, struct.calcsize(f">{code}H")):
        yield kind, source, target


def _find_top_level(items: _Items) -> set[int]:
    """Pictures that are not thumbnails, auxiliaries or parts of other pictures."""
    pictures = {number for number, kind in items.kinds.items() if kind in _PICTURE_ITEMS}
    dependent = {source for kind, source, _ in items.references if kind in (b"thmb", b"auxl")}
    return pictures - dependent - {target for kind, _, target in items.references if kind == b"dimg"}


def _describe_auxiliaries(items: _Items) -> Iterator[str]:
    if _GAIN_MAP_ITEM in items.kinds.values():
        yield GAIN_MAP
    for name in items.properties:
        text = name.split(b"\0")[0]
        if b"hdrgainmap" in text:
            yield GAIN_MAP
        elif b"depth" in text or b"disparity" in text or text.endswith(b"auxid:2"):
            yield DEPTH_MAP
        elif b"matte" in text:
            yield "masks of persons and hair (mattes)"
        elif not text.endswith(_ALPHA):
            yield "an auxiliary picture"
