"""Camera RAW files, read by LibRaw: the mosaic for networks that take it, a developed picture for the others."""

import io
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from math import isfinite, sqrt
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import rawpy
from numpy.typing import NDArray
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational

from pellucid.errors import OutputError, PictureError
from pellucid.pictures import dng
from pellucid.pictures.packing import BAYER, XTRANS, phase
from pellucid.pictures.picture import Exposure, Mosaic, Picture, Samples
from pellucid.system.files import read_head
from pellucid.system.processes import OneProcess

MAX_PIXELS = 500_000_000
"""A header that promises more is refused before anything is decoded. The largest sensors have 150 million."""

MAX_EXPOSURE_RATIO = 300.0
"""Where Chen et al. cut the ratio of two exposures, "Learning to See in the Dark", CVPR 2018."""

# As Chen et al. made their ground truth. LibRaw adds its defaults: the primaries of sRGB, the tone curve
# of BT.709, turned upright.
_DEVELOPMENT: dict[str, Any] = {
    "use_camera_wb": True,
    "half_size": False,
    "no_auto_bright": True,
    "output_bps": 16,
}

# LibRaw's flip: 1 mirrors columns, 2 rows, and 4 transposes before.
_ORIENTATIONS = {0: 1, 1: 2, 3: 3, 2: 4, 4: 5, 6: 6, 7: 7, 5: 8}

# The smallest block that holds both periods, 2 and 6, twice.
_LOOKED_AT_PX = 12
_SRGB = 1  # what ColorSpace says

_BRIGHTNESS = 0.4
"""Mean of a normal photograph's luminance after gamma."""
_GAMMA = 2.2
_BRIGHT = 90
"""Percentile of the luminances that shall not pass white."""
_NUM_CELLS = 400
_TRIMMED = 0.02
_LUMA = {"R": 0.2126, "G": 0.7152, "B": 0.0722}  # BT.709

_PROCESS = OneProcess("RAW files cannot be read")  # OpenMP; seen with LibRaw 0.22


