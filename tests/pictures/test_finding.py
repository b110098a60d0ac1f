"""Pictures are found by their content, and everything else is counted."""

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

from pellucid.pictures import images, kinds
from pellucid.pictures.camera import dng
from pellucid.pictures.finding import describe_ignored, find_pictures, matches
from pellucid.pictures.picture import Mosaic


def save(path: Path, kind: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(path, kind)
    return path


def make_dng(path: Path) -> Path:
    samples = np.random.default_rng(0).integers(100, 4000, (32, 32), dtype=np.uint16)
    dng.write(Mosaic(samples, ("RG", "GB"), 64.0, 4095.0), path.with_suffix(".dng"))
    return path.with_suffix(".dng").rename(path)


@pytest.mark.parametrize(
    ("name", "kind", "result"),
    [
        ("x.jfif", "jpeg", "x.jfif"),
        ("x.jpe", "jpeg", "x.jpe"),
        ("x.JPG", "jpeg", "x.JPG"),
        ("x.jpg", "png", "x.png"),
        ("x.png", "jpeg", "x.jpg"),
        ("x", "png", "x.png"),
        ("scan.2024", "tiff", "scan.2024.tif"),
        ("x.gif", "gif", "x.png"),
        ("x.dng", "jpeg", "x.jpg"),
        ("x.psd", "webp", "x.webp"),
    ],
)
def test_the_content_decides_what_a_file_is(name: str, kind: str, result: str, tmp_path: Path) -> None:
    path = save(tmp_path / name, kind)
    assert find_pictures(tmp_path).pictures == (path,)
    assert images.result_name(name, source=path) == result
    encoding = images.read(path).encoding
    assert encoding is not None and encoding.format.lower() == kind
    is_misnamed = name in ("x.jpg", "x.png", "x.dng")
    assert bool(encoding.notes) == is_misnamed and all("as its name says" in note for note in encoding.notes)


def test_raw_files_are_recognized_whatever_their_name(tmp_path: Path) -> None:
    for name in ("a.tif", "b.jpg", "c"):
        path = make_dng(tmp_path / name)
        assert images.is_raw(path) and images.result_name(name, source=path) == f"{Path(name).stem}.tif"
    tifffile.imwrite(tmp_path / "cfa.tif", np.zeros((8, 8), np.uint16), photometric=32803)
    assert images.is_raw(tmp_path / "cfa.tif")
    with tifffile.TiffWriter(tmp_path / "preview-first.tif") as file:  # as in NEF and ARW
        file.write(np.zeros((4, 4, 3), np.uint8), photometric="rgb", subifds=1, metadata=None)
        file.write(np.zeros((8, 8), np.uint16), photometric=32803, metadata=None)
    assert images.is_raw(tmp_path / "preview-first.tif")
    assert not images.is_raw(save(tmp_path / "plain.tif", "tiff"))
    assert images.is_raw(save(tmp_path / "unmarked.nef", "tiff"))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"FUJIFILMCCD-RAW 0201", "camera RAW"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "camera RAW"),
        (b"II*\0\x10\0\0\0CR\2\0", "TIFF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypisom\0\0\0\0isomavc1", None),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"%PDF-1.7", None),
    ],
)
def test_first_bytes(head: bytes, name: str | None) -> None:
    found = kinds.identify_head(head.ljust(64, b"\0"))
    assert (None if found is None else found.name) == name


def test_other_files_are_counted_by_suffix(tmp_path: Path) -> None:
    picture = save(tmp_path / "deep" / "a.png", "png")
    (tmp_path / "bad.jpg").write_bytes(b"hello")
    for name in ("a.txt", "b.TXT", "movie.mp4", "Thumbs.db", "README", "a.xmp", "._a.png", ".DS_Store"):
        (tmp_path / name).write_bytes(b"hello")
    raw = make_dng(tmp_path / "z.tif")
    found = find_pictures(tmp_path)
    assert found.pictures == tuple(sorted([tmp_path / "bad.jpg", picture, raw]))  # a damaged one is reported later
    assert found.ignored == {".txt": 2, ".mp4": 1, ".db": 1, "without suffix": 1, ".xmp": 1}
    assert describe_ignored(found.ignored).startswith("not pictures, ignored: 2 .txt, 1 ")
    assert find_pictures(tmp_path, takes_raw=False).ignored[".tif"] == 1
    assert describe_ignored({}) == ""
    shutil.rmtree(tmp_path / "deep")


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.jpg", ["a.jpg", "b/c.JPG", "b/d/e.jpg"], ["a.jpeg", "jpg", "a.jpg.txt"]),
        ("b", ["b", "b/c.jpg", "a/b/c.jpg"], ["ab/c.jpg", "b.jpg"]),
        ("b/*.jpg", ["b/c.jpg"], ["b/d/e.jpg", "a/b/c.jpg"]),
        ("b/**/*.jpg", ["b/c.jpg", "b/d/e.jpg"], ["a/b/c.jpg"]),
        ("**/raw/*", ["raw/a.dng", "x/raw/a.dng"], ["raw", "rawer/a.dng"]),
        ("IMG_00??.tif", ["IMG_0012.tif", "x/img_0099.TIF"], ["IMG_012.tif", "IMG_00/1.tif"]),
        ("./b/", ["b/c.jpg"], ["c.jpg"]),
        ("a[1].png", ["a[1].png"], ["a1.png"]),
    ],
)
def test_patterns(pattern: str, matching: list[str], others: list[str]) -> None:
    assert all(matches(name, [pattern]) for name in matching)
    assert not any(matches(name, [pattern]) for name in others)


def test_patterns_choose_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "raw/c.png"):
        save(tmp_path / name, "png")
    found = find_pictures(tmp_path, include=["*.png"], exclude=["raw"])
    assert [path.name for path in found.pictures] == ["a.png"] and found.num_excluded == 2


@pytest.mark.parametrize("name", ["x.heic", "x.HEIF", "x.gif", "x.avif", "x.cr2", "x.dng", "x.tif", "x.bmp"])
def test_a_wrong_name_is_named_for_every_format(name: str, tmp_path: Path) -> None:
    """E.g. pictures that a phone sends as JPEG, but calls HEIC."""
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / name, "JPEG")
    encoding = images.read(tmp_path / name).encoding
    assert encoding is not None
    (note,) = encoding.notes
    assert note.startswith("a JPEG file, not ") and note.endswith(" as its name says")
