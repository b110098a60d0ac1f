import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pellucid.errors import OutputError, PictureError
from pellucid.system.files import check_free, check_writable, head, whole_file, write_whole


@pytest.fixture
def umask() -> Iterator[None]:
    """Puts the umask back."""
    given = os.umask(0o022)
    yield
    os.umask(given)


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_the_first_bytes_are_given(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789abcdefgh")
    assert head(tmp_path / "a") == b"0123456789abcdef"
    assert head(tmp_path / "a", 4) == b"0123"
    assert head(tmp_path / "a", 99) == b"0123456789abcdefgh"


def test_what_has_no_first_bytes_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    faults = {"missing": "does not exist", "": "is a folder", "empty": "is empty", "pipe": "is a pipe"}
    for name, fault in {**faults, "nul\0": "cannot be read", "long" * 100: "cannot be read"}.items():
        with pytest.raises(PictureError, match=fault) as caught:
            head(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_what_is_written_is_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.bin", b"\0content\n", overwrite=False)
    assert (tmp_path / "a.bin").read_bytes() == b"\0content\n"
    assert everything(tmp_path) == ["a.bin"]


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "c.bin", b"x", overwrite=False)
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"x"


def test_what_cannot_be_written_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "a" / "b.json", overwrite=False)
    assert everything(tmp_path) == ["a"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file exists; --overwrite"):
        check_writable(tmp_path / "file", overwrite=False)
    with pytest.raises(OutputError, match="file is a file, where a folder is needed"):
        check_writable(tmp_path / "file" / "b.json", overwrite=False)

    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        check_writable(tmp_path / "b.json", overwrite=False)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"a\.bin exists; --overwrite replaces it"):
        check_free(path, overwrite=False)
    with pytest.raises(OutputError, match=r"a\.bin exists; --overwrite replaces it"):
        write_whole(path, b"new", overwrite=False)
    assert path.read_bytes() == b"old"
    write_whole(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new"
    assert everything(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_whole(tmp_path / "a", b"x", overwrite=overwrite)
    assert everything(tmp_path) == ["a"]


def test_a_file_where_a_folder_is_needed_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"file")
    with pytest.raises(OutputError, match="is a file, where a folder is needed") as caught:
        write_whole(tmp_path / "a" / "b.bin", b"x", overwrite=False)
    assert "\n" not in str(caught.value)
    assert everything(tmp_path) == ["a"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            write_whole(tmp_path / "a.bin", b"x", overwrite=False)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "replace")])
def test_when_the_disk_fails_the_old_file_stays_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(owner, call, full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_whole(path, b"new", overwrite=True)
    assert path.read_bytes() == b"old"
    assert everything(tmp_path) == ["a.bin"]


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a.bin", b"new", overwrite=True)
    assert everything(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0, 0o666)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: None, mask: int, expected: int) -> None:
    os.umask(mask)
    write_whole(tmp_path / "a.bin", b"x", overwrite=False)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == expected
    assert os.umask(mask) == mask  # and the umask is as it was


def test_names_as_long_as_the_system_takes(tmp_path: Path) -> None:
    # 255 bytes, in letters of four bytes each and of one.
    for name in ("\N{GLOBE WITH MERIDIANS}" * 63, "a" * 255):
        try:
            (tmp_path / name).write_bytes(b"probe")
        except OSError:
            pytest.skip("this file system takes shorter names")
        (tmp_path / name).unlink()
        write_whole(tmp_path / name, b"x", overwrite=False)
        assert (tmp_path / name).read_bytes() == b"x"


def test_a_name_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_whole(tmp_path / ("a" * 300), b"x", overwrite=False)


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bin"
    with whole_file(path, overwrite=False) as temporary:
        assert temporary.parent == path.parent
        temporary.write_bytes(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert everything(tmp_path) == ["a.bin", "deep"]


@pytest.mark.parametrize(
    ("raised", "seen"), [(OSError(28, "No space left on device"), OutputError), (ValueError(), ValueError)]
)
def test_what_goes_wrong_on_the_way_leaves_nothing(
    tmp_path: Path, raised: Exception, seen: type[Exception]
) -> None:
    with pytest.raises(seen), whole_file(tmp_path / "a.bin", overwrite=False) as temporary:
        temporary.write_bytes(b"half")
        raise raised
    assert everything(tmp_path) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pellucid.system.files import whole_file\n"
        "with whole_file(Path(sys.argv[1]), overwrite=False) as part:\n"
        "    part.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    target = tmp_path / "photo.png"
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    write_whole(tmp_path / "another.png", b"whole", overwrite=False)
    assert len(list(tmp_path.glob(".*"))) == 1  # that of photo.png is none of its business
    write_whole(target, b"whole", overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another.png", "photo.png"]


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    with whole_file(tmp_path / "photo.png", overwrite=True) as first:
        write_whole(tmp_path / "photo.png", b"second", overwrite=False)
        assert first.exists()
        first.write_bytes(b"first")
    assert (tmp_path / "photo.png").read_bytes() == b"first"


def test_what_appears_while_a_file_is_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    with pytest.raises(OutputError, match="exists"), whole_file(path, overwrite=False) as temporary:
        temporary.write_bytes(b"ours")
        path.write_bytes(b"of others")
    assert path.read_bytes() == b"of others"
    assert everything(tmp_path) == ["photo.png"]


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_shares_without_locks_can_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unknown)
    write_whole(tmp_path / "a.bin", b"x", overwrite=False)
    assert everything(tmp_path) == ["a.bin"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_writing_never_touches_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It belongs to the whole process: two threads that look at it at the same time would leave it at 0.
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask was changed"))
    write_whole(tmp_path / "a.bin", b"x", overwrite=False)
