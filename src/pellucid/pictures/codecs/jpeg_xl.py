"""JPEG XL, by libjxl in the package pyjpegxl: any depth, gray and color, transparency and ICC profiles."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import OutputError, PictureError
from pellucid.pictures import associated_alpha
from pellucid.pictures.codecs import jpeg_xl_header
from pellucid.pictures.codecs.decoders import (
    check_finite,
    check_size,
    count_not_finite,
    damage_error,
    import_decoder,
    summarize,
)
from pellucid.pictures.containers import bmff
from pellucid.pictures.picture import Encoding, Picture
from pellucid.pictures.records import exif, icc, xmp
from pellucid.pictures.samples import Samples
from pellucid.pictures.structures.boxes import iterate_boxes
from pellucid.pictures.white import change_samples
from pellucid.system.optional_packages import import_optional
from pellucid.system.wording import format_count

BYTES_PER_PIXEL = 30
ENCODING_BYTES_PER_PIXEL = 40
"""Memory to decode and to encode a pixel, measured with 16 bits and three channels."""

_DISTANCE = 1.0
"""Butteraugli distance of lossy files: no visible difference. A file does not store its own."""

_SRGB_LINEAR_END = 0.0031308
"""Light up to which samples of sRGB are proportional to it. Source: IEC 61966-2-1."""

_ROUNDING = 0.002
"""How far light may be outside of 0 to 1 by lossy compression: half a level of 8 bits."""

_USUAL_NITS = 255.0
"""Brightness of white on the screen that a file is made for, unless it is HDR."""

_LOSSY_SPEEDS = ("Squirrel",)
_LOSSLESS_SPEEDS = {
    "uint8": ("Falcon",),
    "uint16": ("Falcon",),
    "float32": ("Cheetah", "Wombat", "Squirrel", "Kitten"),
}
"""From fast to slow: libjxl has speeds that cannot encode some floating-point samples below 0."""

_DTYPES = ("uint8", "uint16", "float32")


def probe_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header."""
    found = _call(path, "probe", _read_own_bytes(path))
    return found.width, found.height


def read(path: Path, encoding: Encoding, max_pixels: int) -> Picture:
    """Read a file. libjxl applies the orientation. Raises PictureError."""
    content = _read_own_bytes(path)
    probed = _call(path, "probe", content)
    check_size(probed.width, probed.height, path, max_pixels)
    header = jpeg_xl_header.parse_jxl_header(content)
    if header.is_animated:
        raise PictureError(
            f"{path} is an animated JPEG XL", hint="restore its frames one by one, e.g. after `djxl`"
        )
    if probed.num_color_channels not in (1, 3):
        raise PictureError(f"{path} has {probed.num_color_channels} colors (CMYK); gray or RGB is needed")
    notes = encoding.notes
    if header.num_extra > bool(probed.has_alpha):
        notes += (f"{header.num_extra - bool(probed.has_alpha)} extra channels are not kept",)
    if probed.intensity_target not in (0, _USUAL_NITS):
        notes += (f"not kept: the intensity target of {probed.intensity_target:g} nits",)
    is_linear = header.is_lossy and header.has_profile
    # By default, samples of 16 bits become integers, which end at white.
    options = {"dtype": "float32"} if header.float_bits or is_linear else {}
    if header.float_bits not in (0, 32):
        notes += (f"{header.float_bits}-bit floating-point samples become 32-bit",)
    found, samples = _call(path, "decode_to_numpy", content, **options)
    if samples.dtype.name not in _DTYPES:
        raise PictureError(f"{path} has samples of type {samples.dtype}; {', '.join(_DTYPES)} are supported")
    num_colors = found.num_color_channels
    alpha = samples[..., num_colors : num_colors + 1] if found.has_alpha else None
    check_finite(count_not_finite(samples), path)
    picture = Picture(
        np.array(samples[..., :num_colors]),
        None if alpha is None else np.ascontiguousarray(alpha),
        _build_metadata(found),
        replace(
            encoding,
            bits=32 if header.float_bits else probed.bits_per_sample,
            lossless=not header.is_lossy,
            notes=notes,
        ),
    )
    picture = _to_srgb(picture) if is_linear else picture
    return associated_alpha.divide(picture) if alpha is not None and header.is_associated else picture


def _read_own_bytes(path: Path) -> bytes:
    """The file without an appended video, whose boxes libjxl would take for damaged ones of its own."""
    content = path.read_bytes()
    boxes = [*iterate_boxes(io.BytesIO(content))] if content.startswith(b"\0\0\0\x0c") else []
    starts = [box.start - 8 for box in boxes if box.kind == b"ftyp"]
    return content[: starts[1]] if len(starts) > 1 else content


