"""Reading and writing picture files, compared with other libraries."""

import base64
import errno
import io
import os
import re
import signal
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageCms
from PIL.JpegImagePlugin import JpegImageFile

from pellucid.errors import ArgumentError, DataError, OutputError, PellucidError, PictureError
from pellucid.pictures import formats, headers, images, vips
from pellucid.pictures.camera import raw
from pellucid.pictures.picture import Encoding, Picture
from pellucid.pictures.samples import Samples
from pellucid.system import memory
from signalling import deliver

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tifffile

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta>'
)


def noise(height: int, width: int, channels: int, dtype: str = "uint8", seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return (rng.random((height, width, channels)) * 3 - 1).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype=dtype)


def photo(height: int = 60, width: int = 70) -> Samples:
    """Smooth in every channel, so that JPEG changes little."""
    rows, cols = np.mgrid[:height, :width]
    planes = [128 + 100 * np.sin(rows / 17 + k) * np.cos(cols / 23 - k) for k in range(3)]
    return np.stack(planes, axis=2).astype(np.uint8)


def png(rows: bytes, width: int, height: int, depth: int, color_type: int, *chunks: bytes) -> bytes:
    """A PNG of given rows, each with a filter byte (0)."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    parts = [_chunk(b"IHDR", header), *chunks, _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(samples: Samples) -> bytes:
    height, width, channels = samples.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(samples.dtype.newbyteorder(">")).tobytes() for row in samples)
    return png(rows, width, height, samples.dtype.itemsize * 8, color_type)


def encoded(samples: Samples, kind: str, **options: Any) -> bytes:
    """By Pillow."""
    content = io.BytesIO()
    PIL.Image.fromarray(samples.squeeze()).save(content, kind, **options)
    return content.getvalue()


def exif(orientation: int = 1) -> bytes:
    tags = PIL.Image.Exif()
    tags[0x0110] = "EOS 5D"
    tags[0x0112] = orientation
    tags[0x8298] = "Zo\u00eb".encode()
    tags.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    tags.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.025)})
    return tags.tobytes()


def joined(picture: Picture) -> Samples:
    return np.concatenate([picture.samples, *([] if picture.alpha is None else [picture.alpha])], axis=2)


def same(one: Picture, other: Picture) -> bool:
    return one.dtype == other.dtype and np.array_equal(joined(one), joined(other))


def message(call: Callable[[], object], kind: type[PellucidError] = PictureError) -> str:
    """The message of the error that a call raises: always one line."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def read_bytes(content: bytes, folder: Path, name: str = "x.png") -> Picture:
    path = folder / name
    path.write_bytes(content)
    return images.read(path)


@st.composite
def pictures(draw: st.DrawFn, dtypes: tuple[str, ...], alpha: bool = True, gray: bool = True) -> Picture:
    height, width, seed = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(0, 9))
    dtype = draw(st.sampled_from(dtypes))
    samples = noise(height, width, draw(st.sampled_from((1, 3) if gray else (3,))), dtype, seed)
    with_alpha = alpha and draw(st.booleans())
    return Picture(samples, noise(height, width, 1, dtype, seed + 1) if with_alpha else None)


# --- round trips


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
@settings(max_examples=30, deadline=None)
@given(picture=pictures(("uint8", "uint16")))
def test_png_and_tiff_round_trip(suffix: str, picture: Picture) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "x" + suffix)
        images.write(picture, path)
        assert same(images.read(path), picture)


@settings(max_examples=20, deadline=None)
@given(picture=pictures(("float32",)))
def test_float_tiff_round_trips(picture: Picture) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.tif")
        images.write(picture, path)
        assert same(images.read(path), picture)
        assert np.array_equal(tifffile.imread(path).reshape(joined(picture).shape), joined(picture))


@settings(max_examples=20, deadline=None)
@given(picture=pictures(("uint8",), gray=False))
def test_webp_round_trips(picture: Picture) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.webp")
        images.write(picture, path)
        opaque = picture.alpha is not None and bool((picture.alpha == 255).all())  # WebP drops opaque alpha
        assert same(images.read(path), Picture(picture.samples) if opaque else picture)


@settings(max_examples=20, deadline=None)
@given(picture=pictures(("uint8",), alpha=False))
def test_bmp_round_trips(picture: Picture) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.bmp")
        images.write(picture, path)
        assert same(images.read(path), picture)


