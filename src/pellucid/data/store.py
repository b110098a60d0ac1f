"""The store, a decoded data set: samples in memory-mapped files, and an index. A crop reads only its own bytes.

    index.json         format version, kind, where each array is, which arrays belong to an item; written last
    samples-00000.bin  the arrays one after another, uint8 or uint16, little-endian, row by row
    sources.jsonl      what each array was decoded from

A store without an index is unfinished. `preparing` makes stores, `batches` draws from them.
"""

import hashlib
import json
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np

from pellucid.errors import DataError
from pellucid.pictures.picture import Mosaic
from pellucid.pictures.samples import Samples
from pellucid.system.files import check_regular
from pellucid.system.memory import FileMap, release
from pellucid.system.wording import format_count

Kind = Literal["clean", "pairs", "raw"]

FORMAT, VERSION = "pellucid store", 1
INDEX, SOURCES = "index.json", "sources.jsonl"

RESIDENT_BYTES = 2**29
"""How much of a store may be in the memory of this process before its pages are released."""

DTYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype("uint8"), "uint16": np.dtype("<u2")}
"""Types of samples, and the types in which the files contain them."""


@dataclass(frozen=True, slots=True)
class Array:
    """Where an array is, and its content.

    shape: (H, W, C), or (H, W) for a mosaic. sha256: see `digest`.
    metadata: of a mosaic: pattern, black_level, white_level and white_balance.
    """

    shard: int
    offset: int
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    metadata: Mapping[str, Any] | None = None

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * DTYPES[self.dtype].itemsize

    def to_json(self) -> list[Any]:
        return [self.shard, self.offset, self.dtype, list(self.shape), self.sha256, self.metadata]

    @classmethod
    def from_json(cls, row: list[Any]) -> Self:
        shard, offset, dtype, shape, sha256, metadata = row
        return cls(shard, offset, dtype, tuple(shape), sha256, metadata)


@dataclass(frozen=True, slots=True)
class Item:
    """A training sample. target, degraded: numbers of arrays. Only items of raw stores have an exposure ratio."""

    name: str
    target: int
    degraded: int | None = None
    exposure_ratio: float | None = None
    misaligned: bool = False

    def to_json(self) -> list[Any]:
        return [self.name, self.target, self.degraded, self.exposure_ratio, self.misaligned]


@dataclass(frozen=True)
class _Index:
    kind: Kind
    shards: tuple[int, ...]
    arrays: tuple[Array, ...]
    items: tuple[Item, ...]
    left_out: tuple[tuple[str, str], ...]


def open(folder: str | Path) -> "Store":
    """The finished store in a folder. Raises DataError if there is none, it is damaged, or of another version."""
    folder = Path(folder)
    index = _read_index(folder)
    _check_shards(folder, index)
    return Store(folder, index, len(index.items))


def read_fingerprint(folder: Path) -> str:
    """The fingerprint of a finished store, see `Store.fingerprint`, from its index alone. Errors as in `open`."""
    index = _read_index(folder)
    return Store(folder, index, len(index.items)).fingerprint


def is_store(folder: Path) -> bool:
    """Whether a folder is a store, finished, unfinished or damaged. Other data sets have an index.json, too."""
    return shard_path(folder, 0).exists() or ((folder / INDEX).exists() and (folder / SOURCES).exists())


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"samples-{number:05d}.bin"


def digest(samples: Samples) -> str:
    """SHA-256 of type, shape and samples."""
    content = hashlib.sha256(f"{samples.dtype.name} {samples.shape} ".encode())
    content.update(np.ascontiguousarray(samples).data)
    return content.hexdigest()


