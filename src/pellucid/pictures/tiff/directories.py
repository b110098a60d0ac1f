"""The structure of TIFF files: finds the pictures among their directories, and reads one page as its own file.

A TIFF is a chain of directories (IFDs), each with the tags of one picture: how its samples are stored, and what
it shows. In addition to the pages, the chain may contain smaller copies of a page, and masks. Some programs store
a stack as one directory followed by the samples of all pages, whose number is in the description tag.
"""

import io
import json
import os
import re
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO, Any

from pellucid.errors import PictureError
from pellucid.pictures.records import descriptions, exif
from pellucid.pictures.structures import ifd
from pellucid.pictures.structures.ifd import Layout, Value

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
DESCRIPTION, STRIP_OFFSETS, ORIENTATION, SAMPLES_PER_PIXEL = 270, 273, 274, 277
ROWS_PER_STRIP, STRIP_LENGTHS, MIN_SAMPLE, MAX_SAMPLE, PLANAR = 278, 279, 280, 281, 284
PREDICTOR, COLOR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_LENGTHS = 317, 320, 322, 323, 324, 325
INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT, LARGEST_SAMPLE = 332, 338, 339, 341
_OLD_SUBFILE, _SUB_DIRECTORIES, _IMAGE_DEPTH, _METAMORPH = 255, 330, 32997, 33629
_UNCOMPRESSED, _FLOAT = 1, 11
PAGE_NUMBER, SUBFILE = 297, 254

_REDUCED, _PAGE, _MASK = 1, 2, 4
"""Bits of the tag NewSubfileType: a smaller copy of another page, a page of several, and a mask for one."""

_OF_SAMPLES = {SUBFILE, _OLD_SUBFILE, _SUB_DIRECTORIES, DESCRIPTION, 282, 283, 296, 301, 318, 319, 34675}
"""Tags that are not about the photograph, but about the samples of one directory, e.g. resolution and colors."""

_LINKS = {34665, 34853, 40965}
"""Tags that contain the offset of a directory: EXIF, GPS, interoperability."""

_BLOCK_BYTES = 2**22
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MAX_DIRECTORIES = 200_000
CLASSIC_BYTES = 2_500_000_000
"""With more bytes of samples, a BigTIFF is written: a classic TIFF has at most 4 GB, and compression may enlarge
the samples."""

_MAX_BYTES, _MAX_BIG_BYTES = 2**32 - 2**20, 2**62
"""The largest offset of a directory in TIFF and BigTIFF, with room for the directory."""


@dataclass(frozen=True)
class Directory:
    """The entries of one directory: tag -> (type, count, value field). Of repeated tags, the first one counts.

    path: the file, from which values are read that do not fit the value field.
    """

    path: Path
    layout: Layout
    entries: Mapping[int, Value]
    next_offset: int = 0

    def numbers(self, tag: int) -> tuple[float, ...]:
        """The numbers of a tag; () if it is missing, damaged, or contains something else."""
        kind, count, _ = self.entries.get(tag, (0, 0, b""))
        code, content = _CODES.get(kind), self.content(tag)
        return struct.unpack(f"{self.layout.order}{count}{code}", content) if code and content else ()

    def number(self, tag: int, default: int) -> int:
        """The first number of a tag, as an integer."""
        return next((int(value) for value in self.numbers(tag) if abs(value) < 2**63), default)

    def text(self, tag: int) -> str:
        """The text of a tag; "" if it is missing."""
        return self.content(tag).split(b"\0", 1)[0].decode("utf-8", "replace")

    def content(self, tag: int) -> bytes:
        """The value of a tag in the byte order of the file; b"" if it is missing or damaged."""
        if tag not in self.entries:
            return b""
        with self.path.open("rb") as file:
            return ifd.read_value(file, self.layout, ifd.Entry(tag, *self.entries[tag], place=0))

    @property
    def num_samples(self) -> int:
        """The number of samples in all channels."""
        width, height = self.size
        return width * height * self.number(SAMPLES_PER_PIXEL, 1)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.number(WIDTH, 0), self.number(HEIGHT, 0)


