"""The header of JPEG XL: what it says, and an ICC profile in it, where every program looks for one.

libjxl stores a profile in the header; the package that calls it does not. A header is a stream of bits up to the
next byte, after which frames begin, so that the description of colors can be replaced.

Source: ISO/IEC 18181-1, annexes D (header), E (ICC profiles) and C (entropy coding).
"""

import io
from dataclasses import dataclass, replace

from pellucid.pictures.records import icc
from pellucid.pictures.structures.boxes import build_box, iterate_boxes

_HEAD_BYTES = 4096


@dataclass(frozen=True)
class JxlHeader:
    """is_lossy: whether colors are in XYB, which lossless files never are.

    float_bits: of a floating-point sample, 0 for integers. is_associated: whether colors are multiplied by alpha.
    has_profile: whether an ICC profile says what the colors are.
    colors: (first bit, bit after the last one) of the description of colors. stop: the bit after the header.
    (0, 0) and 0 if they are not known.
    """

    is_animated: bool = False
    num_extra: int = 0
    is_lossy: bool = True
    float_bits: int = 0
    is_associated: bool = False
    has_profile: bool = False
    colors: tuple[int, int] = (0, 0)
    stop: int = 0


def parse_jxl_header(content: bytes) -> JxlHeader:
    """What the header of a file says; defaults for a damaged one."""
    try:
        return _parse_bits(_Bits(_find_codestream(content)))
    except (IndexError, ValueError):
        return JxlHeader()


def put_profile(content: bytes, profile: bytes) -> bytes:
    """A lossless file, or its codestream alone, with an ICC profile instead of its description of colors.

    Raises ValueError if the header is not understood.
    """
    if content.startswith(b"\xff\x0a"):
        return _put_into_codestream(content, profile)
    boxes, is_done = b"", False
    for box in iterate_boxes(io.BytesIO(content)):
        inner = content[box.start : box.stop]
        if box.kind in (b"jxlc", b"jxlp") and not is_done:
            start = 4 if box.kind == b"jxlp" else 0
            inner, is_done = inner[:start] + _put_into_codestream(inner[start:], profile), True
        boxes += build_box(box.kind, inner)
    return boxes


