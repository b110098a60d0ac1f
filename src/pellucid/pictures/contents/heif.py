"""What a HEIC or AVIF file contains besides its picture: other pictures, frames, gain maps, depth maps, videos.

Sources: ISO/IEC 23008-12 (HEIF), ISO 21496-1 (gain maps).
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

from pellucid.pictures.contents.parts import DEPTH_MAP, GAIN_MAP, VIDEO, Contents, describe_trailer, name_box
from pellucid.pictures.structures.boxes import Box, find_box, iterate_boxes, iterate_own_boxes

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

_VIDEO_BOX = b"mpvd"
_HINT = "save each picture as a file of its own first, e.g. by `heif-dec`"
_ALPHA = (b"auxiliary:alpha", b"auxid:1")


@dataclass
class _Items:
    """kinds: type by item number, without hidden ones. references: (type, from, to). primary: item number."""

    kinds: dict[int, bytes] = field(default_factory=dict)
    references: list[tuple[bytes, int, int]] = field(default_factory=list)
    primary: int = 0
    alternatives: list[set[int]] = field(default_factory=list)
    properties: list[bytes] = field(default_factory=list)


def inspect_heif(file: IO[bytes]) -> Contents:
    """Pictures and parts."""
    boxes = [*iterate_own_boxes(file)]
    num_frames = _count_frames(file, boxes)
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


def _count_frames(file: IO[bytes], boxes: Sequence[Box]) -> int:
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
    if b"tmap" in items.kinds.values():
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
