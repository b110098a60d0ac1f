"""Finding files, and writing them atomically: complete or not at all, and never over another file unasked."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO
from zlib import crc32

from filelock import lock_descriptor
from platformdirs import user_cache_path

from pellucid.errors import DataError, OutputError, PellucidError, PictureError
from pellucid.system.signals import defer_sigint

_PREFIX, _SUFFIX = ".pellucid-", ".part"

_FOLDER_PREFIX, _LOCK, _LOCK_WITHIN_S = "pellucid-work-", ".lock", 60.0

_BLOCK_BYTES = 2**20

_IS_WINDOWS = os.name == "nt"

MAX_NAME_BYTES = 255
"""Limit on names in nearly all file systems; messages about long names depend on it."""


def to_picture_path(path: str | Path) -> Path:
    """The path of a picture. Raises PictureError for other types, and for an empty text: the current folder."""
    if not isinstance(path, str | Path):
        raise PictureError(f"an object of type {type(path).__name__}; the path of a picture is needed")
    if path == "":
        raise PictureError("the path is empty; a picture file is needed")
    return Path(path)


def read_head(path: Path, num_bytes: int = 16) -> bytes:
    """The first bytes of a picture file.

    Raises PictureError if the path is not a file, or the file is empty or cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading from it may never end
            kind = "a pipe" if stat.S_ISFIFO(mode) else "a device"
            raise PictureError(f"{path} is {kind}; a picture file is needed")
        with path.open("rb", buffering=0) as file:
            first = file.read(num_bytes)
    except IsADirectoryError as error:
        raise PictureError(f"{path} is a folder; a picture file is needed") from error
    except FileNotFoundError as error:
        if path.is_symlink():
            target = os.readlink(path)  # noqa: PTH115  # text, as the link has it
            raise PictureError(f"{path} is a link to {target}, which does not exist") from error
        raise PictureError(f"{path} does not exist", hint="check the name") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise PictureError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not first:
        raise PictureError(f"{path} is empty; a picture is needed")
    return first


def check_regular(path: Path) -> None:
    """Raise OSError if opening a path could wait forever: for pipes and devices."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a device or a pipe", str(path))


def check_own(path: Path) -> None:
    """The same for a file of pellucid's own to which lines are added, also for symbolic links.

    Someone else may have put the link there, and lines would be added to the file that it names.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link", str(path))
    check_regular(path)


def is_json(path: Path) -> bool:
    """Whether a file is an object or a list in JSON, or empty."""
    try:
        text = path.read_text("utf-8")
        return not text or isinstance(json.loads(text), dict | list)
    except (OSError, ValueError, RecursionError):
        return False


def read_small(path: Path, max_bytes: int = 2**20) -> bytes:
    """The content of a small file that the user names, or of a pipe that the shell makes, e.g. /dev/fd/63.

    Raises PellucidError if it cannot be read, is larger, or is a named pipe or a device, which may never end.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or (stat.S_ISFIFO(mode) and _has_name(path)):
            raise PellucidError(f"{path} is a device or a pipe; a file is needed")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise PellucidError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > max_bytes:
        raise PellucidError(f"{path} is too large: more than {max_bytes:,} bytes", hint="check the name")
    return content


def _has_name(path: Path) -> bool:
    """Whether a pipe is in a folder, so that it waits until another program opens it."""
    return Path(os.path.realpath(path)).exists()  # that of /dev/fd/63 is no path: /proc/1/fd/pipe:[8]


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_files(folder: Path, problems: list[PellucidError] | None = None) -> Iterator[Path]:
    """All files below a folder, in no particular order.

    Skips hidden files and folders, and does not follow linked folders. A folder that cannot be read would look
    empty: it is a DataError, which is added to `problems`, if given, and otherwise raised.
    """

    def report(error: OSError) -> None:
        problem = DataError(f"{error.filename} cannot be read: {error.strerror}")
        if problems is None:
            raise problem from error
        problems.append(problem)

    for parent, folders, names in os.walk(folder, onerror=report):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(parent, name)


def no_space_error(num_bytes: int, purpose: str, error: OSError) -> OutputError:
    """The error for a folder of temporary files that is too full or does not exist."""
    return OutputError(
        f"{tempfile.gettempdir()} has no space for {num_bytes / 1e6:.0f} MB of {purpose}: "
        f"{error.strerror or error}",
        hint="set the environment variable TMPDIR to another folder",
    )


def check_name(path: Path, *, hint: str = "choose a shorter name by {out}") -> None:
    """Raise OutputError for a path that no file can have, and for a URL, which would become a folder.

    hint: what to do if a name is too long.
    """
    if "\0" in str(path):
        raise OutputError(
            f"{str(path)!r} contains a NUL character, which no file name can", hint="choose another name"
        )
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE):  # Path makes one slash of two
        raise OutputError(f"{path} is a URL", hint="choose a file or folder of this computer")
    try:
        os.lstat(path)
        is_too_long = False
    except OSError as error:
        is_too_long = error.errno == errno.ENAMETOOLONG
    # The system does not look at the name if the folder is missing.
    if is_too_long or len(os.fsencode(path.name)) > MAX_NAME_BYTES:
        raise OutputError(f"{_describe_long_name(path)} is too long", hint=hint)


def _describe_long_name(path: Path) -> str:
    """The first and last characters of a name that is too long, or of a path if its name is not."""
    num_bytes = len(os.fsencode(path.name))
    if num_bytes > MAX_NAME_BYTES:
        return f"the name {path.name[:20]}...{path.name[-20:]} of {num_bytes} bytes"
    return f"the path {str(path)[:40]}...{path.name[-20:]}"


def check_overwrite(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if something exists at path that must not be replaced."""
    check_name(path)
    if os.path.isdir(path):  # noqa: PTH112  # Path's own raises on names too long and on loops of links
        raise OutputError(f"{path} is a folder; a file name is needed")
    if os.path.exists(path):  # noqa: PTH110  # as above
        if not path.is_file():
            raise OutputError(f"{path} is a device or a pipe, not a file")
        if not overwrite:
            raise OutputError(f"{path} exists", hint="{overwrite} replaces it", overwrite=True)