@dataclass(frozen=True)
class Page:
    """One picture of a TIFF.

    shift: in a stack with one directory, the bytes from the samples of the first page to those of this page.
    omitted: tags to ignore, because they describe the whole stack.
    of_file: the description in the first directory, which applies to all pages.
    """

    directory: Directory
    shift: int = 0
    omitted: frozenset[int] = frozenset()
    of_file: str = ""

    @property
    def path(self) -> Path:
        """The file that contains it."""
        return self.directory.path


@dataclass(frozen=True)
class Pages:
    """The pictures of a TIFF in the order of the file, at least one. notes: what is not used, one line each."""

    pages: tuple[Page, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pages)


def find_pages(path: Path) -> Pages:
    """The pictures of a TIFF, without smaller copies and masks. Raises PictureError if the chain is damaged."""
    try:
        directories = list(_iterate_directories(path))
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}") from error
    except (struct.error, ValueError) as error:
        raise damaged(path, "it is truncated, or its chain of pages is broken") from error
    first = directories[0]
    _refuse_unusual(first)
    below = list(_iterate_below(path, directories))
    kinds = [_kind_of(directory) for directory in directories]
    below_kinds = [_kind_of(directory) for directory in below]
    if "picture" not in kinds and "picture" in below_kinds:  # TIFF/EP: a thumbnail first, the picture below it
        directories, kinds, below, below_kinds = below, below_kinds, directories, kinds
    if "picture" not in kinds:  # e.g. a smaller copy that was saved as a file of its own
        kinds[0] = "picture"
    pictures = [directory for directory, kind in zip(directories, kinds, strict=True) if kind == "picture"]
    if len(pictures) == 1 and first not in pictures:
        pictures = [_inherit(pictures[0], first)]
    pages = tuple(page for directory in pictures for page in _unfold(directory, len(pictures)))
    text = first.text(DESCRIPTION)
    pages = tuple(replace(page, of_file=text) for page in pages)
    largest = max(directory.num_samples for directory in pictures)
    others = [_kind_below(directory, largest) for directory in below]
    return Pages(pages, tuple(_describe_rest([*kinds, *others])))


def _inherit(picture: Directory, first: Directory) -> Directory:
    """A picture with the tags of a preceding thumbnail that are about the photograph, e.g. EXIF, orientation."""
    not_inherited = (exif.STORAGE | _OF_SAMPLES) - {ORIENTATION}
    inherited = {tag: value for tag, value in first.entries.items() if tag not in not_inherited}
    return replace(picture, entries={**inherited, **picture.entries})


def choose_page(pages: Pages, path: Path, number: int | None) -> Page:
    """The page of this number, which starts at 1; by default the only one. Raises PictureError if there is none.

    A page of a stack does not inherit the description of the stack.
    """
    count = len(pages)
    if number is None and count > 1:
        raise PictureError(f"{path} has {count} pages; one is needed", hint="{page} chooses one", page=1)
    if number is not None and not 1 <= number <= count:
        raise PictureError(f"{path} has {count} page{'s' if count > 1 else ''}; there is no page {number}")
    page = pages.pages[0 if number is None else number - 1]
    if count == 1:
        return page
    return replace(
        page, omitted=frozenset({PAGE_NUMBER, *([DESCRIPTION] if describes_stack(page.directory) else [])})
    )


def describes_stack(directory: Directory) -> bool:
    """Whether the description is that of a stack of pages."""
    return descriptions.is_of_stack(directory.text(DESCRIPTION))


def open_page(page: Page, changes: Mapping[int, Sequence[int] | None] | None = None) -> io.BufferedReader:
    """A page as a TIFF of its own, for reading; see `PageFile`."""
    return io.BufferedReader(PageFile(page, changes or {}))


