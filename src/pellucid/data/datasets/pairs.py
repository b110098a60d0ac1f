"""Degraded pictures and their targets, in two folders or archives."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pellucid.data.dataset import DatasetPlan, DecodeTask, White, dataset, gather_pictures, picture_task
from pellucid.data.pairing import match
from pellucid.data.store_writer import Planned
from pellucid.errors import ArgumentError


@dataset
def pairs(paths: Sequence[Path], *, white: White = None) -> DatasetPlan:
    """Two sources, degraded pictures and then their targets, matched by name."""
    if len(paths) != 2:
        raise ArgumentError(f"pairs need two sources, degraded pictures and then targets; {len(paths)} given")
    (degraded, left_out, messages), (targets, more_left_out, more) = (gather_pictures([path]) for path in paths)
    pairing = match(*([PurePosixPath(source.name) for source in sources] for sources in (degraded, targets)))
    left_out += more_left_out
    left_out += [
        (f"degraded/{degraded[i].name}", f"{paths[1]} contains no picture of its name") for i in pairing.unmatched
    ]
    unused = sorted(set(range(len(targets))) - set(pairing.partners))
    left_out += [(f"target/{targets[i].name}", f"{paths[0]} contains no picture of its name") for i in unused]
    tasks: list[DecodeTask] = []
    items = []
    for source, partner in zip(degraded, pairing.partners, strict=True):
        if partner is not None:
            item = Planned(source.name, f"target/{targets[partner].name}", f"degraded/{source.name}")
            tasks.append(picture_task(source, item.degraded, white=white))
            tasks.append(picture_task(targets[partner], item.target, white=white))
            items.append(item)
    return DatasetPlan(
        "pairs",
        tuple(tasks),
        tuple(items),
        left_out,
        (f"matched {pairing.method}", *dict.fromkeys((*messages, *more))),
    )
