"""The only way to run trained networks: a picture in, a picture of the same kind out, tile by tile.

Results do not depend on the size of the tiles: each tile is computed from everything that its pixels can see. So
the size can depend on the available memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, product
from math import dist
from pathlib import Path
from typing import Any, overload
from warnings import warn

import numpy as np
from torch import Tensor

from pellucid.backends import model, runtimes, selection
from pellucid.backends.backend import Backend, allocation, find_device
from pellucid.backends.runtimes import OnnxBackend, OpenVinoBackend
from pellucid.backends.selection import BackendChoice
from pellucid.domains import Degraded
from pellucid.errors import NotEnoughMemoryError, PellucidError, PictureError, WeightsError
from pellucid.pictures.picture import Mosaic, Picture, Samples
from pellucid.pictures.resize import reach, resize
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import find
from pellucid.restoration import conversion, tiling
from pellucid.restoration.conversion import InMemory, Same
from pellucid.restoration.tiling import Span, Tile
from pellucid.system import memory
from pellucid.system.keywords import check_number
from pellucid.weights import models
from pellucid.weights.checkpoint import WeightsMetadata

Progress = Callable[[int, int], None]
"""Called with (pixels done, all pixels)."""


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
class TileSettings:
    """How every tile of a picture is computed."""

    halo_px: int
    transforms: Sequence[DihedralTransform] = IDENTITY
    strength: float = 1.0


class Restorer:
    """A trained network with its domain. `load` makes one, `restore` runs it.

    name: of the model or of its file. recipe: what the network was trained for. backend: what runs the network.
    metadata: what the weight file contains about itself, e.g. license and scores; None for a network without a
        file.
    choice: why this backend was chosen; None if it was not chosen automatically.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        backend: Backend,
        metadata: WeightsMetadata | None = None,
        *,
        choice: BackendChoice | None = None,
    ) -> None:
        self.name, self.recipe, self.backend = name, recipe, backend
        self.metadata, self.choice = metadata, choice
        rate = recipe.domain.rate
        self.scale = int(rate * backend.scale)
        """Result pixels per picture pixel, along one side."""
        self.halo_px = recipe.domain.halo_px(backend.halo)
        """A result pixel depends on picture pixels up to this far away."""
        self.grid_px = (Fraction(backend.multiple) / rate).numerator
        """The part of a picture that is read for a tile starts on multiples of this."""

    def __repr__(self) -> str:
        return f"<Restorer {self.name}: {self.recipe.name}, {self.backend.name}>"

    def overrides(self) -> list[str]:
        """Recipe keywords that differ from those that the weights were trained with, one line each.

        Keywords that only affect evaluation do not count, e.g. the noise level if the weights are for any level.
        """
        if self.metadata is None:
            return []
        trained_with = self.metadata.parameters
        if find(self.metadata.recipe, **trained_with).degradation == self.recipe.degradation:
            return []
        return [
            f"{self.name}: {key}={value}, but the weights were trained with {key}={trained_with[key]}"
            for key, value in self.recipe.parameters.items()
            if key in trained_with and _to_json(trained_with[key]) != _to_json(value)
        ]

    @overload
    def restore(
        self,
        degraded: Same,
        *,
        tile_px: int | None = None,
        halo_px: int | None = None,
        ensemble: bool = False,
        strength: float = 1.0,
        memory_bytes: int | None = None,
        reserved_bytes: int = 0,
        white: float | None = None,
        progress: Progress | None = None,
    ) -> Same: ...

    @overload
    def restore(
        self,
        degraded: Mosaic,
        *,
        tile_px: int | None = None,
        halo_px: int | None = None,
        ensemble: bool = False,
        strength: float = 1.0,
        memory_bytes: int | None = None,
        reserved_bytes: int = 0,
        white: None = None,
        progress: Progress | None = None,
    ) -> Picture: ...

    def restore(
        self,
        degraded: InMemory,
        *,
        tile_px: int | None = None,
        halo_px: int | None = None,
        ensemble: bool = False,
        strength: float = 1.0,
        memory_bytes: int | None = None,
        reserved_bytes: int = 0,
        white: float | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """Restore a picture and return the result in the same form.

        degraded: gray or RGB, with or without alpha (1 to 4 channels, in this order), as one of:

            - a Picture;
            - a NumPy array (H, W) or (H, W, C) of uint8, uint16, or float32 from 0 (black) to 1 (white);
            - a tensor (C, H, W) or (N, C, H, W) of any floating-point type from 0 to 1, on any device;
            - a Pillow image of mode L, LA, RGB, RGBA or I;16;
            - a Mosaic, if the recipe restores camera RAW files. The result is an upright Picture.

            Sides of the result are `scale` times as long. Integer results are rounded; floating-point results are
            not clipped.
        tile_px: longest side of the tiles, in picture pixels. It affects time and memory, not the result. Default:
            as large as is fast and fits the memory.
        halo_px: how far around each tile the picture is read. Default: the restorer's `halo_px`, which makes
            results exact. A smaller halo is faster; `halo_error` measures its error.
        ensemble: the mean over all eight rotations and reflections of the picture; takes eight times as long.
        strength: blends the network's input (the picture, enlarged bicubically if the recipe enlarges) with its
            output: 0 is the input, 1 the output.
        memory_bytes: memory limit of the whole process; tiles become as small as it requires. Default: what the
            process uses now plus half of the free memory.
        reserved_bytes: the part of this limit that other work needs.
        white: the value of white in an array, tensor or image, e.g. 4095 for 12 bits in uint16, or 255 for
            floating-point values up to 255. The result has the same white. Default: 255, 65535, or 1 for floating
            point. Without it, a uint16 array whose upper bits are unused gives a Python warning.
        progress: called after each tile.

        Raises PictureError for the wrong kind of picture, type, shape or range of values, NotEnoughMemoryError
        with the smallest limit that works if even the smallest tile does not fit, and WeightsError if the
        network's output is not finite.
        """
        pictures, to_same_form = conversion.to_pictures(degraded, white=white)
        _warn_about(degraded, pictures)
        _check_settings(tile_px, halo_px, memory_bytes)
        check_number("strength", strength, 0, 1, is_whole=False)
        accepted = [self.recipe.domain.accept(picture) for picture in pictures]
        if strength != 1 and self.recipe.domain.takes_mosaic:
            raise PictureError(
                "a mosaic cannot be blended with the result", hint="leave {strength} at 1", strength=None
            )
        num_pixels, num_done = sum(picture.height * picture.width for picture in accepted), 0

        def advance(num_pixels_of_tile: int) -> None:
            nonlocal num_done
            num_done += num_pixels_of_tile
            if progress is not None:
                progress(num_done, num_pixels)

        transforms, limit = ALL_EIGHT if ensemble else IDENTITY, memory.limit_bytes(memory_bytes)
        results = []
        for picture in accepted:
            settings = TileSettings(self._total_halo_px(picture, halo_px), transforms, strength)
            side_px = self._tile_px(picture, tile_px, settings, limit, reserved_bytes)
            results.append(self._join_tiles(picture, side_px, settings, limit - reserved_bytes, advance))
        return to_same_form(results)

    def halo_error(self, degraded: InMemory, *, halo_px: int, tile_px: int | None = None) -> float:
        """The error caused by a smaller halo: the largest difference on the tile in the middle; white is 1.

        0 if the picture is one tile. Measures the first picture of a batch. Takes the time of two tiles.
        """
        picture = self.recipe.domain.accept(conversion.to_pictures(degraded)[0][0])
        _check_settings(tile_px, halo_px)
        exact, near = (TileSettings(self._total_halo_px(picture, px)) for px in (None, halo_px))
        tile_px = self._tile_px(picture, tile_px, near, memory.limit_bytes(None))
        tiles = tiling.plan(picture.height, picture.width, tile_px=tile_px)
        if len(tiles) == 1:
            return 0.0
        center = (picture.height / 2, picture.width / 2)
        tile = min(tiles, key=lambda tile: dist(center, (tile.bottom, tile.right)))
        expected, found = (self._restore_in_float(picture, tile, settings).samples for settings in (exact, near))
        return float(abs(expected - found).max())

    def _join_tiles(
        self,
        degraded: Degraded,
        tile_px: int,
        settings: TileSettings,
        limit: int,
        advance: Callable[[int], None],
    ) -> Picture:
        """All tiles of a picture, restored. advance: called with the number of pixels of each."""
        restored: Picture | None = None
        for tile, part in self._restore_tiles(degraded, tile_px, settings, limit):
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
        return (self.halo_px if wanted_px is None else wanted_px) + (FILL_PX if transparent else 0)

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
        self, degraded: Degraded, tile_px: int, settings: TileSettings, limit: int
    ) -> Iterator[tuple[Tile, Picture]]:
        """All tiles, restored, at the depth of the degraded picture; after memory ran out, smaller ones."""
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
                    part = self._restore_tile(degraded, tile, settings)
            except (NotEnoughMemoryError, MemoryError) as error:
                if tile.longer_side_px == 1:
                    raise NotEnoughMemoryError(
                        f"not enough memory for {self.name}, even with the smallest tiles"
                    ) from error
                tile_px = tile.longer_side_px // 2
                waiting.append(tile)
            else:
                yield tile, part

    def _restore_tile(self, degraded: Degraded, tile: Tile, settings: TileSettings) -> Picture:
        """One tile at the depth of the degraded picture, with the hidden colors that the picture has."""
        part = self._restore_in_float(degraded, tile, settings).as_depth(degraded.dtype)
        if not isinstance(degraded, Picture):
            return part
        if self.scale == 1:
            given = degraded.crop(*tile.placed(1))
            part, colors = replace(part, alpha=given.alpha, extra=given.extra), given.samples
        if part.alpha is None or part.alpha.all():
            return part
        if self.scale != 1:
            colors = self._enlarge_colors(degraded, tile)
        return replace(part, samples=np.where(part.alpha == 0, colors, part.samples))

    def _enlarge_colors(self, degraded: Picture, tile: Tile) -> Samples:
        """The colors of a tile, enlarged bicubically, including those under full transparency."""
        halo_px = reach(self.scale)
        rows = tiling.span(tile.top, tile.bottom, degraded.height, halo_px=halo_px, grid_px=1)
        cols = tiling.span(tile.left, tile.right, degraded.width, halo_px=halo_px, grid_px=1)
        outer = Picture(degraded.samples[rows.read, cols.read])
        enlarged = Picture.from_tensor(resize(outer.to_tensor(), self.scale), degraded.dtype)
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
        network_input = domain.to_input(outer)
        output = transform.invert(self.backend(transform(network_input)))
        if settings.strength != 1:
            output = network_input.lerp(output, settings.strength)
        return domain.to_picture(output, outer).crop(rows.kept(self.scale), cols.kept(self.scale))

    def _span(self, start: int, stop: int, size: int, halo_px: int, mirrored: bool) -> Span:
        """What to read along one side. The grid of a mirrored picture starts at the other end."""
        if mirrored:
            start, stop = size - stop, size - start
        span = tiling.span(start, stop, size, halo_px=halo_px, grid_px=self.grid_px)
        return span.mirrored(size) if mirrored else span