class PageFile(io.RawIOBase):
    """One page of a TIFF as a TIFF with a single directory.

    It reads like the file, but its header points to a new directory after the end of the file: that of the page,
    with changes. Samples and long values keep their offsets. Bytes that a truncated file lacks read as its end.
    changes: tag -> numbers that replace its value, or None to omit the tag.
    """

    def __init__(self, page: Page, changes: Mapping[int, Sequence[int] | None]) -> None:
        super().__init__()
        layout = page.directory.layout
        self._file = page.path.open("rb")
        file_size = os.fstat(self._file.fileno()).st_size
        longest = _MAX_BIG_BYTES if layout.is_big else _MAX_BYTES
        end = max(file_size, min(_find_end(page.directory, changes), longest))
        self._tail_start = end + end % 2
        self._tail, offset = _build_directory(page, changes, self._tail_start)
        self._head = ifd.read_at(self._file, 0, layout.first_pointer) + struct.pack(layout.offset, offset)
        self._size, self._position = self._tail_start + len(self._tail), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view, start = memoryview(buffer).cast("B"), self._position
        if start >= self._tail_start:
            content = self._tail[start - self._tail_start :][: len(view)]
            view[: len(content)] = content
            num_read = len(content)
        else:
            self._file.seek(start)
            num_read = self._file.readinto(view)
            head = self._head[start:][:num_read]
            view[: len(head)] = head
        self._position += num_read
        return num_read

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _find_end(directory: Directory, changes: Mapping[int, Sequence[int] | None]) -> int:
    """The offset at which the samples end if the file is complete."""
    ends = [0]
    for tags in ((STRIP_OFFSETS, STRIP_LENGTHS), (TILE_OFFSETS, TILE_LENGTHS)):
        offsets, lengths = (changes.get(tag) or directory.numbers(tag) for tag in tags)
        ends += [int(offset) + int(length) for offset, length in zip(offsets, lengths, strict=False)]
    return max(ends)


@dataclass(frozen=True)
class _Linked:
    """A directory that is not written yet. below: tag -> the directory that the tag points to, e.g. EXIF."""

    values: dict[int, Value]
    below: Mapping[int, "_Linked"]


class StackWriter:
    """Joins TIFF files of one page each into a file of several pages.

    The samples of all pages come first, one after the other without gaps, as readers of ImageJ stacks require.
    file: empty, open for reading and writing. is_big: whether to write a BigTIFF, for more than 4 GB.
    """

    def __init__(self, file: IO[bytes], *, is_big: bool) -> None:
        self._file, self._layout = file, Layout("<" if sys.byteorder == "little" else ">", is_big)
        mark = {"<": b"II", ">": b"MM"}[self._layout.order]
        file.write(
            mark
            + struct.pack(self._layout.order + ("HHHQ" if is_big else "HI"), *([43, 8, 0] if is_big else [42]), 0)
        )
        self._directories: list[_Linked] = []

    def append(self, path: Path, changes: Mapping[int, Value]) -> None:
        """Append the only page of a file, in the byte order of this machine. changes: values to set or replace."""
        with path.open("rb") as page:
            layout, offset = ifd.parse_header(page)
            directory = ifd.parse_directory(page, layout, offset)
            offsets, lengths = (_integers(directory[tag]) for tag in (STRIP_OFFSETS, STRIP_LENGTHS))
            copied = [self._copy(page, at, length) for at, length in zip(offsets, lengths, strict=True)]
            directory |= {STRIP_OFFSETS: _pack_numbers(self._layout, copied), **changes}
            if DESCRIPTION in directory:
                directory[DESCRIPTION] = _state_directories(directory[DESCRIPTION])
            self._directories.append(_read_linked(page, layout, directory))

    def finish(self) -> None:
        """Write the directories of all pages."""
        pointer = self._layout.first_pointer
        for directory in self._directories:
            offset = self._append_directory(directory)
            self._file.seek(pointer)
            self._file.write(struct.pack(self._layout.offset, offset))
            pointer = ifd.end_of_entries(self._file, self._layout, offset)

    def _copy(self, page: IO[bytes], offset: int, length: int) -> int:
        """Copy samples to the end of the file; returns where they are."""
        page.seek(offset)
        start = self._file.seek(0, os.SEEK_END)
        while length > 0 and (block := page.read(min(length, _BLOCK_BYTES))):
            self._file.write(block)
            length -= len(block)
        return start

    def _append_directory(self, directory: _Linked) -> int:
        """Append the directories that a directory points to, then the directory itself; returns its offset."""
        offsets = {tag: self._append_directory(below) for tag, below in directory.below.items()}
        values = directory.values | {tag: _pack_numbers(self._layout, [at]) for tag, at in offsets.items()}
        end = self._file.seek(0, os.SEEK_END)
        start = end + end % 2
        content, offset = ifd.build_directory(self._layout, values, start)
        self._file.write(bytes(end % 2) + content)
        return offset


