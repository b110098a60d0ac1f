"""Metadata in PNG files: chunks before and after the samples.

ImageMagick and ExifTool also store EXIF, XMP, IPTC and profiles as texts of hexadecimal digits ("Raw profile type
exif"). They are read, and written only for IPTC, which has no chunk of its own.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any

from pellucid.pictures import resolution
from pellucid.pictures.contents.parts import CREDENTIALS
from pellucid.pictures.geometry import Change
from pellucid.pictures.records import exif, icc, iptc, xmp
from pellucid.pictures.structures import chunks
from pellucid.system.files import splice

STORED = frozenset(
    {"exif-data", "xmp-data", "iptc-data", "photoshop-data", "icc-profile-data", "png-chunks", "png-profile-name"}
    | {"xres", "yres"}
)
"""Metadata that `write` stores."""

COLOR = (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI")
"""Chunks about the meaning of colors."""

TEXT = (b"tEXt", b"zTXt", b"iTXt")
_KEPT = (*COLOR, b"sBIT", b"bKGD", b"tIME", b"pCAL", b"sCAL", b"oFFs", b"sTER", b"sPLT", b"gIFg", b"gIFx", b"gIFt")
"""Chunks that are copied, next to texts and unknown ones that are marked as safe to copy."""

_STORAGE = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"hIST", b"iDOT", b"acTL", b"fcTL", b"fdAT", b"pHYs")
_END = b"IEND"
_PALETTE = 3
_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), _PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Possible bits per sample, by the type of the colors."""

_MAX_SIDE_PX = 100_000_000
"""The limit of libvips."""

_NAMES = {b"caBX": CREDENTIALS, b"dSIG": "the signature"}

_XMP_KEY = b"XML:com.adobe.xmp"
_COMMENT = b"Comment"
_RAW_PROFILE = b"Raw profile type "
_APP1_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MAX_BYTES = 2**26
_HEADER_END = 33
"""Bytes of the signature and the first chunk, IHDR."""

