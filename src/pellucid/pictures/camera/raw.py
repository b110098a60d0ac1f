"""Reading camera RAW files by LibRaw, as a mosaic or as a developed picture."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import rawpy
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational

from pellucid.errors import OutputError, PictureError
from pellucid.pictures import metadata
from pellucid.pictures.camera import dng, dng_tags, raw_data, raw_metadata
from pellucid.pictures.camera.packing import BAYER, XTRANS, find_phase
from pellucid.pictures.camera.raw_contents import describe_raw_contents
from pellucid.pictures.picture import CameraFacts, Encoding, Exposure, Mosaic, Picture
from pellucid.pictures.samples import Samples
from pellucid.system.files import read_head, to_picture_path
from pellucid.system.processes import ForkGuard
from pellucid.system.wording import format_count

MAX_PIXELS = 500_000_000
"""Files with more pixels are refused before decoding. The largest sensors have 150 million."""

# As for the ground truth of Chen et al., "Learning to See in the Dark", CVPR 2018. The rest is LibRaw's defaults:
# sRGB primaries, the tone curve of BT.709, orientation applied.
_DEVELOPMENT: dict[str, Any] = {
    "use_camera_wb": True,
    "half_size": False,
    "no_auto_bright": True,
    "output_bps": 16,
}

# LibRaw's flip -> EXIF orientation: 1 mirrors columns, 2 mirrors rows, 4 transposes before.
_ORIENTATIONS = {0: 1, 1: 2, 3: 3, 2: 4, 4: 5, 6: 6, 7: 7, 5: 8}

# Side of the smallest block that contains both periods, 2 and 6, twice.
_PATTERN_CHECK_PX = 12

_BLANK_PX = 8
"""How many neighbors in a row have to be 0 for samples that are missing, not dead pixels."""


_DEVELOPED = "camera RAW developed by LibRaw: 16 bit, camera white balance, sRGB"

_FORK_GUARD = ForkGuard("RAW files cannot be read")  # hangs in OpenMP, with LibRaw 0.22


def read(path: str | Path, *, max_pixels: int = MAX_PIXELS, sidecar: bytes = b"") -> Mosaic:
    """The mosaic of a Bayer or X-Trans RAW file: uint16, the visible part of the sensor, orientation not applied.

    The white level is the maximum of the file format or sensor, one for all colors; the slightly lower limits of
    linearity that some cameras store for each color are not used. Each filter color has its own black level, also
    the two greens of a Bayer pattern.

    sidecar: XMP that takes precedence over that in the file, e.g. of `sidecars.read`.
    Raises PictureError if the file is missing, damaged, not a RAW file, larger than max_pixels, or not a Bayer or
    X-Trans mosaic.
    """
    path = to_picture_path(path)
    with _open(path, max_pixels) as raw:
        _unpack(raw, path)
        return _add_camera(_to_mosaic(raw, *_read_metadata(raw, path, sidecar)), raw, path, sidecar)


def develop(
    path: str | Path, *, upright: bool = True, max_pixels: int = MAX_PIXELS, sidecar: bytes = b""
) -> Picture:
    """A camera RAW file developed by LibRaw: 16-bit RGB with the white balance of the camera.

    Also reads linear DNG and sensors without a mosaic. The brightness is that of the exposure. Colors are sRGB
    with the tone curve of BT.709: LibRaw's defaults, as used by Chen et al. 2018 for their ground truth.

    upright: apply the orientation; False keeps the orientation of the sensor, as in mosaics.
    sidecar: XMP that takes precedence over that in the file, e.g. of `sidecars.read`.
    Raises PictureError if the file is missing, damaged, not a RAW file, or larger than max_pixels.
    """
    path = to_picture_path(path)
    with _open(path, max_pixels) as raw:
        _unpack(raw, path)
        return _develop(raw, *_read_metadata(raw, path, sidecar), upright=upright)


def decoding_bytes(path: str | Path, *, developed: bool, max_pixels: int = MAX_PIXELS) -> int:
    """The memory that `develop` (developed=True) or `read` needs in addition to a constant, from the header.

    Measured on a DNG of 24 megapixels: 16 bytes per pixel to develop, 6 to read. Raises their PictureErrors.
    """
    return (16 if developed else 6) * probe_pixels(path, max_pixels=max_pixels)


def probe_pixels(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> int:
    """Number of pixels of the mosaic, from the header. Raises the PictureErrors of `read`."""
    with _open(to_picture_path(path), max_pixels) as raw:
        return raw.sizes.raw_width * raw.sizes.raw_height


def develop_mosaic(mosaic: Mosaic, *, keeps_white: bool = False) -> Picture:
    """A mosaic developed in the same way as `develop` does for files, ignoring its exposure_ratio.

    Filter colors are assumed to be those of sRGB.
    keeps_white: use the white level of the mosaic even if its brightest sample is below, which LibRaw otherwise
        makes white. The brightness of mosaics with different noise is then the same.
    Raises PictureError for what LibRaw cannot develop: samples other than uint16, and sides below 22 px, or below
    512 px for X-Trans.
    """
    least_px = 22 if mosaic.period == 2 else 512
    if min(mosaic.width, mosaic.height) < least_px:
        raise PictureError(
            f"a mosaic of {mosaic.width} x {mosaic.height} px; LibRaw needs at least {least_px} x {least_px}"
        )
    try:
        content = dng.encode(replace(mosaic, camera=None))
    except OutputError as error:
        raise PictureError(error.facts) from error
    with _libraw("the mosaic") as raw:
        raw.open_buffer(io.BytesIO(content))
        raw.unpack()
        return _develop(raw, mosaic.metadata, keeps_white=keeps_white)


def read_frame(
    path: str | Path,
    width: int,
    height: int,
    *,
    pattern: tuple[str, ...] = BAYER,
    black_level: float | tuple[tuple[float, ...], ...],
    white_level: float,
    white_balance: tuple[float, float, float] | None = None,
    exposure: Exposure | None = None,
) -> Mosaic:
    """The mosaic in a file without a header: uint16, little-endian, row by row.

    The other parameters are those of `Mosaic`. Raises PictureError if the size of the file does not match width
    and height, or if the parameters do not fit together.
    """
    path = to_picture_path(path)
    if width < 1 or height < 1:
        raise PictureError(f"a frame of {width} x {height} px; at least 1 x 1 is needed")
    read_head(path)
    num_bytes, expected = path.stat().st_size, 2 * width * height
    if num_bytes != expected:
        raise PictureError(
            f"{path} has {format_count(num_bytes, 'byte')}; {width} x {height} samples of 16 bit take {expected}",
            hint="check width and height",
        )
    samples = np.fromfile(path, "<u2").reshape(height, width).astype(np.uint16, copy=False)
    return Mosaic(
        samples,
        pattern,
        black_level,
        white_level,
        white_balance=white_balance,
        exposure=exposure or Exposure(),
    )


@contextmanager
def _open(path: Path, max_pixels: int) -> Iterator[rawpy.RawPy]:
    """A file opened by LibRaw, with nothing decoded yet. Raises PictureError if it has more than max_pixels."""
    read_head(path)
    with _libraw(path) as raw:
        raw.open_file(str(path))
        _check_size(raw.sizes, max_pixels)
        yield raw


@contextmanager
def _libraw(name: object) -> Iterator[rawpy.RawPy]:
    """LibRaw, whose errors become a one-line PictureError that starts with the name."""
    _FORK_GUARD.check(PictureError)
    with rawpy.RawPy() as raw:
        try:
            yield raw
        except PictureError as error:
            raise error.about(name) from error
        except UnicodeEncodeError as error:
            raise PictureError(f"{name!r} is not a file name in UTF-8", hint="rename it") from error
        except rawpy.LibRawFileUnsupportedError as error:
            raise PictureError(
                f"{name} is not a camera RAW file that LibRaw supports", hint="convert it to an uncompressed DNG"
            ) from error
        except (rawpy.LibRawTooBigError, rawpy.LibRawUnsufficientMemoryError) as error:
            raise PictureError(f"{name} needs more memory than LibRaw allows, or is damaged") from error
        except (rawpy.LibRawError, OSError, RuntimeError, ValueError, OverflowError) as error:
            raise PictureError(
                f"{name} is damaged, truncated or of an unsupported type ({_reason(error)})",
                hint="copy it from the camera again",
            ) from error


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else "unknown reason"
    return reason.decode() if isinstance(reason, bytes) else str(reason)


def _check_size(sizes: rawpy.ImageSizes, max_pixels: int) -> None:
    num_pixels = sizes.raw_width * sizes.raw_height
    if num_pixels > max_pixels:
        raise PictureError(
            f"{sizes.raw_width} x {sizes.raw_height} = {num_pixels:,} pixels; at most {max_pixels:,} are allowed",
            hint="{max_pixels} allows it",
            max_pixels=num_pixels,
        )


def _unpack(raw: rawpy.RawPy, path: Path) -> None:
    """Decode the samples. Raises PictureError if some are missing, which LibRaw does not report."""
    raw_data.check_complete(path)
    raw.unpack()


def _to_mosaic(raw: rawpy.RawPy, found: Mapping[str, Any], notes: tuple[str, ...]) -> Mosaic:
    if raw.raw_type is not rawpy.RawType.Flat:
        raise PictureError(
            "several colors at every pixel (linear DNG, sRAW, pixel shift or Foveon) instead of a mosaic",
            hint="use a recipe that takes pictures",
        )
    indices, pattern = _find_pattern(raw)
    aspect = raw.sizes.pixel_aspect
    if aspect != 1:
        notes = (*notes, f"not kept: the shape of the pixels ({aspect:g}:1)")
    levels = [[float(raw.black_level_per_channel[index]) for index in row] for row in indices]
    return Mosaic(
        raw.raw_image_visible.copy(),
        pattern,
        levels[0][0] if np.ptp(levels) == 0 else tuple(map(tuple, levels)),
        float(raw.white_level),
        metadata=found,
        white_balance=_read_white_balance(raw),
        exposure=_read_exposure(raw),
        orientation=_ORIENTATIONS.get(raw.sizes.flip, 1),
        notes=notes,
        warnings=_find_blank(raw),
    )


def _add_camera(mosaic: Mosaic, raw: rawpy.RawPy, path: Path, sidecar: bytes) -> Mosaic:
    """The mosaic with what else the file contains, for writing it as DNG."""
    with path.open("rb") as file:
        found, _ = raw_metadata.read(
            file,
            read_preview=partial(_read_preview, raw),
            known=_build_exif(raw),
            sidecar=sidecar,
            developed=False,
        )
        tags, noise, lost = dng_tags.read(file, mosaic.width, mosaic.height)
    matrix = () if dng_tags.COLOR_MATRIX in tags else _read_matrix(raw)
    notes = (*mosaic.notes, *([f"not kept: {', '.join(lost)}"] if lost else []))
    camera = CameraFacts(dng.find_camera(found), matrix, tags, found)
    return replace(mosaic, camera=camera, noise=noise, notes=notes)


def _read_matrix(raw: rawpy.RawPy) -> tuple[float, ...]:
    """From XYZ to the camera's colors; () for cameras that LibRaw does not know."""
    matrix = raw.rgb_xyz_matrix[:3]
    return tuple(float(value) for value in matrix.flat) if matrix.any() else ()


