"""The file comes back as it went in: every case of the matrix, and the page that tells of it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import matrix
from pellucid.pictures import images

EVERY = [*matrix.SAME, *matrix.CONVERSIONS]


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_nothing_is_lost(case: matrix.Case, tmp_path: Path) -> None:
    row = matrix.run(case, tmp_path)
    assert not [name for name, verdict in row.items() if "lost" in verdict], row


def test_the_page_says_what_is_measured() -> None:
    page = Path(__file__).parent.parent / "docs" / "formats.md"
    assert page.read_text() == matrix.document(), "python tests/matrix.py > docs/formats.md"


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs ExifTool")
@pytest.mark.parametrize("target", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exiftool_sees_the_same(suffix: str, target: str, tmp_path: Path) -> None:
    source, samples = tmp_path / f"source{suffix}", matrix.photo()
    makers = {".jpg": matrix.jpeg, ".webp": matrix.webp, ".tif": matrix.pillow_tiff}
    source.write_bytes(makers[suffix](samples) if suffix in makers else matrix.png(samples, 8, 2))
    images.write(images.read(source), tmp_path / f"target{target}")
    before, after = _told(source), _told(tmp_path / f"target{target}")
    if ".webp" in (suffix, target):
        before = {tag: value for tag, value in before.items() if not tag.startswith("IPTC")}
    assert len(before) >= 12
    assert {tag: after.get(tag) for tag in before} == before


def _told(path: Path) -> dict[str, object]:
    wanted = [
        "-IFD0:Make",
        "-IFD0:Model",
        "-IFD0:Artist",
        "-IFD0:Copyright",
        "-IFD0:ModifyDate",
        "-ExifIFD:ExposureTime",
    ]
    wanted += [
        "-ExifIFD:FNumber",
        "-ExifIFD:ISO",
        "-ExifIFD:DateTimeOriginal",
        "-ExifIFD:LensModel",
        "-GPS:all",
        "-IPTC:all",
    ]
    done = subprocess.run(
        ["exiftool", "-j", "-G1", "-n", *wanted, path], capture_output=True, text=True, check=True
    )
    assert "Warning" not in done.stdout + done.stderr
    return {
        tag: value
        for tag, value in json.loads(done.stdout)[0].items()
        if tag not in ("SourceFile", "GPS:GPSVersionID")
    }
