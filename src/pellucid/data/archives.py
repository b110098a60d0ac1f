"""Files in folders and archives: found without unpacking, read one at a time.

Archives are zip and tar files, also tar files inside a tar file, which is how large data sets are published.
Nothing is ever written to the paths that an archive contains.
"""

import bz2
import gzip
import hashlib
import lzma
import mmap
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
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
_HEAD_BYTES = 64
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

    @property
    def place(self) -> str:
        """A hash of where the file is, which does not tell users of a store."""
        place = os.path.abspath(self.location)  # noqa: PTH100  # Path's own takes three times as long
        return hashlib.sha256(os.fsencode(place)).hexdigest()[:16]

    def content(self) -> bytes:
        """All bytes. Raises PictureError if they cannot be read."""
        try:
            return self._read()
        except zipfile.BadZipFile as error:
            reason = "its checksum is wrong" if "CRC" in str(error) else error
            raise PictureError(f"{self.location} is damaged inside its archive: {reason}") from error
        except _UNREADABLE as error:
            if "is encrypted" in str(error):
                raise PictureError(f"{self.location} is encrypted", hint="unpack the archive first") from error
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
    ignored: number of other files, by suffix.
    """

    sources: tuple[Source, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Listing:
    """Which files are wanted, and what was found out about the others.

    suffixes: lower case, with the dot. recognize: whether a file with another one is wanted, by its first bytes.
    """

    suffixes: Collection[str]
    recognize: Callable[[bytes], bool]
    left_out: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def is_wanted(self, name: str, read_head: Callable[[], bytes]) -> bool:
        """Whether a file is wanted; counts it as ignored if not."""
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in self.suffixes or self.recognize(read_head()):
            return True
        self.ignored[suffix or "without suffix"] += 1
        return False

    def is_wanted_of_archive(
        self, name: str, location: str, num_bytes: int, read_head: Callable[[], bytes]
    ) -> bool:
        """`is_wanted` for a file of an archive; adds to `left_out` what users may miss."""
        path = PurePosixPath(name)
        if any(part.startswith(".") and part != ".." for part in path.parts) or "__MACOSX" in path.parts:
            return False
        if name.lower().endswith(ARCHIVES):
            self.left_out.append(
                (location, "it is an archive inside an archive; unpack it and give it as a source")
            )
            return False
        if not self.is_wanted(name, read_head):
            return False
        if ".." in path.parts or path.is_absolute():
            self.left_out.append((location, "its name points outside the archive"))
            return False
        if num_bytes > MAX_BYTES:
            self.left_out.append((location, f"it declares {num_bytes} bytes; at most {MAX_BYTES} are allowed"))
            return False
        return True

    def finish(self, sources: Iterator[Source]) -> FileList:
        """The sources sorted by name; of two with the same name, the last one."""
        by_name: dict[str, Source] = {}
        for source in sources:
            if source.name in by_name:
                reason = "its archive has two files of this name; the last one is used"
                self.left_out.append((source.location, reason))
            by_name[source.name] = source
        return FileList(tuple(by_name[name] for name in sorted(by_name)), tuple(self.left_out), dict(self.ignored))


def list_files(
    path: str | Path, suffixes: Collection[str], recognize: Callable[[bytes], bool] = lambda head: False
) -> FileList:
    """All files with one of the suffixes in a folder, at any depth, or in an archive, except hidden files.

    suffixes: lower case, with the dot. recognize: whether a file with another one is wanted too, by its first 64
    bytes. Raises DataError if there is no such folder or archive.
    """
    path = Path(path)
    listing = _Listing(suffixes, recognize)
    if path.is_dir():
        return listing.finish(_walk_folder(path, listing))
    if not path.exists():
        raise DataError(f"{path} does not exist; a folder, zip or tar is needed")
    if not path.is_file():
        raise DataError(f"{path} is not a file or folder; a folder, zip or tar is needed")
    try:
        walk = _walk_zip if zipfile.is_zipfile(path) else _walk_tar
        return listing.finish(walk(path, listing))
    except _ARCHIVE_ERRORS as error:
        if listing.is_wanted(path.name, partial(_read_head, path)):
            raise DataError(f"{path} is a single file; a folder, zip or tar is needed") from error
        if _read_head(path).startswith(b"PK\x03\x04"):
            raise DataError(f"{path} is a truncated zip archive, without the list of its files") from error
        raise DataError(f"{path} cannot be read as a zip or tar archive: {error}") from error


def _walk_folder(folder: Path, listing: _Listing) -> Iterator[Source]:
    for path in files.find_files(folder):
        name = path.relative_to(folder).as_posix()
        if not path.is_file():  # a pipe, or a link that leads nowhere
            if path.suffix.lower() in listing.suffixes:
                listing.left_out.append((name, "it is not a file" if path.exists() else "it is a broken link"))
        elif listing.is_wanted(name, partial(_read_head, path)):
            stat = path.stat()
            yield Source(name, str(path), stat.st_size, stat.st_mtime_ns, path.read_bytes, path)


def _read_head(path: Path) -> bytes:
    """The first bytes; b"" if they cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(_HEAD_BYTES)
    return b""


