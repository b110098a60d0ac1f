"""Every case of the format matrix, and the page that documents it."""

import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

import format_matrix
from pellucid.pictures import images

MISSING = [
    *(program for program in format_matrix.PROGRAMS if shutil.which(program) is None),
    *(package for package in ("pillow_heif", "pyjpegxl", "openjpeg") if find_spec(package) is None),
]
"""What the cases of HEIC, JPEG XL and JPEG 2000 need and this machine lacks."""

ALL_CASES = [*format_matrix.SAME, *format_matrix.CONVERSIONS]


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.name)
def test_nothing_is_lost(case: format_matrix.Case, tmp_path: Path) -> None:
    if MISSING and case.suffix in (".heic", ".jxl", ".jp2"):
        pytest.skip(f"needs {', '.join(MISSING)}")
    row = format_matrix.run(case, tmp_path)
    assert not [name for name, verdict in row.items() if "lost" in verdict], row


@pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
def test_the_page_is_up_to_date() -> None:
    page = Path(__file__).parent.parent / "docs" / "formats.md"
    assert page.read_text() == format_matrix.document(), "python tests/format_matrix.py > docs/formats.md"


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs ExifTool")
@pytest.mark.parametrize("target", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exiftool_sees_the_same(suffix: str, target: str, tmp_path: Path) -> None:
    source, samples = tmp_path / f"source{suffix}", format_matrix.photo()
    makers = {".jpg": format_matrix.jpeg, ".webp": format_matrix.webp, ".tif": format_matrix.pillow_tiff}
    source.write_bytes(makers[suffix](samples) if suffix in makers else format_matrix.png(samples, 8, 2))
    images.write(images.read(source), tmp_path / f"target{target}")
    before, after = _read_by_exiftool(source), _read_by_exiftool(tmp_path / f"target{target}")
    if ".webp" in (suffix, target):
        before = {tag: value for tag, value in before.items() if not tag.startswith("IPTC")}
    assert len(before) >= 12
    assert {tag: after.get(tag) for tag in before} == before


def _read_by_exiftool(path: Path) -> dict[str, object]:
    tags = [
        "-IFD0:Make",
        "-IFD0:Model",
        "-IFD0:Artist",
        "-IFD0:Copyright",
        "-IFD0:ModifyDate",
        "-ExifIFD:ExposureTime",
    ]
    tags += [
        "-ExifIFD:FNumber",
        "-ExifIFD:ISO",
        "-ExifIFD:DateTimeOriginal",
        "-ExifIFD:LensModel",
        "-GPS:all",
        "-IPTC:all",
    ]
    done = subprocess.run(["exiftool", "-j", "-G1", "-n", *tags, path], capture_output=True, text=True, check=True)
    assert "Warning" not in done.stdout + done.stderr
    return {
        tag: value
        for tag, value in json.loads(done.stdout)[0].items()
        if tag not in ("SourceFile", "GPS:GPSVersionID")
    }
