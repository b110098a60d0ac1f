"""Files with a valid outer structure and random parts in it: chunks, segments, tags, boxes, headers, pickles.

Most damage that changes single bytes is found by the first checksum or length; this reaches the code behind it.
"""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
Soup = Callable[[bytes, Rng], bytes]

_NUMBERS = (0, 1, 2, 3, 7, 8, 16, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 60000, 2**31 - 1, 2**31, 2**32 - 1)
_PNG_TYPES = (
    *(b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"sBIT"),
    *(b"tRNS", b"PLTE", b"pHYs", b"tIME", b"bKGD", b"hIST", b"sPLT", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND"),
    *(b"IHDR", b"caBX", b"vpAg", b"oFFs", b"gIFg", b"xxXx", b"XXxx"),
)
_TEXT_KEYS = (
    b"Raw profile type exif",
    b"Raw profile type iptc",
    b"Raw profile type xmp",
    b"XML:com.adobe.xmp",
    b"Title",
)
_SIGNATURES = (
    *(b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08", b"http://ns.adobe.com/xap/1.0/\0"),
    *(b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32, b"ICC_PROFILE\0\1\1", b"ICC_PROFILE\0\2\3"),
    *(b"Photoshop 3.0\0" + b"8BIM\4\4\0\0", b"JFIF\0\1\1\1", b"JFXX\0\x10", b"MPF\0II*\0", b"Adobe\0d\0\0\0\0\0"),
    *(b"urn:iso:std:iso:ts:21496:-1\0", b"Ducky", b""),
)
_TAGS = (
    *(
        0x00FE,
        0x0100,
        0x0101,
        0x0102,
        0x0103,
        0x0106,
        0x010E,
        0x0111,
        0x0112,
        0x0115,
        0x0116,
        0x0117,
        0x0118,
        0x0119,
    ),
    *(
        0x011A,
        0x011B,
        0x011C,
        0x0128,
        0x013D,
        0x0140,
        0x0142,
        0x0143,
        0x0144,
        0x0145,
        0x014A,
        0x0152,
        0x0153,
        0x0154,
    ),
    *(
        0x015B,
        0x0201,
        0x0202,
        0x02BC,
        0x8769,
        0x8825,
        0xA005,
        0x83BB,
        0x8649,
        0x8773,
        0x9286,
        0x927C,
        0x830E,
        0x8482,
    ),
    *(
        0xA002,
        0xA003,
        0x9214,
        0xC612,
        0xC618,
        0xC619,
        0xC61A,
        0xC61D,
        0xC621,
        0xC628,
        0xC634,
        0xC68D,
        0xC740,
        0x935C,
    ),
    *(0x0190, 0x002E, 0x828D, 0x828E, 0xC640, 0x501B, 0xA480, 0x87AF),
)
_BOXES = (b"meta", b"moov", b"iprp", b"ipco", b"trak", b"mdia", b"minf", b"stbl", b"iinf", b"dinf", b"grpl")
_RIFF_TYPES = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"EXIF", b"XMP ", b"ICCP", b"xxxx")


def mix(content: bytes, rng: Rng) -> bytes:
    """A soup of the parts that this kind of file consists of; random bytes for others."""
    return _find_soup(content)(content, rng)


def _find_soup(content: bytes) -> Soup:
    if content.startswith(b"\x89PNG"):
        return _mix_png
    if content.startswith(b"\xff\xd8"):
        return _mix_jpeg
    if content[:2] in (b"II", b"MM"):
        return _mix_tiff
    if content.startswith(b"RIFF"):
        return _mix_riff
    if content[4:8] in (b"ftyp", b"JXL ", b"jP  "):
        return _mix_boxes
    if content.startswith(b"GIF8"):
        return _mix_gif
    if content[:1] == b"P" and content[1:2].isdigit():
        return _mix_pnm
    if content.startswith(b"PK\3\4"):
        return _mix_zip
    if content[8:9] == b"{":
        return _mix_safetensors
    return _mix_bytes


def _number(rng: Rng) -> int:
    return int(rng.choice(_NUMBERS)) if rng.random() < 0.7 else int(rng.integers(0, 2**16))


def _random_bytes(rng: Rng, longest: int = 60) -> bytes:
    return rng.bytes(int(rng.integers(0, longest)))


def _mix_bytes(content: bytes, rng: Rng) -> bytes:
    """Some 4-byte numbers replaced anywhere."""
    mixed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, max(1, len(mixed) - 4)))
        mixed[at : at + 4] = struct.pack(rng.choice(["<I", ">I"]), _number(rng))
    return bytes(mixed)


