"""Evaluation samples: what there is to score in a folder, in two folders that match, or in a store.

folder                clean pictures, which are degraded before they are scored
folder and target     degraded pictures and their targets
store                 clean pictures, pairs, or mosaics and their developed long exposures
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pellucid.data import store
from pellucid.data.pairing import describe_order, match
from pellucid.data.store import Kind, Store
from pellucid.errors import DataError
from pellucid.pictures import images
from pellucid.pictures.finding import describe_ignored, find_pictures
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.storage import cache
from pellucid.storage.urls import Location
from pellucid.system.wording import format_count


@dataclass(frozen=True)
class EvalSample:
    """One picture to score. Nothing is decoded before it is read.

    name: posix path inside its folder or store. path: for messages.
    read_target: what the network should produce. read_degraded: what it gets; None if that is made of the target.
    files: all files of the sample; none if it is in a store.
    """

    name: str
    path: Path
    read_target: Callable[[], Picture]
    read_degraded: Callable[[], Picture | Mosaic] | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class EvalSet:
    """All samples of an evaluation; at least one.

    pairing: how degraded pictures and targets were matched; None if the samples are clean pictures.
    num_misaligned: samples left out because their targets are known to be shifted.
    messages: about files in the folders that are not pictures, one line each.
    warnings: why pictures may have been matched wrongly. fingerprint: of the store; empty for folders.
    """

    kind: Kind
    samples: tuple[EvalSample, ...]
    pairing: str | None = None
    num_misaligned: int = 0
    messages: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.samples)


def collect(data: str | Location, target: str | Location | None = None, *, white: float | None = None) -> EvalSet:
    """The pictures in a folder, with their targets of the same name in another one; or the items of a store.

    Folders and stores in buckets are copied into the cache of this computer.

    white: of all files, see `images.read`; the items of a store have the white of their type.
    If no names agree, targets are matched by sorted order, provided there are as many.
    Raises DataError if there are no pictures, a picture has no target, or the store is damaged.
    """
    data, target = cache.as_local(data), None if target is None else cache.as_local(target)
    if store.is_store(data):
        if target is not None:
            raise DataError(f"{data} is a store, which contains its targets", hint="omit {target}")
        if white is not None:
            raise DataError(f"{data} is a store, in which white is that of the type", hint="omit {white}")
        return _collect_store(store.open(data))
    read = partial(images.read, white=white)
    return _collect_folder(data, read) if target is None else _collect_pairs(data, target, read)


def _collect_folder(folder: Path, read: Callable[[Path], Picture]) -> EvalSet:
    paths, messages = _find_pictures(folder)
    samples = tuple(_make_sample(path, folder, partial(read, path)) for path in paths)
    return EvalSet("clean", samples, messages=messages)


def _collect_pairs(data: Path, target: Path, read: Callable[[Path], Picture]) -> EvalSet:
    (degraded, messages), (targets, more_messages) = _find_pictures(data), _find_pictures(target)
    names = [path.relative_to(data) for path in degraded]
    pairing = match(names, [path.relative_to(target) for path in targets])
    if pairing.unmatched:
        raise DataError(
            f"{len(pairing.unmatched)} of {format_count(len(names), 'picture')} in {data}: no target of the same "
            f"name in {target}, e.g. {names[pairing.unmatched[0]].with_suffix('')}"
        )
    partners = [targets[number] for number in pairing.partners if number is not None]
    samples = [
        _make_sample(path, data, partial(read, partner), partial(read, path), partner)
        for path, partner in zip(degraded, partners, strict=True)
    ]
    warnings = () if pairing.is_by_name else (describe_order(*samples[0].files),)
    return EvalSet(
        "pairs", tuple(samples), pairing.method, messages=(*messages, *more_messages), warnings=warnings
    )


def _make_sample(
    path: Path,
    folder: Path,
    read_target: Callable[[], Picture],
    read_degraded: Callable[[], Picture] | None = None,
    *more_files: Path,
) -> EvalSample:
    name = path.relative_to(folder).as_posix()
    return EvalSample(name, path, read_target, read_degraded, (path, *more_files))


def _collect_store(data: Store) -> EvalSet:
    aligned = [i for i in range(len(data)) if not data.is_misaligned(i)]
    if not aligned:
        raise DataError(f"{data.folder}: all {len(data)} exposures are of misaligned scenes, which are not scored")

    def make_sample(i: int) -> EvalSample:
        name = data.names[i]
        return EvalSample(name, data.folder / name, lambda: Picture(data.target(i)), _degraded_reader(data, i))

    pairing = None if data.kind == "clean" else "by the store"
    num_misaligned = len(data) - len(aligned)
    samples = tuple(map(make_sample, aligned))
    return EvalSet(data.kind, samples, pairing, num_misaligned, fingerprint=data.fingerprint)


def _degraded_reader(data: Store, i: int) -> Callable[[], Picture | Mosaic] | None:
    if data.kind == "pairs":
        return lambda: Picture(data.degraded(i))
    # Neither mosaics nor targets are rotated: a store does not contain the camera's orientation.
    return partial(data.mosaic, i) if data.kind == "raw" else None


def _find_pictures(folder: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The pictures in a folder, and a message about other files."""
    if not folder.exists():
        raise DataError(f"{folder} does not exist")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; a folder of pictures is needed")
    found = find_pictures(folder, takes_raw=False)
    ignored = describe_ignored(found.ignored)
    if not found.pictures:
        raise DataError(f"{folder} contains no pictures{f' ({ignored})' if ignored else ''}")
    return found.pictures, (f"{folder}: {ignored}",) if ignored else ()