class Store:
    """Decoded items of one kind. May be used in many threads and processes, and pickled.

    The samples of an item are compared with their hash when they are used for the first time; `target`, `degraded`
    and `mosaic` raise DataError if they are damaged.

    kind "clean": each item is a target. "pairs": a target and a degraded picture. "raw": a target and a mosaic.
    """

    def __init__(self, folder: Path, index: _Index, num_items: int) -> None:
        self.folder = folder
        self._index = index
        self._items = index.items[:num_items]
        self._maps: dict[int, FileMap] = {}
        self._proven: set[int] = set()
        self._num_bytes_mapped = 0

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<Store {self.folder}: {len(self)} {self.kind}, {self.num_bytes / 1e6:.1f} MB>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.folder, len(self))

    @property
    def kind(self) -> Kind:
        return self._index.kind

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """Names of what could not be stored, each with the reason."""
        return self._index.left_out

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The posix path of each item inside its source; if an item has two files, of the degraded one."""
        return tuple(item.name for item in self._items)

    @cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(H, W) of each target in pixels."""
        shapes = (self._index.arrays[item.target].shape for item in self._items)
        return tuple((height, width) for height, width, *_ in shapes)

    @cached_property
    def scenes(self) -> tuple[int, ...]:
        """A number for each item, the same for items that share a target, e.g. exposures of one scene."""
        return tuple(item.target for item in self._items)

    @property
    def num_arrays(self) -> int:
        """Number of decoded arrays; shared targets count once."""
        return len(self._numbers())

    @cached_property
    def num_bytes(self) -> int:
        """Size of all decoded samples; shared targets count once."""
        return sum(self._index.arrays[number].num_bytes for number in self._numbers())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of names and contents. It does not depend on the order in which they were decoded."""
        content = hashlib.sha256(f"{FORMAT} {VERSION} {self.kind}".encode())
        for item in self._items:
            arrays = [self._index.arrays[i] for i in (item.target, item.degraded) if i is not None]
            contents = [(array.dtype, array.shape, array.sha256, array.metadata) for array in arrays]
            line = [item.name, contents, item.exposure_ratio, item.misaligned]
            content.update(json.dumps(line, sort_keys=True).encode())
        return content.hexdigest()

    def target(self, i: int) -> Samples:
        """(H, W, C) uint8 or uint16, C = 1 or 3, mapped from the file and read-only."""
        return self._array(self._items[i].target)

    def degraded(self, i: int) -> Samples:
        """The degraded picture, in the form of `target`. Raises DataError unless this is a store of pairs."""
        self._check_kind("pairs", "degraded pictures")
        return self._array(cast(int, self._items[i].degraded))

    def mosaic(self, i: int) -> Mosaic:
        """The short exposure, its samples mapped and read-only. Raises DataError unless this is a raw store."""
        self._check_kind("raw", "mosaics")
        item = self._items[i]
        number = cast(int, item.degraded)
        metadata = self._index.arrays[number].metadata or {}
        return Mosaic(
            self._array(number),
            tuple(metadata["pattern"]),
            _to_tuples(metadata["black_level"]),
            metadata["white_level"],
            exposure_ratio=item.exposure_ratio or 1.0,
            white_balance=_to_tuples(metadata.get("white_balance")),
        )

    def is_misaligned(self, i: int) -> bool:
        """Whether the item is known to be shifted against its target, so that it must not be scored."""
        return self._items[i].misaligned

    def take(self, num_items: int) -> "Store":
        """A store of the first items only; of all, if there are fewer."""
        if num_items < 1:
            raise DataError(f"{num_items} items of a store were asked for; at least 1 is needed")
        return Store(self.folder, self._index, min(num_items, len(self)))

    def check(self, progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Read everything; returns the names of the items whose samples have changed since they were stored.

        progress: called with (done, total), in arrays.
        """
        numbers = self._numbers()
        bad = set()
        for done, number in enumerate(numbers, start=1):
            if self._is_damaged(number):
                bad.add(number)
            if progress is not None:
                progress(done, len(numbers))
        return [item.name for item in self._items if item.target in bad or item.degraded in bad]

    def _numbers(self) -> list[int]:
        used = {number for item in self._items for number in (item.target, item.degraded)}
        return sorted(number for number in used if number is not None)

    def _array(self, number: int) -> Samples:
        """An array, which is compared with its hash the first time. Raises DataError if it is damaged."""
        if number not in self._proven:
            if self._is_damaged(number):
                name = next(item.name for item in self._items if number in (item.target, item.degraded))
                raise DataError(
                    f"{self.folder}: the stored samples of {name} are damaged",
                    hint="make the store again; `pellucid prepare check` lists all that are damaged",
                )
            self._proven.add(number)
        return self._map_array(number)

    def _is_damaged(self, number: int) -> bool:
        return digest(self._map_array(number)) != self._index.arrays[number].sha256

    def _map_array(self, number: int) -> Samples:
        array = self._index.arrays[number]
        self._release_pages(array.num_bytes)
        mapped = self._map(array.shard)
        return np.ndarray(array.shape, DTYPES[array.dtype], mapped, array.offset)

    def _map(self, shard: int) -> FileMap:
        if shard not in self._maps:
            try:
                with shard_path(self.folder, shard).open("rb") as file:
                    # Not MADV_RANDOM: without read-ahead, crops of 1024 px come from a disk at a tenth of the
                    # speed (4 instead of 40 per second) if they are not in the system's cache.
                    self._maps[shard] = FileMap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise DataError(f"{shard_path(self.folder, shard)} cannot be mapped: {error}") from error
        return self._maps[shard]

    def _release_pages(self, num_bytes: int) -> None:
        """Release all pages once the arrays returned so far could fill RESIDENT_BYTES.

        Arrays in use stay valid: their pages are mapped again from the system's cache of the file.
        """
        self._num_bytes_mapped += num_bytes
        if self._num_bytes_mapped > RESIDENT_BYTES:
            for mapped in list(self._maps.values()):
                release(np.frombuffer(mapped, np.uint8))
            self._num_bytes_mapped = num_bytes

    def _check_kind(self, kind: Kind, what: str) -> None:
        if self.kind != kind:
            raise DataError(f"{self.folder} is a store of kind '{self.kind}' and contains no {what}")