def _mix_list(parts: list[Any], rng: Rng, build: Callable[[], Any], change: Callable[[Any], Any]) -> list[Any]:
    """Some parts removed, repeated, exchanged, added or changed."""
    parts = [*parts]
    for _ in range(rng.integers(1, 6)):
        if not parts:
            return [build()]
        at, other = (int(rng.integers(len(parts))) for _ in range(2))
        action = rng.integers(6)
        if action == 0:
            del parts[at]
        elif action == 1:
            parts.insert(other, parts[at])
        elif action == 2:
            parts[at], parts[other] = parts[other], parts[at]
        elif action in (3, 4):
            parts.insert(other, build())
        else:
            parts[at] = change(parts[at])
    return parts


def _mix_png(content: bytes, rng: Rng) -> bytes:
    chunks, at = [], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length

    def build() -> tuple[bytes, bytes]:
        kind = _PNG_TYPES[rng.integers(len(_PNG_TYPES))]
        value = _random_bytes(rng)
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            key = _TEXT_KEYS[rng.integers(len(_TEXT_KEYS))] + b"\0"
            packed = zlib.compress(bytes(2**20) if rng.random() < 0.1 else value)
            middle = {b"tEXt": b"\nexif\n 20\n", b"zTXt": b"\0", b"iTXt": bytes([rng.integers(3), 0, 0, 0])}[kind]
            value = key + middle + (packed if kind != b"tEXt" else value.hex().encode())
        elif kind == b"iCCP":
            value = b"p\0\0" + zlib.compress(value)
        elif kind == b"eXIf":
            value = _random_tiff(rng)
        return kind, value

    def change(chunk: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        return chunk[0], _mix_bytes(chunk[1] or b"\0", rng)

    mixed = [chunks[0], *_mix_list(chunks[1:], rng, build, change)] if rng.random() < 0.9 else chunks[::-1]
    return content[:8] + b"".join(
        struct.pack(">I", len(value)) + kind + value + struct.pack(">I", zlib.crc32(kind + value))
        for kind, value in mixed
    )


def _mix_jpeg(content: bytes, rng: Rng) -> bytes:
    segments, at = [], 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", content, at + 2)
        segments.append((content[at + 1], content[at + 4 : at + 2 + length]))
        at += 2 + length

    def build() -> tuple[int, bytes]:
        marker = int(rng.choice([0xE0, 0xE1, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xDD, 0xC4, 0xDB, 0xC2, 0xCC, 0xE9]))
        value = _SIGNATURES[rng.integers(len(_SIGNATURES))] + _random_bytes(rng)
        return marker, b"Exif\0\0" + _random_tiff(rng) if rng.random() < 0.3 else value

    def change(segment: tuple[int, bytes]) -> tuple[int, bytes]:
        marker, value = segment
        if value.startswith(b"Exif\0\0") and len(value) > 20:
            return marker, value[:6] + _mix_tiff(value[6:], rng)
        return marker, _mix_bytes(value or b"\0", rng)

    mixed = _mix_list(segments, rng, build, change)
    return (
        content[:2]
        + b"".join(struct.pack(">BBH", 0xFF, marker, len(value) + 2) + value for marker, value in mixed)
        + content[at:]
    )


def _random_tiff(rng: Rng) -> bytes:
    """An EXIF block with one directory of random entries."""
    rows = [_random_entry(rng, "<") for _ in range(rng.integers(0, 12))]
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(rows))
        + b"".join(rows)
        + struct.pack("<I", _number(rng))
        + rng.bytes(60)
    )


def _random_entry(rng: Rng, order: str) -> bytes:
    tag = int(_TAGS[rng.integers(len(_TAGS))]) if rng.random() < 0.8 else int(rng.integers(0, 2**16))
    kind = int(rng.integers(0, 19)) if rng.random() < 0.9 else 129
    count = int(rng.integers(0, 12)) if rng.random() < 0.7 else _number(rng) % 2**32
    value = int(rng.integers(0, 200)) if rng.random() < 0.7 else _number(rng) % 2**32
    return struct.pack(order + "HHII", tag, kind, count, value)