def cache_folder() -> Path:
    """The folder for data that can be computed again: $PELLUCID_CACHE, or pellucid's folder in the user's cache.

    Users may delete it at any time. Raises OutputError if $PELLUCID_CACHE is not a folder, but something else.
    """
    chosen = os.environ.get("PELLUCID_CACHE")
    if chosen and Path(chosen).exists() and not Path(chosen).is_dir():
        raise OutputError(f"PELLUCID_CACHE={chosen} is not a folder", hint="change this environment variable")
    return Path(chosen) if chosen else user_cache_path("pellucid", appauthor=False)


@contextmanager
def atomic_file(
    path: Path, *, overwrite: bool, before_rename: Callable[[Path], None] | None = None
) -> Iterator[Path]:
    """An empty temporary file next to path, renamed to path at the end. Creates missing folders.

    On any error, the temporary file is removed. Temporary files that killed processes left behind for the same
    path are removed first. Raises OutputError if path exists, before or after writing, and overwrite is False,
    or if it cannot be written; an OSError raised while writing becomes an OutputError.

    before_rename: called with the complete temporary file, whose size and time stay the same.
    """
    with _temporary_next_to(path, overwrite=overwrite) as temporary:
        yield temporary.path
        _sync(temporary.path)
        check_overwrite(path, overwrite=overwrite)  # another process may have written it meanwhile
        if before_rename is not None:
            before_rename(temporary.path)
        temporary.rename(path)


def check_report(path: Path, used: Iterable[Path], *, overwrite: bool) -> None:
    """Raise OutputError if a report cannot be written to path, or would replace one of the files in use."""
    if os.path.realpath(path) in map(os.path.realpath, used):
        raise OutputError(f"{path} is one of the pictures", hint="choose another name for the report")
    check_writable(path, overwrite=overwrite)


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Raise the OutputError of `atomic_file` before a long computation instead of after. Creates folders."""
    with _temporary_next_to(path, overwrite=overwrite):
        pass


def write_atomic(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write content by `atomic_file`, with the same errors."""
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


