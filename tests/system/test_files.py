import errno
import io
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import lock_descriptor

from pellucid.errors import OutputError, PellucidError, PictureError
from pellucid.system import files
from pellucid.system.files import atomic_file, check_overwrite, check_writable, read_head, splice, write_atomic
from signalling import deliver


@pytest.fixture
def restore_umask() -> Iterator[None]:
    """Restores the umask after the test."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def all_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_errors_of_libraries_do_not_name_the_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, atomic_file(tmp_path / "a.bin", overwrite=False) as temporary:
        raise OutputError(f"a.bin cannot be written: {temporary}: write error")
    assert str(caught.value) == "a.bin cannot be written: write error"


def test_read_head_returns_the_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789abcdefgh")
    assert read_head(tmp_path / "a") == b"0123456789abcdef"
    assert read_head(tmp_path / "a", 4) == b"0123"
    assert read_head(tmp_path / "a", 99) == b"0123456789abcdefgh"


def test_unreadable_files_give_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    faults = {"missing": "does not exist", "": "is a folder", "empty": "is empty", "pipe": "is a pipe"}
    faults["/dev/null"] = "is a device"
    for name, fault in {**faults, "nul\0": "cannot be read", "long" * 100: "cannot be read"}.items():
        with pytest.raises(PictureError, match=fault) as caught:
            read_head(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to("gone.png")
    with pytest.raises(PictureError, match=r"link\.png is a link to gone\.png, which does not exist"):
        read_head(tmp_path / "link.png")


def test_write_atomic_writes_the_content_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.bin", b"\0content\n", overwrite=False)
    assert (tmp_path / "a.bin").read_bytes() == b"\0content\n"
    assert all_names(tmp_path) == ["a.bin"]


def test_missing_folders_are_created(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "c.bin", b"x", overwrite=False)
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"x"


def test_check_writable_reports_errors_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "a" / "b.json", overwrite=False)
    assert all_names(tmp_path) == ["a"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file exists; overwrite=True"):
        check_writable(tmp_path / "file", overwrite=False)
    with pytest.raises(OutputError, match="file is a file; a folder is needed"):
        check_writable(tmp_path / "file" / "b.json", overwrite=False)

    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        check_writable(tmp_path / "b.json", overwrite=False)


def test_check_folder_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.check_folder(tmp_path / "new" / "deep")
    assert not [*tmp_path.iterdir()]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file is a file; a folder is needed"):
        files.check_folder(tmp_path / "file" / "deep")

    def refuse(dir: Path) -> None:  # root may write everywhere
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputError, match="new cannot be written: Read-only file system"):
        files.check_folder(tmp_path / "new")


def test_existing_files_are_only_replaced_with_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"a\.bin exists; overwrite=True replaces it"):
        check_overwrite(path, overwrite=False)
    with pytest.raises(OutputError, match=r"a\.bin exists; overwrite=True replaces it"):
        write_atomic(path, b"new", overwrite=False)
    assert path.read_bytes() == b"old"
    write_atomic(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new"
    assert all_names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_atomic(tmp_path / "a", b"x", overwrite=overwrite)
    assert all_names(tmp_path) == ["a"]


def test_a_file_in_place_of_a_folder_gives_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"file")
    with pytest.raises(OutputError, match="is a file; a folder is needed") as caught:
        write_atomic(tmp_path / "a" / "b.bin", b"x", overwrite=False)
    assert "\n" not in str(caught.value)
    assert all_names(tmp_path) == ["a"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can write anywhere")
def test_a_read_only_folder_gives_a_one_line_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            write_atomic(tmp_path / "a.bin", b"x", overwrite=False)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "replace")])
def test_a_disk_error_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(owner, call, full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_atomic(path, b"new", overwrite=True)
    assert path.read_bytes() == b"old"
    assert all_names(tmp_path) == ["a.bin"]


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.bin", b"new", overwrite=True)
    assert all_names(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0, 0o666)])
def test_permissions_follow_the_umask(tmp_path: Path, restore_umask: None, mask: int, expected: int) -> None:
    os.umask(mask)
    write_atomic(tmp_path / "a.bin", b"x", overwrite=False)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == expected
    assert os.umask(mask) == mask  # unchanged


def test_names_of_maximum_length_can_be_written(tmp_path: Path) -> None:
    # 255 bytes: characters of four bytes, and of one.
    for name in ("\N{GLOBE WITH MERIDIANS}" * 63, "a" * 255):
        try:
            (tmp_path / name).write_bytes(b"probe")
        except OSError:
            pytest.skip("this file system takes shorter names")
        (tmp_path / name).unlink()
        write_atomic(tmp_path / name, b"x", overwrite=False)
        assert (tmp_path / name).read_bytes() == b"x"


def test_a_too_long_name_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_atomic(tmp_path / ("a" * 300), b"x", overwrite=False)


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bin"
    with atomic_file(path, overwrite=False) as temporary:
        assert temporary.parent == path.parent
        temporary.write_bytes(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert all_names(tmp_path) == ["a.bin", "deep"]


@pytest.mark.parametrize(
    ("raised", "seen"), [(OSError(28, "No space left on device"), OutputError), (ValueError(), ValueError)]
)
def test_an_error_while_writing_leaves_nothing(tmp_path: Path, raised: Exception, seen: type[Exception]) -> None:
    with pytest.raises(seen), atomic_file(tmp_path / "a.bin", overwrite=False) as temporary:
        temporary.write_bytes(b"half")
        raise raised
    assert all_names(tmp_path) == []


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pellucid.system.files import atomic_file\n"
        "with atomic_file(Path(sys.argv[1]), overwrite=False) as part:\n"
        "    part.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    target = tmp_path / "photo.png"
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    write_atomic(tmp_path / "another.png", b"whole", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["another.png"]


def test_a_folder_is_searched_for_leftovers_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[Path] = []
    glob = Path.glob

    def record(folder: Path, pattern: str) -> Iterator[Path]:
        searched.append(folder)
        return glob(folder, pattern)

    monkeypatch.setattr(Path, "glob", record)
    for number in range(3):
        write_atomic(tmp_path / f"{number}.png", b"whole", overwrite=False)
    assert searched == [tmp_path]


def test_a_new_temporary_that_another_process_takes_for_a_leftover_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Path] = []

    def lose_first(descriptor: int, *, blocking: bool) -> bool:
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        return lock_descriptor(descriptor, blocking=blocking)

    monkeypatch.setattr(files, "lock_descriptor", lose_first)
    write_atomic(tmp_path / "photo.png", b"whole", overwrite=False)
    assert len(taken) == 1 and (tmp_path / "photo.png").read_bytes() == b"whole"


def test_temporaries_of_running_processes_are_kept(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "photo.png", overwrite=True) as first:
        write_atomic(tmp_path / "photo.png", b"second", overwrite=False)
        assert first.exists()
        first.write_bytes(b"first")
    assert (tmp_path / "photo.png").read_bytes() == b"first"


def test_a_file_that_appears_during_writing_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    with pytest.raises(OutputError, match="exists"), atomic_file(path, overwrite=False) as temporary:
        temporary.write_bytes(b"ours")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert all_names(tmp_path) == ["photo.png"]


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_shares_without_locks_are_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unknown)
    write_atomic(tmp_path / "a.bin", b"x", overwrite=False)
    assert all_names(tmp_path) == ["a.bin"]


def test_windows_renames_only_closed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    real_close, real_replace = os.close, Path.replace

    def close(descriptor: int) -> None:
        closed.append(descriptor)
        real_close(descriptor)

    def replace(self: Path, target: Path) -> Path:
        assert closed
        return real_replace(self, target)

    monkeypatch.setattr(files, "_IS_WINDOWS", True)
    monkeypatch.setattr(os, "close", close)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomic(tmp_path / "a.bin", b"x", overwrite=False)
    assert all_names(tmp_path) == ["a.bin"]


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "chosen"))
    assert files.cache_folder() == tmp_path / "chosen"
    (tmp_path / "chosen").write_bytes(b"")
    with pytest.raises(OutputError, match="PELLUCID_CACHE=.*chosen is not a folder"):
        files.cache_folder()
    monkeypatch.delenv("PELLUCID_CACHE")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert files.cache_folder() == tmp_path / "pellucid"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert files.cache_folder() == Path.home() / ".cache" / "pellucid"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_writing_never_changes_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The umask is shared by all threads: two that read it (by setting it) at the same time could leave it at 0.
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask was changed"))
    write_atomic(tmp_path / "a.bin", b"x", overwrite=False)


def test_a_name_with_nul_gives_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="NUL"):
        write_atomic(tmp_path / "x\0", b"", overwrite=False)


@pytest.mark.parametrize("num_bytes", [0, 1, 2**20 - 1, 2**20, 2 * 2**20 + 5])
@pytest.mark.parametrize("length", [0, 3, 7, 12, 2**20 + 1])
def test_splice_replaces_a_part_and_moves_the_rest(num_bytes: int, length: int) -> None:
    behind = random.Random(0).randbytes(num_bytes)
    file = io.BytesIO(b"before" + b"replaced" + behind)
    splice(file, 6, 14, b"n" * length)
    assert file.getvalue() == b"before" + b"n" * length + behind


def test_temporary_folders_of_killed_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "pellucid-work-of-the-user").mkdir()
    program = (
        "import os, tempfile\nfrom pellucid.system.files import temporary_folder\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "with temporary_folder() as folder:\n    (folder / 'large').write_bytes(b'x')\n    os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    (left,) = tmp_path.glob("*/large")
    with files.temporary_folder() as mine:
        assert left.exists()  # it may be new, and not yet locked
        for folder in (left.parent, mine):
            os.utime(folder, (0, 0))
        with files.temporary_folder():
            assert mine.exists() and not left.parent.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["pellucid-work-of-the-user"]


def test_folders_next_to_a_path_that_killed_processes_left_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "new" / "model.onnx"
    program = (
        "import os\nfrom pathlib import Path\nfrom pellucid.system.files import folder_next_to\n"
        f"with folder_next_to(Path({str(out)!r})):\n    os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    (left,) = out.parent.iterdir()
    os.utime(left, (0, 0))
    with files.folder_next_to(out) as folder:
        assert not left.exists() and folder.parent == out.parent
    assert not list(out.parent.iterdir())


def test_small_files_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for endless in (pipe, Path("/dev/zero")):
        with pytest.raises(PellucidError, match=r"is a device or a pipe; a file is needed$"):
            files.read_small(endless)
    (tmp_path / "large").write_bytes(bytes(11))
    assert files.read_small(tmp_path / "large", 11) == bytes(11)
    with pytest.raises(PellucidError, match=r"large is too large: more than 10 bytes; check the name$"):
        files.read_small(tmp_path / "large", 10)
    with pytest.raises(PellucidError, match=r"cannot be read: No such file or directory$"):
        files.read_small(tmp_path / "missing")


def test_small_files_may_come_from_a_pipe_of_the_shell() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"token")
    os.close(writing)
    assert files.read_small(Path(f"/dev/fd/{reading}")) == b"token"
    os.close(reading)


def test_an_interruption_while_a_temporary_file_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = os.open

    def open_interrupted(*given: Any) -> int:
        descriptor = open_file(*given)
        deliver()
        return descriptor

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "open", open_interrupted)
        files.write_atomic(tmp_path / "a.txt", b"1", overwrite=False)
    assert not [*tmp_path.iterdir()]
