"""Data sets as they are published: which files belong together, and how each is decoded.

    folder       clean pictures
    pairs        two sources, degraded pictures and their targets, matched by name
    gopro        GOPRO_Large: {train,test}/SEQUENCE/{blur,blur_gamma,sharp}/*.png, also with flat sequences
    sid-sony     See in the Dark: short/*.ARW, long/*.ARW, and its lists where they are at hand
    sid-fuji     the same with .RAF
    patches-h5   HDF5 patches as SRCNN and DnCNN code in PyTorch writes them

A source is a folder of any depth, or a zip or tar archive.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pellucid.data import archives
from pellucid.data.archives import Source
from pellucid.data.pairing import match
from pellucid.data.store import Kind
from pellucid.data.store_writer import Planned
from pellucid.errors import DataError, MissingExtraError, PictureError
from pellucid.pictures import images, raw
from pellucid.pictures.picture import Samples

MISALIGNED_SCENES = frozenset({"10034", "10045", "10172"})
"""Test scenes of See in the Dark whose long exposure is shifted; its authors leave them out of their scores."""

MAX_EXPOSURE_RATIO = raw.MAX_EXPOSURE_RATIO

_SID_NAME = re.compile(r"(?P<scene>\d{5})_(?P<burst>\d\d)_(?P<seconds>\d+(?:\.\d+)?)s")
_SID_SPLITS = {"train": "0", "test": "1", "val": "2"}
_SID_MAKERS = {"Sony": ".arw", "Fuji": ".raf"}
_GOPRO_SPLITS = ("train", "test")
_GOPRO_BLURS = ("blur", "blur_gamma")

LeftOut = list[tuple[str, str]]


@dataclass(frozen=True)
class Options:
    """What there is to choose. split and blur: None is the first that the kind knows.

    lists: the list file of the split, or the folder of the lists. all_bursts: also the short exposures after
    the first of each setting, which the authors do not use.
    """

    split: str | None = None
    blur: str | None = None
    lists: Path | None = None
    all_bursts: bool = False


@dataclass(frozen=True)
class Decoded:
    """What goes into the store. changes: what the file held and the store does not."""

    samples: Samples
    facts: dict[str, Any] | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecodeTask:
    """One file to decode to one array or more, each under a key."""

    source: Source
    keys: tuple[str, ...]
    decode: Callable[[Path], Iterable[tuple[str, Decoded]]]

    @property
    def name(self) -> str:
        """What users read of it."""
        return self.keys[0] if len(self.keys) == 1 else self.source.name


@dataclass(frozen=True)
class DatasetPlan:
    """All of a data set. left_out: names, each with the reason. remarks: what else is to be said."""

    kind: Kind
    jobs: tuple[DecodeTask, ...]
    items: tuple[Planned, ...]
    left_out: LeftOut = field(default_factory=list)
    remarks: tuple[str, ...] = ()
    repeats: bool = False
    """Whether equal items are meant to be there."""


def plan(kind: str, paths: Sequence[Path], options: Options) -> DatasetPlan:
    """Look at the sources and plan the work; nothing is decoded yet.

    Raises DataError when a source does not exist or holds nothing of the kind, or an option does not fit it.
    """
    if kind not in KINDS:
        raise DataError(f"no kind of data set {kind[:80]!r}; known: {', '.join(KINDS)}")
    if not paths:
        raise DataError("no source; give a folder or an archive")
    _check_options(kind, options)
    return KINDS[kind](paths, options)


def _folder(paths: Sequence[Path], options: Options) -> DatasetPlan:
    found, left_out = _gather(paths, images.SUFFIXES)
    jobs = tuple(_job(source, source.name, _picture) for source in found)
    return DatasetPlan("clean", jobs, tuple(Planned(source.name, source.name) for source in found), left_out)


def _pairs(paths: Sequence[Path], options: Options) -> DatasetPlan:
    if len(paths) != 2:
        raise DataError(f"pairs are made of two sources, degraded pictures and targets; {len(paths)} given")
    (degraded, left_out), (clean, more) = (_gather([path], images.SUFFIXES) for path in paths)
    pairing = match(*([PurePosixPath(source.name) for source in each] for each in (degraded, clean)))
    left_out += more
    left_out += [(f"degraded/{degraded[i].name}", "it has no target of its name") for i in pairing.lonely]
    unused = sorted(set(range(len(clean))) - set(pairing.partners))
    left_out += [(f"target/{clean[i].name}", "it has no degraded picture of its name") for i in unused]
    couples = [(degraded[i], clean[j]) for i, j in enumerate(pairing.partners) if j is not None]
    jobs, items = [], []
    for worse, better in couples:
        item = Planned(worse.name, f"target/{better.name}", f"degraded/{worse.name}")
        jobs += [_job(worse, f"degraded/{worse.name}", _picture), _job(better, item.target, _picture)]
        items.append(item)
    return DatasetPlan("pairs", tuple(jobs), tuple(items), left_out, (f"matched {pairing.how}",))


def _gopro(paths: Sequence[Path], options: Options) -> DatasetPlan:
    split, blur = options.split or _GOPRO_SPLITS[0], options.blur or _GOPRO_BLURS[0]
    found, left_out = _gather(paths, images.SUFFIXES)
    folders: dict[str, dict[str, Source]] = {blur: {}, "sharp": {}}
    for source in found:
        parts = _parts(source, paths)
        if not _is_of_split(parts, split):
            continue
        for name, by_place in folders.items():
            if name in parts[:-1]:
                by_place[str(PurePosixPath(*_without(parts, name)).with_suffix(""))] = source
    blurred, sharp = folders[blur], folders["sharp"]
    if not blurred or not sharp:
        raise DataError(
            f"{_named(paths)}: no pictures of '{split}' in folders called '{blur}' and 'sharp', "
            f"as GOPRO_Large has them"
        )
    left_out += [
        (source.name, "it has no partner in 'sharp'") for at, source in blurred.items() if at not in sharp
    ]
    left_out += [
        (source.name, f"it has no partner in '{blur}'") for at, source in sharp.items() if at not in blurred
    ]
    couples = [(source, sharp[at]) for at, source in blurred.items() if at in sharp]
    jobs = tuple(_job(source, source.name, _picture) for couple in couples for source in couple)
    return DatasetPlan("pairs", jobs, tuple(Planned(a.name, b.name, a.name) for a, b in couples), left_out)


def _sid(maker: str, paths: Sequence[Path], options: Options) -> DatasetPlan:
    split = options.split or "train"
    found, left_out = _gather(paths, {_SID_MAKERS[maker]})
    frames = [frame for source in found for frame in _frames(source, paths)]
    listed, remark = _listed(maker, split, paths, options.lists)
    long = {frame.path.name if listed else frame.scene: frame for frame in frames if frame.role == "long"}
    couples = []
    for short in frames:
        if short.role != "short" or not (options.all_bursts or short.burst == "00"):
            continue
        partner = _partner(short, listed, split)
        if partner in long:
            couples.append((short, long[partner]))
        elif partner is not None:
            left_out.append((short.source.name, "its long exposure is not there"))
    there = {frame.path.name for frame in frames}
    wanted = [name for name in listed or () if options.all_bursts or "_00_" in name]
    left_out += [(name, "it is in the list, but not there") for name in wanted if name not in there]
    if not couples:
        raise DataError(
            f"{_named(paths)}: no short and long exposures of '{split}' as {maker}/short/00001_00_0.1s"
        )
    longs = {partner.source.name: partner.source for _, partner in couples}
    jobs = [_job(source, source.name, _developed) for source in longs.values()]
    jobs += [_job(short.source, short.source.name, _mosaic) for short, _ in couples]
    remarks = [remark]
    num_misaligned = sum(short.scene in MISALIGNED_SCENES for short, _ in couples)
    if num_misaligned:
        remarks.append(f"{num_misaligned} exposures of misaligned scenes are marked and left out of scores")
    return DatasetPlan(
        "raw", tuple(jobs), tuple(_raw_item(*couple) for couple in couples), left_out, tuple(remarks)
    )


def _patches(paths: Sequence[Path], options: Options) -> DatasetPlan:
    kinds: set[Kind] = set()
    jobs: list[DecodeTask] = []
    items: list[Planned] = []
    left_out: LeftOut = []
    for source, path in _patch_files(paths):
        try:
            with _h5(path, source.name) as file:
                kind, planned = _patch_items(file, source.name)
        except PictureError as error:
            left_out.append((source.name, str(error)))
            continue
        kinds.add(kind)
        items += planned
        keys = tuple(key for item in planned for key in (item.target, item.degraded) if key is not None)
        jobs.append(DecodeTask(source, keys, partial(_decoded_patches, source.name, keys)))
    if len(kinds) != 1:
        found = "clean patches and pairs in one" if kinds else left_out[0][1] if left_out else "no .h5 files"
        raise DataError(f"{_named(paths)}: {found}; give files of one kind")
    return DatasetPlan(kinds.pop(), tuple(jobs), tuple(items), left_out, repeats=True)


KINDS: dict[str, Callable[[Sequence[Path], Options], DatasetPlan]] = {
    "folder": _folder,
    "pairs": _pairs,
    "gopro": _gopro,
    "sid-sony": partial(_sid, "Sony"),
    "sid-fuji": partial(_sid, "Fuji"),
    "patches-h5": _patches,
}


def _check_options(kind: str, options: Options) -> None:
    splits = {"gopro": _GOPRO_SPLITS, "sid-sony": tuple(_SID_SPLITS), "sid-fuji": tuple(_SID_SPLITS)}.get(kind, ())
    blurs = _GOPRO_BLURS if kind == "gopro" else ()
    for name, value, known in (("split", options.split, splits), ("blur", options.blur, blurs)):
        if value is not None and value not in known:
            raise DataError(f"{kind} has no {name} {value[:80]!r}; known: {', '.join(known) or 'none'}")
    if (options.lists or options.all_bursts) and not kind.startswith("sid-"):
        raise DataError(f"{kind} has no lists and no bursts; those are of sid-sony and sid-fuji")


def _gather(paths: Sequence[Path], suffixes: Collection[str]) -> tuple[list[Source], LeftOut]:
    """The files of all sources; where there are several, names begin with that of their source."""
    gathered: list[Source] = []
    left_out: LeftOut = []
    labels = [_label(path) for path in paths]
    if len(set(labels)) < len(labels):
        raise DataError(f"{_named(paths)}: two sources of one name; rename one, as names must tell them apart")
    for path, label in zip(paths, labels, strict=True):
        found = archives.find(path, suffixes)
        if not found.sources:
            reasons = f"; {found.left_out[0][0]}: {found.left_out[0][1]}" if found.left_out else ""
            raise DataError(f"{path} holds no {', '.join(sorted(suffixes))} files{reasons}")
        prefix = f"{label}/" if len(paths) > 1 else ""
        gathered += [replace(source, name=f"{prefix}{source.name}") for source in found.sources]
        left_out += found.left_out
    return gathered, left_out


def _label(path: Path) -> str:
    name = path.resolve().name
    suffix = next((suffix for suffix in archives.ARCHIVES if name.lower().endswith(suffix)), "")
    return name.removesuffix(name[len(name) - len(suffix) :])


def _named(paths: Sequence[Path]) -> str:
    return " and ".join(map(str, paths))


def _parts(source: Source, paths: Sequence[Path]) -> tuple[str, ...]:
    """The folders and the name of a file, from the name of the source on."""
    prefix = (_label(paths[0]),) if len(paths) == 1 else ()
    return (*prefix, *PurePosixPath(source.name).parts)


def _is_of_split(parts: tuple[str, ...], split: str) -> bool:
    """Whether a path names this split; or none, where one split alone is given."""
    named = set(parts[:-1]) & set(_GOPRO_SPLITS)
    return not named or split in named


def _without(parts: tuple[str, ...], name: str) -> tuple[str, ...]:
    last = len(parts) - 1 - parts[::-1].index(name)
    return parts[:last] + parts[last + 1 :]


def _job(source: Source, key: str, read: Callable[[Path], Decoded]) -> DecodeTask:
    return DecodeTask(source, (key,), lambda path: [(key, read(path))])


def _picture(path: Path) -> Decoded:
    picture = images.read(path)
    if picture.dtype == "float32":
        raise PictureError(
            f"{path} holds floating-point samples; a store holds 8 or 16 bit, "
            f"so save it as 16-bit PNG or TIFF first"
        )
    return Decoded(picture.samples, changes=() if picture.alpha is None else ("transparency was dropped",))


def _mosaic(path: Path) -> Decoded:
    mosaic = raw.read(path)
    facts = {
        "pattern": list(mosaic.pattern),
        "black_level": mosaic.black_level,
        "white_level": mosaic.white_level,
        "white_balance": mosaic.white_balance,
    }
    return Decoded(mosaic.samples, facts)


def _developed(path: Path) -> Decoded:
    """As the sensor lay, as mosaics are."""
    return Decoded(raw.develop(path, upright=False).samples)


@dataclass(frozen=True)
class _Frame:
    """One exposure of See in the Dark."""

    source: Source
    path: PurePosixPath
    role: str
    scene: str
    burst: str
    seconds: float


def _frames(source: Source, paths: Sequence[Path]) -> Iterator[_Frame]:
    path = PurePosixPath(source.name)
    named = _SID_NAME.fullmatch(path.stem)
    for role in ("short", "long"):
        if named is not None and role in _parts(source, paths)[:-1] and float(named["seconds"]) > 0:
            yield _Frame(source, path, role, named["scene"], named["burst"], float(named["seconds"]))


def _partner(short: _Frame, listed: dict[str, str] | None, split: str) -> str | None:
    """What names the long exposure of a short one; None when that is of another split."""
    if listed is not None:
        return listed.get(short.path.name)
    return short.scene if short.scene.startswith(_SID_SPLITS[split]) else None


def _raw_item(short: _Frame, long: _Frame) -> Planned:
    ratio = min(long.seconds / short.seconds, MAX_EXPOSURE_RATIO)
    misaligned = short.scene in MISALIGNED_SCENES
    return Planned(short.source.name, long.source.name, short.source.name, ratio, misaligned)


def _listed(
    maker: str, split: str, paths: Sequence[Path], given: Path | None
) -> tuple[dict[str, str] | None, str]:
    """Long by short exposure, by file name, of the published list; where it is not at hand, None. And a remark."""
    name = f"{maker}_{split}_list.txt"
    if given is not None:
        path = given / name if given.is_dir() else given
        try:
            return _rows(path.read_text(), path), f"exposures by {path}"
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read as a list: {error}") from error
    for path in paths:
        for source in archives.find(path, {".txt"}).sources:
            if PurePosixPath(source.name).name == name:
                return _rows(
                    source.content().decode(errors="replace"), source.place
                ), f"exposures by {source.place}"
    return None, f"no {name} at hand: the first digit of a scene's number tells its split"


def _rows(text: str, path: object) -> dict[str, str]:
    rows = [line.split()[:2] for line in text.splitlines() if line.strip()]
    if not rows or any(len(row) < 2 for row in rows):
        raise DataError(f"{path} is not a list of short and long exposures, two paths a line")
    return {PurePosixPath(short).name: PurePosixPath(long).name for short, long in rows}


def _patch_files(paths: Sequence[Path]) -> Iterator[tuple[Source, Path]]:
    for path in paths:
        if path.is_file():
            about = path.stat()
            yield Source(path.name, str(path), about.st_size, about.st_mtime_ns, path.read_bytes, path), path
        elif path.is_dir():
            for source in archives.find(path, {".h5", ".hdf5"}).sources:
                yield source, path / source.name
        else:
            raise DataError(f"{path} does not exist; an .h5 file or a folder of them is needed")


@contextmanager
def _h5(path: Path, name: str) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("reading HDF5 patches", "convert") from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise PictureError(f"{name} cannot be read as HDF5: {str(error).splitlines()[0][:200]}") from error


def _patch_items(file: Any, name: str) -> tuple[Kind, list[Planned]]:
    """The items of one file: pairs where it holds lr and hr, else clean patches."""
    if {"lr", "hr"} <= set(file):
        numbers, others = _patch_names(file, "hr", name), _patch_names(file, "lr", name)
        if numbers != others:
            raise PictureError(f"{name} holds {len(others)} patches in lr and {len(numbers)} in hr")
        return "pairs", [Planned(f"{name}/{i}", f"{name}/hr/{i}", f"{name}/lr/{i}") for i in numbers]
    names = [key for key in sorted(file, key=_natural) if _is_own(file, key)]
    if not names:
        raise PictureError(f"{name} holds no patches: neither lr and hr, nor arrays 0, 1, ...")
    return "clean", [Planned(f"{name}/{key}", f"{name}/{key}") for key in names]


def _patch_names(file: Any, group: str, name: str) -> list[str]:
    """The numbers of the patches: of one large array, or of a group of arrays."""
    if hasattr(file[group], "shape"):
        _check_patches(file, file[group], name)
        return [str(i) for i in range(len(file[group]))]
    return [key for key in sorted(file[group], key=_natural) if _is_own(file[group], key)]


def _natural(key: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]


def _is_own(group: Any, key: str) -> bool:
    """Whether this is an array of this very file: a link may name any file of the machine."""
    import h5py

    return isinstance(group.get(key, getlink=True), h5py.HardLink) and hasattr(group[key], "shape")


def _check_patches(file: Any, dataset: Any, name: str) -> None:
    """Refuse what lies in other files, and shapes that cost nothing to declare."""
    num_bytes = Path(file.filename).stat().st_size
    if dataset.external or dataset.is_virtual or dataset.nbytes > 1100 * num_bytes:  # deflate's best is 1032
        raise PictureError(f"{name}: {dataset.name} declares {dataset.nbytes} bytes, which do not lie in the file")


def _decoded_patches(name: str, keys: Sequence[str], path: Path) -> Iterator[tuple[str, Decoded]]:
    with _h5(path, name) as file:
        peak = 255.0 if {"lr", "hr"} <= set(file) else 1.0
        blocks = {group: _Block(file, file[group], name) for group in ("lr", "hr") if _is_array(file, group)}
        for key in keys:
            inside = key.removeprefix(f"{name}/")
            group, _, number = inside.partition("/")
            if group in blocks:
                patch = blocks[group].patch(int(number))
            else:
                _check_patches(file, file[inside], name)
                patch = file[inside][()]
            yield key, _as_decoded(np.asarray(patch), peak, key)


def _is_array(file: Any, group: str) -> bool:
    return group in file and hasattr(file[group], "shape")


class _Block:
    """Patches of one large array, a thousand at a time."""

    def __init__(self, file: Any, dataset: Any, name: str) -> None:
        _check_patches(file, dataset, name)
        self._dataset = dataset
        self._start = 0
        self._patches = dataset[:0]

    def patch(self, number: int) -> Samples:
        if not self._start <= number < self._start + len(self._patches):
            self._start, self._patches = number, self._dataset[number : number + 1000]
        return np.asarray(self._patches[number - self._start])


def _as_decoded(values: Samples, peak: float, key: str) -> Decoded:
    """8 bit where every value is one of 256 steps, as of unscaled pictures; else 16 bit."""
    planes = values[None] if values.ndim == 2 else values
    if planes.ndim != 3 or planes.shape[0] not in (1, 3) or 0 in planes.shape or planes.dtype.kind not in "fu":
        raise PictureError(f"{key} is {values.dtype} {values.shape}; numbers (H, W) or (1 or 3, H, W) are needed")
    if planes.dtype == np.uint8:
        return Decoded(np.ascontiguousarray(planes.transpose(1, 2, 0)))
    scaled = planes.astype(np.float64).transpose(1, 2, 0) / peak
    if not (scaled.min() >= -1e-6 and scaled.max() <= 1 + 1e-6):  # NaN is refused, too
        raise PictureError(f"{key} has values from {planes.min():g} to {planes.max():g}; 0 to {peak:g} are needed")
    steps = np.rint(scaled * 255)
    if np.abs(scaled * 255 - steps).max() < 1e-3:
        return Decoded(steps.astype(np.uint8))
    return Decoded(np.rint(scaled.clip(0, 1) * 65535).astype(np.uint16), changes=("rounded to 16 bit",))
