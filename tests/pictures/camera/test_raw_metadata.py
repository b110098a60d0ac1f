"""Metadata of camera RAW files, written by exiftool into files of each structure, and read back by exiftool."""

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from test_dng import mosaic
from test_raw_data import scene

from pellucid.pictures import images
from pellucid.pictures.camera import dng, raw, raw_metadata
from pellucid.pictures.picture import Picture
from raw_structures import build_cr3, build_mrw, build_raf, build_rw2
from sample_files import build_dng

pytestmark = pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool writes and reads the metadata")

KEPT = {
    "IFD0:Make": "Canon",
    "IFD0:Model": "EOS X",
    "IFD0:ImageDescription": "a night",
    "IFD0:Artist": "A. Uthor",
    "IFD0:Copyright": "C",
    "ExifIFD:ExposureTime": "1/50",
    "ExifIFD:ExposureCompensation": "-1",
    "ExifIFD:OffsetTimeOriginal": "+02:00",
    "ExifIFD:SubSecTimeOriginal": "12",
    "ExifIFD:LensSerialNumber": "9",
    "ExifIFD:CompositeImage": "Not a Composite Image",
    "GPS:GPSLatitudeRef": "North",
    "GPS:GPSLatitude": "48 deg 6' 0.00\"",
    "XMP-dc:Subject": "cat",
    "XMP-xmp:Rating": "4",
    "IPTC:Keywords": "cat",
}
NOT_KEPT = {
    "XMP-crs:Exposure2012": "+1.00",
    "XMP-crs:ToneCurvePV2012": "0, 0",
    "XMP-dc:Format": "image/x-canon-cr2",
    "XMP-tiff:BitsPerSample": "14",
    "ExifIFD:CFAPattern": "[Red,Green][Green,Blue]",
}


def describe(path: Path, tags: dict[str, str]) -> None:
    given = [f"-{name}={value}" for name, value in tags.items()]
    subprocess.run(["exiftool", "-q", "-m", "-overwrite_original", *given, str(path)], check=True)


