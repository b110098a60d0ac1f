"""The only way to run trained networks: a picture in, a picture of the same kind out.

A restorer runs one model, or a chain of several, one after the other.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, product
from math import prod
from pathlib import Path
from typing import Any, Self, overload
from warnings import warn

import numpy as np
import torch

from pellucid.backends import accelerators, parity, runtimes, selection
from pellucid.backends.backend import Backend
from pellucid.backends.eager import TorchBackend
from pellucid.backends.foreign_graphs import KEYWORDS, ForeignBackend
from pellucid.backends.model import load_model
from pellucid.backends.runtimes import OnnxBackend, OpenVinoBackend
from pellucid.backends.selection import BackendChoice
from pellucid.domains import RGB, Degraded, Domain, Gray, Luma
from pellucid.errors import ArgumentError, PellucidError, PictureError, RecipeError, WeightsError
from pellucid.pictures.color import rgb_to_gray
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.pictures.samples import PEAKS, Samples
from pellucid.recipes import registry
from pellucid.recipes.network import Network
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.running import build_recipe
from pellucid.restoration import chaining, conversion
from pellucid.restoration.chaining import Progress, count_pixels, run_models
from pellucid.restoration.conversion import InMemory, Same
from pellucid.restoration.tiled_model import Effort, TiledModel
from pellucid.system import memory
from pellucid.system.arguments import check_number, checks_types
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import EXPORTED_SUFFIXES, WeightsMetadata
from pellucid.weights.models import find_chain


class Restorer:
    """A trained network with its domain, or a chain of several. `load` makes one, `restore` runs it.

    name: of the model or of its file; those of a chain joined by "+".
    recipe: the recipe of the network; for a chain, it describes the input and the scoring of the whole chain.
    metadata: the metadata of the weight file, e.g. license and scores; None for a network without a file.
    choice: why the backend was chosen; None if it was not chosen automatically, and for a chain.
    models: the models of the chain, in the order in which they run, or the only one.
    scale: result pixels per picture pixel, along one side.
    halo_px: a result pixel depends on picture pixels up to this far away.
    grid_px: the part of a picture that is read for a tile starts on multiples of this.
    """

    models: tuple[TiledModel, ...]

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        backend: Backend,
        metadata: WeightsMetadata | None = None,
        *,
        choice: BackendChoice | None = None,
    ) -> None:
        self._set_models((TiledModel(name, recipe, backend, metadata, choice),))

    @classmethod
    @checks_types()
    def chain(cls, restorers: Sequence["Restorer"]) -> Self:
        """Join restorers: each takes the result of the previous one, in floating point, without rounding.

        Raises WeightsError if one cannot take the result of the previous one, and ArgumentError unless there is at
        least one restorer.
        """
        return cls.of([model for restorer in restorers for model in restorer.models])

    @classmethod
    @checks_types()
    def of(cls, models: Sequence[TiledModel]) -> Self:
        """A restorer of these models, one after the other. Raises errors as `chain` does."""
        if not models:
            raise ArgumentError("a chain of 0 restorers; at least one is needed")
        joined = cls.__new__(cls)
        joined._set_models(tuple(models))
        return joined

    def _set_models(self, models: tuple[TiledModel, ...]) -> None:
        chaining.check_order(models)
        self.models = models
        self.name = "+".join(model.name for model in models)
        self.recipe, self.metadata = chaining.join_recipes(models), chaining.join_metadata(models)
        self.choice = models[0].choice if len(models) == 1 else None
        self.scale = prod(model.scale for model in models)
        self.halo_px, self.grid_px = chaining.total_halo_px(models), chaining.total_grid_px(models)

    def __repr__(self) -> str:
        backends = "+".join(model.backend.name for model in self.models)
        return f"<Restorer {self.name}: {self.recipe.name}, {backends}>"

    @property
    def backend(self) -> Backend:
        """The backend that runs the network. Raises PellucidError for a chain, whose `models` have one each."""
        if len(self.models) > 1:
            raise PellucidError(f"{self.name} is a chain of models", hint="each of its `models` has a backend")
        return self.models[0].backend

    @property
    def network(self) -> Network:
        """The network with its weights, a `torch.nn.Module`: (N, C, H, W) -> (N, C', scale * H, scale * W).

        It is differentiable by its input, and by its weights after `requires_grad_()`; batch norm is folded into
        convolutions. `recipe.domain` converts pictures to its input and back.

        Raises PellucidError for other backends than torch, and for a chain, whose `models` have one network each.
        """
        backend = self.backend
        if not isinstance(backend, TorchBackend):
            raise PellucidError(
                f"{self.name} runs by {backend.name}", hint="load it with {backend}", backend="torch"
            )
        return backend.network

    def fingerprint(self) -> str:
        """Identifies the weights, the code of networks from files, the runtime and the precision of all models."""
        return "+".join(model.fingerprint() for model in self.models)

    def accepted_fingerprints(self) -> list[str]:
        """Its own, and those of the backends that "auto" may choose on other machines if it chose this one."""
        each = [model.accepted_fingerprints() for model in self.models]
        return sorted("+".join(chosen) for chosen in product(*each))

    def describe(self) -> dict[str, Any]:
        """Its recipe, keywords and backends, for reports and manifests."""
        return {
            "recipe": self.recipe.name,
            "parameters": dict(self.recipe.parameters),
            "backend": "+".join(model.backend.name for model in self.models),
        }

    def describe_backends(self) -> list[str]:
        """Which backend "auto" chose and why, and whether it computes in another precision than requested."""
        lines = [(model.name, line) for model in self.models for line in model.describe_backend()]
        return [f"{name}: {line}" if len(self.models) > 1 else line for name, line in lines]

    def overrides(self) -> list[str]:
        """Recipe keywords that differ from those that the weights were trained with, one line each.

        Keywords that only affect evaluation do not count, e.g. the noise level if the weights are for any level.
        """
        return [line for model in self.models for line in model.overrides()]

    @overload
    def restore(
        self,
        degraded: Same,
        *,
        tile_px: int | None = None,
        halo_px: int | None = None,
        ensemble: bool = False,
        strength: float = 1.0,
        mask: Picture | Samples | None = None,
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
        mask: Picture | Samples | None = None,
        memory_bytes: int | None = None,
        reserved_bytes: int = 0,
        white: None = None,
        progress: Progress | None = None,
    ) -> Any: ...

    @checks_types(except_for=["degraded", "mask"])
    def restore(
        self,
        degraded: InMemory,
        *,
        tile_px: int | None = None,
        halo_px: int | None = None,
        ensemble: bool = False,
        strength: float = 1.0,
        mask: Picture | Samples | None = None,
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
            - a Mosaic, if the recipe restores camera RAW files. The result is an upright Picture, or a Mosaic if
              `recipe.domain.gives_mosaic`.

            Sides of the result are `scale` times as long. Integer results are rounded; floating-point results are
            not clipped.
        tile_px: longest side of the tiles, in picture pixels. It affects time and memory, not the result. Default:
            chosen for speed within the memory limit.
        halo_px: number of pixels that are read around each tile. Default: the restorer's `halo_px`, which makes
            results exact. A smaller halo is faster; `halo_error` measures its error.
        ensemble: the mean over all eight rotations and reflections of the picture; takes eight times as long.
        strength: blends the network's input (the picture, enlarged bicubically if the recipe enlarges) with its
            output: 0 is the input, 1 the output. In a chain, it applies to each model.
        mask: multiplies the strength of each pixel: a gray picture, or an array (H, W) of the types above, of the
            same size as the picture. Where it is white the picture is restored, where it is black the result is
            the input (enlarged bicubically). Of a color picture, the brightness counts. Transparent parts
            count as black.
        memory_bytes: memory limit of the whole process; tiles become as small as necessary. Default: what the
            process uses now plus half of the free memory.
        reserved_bytes: the part of this limit that other work needs.
        white: the value of white in an array, tensor or image, e.g. 4095 for 12 bits in uint16, or 255 for
            floating-point values up to 255. The result has the same white. Default: 255, 65535, or 1 for floating
            point. Without it, a uint16 array whose upper bits are unused gives a Python warning.
        progress: called after each tile with (pixels done, all pixels), where each model of a chain counts its
            input pixels.

        Raises PictureError for the wrong kind of picture, type, shape or range of values, NotEnoughMemoryError
        with the smallest limit that works if even the smallest tile does not fit, and WeightsError if the
        network's output is not finite.
        """
        pictures, to_same_form = conversion.to_pictures(degraded, white=white)
        _warn_about(degraded, pictures)
        _check_settings(tile_px, halo_px, memory_bytes)
        check_number("strength", strength, 0, 1, is_whole=False)
        check_number("reserved_bytes", reserved_bytes, 0)
        limit = memory.limit_bytes(memory_bytes)
        effort = Effort(tile_px, halo_px, ensemble, strength, limit, reserved_bytes)
        with memory.sharing_free_memory(limit - reserved_bytes):
            results = self._restore(pictures, effort, mask, progress)
        for text in warn_about_mask(Picture.from_array(mask) if isinstance(mask, np.ndarray) else mask):
            warn(text, stacklevel=3)  # the caller of the checked method
        return to_same_form(results)

    def _restore(
        self,
        pictures: Sequence[Degraded],
        effort: Effort,
        mask: Picture | Samples | None,
        progress: Progress | None,
    ) -> list[Degraded]:
        accepted = [self.recipe.domain.accept(picture) for picture in pictures]
        num_pixels, num_done = sum(count_pixels(self.models, picture) for picture in accepted), 0

        def advance(pixels: int, _: int) -> None:
            if progress is not None:
                progress(num_done + pixels, num_pixels)

        results = []
        for given, picture in zip(pictures, accepted, strict=True):
            if mask is not None:
                effort = replace(effort, mask=to_mask(mask, picture))
            restored = run_models(self.models, picture, effort, picture.dtype, advance)
            results.append(self.recipe.domain.finish(restored, given))
            num_done += count_pixels(self.models, picture)
        return results

    @checks_types(except_for=["degraded"])
    def halo_error(self, degraded: InMemory, *, halo_px: int, tile_px: int | None = None) -> float:
        """The error caused by a smaller halo: the largest difference in the center of the picture; white is 1.

        0 if the picture is a single tile for every model. Measures only the first picture of a batch.
        Takes the time of two tiles.
        """
        picture = self.recipe.domain.accept(conversion.to_pictures(degraded)[0][0])
        _check_settings(tile_px, halo_px)
        effort = Effort(tile_px, None, ensemble=False, strength=1.0, limit_bytes=memory.limit_bytes(None))
        tile_px = self.models[0].choose_tile_px(picture, replace(effort, halo_px=halo_px))
        rows, cols = (_middle(size, tile_px, self.grid_px) for size in (picture.height, picture.width))
        part = picture.crop(rows, cols)  # larger than a tile, if the picture is
        effort = replace(effort, tile_px=tile_px)
        if isinstance(part, Mosaic):
            part = part.as_depth("float32")
        expected, found = (
            run_models(self.models, part, replace(effort, halo_px=px), "float32").samples for px in (None, halo_px)
        )
        units = part.white_level if self.recipe.domain.gives_mosaic and isinstance(part, Mosaic) else 1.0
        return float(abs(expected - found).max() / units)

    @checks_types(except_for=["degraded"])
    def working_bytes(
        self, degraded: Picture | Mosaic, *, tile_px: int | None = None, halo_px: int | None = None
    ) -> int:
        """Memory for the network, in bytes, with tiles of the size that `restore` chooses without a limit."""
        _check_settings(tile_px, halo_px)
        accepted = self.recipe.domain.accept(degraded)
        effort = Effort(tile_px, halo_px, ensemble=False, strength=1.0, limit_bytes=0)
        return max(model.working_bytes(accepted, effort) for model in self.models)


def _warn_about(given: InMemory, pictures: Sequence[Degraded]) -> None:
    """Emit warnings about an array, tensor or image. Those about a `Picture` are in its encoding."""
    if isinstance(given, Picture | Mosaic):
        return
    found = (
        picture.encoding.warnings for picture in pictures if isinstance(picture, Picture) and picture.encoding
    )
    for text in dict.fromkeys(chain.from_iterable(found)):
        warn(text.replace("--white ", "white="), stacklevel=4)  # the caller of the checked method


def _check_settings(tile_px: int | None, halo_px: int | None, memory_bytes: int | None = None) -> None:
    for name, value, low in (("tile_px", tile_px, 1), ("halo_px", halo_px, 0), ("memory_bytes", memory_bytes, 0)):
        if value is not None:
            check_number(name, value, low)


def to_mask(mask: Picture | Samples, picture: Degraded) -> Picture:
    """A mask as one gray plane from 0 to 1; of a color picture, its brightness. Transparent parts count as black.

    Raises PictureError for the mask of a mosaic, and unless it is finite, and as large as the picture.
    """
    if isinstance(picture, Mosaic):
        raise PictureError("a mosaic is restored without a mask", hint="omit {mask}")
    given = mask if isinstance(mask, Picture) else Picture.from_array(mask)
    if (given.height, given.width) != (picture.height, picture.width):
        raise mask_size_error((given.width, given.height), (picture.width, picture.height))
    if given.samples.dtype.kind == "f" and not np.isfinite(given.samples).all():
        raise PictureError("the mask contains NaN or infinite values; values from 0 to 1 are needed")
    if given.samples.dtype.kind == "f" and (given.samples.min() < -1 or given.samples.max() > 2):  # not overshoot
        raise PictureError(
            f"the mask contains values from {given.samples.min():g} to {given.samples.max():g}; "
            "values from 0 to 1 are needed"
        )
    if given.alpha is not None:
        alpha = Picture(given.alpha).as_depth("float32").samples
        return Picture(to_mask(replace(given, alpha=None), picture).samples * alpha)
    if given.channels == 1:
        return Picture(given.as_depth("float32").samples)
    gray = Picture(memory.allocate((given.height, given.width, 1), "float32"))
    for rows in memory.strips(given.samples, gray.samples):
        part = Picture(given.samples[rows]).to_tensor()
        gray.paste(Picture.from_tensor(rgb_to_gray(part)), rows, slice(0, given.width))
    return gray


def mask_size_error(mask_size: tuple[int, int], size: tuple[int, int]) -> PictureError:
    """The error about a mask of another (width, height) than its picture."""
    (mask_width, mask_height), (width, height) = mask_size, size
    return PictureError(
        f"a mask of {mask_width} x {mask_height} px for a picture of {width} x {height} px; "
        "they must be equally large"
    )


def warn_about_mask(mask: Picture | None) -> Iterator[str]:
    """One line if a mask of integers is so dark that its white is probably lower than that of its type."""
    if mask is None or mask.dtype == "float32":
        return
    highest, white = mask.samples.max(), PEAKS[mask.dtype]
    if 0 < highest <= white / 8:
        yield f"no sample of the mask is above {highest} of {white:g}: at most {highest / white:.1%} is restored"


def _middle(size: int, tile_px: int, grid_px: int) -> slice:
    """The center of a side, slightly longer than a tile."""
    length = tile_px + grid_px
    start = max(0, (size - length) // 2) // grid_px * grid_px
    return slice(start, min(size, start + length))


@checks_types()
def load(
    name_or_file: str | Path,
    /,
    *,
    device: str = "auto",
    backend: str | None = None,
    precision: str | None = None,
    **parameters: object,
) -> Restorer:
    """A restorer of a trained model, or of a chain of models.

    name_or_file: name of a model (`pellucid models` lists them), or path of a weight file (.safetensors) or of an
        exported model (.onnx, .xml). Several, joined by "+", run in sequence, e.g.
        "dncnn-color-blind+srcnn-x2".
    device: auto (an accelerator if there is one), cpu, cuda, cuda:1, mps, ... For exported models, auto is the
        CPU; in ONNX Runtime, they also run on cuda, tensorrt, migraphx, coreml, directml and openvino, in OpenVINO
        on gpu and npu, if it supports them here.
    backend: torch, onnxruntime, openvino, or auto: by rule, the fastest one that is installed; torch for networks
        whose graphs do not ship with pellucid. Default: torch; for exported models, that of the file.
    precision: float32, bfloat16, float16, or auto: the fastest one with a PSNR of at least 60 dB against float32
        on synthetic pictures. Default: float32; for exported models, that of the file.
    parameters: recipe keywords that differ from those of the file, e.g. `scale=3` for a model of three scales. In
        a chain, a keyword applies to the one model whose recipe has it.

    Raises WeightsError if there is no such model, or its file is damaged or of another kind, RecipeError for
    unknown keywords, MissingExtraError if the backend is not installed, ArgumentError for other types, and
    PellucidError if the device cannot be used.
    """
    paths = find_chain(name_or_file)
    routed = _route(parameters, paths)
    return Restorer.chain(
        [_load_one(path, device, backend, precision, own) for path, own in zip(paths, routed, strict=True)]
    )


def default_format(restorer: Restorer) -> str | None:
    """The format of results, unless another one is asked for; None: that of each input."""
    return "dng" if restorer.recipe.domain.gives_mosaic else None


def returns_mosaics(name_or_file: str | Path) -> bool:
    """Whether a model returns mosaics, from its metadata; False for files that `load` refuses."""
    try:
        (path,) = find_chain(name_or_file)
        is_exported = path.suffix.lower() in EXPORTED_SUFFIXES
        if is_exported and runtimes.is_foreign(path):
            return False
        metadata = runtimes.read_metadata(path).weights if is_exported else checkpoint.read_metadata(path)
        return checkpoint.find_recipe(metadata, source=path).domain.gives_mosaic
    except (PellucidError, ValueError):  # also of a chain, which returns pictures
        return False


def _load_one(
    path: Path, device: str, backend: str | None, precision: str | None, parameters: Mapping[str, object]
) -> Restorer:
    if path.suffix.lower() in EXPORTED_SUFFIXES:
        return _load_exported(path, backend, precision, device, parameters)
    loaded, metadata = load_model(path, **parameters)
    chosen, choice = selection.select_backend(loaded, device=device, backend=backend, precision=precision)
    return Restorer(path.stem, loaded.recipe, chosen, metadata, choice=choice)


def _route(parameters: Mapping[str, object], paths: Sequence[Path]) -> list[dict[str, object]]:
    """The keywords of each model: in a chain, a keyword applies to the one model whose recipe has it.

    Raises RecipeError for a keyword of several models, or of none.
    """
    if len(paths) == 1:
        return [dict(parameters)]
    routed: list[dict[str, object]] = [{} for _ in paths]
    for key, value in parameters.items():
        takers = [i for i, path in enumerate(paths) if key in _list_keywords(path)]
        if len(takers) != 1:
            names = " and ".join(paths[i].stem for i in takers)
            raise RecipeError(
                f"{names} have the keyword {key}; in a chain, one model must have it"
                if takers
                else f"no model of {'+'.join(path.stem for path in paths)} has the keyword {key[:80]!r}"
            )
        routed[takers[0]][key] = value
    return routed


def _list_keywords(path: Path) -> Collection[str]:
    """The keywords of a model's recipe, or those of a file of another program."""
    is_exported = path.suffix.lower() in EXPORTED_SUFFIXES
    if is_exported and runtimes.is_foreign(path):
        return KEYWORDS
    metadata = runtimes.read_metadata(path).weights if is_exported else checkpoint.read_metadata(path)
    return registry.own_keywords(metadata.recipe)


def _load_exported(
    path: Path, backend: str | None, precision: str | None, device: str, parameters: Mapping[str, object]
) -> Restorer:
    selection.check_names(backend, precision)
    if runtimes.is_foreign(path):
        return _load_foreign(path, backend, precision, device, parameters)
    metadata = runtimes.read_metadata(path)
    recipe, network = metadata.resolve(source=path, **parameters)
    if precision not in (None, "auto", metadata.precision):
        raise WeightsError(f"{path} computes in {metadata.precision}, not {precision}; export it in {precision}")
    runtime = _find_runtime(path, backend)
    chosen = runtime(path, metadata, network, device=device)
    if chosen.runtime_device != "cpu":
        height, width = (64, 64) if metadata.shape is None else metadata.shape[2:]
        inputs = parity.crop_inputs(
            parity.synthetic_inputs(recipe, -(-max(height, width) // 12) * 12), [(height, width)]
        )
        agreement = parity.compare(chosen, runtime(path, metadata, network), inputs)
        accelerators.check_agreement(agreement, device, name=path.name, precision=metadata.precision)
    return Restorer(path.stem, recipe, chosen, metadata.weights)


def _load_foreign(
    path: Path, backend: str | None, precision: str | None, device: str, parameters: Mapping[str, object]
) -> Restorer:
    """An ONNX file of another program; its parameters are `foreign_graphs.KEYWORDS`."""
    if backend not in (None, "auto", "onnxruntime"):
        raise WeightsError(f"{path}, a file of another program, runs in onnxruntime", hint="omit {backend}")
    if precision not in (None, "auto"):
        raise WeightsError(f"{path}, a file of another program, has its own precision", hint="omit {precision}")
    network = ForeignBackend(path, device, **dict(parameters))
    if network.runtime_device != "cpu":
        leaves = parity.dead_leaves(96, torch.Generator().manual_seed(0))[None, : network.num_planes]
        agreement = parity.compare(network, ForeignBackend(path, **parameters), [leaves])
        accelerators.check_agreement(agreement, device, name=path.name)
    domains: Mapping[str, Domain] = {"gray": Gray(), "y": Luma(network_scale=network.scale)}
    facts = {"colors": network.colors, "range": network.range}
    return Restorer(path.stem, build_recipe(path.name, domains.get(network.colors, RGB()), facts), network)


def _find_runtime(path: Path, backend: str | None) -> type[OnnxBackend] | type[OpenVinoBackend]:
    """The runtime of the format; OpenVINO runs ONNX, too."""
    is_onnx = path.suffix.lower() == ".onnx"
    if backend == "torch" or (backend == "onnxruntime" and not is_onnx):
        needed = "onnxruntime or openvino" if is_onnx else "openvino"
        raise WeightsError(f"{path} runs in {needed}, not in {backend}", hint="omit {backend}")
    return OnnxBackend if is_onnx and backend != "openvino" else OpenVinoBackend
