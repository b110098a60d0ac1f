"""Metadata in JPEG files: segments before the samples."""

import hashlib
import io
import mmap
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from pellucid.pictures import resolution
from pellucid.pictures.contents.parts import CREDENTIALS, GAIN_MAP
from pellucid.pictures.records import exif, iptc, xmp
from pellucid.pictures.structures import ifd
from pellucid.pictures.structures.chunks import JPEG_SCAN, iterate_jpeg
from pellucid.system.files import splice

STORED = frozenset(
    {"exif-data", "xmp-data", "iptc-data", "photoshop-data", "icc-profile-data", "jfif", "jpeg-comments"}
    | {"jpeg-segments", "xres", "yres"}
)
"""Metadata that `write` stores."""

_COMMENT = 0xFE
_APP0, _APP1, _APP2, _APP13, _APP14 = 0xE0, 0xE1, 0xE2, 0xED, 0xEE
_MAX_BYTES = 65533
"""The longest content of a segment."""

_JFIF, _JFXX = b"JFIF\0", b"JFXX\0"
_NO_JFIF = b"none"
_TIFF_MAGIC = (b"II*\0", b"MM\0*")
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_ICC = b"ICC_PROFILE\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_ADOBE = b"Adobe"
_DROPPED = {
    b"MPF\0": "",
    b"urn:iso:std:iso:ts:21496": GAIN_MAP,
    b"HDR_RI": GAIN_MAP,  # JPEG-HDR
    b"JP": CREDENTIALS,
    b"FPXR\0": "FlashPix data",
}
"""Starts of segments about other parts of the file, or signatures of its bytes, and what they are. The index of
further pictures has no name of its own: `contents` names the pictures."""

_UNITS = {1: "inch", 2: "cm"}