def read(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Mosaic:
    """The mosaic of a camera RAW file, Bayer or X-Trans: uint16, what of the sensor is to be seen, not turned.

    The levels are the file's. White is one for all colors: where the file format or the sensor ends; some cameras
    also say where each color leaves the straight line, which is a little lower and no end of the samples. Black is
    one for each color and green, as LibRaw's binding gives it.
    Raises PictureError when the file is missing, damaged, no RAW file, larger than max_pixels, or no Bayer or
    X-Trans mosaic.
    """
    path = Path(path)
    with _opened(path, max_pixels) as raw:
        raw.unpack()
        return _mosaic(raw, _metadata(raw, _maker_in(path)))


def develop(path: str | Path, *, upright: bool = True, max_pixels: int = MAX_PIXELS) -> Picture:
    """A camera RAW file developed by LibRaw: RGB of 16 bit, in the white balance of the camera.

    Also linear DNG and sensors that are no mosaic. Brightness stays as the camera exposed it. Colors are sRGB with
    the tone curve of BT.709: LibRaw's defaults, as Chen et al. 2018 used them for their ground truth.

    upright: turned as the camera was held; else as the sensor lay, as mosaics are.
    Raises PictureError when the file is missing, damaged, no RAW file, or larger than max_pixels.
    """
    path = Path(path)
    with _opened(path, max_pixels) as raw:
        raw.unpack()
        return _developed(raw, _metadata(raw, _maker_in(path)), upright=upright)


def decoding_bytes(path: str | Path, *, developed: bool, max_pixels: int = MAX_PIXELS) -> int:
    """How much memory `develop`, or else `read`, takes beyond a constant, after a look at the header.

    Measured on a DNG of 24 megapixels: 16 bytes a pixel to develop, 6 to read. Raises PictureError as they do.
    """
    with _opened(Path(path), max_pixels) as raw:
        return (16 if developed else 6) * raw.sizes.raw_width * raw.sizes.raw_height


def develop_mosaic(mosaic: Mosaic) -> Picture:
    """A mosaic developed as `develop` does with files; exposure_ratio does not count.

    The colors are those of a camera whose filters are sRGB's: the mosaic does not say which they were.
    Raises PictureError when LibRaw cannot: for samples other than uint16, and below 22 px a side, 512 for X-Trans.
    """
    least_px = 22 if mosaic.period == 2 else 512
    if min(mosaic.width, mosaic.height) < least_px:
        raise PictureError(
            f"{mosaic.width} x {mosaic.height} px; LibRaw develops {least_px} x {least_px} and more"
        )
    try:
        content = dng.encode(mosaic)
    except OutputError as error:
        raise PictureError(str(error)) from error
    with _libraw("the mosaic") as raw:
        raw.open_buffer(io.BytesIO(content))
        raw.unpack()
        return _developed(raw, mosaic.metadata)


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
    """The mosaic of a file without a header: uint16, little-endian, row by row.

    The other arguments are those of `Mosaic`. Raises PictureError when the file's length is not that of so many
    samples, or the arguments do not go together.
    """
    path = Path(path)
    if width < 1 or height < 1:
        raise PictureError(f"a frame of {width} x {height} px; at least 1 x 1 is needed")
    read_head(path)
    num_bytes, expected = path.stat().st_size, 2 * width * height
    if num_bytes != expected:
        raise PictureError(
            f"{path} has {num_bytes} bytes; {width} x {height} samples of 16 bit take {expected}, "
            f"so check width and height"
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


def exposure_ratio(short: Mosaic, long: Mosaic) -> float:
    """How many times more light the long exposure had, at least 1; a ratio above MAX_EXPOSURE_RATIO is cut to it.

    By exposure time, and by ISO and f-number where both files say them: time_s * iso / f_number**2.
    Raises PictureError when one of the times is missing, or the long one is the darker.
    """
    ratio = _light(long, short) / _light(short, long)
    if ratio < 1:
        raise PictureError(f"the long exposure is {1 / ratio:.3g} times darker than the short one; swap them")
    return min(ratio, MAX_EXPOSURE_RATIO)


def estimated_exposure_ratio(mosaic: Mosaic) -> float:
    """The exposure ratio that makes a mosaic as bright as a normal photograph: 1 to MAX_EXPOSURE_RATIO.

    The mean luminance after gamma becomes 0.4, unless more than a tenth of the picture would become white.
    Luminances are those of some hundred cells: their mean is above the noise where single samples are not, and
    without the extremes hot pixels do not count.
    """
    luminances = _cell_luminances(mosaic)
    bright = float(np.percentile(luminances, _BRIGHT))
    highest = min(MAX_EXPOSURE_RATIO, 1 / bright) if bright > 0 else MAX_EXPOSURE_RATIO
    low, high = 1.0, max(1.0, highest)
    for _ in range(20):  # halves the span of log(300) each time
        middle = sqrt(low * high)
        dark = _brightness(luminances * middle) < _BRIGHTNESS
        low, high = (middle, high) if dark else (low, middle)
    return high


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[rawpy.RawPy]:
    """LibRaw at a file of no more pixels than that; nothing is decoded yet."""
    read_head(path)
    with _libraw(path) as raw:
        raw.open_file(str(path))
        _check_size(raw.sizes, max_pixels)
        yield raw


@contextmanager
def _libraw(name: object) -> Iterator[rawpy.RawPy]:
    """A LibRaw whose errors, and those about what it gives, are one line that starts with the name."""
    _PROCESS.check(PictureError)
    with rawpy.RawPy() as raw:
        try:
            yield raw
        except PictureError as error:
            raise PictureError(f"{name}: {error}") from error
        except UnicodeEncodeError as error:
            raise PictureError(f"{name!r} is no name in UTF-8; rename it") from error
        except rawpy.LibRawFileUnsupportedError as error:
            raise PictureError(f"{name} is no camera RAW file that LibRaw knows; convert it to DNG") from error
        except (rawpy.LibRawTooBigError, rawpy.LibRawUnsufficientMemoryError) as error:
            raise PictureError(f"{name} needs more memory than LibRaw takes, or is damaged") from error
        except (rawpy.LibRawError, OSError, RuntimeError, ValueError, OverflowError) as error:
            raise PictureError(
                f"{name} is damaged, cut short or of a rare kind ({_reason(error)}); copy it from the camera anew"
            ) from error


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else "no reason given"
    return reason.decode() if isinstance(reason, bytes) else str(reason)


def _check_size(sizes: rawpy.ImageSizes, max_pixels: int) -> None:
    num_pixels = sizes.raw_width * sizes.raw_height
    if num_pixels > max_pixels:
        raise PictureError(
            f"{sizes.raw_width} x {sizes.raw_height} = {num_pixels:,} pixels; at most {max_pixels:,} are taken"
        )


def _mosaic(raw: rawpy.RawPy, metadata: Mapping[str, Any]) -> Mosaic:
    if raw.raw_type is not rawpy.RawType.Flat:
        raise PictureError(
            "several colors at every pixel (linear DNG, sRAW, pixel shift or Foveon), so there is no mosaic; "
            "use a recipe that takes pictures"
        )
    indices, pattern = _pattern(raw)
    levels = [[float(raw.black_level_per_channel[index]) for index in row] for row in indices]
    return Mosaic(
        raw.raw_image_visible.copy(),
        pattern,
        levels[0][0] if np.ptp(levels) == 0 else tuple(map(tuple, levels)),
        float(raw.white_level),
        metadata=metadata,
        white_balance=_white_balance(raw),
        exposure=_exposure(raw),
        orientation=_ORIENTATIONS.get(raw.sizes.flip, 1),
    )


def _developed(raw: rawpy.RawPy, metadata: Mapping[str, Any], *, upright: bool = True) -> Picture:
    turned: dict[str, Any] = {} if upright else {"user_flip": 0}
    return Picture(raw.postprocess(**_DEVELOPMENT, **turned), metadata=metadata)


def _pattern(raw: rawpy.RawPy) -> tuple[list[list[int]], tuple[str, ...]]:
    """Of the visible part's repeating block: LibRaw's numbers of the colors, and the colors."""
    top, left = raw.sizes.top_margin, raw.sizes.left_margin
    # Not raw_pattern: it starts at the margin, and for X-Trans reads beyond LibRaw's table where that is no
    # multiple of 6.
    sites = range(_LOOKED_AT_PX)
    seen = np.array([[raw.raw_color(top + row, left + col) for col in sites] for row in sites])
    names = raw.color_desc.decode("ascii", "replace")
    if raw.num_colors == 1 or seen.max() >= len(names):
        raise PictureError("a sensor without color filters; use a recipe that takes pictures")
    if not {names[index] for index in seen.flat} <= set("RGB"):
        raise PictureError(f"a sensor with other filters than R, G and B ({names}); Bayer or X-Trans is needed")
    for period, known in ((2, BAYER), (6, XTRANS)):
        block = seen[:period, :period]
        pattern = tuple("".join(names[index] for index in row) for row in block)
        if (np.tile(block, (_LOOKED_AT_PX // period,) * 2) == seen).all() and phase(pattern, known) is not None:
            return block.tolist(), pattern
    raise PictureError("a sensor with a rare arrangement of its filters; Bayer or X-Trans is needed")


def _white_balance(raw: rawpy.RawPy) -> tuple[float, float, float] | None:
    red, green, blue, _ = raw.camera_whitebalance
    if not green > 0:
        return None
    gains = (_positive(red / green), 1.0, _positive(blue / green))
    return None if gains[0] is None or gains[2] is None else (gains[0], 1.0, gains[2])


def _exposure(raw: rawpy.RawPy) -> Exposure:
    other = raw.other
    iso = _positive(other.iso_speed)
    return Exposure(
        time_s=_positive(other.shutter_speed),
        iso=None if iso == dng.ISO_BEYOND else iso,
        f_number=_positive(other.aperture),
    )


def _positive(value: float) -> float | None:
    """A number as the camera gave it, which LibRaw holds in single precision; None for what it does not know."""
    shortest = float(f"{value:.7g}")
    return shortest if isfinite(shortest) and shortest > 0 else None


def _metadata(raw: rawpy.RawPy, maker: Mapping[int, str]) -> dict[str, Any]:
    """What is known of the camera and the exposure, as EXIF; not the orientation, which is applied."""
    taken = {**dng.exposure_tags(_exposure(raw)), **_lens_tags(raw), Base.ColorSpace: _SRGB}
    if raw.other.timestamp.timestamp() > 0:
        taken[Base.DateTimeOriginal] = f"{raw.other.timestamp:%Y:%m:%d %H:%M:%S}"
    exif = PIL.Image.Exif()
    exif.update(maker)
    exif[IFD.Exif] = taken
    return {"exif-data": exif.tobytes()}


def _lens_tags(raw: rawpy.RawPy) -> dict[int, Any]:
    named = {Base.LensMake: raw.lens.make.strip(), Base.LensModel: raw.lens.model.strip()}
    tags: dict[int, Any] = {tag: name for tag, name in named.items() if name}
    focal_mm = _positive(raw.other.focal_length)
    if focal_mm is not None:
        tags[Base.FocalLength] = IFDRational(*dng.as_ratio(focal_mm))
    return tags


def _maker_in(path: Path) -> dict[int, str]:
    with path.open("rb") as file:
        return _maker(file)


def _maker(file: BinaryIO) -> dict[int, str]:
    """Make and model, which LibRaw's binding does not give, from files built like a TIFF; nothing from others."""
    order = {b"II": "<", b"MM": ">"}.get(file.read(2))
    if order is None:
        return {}
    (start,) = struct.unpack(f"{order}2xI", file.read(6).ljust(6, b"\0"))
    file.seek(start)
    (num_entries,) = struct.unpack(f"{order}H", file.read(2).ljust(2, b"\0"))
    entries = file.read(12 * num_entries)
    found = {}
    for code, kind, count, place in struct.iter_unpack(f"{order}HHII", entries[: len(entries) // 12 * 12]):
        if code in (Base.Make, Base.Model) and kind == 2 and 4 < count < 100:
            file.seek(place)
            found[code] = file.read(count).split(b"\0")[0].decode("ascii", "replace").strip()
    return found


def _light(mosaic: Mosaic, other: Mosaic) -> float:
    """What the samples of a mosaic are in proportion to, by all that the other one says too."""
    mine, its = mosaic.exposure, other.exposure
    if mine.time_s is None or its.time_s is None:
        raise PictureError("an exposure time is missing, so there is no exposure ratio; give it as a number")
    light = mine.time_s
    if mine.iso is not None and its.iso is not None:
        light *= mine.iso
    if mine.f_number is not None and its.f_number is not None:
        light /= mine.f_number**2
    return light


def _brightness(luminances: NDArray[np.float64]) -> float:
    return float(np.mean(luminances.clip(0, 1) ** (1 / _GAMMA)))


def _cell_luminances(mosaic: Mosaic) -> NDArray[np.float64]:
    """Mean luminance of each cell of the picture: black is 0, white is 1, by the camera's white balance."""
    period = mosaic.period
    if min(mosaic.height, mosaic.width) < period:
        raise PictureError(
            f"a mosaic of {mosaic.width} x {mosaic.height} px; at least {period} x {period} is needed"
        )
    gains = dict(zip("RGB", mosaic.white_balance or (1.0, 1.0, 1.0), strict=True))
    colors = "".join(mosaic.pattern)
    sites = product(range(period), repeat=2)
    luminances = np.zeros(())
    whole = mosaic.samples[: mosaic.height // period * period, : mosaic.width // period * period]
    for (row, col), color, black in zip(sites, colors, mosaic.site_black_levels.flat, strict=True):
        plane = whole[row::period, col::period]
        weight = _LUMA[color] * gains[color] / colors.count(color)
        luminances = luminances + weight * (_cell_means(plane) - black) / (mosaic.white_level - black)
    return luminances


def _cell_means(plane: Samples) -> NDArray[np.float64]:
    """Mean of each square cell without its extremes, some hundred cells."""
    height, width = plane.shape
    side = max(1, int(min(height, width, sqrt(height * width / _NUM_CELLS))))
    rows, cols = height // side, width // side
    cells = plane[: rows * side, : cols * side].reshape(rows, side, cols, side).swapaxes(1, 2)
    ordered = np.sort(cells.reshape(rows, cols, side**2))
    num_trimmed = int(_TRIMMED * side**2)
    return ordered[..., num_trimmed : side**2 - num_trimmed].mean(axis=-1, dtype=np.float64)
