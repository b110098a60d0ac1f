"""Colors in BMP files, made by hand and checked by ImageMagick, ExifTool and Pillow."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import exiftool
import format_matrix
from pellucid.pictures import images
from pellucid.pictures.picture import Picture

CALIBRATED = struct.pack("<12I", *range(1, 13))


def bmp(size: int, kind: int, colors: bytes = bytes(48), profile: bytes = b"") -> bytes:
    """Two pixels of 24 bits with a header of version 4 (108 bytes) or 5 (124 bytes)."""
    header = struct.pack("<IiiHHIIiiII", size, 2, 1, 1, 24, 0, 8, 11811, 7874, 0, 0) + bytes(16)
    header += struct.pack("<I", kind) + colors
    if size == 124:
        header += struct.pack("<IIII", 4, size + 8, len(profile), 0)
    samples = bytes(range(6)) + bytes(2)
    total = 14 + size + 8 + len(profile)
    return struct.pack("<2sIII", b"BM", total, 0, 14 + size) + header + samples + profile


def read(content: bytes, folder: Path) -> Picture:
    (folder / "a.bmp").write_bytes(content)
    picture = images.read(folder / "a.bmp")
    assert picture.samples.tolist() == [[[2, 1, 0], [5, 4, 3]]]
    return picture


def test_an_embedded_profile_is_read(tmp_path: Path) -> None:
    picture = read(bmp(124, 0x4D424544, profile=format_matrix.PROFILE), tmp_path)
    assert images.write(picture, tmp_path / "b.png") == ()
    with PIL.Image.open(tmp_path / "b.png") as file:
        assert file.info["icc_profile"] == format_matrix.PROFILE


def test_calibrated_colors_are_kept_or_named(tmp_path: Path) -> None:
    picture = read(bmp(108, 0, CALIBRATED), tmp_path)
    assert images.write(picture, tmp_path / "b.bmp") == ()
    content = (tmp_path / "b.bmp").read_bytes()
    assert struct.unpack_from("<I", content, 14) == (108,)
    assert content[14 + 56 : 14 + 108] == bytes(4) + CALIBRATED
    assert images.write(picture, tmp_path / "c.png") == ("not kept in PNG: the calibrated colors of BMP",)


def test_a_link_to_a_profile_is_named(tmp_path: Path) -> None:
    encoding = read(bmp(124, 0x4C494E4B, profile=b"c:\\a.icc\0"), tmp_path).encoding
    assert encoding is not None and encoding.notes == ("not kept: the link to an ICC profile",)


@pytest.mark.parametrize("kind", [0x73524742, 0x57696E20, 0])
def test_default_colors_need_no_long_header(kind: int, tmp_path: Path) -> None:
    picture = read(bmp(124, kind), tmp_path)
    assert images.write(picture, tmp_path / "b.bmp") == ()
    assert struct.unpack_from("<I", (tmp_path / "b.bmp").read_bytes(), 14) == (40,)


@exiftool.needed
@pytest.mark.parametrize("channels", [1, 3])
def test_a_profile_is_written(channels: int, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(
        format_matrix.png(format_matrix.noise(channels), 8, 2 if channels == 3 else 0)
    )
    images.write(images.read(tmp_path / "a.png"), tmp_path / "b.bmp")
    (tags,) = exiftool.read_tags(tmp_path / "b.bmp")
    assert tags["ICC-header:ColorSpaceData"] == "RGB "
    with PIL.Image.open(tmp_path / "b.bmp") as file:
        assert np.array_equal(np.asarray(file).reshape(21, 30, channels), format_matrix.noise(channels))


@pytest.mark.skipif(shutil.which("convert") is None, reason="ImageMagick is not installed")
def test_transparency_of_one_bit_is_named(tmp_path: Path) -> None:
    """Pillow reads the colors without it."""
    samples = np.dstack([format_matrix.photo(), np.tile([0, 255], 30).astype(np.uint8)[None].repeat(42, axis=0)])
    PIL.Image.fromarray(samples).save(tmp_path / "a.png")
    command = ["convert", "a.png", "-define", "bmp:subtype=ARGB1555", "a.bmp"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    picture = images.read(tmp_path / "a.bmp")
    assert picture.encoding is not None and picture.encoding.notes == ("not kept: the transparency",)
    subprocess.run(["convert", "a.png", "b.bmp"], cwd=tmp_path, check=True, timeout=60)
    picture = images.read(tmp_path / "b.bmp")
    assert np.array_equal(picture.alpha, samples[..., 3:])  # type: ignore[arg-type]
    assert picture.encoding is not None and not picture.encoding.notes
