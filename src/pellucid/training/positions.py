"""Which patches a batch consists of, drawn from all positions in the pictures of a store.

- Clean pictures: all positions of a patch in all pictures are equally likely. This favors large pictures, like
  the dense grids of patches on which SRCNN and DnCNN were trained.
- Pairs and RAW: one scene after another, in a new random order for each round through all of them (Cho et al.
  2021; Chen et al. 2018, who also draw one of the exposures of a scene), and a random crop of it.
- Augmentation: one of two or of eight dihedral transforms, equally likely.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import DataError
from pellucid.training.crops import Numbers, Size

NUM_TRANSFORMS = {"none": 1, "mirror": 2, "eight": 8}
"""Number of dihedral transforms, for each `augmentation` of a recipe."""

CROPS, NOISE, ORDER, SOURCES = range(4)  # what random numbers are drawn for


@dataclass(frozen=True)
class Patches:
    """Patches, one in each entry of the arrays: its picture, its corner, and how it is augmented."""

    picture: Numbers
    top: Numbers
    left: Numbers
    transform: Numbers
    """Dihedral transform, see `crops.augment`."""


@dataclass(frozen=True)
class Window:
    """The crop around a patch that is needed to degrade it like a part of the whole picture.

    patch_px: side of the patch. step_px: its corner is at multiples of this. grid_px, reach_px: the footprint of
    the degradation and the domain together, see `Footprint`.
    """

    patch_px: int
    step_px: int
    grid_px: int
    reach_px: int

    @property
    def size_px(self) -> int:
        """Side of the window: whole cells of the grid, for any position of the patch in its cell."""
        slack = self.grid_px - gcd(self.grid_px, self.step_px, self.reach_px)
        return -(-(slack + 2 * self.reach_px + self.patch_px) // self.grid_px) * self.grid_px

    def start(self, patch: Numbers) -> Numbers:
        """Where the window starts; negative if the patch is near the edge of the picture."""
        return (patch - self.reach_px) // self.grid_px * self.grid_px


class Positions:
    """Draws patches from all possible positions in pictures of these sizes."""

    def __init__(self, sizes: Sequence[Size], window: Window, scenes: Sequence[int] | None) -> None:
        self._step_px = window.step_px
        spare_px = np.array(sizes, np.int64) - window.patch_px
        self._counts = np.maximum(spare_px // window.step_px + 1, 0)  # rows and columns of positions
        per_picture = self._counts.prod(axis=1)
        self._ends = per_picture.cumsum()
        self.too_small: list[int] = np.flatnonzero(per_picture == 0).tolist()
        if not self._ends[-1]:
            height, width = max(sizes, key=min)
            raise DataError(
                f"no picture contains a patch of {window.patch_px} x {window.patch_px} px; "
                f"the largest is {width} x {height} px"
            )
        self._scenes = None if scenes is None else _group_by_scene(scenes, per_picture > 0)

    def draw_pictures(self, samples: range, seed: int, rng: np.random.Generator) -> Numbers:
        """A picture for each sample; samples are numbered through the whole run."""
        if self._scenes is None:
            return np.searchsorted(self._ends, rng.integers(self._ends[-1], size=len(samples)), side="right")
        num_scenes = len(self._scenes)
        rounds = (divmod(sample, num_scenes) for sample in samples)
        scenes = [self._scenes[_shuffle_scenes(seed, number, num_scenes)[i]] for number, i in rounds]
        return np.array([rng.choice(scene) for scene in scenes])

    def draw_corners(self, pictures: Numbers, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
        """Top and left of a patch in each picture."""
        corners = rng.integers(self._counts[pictures]) * self._step_px
        return corners[:, 0], corners[:, 1]


def _group_by_scene(scenes: Sequence[int], usable: NDArray[np.bool_]) -> list[Numbers]:
    """The usable pictures of each scene that has any."""
    members: dict[int, list[int]] = {}
    for i in np.flatnonzero(usable).tolist():
        members.setdefault(scenes[i], []).append(i)
    return [np.array(pictures) for pictures in members.values()]


@lru_cache(maxsize=32)  # several sources, each at most at the end of one round and the start of the next
def _shuffle_scenes(seed: int, round_number: int, count: int) -> Numbers:
    return build_rng(seed, ORDER, round_number).permutation(count)


def build_rng(seed: int, *purpose: int) -> np.random.Generator:
    """A generator for one purpose. SeedSequence hashes, so neighboring seeds, steps and shards are independent."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=purpose))
