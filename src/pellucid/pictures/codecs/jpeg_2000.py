"""JPEG 2000, by OpenJPEG in the package pylibjpeg-openjpeg: 8 and 16 bits, gray, RGB, transparency, ICC profiles.

Source: ISO/IEC 15444-1, Annex I, for the boxes. They are read and written here; the package codes the samples.
"""

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import OutputError, PictureError
from pellucid.pictures import resolution
from pellucid.pictures.codecs.decoders import check_size, damage_error, import_decoder, summarize
from pellucid.pictures.containers import bmff
from pellucid.pictures.levels import stretch
from pellucid.pictures.picture import Encoding, Picture
from pellucid.pictures.records import icc
from pellucid.pictures.samples import Samples
from pellucid.pictures.structures.boxes import build_box, find_box, iterate_boxes
from pellucid.pictures.structures.jpeg_2000 import find_jp2_end
from pellucid.system.optional_packages import import_optional
from pellucid.system.signals import defer_sigint

BYTES_PER_PIXEL = 24
ENCODING_BYTES_PER_PIXEL = 40
"""Memory to decode and to encode a pixel, measured with 16 bits and three channels."""

_MIN_PX = 32  # six resolutions

_ENCODERS = (b"Created by OpenJPEG", b"Kakadu-", b"OpenJPH", b"Kdu-")
"""What comments about the encoder, or its settings, start with."""

_SRGB, _GRAY = 16, 17  # enumerated color spaces
_COLORS = {_SRGB: 3, _GRAY: 1}
_SIGNATURE = build_box(b"jP  ", b"\r\n\x87\n")
_TYPE = build_box(b"ftyp", b"jp2 \0\0\0\0jp2 ")


@dataclass(frozen=True)
class _Codestream:
    """Main header. bits: of each component. is_reversible: whether its wavelets keep every sample."""

    width: int
    height: int
    bits: tuple[int, ...]
    is_signed: bool
    is_subsampled: bool
    is_reversible: bool
    comments: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class _Colors:
    """Color boxes. space: enumerated color space, 0 if there is none. alpha: number of the channel, or None."""

    space: int = 0
    profile: bytes = b""
    alpha: int | None = None
    is_premultiplied: bool = False
    has_palette: bool = False
    dots_per_m: tuple[float, float] | None = None
    has_two_resolutions: bool = False


