"""Writing DNG files, which every RAW program reads: camera mosaics and linear pictures.

Source: Adobe, "Digital Negative Specification" 1.4 (2012); EXIF 2.3 for the exposure.
"""

import io
import struct
import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import tifffile
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2
from tifffile import DATATYPE

from pellucid.errors import OutputError
from pellucid.pictures.camera import dng_tags
from pellucid.pictures.camera.packing import BAYER, XTRANS, find_phase
from pellucid.pictures.containers import tiff
from pellucid.pictures.picture import CameraFacts, Exposure, Mosaic, Picture
from pellucid.pictures.samples import Samples
from pellucid.system.files import write_atomic

MAX_EXIF_ISO = 65535
"""The ISO in EXIF that means this value or a higher one."""

ENCODING_BYTES = 8
"""Memory that `encode` needs for each pixel."""

Tag = tuple[str, DATATYPE, int, Any]
"""Tag of tifffile: name, type, count and value."""

_BYTE, _ASCII, _SHORT, _LONG = DATATYPE.BYTE, DATATYPE.ASCII, DATATYPE.SHORT, DATATYPE.LONG
_RATIONAL, _SRATIONAL = DATATYPE.RATIONAL, DATATYPE.SRATIONAL

_CFA, _LINEAR_RAW = 32803, 34892  # values of PhotometricInterpretation

# From XYZ to linear sRGB (IEC 61966-2-1), in ten-thousandths. Replaces the matrix of the camera, which is not
# known: colors are developed as if the filters were those of sRGB, under the light that is balanced to white.
_XYZ_TO_CAMERA = (32406, -15372, -4986, -9689, 18758, 415, 557, -2040, 10570)
_D65 = 21

_RECOMMENDED_EXPOSURE_INDEX = 2  # a value of SensitivityType

_KEPT_TEXTS = (Base.DateTimeOriginal, Base.LensMake, Base.LensModel)
_KEPT_NUMBERS = (
    *(Base.ExposureTime, Base.FNumber, Base.ISOSpeedRatings, Base.SensitivityType, Base.RecommendedExposureIndex),
    Base.FocalLength,
)


