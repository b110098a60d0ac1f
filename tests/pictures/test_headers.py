"""The quality of JPEG files, against Pillow's encoder, which is that of the Independent JPEG Group."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pellucid.pictures import headers, images
from pellucid.pictures.picture import Encoding


def tables(quality: int) -> dict[int, list[int]]:
    """The tables that Pillow writes, in the order of the file."""
    content = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(content, "JPEG", quality=quality)
    start = content.getvalue().index(b"\xff\xdb") + 4  # two segments of 69 bytes
    tables = (content.getvalue()[start + 69 * i :] for i in range(2))
    return {table[0]: list(table[1:65]) for table in tables}


@pytest.mark.parametrize("quality", range(1, 101))
def test_every_quality_is_recognized(quality: int) -> None:
    assert headers.ijg_quality(tables(quality)) == quality


def test_the_tables_of_the_standard_are_those_of_quality_50() -> None:
    assert {0: headers._K1.tolist(), 1: headers._K2.tolist()} == tables(50)


def test_lossless_jpeg_is_recognized_and_its_loss_is_named(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    samples = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    (tmp_path / "a.jpg").write_bytes(imagecodecs.ljpeg_encode(samples, bitspersample=8))
    picture = images.read(tmp_path / "a.jpg")
    assert np.array_equal(picture.to_array(), samples)
    assert picture.encoding is not None and picture.encoding.lossless
    assert images.write(picture, tmp_path / "b.jpg") == ("not kept in JPEG: lossless compression",)
    assert images.write(picture, tmp_path / "b.png") == ()


def test_tables_of_16_bits_are_read(tmp_path: Path) -> None:
    """libjpeg writes them for values above 255; the next segment begins after them."""
    wide, narrow = [300 + i for i in range(64)], [16] * 64
    content = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(content, "JPEG", qtables=[wide, narrow])
    at = content.getvalue().index(b"\xff\xdb")
    length = int.from_bytes(content.getvalue()[at + 2 : at + 4], "big")
    segment = content.getvalue()[at + 4 : at + 2 + length]
    assert segment[0] == 0x10 and len(segment) == 129  # 16 bits, table 0
    assert set(headers._parse_tables(segment + bytes([1, *narrow]))) == {0, 1}
    assert sorted(headers._parse_tables(segment)[0]) == wide


@pytest.mark.parametrize(("factors", "name"), [(0x12, "4:4:0"), (0x41, "4:1:1"), (0x42, "4:1:0"), (0x31, None)])
def test_rare_subsampling_is_named_as_by_exiftool(factors: int, name: str | None, tmp_path: Path) -> None:
    """factors: of luma, across in the high 4 bits and down in the low ones; those of chroma are 1."""
    frame = bytes([8, 0, 16, 0, 16, 3, 1, factors, 0, 2, 0x11, 1, 3, 0x11, 1])
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xc0\0\x11" + frame + b"\xff\xda\0\x02")
    assert headers.read_encoding(tmp_path / "a.jpg", "jpeg").subsampling == name


@pytest.mark.parametrize(
    ("loader", "expected"),
    [
        ("jpeg", Encoding("JPEG", lossless=False)),
        ("png", Encoding("PNG")),
        ("bmp", Encoding("BMP")),
        ("webp", Encoding("WebP")),
    ],
)
def test_a_header_that_ends_early_gives_the_defaults(loader: str, expected: Encoding, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xd8\xff\xd9")
    assert headers.read_encoding(tmp_path / "a", loader) == expected
