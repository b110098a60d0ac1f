"""JPEG XL, by libjxl in the package pyjpegxl: any depth, gray and color, transparency and ICC profiles.

Source: ISO/IEC 18181-1 for the header, which says whether a file is an animation, and whether it is lossless.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import PictureError
from pellucid.pictures import exif, xmp
from pellucid.pictures.boxes import iterate_boxes
from pellucid.pictures.containers import bmff
from pellucid.pictures.decoders import check_finite, check_size, count_not_finite, damage_error, import_decoder
from pellucid.pictures.picture import Encoding, Picture
from pellucid.system.optional_packages import import_optional

BYTES_PER_PIXEL = 30
ENCODING_BYTES_PER_PIXEL = 40
"""Memory to decode and to encode a pixel, measured with 16 bits and three channels."""

_DISTANCE = 1.0
"""Butteraugli distance of lossy files: no visible difference. A file does not store its own."""

_DTYPES = ("uint8", "uint16", "float32")


@dataclass(frozen=True)
class _Header:
    """is_lossy: whether colors are in XYB, which lossless files never are."""

    is_animated: bool = False
    num_extra: int = 0
    is_lossy: bool = True


def probe_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header."""
    found = _call(path, "probe", path.read_bytes())
    return found.width, found.height


def read(path: Path, encoding: Encoding, max_pixels: int) -> Picture:
    """Read a file. libjxl applies the orientation. Raises PictureError."""
    content = path.read_bytes()
    probed = _call(path, "probe", content)
    check_size(probed.width, probed.height, path, max_pixels)
    header = _parse_header(content)
    if header.is_animated:
        raise PictureError(
            f"{path} is an animated JPEG XL", hint="restore its frames one by one, e.g. after `djxl`"
        )
    if probed.num_color_channels not in (1, 3):
        raise PictureError(f"{path} has {probed.num_color_channels} colors (CMYK); gray or RGB is needed")
    notes = encoding.notes
    if header.num_extra > bool(probed.has_alpha):
        notes += (f"{header.num_extra - bool(probed.has_alpha)} extra channels are not kept",)
    found, samples = _call(path, "decode_to_numpy", content)
    if samples.dtype.name not in _DTYPES:
        raise PictureError(f"{path} has samples of type {samples.dtype}; {', '.join(_DTYPES)} are supported")
    num_colors = found.num_color_channels
    alpha = samples[..., num_colors : num_colors + 1] if found.has_alpha else None
    check_finite(count_not_finite(samples), path)
    return Picture(
        np.ascontiguousarray(samples[..., :num_colors]),
        None if alpha is None else np.ascontiguousarray(alpha),
        _build_metadata(found),
        replace(encoding, bits=found.bits_per_sample, lossless=not header.is_lossy, notes=notes),
    )


def encode_jxl(picture: Picture, quality: int | None) -> bytes:
    """The content of a file: lossless, unless the picture comes from a lossy JPEG XL, or a quality is given."""
    module = import_optional("pyjpegxl")
    original = picture.encoding
    was_lossy = original is not None and original.format == "JPEG XL" and not original.lossless
    is_lossy = quality is not None or was_lossy
    content = module.encode_from_numpy(
        np.ascontiguousarray(np.concatenate(picture.planes, axis=2)),
        lossless=not is_lossy,
        speed=module.EncoderSpeed.Squirrel if is_lossy else module.EncoderSpeed.Falcon,
        quality=_DISTANCE if quality is None else _to_distance(quality),
        icc=picture.metadata.get("icc-profile-data"),
    )
    return bmff.put_into_jxl(bytes(content), picture.metadata)


def _to_distance(quality: int) -> float:
    """libjxl's distance for a quality of JPEG, as in its JxlEncoderDistanceFromQuality."""
    if quality >= 30:
        return max(0.01, 0.1 + (100 - quality) * 0.09)
    return min(25.0, 53 / 3000 * quality**2 - 23 / 20 * quality + 25)


