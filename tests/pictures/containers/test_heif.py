"""Colors of AVIF files made by libavif's encoder."""

import io
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

import format_matrix
from pellucid.pictures import images, levels
from pellucid.pictures.containers import heif

AVIFENC = shutil.which("avifenc")
needs_avifenc = pytest.mark.skipif(AVIFENC is None, reason="avifenc is not installed")


def encode(folder: Path, *options: str) -> Path:
    PIL.Image.fromarray(format_matrix.photo()).save(folder / "a.png")
    assert AVIFENC is not None
    command = [AVIFENC, *options, str(folder / "a.png"), str(folder / "a.avif")]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    return folder / "a.avif"


@needs_avifenc
@pytest.mark.parametrize(
    ("cicp", "depth"), [("9/16/9", "10"), ("9/18/9", "12"), ("12/13/6", "8"), ("1/8/1", "8"), ("9/16/0", "10")]
)
def test_cicp_becomes_a_chunk_of_png(cicp: str, depth: str, tmp_path: Path) -> None:
    extra = ("--yuv", "444") if cicp.endswith("/0") else ()
    picture = images.read(encode(tmp_path, "--cicp", cicp, "-d", depth, *extra))
    assert images.write(picture, tmp_path / "b.png") == ()
    primaries, transfer, _ = map(int, cicp.split("/"))
    content = (tmp_path / "b.png").read_bytes()
    place = content.index(b"cICP")
    assert content[place + 4 : place + 8] == bytes([primaries, transfer, 0, 1])
    assert place < content.index(b"IDAT")
    (note,) = images.write(picture, tmp_path / "b.tif")
    assert note == "not kept in TIFF: the color description (cICP)"


@needs_avifenc
def test_srgb_is_what_other_formats_assume(tmp_path: Path) -> None:
    picture = images.read(encode(tmp_path, "--cicp", "1/13/6"))
    assert images.write(picture, tmp_path / "b.tif") == ()


@needs_avifenc
def test_colors_that_are_multiplied_by_alpha_are_divided(tmp_path: Path) -> None:
    values = np.dstack([format_matrix.photo(), np.full(format_matrix.photo().shape[:2], 128, np.uint8)])
    PIL.Image.fromarray(values).save(tmp_path / "a.png")
    for name, option in (("a.avif", ["--premultiply"]), ("b.avif", [])):
        command = [str(AVIFENC), "--lossless", *option, str(tmp_path / "a.png"), str(tmp_path / name)]
        subprocess.run(command, capture_output=True, check=True, timeout=60)
        picture = images.read(tmp_path / name)
        np.testing.assert_allclose(picture.samples.astype(int), values[..., :3], atol=3 if option else 0)
        assert (picture.alpha == 128).all()  # type: ignore[union-attr]


@needs_avifenc
def test_the_shape_of_pixels_is_named(tmp_path: Path) -> None:
    picture = images.read(encode(tmp_path, "--pasp", "2,1"))
    assert picture.encoding is not None
    assert picture.encoding.notes == ("not kept: the shape of the pixels (2:1)",)
    square = images.read(encode(tmp_path, "--pasp", "1,1")).encoding
    assert square is not None and not square.notes


def test_a_profile_comes_before_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.avif").write_bytes(format_matrix.avif(format_matrix.photo()))
    metadata = images.read(tmp_path / "a.avif").metadata
    assert metadata["icc-profile-data"] == format_matrix.PROFILE
    assert "png-chunks" not in metadata


def box(kind: bytes, *content: bytes) -> bytes:
    joined = b"".join(content)
    return struct.pack(">I4s", len(joined) + 8, kind) + joined


def container(*properties: bytes) -> bytes:
    """The boxes of a file whose item 1 has the properties."""
    indices = bytes(range(1, len(properties) + 1))
    associations = box(b"ipma", bytes(4), struct.pack(">IHB", 1, 1, len(properties)), indices)
    properties_box = box(b"iprp", box(b"ipco", *properties), associations)
    return box(b"ftyp", b"avif") + box(b"meta", bytes(4), box(b"pitm", bytes(4), b"\0\1"), properties_box)


def test_brightness_is_converted() -> None:
    mastering = struct.pack(">8H", 1, 2, 3, 4, 5, 6, 7, 8) + struct.pack(">II", 9, 10)
    found = heif.read_colors(
        io.BytesIO(container(box(b"clli", struct.pack(">HH", 1000, 400)), box(b"mdcv", mastering)))
    )
    light = format_matrix.png_chunk(b"cLLI", struct.pack(">II", 10_000_000, 4_000_000))
    # HEIF has green, blue, red; PNG has red, green, blue.
    display = format_matrix.png_chunk(b"mDCV", struct.pack(">8HII", 5, 6, 1, 2, 3, 4, 7, 8, 9, 10))
    assert found == light + display


@given(place=st.integers(0, 200), byte=st.integers(0, 255), cut=st.integers(0, 200))
def test_damaged_boxes_never_raise(place: int, byte: int, cut: int) -> None:
    content = bytearray(container(box(b"colr", b"nclx", bytes([0, 9, 0, 16, 0, 9, 128]))))
    content[place % len(content)] = byte
    heif.read_colors(io.BytesIO(content))
    heif.read_colors(io.BytesIO(content[:cut]))


@pytest.mark.parametrize("range_", ["limited", "full"])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_gray_agrees_with_libavif(range_: str, has_alpha: bool, tmp_path: Path) -> None:
    """libheif returns three channels for gray, without expanding 16 to 235."""
    samples = format_matrix.photo(2 if has_alpha else 1)
    image = PIL.Image.fromarray(samples.squeeze())
    path = tmp_path / "x.avif"
    image.save(path, quality=90, subsampling="4:0:0", range=range_, icc_profile=format_matrix.GRAY_PROFILE)
    picture = images.read(path)
    with PIL.Image.open(path) as file:
        expected = np.asarray(file.convert("LA" if has_alpha else "L")).reshape(samples.shape)
    assert picture.channels == 1
    found = np.concatenate(picture.planes, axis=2).astype(int)
    assert np.abs(found - expected).max() <= 1  # rounding
    assert np.abs(expected.astype(int) - samples).max() < 8
    assert picture.metadata["icc-profile-data"] == format_matrix.GRAY_PROFILE


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_video_range_is_expanded(bits: int) -> None:
    """The values of ITU-R BT.2100, table 9: black is 16 and white is 235, times 4 with 10 and 16 with 12 bits."""
    steps = 2 ** (bits - 8)
    stored = np.array([0, 16 * steps, 235 * steps, 2**bits - 1])
    peak = 255 if bits == 8 else 65535
    stretched = np.rint(stored * (peak / (2**bits - 1))).astype(np.uint8 if bits == 8 else np.uint16)
    expanded = levels.expand_limited(stretched, bits).astype(int)
    assert np.abs(expanded - [0, 0, peak, peak]).max() <= 1


@needs_avifenc
@pytest.mark.parametrize("matrix", [0, 1, 9])
@pytest.mark.parametrize("depth", [8, 10])
def test_video_range_of_colors_is_expanded(matrix: int, depth: int, tmp_path: Path) -> None:
    """Matrix 0 is RGB, whose red and blue libheif expands as if they were chroma."""
    options = ("--min", "0", "--max", "0", "--yuv", "444", "-r", "limited", "-d", str(depth))
    path = encode(tmp_path, *options, "--cicp", f"1/13/{matrix}")
    found = images.read(path).samples / (1 if depth == 8 else 257)
    assert np.abs((found - format_matrix.photo()).mean(axis=(0, 1))).max() < 1  # 2 without it
