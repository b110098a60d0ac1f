"""GeoTIFF tags after scaling: every place of the picture keeps its coordinates."""

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from tifffile.tifffile import imagej_metadata, imagej_metadata_tag

import format_matrix
from pellucid.pictures import images
from pellucid.pictures.geometry import Change
from pellucid.pictures.picture import Picture
from pellucid.pictures.records import geotiff
from pellucid.pictures.structures.ifd import Value

AREA, POINT = 1, 2


def doubles(*numbers: float) -> Value:
    return 12, len(numbers), struct.pack(f"<{len(numbers)}d", *numbers)


def keys(raster_type: int) -> Value:
    return 3, 8, struct.pack("<8H", 1, 1, 0, 1, 1025, 0, 1, raster_type)


def numbers_of(value: Value) -> tuple[float, ...]:
    return struct.unpack(f"<{value[1]}d", value[2])


def locate(tags: dict[int, Value], column: float, row: float) -> tuple[float, float]:
    """The coordinates of a place in the picture by the OGC's GeoTIFF 1.1. Whole numbers are edges of pixels."""
    if numbers_of_keys(tags) == POINT:
        column, row = column - 0.5, row - 0.5
    if geotiff.TRANSFORMATION in tags:
        a = numbers_of(tags[geotiff.TRANSFORMATION])
        return a[0] * column + a[1] * row + a[3], a[4] * column + a[5] * row + a[7]
    across, down, _ = numbers_of(tags[geotiff.PIXEL_SCALE])
    i, j, _, x, y, _ = numbers_of(tags[geotiff.TIE_POINTS])
    return x + (column - i) * across, y - (row - j) * down


def numbers_of_keys(tags: dict[int, Value]) -> int:
    return struct.unpack("<8H", tags[geotiff.KEYS][2])[7]


BY_TIE_POINT = {
    geotiff.PIXEL_SCALE: doubles(0.5, 0.25, 0),
    geotiff.TIE_POINTS: doubles(3, 7, 0, 500_000, 5_500_000, 0),
}
BY_MATRIX = {geotiff.TRANSFORMATION: doubles(0.5, 0.1, 0, 100, -0.2, 0.25, 0, 200, 0, 0, 0, 0, 0, 0, 0, 1)}


@given(
    tags=st.sampled_from([BY_TIE_POINT, BY_MATRIX]),
    raster_type=st.sampled_from([AREA, POINT]),
    factor=st.integers(1, 5),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
)
def test_every_place_keeps_its_coordinates(
    tags: dict[int, Value], raster_type: int, factor: int, x: float, y: float
) -> None:
    tags = tags | {geotiff.KEYS: keys(raster_type)}
    scaled, removed = geotiff.adapt(tags, Change(1, (64, 48), (64 * factor, 48 * factor)))
    before, after = locate(tags, 64 * x, 48 * y), locate(scaled, 64 * factor * x, 48 * factor * y)
    assert after == pytest.approx(before, abs=1e-6)
    assert removed == ()


def test_polynomials_are_scaled() -> None:
    tags = {50844: doubles(0, 0, 99.5, 199.5, 1, 2, 3, 100, 200, *range(83))}
    scaled, _ = geotiff.adapt(tags, Change(1, (400, 200), (800, 400)))
    assert numbers_of(scaled[50844])[:9] == (0, 0, 199.5, 399.5, 1, 2, 3, 200, 400)
    assert numbers_of(scaled[50844])[9:] == tuple(range(83))


def test_a_turned_picture_has_no_place() -> None:
    tags = BY_TIE_POINT | {geotiff.KEYS: keys(AREA)}
    turned, removed = geotiff.adapt(tags, Change(6, (64, 48), (48, 64)))
    assert turned == {geotiff.KEYS: keys(AREA)}
    assert removed == ("the place on the Earth (GeoTIFF), because the picture was turned",)


def test_regions_of_imagej_are_dropped_if_the_size_changes() -> None:
    tags: dict[int, Value] = {50838: (4, 2, bytes(8)), 50839: (1, 12, b"IJIJ roi \0\0\0\1")}
    assert geotiff.adapt(tags, Change(1, (6, 4), (6, 4))) == (tags, ())
    removed = "the regions of ImageJ"
    assert geotiff.adapt(tags, Change(1, (6, 4), (12, 8))) == ({}, (removed,))


@pytest.mark.parametrize("order", "<>")
def test_labels_and_colors_of_imagej_are_kept_without_its_regions(order: Literal["<", ">"]) -> None:
    """The data are written and read by tifffile."""
    metadata: dict[str, Any] = {
        "ROI": bytes(64), "Overlays": [bytes(70), bytes(72)], "Labels": ["a", "b"], "Ranges": (0.0, 1.0, 2.0, 3.0),
        "LUTs": [np.arange(768).astype(np.uint8).reshape(3, 256)],
    }  # fmt: skip
    given = {tag: content for tag, *_, content, _ in imagej_metadata_tag(metadata, order)}
    sizes = struct.unpack(f"{order}{len(given[50838]) // 4}I", given[50838])
    tags: dict[int, Value] = {
        50838: (4, len(sizes), struct.pack(f"<{len(sizes)}I", *sizes)),
        50839: (1, len(given[50839]), bytes(given[50839])),
    }
    adapted, removed = geotiff.adapt(tags, Change(1, (6, 4), (12, 8)))
    assert removed == ("the regions and overlays of ImageJ",)
    kept_sizes = struct.unpack(f"<{adapted[50838][1]}I", adapted[50838][2])
    read = imagej_metadata(adapted[50839][2], kept_sizes, order)
    assert set(read) == {"Labels", "Ranges", "LUTs"}
    assert read["Labels"] == metadata["Labels"] and read["Ranges"] == metadata["Ranges"]
    np.testing.assert_array_equal(np.ravel(read["LUTs"]), metadata["LUTs"][0].ravel())


