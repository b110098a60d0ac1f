"""See in the Dark: short exposures of dark scenes, as camera RAW, and long exposures of the same scenes.

short/*.ARW, long/*.ARW of a Sony, or .RAF of a Fuji camera, and the published lists of pairs, if they are there.
Source: Chen et al., "Learning to See in the Dark", CVPR 2018.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from pellucid.data import archives
from pellucid.data.archives import Source
from pellucid.data.dataset import (
    DatasetPlan,
    Decoded,
    LeftOut,
    array_task,
    dataset,
    gather_files,
    join_paths,
    split_name,
)
from pellucid.data.store_writer import Planned
from pellucid.errors import DataError
from pellucid.pictures.camera import raw
from pellucid.pictures.camera.exposure import MAX_EXPOSURE_RATIO

MISALIGNED_SCENES = frozenset({"10034", "10045", "10172"})
"""Test scenes whose long exposure is shifted; the authors do not score them."""

_NAME = re.compile(r"(?P<scene>\d{5})_(?P<burst>\d\d)_(?P<seconds>\d+(?:\.\d+)?)s")
_FIRST_DIGITS = {"train": "0", "test": "1", "val": "2"}
"""First digit of the scene numbers of each split."""

_Split = Annotated[Literal["train", "test", "val"], Field(description="part of the data set")]
_Lists = Annotated[
    Path | None,
    Field(description="published list of the split, or the folder of the lists; default: searched in the sources"),
]
_AllBursts = Annotated[
    bool,
    Field(description="also use short exposures after the first of each setting, which the authors ignore"),
]


@dataset
def sid_sony(
    paths: Sequence[Path], *, split: _Split = "train", lists: _Lists = None, all_bursts: _AllBursts = False
) -> DatasetPlan:
    """See in the Dark, the Sony camera (Bayer)."""
    return _plan("Sony", ".arw", paths, split, lists, all_bursts)


@dataset
def sid_fuji(
    paths: Sequence[Path], *, split: _Split = "train", lists: _Lists = None, all_bursts: _AllBursts = False
) -> DatasetPlan:
    """See in the Dark, the Fuji camera (X-Trans)."""
    return _plan("Fuji", ".raf", paths, split, lists, all_bursts)


@dataclass(frozen=True)
class _Frame:
    """One exposure."""

    source: Source
    path: PurePosixPath
    role: Literal["short", "long"]
    scene: str
    burst: str
    exposure_s: float


def _plan(
    camera: str, suffix: str, paths: Sequence[Path], split: str, lists: Path | None, all_bursts: bool
) -> DatasetPlan:
    sources, left_out = gather_files(paths, {suffix})
    frames = [frame for source in sources for frame in _parse_frame(source, paths)]
    listed, origin = _find_list(f"{camera}_{split}_list.txt", paths, lists)
    pairs, unpaired = _pair_frames(frames, listed, split, all_bursts)
    left_out += unpaired
    if not pairs:
        raise DataError(
            f"{join_paths(paths)}: '{split}' has no short and long exposures, "
            f"e.g. {camera}/short/00001_00_0.1s{suffix}"
        )
    longs = {long.source.name: long.source for _, long in pairs}
    tasks = [array_task(source, _develop) for source in longs.values()]
    tasks += [array_task(short.source, _decode_mosaic) for short, _ in pairs]
    messages = [origin]
    num_misaligned = sum(short.scene in MISALIGNED_SCENES for short, _ in pairs)
    if num_misaligned:
        messages.append(f"{num_misaligned} exposures are of misaligned scenes, which are not scored")
    items = tuple(_make_item(short, long) for short, long in pairs)
    return DatasetPlan("raw", tuple(tasks), items, left_out, tuple(messages))


def _pair_frames(
    frames: Sequence[_Frame], listed: dict[str, str] | None, split: str, all_bursts: bool
) -> tuple[list[tuple[_Frame, _Frame]], LeftOut]:
    """Short and long exposures: by the list or, if there is none, by the number of the scene."""
    left_out: LeftOut = []
    longs = {frame.scene if listed is None else frame.path.name: frame for frame in frames if frame.role == "long"}
    pairs = []
    for short in frames:
        if short.role != "short" or not (all_bursts or short.burst == "00"):
            continue
        partner = _partner_of(short, listed, split)
        if partner in longs:
            pairs.append((short, longs[partner]))
        elif partner is not None:
            left_out.append((short.source.name, "its long exposure is missing"))
    found = {frame.path.name for frame in frames}
    wanted = [name for name in listed or () if all_bursts or "_00_" in name]
    left_out += [(name, "it is in the list, but missing") for name in wanted if name not in found]
    return pairs, left_out


def _parse_frame(source: Source, paths: Sequence[Path]) -> Iterator[_Frame]:
    path = PurePosixPath(source.name)
    name = _NAME.fullmatch(path.stem)
    roles: tuple[Literal["short", "long"], ...] = ("short", "long")
    for role in roles:
        if name is not None and role in split_name(source, paths)[:-1] and float(name["seconds"]) > 0:
            yield _Frame(source, path, role, name["scene"], name["burst"], float(name["seconds"]))


def _partner_of(short: _Frame, listed: dict[str, str] | None, split: str) -> str | None:
    """The key of a short exposure's long one; None if it is of another split."""
    if listed is not None:
        return listed.get(short.path.name)
    return short.scene if short.scene.startswith(_FIRST_DIGITS[split]) else None


def _make_item(short: _Frame, long: _Frame) -> Planned:
    ratio = min(long.exposure_s / short.exposure_s, MAX_EXPOSURE_RATIO)
    return Planned(short.source.name, long.source.name, short.source.name, ratio, short.scene in MISALIGNED_SCENES)


def _find_list(name: str, paths: Sequence[Path], lists: Path | None) -> tuple[dict[str, str] | None, str]:
    """The long exposure of each short one, by file name, or None without a list; and where it is from."""
    if lists is not None:
        path = lists / name if lists.is_dir() else lists
        try:
            return _parse_list(path.read_text(), path), f"exposures from {path}"
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read as a list: {error}") from error
    for path in paths:
        for source in archives.list_files(path, {".txt"}).sources:
            if PurePosixPath(source.name).name == name:
                text = source.content().decode(errors="replace")
                return _parse_list(text, source.location), f"exposures from {source.location}"
    return None, f"there is no {name}; splits are told apart by the first digit of the scene"


def _parse_list(text: str, path: object) -> dict[str, str]:
    rows = [line.split()[:2] for line in text.splitlines() if line.strip()]
    if not rows or any(len(row) < 2 for row in rows):
        raise DataError(f"{path} is not a list of short and long exposures with two paths in each line")
    return {PurePosixPath(short).name: PurePosixPath(long).name for short, long in rows}


def _decode_mosaic(path: Path) -> Decoded:
    mosaic = raw.read(path)
    metadata = {
        "pattern": list(mosaic.pattern),
        "black_level": mosaic.black_level,
        "white_level": mosaic.white_level,
        "white_balance": mosaic.white_balance,
    }
    return Decoded(mosaic.samples, metadata)


def _develop(path: Path) -> Decoded:
    """Not rotated, so that it covers the same pixels as the mosaic."""
    return Decoded(raw.develop(path, upright=False).samples)