def _to_json(value: object) -> object:
    """Metadata is JSON, where a tuple is a list."""
    return list(value) if isinstance(value, tuple) else value


def _warn_about(given: InMemory, pictures: Sequence[Degraded]) -> None:
    """Python warnings about an array, tensor or image. A `Picture` has those of its file in its encoding."""
    if isinstance(given, Picture | Mosaic):
        return
    found = (
        picture.encoding.warnings for picture in pictures if isinstance(picture, Picture) and picture.encoding
    )
    for text in dict.fromkeys(chain.from_iterable(found)):
        warn(text.replace("--white ", "white="), stacklevel=3)


def _check_settings(tile_px: int | None, halo_px: int | None, memory_bytes: int | None = None) -> None:
    for name, value, low in (("tile_px", tile_px, 1), ("halo_px", halo_px, 0), ("memory_bytes", memory_bytes, 0)):
        if value is not None:
            check_number(name, value, low)


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
    """A restorer of a trained model.

    name_or_file: name of a model (`pellucid models` lists them), or path of a weight file (.safetensors) or of an
        exported model (.onnx, .xml).
    device: auto (an accelerator if there is one), cpu, cuda, cuda:1, mps, ...; exported models run on the CPU.
    backend: torch, onnxruntime, openvino, or auto: the fastest of the installed ones with a PSNR of 60 dB or more
        against torch in float32. Default: torch; for exported models their own.
    precision: float32, bfloat16, float16, or auto. Default: float32; for exported models their own.
    parameters: recipe keywords that differ from those of the file, e.g. `scale=3` for a model of three scales.

    Raises WeightsError if there is no such model, or its file is damaged or of another kind, RecipeError for
    unknown keywords, MissingExtraError if the backend is not installed, and PellucidError if the device cannot be
    used.
    """
    path = models.find_model(name_or_file)
    if path.suffix.lower() in models.EXPORTED_SUFFIXES:
        return _load_exported(path, backend, precision, device, parameters)
    loaded, metadata = model.load_model(path, **parameters)
    chosen, choice = selection.select_backend(loaded, device=device, backend=backend, precision=precision)
    return Restorer(path.stem, loaded.recipe, chosen, metadata, choice=choice)