def _walk_zip(path: Path, listing: _Listing) -> Iterator[Source]:
    archive = zipfile.ZipFile(path)
    mtime_ns = path.stat().st_mtime_ns
    for info in archive.infolist():
        location, head = f"{path}/{info.filename}", partial(_read_head_of_zip, archive, info)
        if not info.is_dir() and listing.is_wanted_of_archive(info.filename, location, info.file_size, head):
            yield Source(
                str(PurePosixPath(info.filename)),
                location,
                info.file_size,
                mtime_ns,
                partial(_read_from_zip, archive, info),
            )


def _read_head_of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The first bytes; b"" if the file is damaged or encrypted."""
    with suppress(zipfile.BadZipFile, *_UNREADABLE), archive.open(info) as file:
        return file.read(_HEAD_BYTES)
    return b""


def _read_from_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:  # safe in several threads: zipfile locks its file
        return file.read(info.file_size)


def _walk_tar(path: Path, listing: _Listing) -> Iterator[Source]:
    mtime_ns = path.stat().st_mtime_ns
    unpacked = _decompress(path)
    read = partial(_read_range, path) if unpacked is None else partial(_slice_map, unpacked)
    with path.open("rb") as file:
        yield from _Tar(read, str(path), mtime_ns, listing).walk(unpacked or file, 0, "", 0)


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
    listing: _Listing

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
                    elif PurePosixPath(member.name).suffix.lower() in self.listing.suffixes and not member.isdir():
                        place = f"{self.path}/{folder}{member.name}"
                        self.listing.left_out.append((place, "it is a link or a device"))
            except _ARCHIVE_ERRORS as error:
                self.listing.left_out.append(
                    (f"{self.path}/{folder}", f"its tar file is damaged from here on: {error}")
                )

    def _walk_member(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, start: int, end: int, folder: str, depth: int
    ) -> Iterator[Source]:
        name = f"{folder}{member.name}"
        location = f"{self.path}/{name}"
        if not 0 <= member.size <= end - member.offset_data or member.issparse():
            if PurePosixPath(name).suffix.lower() in self.listing.suffixes:
                self.listing.left_out.append(
                    (location, f"its archive is truncated, or declares too much: {member.size} bytes")
                )
            return
        at, num_bytes = start + member.offset_data, member.size
        if name.lower().endswith(".tar") and depth < _MAX_DEPTH:
            yield from self._walk_inner(archive.extractfile(member), at, name, depth)
            return
        head = partial(self.read, at, min(num_bytes, _HEAD_BYTES))
        if self.listing.is_wanted_of_archive(name, location, num_bytes, head):
            content = partial(self.read, at, num_bytes)
            yield Source(str(PurePosixPath(name)), location, member.size, self.mtime_ns, content)

    def _walk_inner(self, file: Any, start: int, name: str, depth: int) -> Iterator[Source]:
        try:
            yield from self.walk(file, start, f"{name[:-4]}/", depth + 1)
        except _ARCHIVE_ERRORS as error:
            self.listing.left_out.append((f"{self.path}/{name}", f"it cannot be read as a tar: {error}"))
