"""Metadata of GIF files, written by Pillow and ExifTool."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import format_matrix
from pellucid.pictures import images
from pellucid.pictures.containers import gif


def make(path: Path, **options: bytes) -> None:
    PIL.Image.fromarray(format_matrix.photo()).convert("P").save(path, None, **options)


def test_comments_become_texts_of_png(tmp_path: Path) -> None:
    make(tmp_path / "a.gif", comment=b"gr\xc3\xbc\xc3\x9fe" + b"x" * 300)
    assert images.write(images.read(tmp_path / "a.gif"), tmp_path / "b.png") == ()
    with PIL.Image.open(tmp_path / "b.png") as written:
        assert written.info["Comment"] == "grüße" + "x" * 300
    (note,) = images.write(images.read(tmp_path / "a.gif"), tmp_path / "b.tif")
    assert note == "not kept in TIFF: comments"


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")
def test_xmp_and_profiles_are_kept(tmp_path: Path) -> None:
    make(tmp_path / "a.gif")
    (tmp_path / "p.icc").write_bytes(format_matrix.PROFILE)
    options = ["-XMP:Title=Über", "-Comment=c", f"-icc_profile<={tmp_path / 'p.icc'}"]
    subprocess.run(["exiftool", "-q", "-overwrite_original", *options, str(tmp_path / "a.gif")], check=True)
    images.write(images.read(tmp_path / "a.gif"), tmp_path / "b.png")
    command = ["exiftool", "-s3", "-XMP:Title", "-Comment", str(tmp_path / "b.png")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["Über", "c"]
    with PIL.Image.open(tmp_path / "b.png") as written:
        assert written.info["icc_profile"] == format_matrix.PROFILE


def test_pixels_that_are_not_square_are_named(tmp_path: Path) -> None:
    make(tmp_path / "a.gif")
    content = bytearray((tmp_path / "a.gif").read_bytes())
    content[12] = 113
    (tmp_path / "a.gif").write_bytes(content)
    encoding = images.read(tmp_path / "a.gif").encoding
    assert encoding is not None and encoding.notes == ("not kept: the shape of the pixels (128:64)",)


def test_truncated_files_have_no_more_metadata(tmp_path: Path) -> None:
    make(tmp_path / "a.gif", comment=b"hello")
    content = (tmp_path / "a.gif").read_bytes()
    for length in range(0, len(content), 7):
        (tmp_path / "b.gif").write_bytes(content[:length])
        with (tmp_path / "b.gif").open("rb") as file:
            assert gif.read(file)[0].get("jpeg-comments", (b"hello",)) == (b"hello",)


def test_a_missing_end_is_noted(tmp_path: Path) -> None:
    frames = [PIL.Image.fromarray(format_matrix.noise(1, seed=seed).squeeze()) for seed in range(2)]
    frames[0].save(tmp_path / "still.gif")
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "x.gif").read_bytes()
    (tmp_path / "x.gif").write_bytes(content[: len((tmp_path / "still.gif").read_bytes()) + 20])
    encoding = images.read(tmp_path / "x.gif").encoding
    assert encoding is not None
    assert encoding.notes == ("not kept: metadata at the end of the file, which is missing",)


def test_a_picture_on_a_larger_canvas_is_noted(tmp_path: Path) -> None:
    make(tmp_path / "x.gif")
    content = bytearray((tmp_path / "x.gif").read_bytes())
    content[6:10] = (100).to_bytes(2, "little") * 2
    (tmp_path / "x.gif").write_bytes(content)
    encoding = images.read(tmp_path / "x.gif").encoding
    assert encoding is not None
    assert encoding.notes == ("not kept: the transparency around a picture that is smaller than its canvas",)


def test_a_transparent_picture_has_a_transparent_canvas(tmp_path: Path) -> None:
    PIL.Image.fromarray(format_matrix.noise(1).squeeze()).save(tmp_path / "x.gif", transparency=3)
    content = bytearray((tmp_path / "x.gif").read_bytes())
    content[6:10] = (100).to_bytes(2, "little") * 2
    (tmp_path / "x.gif").write_bytes(content)
    picture = images.read(tmp_path / "x.gif")
    with PIL.Image.open(tmp_path / "x.gif") as file:
        expected = np.asarray(file.convert("RGBA"))[..., 3:]
    assert np.array_equal(picture.alpha, expected)  # type: ignore[arg-type]
    assert picture.encoding is not None and not picture.encoding.notes
