"""Metadata of camera RAW files, written by exiftool into files of each structure, and read back by exiftool."""

import io
import json
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from test_dng import mosaic
from test_raw_data import box, scene

from pellucid.pictures import dng, images, raw, raw_metadata
from pellucid.pictures.picture import Picture
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


def exif_of(content: bytes) -> bytes:
    with PIL.Image.open(io.BytesIO(content)) as file:
        return bytes(file.info["exif"][6:])


def build_dng_file(folder: Path) -> bytes:
    path = folder / "a.dng"
    path.write_bytes(build_dng(scene()))
    describe(path, KEPT | NOT_KEPT)
    return path.read_bytes()


def build_big_endian_dng(folder: Path) -> bytes:
    path = folder / "a.dng"
    path.write_bytes(build_dng(scene(), byteorder=">"))
    describe(path, KEPT | NOT_KEPT)
    return path.read_bytes()


def build_raf(folder: Path) -> bytes:
    preview = jpeg(folder)
    places = struct.pack(">6I", 160, len(preview), 160 + len(preview), 8, 168 + len(preview), 100)
    return (b"FUJIFILMCCD-RAW ".ljust(84, b"\0") + places).ljust(160, b"\0") + preview + bytes(108)


def build_mrw(folder: Path) -> bytes:
    exif = exif_of(jpeg(folder))
    blocks = b"\0PRD" + struct.pack(">I", 24) + bytes(24) + b"\0TTW" + struct.pack(">I", len(exif)) + exif
    return b"\0MRM" + struct.pack(">I", len(blocks)) + blocks + bytes(100)


def build_rw2(folder: Path) -> bytes:
    """The JPEG of the camera is the value of a tag in the first directory."""
    preview = jpeg(folder)
    entries = struct.pack("<HHII", 0x002E, 7, len(preview), 100) + struct.pack("<HHII", 0x010F, 2, 4, 0x434241)
    return (b"IIU\0" + struct.pack("<IH", 8, 2) + entries).ljust(100, b"\0") + preview


def small_tiff(tags: dict[int, tuple[int, bytes]]) -> bytes:
    """A TIFF with one directory of texts and bytes. tags: (type, content)."""
    rows, values, start = b"", b"", 8 + 2 + 12 * len(tags) + 4
    for tag, (kind, content) in sorted(tags.items()):
        place = struct.pack("<I", start + len(values)) if len(content) > 4 else content.ljust(4, b"\0")
        count = len(content) // {2: 1, 5: 8, 10: 8}[kind]
        rows += struct.pack("<HHI", tag, kind, count) + place
        values += content if len(content) > 4 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + bytes(4) + values


def build_cr3(folder: Path) -> bytes:
    """Directories as blocks of their own, the maker note with offsets from the start of its block."""
    with PIL.Image.open(io.BytesIO(jpeg(folder))) as file:
        xmp = file.info["xmp"]
    main = {0x010E: b"a night\0", 0x010F: b"Canon\0", 0x0110: b"EOS X\0", 0x013B: b"A. Uthor\0", 0x8298: b"C\0"}
    taken = {
        0x829A: (5, struct.pack("<II", 1, 50)),
        0x9204: (10, struct.pack("<ii", -1, 1)),
        0x9011: (2, b"+02:00\0"),
        0x9291: (2, b"12\0"),
        0xA435: (2, b"9\0"),
    }
    latitude = struct.pack("<6I", 48, 1, 6, 1, 0, 1)
    canon = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
    blocks = [
        (b"CMT1", small_tiff({tag: (2, text) for tag, text in main.items()})),
        (b"CMT2", small_tiff(taken)),
        (b"CMT3", small_tiff({0x0006: (2, b"IMG:EOS X JPEG\0")})),
        (b"CMT4", small_tiff({1: (2, b"N\0"), 2: (5, latitude)})),
    ]
    moov = box(b"moov", box(b"uuid", canon + b"".join(box(*block) for block in blocks)))
    xmp_box = box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + xmp)
    return box(b"ftyp", b"crx \0\0\0\1crx isom") + moov + xmp_box + box(b"mdat", bytes(100))


BUILDERS: dict[str, Callable[[Path], bytes]] = {
    "dng": build_dng_file,
    "big-endian dng": build_big_endian_dng,
    "raf": build_raf,
    "mrw": build_mrw,
    "rw2": build_rw2,
    "cr3": build_cr3,
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
