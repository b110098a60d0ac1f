"""Descriptions of scientific TIFF files, checked by tifffile."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tifffile

import format_matrix
from pellucid.pictures import images
from pellucid.pictures.geometry import Change
from pellucid.pictures.picture import Picture
from pellucid.pictures.records import descriptions


def enlarged(path: Path, factor: int, target: Path) -> None:
    """Write a picture enlarged by pixel repetition, as a network would return it."""
    picture = images.read(path)
    samples = picture.samples.repeat(factor, 0).repeat(factor, 1)
    images.write(Picture(samples, metadata=picture.metadata, encoding=picture.encoding), target)


def written(tmp_path: Path, factor: int = 2, **options: Any) -> tifffile.TiffFile:
    name = "a.ome.tif" if options.get("ome") else "a.tif"
    tifffile.imwrite(tmp_path / name, format_matrix.noise(1, "uint16")[..., 0], **options)
    enlarged(tmp_path / name, factor, tmp_path / "b.tif")
    return tifffile.TiffFile(tmp_path / "b.tif")


def test_ome_sizes_are_scaled(tmp_path: Path) -> None:
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "nm"}
    with written(tmp_path, ome=True, metadata={"axes": "YX", **sizes}) as file:
        assert file.is_ome and file.ome_metadata is not None
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        assert (pixels["SizeX"], pixels["SizeY"]) == (60, 42)
        assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"]) == (0.25, 0.125)
        assert (pixels["PhysicalSizeXUnit"], pixels["PhysicalSizeYUnit"]) == ("µm", "nm")
        assert file.series[0].shape == (42, 60)


def test_ome_axes_are_exchanged() -> None:
    text = '<OME><Pixels SizeX="6" SizeY="4" PhysicalSizeX="0.5" PhysicalSizeXUnit="mm" PhysicalSizeY="2"/></OME>'
    expected = (
        '<OME><Pixels SizeY="6" SizeX="4" PhysicalSizeY="0.5" PhysicalSizeYUnit="mm" PhysicalSizeX="2"/></OME>'
    )
    assert descriptions.adapt(text, Change(6, (6, 4), (4, 6)))[0] == expected


def test_the_resolution_of_imagej_is_per_unit_of_the_object(tmp_path: Path) -> None:
    options: dict[str, Any] = {"imagej": True, "resolution": (4.0, 2.0), "metadata": {"unit": "um", "axes": "YX"}}
    with written(tmp_path, **options) as file:
        assert file.is_imagej and file.imagej_metadata is not None
        assert file.imagej_metadata["unit"] == "um"
        tags = file.pages.first.tags
        assert (tags["XResolution"].value, tags["YResolution"].value) == ((8, 1), (4, 1))
        assert tags["ResolutionUnit"].value == 1
        assert file.asarray().shape == (42, 60)


def test_dots_per_inch_stay(tmp_path: Path) -> None:
    with written(tmp_path, resolution=(300, 200), resolutionunit="INCH") as file:
        tags = file.pages.first.tags
        assert (tags["XResolution"].value, tags["YResolution"].value) == ((300, 1), (200, 1))


@pytest.mark.parametrize("shape", [(21, 30), (21, 30, 3)])
def test_the_shape_of_tifffile_is_scaled(shape: tuple[int, ...], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8))
    enlarged(tmp_path / "a.tif", 3, tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.is_shaped
        assert file.series[0].shape == (63, 90, *shape[2:])


@pytest.mark.parametrize(
    "text", ["", "a note", '{"shape": 3}', '{"shape": [1, 2', '{"shape":', "<OME><Pixels></OME>"]
)
def test_other_texts_stay(text: str) -> None:
    assert descriptions.adapt(text, Change(6, (6, 4), (8, 12))) == (text, ())


@pytest.mark.parametrize("prefix", ["", "ome:"])
def test_regions_of_ome_are_removed_with_a_note(prefix: str) -> None:
    region = f'<{prefix}ROI ID="ROI:0"><{prefix}Union><{prefix}Point X="1" Y="2"/></{prefix}Union></{prefix}ROI>'
    text = f'<{prefix}OME><{prefix}Image><{prefix}ROIRef ID="ROI:0"/></{prefix}Image>{{}}</{prefix}OME>'
    before = text.format(region * 2)
    assert descriptions.adapt(before, Change(1, (6, 4), (6, 4))) == (before, ())
    adapted, removed = descriptions.adapt(before, Change(1, (6, 4), (12, 8)))
    assert adapted == text.format("").replace(f'<{prefix}ROIRef ID="ROI:0"/>', "")
    assert removed == ("the regions of OME",)


def test_micrometers_per_pixel_of_aperio(tmp_path: Path) -> None:
    text = "Aperio Image Library v1\n30x21 -> 30x21|AppMag = 20|MPP = 0.4990|Left = 1"
    with written(tmp_path, description=text, metadata=None) as file:
        assert "|MPP = 0.2495|Left" in file.pages.first.description


@pytest.mark.parametrize("tag", [34118, 34682])
def test_sizes_stated_by_microscopes_are_removed_with_a_note(tag: int, tmp_path: Path) -> None:
    values = format_matrix.noise(1, "uint16")[..., 0]
    tags: Any = [(tag, "s", 0, "PixelWidth=1e-9", True)]
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=tags, metadata=None)
    picture = images.read(tmp_path / "a.tif")
    assert images.write(picture, tmp_path / "b.tif") == ()
    assert b"PixelWidth" in (tmp_path / "b.tif").read_bytes()
    samples = picture.samples.repeat(2, 0).repeat(2, 1)
    larger = Picture(samples, metadata=picture.metadata, encoding=picture.encoding)
    (note,) = images.write(larger, tmp_path / "c.tif")
    assert note.startswith("not kept in TIFF: the description by a microscope (")
    assert b"PixelWidth" not in (tmp_path / "c.tif").read_bytes()


def test_places_in_the_file_are_removed_with_a_note(tmp_path: Path) -> None:
    values = format_matrix.noise(1, "uint16")[..., 0]
    tags: Any = [(33560, "I", 1, 8, True)]
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=tags, metadata=None)
    encoding = images.read(tmp_path / "a.tif").encoding
    assert encoding is not None
    assert encoding.notes == ("not kept: the description by a microscope (Olympus)",)


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((21, 30, 4), {"photometric": "separated"}, (21, 30, 3)),
        ((21, 30, 5), {"photometric": "separated", "extrasamples": ["unassalpha"]}, (21, 30, 4)),
        ((4, 21, 30), {"photometric": "separated", "planarconfig": "separate"}, (21, 30, 3)),
        (
            (21, 30),
            {"photometric": "palette", "colormap": np.arange(768, dtype=np.uint16).reshape(3, 256)},
            (21, 30, 3),
        ),
    ],
)
@pytest.mark.parametrize("axes", [True, False])
def test_the_shape_of_tifffile_has_the_channels_of_the_result(
    shape: tuple[int, ...], options: dict[str, Any], expected: tuple[int, ...], axes: bool, tmp_path: Path
) -> None:
    named = {2: "YX", 3: "SYX" if "planarconfig" in options else "YXS"}[len(shape)]
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros(shape, np.uint8), metadata={"axes": named} if axes else {}, **options
    )
    images.write(images.read(tmp_path / "a.tif"), tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.is_shaped and file.shaped_metadata is not None
        assert tuple(file.shaped_metadata[0]["shape"]) == expected
        assert file.series[0].shape == expected == file.asarray().shape
        assert not axes or file.series[0].axes == "YXS"


def test_every_page_of_imagej_has_the_resolution_of_its_unit(tmp_path: Path) -> None:
    stack = np.zeros((3, 21, 30), np.uint16)
    options: dict[str, Any] = {"imagej": True, "resolution": (4.0, 2.0), "metadata": {"unit": "um", "axes": "ZYX"}}
    tifffile.imwrite(tmp_path / "a.tif", stack, **options)
    pages = images.list_pages(tmp_path / "a.tif")
    assert pages is not None
    enlarged_pages = [images.read_page(page) for page in pages.pages]
    enlarged_pages = [
        Picture(page.samples.repeat(2, 0).repeat(2, 1), metadata=page.metadata, encoding=page.encoding)
        for page in enlarged_pages
    ]
    images.write_pages(enlarged_pages, tmp_path / "b.tif", pages, scale=2)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        tags = [cast(tifffile.TiffPage, page).tags for page in file.pages]
        assert [page_tags["XResolution"].value for page_tags in tags] == [(8, 1)] * 3
        assert [page_tags["YResolution"].value for page_tags in tags] == [(4, 1)] * 3
    images.write(enlarged_pages[0], tmp_path / "c.png")
    second = images.read(tmp_path / "a.tif", page=2).metadata
    assert (second["xres"], second["yres"]) == (4.0, 2.0)


@pytest.mark.parametrize("page", [1, 2])
def test_significant_bits_of_ome_are_white(page: int, tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 4096, (2, 21, 30), np.uint16)
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": "ZYX", "SignificantBits": 12})
    picture = images.read(tmp_path / "a.ome.tif", page=page)
    assert picture.encoding is not None and picture.encoding.white == 4095
    assert "white is 4095, as SignificantBits of OME specifies; --white changes it" in picture.encoding.notes
    assert (picture.samples[..., 0] == np.floor(stack[page - 1] * (65535 / 4095) + 0.5)).all()
    images.write(picture, tmp_path / "b.tif")
    assert (tifffile.imread(tmp_path / "b.tif") == stack[page - 1]).all()
    same = images.read(tmp_path / "a.ome.tif", page=page, white=65535)
    assert (same.samples[..., 0] == stack[page - 1]).all()


@pytest.mark.parametrize(
    ("stored", "bit_depth", "kind", "bits"),
    [
        ("uint16", 8, "uint8", 8),
        ("uint16", 16, "uint16", 12),
        ("uint16", 32, "float", 32),
        ("uint8", 16, "uint16", 16),
        ("float64", None, "float", 32),
        ("float32", 16, "uint16", 16),
    ],
)
def test_the_type_of_ome_is_that_of_the_result(
    stored: str, bit_depth: int | None, kind: str, bits: int, tmp_path: Path
) -> None:
    values = format_matrix.noise(1, "uint16")[..., 0]
    values = (values / 65535).astype(stored) if stored.startswith("float") else (values >> 4).astype(stored)
    significant = {"uint16": 12, "uint8": 8}.get(stored, 64)
    metadata = {"axes": "YX", "SignificantBits": significant}
    tifffile.imwrite(tmp_path / "a.ome.tif", values, byteorder=">", metadata=metadata)
    images.write(images.read(tmp_path / "a.ome.tif"), tmp_path / "b.ome.tif", bit_depth=bit_depth)
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as file:
        assert file.ome_metadata is not None
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        assert (pixels["Type"], pixels["SignificantBits"]) == (kind, bits)
        assert np.dtype({"float": "float32"}.get(kind, kind)) == file.series[0].dtype == file.asarray().dtype
        assert pixels.get("BigEndian", "false") in (False, "false")
    again = images.read(tmp_path / "b.ome.tif")
    assert again.encoding is not None and again.encoding.white == (4095 if bits == 12 else None)


def test_values_that_imagej_shows_are_those_of_the_result(tmp_path: Path) -> None:
    values = format_matrix.noise(1, "uint16")[..., 0]
    metadata = {"axes": "YX", "min": 257.0, "max": 51400.0, "Ranges": (514.0, 25700.0), "Info": "a"}
    tifffile.imwrite(tmp_path / "a.tif", values, imagej=True, metadata=metadata)
    images.write(images.read(tmp_path / "a.tif"), tmp_path / "b.tif", bit_depth=8)
    images.write(images.read(tmp_path / "a.tif"), tmp_path / "c.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as scaled, tifffile.TiffFile(tmp_path / "c.tif") as same:
        assert scaled.imagej_metadata is not None and same.imagej_metadata is not None
        names = ("min", "max", "Ranges", "Info")
        assert [scaled.imagej_metadata[name] for name in names] == [1, 200, (2, 100), "a"]
        assert [same.imagej_metadata[name] for name in names] == [257, 51400, (514, 25700), "a"]


def test_a_calibration_of_other_values_is_removed_with_a_note() -> None:
    text = "ImageJ=1.54f\nmin=0\nmax=100\ncf=0\nc0=0.5\nc1=2.0\nvunit=OD\n"
    change = Change(1, (6, 4), (6, 4), dtype="uint8", value_scale=255 / 65535)
    adapted, removed = descriptions.adapt(text.replace("100", "65535"), change)
    assert adapted == "ImageJ=1.54f\nmin=0.0\nmax=255.0\n"
    assert removed == ("the calibration of values by ImageJ",)
    assert descriptions.adapt(text, Change(1, (6, 4), (12, 8), dtype="uint16")) == (text, ())
