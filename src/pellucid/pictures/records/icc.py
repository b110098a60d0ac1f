"""ICC profiles: what they are for, and those for gray in formats that only have RGB."""

import io
import struct

import numpy as np
from PIL import Image, ImageCms

_HEADER_BYTES = 128
_GRAY, _RGB = b"GRAY", b"RGB "

# The primaries of sRGB under D50 (IEC 61966-2-1 Amd 1), in 1/65536. Any would do: gray is R = G = B.
_PRIMARIES = {
    b"rXYZ": (28_578, 14_581, 912),
    b"gXYZ": (25_241, 46_981, 6_362),
    b"bXYZ": (9_376, 3_974, 46_799),
}


def num_channels(profile: bytes) -> int:
    """Color channels of the pictures that a profile is for; 0 for other kinds of profiles."""
    return {_GRAY: 1, _RGB: 3}.get(profile[16:20], 0)


def describe_misfit(profile: bytes, channels: int) -> str:
    """Why a profile cannot be that of a picture with 1 or 3 channels, as part of a message."""
    if profile[36:40] != b"acsp":  # the signature of all profiles
        return "the ICC profile, which is damaged"
    return f"the ICC profile, which is not for {'gray' if channels == 1 else 'RGB'}"


def find_hdr_numbers(profile: bytes) -> bytes:
    """(primaries, transfer, matrix, range) of an HDR profile as in cICP of PNG; b"" for other profiles.

    Their curves end at the white of screens: programs for HDR use these numbers instead (ICC.1:2022, 9.2.17).
    """
    numbers = _parse(profile).get(b"cicp", b"")[8:12]
    return numbers if numbers[1:2] in (_PQ, _HLG) and numbers[2:] == b"\0\1" else b""


_PQ, _HLG = b"\x10", b"\x12"


def is_srgb(profile: bytes) -> bool:
    """Whether a profile is sRGB, or gray with the curve of sRGB, within the rounding of 8 bits."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    if num_channels(profile) == 1:
        mode, colors = "L", levels[None]
    else:
        mode, colors = "RGB", np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    image = Image.fromarray(colors)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        shown = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
        )
    except (OSError, ImageCms.PyCMSError):
        return False
    difference = np.asarray(shown).astype(int) - np.asarray(image.convert("RGB"))
    return mode == image.mode and bool(np.abs(difference).max() <= 1)


def to_rgb(profile: bytes) -> bytes:
    """A profile in which R = G = B has the color of that gray in a profile for gray; b"" if it is not possible."""
    tags = _parse(profile)
    curve = tags.get(b"kTRC", b"")
    if not curve or b"A2B0" in tags or profile[20:24] != b"XYZ ":
        return b""
    del tags[b"kTRC"]
    tags |= {name: b"XYZ " + bytes(4) + struct.pack(">3i", *value) for name, value in _PRIMARIES.items()}
    tags |= {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")}
    return _build(profile[:_HEADER_BYTES], tags)


def _parse(profile: bytes) -> dict[bytes, bytes]:
    if len(profile) < _HEADER_BYTES + 4:
        return {}
    (count,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    tags = {}
    for place in range(_HEADER_BYTES + 4, min(len(profile) - 11, _HEADER_BYTES + 4 + 12 * min(count, 200)), 12):
        name, offset, length = struct.unpack_from(">4sII", profile, place)
        tags[name] = profile[offset : offset + length]
    return tags


def _build(header: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start, places = _HEADER_BYTES + 4 + 12 * len(tags), dict[bytes, int]()
    for name, content in tags.items():
        if content not in places:  # curves are shared
            places[content] = start + len(body)
            body += content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", places[content], len(content))
    total = struct.pack(">I", start + len(body))
    # The profile has another ID (MD5, bytes 84 to 99) now; zeros mean that it is not computed.
    header = total + header[4:16] + _RGB + header[20:84] + bytes(16) + header[100:]
    return header + table + body
