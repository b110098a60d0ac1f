"""Metadata in BMP files: the resolution, and colors since version 4 of the header.

Source: Microsoft, "Bitmap Header Types" (BITMAPV4HEADER, BITMAPV5HEADER).
"""

import struct
from collections.abc import Mapping
from typing import IO, Any

from pellucid.pictures import resolution
from pellucid.pictures.records import icc

STORED = frozenset({"icc-profile-data", "bmp-colors", "xres", "yres"})
"""Metadata that `build_headers` stores."""

_FILE_BYTES, _V3_BYTES, _V4_BYTES, _V5_BYTES = 14, 40, 108, 124
_ALPHA_BYTES = 56
"""The least size of a header with a mask of alpha."""

_CALIBRATED, _SRGB, _EMBEDDED, _LINKED = 0, 0x73524742, 0x4D424544, 0x4C494E4B
_MAX_BYTES = 2**26


def read(file: IO[bytes]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata, what is not kept) of a BMP."""
    file.seek(0)
    head = file.read(_FILE_BYTES + _V5_BYTES)[_FILE_BYTES:]
    (size,) = struct.unpack_from("<I", head.ljust(4, b"\0"))
    if not _V3_BYTES <= size <= len(head):
        return {}, ()
    metadata = _read_resolution(*struct.unpack_from("<ii", head, 24))
    if size < _V4_BYTES:
        return metadata, ()
    kind, colors = struct.unpack_from("<I", head, 56)[0], head[60:108]
    if kind == _CALIBRATED and any(colors):
        metadata["bmp-colors"] = colors
    if size >= _V5_BYTES and kind == _EMBEDDED:
        offset, length = struct.unpack_from("<II", head, 112)
        file.seek(_FILE_BYTES + offset)
        metadata["icc-profile-data"] = file.read(min(length, _MAX_BYTES))
    return metadata, (("the link to an ICC profile",) if size >= _V5_BYTES and kind == _LINKED else ())


def has_alpha(file: IO[bytes]) -> bool:
    """Whether some bits of each pixel are its alpha, as stated by a mask."""
    file.seek(_FILE_BYTES)
    head = file.read(_V4_BYTES).ljust(_V4_BYTES, b"\0")
    size, compression, mask = (struct.unpack_from("<I", head, place)[0] for place in (0, 16, 52))
    return size >= _ALPHA_BYTES and compression in (3, 6) and mask != 0


def read_num_colors(file: IO[bytes]) -> int:
    """Colors of the palette that a BMP of at most 8 bits has."""
    file.seek(0)
    head = file.read(_FILE_BYTES + _V3_BYTES).ljust(_FILE_BYTES + _V3_BYTES, b"\0")
    is_old = struct.unpack_from("<I", head, _FILE_BYTES)[0] < _V3_BYTES
    (bits,) = struct.unpack_from("<H", head, 24 if is_old else 28)
    (num_used,) = struct.unpack_from("<I", head, 46)
    return int(num_used) if num_used and not is_old else 2 ** min(bits, 8)


def _read_resolution(x: int, y: int) -> dict[str, Any]:
    return resolution.to_metadata(x, y, "m")


def build_headers(
    width: int, height: int, channels: int, row_bytes: int, metadata: Mapping[str, Any]
) -> tuple[bytes, bytes, list[str]]:
    """(everything before the samples, everything behind them, what does not fit) of a BMP.

    24 bits for RGB, 8 bits with a palette for gray. A profile needs version 5 of the header, which older programs
    do not know, so it is only used with a profile.
    """
    profile, missing = metadata.get("icc-profile-data", b""), list[str]()
    if profile and channels == 1:
        profile = icc.to_rgb(profile)  # the palette is RGB
    if metadata.get("icc-profile-data") and icc.num_channels(profile) != 3:
        missing.append(icc.describe_misfit(metadata["icc-profile-data"], 3))
        profile = b""
    colors = metadata.get("bmp-colors", b"")
    size = _V5_BYTES if profile else _V4_BYTES if colors else _V3_BYTES
    palette = b"".join(bytes([gray, gray, gray, 0]) for gray in range(256)) if channels == 1 else b""
    start, sample_bytes = _FILE_BYTES + size + len(palette), row_bytes * height
    header = struct.pack("<2sIII", b"BM", start + sample_bytes + len(profile), 0, start)
    header += struct.pack("<IiiHHII", size, width, height, 1, 8 * channels, 0, sample_bytes)
    header += struct.pack("<iiII", *_dots_per_m(metadata), len(palette) // 4, 0)
    if size > _V3_BYTES:
        header += bytes(16) + struct.pack("<I", _EMBEDDED if profile else _CALIBRATED) + colors.ljust(48, b"\0")
    if profile:
        header += struct.pack("<IIII", 4, size + len(palette) + sample_bytes, len(profile), 0)
    return header + palette, profile, missing


def _dots_per_m(metadata: Mapping[str, Any]) -> tuple[int, int]:
    """0, for unknown, if they do not fit into BMP's fields or have no unit."""
    dots = resolution.from_metadata(metadata)
    x, y = (0.0, 0.0) if dots is None or dots.unit == "none" else dots.to("m")
    return (round(x), round(y)) if max(x, y) < 2**31 - 1 else (0, 0)