def _read_linked(file: IO[bytes], layout: Layout, values: dict[int, Value]) -> _Linked:
    """Read the directories that a directory points to."""
    offsets = {tag: _integers(values[tag])[0] for tag in _LINKS & values.keys()}
    below = {tag: ifd.parse_directory(file, layout, offset) for tag, offset in offsets.items()}
    return _Linked(values, {tag: _read_linked(file, layout, inner) for tag, inner in below.items()})


def _iterate_directories(path: Path) -> Iterator[Directory]:
    with path.open("rb") as file:
        layout, offset = ifd.parse_header(file)
        seen: set[int] = set()
        while offset or not seen:
            if offset in seen or len(seen) > _MAX_DIRECTORIES:
                raise damaged(path, "its chain of pages is a loop")
            seen.add(offset)
            directory = _read_directory(file, path, layout, offset)
            yield directory
            offset = directory.next_offset


def _iterate_below(path: Path, directories: Sequence[Directory]) -> Iterator[Directory]:
    """The SubIFDs of these directories; damaged ones are empty."""
    with path.open("rb") as file:
        for parent in directories:
            for offset in parent.numbers(_SUB_DIRECTORIES):
                try:
                    yield _read_directory(file, path, parent.layout, int(offset))
                except (PictureError, OSError, struct.error, ValueError, OverflowError):
                    yield Directory(path, parent.layout, {})


def _read_directory(file: IO[bytes], path: Path, layout: Layout, offset: int) -> Directory:
    """The directory at an offset. Raises struct.error if it is not complete."""
    entries: dict[int, Value] = {}
    for entry in ifd.iterate_entries(file, layout, offset):
        entries.setdefault(entry.tag, (entry.kind, entry.count, entry.raw))
    pointer = ifd.read_at(file, ifd.end_of_entries(file, layout, offset), layout.inline_bytes)
    if not entries:
        raise damaged(path, "it has a page without tags")
    return Directory(path, layout, entries, struct.unpack(layout.offset, pointer)[0])


def _build_directory(page: Page, changes: Mapping[int, Sequence[int] | None], start: int) -> tuple[bytes, int]:
    layout = page.directory.layout
    if page.shift:
        offsets = [int(offset) + page.shift for offset in page.directory.numbers(STRIP_OFFSETS)]
        changes = {STRIP_OFFSETS: offsets, **changes}
    kept = {tag: entry for tag, entry in page.directory.entries.items() if tag not in {*changes, *page.omitted}}
    try:
        values = {tag: _pack_numbers(layout, numbers) for tag, numbers in changes.items() if numbers is not None}
    except struct.error as error:
        raise damaged(page.path, "it has impossible sizes or offsets") from error
    return ifd.build_directory(layout, values, start, kept)


def _pack_numbers(layout: Layout, numbers: Sequence[int]) -> Value:
    """Whole numbers as a value of `ifd.build_directory`, as small as possible."""
    kind = ifd.SHORT if max(numbers, default=0) < 2**16 else ifd.LONG8 if layout.is_big else ifd.LONG
    return kind, len(numbers), struct.pack(f"<{len(numbers)}{_CODES[kind]}", *numbers)


def number_page(number: int, count: int) -> dict[int, Value]:
    """The tags of a page of a document. number: starts at 0."""
    return {
        SUBFILE: (ifd.LONG, 1, struct.pack("<I", _PAGE)),
        PAGE_NUMBER: pack_shorts([min(number, 65535), min(count, 65535)]),
    }


def _integers(value: Value) -> tuple[int, ...]:
    kind, count, content = value
    return struct.unpack(f"<{count}{_CODES[kind]}", content)


def pack_shorts(numbers: Sequence[int]) -> Value:
    """Numbers of 16 bits as a value of `ifd.build_directory`."""
    return ifd.SHORT, len(numbers), struct.pack(f"<{len(numbers)}H", *numbers)


def pack_floats(numbers: Sequence[float]) -> Value:
    """Floating-point numbers as a value of `ifd.build_directory`."""
    return _FLOAT, len(numbers), struct.pack(f"<{len(numbers)}f", *numbers)


