"""One network with its domain: restores a picture tile by tile.

Results do not depend on the size of the tiles, because each tile is computed with the full receptive field of its
pixels. So the size can be chosen to fit the available memory.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.backends.backend import WHOLE_PX, Backend, Shape, allocation
from pellucid.backends.selection import BackendChoice
from pellucid.domains import Degraded
from pellucid.errors import ArgumentError, NotEnoughMemoryError, PictureError, WeightsError
from pellucid.pictures.picture import Mosaic, Picture, download_mosaic
from pellucid.pictures.resize import reach, resize
from pellucid.pictures.samples import Samples, download_samples, to_depth, to_planes, to_samples
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import find
from pellucid.restoration import tiling
from pellucid.restoration.kept_tiles import KeptTiles
from pellucid.restoration.tiling import Span, Tile
from pellucid.system import devices, heap, memory
from pellucid.system.devices import Download
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
        axes = [axis for axis, flip in ((-2, self.flip_rows), (-1, self.flip_cols)) if flip]
        return planes.flip(axes) if axes else planes  # `flip` copies

    def _transpose(self, planes: Tensor) -> Tensor:
        return planes.transpose(-2, -1) if self.transpose else planes


FILL_PX = 8
"""How far visible colors replace hidden ones (under full transparency), which must not affect visible results."""

DEVICE_TILE_PX = 2048
"""Side of the tiles on a GPU, in pixels of the network's input, if they fit its memory: halos take little there,
copies of a large picture still overlap, and with up to 500 channels all indices fit 32 bits."""

TRIMMED_PIXELS = 2**14
"""Pixels of a result from which on freed memory is returned; for smaller ones, that takes as long as the rest."""

IDENTITY = (DihedralTransform(),)
ALL_EIGHT = tuple(DihedralTransform(*flags) for flags in product((False, True), repeat=3))


@dataclass(frozen=True)
class Effort:
    """The arguments of `Restorer.restore` for one picture, without the picture.

    limit_bytes: memory limit of the process. reserved_bytes: the part of the limit that other work needs.
    mask: a gray float32 picture of the same size, which is multiplied by the strength.
    kept: tiles that need not be computed again after an interruption.
    """

    tile_px: int | None
    halo_px: int | None
    ensemble: bool
    strength: float
    limit_bytes: int
    reserved_bytes: int = 0
    mask: Picture | None = None
    kept: KeptTiles = field(default_factory=KeptTiles)


@dataclass(frozen=True)
class TileSettings:
    """How every tile of a picture is computed. mask: see `Effort`."""

    halo_px: int
    transforms: Sequence[DihedralTransform] = IDENTITY
    strength: float = 1.0
    mask: Picture | None = None


class _StartedTiles:
    """The tiles that are not waited for yet: on a GPU the last one, so that it computes while others are copied.

    kept: gets every tile that is done.
    """

    def __init__(self, kept: KeptTiles, device: torch.device) -> None:
        self._kept, self._max_waiting = kept, int(devices.is_asynchronous(device))
        self._waiting: deque[tuple[Tile, float, Callable[[], Picture]]] = deque()
        self._done_s = 0.0

    def add(self, tile: Tile, start_s: float, finish: Callable[[], Picture]) -> Iterator[tuple[Tile, Picture]]:
        """Add a tile that was started at this time, and yield those that are done."""
        self._waiting.append((tile, start_s, finish))
        yield from self.finish(self._max_waiting)

    def finish(self, num_left: int = 0) -> Iterator[tuple[Tile, Picture]]:
        """Yield the first tiles until this many are left."""
        while len(self._waiting) > num_left:
            tile, start_s, finish = self._waiting.popleft()
            part = finish()
            done_s = time.monotonic()
            self._kept.add(tile, part, done_s - max(start_s, self._done_s))
            self._done_s = done_s
            yield tile, part


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
        self.scale = recipe.domain.result_scale(backend.scale)
        self.halo_px = recipe.domain.halo_px(backend.halo)
        self.grid_px = recipe.domain.grid_px(backend.multiple)
        self._least_tile_px = self._find_least_tile_px()
        self._num_planes: dict[tuple[object, ...], tuple[int, int]] = {}

    def fingerprint(self) -> str:
        """See `Restorer.fingerprint`."""
        return self._append_network(self.backend.fingerprint())

    def accepted_fingerprints(self) -> set[str]:
        """See `Restorer.accepted_fingerprints`."""
        accepted = {self.backend.fingerprint(), *(() if self.choice is None else self.choice.accepted)}
        return {*map(self._append_network, accepted)}

    def _append_network(self, fingerprint: str) -> str:
        """The fingerprint of a backend with that of the code of the network, if it is not from the package."""
        code = self.recipe.network_sha256
        return fingerprint if code is None else f"{fingerprint} of {code}"

    def describe_backend(self) -> list[str]:
        """See `Restorer.describe_backends`."""
        chosen = None if self.choice is None else f"computed by {self.choice}"
        fixed = self.backend.fixed_shape
        cost = None if fixed is None else fixed.describe_cost()
        return [note for note in (chosen, self.backend.note, cost) if note is not None]

    def overrides(self) -> list[str]:
        """See `Restorer.overrides`."""
        if self.metadata is None or not self.metadata.learned_from_recipe:
            return []
        trained_with, trained_by = self.metadata.parameters, self.metadata.network_sha256
        if trained_by is not None and trained_by != self.recipe.network_sha256:
            file = f"{self.recipe.name.partition('.')[0]}.py"
            return [f"{self.name}: {file} has changed since the weights were trained (SHA-256 {trained_by[:12]})"]
        if find(self.metadata.recipe, **trained_with).degradation == self.recipe.degradation:
            return []
        return [
            f"{self.name}: {key}={value}, but the weights were trained with {key}={trained_with[key]}"
            for key, value in self._list_changes()
        ]

    def describe_idle(self) -> list[str]:
        """Recipe keywords that were changed and only affect evaluation, one line each."""
        if self.metadata is None or self.metadata.network_sha256 != self.recipe.network_sha256:
            return []
        trained = find(self.metadata.recipe, **self.metadata.parameters)
        if trained.domain != self.recipe.domain:
            return []
        if self.metadata.learned_from_recipe and trained.degradation != self.recipe.degradation:
            return []
        return [f"{self.name}: {key}={value} only affects evaluation" for key, value in self._list_changes()]

    def _list_changes(self) -> Iterator[tuple[str, Any]]:
        """Keywords that differ from those that the weights were trained with."""
        trained_with = {} if self.metadata is None else self.metadata.parameters
        for key, value in self.recipe.parameters.items():
            if key in trained_with and _to_json(trained_with[key]) != _to_json(value):
                yield key, value

    def restore(self, degraded: Degraded, effort: Effort, dtype: str, advance: Advance) -> Degraded:
        """Restore a picture that the domain has accepted.

        A mosaic becomes an upright picture, or stays a mosaic, see `Domain.gives_mosaic`.

        dtype: of the result's samples. Raises the errors of `Restorer.restore`.
        """
        tile_px = effort.kept.start_model(self.choose_tile_px(degraded, effort))
        with heap.keeping(), torch.autocast(self.backend.device.type, enabled=False):  # of the calling code
            tiles = self._restore_tiles(degraded, tile_px, effort, dtype)
            restored = self._join_tiles(degraded, tiles, advance)
        if not isinstance(degraded, Mosaic):
            return restored
        if self.recipe.domain.gives_mosaic:
            return replace(degraded, samples=restored.samples[..., 0])
        return restored.apply_orientation(degraded.orientation)

    def choose_tile_px(self, degraded: Degraded, effort: Effort) -> int:
        """The longest side of the tiles.

        Raises NotEnoughMemoryError if the smallest do not fit the memory, ArgumentError for tiles of a network
        that depends on the whole picture.
        """
        if effort.tile_px is not None and effort.halo_px is None and self.backend.halo >= WHOLE_PX:
            raise ArgumentError(
                f"{self.name} depends on the whole picture, so tiles would not be exact",
                hint="omit {tile_px}, or set {halo_px}, too",
            )
        self._check_fixed_shape(degraded, effort)
        settings = self._tile_settings(degraded, effort)
        return self._tile_px(degraded, effort.tile_px, settings, effort.limit_bytes, effort.reserved_bytes)

    def check_tile_px(self, tile_px: int | None) -> None:
        """Raise ArgumentError for tiles that a graph of a fixed shape cannot compute."""
        if tile_px is not None and tile_px < self._least_tile_px:
            raise ArgumentError(
                f"tiles of {tile_px} px are too small for {self.name}, which was exported for one shape",
                hint="{tile_px} is large enough",
                tile_px=self._least_tile_px,
            )

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

    def _join_tiles(self, degraded: Degraded, tiles: Iterator[tuple[Tile, Picture]], advance: Advance) -> Picture:
        """Join all restored tiles. Those of a mosaic are not turned."""
        restored: Picture | None = None
        resident_bytes = 0
        # Large results belong into `memory.allocate`, and parts from a GPU are in memory that cannot be swapped.
        is_copied = devices.is_asynchronous(self.backend.device)
        for tile, part in tiles:
            is_small = all(plane.nbytes < memory.LARGE_BYTES for plane in part.planes)
            if is_small and not is_copied and tile.num_pixels == degraded.height * degraded.width:
                restored = part
            elif restored is None:
                restored = part.empty_like(degraded.height * self.scale, degraded.width * self.scale)
            if restored is not part:
                restored.paste(part, *tile.placed(self.scale))
            resident_bytes += sum(plane.nbytes for plane in part.planes)
            if resident_bytes >= memory.LARGE_BYTES // 4:  # not after each: neighbors need the same pages
                for plane in (*degraded.planes, *restored.planes):
                    memory.release(plane)
                resident_bytes = 0
            advance(tile.num_pixels)
        assert restored is not None
        if restored.height * restored.width >= TRIMMED_PIXELS:
            heap.trim_unkept()
        return restored

    def _total_halo_px(self, degraded: Degraded, requested_px: int | None) -> int:
        """The halo in total, including that of filling hidden colors."""
        transparent = isinstance(degraded, Picture) and degraded.alpha is not None
        halo_px = self.halo_px if requested_px is None else min(requested_px, self.halo_px)
        return halo_px + (FILL_PX if transparent else 0)

    def _tile_px(
        self,
        degraded: Degraded,
        requested_px: int | None,
        settings: TileSettings,
        limit: int,
        reserved_bytes: int = 0,
    ) -> int:
        """The side of the tiles: the requested or a fast one, halved until a tile fits the memory."""
        halo_px = settings.halo_px
        tile_px = self._fast_tile_px(degraded, halo_px) if requested_px is None else requested_px
        others_bytes = reserved_bytes + memory.unused_share_bytes()
        used = memory.used_bytes() + others_bytes
        if self._working_bytes(degraded, tile_px + 2 * halo_px, max(0, limit - used)) > limit - used:
            heap.trim()
            used = memory.used_bytes() + others_bytes
        free, free_on_device = max(0, limit - used), devices.free_device_bytes(self.backend.device)
        while (
            (needed := self._working_bytes(degraded, tile_px + 2 * halo_px, free)) > free
            or not self._fits_device(degraded, tile_px + 2 * halo_px, free_on_device)
        ) and tile_px > self._least_tile_px:
            tile_px = max(self._least_tile_px, min(tile_px, max(degraded.height, degraded.width)) // 2)
        if needed > free:
            raise NotEnoughMemoryError(
                f"{self.name} needs {_in_mb(needed)} for the smallest tile of a picture of {degraded.width} x "
                f"{degraded.height} px; {_in_mb(free)} of the {_in_mb(limit)} that the process may use are free",
                **memory.hint_at(memory.limit_besides_share(reserved_bytes + needed)),
            )
        return tile_px

    def _find_least_tile_px(self) -> int:
        """The side of tiles whose parts, if a picture is cut into equal ones, all contain a fixed shape."""
        if self.backend.fixed_shape is None:
            return 1
        return math.ceil(2 * max(self.backend.fixed_shape.shape[2:]) / self.recipe.domain.rate)

    def _check_fixed_shape(self, degraded: Degraded, effort: Effort) -> None:
        """Raise PictureError or ArgumentError if a graph of a fixed shape cannot restore a picture exactly."""
        fixed = self.backend.fixed_shape
        if fixed is None:
            return
        _, _, height, width = self._input_shape(degraded, max(degraded.height, degraded.width))
        fixed.check(height, width)
        if effort.ensemble:
            fixed.check(width, height)
        self.check_tile_px(effort.tile_px)

    def _fast_tile_px(self, degraded: Degraded, halo_px: int) -> int:
        """The whole picture if it is not larger than a tile with its halo, else a size with little halo."""
        # 512 network pixels keep activations near the caches of a CPU; a large halo needs more.
        network_px = 512 if self.backend.device.type == "cpu" else DEVICE_TILE_PX
        tile_px = max(int(network_px / self.recipe.domain.rate), min(1024, 4 * halo_px), self._least_tile_px)
        if degraded.height * degraded.width <= (tile_px + 2 * halo_px) ** 2:
            return max(degraded.height, degraded.width)
        return tile_px

    def _working_bytes(self, degraded: Degraded, read_px: int, free: int) -> int:
        """Memory to compute a tile that reads a square of this side, at most the whole picture.

        If even a rough upper bound fits into the free memory, it returns this bound.
        """
        height, width = min(read_px, degraded.height), min(read_px, degraded.width)
        # In addition to the network: the part that is read, in its own depth and in float, its color planes, and
        # the result in both.
        other_bytes = 4 * 4 * height * width * (1 + 3 * self.scale**2)
        if isinstance(degraded, Picture) and degraded.extra is not None:  # enlarged by several passes
            other_bytes += 4 * 4 * height * width * degraded.extra.shape[2] * self.scale**2
        shape = self._input_shape(degraded, read_px)
        return self.backend.working_bytes(shape, available_bytes=max(0, free - other_bytes)) + other_bytes

    def _fits_device(self, degraded: Degraded, read_px: int, free: int | None) -> bool:
        """Whether a tile that reads a square of this side takes at most half of the device's free memory."""
        if free is None:
            return True
        shape = self._input_shape(degraded, read_px)
        return self.backend.device_bytes(shape, available_bytes=free // 2) <= free // 2

    def _input_shape(self, degraded: Degraded, read_px: int) -> Shape:
        """The shape of the network's input for a square of this side, at most the whole picture."""
        rate = self.recipe.domain.rate
        height, width = min(read_px, degraded.height), min(read_px, degraded.width)
        count, channels = self._count_planes(degraded)
        return count, channels, -int(-height * rate // 1), -int(-width * rate // 1)

    def _count_planes(self, degraded: Degraded) -> tuple[int, int]:
        """The first two sizes of the network's input, tried on a corner once for pictures with these planes."""
        kind = (type(degraded), *(plane.shape[2:] for plane in degraded.planes))
        if kind not in self._num_planes:
            corner = degraded.crop(slice(0, self.grid_px), slice(0, self.grid_px))
            count, channels = self.recipe.domain.to_input(corner).shape[:2]
            self._num_planes[kind] = count, channels
        return self._num_planes[kind]

    def _restore_tiles(
        self, degraded: Degraded, tile_px: int, effort: Effort, dtype: str
    ) -> Iterator[tuple[Tile, Picture]]:
        """Yield all restored tiles, with samples of this type, computed or kept by an earlier run.

        Continues with smaller tiles if memory runs out.
        """
        settings = self._tile_settings(degraded, effort)
        limit = effort.limit_bytes - effort.reserved_bytes - memory.unused_share_bytes()
        like: Picture | None = None
        used = memory.used_bytes()
        needed = self._working_bytes(degraded, tile_px + 2 * settings.halo_px, max(0, limit - used))
        waiting = tiling.plan(degraded.height, degraded.width, tile_px=tile_px)[::-1]
        started = _StartedTiles(effort.kept, self.backend.device)
        while waiting:
            tile = waiting.pop()
            found = effort.kept.find(tile)
            if found is not None:
                yield from started.finish()
                like = like or self._start_tile(degraded, Tile(0, 1, 0, 1), settings, dtype)()  # for metadata
                yield tile, replace(like, samples=found.samples, alpha=found.alpha, extra=found.extra)
                continue
            if tile.longer_side_px > tile_px:
                waiting += tile.cut(tile_px)[::-1]
                continue
            if used + needed > limit:
                heap.trim()
            heap.limit_kept()
            start_s = time.monotonic()
            try:
                with allocation("a tile"):
                    finish = self._start_tile(degraded, tile, settings, dtype)
            except (NotEnoughMemoryError, MemoryError) as error:
                if tile.longer_side_px <= self._least_tile_px:
                    raise NotEnoughMemoryError(
                        f"not enough memory for {self.name}, even with the smallest tiles"
                    ) from error
                tile_px = max(self._least_tile_px, tile.longer_side_px // 2)
                waiting.append(tile)
            else:
                yield from started.add(tile, start_s, finish)
                del finish  # its planes; otherwise they would stay in memory while the next tile is computed
            is_large = tile.num_pixels >= TRIMMED_PIXELS
            if waiting or is_large:
                used = memory.used_bytes()
            if self.backend.frees_activations and is_large:
                heap.keep_freed(free_bytes=limit - used)
        yield from started.finish()

    def _start_tile(
        self, degraded: Degraded, tile: Tile, settings: TileSettings, dtype: str
    ) -> Callable[[], Picture]:
        """Start to restore one tile; the function that is returned waits for it.

        Its samples are of this type, and hidden colors are those of the input. Samples of a mosaic are in its own
        units, in the only channel.
        """
        planes = self._restore_colors(degraded, tile, settings)
        check_later: Callable[[], None] | None = None
        if devices.is_asynchronous(planes.device):
            check_later = partial(self._check_finite, degraded, planes, Download(planes.sum()))
        else:  # now, because `finish` would keep the planes in memory
            self._check_finite(degraded, planes, Download(planes.sum()))
        stays_mosaic = isinstance(degraded, Mosaic) and self.recipe.domain.gives_mosaic
        if isinstance(degraded, Mosaic) and stays_mosaic:
            download = download_mosaic(degraded, planes, tile.top, tile.left)
        else:
            download = download_samples(planes, dtype)
        alpha = extra = hidden = None
        if isinstance(degraded, Picture):
            if degraded.alpha is not None:
                alpha = self._enlarge(degraded.alpha, tile, dtype, is_fraction=True)
            if degraded.extra is not None:
                extra = self._enlarge(degraded.extra, tile, dtype)
            if alpha is not None and not alpha.all():
                hidden = self._enlarge(degraded.samples, tile, dtype)

        def finish() -> Picture:
            if check_later is not None:
                check_later()
            colors = download.wait().numpy()
            if stays_mosaic:
                return Picture(colors[..., None])
            if isinstance(degraded, Mosaic):
                return Picture(colors, metadata=degraded.metadata)
            if hidden is not None:
                np.copyto(colors, hidden, where=alpha == 0)
            return replace(degraded, samples=colors, alpha=alpha, extra=extra)

        return finish

    def _check_finite(self, degraded: Degraded, colors: Tensor, total: Download) -> None:
        """Raise the reason if colors are not finite. total: their sum, which takes a fraction of the time."""
        if total.wait().isfinite() or colors.isfinite().all():
            return
        if not all(np.isfinite(plane).all() for plane in degraded.planes):
            raise PictureError("NaN or infinite samples", hint="replace them first")
        raise WeightsError(f"{self.name} returns NaN or infinite samples; its weights are damaged")

    def _enlarge(self, plane: Samples, tile: Tile, dtype: str, *, is_fraction: bool = False) -> Samples:
        """A tile of given samples, enlarged bicubically, which overshoots; fractions are from 0 to 1."""
        if self.scale == 1:
            part = plane[tile.placed(1)]
            return part.copy() if part.dtype == dtype else to_depth(part, dtype)
        halo_px = reach(self.scale)
        rows = tiling.span(tile.top, tile.bottom, plane.shape[0], halo_px=halo_px, grid_px=1)
        cols = tiling.span(tile.left, tile.right, plane.shape[1], halo_px=halo_px, grid_px=1)
        enlarged = resize(to_planes(plane[rows.read, cols.read]), self.scale)
        enlarged = enlarged[..., rows.kept(self.scale), cols.kept(self.scale)]
        return to_samples(enlarged.clamp(0, 1) if is_fraction else enlarged, dtype)

    def _restore_colors(self, degraded: Degraded, tile: Tile, settings: TileSettings) -> Tensor:
        """The colors of one tile, (1, 1 or 3, H, W): the mean over all transforms."""
        first, *others = (self._run_network(degraded, tile, settings, each) for each in settings.transforms)
        return sum(others, first) / len(settings.transforms) if others else first

    def _run_network(
        self, degraded: Degraded, tile: Tile, settings: TileSettings, transform: DihedralTransform
    ) -> Tensor:
        domain = self.recipe.domain
        rows = self._span(tile.top, tile.bottom, degraded.height, settings.halo_px, transform.flip_rows)
        cols = self._span(tile.left, tile.right, degraded.width, settings.halo_px, transform.flip_cols)
        outer = degraded.crop(rows.read, cols.read)
        if isinstance(outer, Picture) and outer.alpha is not None and not outer.alpha.all():
            outer = outer.as_depth("float32").fill_hidden(FILL_PX)
        planes = domain.to_planes(outer, self.backend.device)
        network_input, strength = domain.planes_to_input(planes), self._strength(settings, rows, cols)
        if strength.any():
            output = transform.invert(self.backend(transform(network_input)))
            if not (strength == 1).all():
                output = domain.keep(network_input).lerp(output, devices.to_device(strength, output.device))
        else:
            output = domain.keep(network_input)
        return domain.output_to_planes(output, planes)[..., rows.kept(self.scale), cols.kept(self.scale)]

    def _strength(self, settings: TileSettings, rows: Span, cols: Span) -> Tensor:
        """The strength of the effect for the network's input: one number, or one for each pixel."""
        if settings.mask is None:
            return torch.tensor(settings.strength, dtype=torch.float32)
        mask = settings.mask.crop(rows.read, cols.read).to_tensor()
        return settings.strength * resize(mask, self.recipe.domain.rate).clamp(0, 1)

    def _span(self, start: int, stop: int, size: int, halo_px: int, mirrored: bool) -> Span:
        """The span to read along one side. In a mirrored picture, the grid starts at the other end."""
        if mirrored:
            start, stop = size - stop, size - start
        span = tiling.span(start, stop, size, halo_px=halo_px, grid_px=self.grid_px)
        return span.mirrored(size) if mirrored else span


def _to_json(value: object) -> object:
    """A value as it is after a round trip through JSON, which has lists instead of tuples."""
    return list(value) if isinstance(value, tuple) else value


def _in_mb(num_bytes: int) -> str:
    return f"{-(-num_bytes // 10**6)} MB"
