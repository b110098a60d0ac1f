"""What a model was trained for, and how a picture differs from that."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from pellucid.degradations.camera_noise import CameraNoise
from pellucid.degradations.degradation import involves, warnings_for
from pellucid.degradations.motion_blur import MotionBlur
from pellucid.degradations.raw_synthesis import SyntheticRaw
from pellucid.degradations.standard import JPEG_COMPRESSION, GaussianNoise, Shrink
from pellucid.domains import Degraded
from pellucid.errors import OutputError
from pellucid.pictures.formats import DNG, format_by_suffix
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.pictures.samples import PEAKS
from pellucid.recipes.recipe import Recipe
from pellucid.restoration.measures import estimate_noise
from pellucid.restoration.one_picture import plan_size, upright_shape
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.settings import Settings
from pellucid.restoration.tiled_model import TiledModel
from pellucid.storage.urls import Location
from pellucid.system import memory
from pellucid.weights import checkpoint, models

MIN_MEASURED_PX = 64
"""The noise of pictures with a shorter side is not measured."""

MIN_CHANGE_255 = 0.5
"""A result that differs by less has hardly changed: half a step of 8 bits."""


NOISE, CAMERA_NOISE, BLOCKS = "noise", "noise of a camera", "JPEG blocks"
RAW_NOISE = "noise in RAW files"
BLUR, SMALL, DARK = "motion blur", "too small", "too dark"

_CORRECTS: dict[str, tuple[type, ...]] = {
    NOISE: (GaussianNoise,),
    CAMERA_NOISE: (CameraNoise,),
    BLOCKS: JPEG_COMPRESSION,
    BLUR: (MotionBlur,),
    SMALL: (Shrink,),
    DARK: (SyntheticRaw,),
}


def list_problems(recipe: Recipe) -> list[str]:
    """What the models of a recipe correct: those of the problems above that its degradation causes."""
    if recipe.domain.takes_mosaic:
        return [RAW_NOISE if recipe.domain.gives_mosaic else DARK]
    found = [problem for problem, kinds in _CORRECTS.items() if involves(recipe.degradation, kinds)]
    return [BLUR] if BLUR in found else found  # a deblurrer learns from noise and JPEG so that it survives them


def describe_noise(recipe: Recipe) -> str:
    """The levels of noise that a recipe removes, where white is 255: "15", "up to 55"; or an empty text."""
    levels = _noise_levels(recipe)
    if levels is None:
        return ""
    low, high = levels
    return f"{high:g}" if low == high else f"up to {high:g}"


def warn_about(degraded: Degraded, restorer: Restorer) -> tuple[str, ...]:
    """How a picture differs from those that the network was trained for."""
    first = restorer.models[0].recipe
    if isinstance(degraded, Mosaic):
        of_file = degraded.warnings
    else:
        of_file = () if degraded.encoding is None else degraded.encoding.warnings
    return (
        *of_file,
        *(warning for model in restorer.models for warning in _warn_of_gray(degraded, model)),
        *_warn_of_noise(degraded, restorer.models[0]),
        *first.domain.warnings_for(degraded),
        *warnings_for(first.protocol.degradation, degraded),
    )


def check_format(target: Location, restorer: Restorer) -> None:
    """Raise OutputError if a file of this name cannot store what the restorer returns."""
    kind, gives_mosaic = format_by_suffix(target), restorer.recipe.domain.gives_mosaic
    if gives_mosaic and kind is not DNG:
        raise OutputError(
            f"{target}: {restorer.name} returns mosaics, and {kind.name} cannot store them", hint="write .dng"
        )
    if kind is DNG and not gives_mosaic:
        raise OutputError(
            f"{target}: DNG stores mosaics, and {restorer.name} returns developed pictures", hint="write TIFF"
        )


def warn_about_settings(target: Location, restorer: Restorer, settings: Settings) -> Iterator[str]:
    """One line for each setting that has no effect on a result of this name."""
    yield from warn_about_exposure(restorer, settings)
    kind = format_by_suffix(target)
    if settings.bit_depth is not None and kind is DNG:
        yield "the bit depth has no effect on DNG, which has 16 bits"
    if settings.quality is not None and not kind.takes_quality:
        yield f"the quality has no effect on {kind.name}, which is written without loss"


def warn_about_exposure(restorer: Restorer, settings: Settings, *, in_memory: bool = False) -> Iterator[str]:
    """One line if the exposure has no effect: mosaics in memory have their own ratio."""
    domain = restorer.recipe.domain
    develops = domain.takes_mosaic and not domain.gives_mosaic
    if settings.exposure == "auto" or (develops and not in_memory):
        return
    given = "the reference" if isinstance(settings.exposure, Path) else "the exposure ratio"
    what = "restores developed pictures"
    if domain.takes_mosaic:
        what = "takes that of the mosaic" if develops else "returns mosaics"
    yield f"{given} has no effect: {restorer.name} {what}"


def warn_about_size(degraded: Degraded, restorer: Restorer, settings: Settings) -> Iterator[str]:
    """One line if a model runs several times to reach a size that another one reaches at once.

    Raises PictureError if the restorer cannot reach the size; see `plan_size`.
    """
    shape = upright_shape(restorer.recipe.domain.accept(degraded))
    runner, target = plan_size(restorer, shape, settings)
    if len(runner.models) == len(restorer.models):
        return
    repeated = runner.models[-1]
    factor = repeated.scale * max(target[0] / shape[0], target[1] / shape[1]) / restorer.scale
    times = 1 + len(runner.models) - len(restorer.models)
    better = _find_enlarger(repeated.recipe.name, factor)
    hint = f"; {better} enlarges enough at once" if better else ""
    yield f"{repeated.name} runs {times} times to reach {target[1]} x {target[0]} px{hint}"


def warn_about_change(degraded: Degraded, restored: Degraded, restorer: Restorer) -> Iterator[str]:
    """One line if a model hardly changed a picture; none for a result of another size, e.g. a crop."""
    if not (isinstance(degraded, Picture) and isinstance(restored, Picture)):
        return
    if restored.samples.shape != degraded.samples.shape:
        return
    if not _has_changed(degraded, restored):
        problems = dict.fromkeys(problem for model in restorer.models for problem in list_problems(model.recipe))
        corrects = f", which corrects {' and '.join(problems)}" if problems else ""
        yield f"hardly changed by {restorer.name}{corrects}: less than {MIN_CHANGE_255:g} where white is 255"


def _has_changed(degraded: Picture, restored: Picture) -> bool:
    """Whether the root of the mean squared difference of the samples reaches MIN_CHANGE_255.

    In strips, so that it takes little memory, and until the sum is large enough; of large pictures, every
    fourth row counts, because a pass over all samples would take as long as reading them.
    """
    step = 4 if degraded.samples.nbytes >= memory.LARGE_BYTES else 1
    scale = np.float32(PEAKS[degraded.dtype] / PEAKS[restored.dtype])
    num_samples = -(-degraded.height // step) * degraded.samples[0].size
    needed = num_samples * (MIN_CHANGE_255 / 255 * PEAKS[degraded.dtype]) ** 2
    found = 0.0
    for rows in memory.strips(degraded.samples, restored.samples):
        counted = slice(-(-rows.start // step) * step, rows.stop, step)
        after = restored.samples[counted] if scale == 1 else restored.samples[counted] * scale
        change = np.subtract(after, degraded.samples[counted], dtype=np.float32).ravel()
        found += float(np.dot(change, change))
        if found >= needed:
            return True
    return False


@cache
def _find_enlarger(recipe_name: str, factor: float) -> str | None:
    """The model that ships, of this recipe, with the smallest scale that is enough; None if none is."""
    scales = {
        metadata.parameters["scale"]: model.name
        for model, metadata in list_shipped()
        if metadata.recipe == recipe_name and "scale" in metadata.parameters
    }
    enough = [scale for scale in scales if scale >= factor]
    return scales[min(enough)] if enough else None


def list_shipped() -> Iterator[tuple[models.NamedModel, checkpoint.WeightsMetadata]]:
    """Users' own models do not count: a damaged file among them must not stop a picture."""
    for model in models.list_models():
        if model.is_shipped:
            yield model, checkpoint.read_metadata(model.path)