def _put_into_codestream(content: bytes, profile: bytes) -> bytes:
    header = _parse_bits(_Bits(content[:_HEAD_BYTES]))
    if not header.stop or header.is_lossy:
        raise ValueError("the header of the JPEG XL is not that of a lossless picture")
    (start, stop), num_bytes = header.colors, -(-header.stop // 8)
    before = _Bits(content[:num_bytes])
    bits = _BitWriter()
    bits.put(before.take(start), start)
    bits.put(0b10, 2)  # not the default, but a profile
    bits.put(0 if icc.num_channels(profile) == 3 else 1, 2)  # RGB, gray
    before.take(stop - start)
    bits.put(before.take(header.stop - stop), header.stop - stop)
    _put_profile_bits(bits, profile)
    return bits.to_bytes() + content[num_bytes:]


def _put_profile_bits(bits: "_BitWriter", profile: bytes) -> None:
    """A profile in a flat code: each byte of its transformed content has 8 bits, the highest first."""
    content = _transform_profile(profile)
    bits.put(3, 2)  # a number of more than 272
    bits.put(len(content) & 0xFFF, 12)
    rest = len(content) >> 12
    while rest:
        bits.put(1 | (rest & 0xFF) << 1, 9)
        rest >>= 8
    bits.put(0, 1)
    bits.put(0b001_0, 4)  # no LZ77; all contexts share one code
    bits.put(1, 1)  # a prefix code
    bits.put(15, 4)  # whose symbols are the numbers
    bits.put(1 | 7 << 1 | 127 << 5, 12)  # 256 symbols
    bits.put(0, 2)  # lengths of all codes of lengths follow
    for length in _ORDER_OF_LENGTHS:
        bits.put(int(length == 8), 2)  # 01 is 4: the only code, which takes no bits
    for value in content:
        bits.put(int(f"{value:08b}"[::-1], 2), 8)


_ORDER_OF_LENGTHS = (1, 2, 3, 4, 0, 5, 17, 6, 16, 7, 8, 9, 10, 11, 12, 13, 14, 15)
_PREDICTED_BYTES = 128


def _transform_profile(profile: bytes) -> bytes:
    """Sizes, commands and data: the differences to a predicted header, no tags, and everything else as it is."""
    rest = profile[_PREDICTED_BYTES:]
    commands = bytes(1) + b"\1" + _pack_number(len(rest))
    differences = bytes((a - b) % 256 for a, b in zip(profile, _predict_header(profile), strict=False))
    return _pack_number(len(profile)) + _pack_number(len(commands)) + commands + differences + rest


def _predict_header(profile: bytes) -> bytes:
    predicted = bytearray(_PREDICTED_BYTES)
    predicted[:4] = len(profile).to_bytes(4, "big")
    predicted[8] = 4
    predicted[12:24], predicted[36:40] = b"mntrRGB XYZ ", b"acsp"
    predicted[68:80] = bytes.fromhex("0000f6d6 00010000 0000d32d")
    predicted[80:84] = profile[4:8]
    platform = profile[40:44]
    for start, guess in ((b"A", b"APPL"), (b"M", b"MSFT"), (b"SG", b"SGI "), (b"SU", b"SUNW")):
        if platform.startswith(start):
            predicted[40 + len(start) : 44] = guess[len(start) :]
    return bytes(predicted)


def _pack_number(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    packed = b""
    while number > 127:
        packed += bytes([number & 127 | 128])
        number >>= 7
    return packed + bytes([number])


def _find_codestream(content: bytes) -> bytes:
    """The beginning of the codestream, which may be in boxes."""
    if content.startswith(b"\xff\x0a"):
        return content[:_HEAD_BYTES]
    for box in iterate_boxes(io.BytesIO(content)):
        if box.kind in (b"jxlc", b"jxlp"):
            start = box.start + (4 if box.kind == b"jxlp" else 0)
            return content[start : min(box.stop, start + _HEAD_BYTES)]
    return b""


class _Bits:
    """Reads numbers of a few bits, the lowest first."""

    def __init__(self, content: bytes) -> None:
        self._value, self._left = int.from_bytes(content, "little"), 8 * len(content)
        self.position = 0

    def take(self, count: int) -> int:
        if count > self._left:
            raise IndexError("the header ends early")
        taken = self._value & (1 << count) - 1
        self._value >>= count
        self._left -= count
        self.position += count
        return taken

    def choose(self, *options: tuple[int, int]) -> int:
        """U32 of the standard: two bits choose (offset, number of bits)."""
        offset, count = options[self.take(2)]
        return offset + self.take(count)

    def skip(self, *counts: int) -> None:
        """The same for a number that does not matter: two bits choose how many bits follow."""
        self.take(counts[self.take(2)])


class _BitWriter:
    """Joins numbers of a few bits, the lowest first."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def put(self, value: int, count: int) -> None:
        self._parts.append(f"{value:0{count}b}"[::-1] if count else "")

    def to_bytes(self) -> bytes:
        """All bits, and zeros up to the next byte."""
        bits = "".join(self._parts)
        return int(bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little")


def _parse_bits(bits: _Bits) -> JxlHeader:
    bits.take(16)
    _skip_size(bits)
    if bits.take(1):  # all values are the defaults
        return JxlHeader()
    has_more = bool(bits.take(1))
    if has_more:
        bits.take(3)  # orientation
        if bits.take(1):
            _skip_size(bits)
        if bits.take(1):
            raise ValueError("a preview")  # never seen in practice
        if bits.take(1):
            return JxlHeader(is_animated=True)
    float_bits = _parse_depth(bits)
    bits.take(1)
    num_extra = bits.choose((0, 0), (1, 0), (2, 4), (1, 12))
    # All, because each of them has to be skipped.
    is_associated = any([_parse_extra_channel(bits) for _ in range(num_extra)])
    is_lossy, start = bool(bits.take(1)), bits.position
    header = JxlHeader(False, num_extra, is_lossy, float_bits, is_associated, has_profile=_skip_colors(bits))
    colors = start, bits.position
    if has_more and not bits.take(1):  # brightness
        bits.take(16 + 16 + 1 + 16)
    # Other headers, with extensions or transforms, are not written by anyone yet.
    return header if bits.take(3) != 0b100 else replace(header, colors=colors, stop=bits.position)


def _skip_colors(bits: _Bits) -> bool:
    """Whether there is an ICC profile."""
    if bits.take(1):
        return False
    has_profile, space = bits.take(1), _take_name(bits)
    if has_profile:
        return True
    if space != 2 and _take_name(bits) == 2:
        _skip_point(bits)
    if space not in (1, 2) and _take_name(bits) == 2:
        for _ in range(3):
            _skip_point(bits)
    if space != 2:
        _ = bits.take(24) if bits.take(1) else _take_name(bits)
    _take_name(bits)
    return False


def _take_name(bits: _Bits) -> int:
    """A value of an enumeration."""
    return bits.choose((0, 0), (1, 0), (2, 4), (18, 6))


def _skip_point(bits: _Bits) -> None:
    """The two coordinates of a chromaticity."""
    for _ in range(2):
        bits.skip(19, 19, 20, 21)


def _skip_size(bits: _Bits) -> None:
    is_small = bits.take(1)

    def skip_side() -> None:
        if is_small:
            bits.take(5)
        else:
            bits.skip(9, 13, 18, 30)

    skip_side()
    if not bits.take(3):  # no fixed ratio
        skip_side()


def _parse_depth(bits: _Bits) -> int:
    """Bits of a floating-point sample; 0 for integers."""
    if bits.take(1):
        count = bits.choose((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
        return count
    bits.skip(0, 0, 0, 6)
    return 0


def _parse_extra_channel(bits: _Bits) -> bool:
    """Whether it is an alpha by which the colors are multiplied."""
    if bits.take(1):  # alpha of 8 bits
        return False
    kind = _take_name(bits)
    _parse_depth(bits)
    bits.skip(0, 0, 0, 3)
    bits.take(8 * bits.choose((0, 0), (0, 4), (16, 5), (48, 10)))
    if kind == 0:
        return bool(bits.take(1))
    if kind == 2:
        bits.take(64)  # a spot color of four half-precision numbers
    elif kind == 6:
        bits.skip(0, 2, 4, 8)
    return False
