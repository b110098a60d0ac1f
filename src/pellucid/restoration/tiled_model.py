"""One network with its domain: restores a picture tile by tile.

Results do not depend on the size of the tiles: each tile is computed from everything that its pixels can see. So
the size can depend on the available memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product

import numpy as np
import torch
from torch import Tensor

from pellucid.backends.backend import Backend, allocation
from pellucid.backends.selection import BackendChoice
from pellucid.domains import Degraded
from pellucid.errors import NotEnoughMemoryError, PictureError, WeightsError
from pellucid.pictures.picture import Mosaic, Picture, Samples
from pellucid.pictures.resize import reach, resize
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import find
from pellucid.restoration import tiling
from pellucid.restoration.tiling import Span, Tile
from pellucid.system import memory
from pellucid.weights.checkpoint import WeightsMetadata

Advance = Callable[[int], None]
"""Called after each tile with its number of pixels."""


@dataclass(frozen=True)
class DihedralTransform:
    """One of the eight rotations and reflections of a picture."""

    flip_rows: bool = False
    flip_cols: bool = False
    transpose: bool = False

    def __call__(self, planes: Tensor) -> Tensor:
        return self._transpose(self._flip(planes))

    def invert(self, planes: Tensor) -> Tensor:
        """Undo the transform."""
        return self._flip(self._transpose(planes))

    def _flip(self, planes: Tensor) -> Tensor:
        return planes.flip([axis for axis, flip in ((-2, self.flip_rows), (-1, self.flip_cols)) if flip])

    def _transpose(self, planes: Tensor) -> Tensor:
        return planes.transpose(-2, -1) if self.transpose else planes


FILL_PX = 8
"""How far visible colors are spread into fully transparent areas, so that networks do not see hidden colors."""

IDENTITY = (DihedralTransform(),)
ALL_EIGHT = tuple(DihedralTransform(*flags) for flags in product((False, True), repeat=3))


@dataclass(frozen=True)
class Effort:
    """How a picture is restored: everything but the picture; see `Restorer.restore`.

    limit_bytes: memory limit of the process. reserved_bytes: the part of it that other work needs.
    mask: a gray picture of float32 of the same size, by which the strength is multiplied.
    """

    tile_px: int | None
    halo_px: int | None
    ensemble: bool
    strength: float
    limit_bytes: int
    reserved_bytes: int = 0
    mask: Picture | None = None


@dataclass(frozen=True)
class TileSettings:
    """How every tile of a picture is computed. mask: see `Effort`."""

    halo_px: int
    transforms: Sequence[DihedralTransform] = IDENTITY
    strength: float = 1.0
    mask: Picture | None = None


class TiledModel:
    """A trained network with its domain, which restores pictures tile by tile.

    Attributes are those of `Restorer`, which is made of one or several of these.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        backend: Backend,
        metadata: WeightsMetadata | None = None,
        choice: BackendChoice | None = None,
    ) -> None:
        self.name, self.recipe, self.backend = name, recipe, backend
        self.metadata, self.choice = metadata, choice
        rate = recipe.domain.rate
        self.scale = int(rate * backend.scale)
        self.halo_px = recipe.domain.halo_px(backend.halo)
        self.grid_px = (Fraction(backend.multiple) / rate).numerator

    def describe_backend(self) -> list[str]:
        """See `Restorer.describe_backends`."""
        notes = [] if self.choice is None else [str(self.choice)]
        return notes if self.backend.note is None else [*notes, self.backend.note]

    def overrides(self) -> list[str]:
        """See `Restorer.overrides`."""
        if self.metadata is None:
            return []
        trained_with, trained_by = self.metadata.parameters, self.metadata.network_sha256
        if trained_by is not None and trained_by != self.recipe.network_sha256:
            file = f"{self.recipe.name.partition('.')[0]}.py"
            return [f"{self.name}: {file} has changed since the weights were trained (SHA-256 {trained_by[:12]})"]
        if find(self.metadata.recipe, **trained_with).degradation == self.recipe.degradation:
            return []
        return [
            f"{self.name}: {key}={value}, but the weights were trained with {key}={trained_with[key]}"
            for key, value in self.recipe.parameters.items()
            if key in trained_with and _to_json(trained_with[key]) != _to_json(value)
        ]

    def restore(self, degraded: Degraded, effort: Effort, dtype: str, advance: Advance) -> Picture:
        """Restore a picture that the domain has accepted; a mosaic becomes an upright picture.

        dtype: of the result's samples. Raises the errors of `Restorer.restore`.
        """
        settings, limit = self._tile_settings(degraded, effort), effort.limit_bytes - effort.reserved_bytes
        return self._join_tiles(degraded, self.choose_tile_px(degraded, effort), settings, limit, dtype, advance)

    def choose_tile_px(self, degraded: Degraded, effort: Effort) -> int:
        """The longest side of the tiles. Raises NotEnoughMemoryError if the smallest do not fit the memory."""
        settings = self._tile_settings(degraded, effort)
        return self._tile_px(degraded, effort.tile_px, settings, effort.limit_bytes, effort.reserved_bytes)

    def working_bytes(self, degraded: Degraded, effort: Effort) -> int:
        """Memory to compute a tile of the size that is chosen if there is enough memory."""
        halo_px = self._tile_settings(degraded, effort).halo_px
        tile_px = self._fast_tile_px(degraded, halo_px) if effort.tile_px is None else effort.tile_px
        return self._working_bytes(degraded, tile_px + 2 * halo_px, free=0)

    def _tile_settings(self, degraded: Degraded, effort: Effort) -> TileSettings:
        transforms = ALL_EIGHT if effort.ensemble else IDENTITY
        return TileSettings(
            self._total_halo_px(degraded, effort.halo_px), transforms, effort.strength, effort.mask
        )

    def _join_tiles(
        self,
        degraded: Degraded,
        tile_px: int,
        settings: TileSettings,
        limit: int,
        dtype: str,
        advance: Advance,
    ) -> Picture:
        """All tiles of a picture, restored."""
        restored: Picture | None = None
        for tile, part in self._restore_tiles(degraded, tile_px, settings, limit, dtype):
            if restored is None:
                restored = part.empty_like(degraded.height * self.scale, degraded.width * self.scale)
            restored.paste(part, *tile.placed(self.scale))
            for plane in (*degraded.planes, *restored.planes):
                memory.release(plane)
            advance(tile.num_pixels)
        assert restored is not None
        memory.trim()
        return restored.apply_orientation(degraded.orientation) if isinstance(degraded, Mosaic) else restored

    def _total_halo_px(self, degraded: Degraded, wanted_px: int | None) -> int:
        """The halo, and more if hidden colors are filled first."""
        transparent = isinstance(degraded, Picture) and degraded.alpha is not None
        halo_px = self.halo_px if wanted_px is None else min(wanted_px, self.halo_px)
        return halo_px + (FILL_PX if transparent else 0)

    def _tile_px(
        self,
        degraded: Degraded,
        wanted_px: int | None,
        settings: TileSettings,
        limit: int,
        reserved_bytes: int = 0,
    ) -> int:
        """The side of the tiles: as wanted, or a fast one; halved until a tile fits the memory."""
        used = memory.used_bytes() + reserved_bytes
        free, halo_px = max(0, limit - used), settings.halo_px
        tile_px = self._fast_tile_px(degraded, halo_px) if wanted_px is None else wanted_px
        while (needed := self._working_bytes(degraded, tile_px + 2 * halo_px, free)) > free and tile_px > 1:
            tile_px = max(1, min(tile_px, max(degraded.height, degraded.width)) // 2)
        if needed > free:
            raise NotEnoughMemoryError(
                f"{self.name} needs {_in_mb(needed)} for the smallest tile of a picture of {degraded.width} x "
                f"{degraded.height} px; {_in_mb(free)} of the {_in_mb(limit)} that the process may use are free",
                hint="{memory_bytes} is enough",
                memory_bytes=memory.enough_bytes(used + needed),
            )
        return tile_px

    def _fast_tile_px(self, degraded: Degraded, halo_px: int) -> int:
        """The whole picture if it is no larger than a tile with its halo, otherwise large relative to the halo."""
        # 512 network pixels keep activations near the caches; a large halo needs more.
        tile_px = max(int(512 / self.recipe.domain.rate), min(1024, 4 * halo_px))
        if degraded.height * degraded.width <= (tile_px + 2 * halo_px) ** 2:
            return max(degraded.height, degraded.width)
        return tile_px

    def _working_bytes(self, degraded: Degraded, read_px: int, free: int) -> int:
        """Memory to compute a tile that reads a square of this side, at most the whole picture.

        A rough upper bound, if even that fits.
        """
        domain = self.recipe.domain
        height, width = min(read_px, degraded.height), min(read_px, degraded.width)
        sample = degraded.crop(slice(0, self.grid_px), slice(0, self.grid_px)).as_depth("float32")
        count, channels = domain.to_input(sample).shape[:2]
        shape = (count, channels, -int(-height * domain.rate // 1), -int(-width * domain.rate // 1))
        # In addition to the network: the part that is read, in its own depth and in float, its color planes, and
        # the result in both.
        other_bytes = 4 * 4 * height * width * (1 + 3 * self.scale**2)
        if isinstance(degraded, Picture) and degraded.extra is not None:  # enlarged by several passes
            other_bytes += 4 * 4 * height * width * degraded.extra.shape[2] * self.scale**2
        return self.backend.working_bytes(shape, available_bytes=max(0, free - other_bytes)) + other_bytes

    def _restore_tiles(
        self, degraded: Degraded, tile_px: int, settings: TileSettings, limit: int, dtype: str
    ) -> Iterator[tuple[Tile, Picture]]:
        """All tiles, restored, with samples of this type; after memory ran out, smaller ones."""
        free = max(0, limit - memory.used_bytes())
        needed = self._working_bytes(degraded, tile_px + 2 * settings.halo_px, free)
        waiting = tiling.plan(degraded.height, degraded.width, tile_px=tile_px)[::-1]
        while waiting:
            tile = waiting.pop()
            if tile.longer_side_px > tile_px:
                waiting += tile.cut(tile_px)[::-1]
                continue
            if memory.used_bytes() + needed > limit:
                memory.trim()
            try:
                with allocation("a tile"):
                    part = self._restore_tile(degraded, tile, settings, dtype)
            except (NotEnoughMemoryError, MemoryError) as error:
                if tile.longer_side_px == 1:
                    raise NotEnoughMemoryError(
                        f"not enough memory for {self.name}, even with the smallest tiles"
                    ) from error
                tile_px = tile.longer_side_px // 2
                waiting.append(tile)
            else:
                yield tile, part

    def _restore_tile(self, degraded: Degraded, tile: Tile, settings: TileSettings, dtype: str) -> Picture:
        """One tile with samples of this type, with the hidden colors that the picture has."""
        part = self._restore_in_float(degraded, tile, settings).as_depth(dtype)
        if not isinstance(degraded, Picture):
            return part
        if self.scale == 1:
            given = degraded.crop(*tile.placed(1)).as_depth(dtype)
            part, colors = replace(part, alpha=given.alpha, extra=given.extra), given.samples
        if part.alpha is None or part.alpha.all():
            return part
        if self.scale != 1:
            colors = self._enlarge_colors(degraded, tile, dtype)
        return replace(part, samples=np.where(part.alpha == 0, colors, part.samples))

    def _enlarge_colors(self, degraded: Picture, tile: Tile, dtype: str) -> Samples:
        """The colors of a tile, enlarged bicubically, including those under full transparency."""
        halo_px = reach(self.scale)
        rows = tiling.span(tile.top, tile.bottom, degraded.height, halo_px=halo_px, grid_px=1)
        cols = tiling.span(tile.left, tile.right, degraded.width, halo_px=halo_px, grid_px=1)
        outer = Picture(degraded.samples[rows.read, cols.read])
        enlarged = Picture.from_tensor(resize(outer.to_tensor(), self.scale), dtype)
        return enlarged.crop(rows.kept(self.scale), cols.kept(self.scale)).samples

    def _restore_in_float(self, degraded: Degraded, tile: Tile, settings: TileSettings) -> Picture:
        """One tile: the mean over all transforms."""
        total: Tensor | None = None
        for transform in settings.transforms:
            part = self._run_network(degraded, tile, settings, transform)
            total = part.to_tensor() if total is None else total.add_(part.to_tensor())
        assert total is not None
        samples = total / len(settings.transforms)
        if not samples.isfinite().all():
            if not all(np.isfinite(plane).all() for plane in degraded.planes):
                raise PictureError("NaN or infinite samples", hint="replace them first")
            raise WeightsError(f"{self.name} returns NaN or infinite samples; its weights are damaged")
        return part.with_tensor(samples, part.alpha_to_tensor(), part.extra_to_tensor())

    def _run_network(
        self, degraded: Degraded, tile: Tile, settings: TileSettings, transform: DihedralTransform
    ) -> Picture:
        domain = self.recipe.domain
        rows = self._span(tile.top, tile.bottom, degraded.height, settings.halo_px, transform.flip_rows)
        cols = self._span(tile.left, tile.right, degraded.width, settings.halo_px, transform.flip_cols)
        outer = degraded.crop(rows.read, cols.read).as_depth("float32")
        if isinstance(outer, Picture):
            outer = outer.fill_hidden(FILL_PX)
        network_input, strength = domain.to_input(outer), self._strength(settings, rows, cols)
        if strength.any():
            output = transform.invert(self.backend(transform(network_input)))
            output = output if (strength == 1).all() else network_input.lerp(output, strength)
        else:
            output = network_input
        return domain.to_picture(output, outer).crop(rows.kept(self.scale), cols.kept(self.scale))

    def _strength(self, settings: TileSettings, rows: Span, cols: Span) -> Tensor:
        """The strength of the effect for the network's input: one number, or one for each pixel."""
        if settings.mask is None:
            return torch.tensor(settings.strength)
        mask = settings.mask.crop(rows.read, cols.read).to_tensor()
        return settings.strength * resize(mask, self.recipe.domain.rate).clamp(0, 1)

    def _span(self, start: int, stop: int, size: int, halo_px: int, mirrored: bool) -> Span:
        """What to read along one side. The grid of a mirrored picture starts at the other end."""
        if mirrored:
            start, stop = size - stop, size - start
        span = tiling.span(start, stop, size, halo_px=halo_px, grid_px=self.grid_px)
        return span.mirrored(size) if mirrored else span


def _to_json(value: object) -> object:
    """Metadata is JSON, where a tuple is a list."""
    return list(value) if isinstance(value, tuple) else value


def _in_mb(num_bytes: int) -> str:
    return f"{-(-num_bytes // 10**6)} MB"
