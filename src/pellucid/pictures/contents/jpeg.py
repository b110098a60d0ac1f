"""What a JPEG contains besides its picture: other pictures (MPO), gain maps, previews, videos.

Sources: CIPA DC-007 (Multi-Picture Format); Android's Ultra HDR and Motion Photo formats; ISO 21496-1 (gain maps).
"""

import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from pellucid.pictures.contents.parts import DEPTH_MAP, GAIN_MAP, PREVIEW, Contents, describe_trailer
from pellucid.pictures.structures.chunks import JPEG_END, JPEG_SCAN, iterate_jpeg

_MPF = b"MPF\0"
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1"
_GAIN_MAP_MARKS = (b"hdrgm:GainMap", b"hdrgm:Version", b"HDRGainMap", _ISO_GAIN_MAP)

_THUMBNAIL, _MULTI_FRAME, _GAIN_MAP_TYPE = 0x01, 0x02, 0x05
"""High bytes of types in MPF: preview; panorama, stereo or multi-angle; gain map (2024)."""


_MPO = (
    "an MPO (e.g. a stereo pair)",
    "pictures",
    "save each picture as a JPEG of its own first, e.g. by `exiftool -b -MPImage2 FILE`",
)
_JOINED = ("a file", "JPEGs, one after the other", "save each as a file of its own first")
"""Kind, unit and hint for several pictures: with an index of the Multi-Picture Format, and without."""


@dataclass(frozen=True)
class _Jpeg:
    """One JPEG inside a file. size: (width, height, channels). end: the offset after its last byte.

    scans: the headers of its scans, if it is progressive.
    """

    segments: tuple[tuple[int, bytes], ...]
    size: tuple[int, int, int]
    end: int
    scans: tuple[bytes, ...] = ()

    @property
    def is_gain_map(self) -> bool:
        """Whether its own metadata says so."""
        return any(mark in segment for _, segment in self.segments for mark in _GAIN_MAP_MARKS)

    @property
    def lists_gain_map(self) -> bool:
        """Whether its XMP lists a gain map, and no depth map, among the pictures that follow (GContainer)."""
        texts = [segment for _, segment in self.segments if b'Semantic="' in segment]
        return any(b'"GainMap"' in text for text in texts) and not any(b'"Depth' in text for text in texts)


def inspect_jpeg(file: IO[bytes]) -> Contents:
    """Pictures and parts. Raises ValueError, IndexError and struct.error for damaged files."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        primary = _parse(content, 0)
        if primary is None:
            return Contents()
        num_pictures, parts, end = 1, [*_describe_scans(primary.scans)], primary.end
        types = _find_types(content, primary)
        while (start := _find_next(content, end, types)) is not None:
            other = _parse(content, start)
            if other is None:
                break
            part = _classify(other, primary, types.get(start, 0))
            num_pictures += part is None
            parts += [part] if part else []
            end = other.end
    has_index = any(segment.startswith(_MPF) for _, segment in primary.segments)
    words = _MPO if has_index else _JOINED
    return Contents(num_pictures, *words, parts=(*parts, *describe_trailer(file, end)))


def _parse(content: mmap.mmap, start: int) -> _Jpeg | None:
    """The JPEG at an offset; None if there is none, or it has no end."""
    if content[start : start + 3] != b"\xff\xd8\xff":
        return None
    segments: list[tuple[int, bytes]] = []
    scans: list[bytes] = []
    size, is_progressive = (0, 0, 0), False
    for marker, first, last in iterate_jpeg(content, start):
        if marker == JPEG_END:
            return _Jpeg(tuple(segments), size, last, tuple(scans) if is_progressive else ())
        if 0xE0 <= marker <= 0xEF:
            segments.append((marker, content[first:last]))
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not size[0]:
            height, width, channels = struct.unpack(">xHHB", content[first : first + 6])
            size, is_progressive = (width, height, channels), marker % 4 == 2
        elif marker == JPEG_SCAN:
            scans.append(content[first:last])
    return None


def _describe_scans(scans: Sequence[bytes]) -> Iterator[str]:
    """One line if a progressive JPEG ends before its last scans; decoders then show it with less detail.

    A scan has the components, the first and last coefficient, and the number of bits that later scans add.
    """
    unfinished: dict[tuple[int, int], bool] = {}
    for scan in scans:
        first, last, bits = scan[-3:]
        for component in scan[1:-3:2]:
            unfinished |= {(component, i): bits & 15 > 0 for i in range(first, last + 1)}
    has_details = any(i > 0 for _, i in unfinished)
    if scans and (not has_details or any(unfinished.values())):
        yield "details, because scans of the progressive JPEG are missing"


def _find_types(content: mmap.mmap, primary: _Jpeg) -> dict[int, int]:
    """Offset in the file -> type of the pictures in the index of the Multi-Picture Format; {} if it is damaged."""
    index = next((segment for marker, segment in primary.segments if segment.startswith(_MPF)), b"")[4:]
    order = {b"II": "<", b"MM": ">"}.get(index[:2])
    if order is None:
        return {}
    try:
        return dict(_parse_index(index, order, content.find(_MPF) + 4))
    except struct.error:
        return {}


def _parse_index(index: bytes, order: str, base: int) -> Iterator[tuple[int, int]]:
    (directory,) = struct.unpack_from(f"{order}I", index, 4)
    (num_tags,) = struct.unpack_from(f"{order}H", index, directory)
    for number in range(num_tags):
        tag, _, count, value = struct.unpack_from(f"{order}HHII", index, directory + 2 + 12 * number)
        if tag == 0xB002:
            for entry in range(count // 16):
                kind, _, offset = struct.unpack_from(f"{order}III", index, value + 16 * entry)
                yield (base + offset if offset else 0), kind & 0xFFFFFF


def _find_next(content: mmap.mmap, end: int, types: dict[int, int]) -> int | None:
    """Where the next JPEG starts: where the index says, or right after the one before, but for padding."""
    indexed = [offset for offset in types if offset >= end and content[offset : offset + 2] == b"\xff\xd8"]
    following = end + len(content[end : end + 2**16]) - len(content[end : end + 2**16].lstrip(b"\0"))
    starts = [*indexed, *([following] if content[following : following + 3] == b"\xff\xd8\xff" else [])]
    return min(starts, default=None)


def _classify(other: _Jpeg, primary: _Jpeg, kind: int) -> str | None:
    """The name of a part; None for a picture of the same rank."""
    if kind >> 16 == _GAIN_MAP_TYPE or other.is_gain_map:
        return GAIN_MAP
    if kind >> 16 == _MULTI_FRAME:
        return None
    if kind >> 16 == _THUMBNAIL:
        return PREVIEW
    is_as_large = sorted(other.size[:2]) == sorted(primary.size[:2])
    if is_as_large and other.size[2] >= primary.size[2]:
        return None
    if primary.lists_gain_map:
        return GAIN_MAP
    return DEPTH_MAP if other.size[2] < primary.size[2] else PREVIEW