def _to_srgb(picture: Picture) -> Picture:
    """A lossy picture with an ICC profile, in sRGB with the depth of its file, with a note.

    libjxl stores the colors independently of the profile, and without a color engine it returns linear light with
    the primaries of sRGB. Other colors than those of sRGB are below 0 or above 1 there.
    """
    encoding, num_outside = picture.encoding, 0
    assert encoding is not None
    is_float = encoding.bits == 32

    def to_srgb(light: Samples) -> Samples:
        nonlocal num_outside
        num_outside += int(((light < -_ROUNDING) | (light > 1 + _ROUNDING)).any(axis=2).sum())
        values = np.abs(light) if is_float else np.clip(light, 0, 1)
        curved = 1.055 * np.maximum(values, _SRGB_LINEAR_END) ** np.float32(1 / 2.4) - 0.055
        return np.copysign(np.where(values <= _SRGB_LINEAR_END, 12.92 * values, curved), light)

    change_samples(picture.samples, to_srgb)
    note = "colors converted from an ICC profile to sRGB"
    if num_outside and not is_float:
        note += f"; those of {format_count(num_outside, 'pixel')}, which sRGB does not have, are clipped"
    metadata = {name: value for name, value in picture.metadata.items() if name != "icc-profile-data"}
    encoding = replace(encoding, notes=(*encoding.notes, note))
    return replace(picture, metadata=metadata, encoding=encoding).as_depth(
        "float32" if is_float else "uint16" if encoding.bits > 8 else "uint8"
    )


def encode_jxl(picture: Picture, path: Path, quality: int | None) -> tuple[bytes, tuple[str, ...]]:
    """The content of a file, and what is not kept. path: for errors.

    Lossless, unless the picture comes from a lossy JPEG XL, or a quality is given. Lossy files store colors of
    their own, into which libjxl converts from sRGB: pictures in other colors are lossless nevertheless.
    """
    original = picture.encoding
    was_lossy = original is not None and original.format == "JPEG XL" and not original.lossless
    profile = _find_profile(picture)
    is_lossy = quality is not None or was_lossy
    missing: tuple[str, ...] = ()
    if is_lossy and profile and (picture.dtype == "float32" or not icc.is_srgb(profile)):
        is_lossy, missing = False, ("lossy compression, because the colors are not sRGB",)
    distance = _DISTANCE if quality is None else _to_distance(quality)
    content = _encode(picture, path, is_lossy=is_lossy, distance=distance)
    if exif.contradicts(picture.metadata.get("exif-data", b""), picture.metadata):
        missing += ("the resolution, because EXIF states another one",)
    if profile and not is_lossy:
        content = jpeg_xl_header.put_profile(content, profile)
    return bmff.put_into_jxl(content, picture.metadata), missing


def _encode(picture: Picture, path: Path, *, is_lossy: bool, distance: float) -> bytes:
    """The codestream. distance: of lossy ones. Raises OutputError."""
    module = import_optional("pyjpegxl")
    samples = np.ascontiguousarray(np.concatenate(picture.planes, axis=2))
    speeds = _LOSSY_SPEEDS if is_lossy else _LOSSLESS_SPEEDS[picture.dtype]
    for speed in speeds:
        try:
            options = {"lossless": not is_lossy, "speed": getattr(module.EncoderSpeed, speed), "quality": distance}
            return bytes(module.encode_from_numpy(samples, **options))
        except (RuntimeError, ValueError) as error:
            if speed == speeds[-1]:
                reason = summarize(error).split(" Please ")[0]
                raise OutputError(f"{path} cannot be written as JPEG XL: {reason}") from error
    raise AssertionError("there is at least one speed")


def _find_profile(picture: Picture) -> bytes:
    """The ICC profile, unless it is for other channels."""
    profile: bytes = picture.metadata.get("icc-profile-data", b"")
    return profile if icc.num_channels(profile) == picture.samples.shape[2] else b""


def _to_distance(quality: int) -> float:
    """libjxl's distance for a quality of JPEG, as in its JxlEncoderDistanceFromQuality."""
    if quality >= 30:
        return max(0.01, 0.1 + (100 - quality) * 0.09)
    return min(25.0, 53 / 3000 * quality**2 - 23 / 20 * quality + 25)


def _call(path: Path, name: str, *args: Any, **options: Any) -> Any:
    """A function of pyjpegxl, whose errors become one line."""
    module = import_decoder("pyjpegxl", path)
    try:
        return getattr(module, name)(*args, **options)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # damage may end in a panic of Rust, which is not an Exception
        raise damage_error(path, error) from error


def _build_metadata(found: Any) -> dict[str, Any]:
    """The profile, and what may be in compressed boxes."""
    kept = {
        "exif-data": exif.parse_exif_box(found.exif) if found.exif else b"",
        "xmp-data": found.xmp if found.xmp and xmp.is_packet(found.xmp) else b"",
        "icc-profile-data": found.icc,
    }
    return {name: value for name, value in kept.items() if value}
