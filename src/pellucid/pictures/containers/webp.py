"""Metadata in WebP files: chunks of the extended format (VP8X).

Source: "WebP Container Specification", Google.
"""

import struct
from collections.abc import Mapping
from typing import IO, Any

from pellucid.pictures.records import exif, icc, xmp
from pellucid.pictures.structures.chunks import iterate_webp
from pellucid.system.files import splice

STORED = frozenset({"exif-data", "xmp-data", "icc-profile-data", "webp-chunks", "xres", "yres"})
"""Metadata that `write` stores."""

_HEADER_BYTES = 12
_MAX_BYTES = 2**26
_PROFILE_FLAG, _ALPHA_FLAG, _EXIF_FLAG, _XMP_FLAG = 0x20, 0x10, 0x08, 0x04
_SINGLE = {b"ICCP": "ICC profile", b"EXIF": "EXIF block"}
_STORAGE = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")


def read(file: IO[bytes]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata, what is not kept) of a WebP; stops where it is damaged."""
    found: dict[bytes, bytes] = {}
    others: list[tuple[bytes, bytes]] = []
    packets: list[bytes] = []
    dropped: list[str] = []
    for kind, place, length in iterate_webp(file):
        if kind in _STORAGE or length > _MAX_BYTES:
            continue
        file.seek(place + 8)
        content = file.read(length)
        if kind == b"XMP ":
            packets.append(content)
        elif kind in _SINGLE:
            if found.setdefault(kind, content) != content:
                dropped.append(f"a second {_SINGLE[kind]}")
        else:
            others.append((kind, content))
    packet, conflicts = xmp.join(packets)
    block = found.get(b"EXIF", b"")
    metadata = {
        "icc-profile-data": found.get(b"ICCP", b""),
        "exif-data": exif.HEADER + block.removeprefix(exif.HEADER) if block else b"",
        "xmp-data": packet,
        "webp-chunks": tuple(others),
        **exif.read_resolution(block),
    }
    return metadata, (*dropped, *conflicts)


def write(file: IO[bytes], metadata: Mapping[str, Any], width: int, height: int) -> list[str]:
    """Add the metadata to a WebP. Returns what does not fit."""
    missing: list[str] = []
    profile = _choose_profile(metadata.get("icc-profile-data", b""), missing)
    if exif.contradicts(metadata.get("exif-data", b""), metadata):
        missing.append("the resolution, because EXIF states another one")
    block = exif.add_resolution(metadata.get("exif-data", b""), metadata).removeprefix(exif.HEADER)
    packet = metadata.get("xmp-data", b"")
    others = metadata.get("webp-chunks", ())
    if not (profile or block or packet or others):
        return missing
    flags, images_start = _read_flags(file)
    flags |= (_PROFILE_FLAG * bool(profile)) | (_EXIF_FLAG * bool(block)) | (_XMP_FLAG * bool(packet))
    size = b"".join(struct.pack("<I", side - 1)[:3] for side in (width, height))
    head = _build(b"VP8X", bytes([flags, 0, 0, 0]) + size) + _build(b"ICCP", profile)
    end = file.seek(0, 2)
    file.write(bytes(end % 2))
    file.write(_build(b"EXIF", block) + _build(b"XMP ", packet))
    file.write(b"".join(_build(kind, content) for kind, content in others))
    splice(file, _HEADER_BYTES, images_start, head)
    total = file.seek(0, 2)
    file.seek(4)
    file.write(struct.pack("<I", total - 8))
    return missing


def _choose_profile(profile: bytes, missing: list[str]) -> bytes:
    """The profile for RGB, the only colors of WebP."""
    if not profile or icc.num_channels(profile) == 3:
        return profile
    converted = icc.to_rgb(profile)
    if not converted:
        missing.append(icc.describe_misfit(profile, 3))
    return converted


def _read_flags(file: IO[bytes]) -> tuple[int, int]:
    """(flags of an existing VP8X chunk, or those of the samples, where the samples start)."""
    for kind, place, length in iterate_webp(file):
        file.seek(place + 8)
        if kind == b"VP8X":
            return file.read(1)[0] & _ALPHA_FLAG, place + 8 + length
        if kind == b"VP8L":
            head = struct.unpack("<xI", file.read(5))[0]
            return (_ALPHA_FLAG if head >> 28 & 1 else 0), place
        return 0, place
    return 0, _HEADER_BYTES


def _build(kind: bytes, content: bytes) -> bytes:
    """b"" without content."""
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2) if content else b""
