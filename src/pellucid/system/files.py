"""Files as such: what stands at a name, and writing so that nothing is lost.

A result is there whole or not at all, and never over another unasked.
"""

import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from zlib import crc32

from pellucid.errors import DataError, OutputError, PictureError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # mypy takes a module's name for nothing else

_SUFFIX = ".part"


def head(path: Path, num_bytes: int = 16) -> bytes:
    """The first bytes of a picture file.

    Raises PictureError when there is no file, nothing in it, or none that can be read from its start.
    """
    try:
        if stat.S_ISFIFO(path.stat().st_mode):
            raise PictureError(f"{path} is a pipe; a picture file is needed")
        with path.open("rb") as file:
            first = file.read(num_bytes)
    except IsADirectoryError as error:
        raise PictureError(f"{path} is a folder; a picture file is needed") from error
    except FileNotFoundError as error:
        raise PictureError(f"{path} does not exist; check the name") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise PictureError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not first:
        raise PictureError(f"{path} is empty; a picture is needed")
    return first


def walk(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Every file below a folder with one of the suffixes (lower case, with the dot), not in order.

    Hidden ones and what lies in linked folders are passed over.

    Raises DataError where a folder cannot be entered: left out in silence, it would look empty.
    """
    for parent, folders, names in os.walk(folder, onerror=_cannot_be_entered):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.suffix.lower() in suffixes:
                yield path


def _cannot_be_entered(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def no_room(num_bytes: int, purpose: str, error: OSError) -> OutputError:
    """The folder for temporary files cannot take so much."""
    return OutputError(
        f"{num_bytes / 1e6:.0f} MB for {purpose} cannot be had in {tempfile.gettempdir()}: "
        f"{error.strerror or error}; TMPDIR names another folder"
    )


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError when something is at path that may not be replaced."""
    if os.path.isdir(path):  # noqa: PTH112  # Path's own raises on names too long and on loops of links
        raise OutputError(f"{path} is a folder; a file name is needed")
    if os.path.exists(path):  # noqa: PTH110  # as above
        if not overwrite:
            raise OutputError(f"{path} exists", hint="{overwrite} replaces it", overwrite=True)
        if not path.is_file():
            raise OutputError(f"{path} is a device, not a file")


def cache_folder() -> Path:
    """Where what can be made again is kept: $PELLUCID_CACHE, else the user's cache. It may be deleted."""
    if os.environ.get("PELLUCID_CACHE"):
        return Path(os.environ["PELLUCID_CACHE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "pellucid" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pellucid"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pellucid"


@contextmanager
def whole_file(path: Path, *, overwrite: bool, when_whole: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """An empty file beside the target to write into, which takes the target's name at the end; folders are made.

    Whatever goes wrong on the way, an OSError of the writing included, nothing of it is left behind; what a
    killed process left of the same target is removed. Raises OutputError when the target exists, at first or in
    the end, and overwrite is False, or when it cannot be written.

    when_whole: called with the finished file just before it takes its name; its size and time stay.
    """
    with _place_beside(path, overwrite=overwrite) as temporary:
        yield temporary
        _sync(temporary)
        check_free(path, overwrite=overwrite)  # writing takes its time, and others write, too
        if when_whole is not None:
            when_whole(temporary)
        temporary.replace(path)


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError before long work where `whole_file` would after it; folders are made."""
    with _place_beside(path, overwrite=overwrite):
        pass


@contextmanager
def _place_beside(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """An empty file beside the target, gone in the end. Raises OutputError as `whole_file` does."""
    check_free(path, overwrite=overwrite)
    try:
        _make_folder(path.parent)
        _sweep(path)
        with _temporary(path) as temporary:
            yield temporary
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        in_the_way = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        raise OutputError(f"{in_the_way} is a file, where a folder is needed; choose another name") from error


def write_whole(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write content as `whole_file` does, and raise as it does."""
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A file beside the target, locked as long as this process is at it, and gone in the end."""
    temporary = path.parent / f"{_prefix(path)}{secrets.token_hex(8)}{_SUFFIX}"
    # Not tempfile's, which leaves the permissions to us: to ask for the umask is to change it, for all threads.
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with suppress(OSError):  # some shares know no locks; nothing is swept there either
            _lock(handle)
        yield temporary
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove unfinished files of the same target that no living process holds."""
    for leftover in path.parent.glob(f"{_prefix(path)}*{_SUFFIX}"):
        with suppress(OSError):
            handle = os.open(leftover, os.O_RDWR)
            try:
                _lock(handle)
                leftover.unlink()
            finally:
                os.close(handle)


def _lock(handle: int) -> None:
    """Raise OSError when another process has the lock. On Windows, files in use cannot be removed anyway."""
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _prefix(path: Path) -> str:
    """Tells unfinished files of different targets apart, however long or odd their names."""
    return f".pellucid-{crc32(os.fsencode(path.name)):08x}-"


def _sync(path: Path) -> None:
    """Onto the disk now: a rename that outlives a power cut shall not point to half a file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
