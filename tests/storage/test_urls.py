import os
from pathlib import Path, PurePosixPath

import pytest

from pellucid.errors import ArgumentError
from pellucid.storage.urls import RealNames, Url, is_folder, is_url, is_within, locate, real_name


@pytest.mark.parametrize(
    ("text", "scheme", "bucket", "key", "folder"),
    [
        ("s3://b/a/photo.png", "s3", "b", "a/photo.png", False),
        ("S3://b/a/", "s3", "b", "a", True),
        ("s3://b", "s3", "b", "", True),
        ("s3a://b/x", "s3", "b", "x", False),
        ("gs://b/a b/50%25 ?#ü.png", "gs", "b", "a b/50%25 ?#ü.png", False),
        ("az://container/x", "az", "container", "x", False),
        ("https://host:8443/x/y.png?sig=1%2F2", "https", "host:8443", "x/y.png?sig=1%2F2", False),
    ],
)
def test_names_are_taken_as_they_are(text: str, scheme: str, bucket: str, key: str, folder: bool) -> None:
    url = locate(text)
    assert isinstance(url, Url)
    assert (url.scheme, url.bucket, url.key, url.is_folder) == (scheme, bucket, key, folder)
    assert locate(str(url)) == url


@pytest.mark.parametrize("text", ["a.png", "/x/a.png", "C:/photos", "c:\\photos", "x:y", "./s3:/x", "photo:1.png"])
def test_paths_stay_paths(text: str) -> None:
    assert locate(text) == Path(text)
    assert not is_url(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ftp://host/x", "another kind"),
        ("file:///x", "another kind"),
        ("s3:/b/x", "another kind"),
        (Path("s3://b/x"), "as a Path"),
        ("s3:///x", "no name of a bucket"),
        ("s3://b/a//x", "empty"),
        ("s3://b/a/../x", "empty"),
        ("s3://b/a\nx", "empty"),
    ],
)
def test_urls_that_cannot_be_used_give_one_line(given: str | Path, message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        locate(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "https", "s3", "ftp"])
def test_passwords_are_refused_and_not_printed(scheme: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        locate(f"{scheme}://ann:s3cret@host/a.png")
    assert "s3cret" not in str(caught.value) and "@host/a.png" in str(caught.value)
    assert locate("https://host/a@b.png") == Url("https", "host", "a@b.png")


def test_names_have_the_parts_that_paths_have() -> None:
    url, path = Url("s3", "b", "x/y.z/photo.tar.gz"), PurePosixPath("x/y.z/photo.tar.gz")
    assert (url.name, url.stem, url.suffix) == (path.name, path.stem, path.suffix)
    for name in (".a", "a.", "a..", "..a", ".a.b", "a..b", "a b.tar.gz", "x/.y"):
        other, same = Url("s3", "b", name), PurePosixPath(name)
        assert (other.name, other.stem, other.suffix) == (same.name, same.stem, same.suffix)
    assert url.with_name("q").key == str(path.with_name("q"))
    assert [parent.key for parent in url.parents] == ["x/y.z", "x", ""]
    assert url.parent.is_folder and Url("s3", "b", "a").parent.is_folder
    assert (url.parent / PurePosixPath("c/d")).key == "x/y.z/c/d"
    assert (Url("s3", "b", "") / "a").key == "a"
    assert url.relative_to(Url("s3", "b", "x")) == PurePosixPath("y.z/photo.tar.gz")
    assert url.relative_to(Url("s3", "b", "")) == path
    assert Url("https", "h", "a/b.png?c=/d.e").suffix == ".png"


def test_a_name_is_only_within_folders_of_its_bucket() -> None:
    url = Url("s3", "b", "x/y")
    assert is_within(url, Url("s3", "b", "x")) and is_within(url, Url("s3", "b", "")) and is_within(url, url)
    for other in (Url("s3", "c", "x"), Url("gs", "b", "x"), Url("s3", "b", "x/yy"), Url("s3", "b", "x/")):
        assert not is_within(url, other) or other.key == "x/"
    assert not is_within(Url("s3", "b", "xy"), Url("s3", "b", "x"))
    assert not is_within(url, Path("/")) and not is_within(Path("/x"), Url("s3", "b", ""))
    with pytest.raises(ValueError):
        url.relative_to(Url("s3", "b", "y"))


def test_a_folder_and_its_object_are_one_name(tmp_path: Path) -> None:
    assert real_name(Url("s3", "b", "x", is_folder=True)) == real_name(Url("s3", "b", "x"))
    assert is_folder(Url("s3", "b", "x", is_folder=True)) and not is_folder(Url("s3", "b", "x"))
    assert is_folder(tmp_path) and not is_folder(tmp_path / "none")


def test_real_names_are_those_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files and folders behind links, in any combination, and of names that do not exist."""
    inner = tmp_path / "real" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.png").write_bytes(b"x")
    (tmp_path / "linked").symlink_to("real")
    (tmp_path / "twice").symlink_to(tmp_path / "linked" / "inner")
    (tmp_path / "b.png").symlink_to("twice/a.png")
    (inner / "up").symlink_to("../..")
    (inner / "lost.png").symlink_to("nowhere")
    (inner / "loop.png").symlink_to("loop.png")
    monkeypatch.chdir(inner)
    folders = [".", "..", "real/..", "linked", "linked/inner", "twice", "twice/..", "real/inner/up", "missing/.."]
    names = ["a.png", "b.png", "lost.png", "loop.png", "missing.png", "up", "inner", "..", "."]
    texts = [*names, *(f"{tmp_path}/{folder}/{name}" for folder in folders for name in names), "/", "//", ""]
    found = RealNames()
    for place in map(Path, texts):
        assert found.find(place) == os.path.realpath(place), place
    url = Url("s3", "bucket", "a/b.png")
    assert found.find(url) == real_name(url) == "s3://bucket/a/b.png"