def read_tags(path: Path) -> dict[str, Any]:
    command = ["exiftool", "-j", "-G1", str(path)]
    (found,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {name: str(value) for name, value in found.items()}


def jpeg(folder: Path) -> bytes:
    """A JPEG of a camera, turned to the left, with a maker note of Canon."""
    path = folder / "camera.jpg"
    PIL.Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(path)
    describe(path, KEPT | NOT_KEPT | {"Orientation#": "6", "ColorSpace#": "65535", "InteropIndex#": "R03"})
    return path.read_bytes()


def xmp_of(content: bytes) -> bytes:
    with PIL.Image.open(io.BytesIO(content)) as file:
        return bytes(file.info["xmp"])


def build_dng_file(folder: Path, **options: Any) -> bytes:
    path = folder / "a.dng"
    path.write_bytes(build_dng(scene(), **options))
    describe(path, KEPT | NOT_KEPT)
    return path.read_bytes()


BUILDERS: dict[str, Callable[[Path], bytes]] = {
    "dng": build_dng_file,
    "big-endian dng": lambda folder: build_dng_file(folder, byteorder=">"),
    "raf": lambda folder: build_raf(jpeg(folder)),
    "mrw": lambda folder: build_mrw(jpeg(folder)),
    "rw2": lambda folder: build_rw2(jpeg(folder)),
    "cr3": lambda folder: build_cr3(xmp_of(jpeg(folder))),
}
MISSING = {  # in files that cannot contain them, or that are built here without
    "mrw": {"XMP-dc:Subject", "XMP-xmp:Rating", "IPTC:Keywords"},
    "cr3": {"IPTC:Keywords", "ExifIFD:CompositeImage"},
}


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
@pytest.mark.parametrize("kind", BUILDERS)
def test_what_a_file_says_about_the_picture_is_kept(tmp_path: Path, kind: str, suffix: str) -> None:
    found, dropped = raw_metadata.read(io.BytesIO(BUILDERS[kind](tmp_path)))
    if kind != "mrw":
        assert dropped == ("settings of RAW developers",)
    result = tmp_path / f"result{suffix}"
    assert not images.write(Picture(np.zeros((64, 96, 3), np.uint8), metadata=found), result) or suffix == ".webp"
    tags = read_tags(result)
    missing = MISSING.get(kind, set()) | ({"IPTC:Keywords"} if suffix == ".webp" else set())
    assert {name: tags.get(name) for name in KEPT.keys() - missing} == {
        name: KEPT[name] for name in KEPT.keys() - missing
    }
    assert not NOT_KEPT.keys() & tags.keys()
    assert tags["ExifIFD:ColorSpace"] == "sRGB"
    assert tags.get("IFD0:Orientation", "Horizontal (normal)") == "Horizontal (normal)"
    assert "InteropIFD:InteropIndex" not in tags
    assert not {name for name in tags if name.startswith(("SubIFD", "IFD1"))}
    if kind == "cr3":
        assert tags["Canon:CanonImageType"] == "IMG:EOS X JPEG"
        assert "ExifTool:Warning" not in tags


@pytest.mark.parametrize("orientation", [1, 6])
def test_developed_pictures_and_mosaics_have_the_metadata_of_their_file(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.dng"
    dng.write(mosaic(orientation=orientation), path)
    region = "[{Area={X=0.25,Y=0.2,W=0.1,H=0.1,Unit=normalized},Type=Face,Name=A}]"
    size = f"{{W={mosaic().width},H={mosaic().height},Unit=pixel}}"
    subject = {
        "XMP-mwg-rs:RegionInfo": f"{{AppliedToDimensions={size},RegionList={region}}}",
        "XMP-tiff:Orientation#": str(orientation),
        "ExifIFD:ExifImageWidth": "9",
        "ExifIFD:ExifImageHeight": "9",
        "ExifIFD:SubjectLocation": "4 10",  # of 26 x 23 px
    }
    describe(path, KEPT | subject)
    picture, frame = raw.develop(path), raw.read(path)
    for result in (picture, Picture(np.zeros((frame.height, frame.width, 3), np.uint8), metadata=frame.metadata)):
        upright = result if result is picture else result.apply_orientation(orientation)
        images.write(upright, tmp_path / "result.tif", overwrite=True)
        tags = read_tags(tmp_path / "result.tif")
        assert KEPT.items() <= tags.items()
        turned = orientation == 6
        assert float(tags["XMP-mwg-rs:RegionAreaX"]) == pytest.approx(0.8 if turned else 0.25)
        assert float(tags["XMP-mwg-rs:RegionAreaY"]) == pytest.approx(0.25 if turned else 0.2)
        assert tags["XMP-tiff:Orientation"] == "Horizontal (normal)"
        assert tags["ExifIFD:ExifImageWidth"] == str(upright.width)
        assert tags["ExifIFD:ExifImageHeight"] == str(upright.height)
        assert tags["ExifIFD:SubjectLocation"] == ("13 4" if turned else "4 10")
        assert not {"IFD0:CFAPattern2", "IFD0:BlackLevel", "IFD0:ColorMatrix1", "IFD0:DNGVersion"} & tags.keys()


def test_files_without_exif_get_what_libraw_knows(tmp_path: Path) -> None:
    known = dng.encode(mosaic())
    taken = raw_metadata.read(io.BytesIO(known))[0]["exif-data"]
    found, dropped = raw_metadata.read(io.BytesIO(b"HEAPCCDR"), known=taken)
    images.write(Picture(np.zeros((9, 9, 3), np.uint8), metadata=found), tmp_path / "a.tif")
    assert read_tags(tmp_path / "a.tif")["ExifIFD:ISO"] == "3200"
    assert dropped == ()


def test_the_preview_answers_for_unknown_structures(tmp_path: Path) -> None:
    found, _ = raw_metadata.read(io.BytesIO(b"FOVb" + bytes(99)), read_preview=lambda: jpeg(tmp_path))
    images.write(Picture(np.zeros((9, 9, 3), np.uint8), metadata=found), tmp_path / "a.tif")
    assert KEPT.items() <= read_tags(tmp_path / "a.tif").items()


@pytest.mark.parametrize("kind", BUILDERS)
def test_damaged_structures_are_read_as_far_as_possible(tmp_path: Path, kind: str) -> None:
    content = BUILDERS[kind](tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content[: rng.integers(0, len(content))])
        for place in rng.integers(0, max(1, len(damaged)), 5) if damaged else ():
            damaged[place] = rng.integers(0, 256)
        raw_metadata.read(io.BytesIO(bytes(damaged)))