def write(mosaic: Mosaic, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a mosaic as a DNG file atomically; see `encode`.

    Raises OutputError if DNG cannot store the mosaic, if the suffix is not .dng, if the file exists and overwrite
    is False, or if it cannot be written.
    """
    path = _check_suffix(path)
    write_atomic(path, encode(mosaic), overwrite=overwrite)


def write_linear(picture: Picture, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a picture as a linear DNG file: three colors per pixel, still to be developed.

    picture: 16-bit RGB without alpha, with samples proportional to light, white at 65535, white balanced, and with
        the primaries of sRGB. Raises OutputError as `write` does.
    """
    path = _check_suffix(path)
    write_atomic(path, encode_linear(picture), overwrite=overwrite)


def encode(mosaic: Mosaic) -> bytes:
    """The content of an uncompressed DNG file of a 16-bit Bayer or X-Trans mosaic.

    Contains the samples, pattern, levels, white balance, exposure and orientation. With `Mosaic.camera`, it also
    contains the metadata of the file, and what a DNG contained about colors, corrections and crop; without it,
    from the metadata, the camera, lens, focal length and time.
    When reading it, LibRaw truncates black levels to integers, ignores ISO values from 65535 on, and refuses less
    than 22 x 22 px.
    Raises OutputError for other samples and patterns.
    """
    _check_mosaic(mosaic)
    if mosaic.camera is not None:
        return _encode_like_file(mosaic, mosaic.camera)
    maker, taken = _parse_metadata(mosaic.metadata)
    tags = [*_common_tags(maker), *_mosaic_tags(mosaic)]
    return _build_tiff(mosaic.samples, _CFA, tags, {**taken, **exposure_tags(mosaic.exposure)})


def _encode_like_file(mosaic: Mosaic, camera: CameraFacts) -> bytes:
    maker, _ = _parse_metadata(camera.metadata)
    colors = () if dng_tags.COLOR_MATRIX in camera.tags else _color_tags(camera.color_matrix)
    tags = [*_version_tags(), *_model_tag(maker), *colors, *_mosaic_tags(mosaic)]
    file = io.BytesIO(_build_main_tiff(mosaic.samples, _CFA, tags))
    tiff.write(file, {**camera.metadata, "tiff-tags": camera.tags}, {})
    return file.getvalue()


def find_camera(metadata: Mapping[str, Any]) -> str:
    """The name of the camera in EXIF, or ""."""
    return _parse_metadata(metadata)[0].get(Base.Model, "").strip()


def encode_linear(picture: Picture) -> bytes:
    """The content of an uncompressed linear DNG file; see `write_linear`."""
    if picture.dtype != "uint16" or picture.channels != 3 or picture.alpha is not None:
        raise OutputError(f"{picture} cannot be written as linear DNG; 16-bit RGB without alpha is needed")
    maker, taken = _parse_metadata(picture.metadata)
    tags = [*_common_tags(maker), _as_shot_neutral((1, 1, 1)), ("WhiteLevel", _LONG, 3, (65535,) * 3)]
    return _build_tiff(picture.samples, _LINEAR_RAW, tags, taken)


def exposure_tags(exposure: Exposure) -> dict[int, Any]:
    """The known values of an exposure, by EXIF tag."""
    tags: dict[int, Any] = {}
    if exposure.time_s is not None:
        tags[Base.ExposureTime] = IFDRational(*as_ratio(exposure.time_s))
    if exposure.f_number is not None:
        tags[Base.FNumber] = IFDRational(*as_ratio(exposure.f_number))
    if exposure.iso is not None:
        tags |= _iso_tags(min(round(exposure.iso), 2**32 - 1))
    return tags


def as_ratio(value: float) -> tuple[int, int]:
    """Numerator and denominator of at most 32 bits, exact to 6 digits or better."""
    if 0 < value < 1:
        numerator, denominator = as_ratio(1 / value)
        return denominator, numerator
    fraction = Fraction(min(value, 2**31)).limit_denominator(max(1, min(10**6, int(2**31 / max(value, 1)))))
    return fraction.numerator, fraction.denominator


def _check_suffix(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix.lower() != ".dng":
        raise OutputError(f"{path} does not end in .dng; RAW files are only written as DNG")
    return path


def _check_mosaic(mosaic: Mosaic) -> None:
    if mosaic.samples.dtype != np.uint16:
        raise OutputError(f"a mosaic of {mosaic.samples.dtype} cannot be written as DNG; uint16 is needed")
    if find_phase(mosaic.pattern, BAYER) is None and find_phase(mosaic.pattern, XTRANS) is None:
        raise OutputError(
            f"a mosaic with the filters {'/'.join(mosaic.pattern)} cannot be written as DNG; "
            f"Bayer or X-Trans is needed"
        )
    black = mosaic.site_black_levels
    if black.min() < 0 or mosaic.white_level > 65535:
        raise OutputError(f"levels from {black.min():g} to {mosaic.white_level:g} cannot be written as 16-bit DNG")
    if mosaic.period > 2 and black.min() != black.max():
        # LibRaw's Python binding gives one level per color, so `raw.read` would get other levels.
        raise OutputError(
            f"black levels from {black.min():g} to {black.max():g}; a DNG of X-Trans has one for all pixels"
        )


def _common_tags(maker: Mapping[int, str]) -> list[Tag]:
    return [
        *(_ascii(Base(tag).name, name) for tag, name in maker.items()),
        *_version_tags(),
        *_model_tag(maker),
        *_color_tags(()),
    ]


def _version_tags() -> list[Tag]:
    return [("DNGVersion", _BYTE, 4, (1, 4, 0, 0)), ("DNGBackwardVersion", _BYTE, 4, (1, 1, 0, 0))]


def _model_tag(maker: Mapping[int, str]) -> list[Tag]:
    return [_ascii("UniqueCameraModel", " ".join(maker.values()) or "pellucid")]


def _color_tags(matrix: Sequence[float]) -> list[Tag]:
    """matrix: see `CameraFacts.color_matrix`; that of sRGB if it is not known."""
    ratios = [round(10_000 * value) for value in matrix] if matrix else _XYZ_TO_CAMERA
    return [
        ("ColorMatrix1", _SRATIONAL, 9, [part for value in ratios for part in (value, 10_000)]),
        ("CalibrationIlluminant1", _SHORT, 1, _D65),
    ]


def _mosaic_tags(mosaic: Mosaic) -> list[Tag]:
    period = mosaic.period
    colors = bytes("RGB".index(color) for row in mosaic.pattern for color in row)
    black = [part for level in mosaic.site_black_levels.flat for part in as_ratio(float(level))]
    tags: list[Tag] = [
        ("Orientation", _SHORT, 1, mosaic.orientation),
        ("CFARepeatPatternDim", _SHORT, 2, (period, period)),
        ("CFAPattern", _BYTE, len(colors), colors),
        ("CFAPlaneColor", _BYTE, 3, (0, 1, 2)),
        ("CFALayout", _SHORT, 1, 1),
        ("BlackLevelRepeatDim", _SHORT, 2, (period, period)),
        ("BlackLevel", _RATIONAL, period**2, black),
        ("WhiteLevel", _LONG, 1, round(mosaic.white_level)),
    ]
    return tags if mosaic.white_balance is None else [*tags, _as_shot_neutral(mosaic.white_balance)]


def _as_shot_neutral(gains: Sequence[float]) -> Tag:
    """The camera's colors of a white surface: the reciprocals of the gains."""
    return "AsShotNeutral", _RATIONAL, 3, [part for gain in gains for part in as_ratio(1 / gain)]


def _ascii(name: str, text: str) -> Tag:
    return name, _ASCII, 0, text


def _iso_tags(iso: int) -> dict[int, Any]:
    """EXIF 2.3, 4.6.5: from 65535 on, the tag has that value, and another tag has the real one."""
    if iso < MAX_EXIF_ISO:
        return {Base.ISOSpeedRatings: iso}
    return {
        Base.ISOSpeedRatings: MAX_EXIF_ISO,
        Base.SensitivityType: _RECOMMENDED_EXPOSURE_INDEX,
        Base.RecommendedExposureIndex: iso,
    }


def _parse_metadata(metadata: Mapping[str, Any]) -> tuple[dict[int, str], dict[int, Any]]:
    """The EXIF to keep: (make and model, tags about the exposure)."""
    exif = PIL.Image.Exif()
    with warnings.catch_warnings(action="ignore"):
        try:
            exif.load(metadata.get("exif-data", b""))
            maker: dict[int, str] = {tag: _to_ascii(exif[tag]) for tag in (Base.Make, Base.Model) if tag in exif}
            taken = exif.get_ifd(IFD.Exif)
            kept: dict[int, Any] = {tag: taken[tag] for tag in _KEPT_TEXTS if isinstance(taken.get(tag), str)}
            kept |= {tag: taken[tag] for tag in _KEPT_NUMBERS if isinstance(taken.get(tag), int | IFDRational)}
        except (SyntaxError, ValueError, TypeError, KeyError, struct.error):
            return {}, {}  # damaged EXIF must not prevent writing the picture
    return maker, kept


def _to_ascii(value: object) -> str:
    """TIFF stores 7-bit text only."""
    return str(value).encode("ascii", "replace").decode()


def _build_tiff(samples: Samples, photometric: int, tags: Sequence[Tag], taken: Mapping[int, Any]) -> bytes:
    """A TIFF of one picture, followed by the EXIF directory, which tifffile does not write."""
    exif = ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    exif.update(taken)
    start = len(_build_main_tiff(samples, photometric, [*tags, ("ExifTag", _LONG, 1, 0)]))
    content = _build_main_tiff(samples, photometric, [*tags, ("ExifTag", _LONG, 1, start)])
    return content + exif.tobytes(start)


def _build_main_tiff(samples: Samples, photometric: int, tags: Sequence[Tag]) -> bytes:
    content = io.BytesIO()
    tifffile.imwrite(
        content,
        np.ascontiguousarray(samples, "<u2"),
        byteorder="<",
        photometric=photometric,
        rowsperstrip=samples.shape[0],
        metadata=None,
        software="pellucid",
        extratags=[(*tag, True) for tag in tags],
    )
    return content.getvalue()