def segments(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(marker, content) of each segment before the first samples."""
    with _map(file) as content:
        for marker, start, stop in iterate_jpeg(content):
            if marker == JPEG_SCAN:
                return
            yield marker, content[start:stop]


@contextmanager
def _map(file: IO[bytes]) -> Iterator[bytes | mmap.mmap]:
    """The content of a file, of which only the parts that are used are read."""
    if isinstance(file, io.BytesIO):
        yield file.getvalue()
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def read(file: IO[bytes]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata, what is not kept) of a JPEG; stops where it is damaged."""
    found = _Segments()
    try:
        for marker, content in segments(file):
            found.add(marker, content)
    except (struct.error, IndexError):
        pass  # decoding reports the damage
    metadata = found.metadata()
    return metadata, tuple(dict.fromkeys(found.dropped))


class _Segments:
    """Segments, sorted by what they contain."""

    def __init__(self) -> None:
        self.exif, self.jfif = b"", b""
        self.bare_blocks: list[bytes] = []
        self.packets: list[bytes] = []
        self.extensions: dict[tuple[bytes, int], dict[int, bytes]] = {}
        self.profile: dict[int, bytes] = {}
        self.num_profile_parts = 0
        self.photoshop = b""
        self.comments: list[bytes] = []
        self.others: list[tuple[int, bytes]] = []
        self.dropped: list[str] = []

    def add(self, marker: int, content: bytes) -> None:
        if marker == _COMMENT:
            self.comments.append(content)
        elif marker == _APP1 and content.startswith(exif.HEADER[:5]):  # some programs write another sixth byte
            self._add_exif(content)
        elif marker == _APP1 and content.startswith(_TIFF_MAGIC):
            self.bare_blocks.append(content)
        elif marker == _APP1 and content.startswith(_XMP):
            self.packets.append(content[len(_XMP) :])
        elif marker == _APP1 and content.startswith(_EXTENSION):
            digest, rest = content[len(_EXTENSION) :][:32], content[len(_EXTENSION) + 32 :]
            length, offset = struct.unpack_from(">II", rest)
            self.extensions.setdefault((digest, length), {})[offset] = rest[8:]
        elif marker == _APP2 and content.startswith(_ICC):
            number, self.num_profile_parts = content[len(_ICC) : len(_ICC) + 2]
            self.profile[number] = content[len(_ICC) + 2 :]
        elif marker == _APP13 and content.startswith(_PHOTOSHOP):
            self.photoshop += content[len(_PHOTOSHOP) :]
        elif marker == _APP0 and content.startswith(_JFIF) and len(content) >= 14:
            self.jfif = self.jfif or content[:14]
        elif 0xE0 <= marker <= 0xEF:
            self._add_other(marker, content)

    def _add_exif(self, content: bytes) -> None:
        """A long block is stored in several segments, of which only the first starts like a TIFF."""
        starts = content[6:8] in (b"II", b"MM")
        if self.exif and not starts:
            self.exif += content[len(exif.HEADER) :]
        elif not self.exif:
            self.exif = exif.HEADER + content[len(exif.HEADER) :]
        else:
            self.dropped.append("a second EXIF block")

    def _add_bare_block(self, block: bytes) -> None:
        """EXIF without its header, in the resources of Photoshop or by ImageMagick from them."""
        if not self.exif:
            self.exif = exif.HEADER + block
        elif not exif.contains(self.exif, block):
            self.dropped.append("a second EXIF block")

    def _add_other(self, marker: int, content: bytes) -> None:
        if (marker == _APP14 and content.startswith(_ADOBE)) or content.startswith(_JFIF):
            return  # how the samples are coded
        if content.startswith(_JFXX):
            self.dropped.append("the preview in JFIF")
            return
        names = [name for start, name in _DROPPED.items() if content.startswith(start)]
        if names:
            self.dropped += filter(None, names)
        else:
            self.others.append((marker, content))

    def metadata(self) -> dict[str, Any]:
        resources = iptc.parse_resources(self.photoshop)
        self.packets += filter(None, [resources.packet])
        for block in filter(None, (*self.bare_blocks, resources.exif)):
            self._add_bare_block(block)
        if sorted(self.profile) != [*range(1, self.num_profile_parts + 1)]:
            self.profile = {}
            self.dropped.append("the ICC profile, which is incomplete")
        return {
            "exif-data": self.exif if len(self.exif) > len(exif.HEADER) else b"",
            "xmp-data": self._join_xmp(),
            "icc-profile-data": b"".join(self.profile[number] for number in sorted(self.profile)),
            "iptc-data": resources.records,
            "photoshop-data": resources.others,
            "jpeg-comments": tuple(self.comments),
            "jpeg-segments": tuple(self.others),
            "jfif": self.jfif or _NO_JFIF,
            **_read_resolution(self.jfif, self.exif),
        }

    def _join_xmp(self) -> bytes:
        extensions = {
            digest: b"".join(parts[offset] for offset in sorted(parts))
            for (digest, length), parts in self.extensions.items()
            if sum(map(len, parts.values())) == length
        }
        packets, used = list[bytes](), set[bytes]()
        for packet in self.packets:
            own = [digest for digest in extensions if digest in packet]
            for digest in own:
                packet = xmp.merge(packet, extensions[digest])
            packets.append(packet)
            used.update(own)
        if len(used) < len(self.extensions):
            self.dropped.append("extended XMP, which is incomplete or belongs to other XMP")
        packet, conflicts = xmp.join(packets)
        self.dropped += conflicts
        return packet


def _read_resolution(jfif: bytes, block: bytes) -> dict[str, Any]:
    """From JFIF if it has a unit, otherwise from EXIF, otherwise the ratio in JFIF."""
    unit, x, y = struct.unpack(">BHH", jfif[7:12]) if jfif else (0, 1, 1)
    if unit in _UNITS:
        return resolution.to_metadata(x, y, _UNITS[unit])
    return exif.read_resolution(block) or (resolution.to_metadata(x, y, "none") if x != y else {})


def write(file: IO[bytes], metadata: Mapping[str, Any]) -> list[str]:
    """Replace the first segments of a JPEG by those of the metadata. Returns what does not fit."""
    file.seek(2)
    head = file.read(4)
    start = 2
    stop = start + 2 + struct.unpack(">H", head[2:])[0] if head[:2] == b"\xff\xe0" else start
    file.seek(start)
    own_jfif = file.read(stop - start)
    missing: list[str] = []
    content = b"".join(
        [
            _build_jfif(metadata, own_jfif),
            _build_exif(metadata.get("exif-data", b""), missing),
            _build_xmp(metadata.get("xmp-data", b""), missing),
            _build_photoshop(metadata),
            _build_profile(metadata.get("icc-profile-data", b""), missing),
            *(_build(marker, segment) for marker, segment in metadata.get("jpeg-segments", ())),
            *(_build(_COMMENT, comment) for comment in metadata.get("jpeg-comments", ())),
        ]
    )
    splice(file, start, stop, content)
    return missing


def describe(segments: Iterable[tuple[int, bytes]]) -> str:
    """The names of segments, for people whose format cannot store them."""
    return f"JPEG segments ({', '.join(sorted({f'APP{marker - _APP0}' for marker, _ in segments}))})"


def swap_density(jfif: bytes) -> bytes:
    """JFIF of a picture whose axes were exchanged."""
    return jfif[:8] + jfif[10:12] + jfif[8:10] + jfif[12:] if len(jfif) >= 14 else jfif


def _build(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _build_jfif(metadata: Mapping[str, Any], own: bytes) -> bytes:
    """JFIF as in the original file; without one, the resolution, or 1 to 1 as for no resolution."""
    jfif = metadata.get("jfif", b"")
    if jfif == _NO_JFIF and "exif-data" in metadata:
        return b""
    if len(jfif) < 14:
        jfif = own[4:18] if len(own) >= 18 else _JFIF + b"\1\1\0\0\1\0\1\0\0"
        dots = resolution.from_metadata(metadata)
        unit, x, y = (0, 1, 1) if dots is None else _choose_density(dots)
        jfif = jfif[:7] + struct.pack(">BHH", unit, x, y) + jfif[12:14]
    return _build(_APP0, jfif[:12] + b"\0\0")  # without the preview


def _choose_density(dots: resolution.Resolution) -> tuple[int, int, int]:
    """(unit, dots across, dots down) of JFIF, in the unit in which they are nearest to whole numbers."""
    if dots.unit == "none":
        scale = max(1.0, max(dots.x, dots.y) / 65535)
        return 0, max(1, round(dots.x / scale)), max(1, round(dots.y / scale))
    choices = [(number, *dots.to(unit)) for number, unit in _UNITS.items()]
    if dots.unit == "cm":
        choices.reverse()
    unit, x, y = min(choices, key=lambda choice: round(abs(choice[1] - round(choice[1])) / choice[1], 4))
    return (unit, round(x), round(y)) if round(min(x, y)) >= 1 and max(x, y) < 65535 else (0, 1, 1)


def _build_exif(block: bytes, missing: list[str]) -> bytes:
    if not block:
        return b""
    block = block if block.startswith(exif.HEADER) else exif.HEADER + block
    if len(block) > _MAX_BYTES:
        block, removed = exif.shrink_block(block, _MAX_BYTES)
        missing.append(f"{', '.join(map(ifd.name, removed)) or 'all'} of EXIF, which is longer than 64 KB")
    return _build(_APP1, block) if block else b""


def _build_xmp(packet: bytes, missing: list[str]) -> bytes:
    if len(packet) <= _MAX_BYTES - len(_XMP):
        return _build(_APP1, _XMP + packet) if packet else b""
    short, extension = xmp.split(packet, _MAX_BYTES - len(_XMP))
    if not short:
        missing.append("XMP of more than 64 KB")
        return b""
    if not extension:
        return _build(_APP1, _XMP + short)
    digest = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()
    parts = [_build(_APP1, _XMP + xmp.note_extension(short, digest))]
    step = _MAX_BYTES - len(_EXTENSION) - 40
    for offset in range(0, len(extension), step):
        head = _EXTENSION + digest.encode() + struct.pack(">II", len(extension), offset)
        parts.append(_build(_APP1, head + extension[offset : offset + step]))
    return b"".join(parts)


def _build_photoshop(metadata: Mapping[str, Any]) -> bytes:
    """In several segments if they are long, as Photoshop does."""
    content = iptc.build_resources(metadata.get("iptc-data", b""), metadata.get("photoshop-data", b""))
    step = _MAX_BYTES - len(_PHOTOSHOP)
    return b"".join(
        _build(_APP13, _PHOTOSHOP + content[offset : offset + step]) for offset in range(0, len(content), step)
    )


def _build_profile(profile: bytes, missing: list[str]) -> bytes:
    step = _MAX_BYTES - len(_ICC) - 2
    count = -(-len(profile) // step)
    if count > 255:
        missing.append("ICC profile of more than 16 MB")
        return b""
    return b"".join(
        _build(_APP2, _ICC + bytes([number, count]) + profile[(number - 1) * step : number * step])
        for number in range(1, count + 1)
    )
