"""Recipes: everything that a published result depends on, as a value.

A recipe is a function in `pellucid.networks`, decorated with `recipe`, with typed keywords and the paper's values
as defaults; calling it returns a `Recipe`. Its name is its location: `dncnn.gaussian` is
`pellucid.networks.dncnn.gaussian`. Paths, seed and device belong to a run, not to a recipe.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from hashlib import sha256
from typing import Annotated, Any, Literal, ParamSpec, cast

import torch
from pydantic import Field

from pellucid.degradations.degradation import Degradation
from pellucid.domains import Domain
from pellucid.errors import RecipeError
from pellucid.recipes.network import Loss, Network
from pellucid.recipes.optimizers import Optimizer
from pellucid.recipes.schedules import Schedule
from pellucid.system.arguments import check_fields
from pellucid.system.keywords import Count, Positive, Share, validate

Steps = Annotated[
    Count, Field(description="length of the training; steps at which the learning rate drops are rescaled")
]
BatchSize = Annotated[Count, Field(description="patches per step, over all processes")]
PatchSize = Annotated[Count, Field(description="side of a training patch of the target, in pixels")]
Augmentation = Annotated[
    Literal["none", "mirror", "eight"],
    Field(description="random transforms of patches: none, mirroring, or all eight rotations and reflections"),
]
ClipNorm = Annotated[Positive, Field(description="gradient clipping: maximum norm of the whole gradient")]
ClipTensorNorm = Annotated[
    Positive, Field(description="gradient clipping: maximum norm of each tensor's gradient")
]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    Field(description="precision of the layers; auto: float32, or bfloat16 if tuning finds it faster"),
]
EmaDecay = Annotated[
    Share,
    Field(description="decay of the moving average of the weights, which is scored and saved; 0: no average"),
]
LearnFrom = Annotated[
    Literal["auto", "pairs", "targets"],
    Field(
        description="pairs: the degraded pictures of the data; targets: only the targets, which the recipe "
        "degrades; auto: pairs if the data has them"
    ),
]
ValidateEvery = Annotated[
    Count, Field(description="steps between validations; default: a fiftieth of the training")
]


@dataclass(frozen=True)
class ScoringProtocol:
    """How pictures are degraded and scored, so that scores can be compared with published ones.

    degradation: applied to each clean picture; None if degraded pictures are given.
    crop_multiple: clean pictures are first cropped, at the bottom and right, to multiples of this.
    border_px: width of the border that is excluded from scores, on each side.
    rounds: whether the restored picture is rounded to 8 bits before scoring.
    seed: of the degradation, the same for each picture, so that a score does not depend on the other pictures.
    seed_by_name: whether each picture has its own seed, from `seed` and its name; for degradations that draw one
        value per picture, e.g. a camera trajectory or a noise level.
    """

    degradation: Degradation | None
    crop_multiple: int = 1
    border_px: int = 0
    rounds: bool = False
    seed: int = 0
    seed_by_name: bool = False

    def generator(self, name: str) -> torch.Generator:
        """The random generator that degrades the picture of this name."""
        seed = self.seed
        if self.seed_by_name:
            seed = int.from_bytes(sha256(f"{self.seed} {name}".encode()).digest()[:7])
        return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a published result depends on. A field with a description is also a training keyword.

    network: builds the network, untrained. initialize: sets its initial weights; None keeps PyTorch's.
    domain: how pictures become network inputs. degradation: makes training pairs from clean patches; None if the
        data must contain pairs. loss: calls the network, see `Loss`.
    optimizer, schedule: how weights are updated. protocol: how the published scores were measured.
    patch_px: side of a training patch of the target. batch_size: patches per step. num_steps: of the training.
    min_patch_px: the smallest side of which the loss uses a part; it is 0 for smaller ones, which teach nothing.
        patch_multiple: what sides of patches must be multiples of, so that the loss can use them.
    The other training keywords are described by their types; None means not used, or the default.
    name, parameters: `pellucid.find(name, **parameters)` is this recipe; set by the decorator `recipe`.
    network_sha256: SHA-256 of the network file, if the recipe is not from the package, see `add_network`; set by
        `find`.
    """

    network: Callable[[], Network]
    domain: Domain
    degradation: Degradation | None
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    patch_px: PatchSize
    batch_size: BatchSize
    num_steps: Steps
    protocol: ScoringProtocol
    initialize: Callable[[Network], None] | None = None
    augmentation: Augmentation = "eight"
    clip_norm: ClipNorm | None = None
    clip_tensor_norm: ClipTensorNorm | None = None
    precision: Precision = "auto"
    ema_decay: EmaDecay = 0.0
    validate_every: ValidateEvery | None = None
    learn_from: LearnFrom = "auto"
    min_patch_px: int = 1
    patch_multiple: int = 1
    name: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    network_sha256: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)


P = ParamSpec("P")


def recipe(function: Callable[P, Recipe]) -> Callable[P, Recipe]:
    """Mark a function as a recipe: its keywords are validated by their types, and its result has its name.

    Annotate each keyword with limits and a description: `Annotated[int, Field(ge=1, description="...")]`. Calls
    raise RecipeError for a value that is not possible.
    """
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"

    @wraps(function)
    def build(*args: P.args, **kwargs: P.kwargs) -> Recipe:
        signature = recipe_signature(function)
        given = signature.bind(*args, **kwargs).arguments
        parameters = {
            key: validate(name, key, parameter.annotation, given.get(key, parameter.default), error=RecipeError)
            for key, parameter in signature.parameters.items()
        }
        return replace(cast(Callable[..., Recipe], function)(**parameters), name=name, parameters=parameters)

    vars(build)["is_recipe"] = True
    return build


def recipe_signature(function: Callable[..., Recipe]) -> inspect.Signature:
    """The signature with types as objects, even if the module has `from __future__ import annotations`."""
    return inspect.signature(function, eval_str=True)


def is_recipe(value: object, module: str) -> bool:
    """Whether a value is a recipe that was defined in this module."""
    return getattr(value, "is_recipe", False) is True and getattr(value, "__module__", None) == module
