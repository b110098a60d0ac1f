"""Files as such: what stands at a name, and writing so that nothing is lost.

A result is there whole or not at all, and never over another unasked.
"""

import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from zlib import crc32

from pellucid.errors import OutputError, PictureError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

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


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError when something is at path that may not be replaced."""
    # os.path, since Path's own methods raise on names that are too long and on loops of links.
    if os.path.isdir(path):  # noqa: PTH112
        raise OutputError(f"{path} is a folder; a file name is needed")
    if os.path.exists(path):  # noqa: PTH110
        if not overwrite:
            raise OutputError(f"{path} exists; --overwrite replaces it")
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
    check_free(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        with _temporary(path) as temporary:
            yield temporary
            _sync(temporary)
            check_free(path, overwrite=overwrite)  # writing takes its time, and others write, too
            if when_whole is not None:
                when_whole(temporary)
            temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


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
