"""What is white: stated by the user, by the file, or by the type."""

import shutil
import struct
import subprocess
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pellucid.errors import ArgumentError, PictureError
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.pictures.samples import Samples

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tifffile

MAX_SAMPLE, LARGEST_SAMPLE = 281, 341


def ramp(white: float, dtype: str = "uint16", channels: int = 1) -> Samples:
    """From 0 to white, in 20 x 30 pixels."""
    values = np.linspace(0, white, 20 * 30 * channels)
    return (values if dtype.startswith("f") else np.round(values)).astype(dtype).reshape(20, 30, channels)


def run(*command: str | Path) -> str:
    """The output of another program; skips the test if it is not installed."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout


def write_tiff(
    path: Path, samples: Samples, tag: int = 0, kind: str = "H", value: float = 0, **options: Any
) -> Path:
    tags = [(tag, kind, 1, value, True)] if tag else []
    photometric = "rgb" if samples.shape[2] > 2 else "minisblack"
    tifffile.imwrite(path, samples.squeeze(), photometric=photometric, extratags=tags, metadata=None, **options)
    return path


def notes(picture: Picture) -> tuple[str, ...]:
    assert picture.encoding is not None
    return picture.encoding.notes


def doubts(picture: Picture) -> tuple[str, ...]:
    assert picture.encoding is not None
    return picture.encoding.warnings


@pytest.mark.parametrize(("tag", "name"), [(MAX_SAMPLE, "MaxSampleValue"), (LARGEST_SAMPLE, "SMaxSampleValue")])
@pytest.mark.parametrize("white", [1023, 4095, 16383, 10000])
def test_white_comes_from_tiff_and_goes_back(tag: int, name: str, white: int, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", ramp(white, channels=3), tag, "H", white)
    picture = images.read(path)
    assert picture.samples.max() == 65535
    assert notes(picture) == (f"white is {white}, as {name} specifies; --white changes it",)
    assert np.array_equal(picture.samples, np.floor(ramp(white, channels=3) * (65535 / white) + 0.5))
    images.write(picture, tmp_path / "again.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "again.tif"), ramp(white, channels=3))
    assert f"\n  Max Sample Value: {white}" in run("tiffinfo", tmp_path / "again.tif")


def test_white_stated_by_exiftool_counts(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", ramp(4095))
    assert images.read(path).samples.max() == 4095
    run("exiftool", "-q", "-overwrite_original", "-MaxSampleValue=4095", path)
    assert images.read(path).samples.max() == 65535


@pytest.mark.parametrize("value", [65535, 0])
def test_white_of_the_type_changes_nothing(value: int, tmp_path: Path) -> None:
    picture = images.read(write_tiff(tmp_path / "x.tif", ramp(65535), MAX_SAMPLE, "H", value))
    assert np.array_equal(picture.samples, ramp(65535)) and notes(picture) == ()


@settings(max_examples=80, deadline=None)
@given(white=st.integers(1, 65534), dtype=st.sampled_from(["uint8", "uint16"]), seed=st.integers(0, 99))
def test_integers_come_back_exactly(
    white: int, dtype: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    white = min(white, 254) if dtype == "uint8" else white
    samples = np.random.default_rng(seed).integers(0, white, (9, 11, 1), dtype, endpoint=True)
    path = write_tiff(tmp_path_factory.getbasetemp() / "x.tif", samples)
    images.write(images.read(path, white=white), path, overwrite=True)
    assert np.array_equal(tifffile.imread(path), samples[..., 0])


@pytest.mark.parametrize("white", [255.0, 4095.0, 65535.0])
def test_floating_point_comes_back(white: float, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", ramp(white, "float32"), LARGEST_SAMPLE, "f", white)
    picture = images.read(path)
    assert picture.samples.max() == 1
    images.write(picture, tmp_path / "again.tif")
    np.testing.assert_allclose(tifffile.imread(tmp_path / "again.tif"), ramp(white, "float32")[..., 0], rtol=1e-6)
    assert images.read(tmp_path / "again.tif").samples.max() == 1
    with tifffile.TiffFile(tmp_path / "again.tif") as file:
        assert file.pages.first.tags["SMaxSampleValue"].value == white  # the other tag has only integers


def test_what_the_user_states_counts_more_than_the_file(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", ramp(4095), MAX_SAMPLE, "H", 4095)
    picture = images.read(path, white=8190)
    assert picture.samples.max() == 32768 and notes(picture) == ()


def test_samples_above_white_are_clipped_with_a_warning(tmp_path: Path) -> None:
    picture = images.read(write_tiff(tmp_path / "x.tif", ramp(5000)), white=4095)
    assert picture.samples.max() == 65535
    assert doubts(picture) == ("samples above white, 4095, were clipped",)


def test_floating_point_samples_above_white_are_kept(tmp_path: Path) -> None:
    picture = images.read(write_tiff(tmp_path / "x.tif", ramp(37, "float32")), white=1)
    assert picture.samples.max() == 37


@pytest.mark.parametrize(("bits", "white"), [(8, 255), (10, 1023), (12, 4095), (14, 16383), (15, 32767)])
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_unused_upper_bits_give_a_warning(bits: int, white: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    if suffix == "tif":
        write_tiff(path, ramp(white))
    else:
        Image.fromarray(ramp(white)[..., 0]).save(path)
    expected = f"no sample is above {white} of 65535: the picture is dark, or white is lower (--white {white})"
    assert doubts(images.read(path)) == (expected,)


@pytest.mark.parametrize("white", [65535, 40000])
def test_bright_pictures_give_no_warning(white: int, tmp_path: Path) -> None:
    assert doubts(images.read(write_tiff(tmp_path / "x.tif", ramp(white)))) == ()


def test_dark_pictures_of_8_bits_give_no_warning(tmp_path: Path) -> None:
    """E.g. masks of 0 and 1: every program agrees on what white is."""
    assert doubts(images.read(write_tiff(tmp_path / "x.tif", ramp(1, "uint8")))) == ()


@pytest.mark.parametrize(
    ("white", "hint"),
    [
        (255, "white=255"),
        (1000, "white=1023"),
        (4095, "white=4095"),
        (16383, "white=16383"),
        (65535, "white=65535"),
    ],
)
def test_floating_point_far_above_1_needs_white(white: int, hint: str, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", ramp(white, "float32"))
    with pytest.raises(PictureError, match=f"from 0 to {white}, but white is 1 unless .*{hint}"):
        images.read(path)


def test_negative_floating_point_is_an_error_or_a_warning(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="samples from -3 to -?0; black is 0"):
        images.read(write_tiff(tmp_path / "x.tif", -ramp(3, "float32")))
    picture = images.read(write_tiff(tmp_path / "x.tif", 2 * ramp(1, "float32") - 1))
    assert doubts(picture) == ("samples are negative, down to -1; black is 0 and white is 1",)


def test_dark_floating_point_gives_a_warning(tmp_path: Path) -> None:
    picture = images.read(write_tiff(tmp_path / "x.tif", ramp(4095 / 65535, "float32")))
    assert "no sample is above 0.25" in doubts(picture)[0]


def test_alpha_and_other_channels_in_other_units_are_not_scaled(tmp_path: Path) -> None:
    samples = ramp(4095, channels=5)
    samples[..., 3] = 65535  # alpha
    path = write_tiff(tmp_path / "x.tif", samples, MAX_SAMPLE, "H", 4095, extrasamples=[2, 0])
    picture = images.read(path)
    assert picture.alpha is not None and picture.extra is not None
    assert picture.alpha.min() == 65535 and picture.extra.max() == 65535
    images.write(picture, tmp_path / "again.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "again.tif"), samples)


def test_pnm_and_bmp_come_back_in_their_own_units(tmp_path: Path) -> None:
    values = ramp(4095)
    (tmp_path / "x.pgm").write_bytes(b"P5\n30 20\n65535\n" + values.astype(">u2").tobytes())
    images.write(images.read(tmp_path / "x.pgm", white=4095), tmp_path / "y.pgm")
    assert (tmp_path / "y.pgm").read_bytes() == (tmp_path / "x.pgm").read_bytes()
    low = ramp(200, "uint8", channels=3)
    Image.fromarray(low).save(tmp_path / "x.bmp")
    images.write(images.read(tmp_path / "x.bmp", white=200), tmp_path / "y.bmp")
    with Image.open(tmp_path / "y.bmp") as file:
        np.testing.assert_array_equal(np.asarray(file), low)


def test_another_format_or_depth_has_the_white_of_its_type(tmp_path: Path) -> None:
    picture = images.read(write_tiff(tmp_path / "x.tif", ramp(4095)), white=4095)
    images.write(picture, tmp_path / "x.png")
    images.write(picture, tmp_path / "y.tif", bit_depth=8)
    assert np.asarray(Image.open(tmp_path / "x.png")).max() == 65535
    assert tifffile.imread(tmp_path / "y.tif").max() == 255
    assert "Max Sample" not in run("tiffinfo", tmp_path / "y.tif")


def png_with_sbit(samples: Samples, bits: int) -> bytes:
    """Inserts sBIT into a PNG of Pillow."""
    chunk = b"sBIT" + bytes([bits])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples[..., 0])
    height, width, _ = samples.shape
    parts = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0), chunk]
    parts += [b"IDAT" + zlib.compress(rows), b"IEND"]
    content = b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts
    )
    return b"\x89PNG\r\n\x1a\n" + content


def test_sbit_is_white_if_samples_are_not_scaled(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png_with_sbit(ramp(4095), 12))
    picture = images.read(tmp_path / "x.png")
    assert picture.samples.max() == 65535
    assert notes(picture) == ("white is 4095, as sBIT specifies; --white changes it",)
    images.write(picture, tmp_path / "again.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "again.png")), ramp(4095)[..., 0])
    assert b"sBIT\x0c" in (tmp_path / "again.png").read_bytes()


@pytest.mark.parametrize("white", [4095, 200])
def test_sbit_of_scaled_samples_changes_nothing(white: int, tmp_path: Path) -> None:
    scaled = (ramp(white) << 4) | (ramp(white) >> 8)
    (tmp_path / "x.png").write_bytes(png_with_sbit(scaled, 12))
    assert np.array_equal(images.read(tmp_path / "x.png").samples, scaled)


@pytest.mark.parametrize("white", [0, -1, float("nan"), float("inf")])
def test_impossible_values_are_refused(white: Any, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", ramp(4095))
    with pytest.raises(ArgumentError, match=".* is not possible; white can be a number above 0"):
        images.read(path, white=white)


def test_white_above_the_type_is_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", ramp(4095))
    with pytest.raises(PictureError, match="white of 70000 for samples of 16 bits; it is at most 65535"):
        images.read(path, white=70000)


@pytest.mark.parametrize("photometric", ["palette", "separated"])
def test_palettes_and_cmyk_have_no_white(photometric: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"colormap": np.zeros((3, 256), np.uint16)} if photometric == "palette" else {}
    shape = (6, 7) if photometric == "palette" else (6, 7, 4)
    tifffile.imwrite(tmp_path / "x.tif", np.ones(shape, np.uint8), photometric=photometric, **options)
    with pytest.raises(PictureError, match="for which white cannot be set"):
        images.read(tmp_path / "x.tif", white=100)


def test_values_that_integers_cannot_store_are_named(tmp_path: Path) -> None:
    values, ones = ramp(1.8, "float32", 3), ramp(1, "float32")
    picture = Picture(values, ones, {}, None, ramp(255, "float32"))
    (note,) = images.write(picture, tmp_path / "a.tif", bit_depth=16)
    assert note == (
        "not kept in TIFF: samples outside of 0 to 1 (from 0 to 1.8), "
        "other channels outside of 0 to 1 (from 0 to 255)"
    )
    assert images.write(picture, tmp_path / "b.tif") == ()
    overshoot = Picture(ramp(1.05, "float32", 3), ones)
    assert images.write(overshoot, tmp_path / "c.png", bit_depth=16) == ()