@pytest.mark.parametrize(
    ("name", "maker"),
    [
        *[(name, "ZEISS") for name in ("CZ_SEM", "CZ_LSMINFO")],
        *[(name, "FEI") for name in ("FEI_SFEG", "FEI_HELIOS")],
        *[(name, "Olympus") for name in ("OlympusINI", "OlympusSIS", "MM_Header", "MM_Stamp")],
        *[("TVIPS", "TVIPS"), ("MicroManagerMetadata", "Micro-Manager")],
    ],
)
def test_the_description_by_a_microscope_is_dropped_if_the_size_changes(name: str, maker: str) -> None:
    """It contains the size of a pixel. The tags are those that tifffile reads."""
    tags: dict[int, Value] = {tifffile.TIFF.TAGS[name]: (2, 8, b"PixelX=1")}
    assert geotiff.adapt(tags, Change(1, (6, 4), (6, 4))) == (tags, ())
    assert geotiff.adapt(tags, Change(1, (6, 4), (12, 8))) == ({}, (f"the description by a microscope ({maker})",))


@given(content=st.binary(max_size=40), kind=st.sampled_from([3, 12]))
def test_damaged_values_stay(content: bytes, kind: int) -> None:
    size = {3: 2, 12: 8}[kind]
    content = content[: len(content) // size * size]
    tags = dict.fromkeys((33550, 33922, 34264, 33920, 50844, 34735), (kind, len(content) // size, content))
    adapted, _ = geotiff.adapt(tags, Change(1, (6, 4), (12, 8)))
    assert adapted.keys() == tags.keys()


def test_removed_data_of_imagej_are_named_as_they_are() -> None:
    """The sizes do not fit to the parts, so that all of them are removed."""
    head = b"IJIJ" + b"".join(kind + b"\0\0\0\1" for kind in (b"info", b"labl", b"over"))
    tags: dict[int, Value] = {50838: (4, 2, bytes(8)), 50839: (1, len(head), head)}
    adapted, removed = geotiff.adapt(tags, Change(1, (6, 4), (12, 8)))
    assert (adapted, removed) == ({}, ("the overlays, labels, notes of ImageJ",))


def test_values_of_gdal_are_those_of_another_depth_or_named(tmp_path: Path) -> None:
    items = b'<GDALMetadata>\n<Item name="STATISTICS_MAXIMUM" sample="0">65535</Item>\n<Item name="A">b</Item>\n'
    items += b'<Item name="SCALE" sample="0" role="scale">0.1</Item>\n</GDALMetadata>\0'
    extra = [(42112, 2, 0, items.decode(), True), (42113, 2, 0, "65535", True)]
    values = format_matrix.noise(1, "uint16")[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=extra, metadata=None)
    picture = images.read(tmp_path / "a.tif")
    (note,) = images.write(picture, tmp_path / "b.tif", bit_depth=8)
    assert "statistics and scales of values by GDAL, the value for no data (GDAL_NODATA)" in note
    assert images.write(picture, tmp_path / "c.tif") == ()
    with tifffile.TiffFile(tmp_path / "b.tif") as scaled, tifffile.TiffFile(tmp_path / "c.tif") as same:
        assert "A" in scaled.pages.first.tags[42112].value and "65535" not in scaled.pages.first.tags[42112].value
        assert 42113 not in scaled.pages.first.tags
        assert same.pages.first.tags[42113].value == "65535" and "0.1" in same.pages.first.tags[42112].value


@pytest.mark.skipif(shutil.which("convert") is None, reason="ImageMagick is not installed")
def test_the_place_on_a_page_is_scaled(tmp_path: Path) -> None:
    """ImageMagick reads it as its canvas."""
    made = ["-size", "40x20", "xc:red", "-density", "72", "-units", "PixelsPerInch", "-repage", "100x70+10+5"]
    subprocess.run(["convert", *made, str(tmp_path / "a.tif")], check=True)
    picture = images.read(tmp_path / "a.tif")
    samples = picture.samples.repeat(2, 0).repeat(2, 1)
    images.write(Picture(samples, metadata=picture.metadata, encoding=picture.encoding), tmp_path / "b.tif")
    found = [
        subprocess.run(["identify", "-format", "%g", str(path)], capture_output=True, text=True, check=True).stdout
        for path in (tmp_path / "a.tif", tmp_path / "b.tif")
    ]
    assert found == ["40x20+10+5", "80x40+20+10"]
    turned, removed = geotiff.adapt(picture.metadata["tiff-tags"], Change(6, (40, 20), (20, 40)))
    assert removed == ("the place on the page, because the picture was turned",)
    assert not {286, 287, 33300, 33301} & turned.keys()
