"""ICC profiles in JPEG XL, as libjxl's own programs read them."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL import ImageCms

import format_matrix
from pellucid.pictures import images
from pellucid.pictures.codecs import jpeg_xl_header
from pellucid.pictures.picture import Picture

pytest.importorskip("pyjpegxl", reason="needs the extra formats")
pytestmark = pytest.mark.skipif(shutil.which("djxl") is None, reason="needs djxl")

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def change_gamut(profile: bytes) -> bytes:
    """A profile with another green: a space that is not sRGB."""
    place = profile.index(b"gXYZ")
    start = int.from_bytes(profile[place + 4 : place + 8], "big") + 8
    return profile[:start] + (13_000).to_bytes(4, "big") + profile[start + 4 :]


WIDE = change_gamut(SRGB)


def decode(path: Path, folder: Path) -> PIL.Image.Image:
    subprocess.run(["djxl", path, folder / "decoded.png"], capture_output=True, check=True)
    return PIL.Image.open(io.BytesIO((folder / "decoded.png").read_bytes()))


@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("profile", [SRGB, WIDE, WIDE + bytes(70_000)], ids=["sRGB", "wide", "long"])
def test_other_programs_find_the_profile(profile: bytes, has_alpha: bool, tmp_path: Path) -> None:
    profile = len(profile).to_bytes(4, "big") + profile[4:]
    values = format_matrix.noise(4, "uint8", height=40, width=50)
    alpha = values[..., 3:] if has_alpha else None
    picture = Picture(values[..., :3], alpha, {"icc-profile-data": profile, "xres": 10.0})
    assert images.write(picture, tmp_path / "x.jxl") == ()
    decoded = decode(tmp_path / "x.jxl", tmp_path)
    assert decoded.info["icc_profile"] == profile
    np.testing.assert_array_equal(np.asarray(decoded), values if has_alpha else values[..., :3])


@pytest.mark.parametrize("platform", [b"APPL", b"MSFT", b"SGI ", b"SUNW", b"MXXX", b"SXXX", bytes(4)])
def test_any_header_of_a_profile_is_kept(platform: bytes, tmp_path: Path) -> None:
    profile = WIDE[:40] + platform + WIDE[44:]
    picture = Picture(format_matrix.noise(3, "uint16", height=40, width=50), None, {"icc-profile-data": profile})
    images.write(picture, tmp_path / "x.jxl")
    assert decode(tmp_path / "x.jxl", tmp_path).info["icc_profile"] == profile
    assert images.read(tmp_path / "x.jxl").metadata["icc-profile-data"] == profile


def test_a_lossy_result_in_other_colors_than_srgb_becomes_lossless(tmp_path: Path) -> None:
    values = format_matrix.noise(3, "uint8", height=40, width=50)
    notes = images.write(Picture(values, None, {"icc-profile-data": WIDE}), tmp_path / "x.jxl", quality=80)
    assert notes == ("not kept in JPEG XL: lossy compression, because the colors are not sRGB",)
    decoded = decode(tmp_path / "x.jxl", tmp_path)
    np.testing.assert_array_equal(np.asarray(decoded), values)
    assert decoded.info["icc_profile"] == WIDE
    assert images.write(Picture(values, None, {"icc-profile-data": SRGB}), tmp_path / "y.jxl", quality=80) == ()
    assert not images.read(tmp_path / "y.jxl").encoding.lossless  # type: ignore[union-attr]


def test_floating_point_samples_keep_their_colors(tmp_path: Path) -> None:
    """By default, libjxl takes them for linear ones."""
    values = np.linspace(0, 1, 6000, dtype=np.float32).reshape(40, 50, 3)
    images.write(Picture(values, None, {"icc-profile-data": SRGB}), tmp_path / "x.jxl")
    picture = images.read(tmp_path / "x.jxl")
    np.testing.assert_array_equal(picture.samples, values)
    assert picture.metadata["icc-profile-data"] == SRGB
    if shutil.which("jxlinfo"):
        described = subprocess.run(
            ["jxlinfo", tmp_path / "x.jxl"], capture_output=True, text=True, check=True
        ).stdout
        assert f"{len(SRGB)}-byte ICC profile" in described


def test_floating_point_samples_below_0_are_written(tmp_path: Path) -> None:
    """Each speed of libjxl refuses some of these pictures."""
    rng = np.random.default_rng(0)
    for number in range(9):
        shape = (*rng.integers(8, 90, 2), (1, 3)[number % 2])
        values = (rng.normal(size=shape) * (1, 0.01, 0.3)[number % 3]).astype(np.float32)
        images.write(Picture(values), tmp_path / f"{number}.jxl")
        np.testing.assert_array_equal(images.read(tmp_path / f"{number}.jxl", white=1).samples, values)


def test_floating_point_samples_of_16_bits_keep_their_range(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs", reason="needs imagecodecs")
    values = np.linspace(-0.5, 1.9, 6000).astype(np.float16).reshape(40, 50, 3)
    (tmp_path / "x.jxl").write_bytes(imagecodecs.jpegxl_encode(values, lossless=True))
    picture = images.read(tmp_path / "x.jxl")
    np.testing.assert_array_equal(picture.samples, values.astype(np.float32))
    assert picture.encoding is not None
    assert picture.encoding.notes == ("16-bit floating-point samples become 32-bit",)
    scaled = images.read(tmp_path / "x.jxl", white=2)
    np.testing.assert_array_equal(scaled.samples, values.astype(np.float32) / 2)
    images.write(scaled, tmp_path / "y.jxl")
    np.testing.assert_array_equal(images.read(tmp_path / "y.jxl").samples, values.astype(np.float32))


@pytest.mark.skipif(shutil.which("jxlinfo") is None, reason="needs jxlinfo")
def test_associated_alpha_is_divided_out(tmp_path: Path) -> None:
    """No encoder here writes it: a bit of the header of a file is changed, which jxlinfo finds."""
    alpha = np.full((40, 50, 1), 32768, np.uint16)
    values = format_matrix.noise(3, "uint16", height=40, width=50) // 2
    images.write(Picture(values, alpha), tmp_path / "x.jxl")
    content = bytearray((tmp_path / "x.jxl").read_bytes())
    start = 8 * content.index(b"\xff\x0a")
    for bit in range(start + 40, start + 100):
        content[bit // 8] ^= 1 << bit % 8
        (tmp_path / "y.jxl").write_bytes(content)
        found = subprocess.run(["jxlinfo", "-v", tmp_path / "y.jxl"], capture_output=True, text=True, check=False)
        if "alpha_premultiplied: 1" in found.stdout and "Color space: RGB, D65" in found.stdout:
            break
        content[bit // 8] ^= 1 << bit % 8
    else:
        pytest.fail("the bit was not found")
    picture = images.read(tmp_path / "y.jxl")
    np.testing.assert_allclose(picture.samples, values / 32768 * 65535, atol=1)


def test_a_header_that_is_not_understood_gives_the_defaults() -> None:
    """ISO/IEC 18181-1, annex D, the lowest bit of a byte first: a small square, more fields, and a preview."""
    bits = "1 00000 100 0 1 000 0 1".replace(" ", "")
    preview = int(bits[::-1], 2).to_bytes(2, "little")
    for content in (b"", b"\xff\x0a", b"\xff\x0a" + preview + bytes(50)):
        assert jpeg_xl_header.parse_jxl_header(content) == jpeg_xl_header.JxlHeader()