def _develop(
    raw: rawpy.RawPy,
    found: Mapping[str, Any],
    notes: tuple[str, ...] = (),
    *,
    upright: bool = True,
    keeps_white: bool = False,
) -> Picture:
    black = max(raw.black_level_per_channel[: raw.num_colors])
    if 0 < raw.white_level <= black:
        raise PictureError(f"black level {black:g} is not below the white level {raw.white_level:g}")
    others: dict[str, Any] = {} if upright else {"user_flip": 0}
    if keeps_white:
        others["adjust_maximum_thr"] = 0.0
    encoding = Encoding("camera RAW", 16, notes=(_DEVELOPED, *notes), warnings=_find_blank(raw))
    return Picture(raw.postprocess(**_DEVELOPMENT, **others), metadata=found, encoding=encoding)


def _find_blank(raw: rawpy.RawPy) -> tuple[str, ...]:
    """A warning if parts of rows contain nothing, as in a file that was copied incompletely.

    Only if the sensor has a black level: because of noise, neighbors are never all 0 then.
    """
    samples: Samples = raw.raw_image_visible
    if min(raw.black_level_per_channel[: raw.num_colors]) <= 0 or samples.shape[1] < _BLANK_PX:
        return ()
    height, width = samples.shape[0], samples.shape[1] // _BLANK_PX
    part = np.mean(~samples[:, : width * _BLANK_PX].reshape(height, width, -1).any(2))
    if part == 0:
        return ()
    return (
        f"{100 * part:.2g} % of the samples are 0 like their neighbors, less than black; the file may be damaged",
    )


