"""Tags of TIFF files, written by tifffile and read by ExifTool and tifffile."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

import exiftool
import format_matrix
from pellucid.pictures import images
from pellucid.pictures.containers import tiff
from pellucid.pictures.picture import Picture

Tag = tuple[int, str, int, Any, bool]

GEO: list[Tag] = [
    (33550, "d", 3, (0.5, 0.25, 0.0), True),
    (33922, "d", 6, (10.0, 20.0, 0.0, 500000.0, 5500000.0, 0.0), True),
    (34735, "H", 16, (1, 1, 1, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633), True),
    (42112, "s", 0, "<GDALMetadata/>", True),
    (42113, "s", 0, "-9999", True),
]
PRIVATE: list[Tag] = [
    (65000, "s", 0, "private", True),
    (65001, "d", 2, (1.5, 2.5), True),
    (285, "s", 0, "page", True),
    (297, "H", 2, (0, 1), True),
    (318, "2I", 2, (3127, 10000, 329, 1000), True),
    (315, "s", 0, "Zoe", True),
]

# Values that are not possible, of tags that decoding does not need.
ODDITIES: dict[str, list[Tag]] = {
    "orientation 0": [(274, "H", 1, 0, True)],
    "orientation 9": [(274, "H", 1, 9, True)],
    "orientation of two": [(274, "H", 2, (1, 1), True)],
    "orientation as text": [(274, "s", 0, "x", True)],
    "page number of one": [(297, "H", 1, 1, True)],
    "artist as a number": [(315, "H", 1, 1, True)],
    "date as a number": [(306, "I", 1, 5, True)],
    "largest sample as text": [(341, "s", 0, "x", True)],
    "subfile as text": [(254, "s", 0, "abc", True)],
    "names of inks": [(333, "s", 0, "abc", True)],
    "primaries of two": [(319, "H", 2, (1, 2), True)],
    "transfer function of seven": [(301, "H", 7, (1,) * 7, True)],
    "reference of one": [(532, "H", 1, 3, True)],
    "XMP of shorts": [(700, "H", 2, (1, 2), True)],
    "a profile of one": [(34675, "H", 1, 2, True)],
    "EXIF beyond the end": [(34665, "I", 1, 99_999_999, True)],
    "EXIF at 0": [(34665, "I", 1, 0, True)],
    "GPS in the header": [(34853, "I", 1, 3, True)],
    "directories beyond the end": [(330, "I", 1, 7_777_777, True)],
    "a scale of shorts": [(33550, "H", 3, (1, 1, 0), True)],
    "tags 0 and 1": [(0, "H", 1, 1, True), (1, "H", 1, 1, True)],
    "unknown tags": PRIVATE[:2],
}


def write(path: Path, tags: list[Tag], **options: Any) -> None:
    options = {"photometric": "rgb", "metadata": None, "software": False} | options
    tifffile.imwrite(path, format_matrix.noise(3), extratags=tags, **options)


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}])
@pytest.mark.parametrize("name", ODDITIES)
def test_odd_values_are_not_damage(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "a.tif", ODDITIES[name], **options)
    picture = images.read(tmp_path / "a.tif")
    assert np.array_equal(picture.samples, format_matrix.noise(3))
    images.write(picture, tmp_path / "b.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), format_matrix.noise(3))


@pytest.mark.parametrize("unit", [1, 2, 3])
@pytest.mark.parametrize("dots", [(1, 0), (0, 0), (0, 1)])
def test_a_resolution_of_zero_is_ignored(dots: tuple[int, int], unit: int, tmp_path: Path) -> None:
    write(tmp_path / "a.tif", [], resolution=(72, 72))
    content = (tmp_path / "a.tif").read_bytes().replace(struct.pack("<II", 72, 1), struct.pack("<II", *dots))
    (tmp_path / "a.tif").write_bytes(content)
    images.write(images.read(tmp_path / "a.tif"), tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert "XResolution" not in file.pages.first.tags


@exiftool.needed
@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}])
def test_tags_of_the_first_directory_are_kept(options: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "a.tif", [*GEO, *PRIVATE], resolution=(300.5, 200), resolutionunit="CENTIMETER", **options)
    assert images.write(images.read(tmp_path / "a.tif"), tmp_path / "b.tif") == ()
    before, after = exiftool.read_tags(tmp_path / "a.tif", tmp_path / "b.tif")
    storage = ("StripOffsets", "RowsPerStrip", "StripByteCounts", "Orientation", "SampleFormat")
    for tags in (before, after):
        for name in storage:
            tags.pop(f"IFD0:{name}", None)
    assert "IFD0:GDALNoData" in before
    assert after["GeoTiff:ProjectedCSType"] == "WGS84 UTM zone 33N"
    if "bigtiff" in options:  # in which ExifTool does not decode them
        before.pop("IFD0:GeoTiffDirectory")
        after = {name: value for name, value in after.items() if not name.startswith("GeoTiff:")}
    assert after == before


def test_tags_that_other_formats_cannot_store_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", [*GEO, *PRIVATE])
    picture = images.read(tmp_path / "a.tif")
    for suffix in ("jpg", "png", "webp", "bmp"):
        (note,) = images.write(picture, tmp_path / f"b.{suffix}")
        for name in ("ModelPixelScale", "ModelTiepoint", "GeoKeyDirectory", "GDAL_NODATA", "PageNumber", "0xFDE8"):
            assert name in note
    with PIL.Image.open(tmp_path / "b.jpg") as file:
        assert file.getexif()[315] == "Zoe"


def test_tables_for_another_depth_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", [(301, "H", 256, tuple(range(256)), True)])
    picture = images.read(tmp_path / "a.tif")
    assert images.write(picture, tmp_path / "b.tif") == ()
    (note,) = images.write(picture, tmp_path / "c.tif", bit_depth=16)
    assert note == "not kept in TIFF: TIFF tag TransferFunction, which is for another depth"


def test_names_of_inks_are_named(tmp_path: Path) -> None:
    inks = ("cyan", "magenta", "yellow", "black", "spot")
    extra = [(333, "s", 0, "\0".join(inks), True)]
    samples = np.zeros((9, 11, 5), np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="separated", extrasamples=[0], extratags=extra)
    encoding = images.read(tmp_path / "x.tif").encoding
    assert encoding is not None and "not kept: the names of inks" in encoding.notes


def test_captions_stored_as_numbers_are_read(tmp_path: Path) -> None:
    records = format_matrix.IPTC + bytes(-len(format_matrix.IPTC) % 4)
    for order in "<>":
        numbers = struct.unpack(f"{order}{len(records) // 4}I", records)
        write(tmp_path / "a.tif", [(33723, "I", len(numbers), numbers, True)])
        assert images.read(tmp_path / "a.tif").metadata["iptc-data"] == records


def test_layers_and_unreadable_tags_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", [(37724, "B", 4, b"8BIM", True), (65000, "s", 0, "a text of some length", True)])
    content = bytearray((tmp_path / "a.tif").read_bytes())
    place = content.index(struct.pack("<H", 65000))
    content[place + 8 : place + 12] = b"\xff\xff\xff\x7f"
    _, dropped = tiff.read(io.BytesIO(content))
    assert dropped == ("layers of Photoshop", "unreadable TIFF tag 0xFDE8")


def test_a_picture_in_memory_gets_no_tags(tmp_path: Path) -> None:
    assert images.write(Picture(format_matrix.noise(3)), tmp_path / "a.tif") == ()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert not {"XResolution", "ResolutionUnit", "Software", "ImageDescription"} & {
            tag.name for tag in file.pages.first.tags
        }


@pytest.mark.parametrize(("photometric", "kept"), [("minisblack", True), ("miniswhite", False)])
def test_curves_of_gray_are_kept_or_named(photometric: str, kept: bool, tmp_path: Path) -> None:
    curve: list[Tag] = [(290, "H", 1, 3, True), (291, "H", 256, tuple(range(2560, 0, -10)), True)]
    values = format_matrix.noise(1, "uint8")[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=photometric, extratags=curve, metadata=None)
    picture = images.read(tmp_path / "a.tif")
    assert picture.encoding is not None
    assert picture.encoding.notes == (() if kept else ("not kept: TIFF tag GrayResponseCurve",))
    images.write(picture, tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        tags = file.pages.first.tags
        assert (291 in tags, 290 in tags) == (kept, kept)
        assert not kept or tags[291].value == curve[1][3]


@pytest.mark.parametrize("black", [0, 16])
def test_reference_black_of_rgb_is_named(black: int, tmp_path: Path) -> None:
    levels: list[Tag] = [(532, "2I", 6, (black, 1, 255, 1) * 3, True)]
    values = format_matrix.noise(3, "uint8")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extratags=levels, metadata=None)
    encoding = images.read(tmp_path / "a.tif").encoding
    assert encoding is not None
    assert encoding.notes == (("not kept: TIFF tag ReferenceBlackWhite",) if black else ())


def test_the_shape_of_planar_channels_is_that_of_the_result(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(format_matrix.noise(3).transpose(2, 0, 1))
    tifffile.imwrite(
        tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", metadata={"axes": "SYX", "a": 1}
    )
    images.write(images.read(tmp_path / "a.tif"), tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        (series,) = file.series
        assert (series.kind, series.axes, series.shape) == ("shaped", "YXS", (21, 30, 3))
        assert file.shaped_metadata is not None and file.shaped_metadata[0]["a"] == 1
        np.testing.assert_array_equal(series.asarray(), planes.transpose(1, 2, 0))


@pytest.mark.parametrize("black", [0, 16])
def test_reference_black_of_ycbcr_is_named(black: int, tmp_path: Path) -> None:
    """libtiff's JPEG codec ignores it, other programs do not."""
    tifffile.imwrite(tmp_path / "x.tif", format_matrix.photo(), photometric="ycbcr", compression="jpeg")
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+") as file:
        levels = (black, 1, 255 - black, 1, 128, 1, 255, 1, 128, 1, 255, 1)
        file.pages.first.tags[532].overwrite(levels)
    encoding = images.read(tmp_path / "x.tif").encoding
    assert encoding is not None
    assert encoding.notes == (("not kept: TIFF tag ReferenceBlackWhite",) if black else ())