def _warn_of_gray(degraded: Degraded, model: TiledModel) -> Iterator[str]:
    """Networks for color noise expect other noise in each channel, so they hardly change three equal ones."""
    is_gray = isinstance(degraded, Picture) and degraded.channels == 1 and _learned_from_recipe(model)
    if is_gray and model.recipe.domain.colors == "rgb" and involves(model.recipe.degradation, GaussianNoise):
        twin = _find_gray_twin(model.recipe.name)
        better = f"{twin} restores it better" if twin else "weights for gray pictures restore it better"
        yield f"a gray picture, but {model.name} learned from noise in color: {better}"


def _warn_of_noise(degraded: Degraded, model: TiledModel) -> Iterator[str]:
    """Networks for one level of noise blur pictures with less, and leave noise in pictures with more."""
    levels = _noise_levels(model.recipe)
    if levels is None or not isinstance(degraded, Picture) or not _learned_from_recipe(model):
        return
    if min(degraded.height, degraded.width) < MIN_MEASURED_PX:
        return
    found = estimate_noise(degraded)
    if not _fits(found, levels):
        low, high = levels
        learned = f"a deviation of {high:g}" if low == high else f"{low:g} to {high:g}"
        better = _find_better(found, degraded.channels)
        advice = f"; {better} fits better" if better else ""
        yield f"white noise of about {found:.0f} (white is 255), but {model.name} learned from {learned}{advice}"


