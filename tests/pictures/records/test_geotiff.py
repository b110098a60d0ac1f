"""GeoTIFF tags after scaling: every place of the picture keeps its coordinates."""

import struct
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tifffile.tifffile import imagej_metadata, imagej_metadata_tag

from pellucid.pictures.geometry import Change
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
