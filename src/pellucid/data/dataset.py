"""What a data set is: which files belong together, and how each of them is decoded.

A data set is a function in `pellucid.data.datasets`, decorated with `dataset`: sources and typed keywords in, a
plan out. Hyphens replace the underscores of its name: `pellucid prepare sid-sony` calls `sid_sony`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import Field

from pellucid.data import archives
from pellucid.data.archives import Source
from pellucid.data.store import Kind
from pellucid.data.store_writer import Planned
from pellucid.errors import DataError, PictureError
from pellucid.pictures import images, kinds
from pellucid.pictures.finding import describe_ignored
from pellucid.pictures.formats import SUFFIXES
from pellucid.pictures.samples import Samples

LeftOut = list[tuple[str, str]]
"""Names of files or items that are not stored, each with the reason."""


@dataclass(frozen=True)
class Decoded:
    """The content of a file as it is stored.

    samples: (H, W, C) uint8 or uint16; (H, W) for a mosaic. metadata: of a mosaic, see `store.Array`.
    changes: what the file contains and the store does not, e.g. "transparency was dropped".
    """

    samples: Samples
    metadata: dict[str, Any] | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecodeTask:
    """A file to decode into one or more arrays.

    keys: of the arrays. decode: takes the path of the file, and yields each key with its array.
    """

    source: Source
    keys: tuple[str, ...]
    decode: Callable[[Path], Iterable[tuple[str, Decoded]]]

    @property
    def name(self) -> str:
        """How messages call the file."""
        return self.keys[0] if len(self.keys) == 1 else self.source.name


@dataclass(frozen=True)
class DatasetPlan:
    """All of a data set, before anything is decoded.

    left_out: what is known not to be usable. messages: what users should know, one line each.
    allows_duplicates: whether equal items are stored; otherwise the first one is.
    """

    kind: Kind
    tasks: tuple[DecodeTask, ...]
    items: tuple[Planned, ...]
    left_out: LeftOut = field(default_factory=list)
    messages: tuple[str, ...] = ()
    allows_duplicates: bool = False


DatasetFunction = Callable[..., DatasetPlan]
"""(paths, *, typed keywords) -> plan. Raises DataError if the paths do not contain this data set."""

F = TypeVar("F", bound=DatasetFunction)


def dataset(function: F) -> F:
    """Mark a function as a data set. `registry.plan` validates its keywords by their types before it calls it."""
    vars(function)["is_dataset"] = True
    return function


def is_dataset(value: object, module: str) -> bool:
    """Whether a value is a data set that was defined in this module."""
    return getattr(value, "is_dataset", False) is True and getattr(value, "__module__", None) == module


def gather_pictures(paths: Sequence[Path]) -> tuple[list[Source], LeftOut, tuple[str, ...]]:
    """The pictures in all sources, by their content, what had to be left out, and messages about other files.

    Camera RAW files are not among them. Raises DataError as `gather_files` does.
    """
    ignored = Counter[str]()
    sources, left_out = gather_files(paths, SUFFIXES, kinds.is_picture_head, ignored)
    message = describe_ignored(ignored)
    return sources, left_out, (message,) if message else ()


def gather_files(
    paths: Sequence[Path],
    suffixes: Collection[str],
    recognize: Callable[[bytes], bool] = lambda head: False,
    ignored: Counter[str] | None = None,
) -> tuple[list[Source], LeftOut]:
    """The files with one of these suffixes in all sources, and what had to be left out.

    recognize: see `archives.list_files`. ignored: where other files are counted, by suffix.
    With several sources, file names start with the name of their source. Raises DataError if a source does not
    exist or contains no such file, or if two sources have the same name.
    """
    gathered: list[Source] = []
    left_out: LeftOut = []
    labels = [_label_source(path) for path in paths]
    if len(set(labels)) < len(labels):
        raise DataError(f"{join_paths(paths)}: two sources have the same name", hint="rename one of them")
    for path, label in zip(paths, labels, strict=True):
        found = archives.list_files(path, suffixes, recognize)
        if ignored is not None:
            ignored.update(found.ignored)
        if not found.sources:
            raise DataError(f"{path} contains no {_describe_wanted(suffixes, found)}")
        prefix = f"{label}/" if len(paths) > 1 else ""
        gathered += [replace(source, name=f"{prefix}{source.name}") for source in found.sources]
        left_out += found.left_out
    return gathered, left_out


def _describe_wanted(suffixes: Collection[str], found: archives.FileList) -> str:
    """The files that were not found, and those that were found instead."""
    is_any_picture = len(suffixes) > 1
    wanted = "pictures" if is_any_picture else f"{' or '.join(suffixes)} files"
    if found.left_out:
        return f"{wanted}; {found.left_out[0][0]}: {found.left_out[0][1]}"
    ignored = describe_ignored(found.ignored) if is_any_picture else ""
    return f"{wanted} ({ignored})" if ignored else wanted


def split_name(source: Source, paths: Sequence[Path]) -> tuple[str, ...]:
    """The folders and the file name of a gathered file, starting with the name of its source."""
    prefix = (_label_source(paths[0]),) if len(paths) == 1 else ()
    return (*prefix, *PurePosixPath(source.name).parts)


def join_paths(paths: Sequence[Path]) -> str:
    """Sources as messages call them: "a and b"."""
    return " and ".join(map(str, paths))


White = Annotated[
    float | None, Field(gt=0, description="value of white in the files, if it is not that of their type")
]
"""A keyword of data sets that consist of any pictures."""


def picture_task(source: Source, key: str | None = None, *, white: float | None = None) -> DecodeTask:
    """Decode a picture file into one array. key: the file's name by default. white: see `images.read`."""
    return array_task(source, partial(decode_picture, white=white), key)


def array_task(source: Source, decode: Callable[[Path], Decoded], key: str | None = None) -> DecodeTask:
    """Decode a file into one array. key: the file's name by default."""
    name = source.name if key is None else key
    return DecodeTask(source, (name,), lambda path: [(name, decode(path))])


def decode_picture(path: Path, *, white: float | None = None) -> Decoded:
    """A picture of 8 or 16 bits, without its other channels. Raises PictureError for floating-point samples.

    white: see `images.read`.
    """
    picture = images.read(path, white=white)
    if picture.dtype == "float32":
        raise PictureError(
            f"{path} has floating-point samples; a store contains 8 or 16 bits",
            hint="save it as 16-bit PNG or TIFF",
        )
    dropped = {"transparency was dropped": picture.alpha, "channels other than colors were dropped": picture.extra}
    changes = [change for change, plane in dropped.items() if plane is not None]
    warnings = () if picture.encoding is None else picture.encoding.warnings
    return Decoded(picture.samples, changes=(*changes, *warnings))


def _label_source(path: Path) -> str:
    """The name of a folder, or of an archive without its suffix."""
    name = path.resolve().name
    suffix = next((suffix for suffix in archives.ARCHIVES if name.lower().endswith(suffix)), "")
    return name.removesuffix(name[len(name) - len(suffix) :])
