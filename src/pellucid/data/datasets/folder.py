"""Clean pictures in folders of any depth, or in archives."""

from collections.abc import Sequence
from pathlib import Path

from pellucid.data.dataset import DatasetPlan, White, dataset, gather_pictures, picture_task
from pellucid.data.store_writer import Planned


@dataset
def folder(paths: Sequence[Path], *, white: White = None) -> DatasetPlan:
    """Clean pictures, from any number of sources."""
    sources, left_out, messages = gather_pictures(paths)
    items = tuple(Planned(source.name, source.name) for source in sources)
    tasks = tuple(picture_task(source, white=white) for source in sources)
    return DatasetPlan("clean", tasks, items, left_out, messages)
