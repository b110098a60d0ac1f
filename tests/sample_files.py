"""Small intact files of every kind, written by other libraries where possible."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import tifffile

from pellucid.pictures import dng
from pellucid.pictures.packing import XTRANS
from pellucid.pictures.picture import Exposure, Mosaic, Picture, Samples


def _noise(height: int, width: int, channels: int, dtype: str = "uint8") -> Samples:
    rng = np.random.default_rng(height * width + channels)
    samples: Samples = rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)
    return samples


def _exif() -> bytes:
    tags = PIL.Image.Exif()
    tags[0x0110], tags[0x0112] = "EOS 5D", 6
    tags.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    return tags.tobytes()


def _pillow(samples: Samples, kind: str, mode: str | None = None, **options: Any) -> bytes:
    content = io.BytesIO()
    image = PIL.Image.fromarray(samples.squeeze())
    (image if mode is None else image.convert(mode)).save(content, kind, **options)
    return content.getvalue()


def _tiff(samples: Samples, **options: Any) -> bytes:
    content = io.BytesIO()
    tifffile.imwrite(content, samples, **options)
    return content.getvalue()


def pictures() -> dict[str, bytes]:
    """File name -> content of picture files."""
    color, gray = _noise(23, 31, 3), _noise(23, 31, 1)
    deep, alpha = _noise(23, 31, 3, "uint16"), _noise(23, 31, 4)
    return {
        "color.png": _pillow(color, "PNG", exif=_exif()),
        "gray16.png": _pillow(_noise(23, 31, 1, "uint16"), "PNG"),
        "palette.png": _pillow(color, "PNG", "P"),
        "bits.png": _pillow(gray, "PNG", "1"),
        "alpha.png": _pillow(alpha, "PNG"),
        "color.jpg": _pillow(color, "JPEG", exif=_exif(), quality=90),
        "progressive.jpg": _pillow(color, "JPEG", progressive=True),
        "gray.jpg": _pillow(gray, "JPEG"),
        "cmyk.jpg": _pillow(color, "JPEG", "CMYK"),
        "color.tif": _tiff(color, photometric="rgb", compression="zlib"),
        "deep.tif": _tiff(deep, photometric="rgb", rowsperstrip=4),
        "tiled.tif": _tiff(deep, photometric="rgb", tile=(16, 16)),
        "big.tif": _tiff(gray.squeeze(), photometric="minisblack", bigtiff=True, byteorder=">"),
        "float.tif": _tiff((color / 255).astype("float32"), photometric="rgb"),
        "exif.tif": _pillow(color, "TIFF", exif=_exif()),
        "lossy.webp": _pillow(color, "WEBP", exif=_exif()),
        "lossless.webp": _pillow(alpha, "WEBP", lossless=True),
        "color.avif": _pillow(color, "AVIF"),
        "color.bmp": _pillow(color, "BMP"),
        "palette.bmp": _pillow(color, "BMP", "P"),
    }


def all_files() -> dict[str, bytes]:
    """File name -> content of pictures and camera RAW files."""
    return pictures() | raw_files()


def raw_files() -> dict[str, bytes]:
    """Camera RAW files. LibRaw needs at least 22 px."""
    bayer = Mosaic(_noise(30, 40, 1, "uint16").squeeze() % 16384, ("RG", "GB"), 512.0, 16383.0)
    xtrans = Mosaic(_noise(48, 36, 1, "uint16").squeeze() % 16384, XTRANS, 1024.0, 16383.0)
    rotated = replace(bayer, exposure=Exposure(1 / 30, 800, 2.8), orientation=6)
    linear = Picture(_noise(30, 40, 3, "uint16"))
    return {
        "bayer.dng": dng.encode(bayer),
        "rotated.dng": dng.encode(rotated),
        "xtrans.dng": dng.encode(xtrans),
        "linear.dng": dng.encode_linear(linear),
    }