def probe_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header."""
    stream = _parse_codestream(path, _find_codestream(path.read_bytes()))
    return stream.width, stream.height


def read(path: Path, encoding: Encoding, max_pixels: int) -> Picture:
    """Read a JP2 file, or a codestream alone. Raises PictureError."""
    content = path.read_bytes()
    stream = _parse_codestream(path, _find_codestream(content))
    check_size(stream.width, stream.height, path, max_pixels)
    colors = _parse_colors(io.BytesIO(content))
    num_colors = _check_colors(path, stream, colors)
    shape = stream.height, stream.width, len(stream.bits)
    # Of a picture that does not start at 0, 0, the package returns unused memory after the samples.
    # OpenJPEG also decodes boxes that were appended.
    samples = stretch(
        _decode(path, content[: find_jp2_end(io.BytesIO(content)) or None])
        .reshape(-1)[: prod(shape)]
        .reshape(shape),
        2 ** max(stream.bits) - 1,
    )
    # OpenJPEG puts the channels in order: red, green, blue, alpha.
    alpha = None if colors.alpha is None else np.ascontiguousarray(samples[..., num_colors:])
    kept: dict[str, Any] = resolution.to_metadata(*colors.dots_per_m, "m") if colors.dots_per_m else {}
    if stream.comments:
        kept["jpeg-comments"] = stream.comments
    if colors.profile:
        kept["icc-profile-data"] = colors.profile
    lost = ("not kept: the resolution of display (resd)",) if colors.has_two_resolutions else ()
    notes = (*encoding.notes, *lost)
    found = replace(encoding, bits=max(stream.bits), lossless=stream.is_reversible, notes=notes)
    return Picture(np.ascontiguousarray(samples[..., :num_colors]), alpha, kept, found)


def encode_jp2(picture: Picture, path: Path) -> bytes:
    """The content of a JP2 file, lossless. path: for errors."""
    if min(picture.width, picture.height) < _MIN_PX:
        raise OutputError(
            f"{path} cannot be written as JPEG 2000: {picture.width} x {picture.height} px; at least "
            f"{_MIN_PX} x {_MIN_PX} are needed",
            hint="write PNG or TIFF",
        )
    package = import_optional("openjpeg.utils")
    samples = picture.samples
    if picture.alpha is not None:
        if picture.channels == 1:  # OpenJPEG's package codes one, three or four channels
            samples = np.repeat(samples, 3, axis=2)
        samples = np.concatenate([samples, picture.alpha], axis=2)
    try:
        with defer_sigint():  # an interruption would end in a segmentation fault
            codestream = package.encode_array(
                np.ascontiguousarray(samples[..., 0] if samples.shape[2] == 1 else samples),
                bits_stored=8 * samples.itemsize,
                photometric_interpretation={1: 2, 3: 1, 4: 0}[samples.shape[2]],
            )
    except (RuntimeError, ValueError) as error:
        raise OutputError(f"{path} cannot be written as JPEG 2000: {summarize(error)}") from error
    header = build_box(b"jp2h", _build_header(picture, samples))
    boxes = bmff.build_uuid_boxes(picture.metadata)
    return _SIGNATURE + _TYPE + header + boxes + struct.pack(">I4s", 0, b"jp2c") + bytes(codestream)


def _decode(path: Path, content: bytes) -> Samples:
    package = import_decoder("openjpeg.utils", path)
    try:
        decoded: Samples = package.decode(content)
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise damage_error(path, error) from error
    return decoded


def _find_codestream(content: bytes) -> bytes:
    """The codestream of a file, up to its first tile."""
    if content.startswith(b"\xff\x4f"):
        return content[: 2**20]
    box = find_box(io.BytesIO(content), b"jp2c")
    return content[box.start : min(box.stop, box.start + 2**20)] if box else b""


def _parse_codestream(path: Path, content: bytes) -> _Codestream:
    try:
        width, height, left, top = struct.unpack_from(">IIII", content, 8)
        (num_components,) = struct.unpack_from(">H", content, 40)
        components = [struct.unpack_from("BBB", content, 42 + 3 * number) for number in range(num_components)]
        is_reversible, comments = False, list[bytes]()
        offset = 4 + struct.unpack_from(">H", content, 4)[0]
        while content[offset : offset + 2] not in (b"\xff\x90", b""):
            (marker, length) = struct.unpack_from(">HH", content, offset)
            if marker == 0xFF52:
                is_reversible = content[offset + 13] == 1
            elif marker == 0xFF64 and content[offset + 4 : offset + 6] == b"\0\1":  # a text
                comments.append(content[offset + 6 : offset + 2 + length])
            offset += 2 + length
    except (struct.error, IndexError) as error:
        raise damage_error(path, "its header ends early") from error
    if not components or width <= left or height <= top:
        raise damage_error(path, "its header declares no samples")
    return _Codestream(
        width - left,
        height - top,
        tuple((depth & 0x7F) + 1 for depth, _, _ in components),
        any(depth & 0x80 for depth, _, _ in components),
        any((across, down) != (1, 1) for _, across, down in components),
        is_reversible,
        tuple(text for text in comments if not text.startswith(_ENCODERS)),
    )


def _parse_colors(file: io.BytesIO) -> _Colors:
    """The color boxes of a JP2 file; defaults for a codestream alone."""
    header = find_box(file, b"jp2h")
    colors = _Colors()
    for box in iterate_boxes(file, header.start, header.stop) if header else ():
        content = box.read(file)
        if box.kind == b"colr" and not colors.space and not colors.profile:
            if content[0] == 1:
                colors = replace(colors, space=int.from_bytes(content[3:7], "big"))
            elif content[0] in (2, 3):
                colors = replace(colors, profile=content[3:])
        elif box.kind == b"pclr":
            colors = replace(colors, has_palette=True)
        elif box.kind == b"cdef":
            for start in range(2, len(content) - 5, 6):
                channel, kind, _ = struct.unpack_from(">HHH", content, start)
                if kind in (1, 2):
                    colors = replace(colors, alpha=channel, is_premultiplied=kind == 2)
        elif box.kind == b"res ":
            found = {inner.kind: inner.read(file) for inner in iterate_boxes(file, box.start, box.stop)}
            colors = replace(
                colors,
                dots_per_m=_parse_resolution(found),
                has_two_resolutions={b"resc", b"resd"} <= found.keys(),
            )
    return colors


def _parse_resolution(found: Mapping[bytes, bytes]) -> tuple[float, float] | None:
    """Horizontal and vertical, of capture or, if there is none, of display."""
    content = found.get(b"resc", found.get(b"resd", b""))
    if len(content) < 10:
        return None
    down, down_by, across, across_by, down_power, across_power = struct.unpack(">HHHHbb", content[:10])
    if 0 in (down, down_by, across, across_by):
        return None
    return (
        across / across_by * 10.0**across_power,
        down / down_by * 10.0**down_power,
    )


def _check_colors(path: Path, stream: _Codestream, colors: _Colors) -> int:
    """The number of colors. Raises PictureError for what is not gray or RGB with 16 bits at most."""
    num_channels = len(stream.bits) - (colors.alpha is not None)
    expected = _COLORS.get(colors.space) or (icc.num_channels(colors.profile) if colors.profile else num_channels)
    problem = ""
    if colors.has_palette:
        problem = "a palette"
    elif stream.is_subsampled:
        problem = "subsampled colors"
    elif stream.is_signed:
        problem = "signed samples"
    elif max(stream.bits) > 16:
        problem = f"{max(stream.bits)} bits"
    elif len(set(stream.bits)) > 1:
        problem = "channels of different depths"
    elif colors.space not in (0, *_COLORS):
        problem = "a color space other than gray or sRGB"
    elif colors.is_premultiplied:
        problem = "premultiplied alpha"
    elif num_channels not in (1, 3) or num_channels != expected:
        problem = f"{len(stream.bits)} channels that are neither gray nor RGB with alpha"
    if problem:
        raise PictureError(f"{path} is a JPEG 2000 with {problem}, which is not supported", hint="save it as TIFF")
    return num_channels


def _build_header(picture: Picture, samples: Samples) -> bytes:
    """The boxes that describe the samples."""
    height, width, num_channels = samples.shape
    num_colors = min(num_channels, 3)
    bits = 8 * samples.itemsize - 1
    boxes = build_box(b"ihdr", struct.pack(">IIHBBBB", height, width, num_channels, bits, 7, 0, 0))
    profile = picture.metadata.get("icc-profile-data", b"")
    if profile and icc.num_channels(profile) == num_colors:
        boxes += build_box(b"colr", b"\2\0\0" + profile)
    else:
        boxes += build_box(b"colr", struct.pack(">BBBI", 1, 0, 0, _SRGB if num_colors == 3 else _GRAY))
    if num_channels == 4:
        associations = ((0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 1, 0))
        boxes += build_box(
            b"cdef", struct.pack(">H", 4) + b"".join(struct.pack(">HHH", *one) for one in associations)
        )
    return boxes + _build_resolution(picture.metadata)


def _build_resolution(kept: Mapping[str, Any]) -> bytes:
    dots = resolution.from_metadata(kept)
    if dots is None or dots.unit == "none":
        return b""
    across, down = (round(value) for value in dots.to("m"))
    if not 1 <= min(across, down) <= max(across, down) <= 65535:
        return b""
    return build_box(b"res ", build_box(b"resc", struct.pack(">HHHHbb", down, 1, across, 1, 0, 0)))
