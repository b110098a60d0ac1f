"""The one door to trained networks: a picture in, a picture of the same kind out, tile by tile.

Results do not depend on the tiles' size: a tile is computed from all that its pixels can see. So the size is
free to follow the memory that may be taken.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from math import dist
from pathlib import Path

import numpy as np
from torch import Tensor

from pellucid.backends import model, runtimes, selection
from pellucid.backends.backend import Backend, allocation, find_device
from pellucid.backends.runtimes import OnnxBackend, OpenVinoBackend
from pellucid.backends.selection import BackendChoice
from pellucid.domains import Degraded
from pellucid.errors import NotEnoughMemoryError, PellucidError, PictureError, WeightsError
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import find
from pellucid.restoration import tiling
from pellucid.restoration.tiling import Span, Tile
from pellucid.system import memory
from pellucid.weights import models
from pellucid.weights.checkpoint import WeightsMetadata

Progress = Callable[[int, int], None]
"""Called with (pixels done, pixels in all)."""


@dataclass(frozen=True)
class View:
    """One of the eight ways to turn and mirror a picture."""

    flip_rows: bool = False
    flip_cols: bool = False
    transpose: bool = False

    def __call__(self, planes: Tensor) -> Tensor:
        return self._transposed(self._flipped(planes))

    def back(self, planes: Tensor) -> Tensor:
        return self._flipped(self._transposed(planes))

    def _flipped(self, planes: Tensor) -> Tensor:
        return planes.flip([axis for axis, flip in ((-2, self.flip_rows), (-1, self.flip_cols)) if flip])

    def _transposed(self, planes: Tensor) -> Tensor:
        return planes.transpose(-2, -1) if self.transpose else planes


FILL_PX = 8
"""How far visible colors are spread below full transparency, before a network sees what is hidden there."""

AS_IT_IS = (View(),)
ALL_EIGHT = tuple(View(*flags) for flags in product((False, True), repeat=3))


@dataclass(frozen=True)
class _Manner:
    """How every tile of a picture is computed."""

    halo_px: int
    views: Sequence[View] = AS_IT_IS
    strength: float = 1.0


class Restorer:
    """A trained network with its domain: takes a picture, returns a picture of the same kind.

    name: how it was asked for. card: what its weight file says. choice: why this backend, where that was not asked
    for by name.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        backend: Backend,
        card: WeightsMetadata | None = None,
        *,
        choice: BackendChoice | None = None,
    ) -> None:
        self.name, self.recipe, self.backend, self.card, self.choice = name, recipe, backend, card, choice
        rate = recipe.domain.rate
        self.scale = int(rate * backend.scale)
        """Result pixels per picture pixel, along one side."""
        self.halo_px = recipe.domain.halo_px(backend.halo)
        """How many picture pixels away from its own place a result pixel sees."""
        self.grid_px = (Fraction(backend.multiple) / rate).numerator
        """What is read of a picture starts on multiples of this."""

    def __repr__(self) -> str:
        return f"<Restorer {self.name}: {self.recipe.name}, {self.backend.name}>"

    def changes(self) -> list[str]:
        """Where the recipe is another than the weights were made for, a line each.

        Not what only evaluation adds, as the level of noise where weights are for any.
        """
        if self.card is None:
            return []
        made_for = self.card.parameters
        if find(self.card.recipe, **made_for).degradation == self.recipe.degradation:
            return []
        return [
            f"{self.name}: {key}={value}, but its weights are for {key}={made_for[key]}"
            for key, value in self.recipe.parameters.items()
            if key in made_for and _listed(made_for[key]) != _listed(value)
        ]

    def restore(
        self,
        degraded: Degraded,
        *,
        tile_px: int | None = None,
        halo_px: int | None = None,
        ensemble: bool = False,
        strength: float = 1.0,
        memory_bytes: int | None = None,
        reserved_bytes: int = 0,
        progress: Progress | None = None,
    ) -> Picture:
        """Restore one picture, or one mosaic where the recipe takes those.

        tile_px: the longest side of the tiles, in pixels of the degraded picture; chosen by itself when None. It
            changes time and memory, not the result.
        halo_px: how much to read around each tile. Less than `halo_px` of the restorer is faster, and no
            longer exact.
        ensemble: the mean over all eight turned and mirrored versions: eight times the work.
        strength: 0 gives the network's input back (for enlarging: the bicubic one), 1 its full effect.
        memory_bytes: how much the process may take in all; tiles are made as small as that asks. Half of what
            is free when None. reserved_bytes: how much of it is for what goes on beside.

        Raises NotEnoughMemoryError, saying the least that would do, when no tile is small enough.
        """
        if not 0 <= strength <= 1:
            raise PellucidError(f"strength {strength:g}; a number from 0 to 1 is needed")
        if strength != 1 and isinstance(degraded, Mosaic):
            raise PictureError("strength blends with the input, and a mosaic is no picture; leave it at 1")
        degraded = self.recipe.domain.accept(degraded)
        manner = _Manner(self._halo_px(degraded, halo_px), ALL_EIGHT if ensemble else AS_IT_IS, strength)
        ceiling = memory.limit_bytes(memory_bytes)
        tile_px = self._tile_px(degraded, tile_px, manner, ceiling, reserved_bytes)
        restored: Picture | None = None
        done = 0
        for tile, part in self._parts(degraded, tile_px, manner, ceiling - reserved_bytes):
            if restored is None:
                restored = part.empty_like(degraded.height * self.scale, degraded.width * self.scale)
            restored.paste(part, *tile.placed(self.scale))
            for plane in (*degraded.planes, *restored.planes):
                memory.release(plane)
            done += tile.num_pixels
            if progress is not None:
                progress(done, degraded.height * degraded.width)
        assert restored is not None
        memory.trim()
        return restored.apply_orientation(degraded.orientation) if isinstance(degraded, Mosaic) else restored

    def given_up(self, degraded: Degraded, *, halo_px: int, tile_px: int | None = None) -> float:
        """What a smaller halo costs: the largest difference, white being 1, on the tile in the middle."""
        degraded = self.recipe.domain.accept(degraded)
        exact, near = _Manner(self._halo_px(degraded, None)), _Manner(self._halo_px(degraded, halo_px))
        tile_px = self._tile_px(degraded, tile_px, near, memory.limit_bytes(None))
        tiles = tiling.plan(degraded.height, degraded.width, tile_px=tile_px)
        if len(tiles) == 1:
            return 0.0
        center = (degraded.height / 2, degraded.width / 2)
        tile = min(tiles, key=lambda tile: dist(center, (tile.bottom, tile.right)))
        difference = self._in_float(degraded, tile, exact).samples - self._in_float(degraded, tile, near).samples
        return float(abs(difference).max())

    def _halo_px(self, degraded: Degraded, wanted_px: int | None) -> int:
        """As far as a result pixel sees, and farther where hidden colors are filled first."""
        transparent = isinstance(degraded, Picture) and degraded.alpha is not None
        return (self.halo_px if wanted_px is None else wanted_px) + (FILL_PX if transparent else 0)

    def _tile_px(
        self, degraded: Degraded, wanted_px: int | None, manner: _Manner, ceiling: int, reserved_bytes: int = 0
    ) -> int:
        """The side of the tiles: as wanted, or what is quick; halved as often as memory asks for it."""
        others = memory.used_bytes() + reserved_bytes
        room = max(0, ceiling - others)
        tile_px = self._quick_tile_px(degraded, manner.halo_px) if wanted_px is None else wanted_px
        while (needed := self._working_bytes(degraded, tile_px + 2 * manner.halo_px, room)) > room and tile_px > 1:
            tile_px = max(1, min(tile_px, max(degraded.height, degraded.width)) // 2)
        if needed > room:
            raise NotEnoughMemoryError(
                f"{self.name} needs {_in_mb(needed)} for the smallest tile of a picture of {degraded.width} x "
                f"{degraded.height} px, and {_in_mb(room)} are left for it of {_in_mb(ceiling)}",
                hint="{memory_bytes} is enough",
                memory_bytes=memory.enough_bytes(others + needed),
            )
        return tile_px

    def _quick_tile_px(self, degraded: Degraded, halo_px: int) -> int:
        """The whole where it is no more than a tile with its halo would be; else large against the halo."""
        # 512 network pixels keep activations near the caches; a large halo asks for more, memory for less.
        tile_px = max(int(512 / self.recipe.domain.rate), min(1024, 4 * halo_px))
        if degraded.height * degraded.width <= (tile_px + 2 * halo_px) ** 2:
            return max(degraded.height, degraded.width)
        return tile_px

    def _working_bytes(self, degraded: Degraded, read_px: int, room: int) -> int:
        """What it takes to compute a tile for which a square of this side is read, up to the whole picture.

        Roughly where even that is no more than there is room for.
        """
        domain = self.recipe.domain
        height, width = min(read_px, degraded.height), min(read_px, degraded.width)
        sample = degraded.crop(slice(0, self.grid_px), slice(0, self.grid_px)).as_depth("float32")
        count, channels = domain.to_input(sample).shape[:2]
        shape = (count, channels, -int(-height * domain.rate // 1), -int(-width * domain.rate // 1))
        # Beside the network: the part read, in its own depth and in float, its color planes, the result in both.
        around = 4 * 4 * height * width * (1 + 3 * self.scale**2)
        return self.backend.working_bytes(shape, available_bytes=max(0, room - around)) + around

    def _parts(
        self, degraded: Degraded, tile_px: int, manner: _Manner, ceiling: int
    ) -> Iterator[tuple[Tile, Picture]]:
        """All tiles, restored, at the depth of the degraded picture; smaller ones once memory runs out."""
        room = max(0, ceiling - memory.used_bytes())
        needed = self._working_bytes(degraded, tile_px + 2 * manner.halo_px, room)
        waiting = tiling.plan(degraded.height, degraded.width, tile_px=tile_px)[::-1]
        while waiting:
            tile = waiting.pop()
            if tile.longer_side_px > tile_px:
                waiting += tile.cut(tile_px)[::-1]
                continue
            if memory.used_bytes() + needed > ceiling:
                memory.trim()
            try:
                with allocation("a tile"):
                    part = self._restored(degraded, tile, manner)
            except (NotEnoughMemoryError, MemoryError) as error:
                if tile.longer_side_px == 1:
                    raise NotEnoughMemoryError(
                        f"not enough memory for {self.name}, however small the tiles"
                    ) from error
                tile_px = tile.longer_side_px // 2
                waiting.append(tile)
            else:
                yield tile, part

    def _restored(self, degraded: Degraded, tile: Tile, manner: _Manner) -> Picture:
        """One tile at the depth of the degraded picture. Where the size stays, so does what cannot be seen."""
        part = self._in_float(degraded, tile, manner).as_depth(degraded.dtype)
        if self.scale != 1 or part.alpha is None or not isinstance(degraded, Picture):
            return part
        given = degraded.crop(*tile.placed(1))
        assert given.alpha is not None
        return replace(part, samples=np.where(given.alpha == 0, given.samples, part.samples), alpha=given.alpha)

    def _in_float(self, degraded: Degraded, tile: Tile, manner: _Manner) -> Picture:
        """One tile, computed by every view, and their mean."""
        total: Tensor | None = None
        for view in manner.views:
            part = self._seen_by(view, degraded, tile, manner)
            total = part.to_tensor() if total is None else total.add_(part.to_tensor())
        assert total is not None
        samples = total / len(manner.views)
        if not samples.isfinite().all():
            raise WeightsError(f"{self.name} gives NaN or infinite samples; its weights are damaged")
        return part.with_tensor(samples, part.alpha_to_tensor())

    def _seen_by(self, view: View, degraded: Degraded, tile: Tile, manner: _Manner) -> Picture:
        domain = self.recipe.domain
        rows = self._span(tile.top, tile.bottom, degraded.height, manner.halo_px, view.flip_rows)
        cols = self._span(tile.left, tile.right, degraded.width, manner.halo_px, view.flip_cols)
        outer = degraded.crop(rows.read, cols.read).as_depth("float32")
        if isinstance(outer, Picture):
            outer = outer.fill_hidden(FILL_PX)
        network_input = domain.to_input(outer)
        output = view.back(self.backend(view(network_input)))
        if manner.strength != 1:
            output = network_input.lerp(output, manner.strength)
        return domain.to_picture(output, outer).crop(rows.kept(self.scale), cols.kept(self.scale))

    def _span(self, start: int, stop: int, size: int, halo_px: int, mirrored: bool) -> Span:
        """What to read of one side. A mirrored picture has its grid at the other end."""
        if mirrored:
            start, stop = size - stop, size - start
        seen = tiling.span(start, stop, size, halo_px=halo_px, grid_px=self.grid_px)
        return seen.mirrored(size) if mirrored else seen


def _listed(value: object) -> object:
    """A card is JSON, which has lists for tuples."""
    return list(value) if isinstance(value, tuple) else value


def _in_mb(num_bytes: int) -> str:
    return f"{-(-num_bytes // 10**6)} MB"


def load(
    name_or_file: str | Path,
    /,
    *,
    device: str = "auto",
    backend: str | None = None,
    precision: str | None = None,
    **parameters: object,
) -> Restorer:
    """A restorer by the name of a model (see `pellucid models`) or the path of a weight file or an exported one.

    backend: torch, onnxruntime, openvino, or auto, the fastest installed that agrees with float32 torch to 60 dB;
        torch where None, and of an exported file (.onnx, .xml) its own.
    precision: float32, bfloat16, float16, or auto; float32 where None, and of an exported file its own.
    parameters: recipe keywords to change, as `scale=3` of a network of three tasks.

    Raises WeightsError for what is no model, MissingExtraError for a backend that is not installed.
    """
    path = models.find_model(name_or_file)
    if path.suffix.lower() in models.EXPORTED_SUFFIXES:
        return _load_exported(path, backend, precision, device, parameters)
    plan, card = model.load_model(path, **parameters)
    runs, choice = selection.select_backend(plan, device=device, backend=backend, precision=precision)
    return Restorer(path.stem, plan.recipe, runs, card, choice=choice)


def _load_exported(
    path: Path, backend: str | None, precision: str | None, device: str, parameters: dict[str, object]
) -> Restorer:
    selection.check_names(backend, precision)
    facts = runtimes.read_metadata(path)
    recipe, network = facts.resolve(source=path, **parameters)
    if facts.shape is not None:
        raise WeightsError(
            f"{path} takes inputs of {facts.shape} only; pictures need one that was exported without --shape"
        )
    if precision not in (None, "auto", facts.precision):
        raise WeightsError(f"{path} computes in {facts.precision}, not {precision}; export it in {precision}")
    if find_device("cpu" if device == "auto" else device).type != "cpu":
        raise PellucidError(f"{path} runs on the CPU here, not on {device}; leave --device out")
    runs = _runtime(path, backend)(path, facts, network)
    return Restorer(path.stem, recipe, runs, facts.weights)


def _runtime(path: Path, backend: str | None) -> type[OnnxBackend] | type[OpenVinoBackend]:
    """Its own, or OpenVINO for ONNX, too."""
    is_onnx = path.suffix.lower() == ".onnx"
    if backend == "torch" or (backend == "onnxruntime" and not is_onnx):
        wanted = "onnxruntime or openvino" if is_onnx else "openvino"
        raise WeightsError(f"{path} runs in {wanted}, not in {backend}; leave --backend out")
    return OnnxBackend if is_onnx and backend != "openvino" else OpenVinoBackend
