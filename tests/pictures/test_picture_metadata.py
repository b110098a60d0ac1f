"""Metadata after turning and scaling, and in other formats, checked by ExifTool and Pillow."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import exiftool
import format_matrix
from pellucid.pictures import images, metadata
from pellucid.pictures.picture import Picture
from pellucid.pictures.records import iptc

TAGS = (
    *("-Make=Acme", "-Orientation#=6", "-ExifImageWidth=60", "-ExifImageHeight=42", "-SubjectArea=15 14 6 4"),
    *("-XResolution=300", "-YResolution=200", "-ResolutionUnit=inches", "-FocalPlaneXResolution=1000"),
    *("-FocalPlaneYResolution=2000", "-SubjectLocation=15 14", "-InteropIndex=R98", "-RelatedImageWidth=60"),
    *("-RelatedImageHeight=42", "-XMP-tiff:Orientation#=6", "-XMP-tiff:ImageWidth=60", "-XMP-tiff:ImageHeight=42"),
)
AFTER = {  # turned by 90 degrees and enlarged twice: 84 x 120
    "IFD0:Orientation": "Horizontal (normal)",
    "IFD0:XResolution": 200,
    "IFD0:YResolution": 300,
    "ExifIFD:ExifImageWidth": 84,
    "ExifIFD:ExifImageHeight": 120,
    "ExifIFD:SubjectArea": "56 30 8 12",
    "ExifIFD:SubjectLocation": "56 30",
    "ExifIFD:FocalPlaneXResolution": 4000,
    "ExifIFD:FocalPlaneYResolution": 2000,
    "InteropIFD:RelatedImageWidth": 84,
    "InteropIFD:RelatedImageHeight": 120,
    "XMP-tiff:Orientation": "Horizontal (normal)",
    "XMP-tiff:ImageWidth": 84,
    "XMP-tiff:ImageHeight": 120,
}


def enlarged(picture: Picture, factor: int = 2) -> Picture:
    samples = picture.samples.repeat(factor, 0).repeat(factor, 1)
    return Picture(samples, metadata=picture.metadata, encoding=picture.encoding)


@exiftool.needed
@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_metadata_are_true_after_turning_and_scaling(suffix: str, order: str, tmp_path: Path) -> None:
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    PIL.Image.fromarray(format_matrix.photo()).save(source, **options)
    exiftool.write_tags(source, f"-ExifByteOrder={order}", *TAGS)
    picture = images.read(source)
    assert (picture.width, picture.height) == (42, 60)
    assert picture.metadata[metadata.SIZE] == (42, 60)
    assert images.write(enlarged(picture), target) == ()
    (after,) = exiftool.read_tags(target)
    assert {name: after.get(name) for name in AFTER} == AFTER


@exiftool.needed
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_and_xmp_survive_every_conversion(suffix: str, tmp_path: Path) -> None:
    source, targets = (
        tmp_path / f"a.{suffix}",
        [tmp_path / f"b.{other}" for other in ("jpg", "png", "tif", "webp")],
    )
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    PIL.Image.fromarray(format_matrix.photo()).save(source, **options)
    exiftool.write_tags(
        source,
        *("-IFD0:Make=Acme", "-IFD0:Artist=Zoë", "-XPTitle=ttl", "-IFD0:Copyright=(c) Ünï", "-IFD0:Rating=3"),
        *("-UserComment=hällo", "-AmbientTemperature=21.5", "-ExifIFD:SerialNumber=7"),
        *("-GPSLatitude=48.1", "-GPSLatitudeRef=N", "-GPSProcessingMethod=GPS", "-GPSHPositioningError=5"),
        *("-ExifIFD:OffsetTimeOriginal=+02:00", "-XMP:Title=tïtle", "-XMP:Rating=4"),
    )
    picture = images.read(source)
    for target in targets:
        assert images.write(picture, target) == ()
    groups = ("ExifIFD", "GPS", "XMP", "IFD0:Artist", "IFD0:Make", "IFD0:XP", "IFD0:Copyright", "IFD0:Rating")
    expected, *found = (
        {name: value for name, value in tags.items() if name.startswith(groups)}
        for tags in exiftool.read_tags(source, *targets)
    )
    assert len(expected) >= 13
    for tags in found:
        assert tags == expected


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "bmp"])
def test_a_picture_of_another_size_gets_true_sizes(suffix: str, tmp_path: Path) -> None:
    tags = format_matrix.exif()
    tags.get_ifd(0x8769).update({0xA002: 7, 0xA003: 8})
    picture = Picture(format_matrix.photo(), metadata={"exif-data": tags.tobytes()})
    images.write(picture, tmp_path / f"a.{suffix}")
    if suffix != "bmp":
        with PIL.Image.open(tmp_path / f"a.{suffix}") as file:
            written = file.getexif().get_ifd(0x8769)
            assert (written[0xA002], written[0xA003]) == (60, 42)


def test_sizes_that_do_not_fit_become_long_and_places_are_removed() -> None:
    tags = format_matrix.exif()
    tags.get_ifd(0x8769).update({0xA002: 400, 0xA003: 300, 0x9214: (390, 290)})
    found, _ = metadata.adapt({"exif-data": tags.tobytes()}, before=(400, 300), after=(80_000, 60_000))
    again = PIL.Image.Exif()
    again.load(found["exif-data"])
    taken = again.get_ifd(0x8769)
    assert (taken[0xA002], taken[0xA003]) == (80_000, 60_000)
    assert 0x9214 not in taken
    assert taken[0xA434] == "EF 50mm"


def test_paths_of_photoshop_are_only_true_for_upright_pictures(tmp_path: Path) -> None:
    path = b"8BIM\x07\xd0\0\0" + (26).to_bytes(4, "big") + bytes(26)
    guides = b"8BIM\x04\x08\0\0" + (16).to_bytes(4, "big") + bytes(16)
    found = {"photoshop-data": path + guides, "iptc-data": format_matrix.IPTC}
    kept, removed = metadata.adapt(found, before=(60, 42), after=(120, 84))
    assert (kept["photoshop-data"], removed) == (path, ("guides of Photoshop",))
    kept, removed = metadata.adapt(found, orientation=6, before=(60, 42), after=(42, 60))
    assert "photoshop-data" not in kept
    assert removed == ("paths of Photoshop, because the picture was turned", "guides of Photoshop")
    assert kept["iptc-data"] == format_matrix.IPTC
    assert iptc.parse_resources(path + guides).others == path + guides


def test_notes_are_about_the_picture_and_the_format(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(format_matrix.jpeg(format_matrix.photo()))
    picture = images.read(tmp_path / "a.jpg")
    assert images.write(picture, tmp_path / "b.bmp") == ("not kept in BMP: EXIF, XMP, IPTC",)
    assert np.array_equal(images.read(tmp_path / "b.bmp").samples, picture.samples)
    assert images.write(Picture(format_matrix.photo()), tmp_path / "c.bmp") == ()