def _reopen(folder: Path, num_items: int) -> Store:
    return open(folder).take(num_items)


def _to_tuples(value: Any) -> Any:
    """Lists from JSON as tuples."""
    return tuple(map(_to_tuples, value)) if isinstance(value, list) else value


def _read_index(folder: Path) -> _Index:
    path = folder / INDEX
    try:
        check_regular(path)
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise _missing_error(folder) from error
    except NotADirectoryError as error:
        raise DataError(f"{folder} is a file; the folder of a store is needed") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise _damage_error(folder, f"{INDEX} is not JSON") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path} is not the index of a store", hint=_HOW_TO_MAKE)
    if content.get("version") != VERSION:
        raise DataError(
            f"{folder} is a store of version {content.get('version')}; this pellucid reads version {VERSION}",
            hint="prepare it again with {overwrite}",
            overwrite=True,
        )
    try:
        return _parse_index(content)
    except (KeyError, TypeError, ValueError) as error:
        raise _damage_error(folder, f"the content of {INDEX} is not valid") from error


_HOW_TO_MAKE = "'pellucid prepare' makes a store of pictures"


def _missing_error(folder: Path) -> DataError:
    if not folder.exists():
        return DataError(f"{folder} does not exist", hint=_HOW_TO_MAKE)
    if (folder / SOURCES).exists():
        return DataError(
            f"{folder} is an unfinished store",
            hint="the command that started it resumes it; after shards, run it without {shard}",
        )
    return DataError(f"{folder} is not a store: it contains no {INDEX}", hint=_HOW_TO_MAKE)


def _damage_error(folder: Path, reason: str) -> DataError:
    return DataError(
        f"{folder} is a damaged store: {reason}", hint="prepare it again with {overwrite}", overwrite=True
    )


def _parse_index(content: dict[str, Any]) -> _Index:
    arrays = tuple(Array.from_json(row) for row in content["arrays"])
    items = tuple(Item(*row) for row in content["items"])
    index = _Index(
        content["kind"],
        tuple(content["shards"]),
        arrays,
        items,
        tuple((name, reason) for name, reason in content["left_out"]),
    )
    is_valid = (
        index.kind in ("clean", "pairs", "raw")
        and items != ()
        and all(_is_valid(array, index.shards) for array in arrays)
        and all(_is_complete(item, index) for item in items)
    )
    if not is_valid:
        raise ValueError("an array outside its file, or an item without its arrays")
    return index


def _is_complete(item: Item, index: _Index) -> bool:
    numbers = [item.target] if index.kind == "clean" else [item.target, item.degraded]
    return (
        isinstance(item.name, str)
        and all(isinstance(number, int) and 0 <= number < len(index.arrays) for number in numbers)
        and len(index.arrays[item.target].shape) == 3
    )


def _is_valid(array: Array, shards: tuple[int, ...]) -> bool:
    return (
        array.dtype in ("uint8", "uint16")
        and len(array.shape) in (2, 3)
        and all(isinstance(size, int) and size > 0 for size in array.shape)
        and 0 <= array.shard < len(shards)
        and 0 <= array.offset <= shards[array.shard] - array.num_bytes
    )


def _check_shards(folder: Path, index: _Index) -> None:
    """Reading a mapped file beyond its end would kill the process."""
    for number, num_bytes in enumerate(index.shards):
        path = shard_path(folder, number)
        try:
            found = path.stat().st_size
        except OSError as error:
            raise _damage_error(folder, f"{path.name} cannot be read ({error.strerror})") from error
        if found != num_bytes:
            raise _damage_error(folder, f"{path.name} has {format_count(found, 'byte')} instead of {num_bytes}")
