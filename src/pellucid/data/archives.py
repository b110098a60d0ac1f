"""Files in folders and archives: found without unpacking, read one at a time.

Archives are zip files and tar files, also tars inside a tar, as large sets come. A name inside an archive is
only ever a name: nothing is written under it.
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
"""Of one file inside an archive: a small archive can declare, and unpack to, any size."""

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")

_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_MAX_DEPTH = 3
_UNREADABLE = (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error, lzma.LZMAError)
"""What archive modules raise on damage and on encryption."""
_ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, *_UNREADABLE)


@dataclass(frozen=True)
class Source:
    """One file. name: its posix path inside the folder or archive it was found in."""

    name: str
    place: str
    """Where it lies, for people."""
    num_bytes: int
    mtime_ns: int
    _read: Callable[[], bytes]
    _local: Path | None = None

    def content(self) -> bytes:
        """All bytes. Raises PictureError when they cannot be had."""
        try:
            return self._read()
        except zipfile.BadZipFile as error:
            raise PictureError(f"{self.place} is damaged inside its archive: {error}") from error
        except _UNREADABLE as error:
            raise PictureError(
                f"{self.place} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error

    @contextmanager
    def file(self) -> Iterator[Path]:
        """A path to read from: the file itself or, of an archive, a copy that goes again."""
        if self._local is not None:
            yield self._local
            return
        with tempfile.TemporaryDirectory(prefix="pellucid-") as folder:
            path = Path(folder, f"file{PurePosixPath(self.name).suffix[:16]}")
            content = self.content()
            try:
                path.write_bytes(content)
            except OSError as error:
                raise files.no_space_error(len(content), self.place, error) from error
            yield path


@dataclass(frozen=True)
class Found:
    """What a folder or an archive holds: the files, sorted by name, and what had to be passed over."""

    sources: tuple[Source, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    """Places, each with the reason."""


def find(path: str | Path, suffixes: Collection[str]) -> Found:
    """Every file with one of the suffixes below a folder or in an archive; hidden ones do not count.

    suffixes: lower case, with the dot. Raises DataError when there is no such folder or archive.
    """
    path = Path(path)
    if path.is_dir():
        return _found(_in_folder(path, suffixes), [])
    if not path.exists():
        raise DataError(f"{path} does not exist; a folder, zip or tar is needed")
    if not path.is_file():
        raise DataError(f"{path} is no file; a folder, zip or tar is needed")
    left_out: list[tuple[str, str]] = []
    try:
        if zipfile.is_zipfile(path):
            return _found(_in_zip(path, suffixes, left_out), left_out)
        return _found(_in_tar_file(path, suffixes, left_out), left_out)
    except _ARCHIVE_ERRORS as error:
        raise DataError(f"{path} cannot be read as a zip or tar archive: {error}") from error


def _found(sources: Iterator[Source], left_out: list[tuple[str, str]]) -> Found:
    by_name: dict[str, Source] = {}
    for source in sources:
        if source.name in by_name:
            left_out.append((source.place, "its archive holds a file of this name twice; the last one counts"))
        by_name[source.name] = source
    return Found(tuple(by_name[name] for name in sorted(by_name)), tuple(left_out))


def _in_folder(folder: Path, suffixes: Collection[str]) -> Iterator[Source]:
    for path in files.find_files(folder, suffixes):
        if path.is_file():
            about = path.stat()
            inside = path.relative_to(folder).as_posix()
            yield Source(inside, str(path), about.st_size, about.st_mtime_ns, path.read_bytes, path)


def _in_zip(path: Path, suffixes: Collection[str], left_out: list[tuple[str, str]]) -> Iterator[Source]:
    archive = zipfile.ZipFile(path)
    mtime_ns = path.stat().st_mtime_ns
    for info in archive.infolist():
        place = f"{path}/{info.filename}"
        if not info.is_dir() and _is_wanted(info.filename, place, info.file_size, suffixes, left_out):
            yield Source(
                str(PurePosixPath(info.filename)),
                place,
                info.file_size,
                mtime_ns,
                partial(_zip_content, archive, info),
            )


def _zip_content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:  # reading in several threads is safe: zipfile locks its file
        return file.read(info.file_size)


def _in_tar_file(path: Path, suffixes: Collection[str], left_out: list[tuple[str, str]]) -> Iterator[Source]:
    mtime_ns = path.stat().st_mtime_ns
    unpacked = _unpacked(path)
    read = partial(_range_of_file, path) if unpacked is None else partial(_range_of_map, unpacked)
    with path.open("rb") as file:
        yield from _Tar(read, str(path), mtime_ns, suffixes, left_out).sources(unpacked or file, 0, "", 0)


def _unpacked(path: Path) -> mmap.mmap | None:
    """A compressed tar unpacked into a file without a name, as its parts can only be read in order; else None."""
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        unpack = next((unpack for magic, unpack in _COMPRESSED.items() if head.startswith(magic)), None)
        if unpack is None:
            return None
        with unpack(file) as packed, tempfile.TemporaryFile(prefix="pellucid-") as room:
            shutil.copyfileobj(packed, room, 2**20)
            room.flush()
            return mmap.mmap(room.fileno(), 0, access=mmap.ACCESS_READ)


def _range_of_file(path: Path, start: int, num_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(num_bytes)


def _range_of_map(mapped: mmap.mmap, start: int, num_bytes: int) -> bytes:
    return mapped[start : start + num_bytes]


@dataclass(frozen=True)
class _Tar:
    """A tar, and tars inside it, as ranges of one file."""

    read: Callable[[int, int], bytes]
    path: str
    mtime_ns: int
    suffixes: Collection[str]
    left_out: list[tuple[str, str]]

    def sources(self, file: Any, start: int, folder: str, depth: int) -> Iterator[Source]:
        """file: the tar itself, which lies at `start` of the outermost one."""
        file.seek(0, os.SEEK_END)
        end = file.tell()
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            try:
                for member in archive:
                    if member.isreg():
                        yield from self._member(archive, member, start, end, folder, depth)
            except _ARCHIVE_ERRORS as error:
                self.left_out.append((f"{self.path}/{folder}", f"the tar is damaged from here on: {error}"))

    def _member(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, start: int, end: int, folder: str, depth: int
    ) -> Iterator[Source]:
        name = f"{folder}{member.name}"
        place = f"{self.path}/{name}"
        if not 0 <= member.size <= end - member.offset_data or member.issparse():
            if _has_suffix(name, self.suffixes):
                self.left_out.append(
                    (place, f"its archive is cut short or declares too much: {member.size} bytes")
                )
        elif name.lower().endswith(".tar") and depth < _MAX_DEPTH:
            yield from self._inner(archive.extractfile(member), start + member.offset_data, name, depth)
        elif _is_wanted(name, place, member.size, self.suffixes, self.left_out):
            content = partial(self.read, start + member.offset_data, member.size)
            yield Source(str(PurePosixPath(name)), place, member.size, self.mtime_ns, content)

    def _inner(self, file: Any, start: int, name: str, depth: int) -> Iterator[Source]:
        try:
            yield from self.sources(file, start, f"{name[:-4]}/", depth + 1)
        except _ARCHIVE_ERRORS as error:
            self.left_out.append((f"{self.path}/{name}", f"it cannot be read as a tar: {error}"))


def _is_wanted(
    name: str, place: str, num_bytes: int, suffixes: Collection[str], left_out: list[tuple[str, str]]
) -> bool:
    """Whether a file of an archive counts; what a user may miss is noted."""
    path = PurePosixPath(name)
    if any(part.startswith(".") and part != ".." for part in path.parts) or "__MACOSX" in path.parts:
        return False
    if not _has_suffix(name, suffixes):
        if name.lower().endswith(ARCHIVES):
            left_out.append((place, "an archive inside an archive; unpack it and give it as a source of its own"))
        return False
    if ".." in path.parts or path.is_absolute():
        left_out.append((place, "its name leads out of the archive"))
        return False
    if num_bytes > MAX_BYTES:
        left_out.append((place, f"it declares {num_bytes} bytes; at most {MAX_BYTES} are taken"))
        return False
    return True


def _has_suffix(name: str, suffixes: Collection[str]) -> bool:
    return PurePosixPath(name).suffix.lower() in suffixes
