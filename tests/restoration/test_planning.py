"""Which file becomes which result: nothing is overwritten, and nothing is restored twice."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pellucid.errors import ArgumentError, DataError, OutputError, PictureError
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
    with pytest.raises(ArgumentError, match=r"ends in \.png, but the format is jpeg; name it .*/b\.jpg"):
        planning.plan([given], out, format="jpeg")
    with pytest.raises(
        ArgumentError, match=r"name it .*/\{overwrite\}\.jpg"
    ):  # a name, not a parameter of the hint
        planning.plan([given], album / "{overwrite}.png", format="jpeg")
    with pytest.raises(ArgumentError, match="the format foo cannot be written"):
        planning.plan([given], out, format="foo")


def test_a_slash_at_the_end_makes_a_folder_of_any_name(album: Path) -> None:
    given, folder = album / "a.png", album / "results.d"
    assert planning.plan([given], f"{folder}/")[0].target == folder / "a.png"
    assert planning.plan([album], f"{album}/all.png/")[0].target.parent == album / "all.png"
    with pytest.raises(OutputError, match=r"a\.png is a file; out must be a folder"):
        planning.plan([given], f"{given}/")


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


def test_results_that_are_inputs_by_a_link_are_refused(album: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(album)
    for given in (album / "a.png", album):
        with pytest.raises(OutputError, match="is one of the inputs"):
            planning.plan([given], tmp_path / "linked" / ("a.png" if given != album else ""))
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").symlink_to(album / "a.png")
    with pytest.raises(OutputError, match="is one of the inputs"):
        planning.plan([album], out)
    (out / "a.png").unlink()
    (out / "a.png").symlink_to("b.tif")
    with pytest.raises(OutputError, match="would both become"):
        planning.plan([album], out)


def test_one_text_is_one_pattern(album: Path, tmp_path: Path) -> None:
    for patterns in (["broken.png"], "broken.png"):
        plan = planning.plan([album], tmp_path / "excluded", exclude=patterns)
        assert plan.num_excluded == 1 and len(plan) > 1
    with pytest.raises(ArgumentError, match=r"exclude\[0\] is None; text is needed"):
        planning.plan([album], exclude=[None])  # type: ignore[list-item]  # as a user may call it
    with pytest.raises(ArgumentError, match="include is 3; text or a list of texts is needed"):
        planning.plan([album], include=3)  # type: ignore[arg-type]  # as a user may call it


def test_results_in_a_linked_folder_of_the_inputs_are_no_inputs(album: Path, tmp_path: Path) -> None:
    """The folder of results is inside of that of the inputs, and is named by a link to it."""
    (album / "results").mkdir()
    images.write(images.read(album / "a.png"), album / "results" / "a.png")
    (tmp_path / "linked").symlink_to(album / "results")
    names = [job.source.name for job in planning.plan([album], tmp_path / "linked", exclude=["broken.png"])]
    assert names == ["a.png", "b.tif", "c.png"]


def test_results_next_to_inputs_that_are_given_by_a_link_are_no_inputs(album: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(album)
    images.write(images.read(album / "a.png"), album / "a-restored.png")
    jobs = planning.plan([str(album / "a*.png"), str(tmp_path / "linked" / "a-restored.png")])
    assert [job.source for job in jobs] == [album / "a.png"]


def test_equal_names_with_different_suffixes_keep_their_suffix(album: Path) -> None:
    images.write(images.read(album / "a.png"), album / "a.tif")
    targets = [job.target.name for job in planning.plan([album], album / "out", format="tiff")]
    assert sorted(targets) == ["a.png.tif", "a.tif", "b.tif", "broken.tif", "c.tif"]


def test_patterns_match_files(album: Path) -> None:
    jobs = planning.plan([str(album / "**" / "*.png")], album / "out")
    assert {job.source.name for job in jobs} == {"a.png", "c.png", "broken.png"}
    with pytest.raises(PictureError, match="no file matches"):
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


# Names


def test_names_follow_the_pattern(album: Path) -> None:
    plan = planning.plan([album], album, name="{stem}-{model}{suffix}", model="x2", format="tiff")
    targets = {Path(str(job.target)).relative_to(album).as_posix() for job in plan}
    assert targets == {"a-x2.tif", "b-x2.tif", "broken-x2.tif", "deep/c-x2.tif"}
    (job,) = planning.plan(album / "a.png", name="new_{stem}{suffix}")
    assert job.target == album / "new_a.png"
    with pytest.raises(OutputError, match="is one of the inputs; choose another out or name"):
        planning.plan([album], album, name="{stem}{suffix}")
    with pytest.raises(OutputError, match="would both become"):
        planning.plan([album], album.parent / "out", name="same{suffix}")


@pytest.mark.parametrize("name", ["{stem", "{x}", "{stem!r}", "{stem:9}", "{}", "}", "../{stem}", ".{stem}"])
def test_patterns_that_give_no_names_are_refused(album: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match="is not a pattern for names|does not give names of visible files"):
        planning.plan([album], name=name)


def test_a_pattern_is_not_taken_for_a_folder(album: Path) -> None:
    for out in (album / "{stem}-x2", album / "{stem}{suffix}", "s3://bucket/{model}"):
        with pytest.raises(ArgumentError, match="is a pattern for names; it would be a folder; give it as name"):
            planning.plan([album], out)
    (album / "{stem}").mkdir()
    assert planning.plan([album / "a.png"], album / "{stem}")[0].target == album / "{stem}" / "a.png"


def test_the_name_of_a_file_to_write_has_no_pattern(album: Path) -> None:
    with pytest.raises(ArgumentError, match="omit name, or give a folder as out"):
        planning.plan(album / "a.png", album / "b.png", name="{stem}{suffix}")


def test_a_pattern_gives_names_of_pictures_in_the_chosen_format(album: Path) -> None:
    with pytest.raises(ArgumentError, match="gives names like a, without the suffix of a format"):
        planning.plan(album, name="{stem}")
    with pytest.raises(ArgumentError, match=r"gives names like a\.jpg, but the format is png; change name"):
        planning.plan(album, name="{stem}.jpg", format="png")
    assert {job.target.suffix for job in planning.plan(album, name="{stem}.jpg", format="jpeg")} == {".jpg"}


def test_a_result_next_to_a_picture_does_not_depend_on_earlier_ones_unless_it_replaces_its_own(
    album: Path,
) -> None:
    source, usual, own = (album / name for name in ("a.png", "a-restored.png", "a-x2.png"))
    assert planning.plan(source, model="x2") == [planning.Job(source, usual, album, target_of_model=own)]
    usual.write_bytes(b"of any model; the manifest knows which one")
    assert planning.plan(source, model="x2") == [planning.Job(source, usual, album, target_of_model=own)]
    assert planning.plan(source, model="x2", overwrite=True)[0].target == usual
    own.write_bytes(b"of this model")
    assert planning.plan(source, model="x2", overwrite=True)[0].target == own


def test_a_picture_that_is_given_twice_is_planned_once(album: Path, tmp_path: Path) -> None:
    once = planning.plan(album, tmp_path / "out")
    assert planning.plan([album, album], tmp_path / "out") == once
    pictures = [album / "a.png", album / "a.png"]
    assert [job.source for job in planning.plan(pictures)] == [album / "a.png"]


def test_a_folder_that_cannot_be_read_stops_no_other(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: Any) -> Any:  # root may read everything
        if Path(path).name == "deep":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    planned = planning.plan(album, strict=False)
    assert {job.source.parent for job in planned if isinstance(job.source, Path)} == {album}
    assert [str(problem) for problem in planned.problems] == [f"{album}/deep cannot be read: Permission denied"]
    with pytest.raises(DataError, match="deep cannot be read: Permission denied"):
        planning.plan(album)
    assert not planning.plan(album / "deep", strict=False)
    with pytest.raises(DataError, match="deep cannot be read"):
        images.find(album)  # e.g. to score: a part of a test set is not the test set


# Masks


def test_masks_have_the_names_of_their_pictures(album: Path, tmp_path: Path) -> None:
    masks, picture = tmp_path / "masks", images.read(album / "a.png")
    for name in ("a.png", "deep/c.tif"):
        images.write(picture, masks / name)
    plan = planning.plan([album], mask=masks)
    found = {
        job.source.name: None if job.mask is None else Path(str(job.mask)).relative_to(masks).as_posix()
        for job in plan
    }
    assert found == {"a.png": "a.png", "b.tif": "b.tif", "broken.png": "broken.png", "c.png": "deep/c.tif"}
    assert {job.mask for job in planning.plan([album], mask=masks / "a.png")} == {masks / "a.png"}
    (job,) = planning.plan(album / "deep" / "c.png", mask=masks / "deep")
    assert job.mask == masks / "deep" / "c.tif"
    with pytest.raises(PictureError, match="none.png does not exist"):
        planning.plan([album], mask=masks / "none.png")
    with pytest.raises(DataError, match="no mask with the name of a picture; a mask for c.png has the same"):
        planning.plan(album / "deep" / "c.png", mask=masks.joinpath("deep", ".."))


def test_a_missing_name_among_good_ones_can_be_left_out(album: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    good = album / "a.png"
    bad = [tmp_path / "none.png", tmp_path / "empty", tmp_path / "*.xyz"]
    planned = planning.plan([*bad, good], tmp_path / "out", strict=False)
    assert [job.source for job in planned] == [good] and planned[0].target == tmp_path / "out" / "a.png"
    assert [str(problem).split("/")[-1] for problem in planned.problems] == [
        "none.png does not exist; check the name",
        "*.xyz; check the pattern",
        "empty contains no pictures",
    ]
    with pytest.raises(PictureError, match="none.png does not exist"):
        planning.plan([*bad, good], tmp_path / "out")
    nothing = planning.plan(bad, tmp_path / "out", strict=False)
    assert not nothing and len(nothing.problems) == 3
    with pytest.raises(DataError, match="empty contains no pictures"):
        planning.plan(tmp_path / "empty")


@pytest.mark.parametrize("inputs", [None, 5, [None], [Path("a.png"), 3], b"a.png"])
def test_inputs_of_other_types_are_refused(inputs: Any) -> None:
    with pytest.raises(PictureError, match="an input of type .*; a path or a URL is needed"):
        planning.plan(inputs)
