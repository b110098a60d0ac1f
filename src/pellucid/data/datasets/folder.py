"""Clean pictures in folders of any depth, or in archives."""

from collections.abc import Sequence
from pathlib import Path

from pellucid.data.dataset import DatasetPlan, White, dataset, gather_files, picture_task
from pellucid.data.store_writer import Planned
from pellucid.pictures import images


@dataset
def folder(paths: Sequence[Path], *, white: White = None) -> DatasetPlan:
    """Clean pictures, from any number of sources."""
    sources, left_out = gather_files(paths, images.SUFFIXES)
    items = tuple(Planned(source.name, source.name) for source in sources)
    return DatasetPlan("clean", tuple(picture_task(source, white=white) for source in sources), items, left_out)
