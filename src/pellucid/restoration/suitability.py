"""Whether a model suits a picture: how it differs from those in training, and whether another model is better."""

from collections.abc import Iterator
from functools import cache

from pellucid.degradations.degradation import involves, warnings_for
from pellucid.degradations.standard import GaussianNoise
from pellucid.domains import Degraded
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.restoration.one_picture import plan_size, upright_shape
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.settings import Settings
from pellucid.restoration.tiled_model import TiledModel
from pellucid.weights import checkpoint, models


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
        *first.domain.warnings_for(degraded),
        *warnings_for(first.protocol.degradation, degraded),
    )


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


@cache
def _find_enlarger(recipe_name: str, factor: float) -> str | None:
    """The model that ships, of this recipe, with the smallest scale that is enough; None if none is."""
    scales = {
        metadata.parameters["scale"]: model.name
        for model, metadata in _list_shipped()
        if metadata.recipe == recipe_name and "scale" in metadata.parameters
    }
    enough = [scale for scale in scales if scale >= factor]
    return scales[min(enough)] if enough else None


def _list_shipped() -> Iterator[tuple[models.NamedModel, checkpoint.WeightsMetadata]]:
    """Users' own models do not count: a damaged file among them must not stop a picture."""
    for model in models.list_models():
        if model.is_shipped:
            yield model, checkpoint.read_metadata(model.path)


def _warn_of_gray(degraded: Degraded, model: TiledModel) -> Iterator[str]:
    """Networks for color noise expect other noise in each channel, so they hardly change three equal ones."""
    is_gray = isinstance(degraded, Picture) and degraded.channels == 1
    if is_gray and model.recipe.domain.colors == "rgb" and involves(model.recipe.degradation, GaussianNoise):
        twin = _find_gray_twin(model.recipe.name)
        better = f"{twin} restores it better" if twin else "weights for gray pictures restore it better"
        yield f"a gray picture, but {model.name} learned from noise in color: {better}"


@cache
def _find_gray_twin(recipe_name: str) -> str | None:
    """The name of the model that ships for gray pictures, of this recipe."""
    twins = (
        model.name
        for model, metadata in _list_shipped()
        if metadata.recipe == recipe_name and metadata.parameters.get("channels") == 1
    )
    return next(twins, None)