@pytest.mark.parametrize(("suffix", "limit"), [(".webp", "16,383"), (".jpg", "65,500")])
def test_sides_that_a_format_cannot_have_are_named_with_another_format(
    suffix: str, limit: str, tmp_path: Path
) -> None:
    wide = Picture(np.zeros((1, 70_000, 1), np.uint8))
    with pytest.raises(OutputError, match=f"70,000 px, and at most {limit} are possible; format can be png"):
        images.write(wide, tmp_path / f"x{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_gray_becomes_rgb_in_webp(tmp_path: Path) -> None:
    gray = Picture(noise(5, 7, 1), noise(5, 7, 1, seed=1))
    images.write(gray, tmp_path / "x.webp")
    again = images.read(tmp_path / "x.webp")
    assert np.array_equal(again.samples, np.repeat(gray.samples, 3, axis=2))
    assert np.array_equal(joined(again)[..., 3:], joined(gray)[..., 1:])


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_close_and_gray_stays_gray(channels: int, tmp_path: Path) -> None:
    picture = Picture(photo()[..., :channels])
    images.write(picture, tmp_path / "x.jpg")
    again = images.read(tmp_path / "x.jpg")
    assert again.samples.shape == picture.samples.shape
    assert np.abs(again.samples.astype(int) - picture.samples).mean() < 1
    assert (again.dtype, again.alpha) == ("uint8", None)


def test_jpeg_has_quality_95_and_full_color(tmp_path: Path) -> None:
    images.write(Picture(photo()), tmp_path / "x.jpeg")
    with JpegImageFile(tmp_path / "x.jpeg") as file:
        ours, tables = file.layer, file.quantization
    with JpegImageFile(io.BytesIO(encoded(photo(), "jpeg", quality=95))) as file:
        assert file.quantization[0] == tables[0]
    assert [layer[1:3] for layer in ours] == [(1, 1)] * 3


def test_a_crop_is_written(tmp_path: Path) -> None:
    part = Picture(noise(20, 30, 3), noise(20, 30, 1)).crop(slice(3, 11), slice(5, 19))
    images.write(part, tmp_path / "x.png")
    assert same(images.read(tmp_path / "x.png"), part)
    images.write(Picture(part.samples), tmp_path / "x.bmp")
    assert same(images.read(tmp_path / "x.bmp"), Picture(part.samples))


@pytest.mark.parametrize("channels", [2, 4])
def test_an_interleaved_array_is_written(channels: int, tmp_path: Path) -> None:
    array = noise(9, 7, channels, "uint16")
    images.write(Picture.from_array(array), tmp_path / "x.png")
    assert np.array_equal(images.read(tmp_path / "x.png").to_array(), array)


# --- compared with other writers and readers


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_every_color_type_is_read(channels: int, dtype: str, tmp_path: Path) -> None:
    samples = noise(5, 7, channels, dtype)
    picture = read_bytes(png_of(samples), tmp_path)
    assert picture.dtype == dtype
    assert picture.channels == (3 if channels > 2 else 1)
    assert np.array_equal(joined(picture), samples)


@pytest.mark.parametrize("kind", ["png", "tiff", "webp", "bmp", "jpeg"])
def test_files_by_pillow_are_read(kind: str, tmp_path: Path) -> None:
    content = encoded(photo(), kind, **({"lossless": True} if kind == "webp" else {}))
    with PIL.Image.open(io.BytesIO(content)) as file:
        expected = np.asarray(file)
    assert np.array_equal(read_bytes(content, tmp_path).samples, expected)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp"])
def test_our_files_are_read_by_pillow(suffix: str, tmp_path: Path) -> None:
    picture = Picture(noise(9, 5, 3), None if suffix == ".bmp" else noise(9, 5, 1, seed=1))
    images.write(picture, tmp_path / f"x{suffix}")
    with PIL.Image.open(tmp_path / f"x{suffix}") as file:
        assert np.array_equal(np.asarray(file), joined(picture))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_tiff_agrees_with_tifffile(channels: int, tmp_path: Path) -> None:
    samples = noise(6, 8, channels, "uint16")
    how: dict[str, Any] = {"photometric": "rgb" if channels > 2 else "minisblack"}
    if channels % 2 == 0:
        how |= {"planarconfig": "contig", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", samples, **how)
    picture = images.read(tmp_path / "a.tif")
    assert np.array_equal(joined(picture), samples)
    images.write(picture, tmp_path / "b.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif").reshape(samples.shape), samples)


def test_planar_big_endian_and_inverted_tiff_are_read(tmp_path: Path) -> None:
    planes = noise(3, 6, 5, "uint16")
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", byteorder=">")
    assert np.array_equal(images.read(tmp_path / "a.tif").samples, planes.transpose(1, 2, 0))
    tifffile.imwrite(tmp_path / "b.tif", planes[0], photometric="miniswhite", bigtiff=True)
    assert np.array_equal(images.read(tmp_path / "b.tif").samples[..., 0], 65535 - planes[0])


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_samples_of_few_bits_are_scaled_to_8_bits(depth: int, tmp_path: Path) -> None:
    levels = (1 << depth) - 1
    values = np.arange(8 // depth) % (levels + 1)
    packed = sum(int(value) << (8 - depth * (k + 1)) for k, value in enumerate(values))
    picture = read_bytes(png(bytes([0, packed]), len(values), 1, depth, 0), tmp_path)
    assert picture.samples[0, :, 0].tolist() == [value * 255 // levels for value in values]
    palette = bytes(range(3 * (levels + 1)))
    picture = read_bytes(png(bytes([0, packed]), len(values), 1, depth, 3, _chunk(b"PLTE", palette)), tmp_path)
    assert picture.samples[0].tolist() == [[3 * value, 3 * value + 1, 3 * value + 2] for value in values]


def test_a_transparent_palette_color_becomes_alpha(tmp_path: Path) -> None:
    chunks = _chunk(b"PLTE", b"\1\2\3\4\5\6"), _chunk(b"tRNS", b"\x07")
    picture = read_bytes(png(b"\0\x40", 2, 1, 1, 3, *chunks), tmp_path)
    assert joined(picture).tolist() == [[[1, 2, 3, 7], [4, 5, 6, 255]]]


@pytest.mark.parametrize("mode", ["1", "P", "L"])
def test_bmp_palettes_are_expanded(mode: str, tmp_path: Path) -> None:
    image = PIL.Image.fromarray(photo()).convert(mode)
    image.save(tmp_path / "x.bmp", dpi=(300, 300))
    picture = images.read(tmp_path / "x.bmp")
    expected = np.asarray(image.convert("RGB"))
    assert picture.channels == (3 if mode == "P" else 1)
    assert np.array_equal(np.broadcast_to(picture.samples, expected.shape), expected)
    images.write(picture, tmp_path / "y.bmp")
    with PIL.Image.open(tmp_path / "y.bmp") as file:
        assert file.info["dpi"] == pytest.approx((300, 300), rel=1e-4)


@pytest.mark.parametrize("dots_per_mm", [4e6, 1e300, float("inf"), float("nan"), -3.0])
def test_a_resolution_that_bmp_cannot_store_is_dropped(tmp_path: Path, dots_per_mm: float) -> None:
    path = tmp_path / "a.bmp"
    images.write(Picture(photo(), metadata={"xres": dots_per_mm, "yres": 10.0}), path)
    assert struct.unpack_from("<ii", path.read_bytes(), 38) == (0, 0)


def test_bmp_alpha_is_read(tmp_path: Path) -> None:
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 2835, 2835, 0, 0) + masks + bytes(52)
    content = struct.pack("<2sIHHI", b"BM", 14 + 108 + 8, 0, 0, 14 + 108) + header + bytes(range(1, 9))
    picture = read_bytes(content, tmp_path, "x.bmp")
    assert joined(picture).tolist() == [[[3, 2, 1, 4], [7, 6, 5, 8]]]


@pytest.mark.parametrize(("depth", "dtype"), [(8, "uint8"), (10, "uint16"), (12, "uint16")])
def test_white_in_avif_is_the_maximum(depth: int, dtype: str, tmp_path: Path) -> None:
    import pyvips

    white = pyvips.Image.black(16, 16, bands=3).copy(interpretation="rgb16").cast("ushort") + 65535
    white.cast("ushort").copy(interpretation="rgb16").heifsave(
        str(tmp_path / "x.avif"), compression="av1", bitdepth=depth, lossless=True
    )
    picture = images.read(tmp_path / "x.avif")
    assert picture.dtype == dtype
    assert int(picture.samples.min()) == np.iinfo(dtype).max


def test_cmyk_without_a_profile_is_converted_with_a_note(tmp_path: Path) -> None:
    content = io.BytesIO()
    PIL.Image.fromarray(np.full((8, 8, 3), (200, 60, 30), np.uint8)).convert("CMYK").save(content, "jpeg")
    picture = read_bytes(content.getvalue(), tmp_path, "x.jpg")
    assert picture.encoding is not None
    assert picture.encoding.notes == ("CMYK converted to sRGB by a general profile, because it has none",)
    # Inks cover fewer colors than screens, and Pillow's CMYK is not print: only the hue can be checked.
    assert picture.samples[..., 0].min() > 150 and picture.samples[..., 1:].max() < 110
    assert picture.metadata["icc-profile-data"][12:20] == b"mntrRGB "


@pytest.mark.parametrize(("depth", "dtype"), [(8, "uint8"), (16, "uint16")])
def test_cmyk_with_a_profile_becomes_srgb(depth: int, dtype: str, tmp_path: Path) -> None:
    import pyvips

    rgb = pyvips.Image.new_from_array(np.full((8, 8, 3), (200, 60, 30), np.uint8))
    cmyk = rgb.copy(interpretation="srgb").icc_transform("cmyk", input_profile="srgb", depth=depth)
    cmyk.tiffsave(str(tmp_path / "x.tif"))
    picture = images.read(tmp_path / "x.tif")
    assert (picture.dtype, picture.samples.shape) == (dtype, (8, 8, 3))
    values = picture.samples * (255 / np.iinfo(dtype).max)
    assert np.abs(values - (200, 60, 30)).max() < 20  # inks cover fewer colors than screens
    assert picture.metadata["icc-profile-data"][12:20] == b"mntrRGB "


def test_samples_are_writable(tmp_path: Path) -> None:
    picture = read_bytes(png_of(noise(4, 4, 1)), tmp_path)
    picture.samples[0, 0, 0] = 1
    assert picture.to_tensor().shape == (1, 1, 4, 4)


# --- metadata and orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
def test_orientation_is_applied_once(kind: str, orientation: int, tmp_path: Path) -> None:
    content = encoded(photo(12, 20), kind, exif=exif(orientation))
    with PIL.Image.open(io.BytesIO(content)) as file:
        expected = np.asarray(PIL.ImageOps.exif_transpose(file))
    picture = read_bytes(content, tmp_path)
    assert np.array_equal(picture.samples, expected)
    for suffix in (".png", ".tif", ".webp", ".jpg"):
        images.write(picture, tmp_path / f"y{suffix}")
        with PIL.Image.open(tmp_path / f"y{suffix}") as file:
            assert file.getexif().get(0x0112, 1) == 1
        assert images.read(tmp_path / f"y{suffix}").samples.shape == expected.shape


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
def test_a_tall_picture_is_rotated(kind: str, tmp_path: Path) -> None:
    # Taller than the rows that libvips keeps in sequential decoding.
    content = encoded(photo(3000, 10), kind, exif=exif(6))
    assert read_bytes(content, tmp_path).samples.shape == (10, 3000, 3)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_profile_and_exif_are_kept(kind: str, suffix: str, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encoded(photo(12, 20), kind, exif=exif(6), icc_profile=profile)
    images.write(read_bytes(content, tmp_path), tmp_path / f"y{suffix}")
    with PIL.Image.open(tmp_path / f"y{suffix}") as file:
        assert file.info["icc_profile"] == profile
        tags = file.getexif()
    assert tags[0x0110] == "EOS 5D"
    assert tags[0x8298].encode("latin-1") == "Zo\u00eb".encode()
    assert tags.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    assert tags.get_ifd(0x8825)[2] == pytest.approx((52.0, 31.0, 12.025))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_xmp_resolution_and_profile_are_kept_in_every_format(suffix: str, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encoded(photo(12, 20), "jpeg", xmp=XMP, icc_profile=profile, dpi=(300, 300))
    picture = read_bytes(content, tmp_path)
    images.write(picture, tmp_path / f"y{suffix}")
    again = images.read(tmp_path / f"y{suffix}").metadata
    assert again["xmp-data"] == XMP
    assert again["icc-profile-data"] == profile
    if suffix != ".webp":  # libvips writes the resolution of WebP as EXIF, but does not read it
        assert again["xres"] * 25.4 == pytest.approx(300, rel=1e-4)


def test_tiff_text_and_png_comments_are_kept(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", photo(), photometric="rgb", description="a note", metadata=None)
    images.write(images.read(tmp_path / "a.tif"), tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages.first.description == "a note"
    text = _chunk(b"tEXt", b"Author\0me")
    images.write(read_bytes(png(b"\0\7", 1, 1, 8, 0, text), tmp_path), tmp_path / "b.png")
    with PIL.Image.open(tmp_path / "b.png") as file:
        assert file.info["Author"] == "me"


def test_the_thumbnail_of_the_original_is_dropped(tmp_path: Path) -> None:
    thumbnail = encoded(photo(8, 8), "jpeg")
    # EXIF is a TIFF: an empty first directory, then one with the thumbnail's compression, offset and length.
    entries = (0x0103, 3, 1, 6), (0x0201, 4, 1, 56), (0x0202, 4, 1, len(thumbnail))
    second = struct.pack("<H", 3) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    tags = b"II*\0" + struct.pack("<IHI", 8, 0, 14) + second + thumbnail
    content = encoded(photo(), "jpeg", exif=b"Exif\0\0" + tags)
    assert content.count(b"\xff\xd8\xff") == 2
    images.write(read_bytes(content, tmp_path), tmp_path / "y.jpg")
    assert (tmp_path / "y.jpg").read_bytes().count(b"\xff\xd8\xff") == 1


def test_unknown_metadata_is_ignored(tmp_path: Path) -> None:
    metadata = {"xres": 10.0, "yres": 10.0, "camera": object(), "exif-ifd0-Model": 3, "orientation": 6}
    images.write(Picture(noise(3, 5, 3), None, metadata), tmp_path / "x.png")
    again = images.read(tmp_path / "x.png")
    assert again.samples.shape == (3, 5, 3)
    assert again.metadata["xres"] == pytest.approx(10)


# --- encoding


def encoding(content: bytes, folder: Path) -> Encoding:
    found = read_bytes(content, folder, "x").encoding
    assert found is not None
    return found


@pytest.mark.parametrize("quality", [1, 10, 25, 49, 50, 51, 75, 90, 95, 99, 100])
def test_the_quality_of_a_jpeg_is_estimated_from_its_tables(quality: int, tmp_path: Path) -> None:
    assert encoding(encoded(photo(), "jpeg", quality=quality), tmp_path).quality == quality
    assert encoding(encoded(photo()[..., :1], "jpeg", quality=quality), tmp_path).quality == quality


def test_other_tables_get_the_nearest_quality(tmp_path: Path) -> None:
    with JpegImageFile(io.BytesIO(encoded(photo(), "jpeg", quality=88))) as file:
        tables = file.quantization
    own = [[min(255, value + k % 2) for k, value in enumerate(tables[number])] for number in (0, 1)]
    found = encoding(encoded(photo(), "jpeg", qtables=own), tmp_path).quality
    assert found is not None and 85 <= found <= 88


@pytest.mark.parametrize("ratio", ["4:4:4", "4:2:2", "4:2:0"])
def test_the_subsampling_of_a_jpeg_is_read(ratio: str, tmp_path: Path) -> None:
    found = encoding(encoded(photo(), "jpeg", subsampling=ratio), tmp_path)
    assert (found.format, found.bits, found.subsampling, found.progressive) == ("JPEG", 8, ratio, False)
    assert encoding(encoded(photo(), "jpeg", progressive=True), tmp_path).progressive


def test_the_encoding_of_other_formats_is_read(tmp_path: Path) -> None:
    assert encoding(png(b"\0\x40", 2, 1, 1, 0), tmp_path) == Encoding("PNG", 1)
    palette = png(b"\0\x40", 2, 1, 2, 3, _chunk(b"PLTE", bytes(12)))
    assert encoding(palette, tmp_path) == Encoding("PNG", 2, palette=True)
    assert encoding(png_of(noise(3, 4, 3, "uint16")), tmp_path) == Encoding("PNG", 16)
    lzw = encoded(photo(), "tiff", compression="tiff_lzw")
    assert encoding(lzw, tmp_path) == Encoding("TIFF", 8, compression="lzw")
    assert encoding(encoded(photo(), "webp"), tmp_path) == Encoding("WebP", lossless=False)
    assert encoding(encoded(photo(), "webp", lossless=True, exif=exif()), tmp_path) == Encoding("WebP")
    assert encoding(encoded(photo(), "bmp"), tmp_path) == Encoding("BMP")
    assert encoding(encoded(photo(), "avif"), tmp_path) == Encoding("AVIF", lossless=False)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_keeps_its_compression(compression: str, tmp_path: Path) -> None:
    picture = read_bytes(encoded(photo(), "tiff", compression=compression), tmp_path)
    images.write(picture, tmp_path / "y.tif")
    with PIL.Image.open(tmp_path / "y.tif") as file:
        assert file.info["compression"] == compression


def test_a_jpeg_in_a_tiff_is_written_lossless(tmp_path: Path) -> None:
    content = encoded(photo(), "tiff", compression="jpeg", quality=90)
    picture = read_bytes(content, tmp_path)
    assert np.abs(picture.samples.astype(int) - photo()).mean() < 2
    images.write(picture, tmp_path / "y.tif")
    assert same(images.read(tmp_path / "y.tif"), picture)


def test_a_requested_quality_changes_nothing_else(tmp_path: Path) -> None:
    picture = read_bytes(encoded(photo(), "jpeg", quality=70, subsampling="4:2:0"), tmp_path)
    images.write(picture, tmp_path / "y.jpg", quality=91)
    assert headers.read_encoding(tmp_path / "y.jpg", "jpeg").quality == 91
    with JpegImageFile(tmp_path / "y.jpg") as file:
        assert file.layer[0][1:3] == (2, 2)
    images.write(picture, tmp_path / "y.webp", quality=91)
    assert not headers.read_encoding(tmp_path / "y.webp", "webp").lossless


@pytest.mark.parametrize(("bit_depth", "dtype"), [(8, "uint8"), (16, "uint16"), (32, "float32")])
def test_the_requested_depth_is_written(bit_depth: int, dtype: str, tmp_path: Path) -> None:
    picture = Picture(noise(5, 6, 3, "uint16"), noise(5, 6, 1, "uint16"))
    images.write(picture, tmp_path / "x.tif", bit_depth=bit_depth)
    assert same(images.read(tmp_path / "x.tif"), picture.as_depth(dtype))


def test_names_of_results() -> None:
    names: dict[tuple[str, str | None], str]
    names = {("a.png", None): "a.png", ("a.JPEG", None): "a.JPEG", ("a.avif", None): "a.png"}
    names |= {("a.b.png", "tiff"): "a.b.tif", ("a.JPEG", "jpg"): "a.JPEG", ("a.tif", "jpeg"): "a.jpg"}
    for (name, format), expected in names.items():
        assert images.result_name(name, format) == expected
    assert "the format gif cannot be written; known: png" in message(
        lambda: images.result_name("a.png", "gif"), ArgumentError
    )


def test_an_arithmetic_coded_jpeg_is_read(tmp_path: Path) -> None:
    # By jpegtran -arithmetic, from a ramp: 8 * (row + column).
    content = base64.b64decode(
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hn"
        "Pk1xeXBkeFxlZ2P/yQALCAAQABABAREA/8wABgAQEAX/2gAIAQEAAD8A/wBmCMBa97C76sfIgb48eID/2Q=="
    )
    rows, cols = np.mgrid[:16, :16]
    assert np.abs(read_bytes(content, tmp_path).samples[..., 0] - 8.0 * (rows + cols)).max() < 12


def test_a_12_bit_jpeg_is_refused(tmp_path: Path) -> None:
    content = bytearray(encoded(photo(), "jpeg"))
    frame = content.index(b"\xff\xc0")
    content[frame + 1], content[frame + 4] = 0xC1, 12
    assert "is a JPEG of 12 bits; only 8 bits are supported; save it as PNG" in message(
        lambda: read_bytes(bytes(content), tmp_path)
    )


@pytest.mark.parametrize(
    ("head", "name", "better"),
    [
        (b"8BPS\0\1", "Photoshop", "PNG or TIFF"),
        (b"qoif", "QOI", "PNG or TIFF"),
        (b"\xff\xd8\xff\xf7", "JPEG-LS", "PNG or TIFF"),
        (b"\0\0\1\0\1\0", "Windows icon", "PNG or TIFF"),
        (b"\x76\x2f\x31\x01", "OpenEXR", "32-bit floating-point TIFF"),
        (b"PF\n3 3\n-1.0\n", "PFM", "32-bit floating-point TIFF"),
    ],
)
def test_unsupported_formats_are_named(head: bytes, name: str, better: str, tmp_path: Path) -> None:
    text = message(lambda: read_bytes(head + bytes(99), tmp_path))
    assert f"is in {name} format, which is not supported; convert it to {better} first" in text


def test_archives_have_to_be_unpacked(tmp_path: Path) -> None:
    assert message(lambda: read_bytes(b"PK\3\4" + bytes(60), tmp_path, "x.zip")).endswith("; unpack it first")


def test_the_orientation_in_xmp_is_reset_too(tmp_path: Path) -> None:
    for text in (b'<x tiff:Orientation="6"/>', b"<tiff:Orientation>6</tiff:Orientation>"):
        xmp = read_bytes(encoded(photo(), "jpeg", xmp=text, exif=exif(6)), tmp_path).metadata["xmp-data"]
        assert xmp == text.replace(b"6", b"1")


def test_a_file_without_exif_gets_none(tmp_path: Path) -> None:
    for kind, suffix in (("jpeg", ".jpg"), ("png", ".png"), ("webp", ".webp"), ("tiff", ".tif")):
        images.write(read_bytes(encoded(photo(), kind), tmp_path), tmp_path / f"y{suffix}")
        content = (tmp_path / f"y{suffix}").read_bytes()
        assert not any(word in content for word in (b"Exif\0", b"eXIf", b"EXIF", b"\x69\x87\4\0"))


# --- large pictures


def test_large_pictures_are_processed_in_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LARGE_BYTES", 1000)
    monkeypatch.setattr(memory, "STRIP_BYTES", 1000)
    picture = Picture(noise(70, 50, 3), noise(70, 50, 1, seed=1))
    for suffix in (".png", ".tif", ".webp"):
        images.write(picture, tmp_path / f"x{suffix}")
        assert same(images.read(tmp_path / f"x{suffix}"), picture)
    images.write(picture.crop(slice(3, 60), slice(5, 40)), tmp_path / "crop.tif")
    assert same(images.read(tmp_path / "crop.tif"), picture.crop(slice(3, 60), slice(5, 40)))
    content = encoded(photo(), "png", exif=exif(6))
    with PIL.Image.open(io.BytesIO(content)) as file:
        rotated = np.asarray(PIL.ImageOps.exif_transpose(file))
    images.write(read_bytes(content, tmp_path, "rotated.png"), tmp_path / "upright.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "upright.tif"), rotated)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_a_large_picture_is_never_in_memory_as_a_whole(suffix: str, tmp_path: Path) -> None:
    samples = np.zeros((10_000, 8_000, 3), np.uint8)
    samples[::2] = np.arange(8_000, dtype=np.uint16)[:, None] % 251
    images.write(Picture(samples), tmp_path / f"x{suffix}")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pellucid.pictures import images\n"
        "def peak():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return int(next(line for line in lines if line.startswith('VmHWM')).split()[1]) * 1024\n"
        "before = peak()\n"
        "images.write(images.read(sys.argv[1]), sys.argv[2])\n"
        "print(peak() - before)\n"
    )
    names = [str(tmp_path / f"{name}{suffix}") for name in "xy"]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 110e6 < samples.nbytes / 2


def test_the_decoding_cost_is_known_from_the_header(tmp_path: Path) -> None:
    def cost(content: bytes) -> int:
        (tmp_path / "x").write_bytes(content)
        num_pixels, decoding_bytes = images.decoding_cost(tmp_path / "x")
        assert num_pixels == photo().shape[0] * photo().shape[1]
        return decoding_bytes

    num_pixels = photo().shape[0] * photo().shape[1]
    assert cost(encoded(photo(), "png")) == cost(encoded(photo(), "tiff")) == cost(encoded(photo(), "jpeg")) == 0
    assert cost(encoded(photo(), "jpeg", progressive=True, subsampling="4:4:4")) == 6 * num_pixels
    assert cost(encoded(photo(), "jpeg", progressive=True, subsampling="4:2:0")) == 3 * num_pixels
    assert cost(encoded(photo()[..., :1], "jpeg", progressive=True)) == 2 * num_pixels
    assert cost(encoded(photo(), "bmp")) == 4 * num_pixels
    assert 8 * num_pixels < cost(encoded(photo(), "webp")) < 10 * num_pixels
    assert images.encoding_bytes(tmp_path / "x.tif", num_pixels) == 0
    assert images.encoding_bytes(tmp_path / "x.webp", num_pixels) > 10 * num_pixels


# --- errors when reading


def test_files_that_are_not_pictures_are_described(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>")
    (tmp_path / "table.csv").write_text("1,2\n3,4\n")
    (tmp_path / "empty.png").touch()
    (tmp_path / "sound.webp").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    assert "does not exist" in message(lambda: images.read(tmp_path / "missing.png"))
    assert "is a folder" in message(lambda: images.read(tmp_path))
    assert "is empty" in message(lambda: images.read(str(tmp_path / "empty.png")))
    for name in ("text.png", "table.csv", "sound.webp"):
        text = message(partial(images.read, tmp_path / name))
        assert name in text and "is not a PNG" in text


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    assert "cannot be read" in message(lambda: images.read(tmp_path / ("x" * 300 + ".png")))


@pytest.mark.parametrize("name", ["a.arw", "b.RAF", "c.dng", "d.cr3"])
def test_camera_raw_files_give_a_hint(name: str, tmp_path: Path) -> None:
    text = message(lambda: read_bytes(encoded(photo(), "tiff"), tmp_path, name))
    assert name in text and "camera RAW" in text and "develop it" in text


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("png", {}),
        ("jpeg", {}),
        ("jpeg", {"progressive": True}),
        ("tiff", {}),
        ("tiff", {"compression": "tiff_adobe_deflate"}),
        ("webp", {"lossless": True}),
        ("bmp", {}),
        ("avif", {}),
    ],
)
def test_a_truncated_file_is_refused(
    kind: str, options: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = encoded(photo(), kind, **options)
    # the last 12 bytes of a PNG (IEND) and the last 2 of a BMP row (padding) contain no samples
    for length in {1, 3, 9, 15, 16, 17, 30, 60, 140, *range(200, len(content) - 13, len(content) // 12)}:
        text = message(partial(read_bytes, content[:length], tmp_path, "cut.png"))
        assert "cut.png" in text
        assert "damaged, truncated" in text or "is a damaged TIFF" in text or length < 16
    assert capfd.readouterr() == ("", "")


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["png", "jpeg", "tiff", "webp", "bmp"]),
    seed=st.integers(0, 999),
    num_flips=st.integers(1, 8),
)
def test_damaged_files_give_a_picture_or_a_one_line_error(kind: str, seed: int, num_flips: int) -> None:
    content = bytearray(encoded(photo(20, 20), kind))
    rng = np.random.default_rng(seed)
    for _ in range(num_flips):
        content[int(rng.integers(min(len(content), 300)))] = int(rng.integers(256))
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.png")
        path.write_bytes(content)
        try:
            images.read(path)
        except PictureError as error:
            assert "\n" not in str(error)


def test_warnings_of_libvips_are_not_in_the_next_error(tmp_path: Path) -> None:
    (tmp_path / "first.avif").write_bytes(encoded(noise(5, 7, 3), "avif"))
    message(lambda: images.read(tmp_path / "first.avif", max_pixels=10))
    assert "first" not in message(lambda: read_bytes(encoded(photo(), "png")[:40], tmp_path, "x.png"))


def test_pages_and_frames_are_counted(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(3, 5, 7, "uint16"), photometric="minisblack")
    assert "x.tif has 3 pages" in message(lambda: images.read(tmp_path / "x.tif"))
    frames = [PIL.Image.fromarray(noise(9, 9, 3, seed=seed)) for seed in range(4)]
    frames[0].save(tmp_path / "x.webp", save_all=True, append_images=frames[1:])
    assert "x.webp is an animated WebP of 4 frames" in message(lambda: images.read(tmp_path / "x.webp"))


@pytest.mark.parametrize(
    ("color", "found"),
    [("cielab", "CIELab colors"), ("ycbcr", "YCbCr colors without")],
)
def test_other_colors_of_tiff_are_named(color: str, found: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(6, 7, 3), photometric=color)
    assert f"x.tif contains {found}" in message(lambda: images.read(tmp_path / "x.tif"))


@pytest.mark.parametrize(
    ("dtype", "found"),
    [("int16", "16-bit signed integer"), ("uint32", "32-bit integer"), ("int8", "8-bit signed integer"),
     ("uint64", "64-bit integer"), ("complex64", "64-bit complex floating-point")],
)  # fmt: skip
def test_other_sample_types_are_named(dtype: str, found: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.ones((6, 7), dtype))
    text = message(lambda: images.read(tmp_path / "x.tif"))
    assert f"x.tif has {found} samples" in text and "unsigned integers of up to 16 bits" in text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(value: float, tmp_path: Path) -> None:
    samples = noise(6, 7, 3, "float32")
    samples[2, 3, 1] = value
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="rgb")
    assert "has 1 NaN or infinite samples" in message(lambda: images.read(tmp_path / "x.tif"))


def test_half_floats_become_floats(tmp_path: Path) -> None:
    samples = noise(6, 7, 3, "float32").astype(np.float16)
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="rgb")
    assert np.array_equal(images.read(tmp_path / "x.tif").samples, samples.astype(np.float32))


@pytest.mark.parametrize("kind", ["png", "bmp"])
def test_a_decompression_bomb_is_refused_by_its_header(kind: str, tmp_path: Path) -> None:
    size = 30_000
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 99, 0, 0, 54, 40, size, size, 1, 24, 0, 0, 1, 1, 0, 0)
    content = png(bytes(99), size, size, 8, 2) if kind == "png" else header + bytes(99)
    text = message(lambda: read_bytes(content, tmp_path))
    assert "30000 x 30000 = 900,000,000 pixels" in text and "500,000,000" in text


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "webp", "bmp", "avif"])
def test_more_pixels_than_allowed_are_refused_in_every_format(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    content = encoded(photo(20, 30), kind)
    # Decoding would fail. For the header of a WebP, libvips needs the whole file.
    path.write_bytes(content if kind == "webp" else content[:-5])
    text = message(lambda: images.read(path, max_pixels=599))
    assert "30 x 20 = 600 pixels; at most 599 are allowed" in text and text.endswith("set max_pixels=600")
    path.write_bytes(encoded(photo(20, 30), kind))
    assert images.read(path, max_pixels=600).width == 30


def test_400_megapixels_are_allowed_by_default() -> None:
    assert images.MAX_PIXELS >= 400e6


def test_names_with_special_characters_can_be_used(tmp_path: Path) -> None:
    content = png_of(noise(4, 5, 3))
    assert read_bytes(content, tmp_path, "x[page=2].png").width == 5
    assert read_bytes(content, tmp_path, "x.png[n=-1]").width == 5
    assert read_bytes(content, tmp_path, "wrong.jpg").width == 5
    if sys.platform == "linux":
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
        images.write(Picture(noise(4, 5, 3)), path)
        assert images.read(path).width == 5


# --- errors when writing


@pytest.mark.parametrize("name", ["x.gif", "x", "x.arw", "x.avif"])
def test_an_unknown_suffix_gives_the_known_ones(name: str, tmp_path: Path) -> None:
    for call in (
        lambda: images.check_format(tmp_path / name),
        lambda: images.write(Picture(noise(2, 2, 1)), tmp_path / name),
    ):
        text = message(call, ArgumentError)
        assert all(suffix in text for suffix in (".png", ".jpg", ".tif", ".webp", ".bmp"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x.png", "x.JPG", "x.tiff", "x.webp", "x.bmp"])
def test_known_suffixes_can_be_written(name: str) -> None:
    images.check_format(Path(name))


@pytest.mark.parametrize(
    ("suffix", "dtype", "alpha", "words"),
    [
        (".jpg", "uint16", False, "JPEG cannot store 16-bit samples; write PNG or TIFF"),
        (".jpg", "uint8", True, "JPEG cannot store alpha; write PNG or TIFF or WebP"),
        (".webp", "uint16", True, "WebP cannot store 16-bit samples; write PNG or TIFF"),
        (".bmp", "uint16", False, "BMP cannot store 16-bit samples; write PNG or TIFF"),
        (".bmp", "uint8", True, "BMP cannot store alpha; write PNG or TIFF or WebP"),
        (".png", "float32", False, "PNG cannot store floating-point samples; write TIFF"),
    ],
)
def test_formats_refuse_what_they_cannot_store(
    suffix: str, dtype: str, alpha: bool, words: str, tmp_path: Path
) -> None:
    picture = Picture(noise(3, 4, 3, dtype), noise(3, 4, 1, dtype) if alpha else None)
    assert words in message(lambda: images.write(picture, tmp_path / f"x{suffix}"), OutputError)
    assert not list(tmp_path.iterdir())


def test_the_hint_contains_a_depth_that_works(tmp_path: Path) -> None:
    for dtype, suffix, bits in (("uint16", ".jpg", 8), ("float32", ".png", 16), ("uint16", ".webp", 8)):
        picture = Picture(noise(3, 4, 3, dtype))
        text = message(partial(images.write, picture, tmp_path / f"x{suffix}"), OutputError)
        assert text.endswith(f"or set bit_depth={bits}")
        with pytest.raises(OutputError, match=f"bit_depth={bits}"):
            images.check_format(tmp_path / f"x{suffix}", picture)
        images.check_format(tmp_path / f"x{suffix}", picture, bit_depth=bits)
    with_alpha = Picture(noise(3, 4, 3, "uint16"), noise(3, 4, 1, "uint16"))
    assert "bit_depth" not in message(lambda: images.write(with_alpha, tmp_path / "x.jpg"), OutputError)
    text = message(lambda: images.write(with_alpha, tmp_path / "x.png", bit_depth=12), ArgumentError)
    assert "bit depth 12 is not supported; known: 8, 16, 32" in text
    assert "quality of 0" in message(lambda: images.write(with_alpha, tmp_path / "x.png", quality=0), OutputError)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".bmp"])
def test_a_full_disk_gives_a_one_line_error_and_leaves_nothing(suffix: str, tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "import numpy as np\n"
        "from pellucid.pictures import images\n"
        "from pellucid.errors import OutputError\n"
        "from pellucid.pictures.picture import Picture\n"
        "picture = Picture(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "try: images.write(picture, sys.argv[1])\n"
        "except OutputError as error: print(ascii(str(error))[1:-1])\n"
    )
    folder = tmp_path / "\udcff"  # a byte that is not UTF-8, on file systems that have such names
    with suppress(OSError):
        folder.mkdir()
    folder = folder if folder.exists() else tmp_path
    command = [sys.executable, "-c", code, str(folder / f"x{suffix}")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.endswith(f"x{suffix} cannot be written: {os.strerror(errno.EFBIG)}\n")
    assert done.stdout.count("\n") == 1
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("suffix", "width"), [(".webp", 16_400), (".jpg", 65_600)])
def test_too_wide_for_the_format_gives_a_one_line_error(suffix: str, width: int, tmp_path: Path) -> None:
    picture = Picture(np.zeros((1, width, 1), np.uint8))
    text = message(lambda: images.write(picture, tmp_path / f"x{suffix}"), OutputError)
    assert "cannot be written as" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_existing_files_are_only_replaced_with_overwrite(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"mine")
    picture = Picture(noise(3, 4, 3))
    assert "exists" in message(lambda: images.write(picture, path), OutputError)
    assert path.read_bytes() == b"mine"
    images.write(picture, path, overwrite=True)
    assert same(images.read(path), picture)
    assert list(tmp_path.iterdir()) == [path]


# --- folders


def test_find_is_sorted_deep_and_skips_hidden(tmp_path: Path) -> None:
    wanted = ["B.PNG", "a.jpg", "deep/er/c.tiff", "deep/z.bmp", "deep.png", "x.heic"]
    for name in [*wanted, ".hidden.png", ".git/x.png", "deep/.trash/y.png", "notes.txt", "raw.arw"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = images.find(tmp_path)
    assert found == sorted(tmp_path / name for name in wanted)
    assert images.find(tmp_path / "folder.png") == []


def test_find_needs_a_folder(tmp_path: Path) -> None:
    assert "is not a folder" in message(lambda: images.find(tmp_path / "missing"), DataError)


def test_every_suffix_written_is_found() -> None:
    for suffix in (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"):
        images.check_format(Path(f"x{suffix}"))
        assert suffix in formats.SUFFIXES
    assert not formats.SUFFIXES & formats.RAW_SUFFIXES


# --- processes


def test_a_pipe_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PictureError, match="is a pipe"):
        images.read(tmp_path / "pipe.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can enter any folder")
def test_a_folder_that_cannot_be_entered_is_named(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    with pytest.raises(DataError, match="locked cannot be read"):
        images.find(tmp_path)


def test_only_pictures_are_written(tmp_path: Path) -> None:
    array: Any = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(PictureError, match="ndarray; a Picture is needed; Picture.from_array"):
        images.write(array, tmp_path / "x.png")


def tiff_in_tiles(compression: str | None) -> bytes:
    content = io.BytesIO()
    rows = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype("u1")
    tifffile.imwrite(content, rows, photometric="rgb", tile=(16, 16), compression=compression)
    return content.getvalue()


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiles_that_are_missing_or_damaged_are_refused(tmp_path: Path, compression: str | None) -> None:
    """libvips leaves them black and reports a warning only."""
    content, path = tiff_in_tiles(compression), tmp_path / "a.tif"
    damages = [content[: len(content) * 2 // 3]]
    if compression:
        middle = len(content) // 2
        damages.append(content[:middle] + bytes(200) + content[middle + 200 :])
    for damaged in damages:
        path.write_bytes(damaged)
        with pytest.raises(PictureError, match="damaged"):
            images.read(path)


def test_values_of_other_tags_are_not_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    rows = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype("u1")
    tags = [(33432, "I", 1, 5, True), (65000, "s", 0, "unknown", True)]  # Copyright as a number
    tifffile.imwrite(path, rows, photometric="rgb", tile=(16, 16), extratags=tags)
    np.testing.assert_array_equal(images.read(path).samples, rows)


def test_damaged_jpeg_that_is_decoded_gives_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    rows = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype("u1")
    PIL.Image.fromarray(rows).save(path, quality=90)
    content = path.read_bytes()
    assert images.read(path).encoding.warnings == ()  # type: ignore[union-attr]
    middle = len(content) // 2
    path.write_bytes(content[:middle] + b"\xff" * 300 + content[middle + 300 :])
    (warning,) = images.read(path).encoding.warnings  # type: ignore[union-attr]
    assert re.fullmatch(r"damaged \(VipsJpeg: .+\): parts of the picture may be wrong", warning)


def test_damaged_and_missing_chunks_are_noted(tmp_path: Path) -> None:
    """A damaged orientation would turn the picture."""
    path, content = tmp_path / "a.png", io.BytesIO()
    tags = PIL.Image.Exif()
    tags[0x0112] = 6
    PIL.Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(content, "PNG", exif=tags.tobytes())
    intact = content.getvalue()
    place = intact.index(b"eXIf") + 6
    for damaged, note in (
        (intact[:place] + b"\xff" + intact[place + 1 :], "not kept: damaged PNG chunk 'eXIf'"),
        (intact[:-8], "not kept: metadata at the end of the file, which is missing"),
        (intact, None),
    ):
        path.write_bytes(damaged)
        encoding = images.read(path).encoding
        assert encoding is not None
        assert encoding.notes == (() if note is None else (note,))


def test_offsets_beyond_all_files_are_not_followed(tmp_path: Path) -> None:
    path, content = tmp_path / "a.tif", io.BytesIO()
    rows = np.zeros((20, 30, 3), np.uint8)
    tifffile.imwrite(content, rows, photometric="rgb", bigtiff=True, extratags=[(315, "s", 0, "a" * 50, True)])
    intact = content.getvalue()
    place = intact.index(struct.pack("<HHQ", 315, 2, 51)) + 12
    path.write_bytes(intact[:place] + struct.pack("<Q", 2**61) + intact[place + 8 :])
    assert images.read(path).samples.shape == rows.shape


def test_an_impossible_length_in_avif_is_not_a_crash(tmp_path: Path) -> None:
    path, content = tmp_path / "a.avif", io.BytesIO()
    PIL.Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(content, "AVIF")
    intact = content.getvalue()
    place = intact.index(b"meta") - 4
    for length in (0, 7, 9, 2**32 - 1):
        path.write_bytes(intact[:place] + struct.pack(">I", length) + intact[place + 4 :])
        try:
            images.read(path)
        except PictureError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 7}, {"tile": (16, 16)}, {"bigtiff": True}])
@pytest.mark.parametrize("missing", [1, 50, 900])
def test_a_tiff_without_its_last_samples_is_refused(tmp_path: Path, options: dict[str, Any], missing: int) -> None:
    path, content = tmp_path / "a.tif", io.BytesIO()
    tifffile.imwrite(content, np.full((23, 31, 3), 7, np.uint8), photometric="rgb", metadata=None, **options)
    path.write_bytes(content.getvalue()[:-missing])
    with pytest.raises(PictureError, match="damaged"):
        images.read(path)


def test_an_impossible_number_of_channels_is_refused(tmp_path: Path) -> None:
    path, content = tmp_path / "a.tif", io.BytesIO()
    tifffile.imwrite(content, np.zeros((23, 31, 3), np.uint8), photometric="rgb", metadata=None)
    entry = struct.pack("<HHIHH", 277, 3, 1, 3, 0)
    path.write_bytes(content.getvalue().replace(entry, struct.pack("<HHII", 277, 4, 1, 2**32 - 1)))
    with pytest.raises(PictureError, match="4294967295 channels; at most 65535"):
        images.read(path)


def test_a_damaged_index_of_pictures_in_jpeg_is_not_a_crash(tmp_path: Path) -> None:
    path, content = tmp_path / "a.jpg", io.BytesIO()
    PIL.Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(content, "JPEG")
    for index in (b"", b"I\0" + bytes(20), b"II*\0" + b"\xff" * 20):
        segment = struct.pack(">BBH", 0xFF, 0xE2, 6 + len(index)) + b"MPF\0" + index
        path.write_bytes(content.getvalue()[:2] + segment + content.getvalue()[2:])
        assert images.read(path).samples.shape == (20, 30, 3)


def test_tiles_much_larger_than_the_picture_are_refused(tmp_path: Path) -> None:
    path, content = tmp_path / "a.tif", io.BytesIO()
    tifffile.imwrite(content, np.zeros((23, 31, 3), np.uint8), photometric="rgb", metadata=None, tile=(32, 32))
    damaged = bytearray(content.getvalue())
    for tag in (322, 323):
        place = next(
            damaged.find(struct.pack("<HHI", tag, kind, 1))
            for kind in (4, 3)
            if struct.pack("<HHI", tag, kind, 1) in damaged
        )
        damaged[place : place + 12] = struct.pack("<HHII", tag, 4, 1, 60000)
    path.write_bytes(bytes(damaged))
    with pytest.raises(PictureError, match="tiles of 60000 x 60000 px for a picture of 31 x 23 px"):
        images.read(path)


def test_libvips_prints_nothing_about_a_damaged_file() -> None:
    code = "import sys; from pellucid.pictures import images; images.read(sys.argv[1])"
    path = Path(__file__).parent / "many_warnings.jpg"  # found by tests/fuzz.py
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "is damaged" in done.stderr
    assert "VIPS-WARNING" not in done.stdout + done.stderr


def test_only_the_end_marker_of_a_jpeg_may_be_missing(tmp_path: Path) -> None:
    content = encoded(photo(), "jpeg", quality=90)
    intact = read_bytes(content, tmp_path, "x.jpg")
    for missing in (1, 2):
        found = read_bytes(content[:-missing], tmp_path, "x.jpg")
        np.testing.assert_array_equal(found.samples, intact.samples)
        assert found.encoding is not None and found.encoding.notes == ("a JPEG without an end marker",)
    for cut in (content[:-4], encoded(photo(), "jpeg", progressive=True)[:-2]):
        assert "premature end" in message(partial(read_bytes, cut, tmp_path, "x.jpg"))


def test_errors_of_other_files_are_not_mixed_in(tmp_path: Path) -> None:
    """libvips collects the errors of all threads."""
    error = vips.pyvips.Error("unable to call", "other.avif: bad seek to 12\nmine.avif: bad seek to 7\n")
    assert vips.reason(error, Path("mine.avif")) == "the file ends too early"
    assert vips.reason(error, Path("third.avif")) == ""


def test_a_truncated_avif_is_reported_as_such(tmp_path: Path) -> None:
    content = encoded(noise(64, 64, 3), "avif")
    (tmp_path / "a.avif").write_bytes(content[:-20])
    assert "the file ends too early" in message(lambda: images.read(tmp_path / "a.avif"))


@pytest.mark.parametrize("read", [images.read, images.list_pages, raw.read, raw.develop])
def test_an_empty_path_is_not_the_current_folder(read: Callable[[str], object]) -> None:
    assert message(lambda: read("")) == "the path is empty; a picture file is needed"


class _Interrupting:
    """A file with a signal whenever libvips reads or writes so many bytes; SIGINT raises KeyboardInterrupt."""

    def __init__(self, file: IO[bytes], num_bytes: int = 1, number: signal.Signals = signal.SIGINT) -> None:
        self._file, self._num_bytes, self._number = file, num_bytes, number
        self.seek = file.seek

    def read(self, length: int) -> bytes:
        if length >= self._num_bytes:
            deliver(self._number)
        return self._file.read(length)

    def write(self, block: bytes) -> int:
        deliver(self._number)
        return self._file.write(block)


@pytest.mark.parametrize("num_bytes", [1, 100, 10_000])
def test_an_interrupted_file_is_not_called_damaged(
    num_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at its header, nor at its directory or samples."""
    path, make_source = tmp_path / "a.tif", vips.make_source
    images.write(Picture(noise(300, 200, 3)), path)
    monkeypatch.setattr(vips, "make_source", lambda file: make_source(_Interrupting(file, num_bytes)))  # type: ignore[arg-type]  # not a whole file
    with pytest.raises(KeyboardInterrupt):
        images.read(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_an_interruption_while_writing_is_not_lost(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_target = vips.make_target
    monkeypatch.setattr(vips, "make_target", lambda file, failures: make_target(_Interrupting(file), failures))  # type: ignore[arg-type]  # as above
    with pytest.raises(KeyboardInterrupt):
        images.write(Picture(noise(300, 200, 3)), tmp_path / f"a{suffix}")
    assert not [*tmp_path.iterdir()]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs a system with SIGUSR1")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_a_handler_that_does_not_raise_does_not_stop_writing(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E.g. the one that stops a training after its step, and those of asyncio."""
    handled: list[int] = []
    make_target, path = vips.make_target, tmp_path / f"a{suffix}"
    before = signal.signal(signal.SIGUSR1, lambda number, _: handled.append(number))
    try:
        monkeypatch.setattr(
            vips,
            "make_target",
            lambda file, failures: make_target(_Interrupting(file, 1, signal.SIGUSR1), failures),  # type: ignore[arg-type]  # as above
        )
        images.write(Picture(noise(30, 20, 3)), path)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert handled and images.read(path).height == 30