def _learned_from_recipe(model: TiledModel) -> bool:
    return model.metadata is None or model.metadata.learned_from_recipe


def _noise_levels(recipe: Recipe) -> tuple[float, float] | None:
    """The lowest and highest deviation of the noise that a recipe removes; None if it removes something else."""
    sigma_255: float | tuple[float, float] | None = getattr(recipe.degradation, "sigma_255", None)
    if sigma_255 is None or not involves(recipe.degradation, GaussianNoise):
        return None
    return sigma_255 if isinstance(sigma_255, tuple) else (sigma_255, sigma_255)


def _fits(found: float, levels: tuple[float, float]) -> bool:
    """Whether an estimate agrees with levels of noise. In BSD68, it is 0.6 to 1.3 times the true level."""
    low, high = levels
    return 0.6 * low <= found <= 1.4 * high


def _find_better(found: float, num_channels: int) -> str | None:
    """The model that ships for this noise and these channels, and for the fewest levels; None if there is none."""
    fitting = {
        name: high - low
        for name, channels, (low, high) in _list_denoisers()
        if channels == num_channels and _fits(found, (low, high))
    }
    return min(fitting, key=fitting.__getitem__, default=None)


@cache
def _list_denoisers() -> tuple[tuple[str, object, tuple[float, float]], ...]:
    """Name, channels and levels of each model for noise that ships."""
    listed = []
    for model, metadata in list_shipped():
        recipe = checkpoint.find_recipe(metadata, source=model.path)
        levels = _noise_levels(recipe)
        if levels is not None:
            listed.append((model.name, recipe.parameters.get("channels"), levels))
    return tuple(listed)


@cache
def _find_gray_twin(recipe_name: str) -> str | None:
    """The name of the model that ships for gray pictures, of this recipe."""
    twins = (
        model.name
        for model, metadata in list_shipped()
        if metadata.recipe == recipe_name and metadata.parameters.get("channels") == 1
    )
    return next(twins, None)
