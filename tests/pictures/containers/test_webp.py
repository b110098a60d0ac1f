"""Chunks of WebP files, checked by Pillow, webpmux and ExifTool."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL import ImageCms

import exiftool
import format_matrix
from pellucid.pictures import images
from pellucid.pictures.picture import Picture

WEBPMUX = shutil.which("webpmux")


@pytest.mark.parametrize("header", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("channels", [3, 4])
def test_exif_is_read_with_and_without_its_header(header: bytes, channels: int, tmp_path: Path) -> None:
    tags = format_matrix.exif()
    tags[0x0112] = 6
    block = header + tags.tobytes().removeprefix(b"Exif\0\0")
    image = PIL.Image.fromarray(format_matrix.noise(channels))
    content = io.BytesIO()
    image.save(content, "webp", lossless=True, exif=b"Exif\0\0" + block.removeprefix(b"Exif\0\0"), exact=True)
    raw = content.getvalue()
    place = raw.index(b"EXIF")
    old = raw[place + 8 : place + 8 + int.from_bytes(raw[place + 4 : place + 8], "little")]
    chunk = b"EXIF" + len(block).to_bytes(4, "little") + block + bytes(len(block) % 2)
    raw = raw[:place] + chunk + raw[place + 8 + len(old) + len(old) % 2 :]
    (tmp_path / "a.webp").write_bytes(raw[:4] + (len(raw) - 8).to_bytes(4, "little") + raw[8:])
    picture = images.read(tmp_path / "a.webp")
    assert np.array_equal(picture.to_array(), np.rot90(format_matrix.noise(channels), -1))
    images.write(picture, tmp_path / "b.webp")
    with PIL.Image.open(tmp_path / "b.webp") as file:
        assert np.array_equal(np.asarray(file), picture.to_array())
        assert file.getexif()[0x010F] == "Canon"


@pytest.mark.skipif(WEBPMUX is None, reason="webpmux is not installed")
@pytest.mark.parametrize("quality", [None, 80])
@pytest.mark.parametrize("channels", [3, 4])
def test_libwebp_accepts_the_chunks(channels: int, quality: int | None, tmp_path: Path) -> None:
    metadata = {"icc-profile-data": format_matrix.PROFILE, "xmp-data": format_matrix.XMP + b" "}
    picture = Picture.from_array(format_matrix.noise(channels))
    images.write(Picture(picture.samples, picture.alpha, metadata), tmp_path / "a.webp", quality=quality)
    assert WEBPMUX is not None
    done = subprocess.run([WEBPMUX, "-info", str(tmp_path / "a.webp")], capture_output=True, text=True, check=True)
    assert "Features present: ICC profile" in done.stdout and "XMP metadata" in done.stdout
    assert ("transparency" in done.stdout) == (channels == 4)
    assert "Canvas size: 30 x 21" in done.stdout


@exiftool.needed
def test_exiftool_reads_the_tags(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(format_matrix.jpeg(format_matrix.photo()))
    assert images.write(images.read(tmp_path / "a.jpg"), tmp_path / "b.webp") == ("not kept in WebP: IPTC",)
    before, after = exiftool.read_tags(tmp_path / "a.jpg", tmp_path / "b.webp")
    groups = ("GPS", "ExifIFD", "ICC", "XMP")
    kept = {name: value for name, value in before.items() if name.startswith(groups)}
    assert len(kept) > 20
    assert kept == {name: value for name, value in after.items() if name.startswith(groups)}
    assert after["IFD0:XResolution"] == format_matrix.DPI  # which was in JFIF only


def test_a_gray_profile_becomes_one_for_rgb_with_the_same_colors(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(format_matrix.jpeg(format_matrix.photo(1), quality=100))
    images.write(images.read(tmp_path / "a.jpg"), tmp_path / "b.webp")
    srgb, shown = ImageCms.createProfile("sRGB"), []
    for name, mode in (("a.jpg", "L"), ("b.webp", "RGB")):
        with PIL.Image.open(tmp_path / name) as file:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(file.info["icc_profile"]))
            shown.append(
                np.asarray(ImageCms.profileToProfile(file.convert(mode), profile, srgb, outputMode="RGB"))
            )
    assert np.abs(shown[0].astype(int) - shown[1]).max() <= 1


def test_other_profiles_are_not_attached_to_rgb(tmp_path: Path) -> None:
    for kind in (b"CMYK", b"Lab ", b"GRAY"):  # gray by a table
        profile = format_matrix.PROFILE[:16] + kind + format_matrix.PROFILE[20:]
        picture = Picture(format_matrix.noise(3), metadata={"icc-profile-data": profile})
        (note,) = images.write(picture, tmp_path / "a.webp", overwrite=True)
        assert note == "not kept in WebP: the ICC profile, which is not for RGB"
        with PIL.Image.open(tmp_path / "a.webp") as file:
            assert "icc_profile" not in file.info