_SRGB_CHROMATICITIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def read(file: IO[bytes]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata, what is not kept) of a PNG; stops where it is damaged."""
    found, kind = _Chunks(), b""
    for kind, content, is_intact in _iterate_chunks(file):
        if is_intact:
            found.add(kind, content)
        elif kind not in _STORAGE:
            found.dropped.append(f"damaged PNG chunk {kind.decode('latin-1')!r}")
    if kind != _END:
        found.dropped.append("metadata at the end of the file, which is missing")
    metadata = {key: value for key, value in found.metadata().items() if value}
    return metadata, tuple(dict.fromkeys(found.dropped))


def find_damage(file: IO[bytes]) -> str:
    """Why a PNG has no samples that can be decoded; "" if its chunks are as they should be."""
    color, num_palettes, size = -1, 0, file.seek(0, 2)
    for kind, offset, length in chunks.iterate_png(file):
        name = kind.decode("latin-1")
        file.seek(offset + 8)
        content = file.read(min(length, _MAX_BYTES)) if kind != b"IDAT" else b""
        if offset == 8 and (kind, length) != (b"IHDR", 13):
            return "its header (IHDR) is missing"
        if offset + 12 + length > size:
            return f"it ends within its chunk {name!r}"
        if kind == b"IDAT":
            return "its palette (PLTE) is missing" if color == _PALETTE and not num_palettes else ""
        if not name.isalpha() or not name.isascii():
            return f"{name!r} is not a type of chunk"
        if kind[:1].isupper() and kind not in _STORAGE:
            return f"its chunk {name}, which is marked as critical, is not known"
        if kind[:1].isupper() and file.read(4) != struct.pack(">I", zlib.crc32(kind + content)):
            return f"the checksum of its chunk {name} is wrong"
        if kind == b"IHDR" and not _is_possible(content):
            return f"its header is invalid ({content[:13].hex(' ')})"
        num_palettes += kind == b"PLTE"
        if num_palettes > 1 or (kind == b"PLTE" and (length % 3 or not 3 <= length <= 768)):
            return "its palette (PLTE) is invalid"
        color = content[9] if kind == b"IHDR" else color
    return "its samples (IDAT) are missing"


def _is_possible(header: bytes) -> bool:
    """Whether a size, bits, a type of colors, and ways of compression, filters and interlacing exist."""
    width, height, bits, color, *ways = struct.unpack(">IIBBBBB", header.ljust(13, b"\xff")[:13])
    is_size = 0 < width <= _MAX_SIDE_PX and 0 < height <= _MAX_SIDE_PX
    return is_size and bits in _BITS.get(color, ()) and ways in ([0, 0, 0], [0, 0, 1])


@dataclass
class _Chunks:
    """Chunks, sorted by what they contain."""

    blocks: list[bytes] = field(default_factory=list)
    raw_blocks: list[bytes] = field(default_factory=list)
    packets: list[bytes] = field(default_factory=list)
    raw_packets: list[bytes] = field(default_factory=list)
    profile: bytes = b""
    raw_profile: bytes = b""
    profile_name: bytes = b""
    resources: bytes = b""
    dots: bytes = b""
    others: list[bytes] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def add(self, kind: bytes, content: bytes) -> None:
        if kind == b"eXIf":
            self.blocks.append(content.removeprefix(exif.HEADER))
        elif kind == b"iCCP":
            self._add_profile(content)
        elif kind == b"pHYs":
            self.dots = content
        elif kind in TEXT:
            self._add_text(kind, content)
        elif kind in _KEPT or (kind not in _STORAGE and kind[3:4].islower()):
            self.others.append(chunks.build_chunk(kind, content))
        elif kind not in _STORAGE:
            self.dropped.append(_NAMES.get(kind, f"PNG chunk {kind.decode('latin-1')}"))

    def _add_profile(self, content: bytes) -> None:
        name, _, rest = content.partition(b"\0")
        profile = _decompress(rest[1:])
        if not profile:
            self.dropped.append("the ICC profile, which is damaged")
        elif not self.profile:
            self.profile_name, self.profile = name, profile
        elif profile != self.profile:
            self.dropped.append("a second ICC profile")

    def _add_text(self, kind: bytes, content: bytes) -> None:
        key = content.split(b"\0", 1)[0]
        if key == _XMP_KEY:
            self.packets.append(decode_text(kind, content))
        elif not key.startswith(_RAW_PROFILE) or not self._add_raw_profile(key, decode_text(kind, content)):
            self.others.append(chunks.build_chunk(kind, content))

    def _add_raw_profile(self, key: bytes, text: bytes) -> bool:
        """Whether the text contains a profile of a known kind."""
        content, kind = _parse_raw_profile(text), key[len(_RAW_PROFILE) :].lower()
        if content.startswith(_APP1_XMP):
            self.raw_packets.append(content[len(_APP1_XMP) :])
        elif kind == b"xmp" and content:
            self.raw_packets.append(content)
        elif kind in (b"exif", b"app1") and content:
            self.raw_blocks.append(content.removeprefix(exif.HEADER))
        elif kind in (b"iptc", b"8bim", b"app13") and content:
            resources = iptc.as_resources(content)
            if resources not in self.resources:  # ImageMagick writes them twice, under two names
                self.resources += resources
        elif kind in (b"icc", b"icm") and content:
            self.raw_profile = content
        else:
            return False
        return True

    def metadata(self) -> dict[str, Any]:
        resources = iptc.parse_resources(self.resources)
        blocks = [*filter(None, dict.fromkeys((*self.blocks, *self.raw_blocks, resources.exif)))]
        profiles = [*filter(None, dict.fromkeys((self.profile, self.raw_profile)))]
        blocks = blocks[:1] + [block for block in blocks[1:] if not exif.contains(blocks[0], block)]
        packet, conflicts = xmp.join([*self.packets, *self.raw_packets, resources.packet])
        repeated = {"EXIF block": blocks, "ICC profile": profiles}
        self.dropped += [*conflicts, *(f"a second {name}" for name, found in repeated.items() if len(found) > 1)]
        return {
            "exif-data": exif.HEADER + blocks[0] if blocks else b"",
            "xmp-data": packet,
            "icc-profile-data": profiles[0] if profiles else b"",
            "png-profile-name": self.profile_name,
            "iptc-data": resources.records,
            "photoshop-data": resources.others,
            "png-chunks": b"".join(self.others),
            **_read_resolution(self.dots),
        }


def _read_resolution(content: bytes) -> dict[str, Any]:
    if len(content) != 9:
        return {}
    x, y, unit = struct.unpack(">IIB", content)
    return resolution.to_metadata(x, y, "m" if unit == 1 else "none")


def select_color(content: bytes) -> bytes:
    """Those of the chunks that are about the meaning of colors, and are also true for a part of a picture."""
    kinds = (*COLOR, b"sBIT", b"bKGD")
    return b"".join(chunks.build_chunk(kind, body) for kind, body in chunks.split_chunks(content) if kind in kinds)


def significant_bits(content: bytes) -> int:
    """The most significant bits of a color that the chunk sBIT among chunks specifies; 0 if there is none."""
    found = (max(bits[:3], default=0) for kind, bits in chunks.split_chunks(content) if kind == b"sBIT")
    return next(found, 0)


def write(file: IO[bytes], metadata: Mapping[str, Any], channels: int, *, uses_all_bits: bool = True) -> list[str]:
    """Put the metadata before the samples of a PNG. Returns what does not fit.

    channels: of the colors, 1 or 3. uses_all_bits: whether white is the largest value of the samples.
    """
    missing: list[str] = []
    stop = next(place for kind, _, place in _iterate_places(file) if kind in (b"PLTE", b"IDAT"))
    file.seek(_HEADER_END - 9)
    bits, color_type = file.read(2)
    kept = []
    for kind, content in chunks.split_chunks(metadata.get("png-chunks", b"")):
        if _fits(kind, content, bits, color_type, uses_all_bits=uses_all_bits):
            kept.append(chunks.build_chunk(kind, content))
        else:
            missing.append(_DEPENDENT[kind])
    profile = _build_profile(metadata, channels, missing)
    parts = [
        _build_resolution(metadata),
        profile,
        _build_hdr(metadata) if profile and b"cICP" not in metadata.get("png-chunks", b"") else b"",
        *kept,
        *_build_texts(metadata),
    ]
    splice(file, _HEADER_END, stop, b"".join(parts))
    return missing


_DEPENDENT = {b"sBIT": "the number of significant bits (sBIT)", b"bKGD": "the background color (bKGD)"}
"""Chunks that depend on the depth and the channels of the samples."""


def _fits(kind: bytes, content: bytes, bits: int, color_type: int, *, uses_all_bits: bool) -> bool:
    """Whether a chunk is true for a file of this depth and type (0 gray, 2 RGB, 4 and 6 with alpha)."""
    if kind == b"sBIT":
        num_channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[color_type]
        lowest = bits if uses_all_bits else 1
        return len(content) == num_channels and all(lowest <= value <= bits for value in content)
    if kind == b"bKGD":
        colors = content[::2]
        return len(content) == (6 if color_type & 2 else 2) and (bits == 16 or not any(colors))
    return True


def _build_resolution(metadata: Mapping[str, Any]) -> bytes:
    dots = resolution.from_metadata(metadata)
    if dots is None:
        return b""
    if dots.unit == "none":
        return chunks.build_chunk(b"pHYs", struct.pack(">IIB", max(1, round(dots.x)), max(1, round(dots.y)), 0))
    x, y = map(round, dots.to("m"))
    return (
        chunks.build_chunk(b"pHYs", struct.pack(">IIB", x, y, 1)) if min(x, y) > 0 and max(x, y) < 2**31 else b""
    )


def _build_profile(metadata: Mapping[str, Any], channels: int, missing: list[str]) -> bytes:
    profile = metadata.get("icc-profile-data", b"")
    if not profile:
        return b""
    if icc.num_channels(profile) != channels:
        missing.append(icc.describe_misfit(profile, channels))
        return b""
    name = metadata.get("png-profile-name", b"") or b"ICC profile"
    return chunks.build_chunk(b"iCCP", name[:79] + b"\0\0" + zlib.compress(profile))


def _build_hdr(metadata: Mapping[str, Any]) -> bytes:
    """The numbers of an HDR profile where programs that show HDR look for them."""
    numbers = icc.find_hdr_numbers(metadata["icc-profile-data"])
    return chunks.build_chunk(b"cICP", numbers) if numbers else b""


def _build_texts(metadata: Mapping[str, Any]) -> Iterator[bytes]:
    block = metadata.get("exif-data", b"").removeprefix(exif.HEADER)
    if block:
        yield chunks.build_chunk(b"eXIf", block)
    if metadata.get("xmp-data"):
        yield chunks.build_chunk(b"iTXt", _XMP_KEY + b"\0\0\0\0\0" + metadata["xmp-data"])
    records, others = metadata.get("iptc-data", b""), metadata.get("photoshop-data", b"")
    if records or others:
        text = iptc.build_png_text(records, others).encode()
        yield chunks.build_chunk(b"zTXt", iptc.PNG_KEY.encode() + b"\0\0" + zlib.compress(text))


def build_comment(comment: bytes) -> bytes:
    """A comment of a JPEG as a text."""
    comment = comment.replace(b"\0", b"")
    try:
        comment.decode("utf-8")
    except UnicodeDecodeError:
        return chunks.build_chunk(b"tEXt", _COMMENT + b"\0" + comment)
    return chunks.build_chunk(b"iTXt", _COMMENT + b"\0\0\0\0\0" + comment)


def split_comments(joined: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """(comments in UTF-8 that fit into a JPEG, the other chunks)."""
    comments, others = [], b""
    for kind, content in chunks.split_chunks(joined):
        text = decode_text(kind, content) if kind in TEXT and content.startswith(_COMMENT + b"\0") else b""
        if kind != b"iTXt":
            text = text.decode("latin-1").encode()
        if 0 < len(text) < 2**16 - 2:
            comments.append(text)
        else:
            others += chunks.build_chunk(kind, content)
    return tuple(comments), others


def adapt(joined: bytes, change: Change) -> bytes:
    """Chunks that are true for a turned and scaled picture: its offset, and the physical size of its pixels."""
    adapted = []
    for kind, content in chunks.split_chunks(joined):
        if kind == b"oFFs" and len(content) == 9 and content[8] == 0:
            offset = change.swap(*struct.unpack(">ii", content[:8]))
            pair = [round(value * factor) for value, factor in zip(offset, change.scale, strict=True)]
            content = struct.pack(">iiB", *pair, 0)
        elif kind == b"sCAL":
            content = _adapt_scale(content, change)
        elif kind == b"caNv" and len(content) == 16:
            content = _adapt_canvas(content, change)
        adapted.append(chunks.build_chunk(kind, content))
    return b"".join(adapted)


def _adapt_canvas(content: bytes, change: Change) -> bytes:
    """caNv of ImageMagick: the size of the canvas, and where the picture is on it, in pixels."""
    width, height, left, top = struct.unpack(">IIii", content)
    if width == 0 or height == 0:
        return content
    after = change.swap(width, height)
    size = round(after[0] * change.scale[0]), round(after[1] * change.scale[1])
    on_canvas = replace(change, before=(width, height), after=size)
    sides = change.before
    corners = [on_canvas.move_px(left, top), on_canvas.move_px(left + sides[0], top + sides[1])]
    place = (min(values) for values in zip(*corners, strict=True))
    return struct.pack(">IIii", *size, *map(round, place))


def _adapt_scale(content: bytes, change: Change) -> bytes:
    """sCAL: the unit, and the width and height of a pixel as texts."""
    try:
        width, height = map(float, content[1:].split(b"\0"))
    except ValueError:
        return content
    pair = [value / factor for value, factor in zip(change.swap(width, height), change.scale, strict=True)]
    return content[:1] + b"\0".join(f"{value:.15g}".encode() for value in pair)


def describe(joined: bytes) -> Iterator[str]:
    """What chunks contain, for people whose format cannot store them; without what is the same as the default."""
    kinds = [*chunks.split_chunks(joined)]
    colors = [kind.decode() for kind, content in kinds if kind in COLOR and not _is_default(kind, content)]
    if colors:
        yield f"the color description ({', '.join(dict.fromkeys(colors))})"
    keys = [content.split(b"\0")[0].decode("latin-1") for kind, content in kinds if kind in TEXT]
    if keys:
        yield f"texts ({', '.join(dict.fromkeys(keys))})"
    others = {kind.decode("latin-1") for kind, _ in kinds if kind not in (*COLOR, *TEXT)}
    if others:
        yield f"PNG chunks {', '.join(sorted(others))}"


def _is_default(kind: bytes, content: bytes) -> bool:
    """Whether it says that colors are sRGB, as programs assume if nothing is said."""
    if kind == b"gAMA":
        return len(content) == 4 and abs(struct.unpack(">I", content)[0] - 45455) <= 50
    if kind == b"cHRM":
        return len(content) == 32 and struct.unpack(">8I", content) == _SRGB_CHROMATICITIES
    return kind == b"sRGB" or (kind == b"cICP" and content[:2] in (b"\1\r", b"\2\2"))


def _iterate_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, bytes, bool]]:
    """(type, content, whether the checksum is right) of each chunk but the samples, up to the last one."""
    for kind, content, _ in _iterate_places(file):
        if kind != b"IDAT":
            yield kind, content, file.read(4) == struct.pack(">I", zlib.crc32(kind + content))


def _iterate_places(file: IO[bytes]) -> Iterator[tuple[bytes, bytes, int]]:
    """(type, content, offset) of each chunk after the first; the content of samples and long chunks is b""."""
    for kind, offset, length in chunks.iterate_png(file, _HEADER_END):
        is_read = kind not in (b"IDAT", b"fdAT") and length <= _MAX_BYTES
        file.seek(offset + 8)
        yield kind, file.read(length) if is_read else b"", offset


def decode_text(kind: bytes, content: bytes) -> bytes:
    """The text of a chunk, without its key, at most 64 MB; b"" if it is damaged."""
    text = content.partition(b"\0")[2]
    if kind == b"zTXt":
        return _decompress(text[1:])
    if kind == b"iTXt":
        is_compressed = text[:1] == b"\1"
        text = text[2:].split(b"\0", 2)[-1]  # the language and the translated key come first
        return _decompress(text) if is_compressed else text
    return text


def _decompress(content: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(content, _MAX_BYTES)
    except zlib.error:
        return b""


def _parse_raw_profile(text: bytes) -> bytes:
    """The content of "Raw profile type ...": a name, the number of bytes, and hexadecimal digits, on lines."""
    lines = text.strip().split(b"\n", 2)
    try:
        return bytes.fromhex(lines[2].decode("ascii"))
    except (IndexError, ValueError):
        return b""