@contextmanager
def _temporary_next_to(path: Path, *, overwrite: bool) -> Iterator["_Temporary"]:
    """An empty file next to path, removed at the end. Raises OutputError as `atomic_file` does."""
    check_overwrite(path, overwrite=overwrite)
    try:
        make_folder(path.parent)
        _remove_leftovers(os.path.abspath(path.parent))  # noqa: PTH100  # Path's own resolves links
        with ExitStack() as stack:
            with defer_sigint():
                temporary = _Temporary.create(path)
                stack.callback(temporary.remove)
            try:
                yield temporary
            except PellucidError as error:  # libraries name the file that they write
                raise error.renamed(f"{temporary.path}: ", "") from error.__cause__
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            text = f"{_describe_long_name(path)} is too long"
            raise OutputError(text, hint="choose a shorter name by {out}") from error
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def make_folder(folder: Path) -> None:
    """Create a folder, and those around it, unless they exist. Raises OutputError if a file is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _obstacle_error(_find_existing(folder)) from error


def check_folder(folder: Path) -> None:
    """Raise OutputError, before any work, if files cannot be written into a folder, which may not exist yet."""
    existing = _find_existing(folder)
    if not existing.is_dir():
        raise _obstacle_error(existing)
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error


def _find_existing(folder: Path) -> Path:
    """The folder, or the innermost one around it that exists; or a file of this name."""
    return next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))


def _obstacle_error(file: Path) -> OutputError:
    return OutputError(f"{file} is a file; a folder is needed", hint="choose another name")


@dataclass
class _Temporary:
    """A temporary file that no other process removes while this process has it open.

    On POSIX, an open file can be removed, so it is locked. The lock is on the file itself: a separate lock file
    would remain in the user's folder. On Windows, an open file can be neither removed nor renamed, and a lock
    would keep other handles of this process from writing.
    """

    path: Path
    descriptor: int | None

    @classmethod
    def create(cls, target: Path) -> "_Temporary":
        while True:
            path = target.parent / f"{_prefix(target)}{secrets.token_hex(8)}{_SUFFIX}"
            # Not by tempfile, which leaves permissions to us: reading the umask means setting it for all threads.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            if _IS_WINDOWS or _lock_new(descriptor):
                return cls(path, descriptor)
            os.close(descriptor)

    def rename(self, target: Path) -> None:
        if _IS_WINDOWS:
            self._close()
        self.path.replace(target)

    def remove(self) -> None:
        """Unless it was renamed."""
        with defer_sigint():
            self._close()
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.descriptor = None


def _lock_new(descriptor: int) -> bool:
    """Lock a new file. False if another process took it for a leftover before it was locked, and removes it."""
    with suppress(OSError):  # some network shares have no locks; there, leftovers are not removed either
        return lock_descriptor(descriptor, blocking=False) and os.fstat(descriptor).st_nlink > 0
    return True


@lru_cache(maxsize=1024)
def _remove_leftovers(folder: str) -> None:
    """Remove temporary files that no running process has open; once, as a folder can have millions of files."""
    for leftover in Path(folder).glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):
            if _IS_WINDOWS:
                leftover.unlink()  # fails if it is open
            else:
                _remove_unlocked(leftover)


def _remove_unlocked(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        if lock_descriptor(descriptor, blocking=False):
            path.unlink()
    finally:
        os.close(descriptor)


def _prefix(path: Path) -> str:
    """The start of the names of temporary files of a path; short, however long the name of the path is."""
    return f"{_PREFIX}{crc32(os.fsencode(path.name)):08x}-"


def hidden_path(path: Path, kind: str) -> Path:
    """A hidden file or folder next to a path, for this kind of temporary data about it."""
    return path.parent / f"{_prefix(path)}{kind}"


def _sync(path: Path) -> None:
    """Flush to the disk, so that after a power failure a renamed file is complete."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder in the system's folder for temporary files, removed at the end.

    Folders of processes that were killed are removed first. Raises OutputError if it cannot be made.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(_locked_folder(Path(tempfile.gettempdir()), _FOLDER_PREFIX))
        except OSError as error:
            raise no_space_error(0, "temporary files", error) from error
        yield folder


@contextmanager
def folder_next_to(path: Path) -> Iterator[Path]:
    """A hidden folder in the folder of a path, which is created if it is missing; removed at the end.

    Folders of processes that were killed are removed first. Raises OutputError if the folder cannot be made, or an
    OSError is raised while it is used.
    """
    try:
        make_folder(path.parent)
        with _locked_folder(path.parent, f".{_FOLDER_PREFIX}") as folder:
            yield folder
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def _locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    _remove_leftover_folders(parent, prefix)
    with ExitStack() as stack:
        with defer_sigint():
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            stack.callback(os.close, descriptor)
            with suppress(OSError):
                lock_descriptor(descriptor, blocking=False)
        yield folder


def _remove_leftover_folders(parent: Path, prefix: str) -> None:
    """Remove temporary folders that no running process has locked; new ones may not be locked yet."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _LOCK_WITHIN_S:
                descriptor = os.open(folder / _LOCK, os.O_RDWR)
                try:
                    is_leftover = lock_descriptor(descriptor, blocking=False)
                finally:
                    os.close(descriptor)
                if is_leftover:
                    shutil.rmtree(folder, ignore_errors=True)


def splice(file: IO[bytes], start: int, stop: int, content: bytes) -> None:
    """Replace the bytes of a file from start to stop: moves the rest of the file, block by block.

    file: open for reading and writing.
    """
    growth = start + len(content) - stop
    end = file.seek(0, 2)
    blocks = [(place, min(place + _BLOCK_BYTES, end)) for place in range(stop, end, _BLOCK_BYTES)]
    if growth:
        for first, last in reversed(blocks) if growth > 0 else blocks:
            file.seek(first)
            block = file.read(last - first)
            file.seek(first + growth)
            file.write(block)
    file.truncate(end + growth)
    file.seek(start)
    file.write(content)
