"""GOPRO_Large: frames of a fast camera, averaged into motion blur.

{train,test}/SEQUENCE/{blur,blur_gamma,sharp}/*.png, also without the folders of the sequences. Source: Nah et al.,
"Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring", CVPR 2017.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, get_args

from pydantic import Field

from pellucid.data.archives import Source
from pellucid.data.dataset import DatasetPlan, dataset, gather_files, join_paths, picture_task, split_name
from pellucid.data.store_writer import Planned
from pellucid.errors import DataError
from pellucid.pictures.formats import SUFFIXES

_Split = Literal["train", "test"]


@dataset
def gopro(
    paths: Sequence[Path],
    *,
    split: Annotated[_Split, Field(description="part of the data set")] = "train",
    blur: Annotated[
        Literal["blur", "blur_gamma"], Field(description="frames averaged as they are, or in linear light")
    ] = "blur",
) -> DatasetPlan:
    """GOPRO_Large, blurred and sharp frames."""
    sources, left_out = gather_files(paths, SUFFIXES)
    blurred, sharp = (_find_frames(sources, paths, split, folder) for folder in (blur, "sharp"))
    if not blurred or not sharp:
        raise DataError(f"{join_paths(paths)}: '{split}' has no pictures in folders named '{blur}' and 'sharp'")
    for frames, partners, other in ((blurred, sharp, "sharp"), (sharp, blurred, blur)):
        left_out += [(frames[at].name, f"it has no partner in '{other}'") for at in frames if at not in partners]
    pairs = [(source, sharp[at]) for at, source in blurred.items() if at in sharp]
    tasks = tuple(picture_task(source) for pair in pairs for source in pair)
    items = tuple(Planned(source.name, target.name, source.name) for source, target in pairs)
    return DatasetPlan("pairs", tasks, items, left_out)


def _find_frames(sources: Sequence[Source], paths: Sequence[Path], split: str, folder: str) -> dict[str, Source]:
    """The pictures of a split in folders of this name, by their path without that folder and their suffix."""
    frames = {}
    for source in sources:
        parts = split_name(source, paths)
        if _is_in_split(parts, split) and folder in parts[:-1]:
            frames[str(PurePosixPath(*_remove_last(parts, folder)).with_suffix(""))] = source
    return frames


def _is_in_split(parts: tuple[str, ...], split: str) -> bool:
    """Whether a path contains the folder of this split, or no folder of a split."""
    splits = set(parts[:-1]) & set(get_args(_Split))
    return not splits or split in splits


def _remove_last(parts: tuple[str, ...], name: str) -> tuple[str, ...]:
    last = len(parts) - 1 - parts[::-1].index(name)
    return parts[:last] + parts[last + 1 :]