def _mix_tiff(content: bytes, rng: Rng) -> bytes:
    """A copy of the first directory at the end, with some entries removed, repeated, added or changed."""
    order = "<" if content[:2] == b"II" else ">"
    if len(content) < 16 or struct.unpack_from(order + "H", content, 2)[0] == 43:
        return _mix_bytes(content, rng)
    (offset,) = struct.unpack_from(order + "I", content, 4)
    if offset + 2 > len(content):
        return _mix_bytes(content, rng)
    (count,) = struct.unpack_from(order + "H", content, offset)
    rows = [content[offset + 2 + 12 * i : offset + 14 + 12 * i] for i in range(count)]
    rows = [row for row in rows if len(row) == 12]

    def change(row: bytes) -> bytes:
        fields = [*struct.unpack(order + "HHII", row)]
        field = int(rng.integers(4))
        limit = 2**16 if field < 2 else 2**32
        fields[field] = int(rng.integers(0, 19)) if field == 1 else _number(rng) % limit
        return struct.pack(order + "HHII", *fields)

    mixed = _mix_list(rows, rng, lambda: _random_entry(rng, order), change)
    if rng.random() < 0.7:
        mixed.sort(key=lambda row: struct.unpack(order + "H", row[:2]))
    start = len(content) + len(content) % 2
    following = int(rng.choice([0, 0, 0, start, offset, 4, 2**32 - 1]))
    directory = struct.pack(order + "H", len(mixed)) + b"".join(mixed) + struct.pack(order + "I", following)
    head = content[:4] + struct.pack(order + "I", start) + content[8:]
    return head + bytes(start - len(content)) + directory