def _find_pattern(raw: rawpy.RawPy) -> tuple[list[list[int]], tuple[str, ...]]:
    """(LibRaw's color indices, colors) of the repeating block of the visible part."""
    top, left = raw.sizes.top_margin, raw.sizes.left_margin
    # Not raw_pattern, which starts at the margin, and for X-Trans reads outside of LibRaw's table if the margin is
    # not a multiple of 6.
    sites = range(_PATTERN_CHECK_PX)
    seen = np.array([[raw.raw_color(top + row, left + col) for col in sites] for row in sites])
    names = raw.color_desc.decode("ascii", "replace")
    if raw.num_colors == 1 or seen.max() >= len(names):
        raise PictureError("a sensor without color filters", hint="use a recipe that takes pictures")
    if not {names[index] for index in seen.flat} <= set("RGB"):
        raise PictureError(f"a sensor with other filters than R, G and B ({names}); Bayer or X-Trans is needed")
    for period, known in ((2, BAYER), (6, XTRANS)):
        block = seen[:period, :period]
        pattern = tuple("".join(names[index] for index in row) for row in block)
        if (np.tile(block, (_PATTERN_CHECK_PX // period,) * 2) == seen).all() and find_phase(
            pattern, known
        ) is not None:
            return block.tolist(), pattern
    raise PictureError("a sensor with another arrangement of filters; Bayer or X-Trans is needed")


def _read_white_balance(raw: rawpy.RawPy) -> tuple[float, float, float] | None:
    red, green, blue, _ = raw.camera_whitebalance
    if not green > 0:
        return None
    gains = (_round_known(red / green), 1.0, _round_known(blue / green))
    return None if gains[0] is None or gains[2] is None else (gains[0], 1.0, gains[2])


def _read_exposure(raw: rawpy.RawPy) -> Exposure:
    other = raw.other
    iso = _round_known(other.iso_speed)
    return Exposure(
        time_s=_round_known(other.shutter_speed),
        iso=None if iso == dng.MAX_EXIF_ISO else iso,
        f_number=_round_known(other.aperture),
    )


def _round_known(value: float) -> float | None:
    """A number with the 7 digits of LibRaw's single precision; None if LibRaw does not know it."""
    shortest = float(f"{value:.7g}")
    return shortest if isfinite(shortest) and shortest > 0 else None


def _read_metadata(raw: rawpy.RawPy, path: Path, sidecar: bytes) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(what the file says about the picture, notes about what is not kept), true for the upright picture."""
    with path.open("rb") as file:
        found, dropped = raw_metadata.read(
            file, read_preview=partial(_read_preview, raw), known=_build_exif(raw), sidecar=sidecar
        )
        ignored = describe_raw_contents(file)
    orientation = _ORIENTATIONS.get(raw.sizes.flip, 1)
    size = raw.sizes.width, raw.sizes.height
    upright = size[::-1] if orientation > 4 else size
    adapted, removed = metadata.adapt(found, orientation=orientation, before=size, after=upright)
    missing = (*dropped, *removed)
    return adapted, (*ignored, *([f"not kept: {', '.join(missing)}"] if missing else []))


def _read_preview(raw: rawpy.RawPy) -> bytes:
    """The largest JPEG in the file; b"" if there is none."""
    try:
        preview = raw.extract_thumb()
    except (rawpy.LibRawError, NotImplementedError):  # no preview, or one in a form that rawpy does not know
        return b""
    return bytes(preview.data) if preview.format is rawpy.ThumbFormat.JPEG else b""


def _build_exif(raw: rawpy.RawPy) -> bytes:
    """What LibRaw found out about the exposure."""
    taken = {**dng.exposure_tags(_read_exposure(raw)), **_lens_tags(raw)}
    if raw.other.timestamp.timestamp() > 0:
        taken[Base.DateTimeOriginal] = f"{raw.other.timestamp:%Y:%m:%d %H:%M:%S}"
    exif = PIL.Image.Exif()
    exif[IFD.Exif] = taken
    return exif.tobytes()


def _lens_tags(raw: rawpy.RawPy) -> dict[int, Any]:
    named = {Base.LensMake: raw.lens.make.strip(), Base.LensModel: raw.lens.model.strip()}
    tags: dict[int, Any] = {tag: name for tag, name in named.items() if name}
    focal_mm = _round_known(raw.other.focal_length)
    if focal_mm is not None:
        tags[Base.FocalLength] = IFDRational(*dng.as_ratio(focal_mm))
    return tags
