"""Learned image restoration: enlarge, denoise, deblock, deblur, brighten.

import pellucid
restorer = pellucid.load("srcnn-x2")
picture = restorer.restore(pellucid.read("photo.png"))
pellucid.write(picture, "larger.png")
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.backends.benchmark import bench as bench
    from pellucid.data.preparing import prepare as prepare
    from pellucid.errors import DataError as DataError
    from pellucid.errors import MissingExtraError as MissingExtraError
    from pellucid.errors import OutputError as OutputError
    from pellucid.errors import PellucidError as PellucidError
    from pellucid.errors import PictureError as PictureError
    from pellucid.errors import RecipeError as RecipeError
    from pellucid.errors import WeightsError as WeightsError
    from pellucid.evaluation import evaluate as evaluate
    from pellucid.exporting.export import export as export
    from pellucid.pictures.images import read as read
    from pellucid.pictures.images import write as write
    from pellucid.pictures.picture import Mosaic as Mosaic
    from pellucid.pictures.picture import Picture as Picture
    from pellucid.recipes.recipe import Recipe as Recipe
    from pellucid.restoration.planning import plan as plan
    from pellucid.restoration.restore import restore as restore
    from pellucid.restoration.restorer import Restorer as Restorer
    from pellucid.restoration.restorer import load as load
    from pellucid.training.train import train as train
    from pellucid.weights.converting import convert as convert

# Where each public name lives. Loaded when first asked for, so that `import pellucid` does not wait for torch.
_HOMES = {
    "DataError": "errors",
    "MissingExtraError": "errors",
    "Mosaic": "pictures.picture",
    "OutputError": "errors",
    "PellucidError": "errors",
    "Picture": "pictures.picture",
    "PictureError": "errors",
    "Recipe": "recipes.recipe",
    "RecipeError": "errors",
    "Restorer": "restoration.restorer",
    "WeightsError": "errors",
    "bench": "backends.benchmark",
    "convert": "weights.converting",
    "evaluate": "evaluation",
    "export": "exporting.export",
    "load": "restoration.restorer",
    "plan": "restoration.planning",
    "prepare": "data.preparing",
    "read": "pictures.images",
    "restore": "restoration.restore",
    "train": "training.train",
    "write": "pictures.images",
}

__version__ = version("pellucid")
__all__ = [*sorted(_HOMES), "__version__"]  # the names above, once


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pellucid' has no attribute {name!r}")
    return getattr(import_module(f"pellucid.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
