"""Archives: the same files as in folders, whatever they are packed in; nothing is ever written outside."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_sources import noise, tar_folder, write_noise, write_pictures, zip_folder

from pellucid.data import archives
from pellucid.data.preparing import prepare
from pellucid.errors import DataError


def tar_nested(folder: Path, path: Path) -> Path:
    """A tar of tars, as ILSVRC2013_DET_train is published."""
    inner = tar_folder(folder / "deep", folder.parent / "deep.tar")
    with tarfile.open(path, "w") as archive:
        archive.add(inner, "deep.tar")
    return path


PACKINGS: dict[str, Callable[[Path, Path], Path]] = {
    "zip": lambda folder, out: zip_folder(folder, out / "x.zip"),
    "tar": lambda folder, out: tar_folder(folder, out / "x.tar"),
    "tar.gz": lambda folder, out: tar_folder(folder, out / "x.tar.gz", "w:gz"),
    "tar.xz": lambda folder, out: tar_folder(folder, out / "x.tar.xz", "w:xz"),
    "tar in tar": lambda folder, out: tar_nested(folder, out / "x.tar"),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_archives_equal_the_folder(packing: str, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "data")
    plain = prepare("folder", [folder], tmp_path / "plain").store
    packed = prepare("folder", [PACKINGS[packing](folder, tmp_path)], tmp_path / "packed").store
    assert packed.names == ("deep/0.png", "deep/1.png", "deep/2.png")
    assert packed.fingerprint == plain.fingerprint
    assert np.array_equal(packed.target(2), noise(8, 8, 3, seed=2))


def test_tars_are_read_three_deep_in_a_tar(tmp_path: Path) -> None:
    """There are archives that contain themselves."""
    path, names = tmp_path / "0.tar", []
    for depth in range(5):
        folder = tmp_path / f"{depth}"
        write_noise(folder / f"{depth}.png", 4, 4, 1, seed=depth)
        if depth:
            path.rename(folder / "in.tar")
        path = tar_folder(folder, tmp_path / f"{depth}.tar")
        names.append(f"{'in/' * (4 - depth)}{depth}.png")
    made = prepare("folder", [path], tmp_path / "s").store
    assert set(made.names) == set(names[1:])
    ((name, reason),) = made.left_out
    assert name.endswith("in/./in/./in/./in.tar") and "an archive inside an archive" in reason


def test_what_is_not_a_file_is_left_out_by_name(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", 1)
    os.mkfifo(folder / "pipe.png")
    (folder / "link.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.txt")  # not a picture by its name
    made = prepare("folder", [folder], tmp_path / "s").store
    assert len(made) == 1
    assert set(made.left_out) == {("pipe.png", "it is not a file"), ("link.png", "it is a broken link")}


def add_file(archive: tarfile.TarFile, name: str, content: bytes, declared: int | None = None) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    if declared is not None:
        member.size = declared
        archive.fileobj.write(member.tobuf(tarfile.GNU_FORMAT))
        return
    archive.addfile(member, io.BytesIO(content))


def test_hostile_members_of_a_tar_are_left_out(tmp_path: Path) -> None:
    write_noise(tmp_path / "good.png", 4, 4, 1)
    content = (tmp_path / "good.png").read_bytes()
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add_file(archive, "good.png", content)
        add_file(archive, "../../escaped.png", content)
        add_file(archive, "/absolute.png", content)
        add_file(archive, ".hidden.png", content)
        add_file(archive, "inner.zip", b"")
        add_file(archive, "broken.tar", b"no tar at all" * 100)
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        add_file(archive, "huge.png", b"", declared=2**62)
    made = prepare("folder", [tmp_path / "x.tar"], tmp_path / "s").store
    assert made.names == ("good.png",)
    reasons = " ".join(f"{name}: {reason}" for name, reason in made.left_out)
    for part in (
        "escaped.png: its name points outside",
        "absolute.png: its name points outside",
        "huge.png",
        "inner.zip",
    ):
        assert part in reasons
    assert "broken.tar" in reasons and "link.png: it is a link or a device" in reasons and "hidden" not in reasons
    assert not (tmp_path.parent / "escaped.png").exists()


def test_large_declared_sizes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    write_noise(tmp_path / "in" / "good.png", 4, 4, 1)
    (tmp_path / "in" / "bomb.png").write_bytes(bytes(2000))
    made = prepare("folder", [zip_folder(tmp_path / "in", tmp_path / "x.zip")], tmp_path / "s").store
    ((name, reason),) = made.left_out
    assert name.endswith("x.zip/bomb.png") and "declares 2000 bytes" in reason


def test_damaged_archives_give_an_error_of_one_line(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in")
    for path in (tar_folder(folder, tmp_path / "x.tar.gz", "w:gz"), zip_folder(folder, tmp_path / "x.zip")):
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(DataError, match="cannot be read as a zip or tar|truncated zip archive") as caught:
            prepare("folder", [path], tmp_path / "s")
        assert "\n" not in str(caught.value)
    cut = tar_folder(folder, tmp_path / "x.tar")
    with tarfile.open(cut) as archive:
        last = [member for member in archive if member.isreg()][-1]
    cut.write_bytes(cut.read_bytes()[: last.offset_data + 10])
    made = prepare("folder", [cut], tmp_path / "t").store
    assert len(made) == 2 and "truncated" in made.left_out[0][1]


def test_names_start_with_their_source_if_there_are_several(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_noise(tmp_path / name / "x.png", 4, 4, 1, seed=ord(name))
    assert prepare("folder", [tmp_path / "a", tmp_path / "b"], tmp_path / "s").store.names == (
        "a/x.png",
        "b/x.png",
    )
    with pytest.raises(DataError, match="two sources have the same name"):
        prepare("folder", [tmp_path / "a", tmp_path / "a"], tmp_path / "t")
