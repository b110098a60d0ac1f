"""Files in folders and archives: found without unpacking, read one at a time.

Archives are zip and tar files, also tar files inside a tar file, which is how large data sets are published.
Nothing is ever written to the paths that an archive contains.
"""

import bz2
import gzip
import lzma
import mmap
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from pellucid.errors import DataError, PictureError
from pellucid.system import files

MAX_BYTES = 2**31
"""Limit for each file inside an archive: a small archive can declare, and unpack to, any size."""

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")

_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_MAX_DEPTH = 3
_UNREADABLE = (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error, lzma.LZMAError)
"""What archive modules raise if an archive is damaged or encrypted."""
_ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, *_UNREADABLE)


@dataclass(frozen=True)
class Source:
    """One file. If it is in an archive, its time is that of the archive.

    name: posix path inside the folder or archive. location: path including the folder or archive, for messages.
    """

    name: str
    location: str
    num_bytes: int
    mtime_ns: int
    _read: Callable[[], bytes]
    _path: Path | None = None
    """None for a file in an archive."""

    def content(self) -> bytes:
        """All bytes. Raises PictureError if they cannot be read."""
        try:
            return self._read()
        except zipfile.BadZipFile as error:
            raise PictureError(f"{self.location} is damaged inside its archive: {error}") from error
        except _UNREADABLE as error:
            raise PictureError(
                f"{self.location} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error

    @contextmanager
    def open_path(self) -> Iterator[Path]:
        """A path to read from: the file itself or, for a file in an archive, a temporary copy.

        Raises PictureError if the file cannot be read, OutputError if there is no space for the copy.
        """
        if self._path is not None:
            yield self._path
            return
        with tempfile.TemporaryDirectory(prefix="pellucid-") as folder:
            path = Path(folder, f"file{PurePosixPath(self.name).suffix[:16]}")
            content = self.content()
            try:
                path.write_bytes(content)
            except OSError as error:
                raise files.no_space_error(len(content), self.location, error) from error
            yield path


@dataclass(frozen=True)
class FileList:
    """The files in a folder or an archive, sorted by name.

    left_out: locations of files that cannot be used, each with the reason.
    """

    sources: tuple[Source, ...]
    left_out: tuple[tuple[str, str], ...] = ()


def list_files(path: str | Path, suffixes: Collection[str]) -> FileList:
    """All files with one of the suffixes in a folder, at any depth, or in an archive, except hidden files.

    suffixes: lower case, with the dot. Raises DataError if there is no such folder or archive.
    """
    path = Path(path)
    if path.is_dir():
        return _sort(_walk_folder(path, suffixes), [])
    if not path.exists():
        raise DataError(f"{path} does not exist; a folder, zip or tar is needed")
    if not path.is_file():
        raise DataError(f"{path} is not a file or folder; a folder, zip or tar is needed")
    left_out: list[tuple[str, str]] = []
    try:
        if zipfile.is_zipfile(path):
            return _sort(_walk_zip(path, suffixes, left_out), left_out)
        return _sort(_walk_tar(path, suffixes, left_out), left_out)
    except _ARCHIVE_ERRORS as error:
        raise DataError(f"{path} cannot be read as a zip or tar archive: {error}") from error


def _sort(sources: Iterator[Source], left_out: list[tuple[str, str]]) -> FileList:
    by_name: dict[str, Source] = {}
    for source in sources:
        if source.name in by_name:
            left_out.append((source.location, "its archive has two files of this name; the last one is used"))
        by_name[source.name] = source
    return FileList(tuple(by_name[name] for name in sorted(by_name)), tuple(left_out))


def _walk_folder(folder: Path, suffixes: Collection[str]) -> Iterator[Source]:
    for path in files.find_files(folder, suffixes):
        if path.is_file():
            stat = path.stat()
            name = path.relative_to(folder).as_posix()
            yield Source(name, str(path), stat.st_size, stat.st_mtime_ns, path.read_bytes, path)


def _walk_zip(path: Path, suffixes: Collection[str], left_out: list[tuple[str, str]]) -> Iterator[Source]:
    archive = zipfile.ZipFile(path)
    mtime_ns = path.stat().st_mtime_ns
    for info in archive.infolist():
        location = f"{path}/{info.filename}"
        if not info.is_dir() and _is_wanted(info.filename, location, info.file_size, suffixes, left_out):
            yield Source(
                str(PurePosixPath(info.filename)),
                location,
                info.file_size,
                mtime_ns,
                partial(_read_from_zip, archive, info),
            )


def _read_from_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:  # safe in several threads: zipfile locks its file
        return file.read(info.file_size)


def _walk_tar(path: Path, suffixes: Collection[str], left_out: list[tuple[str, str]]) -> Iterator[Source]:
    mtime_ns = path.stat().st_mtime_ns
    unpacked = _decompress(path)
    read = partial(_read_range, path) if unpacked is None else partial(_slice_map, unpacked)
    with path.open("rb") as file:
        yield from _Tar(read, str(path), mtime_ns, suffixes, left_out).walk(unpacked or file, 0, "", 0)


def _decompress(path: Path) -> mmap.mmap | None:
    """A compressed tar, unpacked to a temporary file for random access; None if it is not compressed."""
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        decompress = next((open_ for magic, open_ in _COMPRESSED.items() if head.startswith(magic)), None)
        if decompress is None:
            return None
        with decompress(file) as packed, tempfile.TemporaryFile(prefix="pellucid-") as unpacked:
            shutil.copyfileobj(packed, unpacked, 2**20)
            unpacked.flush()
            return mmap.mmap(unpacked.fileno(), 0, access=mmap.ACCESS_READ)


def _read_range(path: Path, start: int, num_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(num_bytes)


def _slice_map(mapped: mmap.mmap, start: int, num_bytes: int) -> bytes:
    return mapped[start : start + num_bytes]


@dataclass(frozen=True)
class _Tar:
    """A tar file and the tar files in it, as ranges of one file."""

    read: Callable[[int, int], bytes]
    path: str
    mtime_ns: int
    suffixes: Collection[str]
    left_out: list[tuple[str, str]]

    def walk(self, file: Any, start: int, folder: str, depth: int) -> Iterator[Source]:
        """file: the tar itself, which starts at byte `start` of the outermost one."""
        file.seek(0, os.SEEK_END)
        end = file.tell()
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            try:
                for member in archive:
                    if member.isreg():
                        yield from self._walk_member(archive, member, start, end, folder, depth)
            except _ARCHIVE_ERRORS as error:
                self.left_out.append((f"{self.path}/{folder}", f"its tar file is damaged from here on: {error}"))

    def _walk_member(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, start: int, end: int, folder: str, depth: int
    ) -> Iterator[Source]:
        name = f"{folder}{member.name}"
        location = f"{self.path}/{name}"
        if not 0 <= member.size <= end - member.offset_data or member.issparse():
            if _has_suffix(name, self.suffixes):
                self.left_out.append(
                    (location, f"its archive is truncated, or declares too much: {member.size} bytes")
                )
        elif name.lower().endswith(".tar") and depth < _MAX_DEPTH:
            yield from self._walk_inner(archive.extractfile(member), start + member.offset_data, name, depth)
        elif _is_wanted(name, location, member.size, self.suffixes, self.left_out):
            content = partial(self.read, start + member.offset_data, member.size)
            yield Source(str(PurePosixPath(name)), location, member.size, self.mtime_ns, content)

    def _walk_inner(self, file: Any, start: int, name: str, depth: int) -> Iterator[Source]:
        try:
            yield from self.walk(file, start, f"{name[:-4]}/", depth + 1)
        except _ARCHIVE_ERRORS as error:
            self.left_out.append((f"{self.path}/{name}", f"it cannot be read as a tar: {error}"))


def _is_wanted(
    name: str, location: str, num_bytes: int, suffixes: Collection[str], left_out: list[tuple[str, str]]
) -> bool:
    """Whether a file of an archive is used; adds to `left_out` what users may miss."""
    path = PurePosixPath(name)
    if any(part.startswith(".") and part != ".." for part in path.parts) or "__MACOSX" in path.parts:
        return False
    if not _has_suffix(name, suffixes):
        if name.lower().endswith(ARCHIVES):
            left_out.append((location, "it is an archive inside an archive; unpack it and give it as a source"))
        return False
    if ".." in path.parts or path.is_absolute():
        left_out.append((location, "its name points outside the archive"))
        return False
    if num_bytes > MAX_BYTES:
        left_out.append((location, f"it declares {num_bytes} bytes; at most {MAX_BYTES} are allowed"))
        return False
    return True


def _has_suffix(name: str, suffixes: Collection[str]) -> bool:
    return PurePosixPath(name).suffix.lower() in suffixes
