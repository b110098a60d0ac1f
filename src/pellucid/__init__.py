"""Learned image restoration: enlarge, denoise, deblock, deblur, brighten.

import pellucid
restorer = pellucid.load("srcnn-x2")
picture = restorer.restore(pellucid.read("photo.png"))
pellucid.write(picture, "larger.png")
"""

TYPE_CHECKING = (
    False  # not imported from typing: the command line starts with this module, before it handles Ctrl-C
)
if TYPE_CHECKING:  # for type checkers and editors; a test compares it with the table below
    from typing import Any

    from pellucid.backends.benchmark import Timing as Timing
    from pellucid.backends.benchmark import bench as bench
    from pellucid.data.preparing import Prepared as Prepared
    from pellucid.data.preparing import PreparedShard as PreparedShard
    from pellucid.data.preparing import prepare as prepare
    from pellucid.data.preparing import prepare_shard as prepare_shard
    from pellucid.degradations.calibrate import Calibration as Calibration
    from pellucid.degradations.calibrate import calibrate as calibrate
    from pellucid.degradations.camera_files import CameraProfile as CameraProfile
    from pellucid.degradations.camera_files import IsoNoise as IsoNoise
    from pellucid.errors import ArgumentError as ArgumentError
    from pellucid.errors import DataError as DataError
    from pellucid.errors import MissingExtraError as MissingExtraError
    from pellucid.errors import NotEnoughMemoryError as NotEnoughMemoryError
    from pellucid.errors import OutputError as OutputError
    from pellucid.errors import PellucidError as PellucidError
    from pellucid.errors import PictureError as PictureError
    from pellucid.errors import RecipeError as RecipeError
    from pellucid.errors import StorageError as StorageError
    from pellucid.errors import WeightsError as WeightsError
    from pellucid.evaluation.evaluate import evaluate as evaluate
    from pellucid.evaluation.evaluate import score as score
    from pellucid.evaluation.report import Report as Report
    from pellucid.evaluation.report import Score as Score
    from pellucid.exporting.export import Exported as Exported
    from pellucid.exporting.export import export as export
    from pellucid.pictures.images import read as read
    from pellucid.pictures.images import write as write
    from pellucid.pictures.picture import CameraFacts as CameraFacts
    from pellucid.pictures.picture import Exposure as Exposure
    from pellucid.pictures.picture import Mosaic as Mosaic
    from pellucid.pictures.picture import NoiseLevel as NoiseLevel
    from pellucid.pictures.picture import Picture as Picture
    from pellucid.recipes.network_files import NetworkFile as NetworkFile
    from pellucid.recipes.network_files import add_network as add_network
    from pellucid.recipes.recipe import Recipe as Recipe
    from pellucid.recipes.registry import find as find
    from pellucid.restoration.one_picture import restore_crop as restore_crop
    from pellucid.restoration.planning import Job as Job
    from pellucid.restoration.planning import Plan as Plan
    from pellucid.restoration.planning import plan as plan
    from pellucid.restoration.position import Position as Position
    from pellucid.restoration.restore import iter_restore as iter_restore
    from pellucid.restoration.restore import restore as restore
    from pellucid.restoration.restorer import Restorer as Restorer
    from pellucid.restoration.restorer import load as load
    from pellucid.restoration.sessions import Outcome as Outcome
    from pellucid.restoration.settings import Settings as Settings
    from pellucid.storage.urls import Url as Url
    from pellucid.system.shards import Shard as Shard
    from pellucid.training.recorder import Validation as Validation
    from pellucid.training.stopping import Stopped as Stopped
    from pellucid.training.train import Status as Status
    from pellucid.training.train import train as train
    from pellucid.weights.checkpoint import WeightsMetadata as WeightsMetadata
    from pellucid.weights.converting import convert as convert
    from pellucid.weights.models import NamedModel as NamedModel
    from pellucid.weights.models import list_models as list_models

_TABLE = {
    "backends.benchmark": "Timing bench",
    "data.preparing": "Prepared PreparedShard prepare prepare_shard",
    "degradations.calibrate": "Calibration calibrate",
    "degradations.camera_files": "CameraProfile IsoNoise",
    "errors": "ArgumentError DataError MissingExtraError NotEnoughMemoryError OutputError PellucidError "
    "PictureError RecipeError StorageError WeightsError",
    "evaluation.evaluate": "evaluate score",
    "evaluation.report": "Report Score",
    "exporting.export": "Exported export",
    "pictures.images": "read write",
    "pictures.picture": "CameraFacts Exposure Mosaic NoiseLevel Picture",
    "recipes.network_files": "NetworkFile add_network",
    "recipes.recipe": "Recipe",
    "recipes.registry": "find",
    "restoration.one_picture": "restore_crop",
    "restoration.planning": "Job Plan plan",
    "restoration.position": "Position",
    "restoration.restore": "iter_restore restore",
    "restoration.restorer": "Restorer load",
    "restoration.sessions": "Outcome",
    "restoration.settings": "Settings",
    "storage.urls": "Url",
    "system.shards": "Shard",
    "training.recorder": "Validation",
    "training.stopping": "Stopped",
    "training.train": "Status train",
    "weights.checkpoint": "WeightsMetadata",
    "weights.converting": "convert",
    "weights.models": "NamedModel list_models",
}
"""Module -> its public names. They are loaded on first use, so that `import pellucid` does not wait for torch."""

_MODULES = {name: module for module, names in _TABLE.items() for name in names.split()}

__all__ = [*sorted(_MODULES), "__version__"]


def __getattr__(name: str) -> "Any":
    if name == "__version__":
        from importlib.metadata import version

        return version("pellucid")
    if name not in _MODULES:
        raise AttributeError(f"module 'pellucid' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pellucid.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