def _load_exported(
    path: Path, backend: str | None, precision: str | None, device: str, parameters: dict[str, object]
) -> Restorer:
    selection.check_names(backend, precision)
    metadata = runtimes.read_metadata(path)
    recipe, network = metadata.resolve(source=path, **parameters)
    if metadata.shape is not None:
        raise WeightsError(
            f"{path} was exported for inputs of shape {metadata.shape} only; pictures have any size",
            hint="export it without {shape}",
        )
    if precision not in (None, "auto", metadata.precision):
        raise WeightsError(f"{path} computes in {metadata.precision}, not {precision}; export it in {precision}")
    if find_device("cpu" if device == "auto" else device).type != "cpu":
        raise PellucidError(f"{path} is an exported model, which runs on the CPU, not on {device}")
    runtime = _find_runtime(path, backend)(path, metadata, network)
    return Restorer(path.stem, recipe, runtime, metadata.weights)


def _find_runtime(path: Path, backend: str | None) -> type[OnnxBackend] | type[OpenVinoBackend]:
    """The runtime of the format; OpenVINO runs ONNX, too."""
    is_onnx = path.suffix.lower() == ".onnx"
    if backend == "torch" or (backend == "onnxruntime" and not is_onnx):
        needed = "onnxruntime or openvino" if is_onnx else "openvino"
        raise WeightsError(f"{path} runs in {needed}, not in {backend}", hint="omit {backend}")
    return OnnxBackend if is_onnx and backend != "openvino" else OpenVinoBackend
