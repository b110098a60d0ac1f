"""How a picture differs from those that a model was trained for."""

from collections.abc import Iterator
from functools import cache

from pellucid.degradations.degradation import involves, warnings_for
from pellucid.degradations.standard import GaussianNoise
from pellucid.domains import Degraded
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.restoration.restorer import Restorer
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


def _warn_of_gray(degraded: Degraded, model: TiledModel) -> Iterator[str]:
    """Networks for color noise expect other noise in each channel, so they hardly change three equal ones."""
    is_gray = isinstance(degraded, Picture) and degraded.channels == 1
    if is_gray and model.recipe.domain.colors == "rgb" and involves(model.recipe.degradation, GaussianNoise):
        twin = _find_gray_twin(model.recipe.name)
        better = f"{twin} restores it better" if twin else "weights for gray pictures restore it better"
        yield f"a gray picture, but {model.name} learned from noise in color: {better}"


@cache
def _find_gray_twin(recipe_name: str) -> str | None:
    """The name of the model that ships for gray pictures, of this recipe.

    The user's own models do not count: a damaged file among them must not stop a picture.
    """
    for model in models.list_models():
        metadata = checkpoint.read_metadata(model.path) if model.is_shipped else None
        if metadata and metadata.recipe == recipe_name and metadata.parameters.get("channels") == 1:
            return model.name
    return None