def _call(path: Path, name: str, *args: Any) -> Any:
    """A function of pyjpegxl, whose errors become one line."""
    module = import_decoder("pyjpegxl", path)
    try:
        return getattr(module, name)(*args)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # damage may end in a panic of Rust, which is not an Exception
        raise damage_error(path, error) from error


def _build_metadata(found: Any) -> dict[str, Any]:
    """The profile, and what may be in compressed boxes."""
    kept = {
        "exif-data": exif.HEADER + found.exif.removeprefix(exif.HEADER) if found.exif else b"",
        "xmp-data": found.xmp if found.xmp and xmp.is_packet(found.xmp) else b"",
        "icc-profile-data": found.icc,
    }
    return {name: value for name, value in kept.items() if value}


def _parse_header(content: bytes) -> _Header:
    """What the header says; defaults for a damaged one."""
    try:
        return _parse_bits(_Bits(_find_codestream(content)))
    except (IndexError, ValueError):
        return _Header()


def _find_codestream(content: bytes) -> bytes:
    """The beginning of the codestream, which may be in boxes."""
    if content.startswith(b"\xff\x0a"):
        return content[:4096]
    for box in iterate_boxes(io.BytesIO(content)):
        if box.kind in (b"jxlc", b"jxlp"):
            start = box.start + (4 if box.kind == b"jxlp" else 0)
            return content[start : min(box.stop, start + 4096)]
    return b""


class _Bits:
    """Reads numbers of a few bits, the lowest first."""

    def __init__(self, content: bytes) -> None:
        self._value, self._left = int.from_bytes(content, "little"), 8 * len(content)

    def take(self, count: int) -> int:
        if count > self._left:
            raise IndexError("the header ends early")
        taken = self._value & (1 << count) - 1
        self._value >>= count
        self._left -= count
        return taken

    def choose(self, *options: tuple[int, int]) -> int:
        """U32 of the standard: two bits choose (offset, number of bits)."""
        offset, count = options[self.take(2)]
        return offset + self.take(count)


def _parse_bits(bits: _Bits) -> _Header:
    bits.take(16)
    _skip_size(bits)
    if bits.take(1):  # all values are the defaults
        return _Header()
    is_animated = False
    if bits.take(1):
        bits.take(3)  # orientation
        if bits.take(1):
            _skip_size(bits)
        if bits.take(1):
            raise ValueError("a preview")  # never seen in practice
        is_animated = bool(bits.take(1))
        if is_animated:
            return _Header(is_animated=True)
    _skip_depth(bits)
    bits.take(1)
    num_extra = bits.choose((0, 0), (1, 0), (2, 4), (1, 12))
    for _ in range(num_extra):
        _skip_extra_channel(bits)
    return _Header(num_extra=num_extra, is_lossy=bool(bits.take(1)))


def _skip_size(bits: _Bits) -> None:
    is_small = bits.take(1)

    def skip_side() -> None:
        if is_small:
            bits.take(5)
        else:
            bits.choose((1, 9), (1, 13), (1, 18), (1, 30))

    skip_side()
    if not bits.take(3):  # no fixed ratio
        skip_side()


def _skip_depth(bits: _Bits) -> None:
    if bits.take(1):  # floating point
        bits.choose((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
    else:
        bits.choose((8, 0), (10, 0), (12, 0), (1, 6))


def _skip_extra_channel(bits: _Bits) -> None:
    if bits.take(1):  # alpha of 8 bits
        return
    kind = bits.choose((0, 0), (1, 0), (2, 4), (18, 6))
    _skip_depth(bits)
    bits.choose((0, 0), (3, 0), (4, 0), (1, 3))
    bits.take(8 * bits.choose((0, 0), (0, 4), (16, 5), (48, 10)))
    if kind == 0:
        bits.take(1)
    elif kind == 2:
        bits.take(64)  # a spot color of four half-precision numbers
    elif kind == 6:
        bits.choose((1, 0), (0, 2), (3, 4), (19, 8))
