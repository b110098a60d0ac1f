"""EXIF of TIFF files and blocks, written and checked by Pillow and tifffile."""

import io
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

import format_matrix
from pellucid.pictures import resolution
from pellucid.pictures.containers import tiff
from pellucid.pictures.geometry import Change
from pellucid.pictures.records import exif

MAKE, EXPOSURE, LENS = 0x010F, 0x829A, 0xA434
TEXT, FRACTION = 2, 5


def block(order: str = "<") -> bytes:
    """By Pillow, in either byte order."""
    tags = format_matrix.exif()
    tags.endian = order
    return tags.tobytes()


def plain_tiff(**options: Any) -> io.BytesIO:
    file = io.BytesIO()
    tifffile.imwrite(file, format_matrix.noise(3), photometric="rgb", metadata=None, software=False, **options)
    return file


@pytest.mark.parametrize("order", ["<", ">"])
def test_blocks_are_parsed_in_both_byte_orders(order: str) -> None:
    tags = exif.parse_block(block(order))
    assert tags.main[MAKE] == (TEXT, 6, b"Canon\0")
    assert tags.exif[LENS] == (TEXT, 8, b"EF 50mm\0")
    assert tags.exif[EXPOSURE] == (FRACTION, 1, b"\1\0\0\0\xfa\0\0\0")  # 1/250
    assert tags.gps[1] == (TEXT, 2, b"N\0")
    assert 0x0112 not in tags.main  # the orientation is applied instead


def test_the_byte_order_does_not_change_the_tags_and_is_kept() -> None:
    assert exif.parse_block(block("<")) == exif.parse_block(block(">"))
    for order in "<>":
        rebuilt = exif.build_block(exif.parse_block(block(order)))
        assert rebuilt[6:8] == block(order)[6:8]
        assert exif.parse_block(rebuilt) == exif.parse_block(block(order))


def test_pillow_reads_our_blocks() -> None:
    tags = PIL.Image.Exif()
    tags.load(exif.build_block(exif.parse_block(block())))
    assert {tag: tags[tag] for tag in format_matrix.MAIN} == format_matrix.MAIN
    assert tags.get_ifd(0x8769)[LENS] == "EF 50mm"
    assert tags.get_ifd(0x8825)[2] == format_matrix.PLACE[2]


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tifffile_reads_added_tags_and_the_same_samples(order: str, big: bool, compression: str | None) -> None:
    file = plain_tiff(byteorder=order, bigtiff=big, compression=compression)
    assert tiff.write(file, {"exif-data": block()}, {}) == []
    file.seek(0)
    with tifffile.TiffFile(file) as again:
        assert len(again.pages) == 1
        tags = again.pages.first.tags
        assert np.array_equal(again.asarray(), format_matrix.noise(3))
        assert tags["Model"].value == "EOS 5D"
        assert tags["ExifTag"].value["ExposureTime"] == (1, 250)
        assert tags["ExifTag"].value["LensModel"] == "EF 50mm"
        assert tags["GPSTag"].value["GPSLatitude"] == (52, 1, 31, 1, 12, 1)
    found, expected = exif.parse_tiff(file), exif.parse_block(block())
    assert (found.exif, found.gps, found.interop) == (expected.exif, expected.gps, expected.interop)
    assert expected.main.items() <= found.main.items()


def test_interoperability_is_kept() -> None:
    tags = format_matrix.exif()
    tags.get_ifd(0x8769)[0xA005] = {1: "R98"}
    found = exif.parse_block(tags.tobytes())
    assert found.interop == {1: (TEXT, 4, b"R98\0")}
    assert exif.parse_block(exif.build_block(found)) == found


def test_the_resolution_has_a_unit() -> None:
    tags = PIL.Image.Exif()
    tags[0x011A] = tags[0x011B] = 254.0
    for unit, dots in ((2, 10.0), (3, 25.4)):
        tags[0x0128] = unit
        found = exif.read_resolution(tags.tobytes())
        assert (found["xres"], found["yres"]) == pytest.approx((dots, dots))
    tags[0x0128] = 1
    assert exif.read_resolution(tags.tobytes()) == {}
    assert exif.read_resolution(format_matrix.exif().tobytes()) == {}


@given(seed=st.integers(0, 10_000), num_flips=st.integers(1, 12), length=st.integers(0, 400))
def test_damaged_exif_never_raises(seed: int, num_flips: int, length: int) -> None:
    content = bytearray(block(">" if seed % 2 else "<"))
    rng = np.random.default_rng(seed)
    for _ in range(num_flips):
        content[int(rng.integers(len(content)))] = int(rng.integers(256))
    for damaged in (bytes(content), bytes(content[:length])):
        tags = exif.parse_block(damaged)
        assert exif.parse_block(exif.build_block(tags)) == tags
        exif.read_resolution(damaged)
        exif.adapt(damaged, Change(6, (30, 21), (42, 60)))


def test_an_offset_beyond_the_file_is_ignored() -> None:
    file = plain_tiff(bigtiff=True, description="a long description of it")
    content = bytearray(file.getvalue())
    place = content.index((270).to_bytes(2, "little")) + 12
    content[place : place + 8] = b"\xff" * 8
    assert exif.DESCRIPTION not in exif.parse_tiff(io.BytesIO(content)).main


def test_tags_about_inks_and_ranges_of_samples_are_not_about_the_picture() -> None:
    """TIFF 6.0, sections 16, 19 and 20."""
    names = (
        "InkSet",
        "InkNames",
        "NumberOfInks",
        "DotRange",
        "SMinSampleValue",
        "SMaxSampleValue",
        "TransferRange",
    )
    tags = [(tifffile.TIFF.TAGS[name], 3, 2, (1, 2), True) for name in names]
    file = plain_tiff(extratags=[*tags, (MAKE, TEXT, 0, "Acme", True)])
    found = exif.parse_tiff(file).main
    assert MAKE in found and not {tag for tag, *_ in tags} & found.keys()


def test_a_resolution_is_added_if_it_has_a_unit_and_the_block_has_none() -> None:
    dots = {unit: resolution.to_metadata(254, 127, unit) for unit in ("inch", "none")}
    added = exif.add_resolution(block(), dots["inch"])
    assert exif.read_resolution(added)["xres"] == pytest.approx(10)
    assert exif.add_resolution(block(), dots["none"]) == block()
    assert exif.add_resolution(block(), {}) == block()
    assert exif.add_resolution(added, resolution.to_metadata(300, 300, "inch")) == added
