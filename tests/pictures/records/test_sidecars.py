"""XMP files next to pictures, written by exiftool."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from test_raw_data import scene
from test_raw_metadata import describe, read_tags

from pellucid.errors import PictureError
from pellucid.pictures import images
from pellucid.pictures.camera import raw
from pellucid.pictures.records import sidecars
from sample_files import build_dng

pytestmark = pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool writes the XMP")


def write_sidecar(path: Path, **tags: str) -> Path:
    given = [f"-XMP-{name.replace('_', ':')}={value}" for name, value in tags.items()]
    subprocess.run(["exiftool", "-q", "-m", "-o", str(path), *given], check=True)
    return path


def write_jpeg(path: Path, **tags: str) -> Path:
    PIL.Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path)
    if tags:
        describe(path, tags)
    return path


@pytest.mark.parametrize("name", ["a.dng.xmp", "a.xmp", "a.XMP"])
def test_the_xmp_next_to_a_raw_file_completes_its_own(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.dng"
    path.write_bytes(build_dng(scene()))
    describe(path, {"XMP-xmp:Rating": "2", "XMP-dc:Creator": "A"})
    write_sidecar(
        tmp_path / name,
        xmp_Rating="5",
        dc_Subject="cat",
        crs_Exposure2012="1",
        photoshop_SidecarForExtension="DNG",
    )
    developed = raw.develop(path, sidecar=sidecars.read(path))
    assert developed.encoding is not None
    assert "not kept: settings of RAW developers" in developed.encoding.notes
    images.write(developed, tmp_path / "result.tif")
    found = {key: value for key, value in read_tags(tmp_path / "result.tif").items() if key.startswith("XMP")}
    found.pop("XMP-x:XMPToolkit")
    assert found == {"XMP-xmp:Rating": "5", "XMP-dc:Subject": "cat", "XMP-dc:Creator": "A"}


def test_the_more_specific_name_takes_precedence(tmp_path: Path) -> None:
    path = write_jpeg(tmp_path / "a.jpg")
    write_sidecar(tmp_path / "a.xmp", xmp_Rating="1", dc_Subject="adobe")
    write_sidecar(tmp_path / "a.jpg.xmp", xmp_Rating="3")
    images.write(images.read(path, sidecar=sidecars.read(path)), tmp_path / "b.jpg")
    tags = read_tags(tmp_path / "b.jpg")
    assert (tags["XMP-xmp:Rating"], tags["XMP-dc:Subject"]) == ("3", "adobe")


def test_the_sidecar_of_a_raw_file_is_not_that_of_its_jpeg(tmp_path: Path) -> None:
    path = write_jpeg(tmp_path / "a.jpg")
    sidecar = write_sidecar(tmp_path / "a.xmp", xmp_Rating="1")
    assert sidecars.find(path) == [sidecar]
    (tmp_path / "a.NEF").touch()
    assert sidecars.find(path) == []
    assert sidecars.find(tmp_path / "a.NEF") == [sidecar]
    assert sidecars.read(path) == b""


def test_positions_in_a_sidecar_are_turned_with_the_picture(tmp_path: Path) -> None:
    path = write_jpeg(tmp_path / "a.jpg", **{"Orientation#": "6"})
    region = "{AppliedToDimensions={W=60,H=40,Unit=pixel},RegionList=[{Area={X=0.25,Y=0.2,W=0.1,H=0.1}}]}"
    command = ["exiftool", "-q", "-m", "-o", str(tmp_path / "a.jpg.xmp"), f"-XMP-mwg-rs:RegionInfo={region}"]
    subprocess.run(command, check=True)
    images.write(images.read(path, sidecar=sidecars.read(path)), tmp_path / "b.jpg")
    tags = read_tags(tmp_path / "b.jpg")
    found = float(tags["XMP-mwg-rs:RegionAreaX"]), float(tags["XMP-mwg-rs:RegionAreaY"])
    assert found == pytest.approx((0.8, 0.25))


@pytest.mark.parametrize("content", [b"", b"not XMP", b"<a/>", b"\xff\xfe" + bytes(9)])
def test_other_files_give_a_one_line_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.xmp").write_bytes(content)
    with pytest.raises(PictureError, match=r"a\.xmp is not an XMP file; remove it, or omit sidecars$"):
        sidecars.read(tmp_path / "a.jpg")


def test_names_that_are_too_long_for_a_sidecar_have_none(tmp_path: Path) -> None:
    assert sidecars.find(tmp_path / f"{'x' * 250}.png") == []