def _mix_riff(content: bytes, rng: Rng) -> bytes:
    chunks, at = [], 12
    while at + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, at)
        chunks.append((kind, content[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2

    def build() -> tuple[bytes, bytes]:
        kind = _RIFF_TYPES[rng.integers(len(_RIFF_TYPES))]
        if kind == b"VP8X":
            return kind, bytes([rng.integers(64), 0, 0, 0]) + rng.bytes(6)
        return kind, _random_tiff(rng) if kind == b"EXIF" else _random_bytes(rng)

    def change(chunk: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        return chunk[0], _mix_bytes(chunk[1] or b"\0", rng)

    mixed = _mix_list(chunks, rng, build, change)
    body = content[8:12] + b"".join(
        kind + struct.pack("<I", len(value)) + value + bytes(len(value) % 2) for kind, value in mixed
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


_GIF_EXTENSIONS = (
    *(b"\xff\x0bXMP DataXMP", b"\xff\x0bICCRGBG1012", b"\xff\x0bNETSCAPE2.0", b"\xff\x03abc"),
    *(b"\xf9\x04\x05\x0a\0\1", b"\xf9\x04\1\0\0\xff", b"\xfe", b"\x01\x0c" + bytes(12), b"\x77"),
)


def _mix_gif(content: bytes, rng: Rng) -> bytes:
    """The blocks after the screen descriptor and its palette."""
    start = 13 + _gif_palette_bytes(content[10])
    blocks, at = [], start
    while at < len(content) and content[at] in (0x21, 0x2C):
        stop = at + 2 if content[at] == 0x21 else at + 11 + _gif_palette_bytes(content[at + 9])
        while content[stop]:
            stop += 1 + content[stop]
        blocks.append(content[at : stop + 1])
        at = stop + 1

    def build() -> bytes:
        head = b"\x21" + _GIF_EXTENSIONS[rng.integers(len(_GIF_EXTENSIONS))]
        parts = [_random_bytes(rng, 256) for _ in range(rng.integers(0, 4))]
        return head + b"".join(bytes([len(part)]) + part for part in parts if part) + b"\0"

    mixed = _mix_list(blocks, rng, build, lambda block: _mix_bytes(block, rng))
    return content[:start] + b"".join(mixed) + content[at:]


def _gif_palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _mix_pnm(content: bytes, rng: Rng) -> bytes:
    """The words of the header, and the first ones of samples that are text."""
    words = content.split(maxsplit=15)

    def build() -> bytes:
        strange = (b"%d" % _number(rng), b"-1", b"# a comment\n", b"#", b"1e3", b"P6", b"ENDHDR\n", b"", b"\xb2")
        return strange[rng.integers(len(strange))]

    mixed = _mix_list(words, rng, build, lambda word: build() if rng.random() < 0.7 else word[::-1])
    return words[0] + b"\n" + b"\n".join(mixed[1:]) if rng.random() < 0.9 else b" ".join(mixed)


def _mix_boxes(content: bytes, rng: Rng) -> bytes:
    """One box anywhere removed, repeated, renamed, or changed; lengths of its parents sometimes stay wrong."""
    found = _list_boxes(content, 0, len(content))
    if not found:
        return _mix_bytes(content, rng)
    start, stop, parents = found[rng.integers(len(found))]
    box = content[start:stop]
    action = rng.integers(5)
    if action == 0:
        changed = b""
    elif action == 1:
        changed = box * 2
    elif action == 2:
        changed = box[:4] + rng.bytes(4) + box[8:]
    elif action == 3:
        changed = struct.pack(">I", _number(rng) % 2**32) + box[4:]
    else:
        changed = box[:8] + _mix_bytes(box[8:] or b"\0", rng)
    mixed = bytearray(content[:start] + changed + content[stop:])
    if rng.random() < 0.8:
        for parent in parents:
            (length,) = struct.unpack_from(">I", mixed, parent)
            struct.pack_into(">I", mixed, parent, (length + len(changed) - len(box)) % 2**32)
    return bytes(mixed)


def _list_boxes(
    content: bytes, at: int, stop: int, parents: tuple[int, ...] = ()
) -> list[tuple[int, int, tuple[int, ...]]]:
    """(start, end, starts of the boxes around it) of each box."""
    found = []
    while at + 8 <= stop:
        length, kind = struct.unpack_from(">I4s", content, at)
        end = stop if length == 0 else at + length
        if length == 1 or not at + 8 <= end <= stop:
            break
        found.append((at, end, parents))
        if kind in _BOXES:
            found += _list_boxes(content, at + 8 + (4 if kind in (b"meta", b"iinf") else 0), end, (*parents, at))
        at = end
    return found


def _mix_zip(content: bytes, rng: Rng) -> bytes:
    """A checkpoint of PyTorch whose files are changed, with correct checksums."""
    mixed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(mixed, "w") as target:
        names = source.namelist()
        chosen = names[rng.integers(len(names))]
        for name in names:
            part = source.read(name)
            if name == chosen or (name.endswith(".pkl") and rng.random() < 0.7):
                part = _mix_pickle(part, rng) if name.endswith(".pkl") else part[: rng.integers(0, len(part) + 1)]
            if name != chosen or rng.random() < 0.8:
                target.writestr(name, part)
    return mixed.getvalue()


_OPCODES = (
    b".()}]0123abcdeghjlopqrstuBCFGIJKLMNPQRSTUVX\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8c\x8e\x90\x93\x94\x95"
)


def _mix_pickle(content: bytes, rng: Rng) -> bytes:
    mixed = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(0, len(mixed) + 1))
        action = rng.integers(4)
        if action == 0:
            mixed[at:at] = bytes([_OPCODES[rng.integers(len(_OPCODES))]])
        elif action == 1 and at < len(mixed):
            mixed[at] = _OPCODES[rng.integers(len(_OPCODES))]
        elif action == 2:
            del mixed[at : at + int(rng.integers(1, 5))]
        else:
            mixed[at : at + 4] = struct.pack("<I", _number(rng) % 2**32)
    return bytes(mixed)


def _mix_safetensors(content: bytes, rng: Rng) -> bytes:
    (length,) = struct.unpack_from("<Q", content)
    try:
        header = json.loads(content[8 : 8 + length])
    except ValueError:
        return _mix_bytes(content, rng)
    names = [*header]
    for _ in range(rng.integers(1, 4)):
        name = names[rng.integers(len(names))]
        strange: list[Any] = [
            *(
                {},
                [],
                None,
                "",
                0,
                -1,
                2**70,
                1.5,
                {"a": [[]]},
                "F64",
                "BF16",
                "F8_E4M3",
                [0],
                [-1, 2],
                [2**40, 2**40],
            ),
            *([0, 2**62], [5, 3], "\ud800", {"dtype": "F32"}, True),
        ]
        value = strange[rng.integers(len(strange))]
        entry = header.get(name)
        if isinstance(entry, dict) and entry and rng.random() < 0.7:
            keys = [*entry]
            entry[keys[rng.integers(len(keys))]] = value
        elif rng.random() < 0.5:
            header[name] = value
        else:
            header.pop(name, None)
            header["x" * int(rng.integers(0, 300))] = value
    encoded = json.dumps(header, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        encoded = b"[" * int(rng.integers(1, 100_000))
    size = len(encoded) if rng.random() < 0.9 else _number(rng)
    return struct.pack("<Q", size) + encoded + content[8 + length :]
