"""Which file becomes which result: nothing is overwritten, and nothing is restored twice."""

from pathlib import Path

import pytest

from pellucid.errors import DataError, OutputError, PictureError
from pellucid.pictures import images
from pellucid.restoration import planning


def test_folder_given_as_a_dot_gets_results_next_to_it(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album)
    assert planning.plan(["."])[0].target == album.with_name("album-restored") / "a.png"
    monkeypatch.chdir(album / "deep")
    with pytest.raises(OutputError, match="choose a folder by out"):
        planning.plan([".."])


def test_suffix_must_fit_the_format(album: Path) -> None:
    given, out = album / "a.png", album / "b.png"
    assert planning.plan([given], out, format="png") == [planning.Job(given, out)]
    assert planning.plan([given], album / "b.jpeg", format="jpg")[0].target == album / "b.jpeg"
    with pytest.raises(OutputError, match=r"ends in \.png, but the format is jpeg; name it b\.jpg"):
        planning.plan([given], out, format="jpeg")
    with pytest.raises(OutputError, match=r"name it \{overwrite\}\.jpg"):  # a name, not a parameter of the hint
        planning.plan([given], album / "{overwrite}.png", format="jpeg")
    with pytest.raises(OutputError, match="the format foo cannot be written"):
        planning.plan([given], out, format="foo")


def test_targets_that_would_overwrite_something_are_refused(album: Path) -> None:
    with pytest.raises(OutputError, match="is one of the inputs"):
        planning.plan([album / "a.png"], album / "a.png")
    with pytest.raises(OutputError, match="is one of the inputs"):
        planning.plan([album], album)
    images.write(images.read(album / "a.png"), album / "deep" / "a.png")
    with pytest.raises(OutputError, match=r"would both become .*a\.png"):
        planning.plan([album / "a.png", album / "deep" / "a.png"], album / "out")
    with pytest.raises(OutputError, match="is one of the inputs"):
        planning.plan([album / "deep" / "c.png", album / "a.png"], album / "deep" / ".." / "deep")
    with pytest.raises(PictureError, match="does not exist"):
        planning.plan([album / "missing.png"], None)
    (album / "empty").mkdir()
    with pytest.raises(DataError, match="contains no pictures"):
        planning.plan([album / "empty"], None)


def test_equal_names_with_different_suffixes_keep_their_suffix(album: Path) -> None:
    images.write(images.read(album / "a.png"), album / "a.tif")
    targets = [job.target.name for job in planning.plan([album], album / "out", format="tiff")]
    assert sorted(targets) == ["a.png.tif", "a.tif", "b.tif", "broken.tif", "c.tif"]


def test_patterns_match_files(album: Path) -> None:
    jobs = planning.plan([str(album / "**" / "*.png")], album / "out")
    assert {job.source.name for job in jobs} == {"a.png", "c.png", "broken.png"}
    with pytest.raises(PictureError, match="does not exist"):
        planning.plan([str(album / "*.xyz")])


def test_patterns_and_ignored_files_of_folders(album: Path) -> None:
    (album / "notes.txt").write_text("hello")
    plan = planning.plan([album], album / "out", include=["*.png"], exclude=["deep/*"])
    assert {job.source.name for job in plan} == {"a.png", "broken.png"}
    assert plan.ignored == {".txt": 1} and plan.num_excluded == 2
    with pytest.raises(DataError, match="contains 4 pictures, all left out by the patterns; change include or"):
        planning.plan([album], include=["*.gif"])
    (album / "texts").mkdir()
    (album / "texts" / "a.txt").write_text("hello")
    with pytest.raises(DataError, match=r"contains no pictures \(not pictures, ignored: 1 \.txt\)"):
        planning.plan([album / "texts"])


def test_the_content_decides_the_name_of_a_result(album: Path) -> None:
    (album / "photo.jpg").write_bytes((album / "a.png").read_bytes())
    assert planning.plan([album / "photo.jpg"])[0].target.name == "photo-restored.png"
    assert {"a.png", "photo.png"} <= {job.target.name for job in planning.plan([album])}
    (album / "photo.png").write_bytes((album / "a.png").read_bytes())
    assert {"photo.png", "photo.jpg.png"} <= {job.target.name for job in planning.plan([album])}
