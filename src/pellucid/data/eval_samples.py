"""Specimens: what there is to score, whether it lies in a folder, in two that match, or in a prepared store.

folder                clean pictures, still to be degraded
folder and target     degraded pictures and their clean partners
store                 of the one, of the other, or mosaics and their developed long exposures
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pellucid.data import store
from pellucid.data.pairing import match
from pellucid.data.store import Kind, Store
from pellucid.errors import DataError
from pellucid.pictures import images
from pellucid.pictures.picture import Mosaic, Picture


@dataclass(frozen=True)
class EvalSample:
    """One picture to score; nothing is decoded before it is asked for.

    name: posix path inside its folder or store. path: what errors name. files: the pictures it is made of.
    clean: reads what the network should make. degraded: reads what it gets; None where that is made of `clean`.
    """

    name: str
    path: Path
    clean: Callable[[], Picture]
    degraded: Callable[[], Picture | Mosaic] | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class EvalSet:
    """All that is to be scored, never empty.

    pairing: how degraded and clean pictures were matched; None where they were not.
    num_misaligned: items left out, as their targets are known to be shifted.
    """

    kind: Kind
    specimens: tuple[EvalSample, ...]
    pairing: str | None = None
    num_misaligned: int = 0

    def __len__(self) -> int:
        return len(self.specimens)


def collect(data: Path, target: Path | None = None) -> EvalSet:
    """The pictures below a folder, with their partners of the same name below another one; or a store.

    Where no name agrees, partners go by sorted order when the counts do.
    Raises DataError when there is nothing, a picture has no partner, or the store is damaged.
    """
    if store.is_there(data):
        if target is not None:
            raise DataError(f"{data} is a store, which holds its targets; leave out --target")
        return _of_store(store.open(data))
    return _of_folder(data) if target is None else _of_pairs(data, target)


def _of_folder(folder: Path) -> EvalSet:
    paths = _pictures(folder)
    return EvalSet("clean", tuple(_specimen(path, folder, partial(images.read, path)) for path in paths))


def _of_pairs(data: Path, target: Path) -> EvalSet:
    degraded, clean = _pictures(data), _pictures(target)
    names = [path.relative_to(data) for path in degraded]
    pairing = match(names, [path.relative_to(target) for path in clean])
    if pairing.lonely:
        raise DataError(
            f"{len(pairing.lonely)} of {len(names)} pictures in {data} have no partner of their name in {target}, "
            f"first {names[pairing.lonely[0]].with_suffix('')}"
        )
    partners = [clean[number] for number in pairing.partners if number is not None]
    specimens = [
        _specimen(path, data, partial(images.read, partner), partial(images.read, path), partner)
        for path, partner in zip(degraded, partners, strict=True)
    ]
    return EvalSet("pairs", tuple(specimens), pairing.how)


def _specimen(
    path: Path,
    folder: Path,
    clean: Callable[[], Picture],
    degraded: Callable[[], Picture] | None = None,
    *more: Path,
) -> EvalSample:
    return EvalSample(path.relative_to(folder).as_posix(), path, clean, degraded, (path, *more))


def _of_store(found: Store) -> EvalSet:
    aligned = [i for i in range(len(found)) if not found.is_misaligned(i)]
    if not aligned:
        raise DataError(
            f"{found.folder}: all {len(found)} exposures are of misaligned scenes, which are not scored"
        )

    def specimen(i: int) -> EvalSample:
        name, clean = found.names[i], lambda: Picture(found.target(i))
        return EvalSample(name, found.folder / name, clean, _degraded(found, i))

    pairing = None if found.kind == "clean" else "by the store"
    return EvalSet(found.kind, tuple(map(specimen, aligned)), pairing, len(found) - len(aligned))


def _degraded(found: Store, i: int) -> Callable[[], Picture | Mosaic] | None:
    if found.kind == "pairs":
        return lambda: Picture(found.degraded(i))
    # Lying as the sensor did, and so do the targets: a mosaic out of a store does not say how to turn it.
    return partial(found.mosaic, i) if found.kind == "raw" else None


def _pictures(folder: Path) -> list[Path]:
    if not folder.exists():
        raise DataError(f"{folder} does not exist")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; a folder of pictures is needed")
    found = images.find(folder)
    if not found:
        raise DataError(f"{folder} holds no pictures ({', '.join(sorted(images.SUFFIXES))})")
    return found