def _kind_of(directory: Directory) -> str:
    """picture, copy (a smaller one) or mask."""
    old = _REDUCED if directory.number(_OLD_SUBFILE, 1) == 2 else 0
    subfile = directory.number(SUBFILE, old)
    if subfile & _MASK or directory.number(PHOTOMETRIC, 0) == 4:
        return "mask"
    return "copy" if subfile & _REDUCED else "picture"


def _kind_below(directory: Directory, largest: int) -> str:
    """The kind of a SubIFD, or "other" for a picture that is not smaller than the pages. largest: in samples."""
    kind = _kind_of(directory)
    return "copy" if kind == "picture" and directory.num_samples < largest else kind.replace("picture", "other")


def _describe_rest(kinds: Sequence[str]) -> Iterator[str]:
    """What else the file contains, which is not kept."""
    for kind, name, plural in (
        ("copy", "smaller copy of the picture", "smaller copies of the picture"),
        ("mask", "mask", "masks"),
        ("other", "other picture (SubIFD)", "other pictures (SubIFD)"),
    ):
        count = kinds.count(kind)
        if count:
            yield f"{count} {plural if count > 1 else name} in the file {'are' if count > 1 else 'is'} not kept"


def _refuse_unusual(first: Directory) -> None:
    """Raise PictureError for kinds of stacks that are not read."""
    depth, num_planes = first.number(_IMAGE_DEPTH, 1), first.entries.get(_METAMORPH, (0, 1, b""))[1]
    if depth > 1 or num_planes > 1:
        kind = f"a volume of {depth} slices" if depth > 1 else f"a MetaMorph stack of {num_planes} planes"
        raise PictureError(f"{first.path} is {kind} in one page", hint="save it as a TIFF with several pages")
    text = first.text(DESCRIPTION)
    if descriptions.is_ome(text):
        files = set(re.findall(r"<(?:\w+:)?UUID\b[^>]*\bFileName\s*=\s*[\"']([^\"']*)", text))
        if len(files) > 1 or "BinaryOnly" in text:
            raise PictureError(
                f"{first.path} is one of several files of an OME-TIFF; only single files are supported",
                hint="save it as a single file",
            )


def _unfold(directory: Directory, num_pictures: int) -> Iterator[Page]:
    """The pages of a directory: one, or several if the description specifies a stack of samples without IFDs."""
    count = _count_in_description(directory) if num_pictures == 1 else 1
    if count <= 1:
        yield Page(directory)
        return
    width, height = directory.size
    bits = directory.number(BITS, 1) * directory.number(SAMPLES_PER_PIXEL, 1)
    image_bytes = height * -(-width * bits // 8)
    offsets, path = directory.numbers(STRIP_OFFSETS), directory.path
    if directory.number(COMPRESSION, _UNCOMPRESSED) != _UNCOMPRESSED or not offsets:
        raise damaged(path, f"its description specifies {count} pictures, but it has one page")
    if offsets[0] + count * image_bytes > path.stat().st_size:
        raise damaged(path, f"its description specifies {count} pictures, more than it has bytes for")
    for i in range(count):
        yield Page(directory, i * image_bytes)


def _state_directories(description: Value) -> Value:
    """The description of a stack by tifffile, without its mark that pages have no directories."""
    kind, count, content = description
    if content.startswith(b'{"shape"'):
        content = content.replace(b', "truncated": true', b"")
        count = len(content)
    return kind, count, content


def _count_in_description(directory: Directory) -> int:
    """The number of pages without directories, as ImageJ and tifffile store large stacks."""
    text = directory.text(DESCRIPTION)
    if text.startswith("ImageJ="):
        found = re.search(r"^images=(\d{1,9})\s*$", text, re.MULTILINE)
        return int(found[1]) if found else 1
    if not text.startswith('{"shape"') or '"truncated"' not in text:
        return 1
    try:
        shape = [int(length) for length in json.loads(text)["shape"]]
    except (ValueError, TypeError, KeyError):
        return 1
    return prod(shape) // max(1, directory.num_samples)


def damaged(path: Path, reason: str) -> PictureError:
    """The error for a damaged TIFF."""
    return PictureError(f"{path} is a damaged TIFF: {reason}", hint="save it again")
