"""Recipes: everything that makes one published result, as a value.

A recipe is a function in `pellucid.networks` with typed keywords whose defaults are the paper's; its name is
its place: `dncnn.gaussian` is `pellucid.networks.dncnn.gaussian`. Where to read and write, the seed and the
device belong to a run, not to a recipe.
"""

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from math import cos, pi
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor, nn

from pellucid.degrade import Degradation
from pellucid.domains import Domain
from pellucid.errors import RecipeError, suggest


class Network(nn.Module):
    """What every network states about itself. It takes any height and width from 1 up."""

    scale: int
    """Output pixels per input pixel, along one side."""
    multiple: int
    """The grid of its strided layers: what is read of a picture must start on multiples of this."""
    halo: int
    """How many input pixels away from its own place an output pixel sees."""

    if TYPE_CHECKING:

        def __call__(self, degraded: Tensor) -> Tensor: ...

    def folded(self) -> Self:
        """An equal network that is cheaper to run, where there is one."""
        return self


Loss = Callable[[Network, Tensor, Tensor], Tensor]
"""(network, degraded, target) -> a scalar. The loss calls the network."""


@dataclass(frozen=True)
class Adam:
    """Adam. `slower` names a layer (a prefix of its parameters) and the factor on its learning rate."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    slower: tuple[str, float] | None = None


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum. `slower` as with Adam."""

    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    slower: tuple[str, float] | None = None


@dataclass(frozen=True)
class Constant:
    """The learning rate stays."""

    def factor(self, step: int, num_steps: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Drops:
    """The learning rate is multiplied by `gamma` at each of these steps."""

    at_steps: tuple[int, ...]
    gamma: float

    def factor(self, step: int, num_steps: int) -> float:
        return self.gamma ** sum(step >= at for at in self.at_steps)


@dataclass(frozen=True)
class Exponential:
    """The learning rate falls evenly on a logarithmic scale, to `last` times what it was."""

    last: float

    def factor(self, step: int, num_steps: int) -> float:
        return cast(float, self.last ** (step / max(1, num_steps - 1)))


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine down to zero."""

    warmup_steps: int = 0

    def factor(self, step: int, num_steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return 0.5 + 0.5 * cos(pi * (step - self.warmup_steps) / max(1, num_steps - self.warmup_steps))


@dataclass(frozen=True)
class ScoringProtocol:
    """How pictures are degraded and scored, so that a number can be compared.

    degradation: applied to each clean picture; None where degraded pictures are given.
    crop_multiple: clean pictures are first cut, at the bottom and right, to multiples of this.
    border_px: not scored on each side.
    rounds: the restored picture is rounded to 8 bit before it is scored.
    seed: of the noise, the same for each picture, so that no score depends on other pictures or their order.
    """

    degradation: Degradation | None
    crop_multiple: int = 1
    border_px: int = 0
    rounds: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that is published about one result.

    network: builds it, untrained. initialize: draws its first weights, where the framework's are not meant.
    degradation: makes training pairs out of clean patches; None where the data set has pairs.
    patch_px: side of a training patch of the target. num_steps: of training, with batch_size each.
    augmentation: patches as they are, mirrored left to right half of the time, or in any of the eight ways to
        mirror and turn them.
    name, parameters: how to find this recipe again; set by `recipe`.
    """

    network: Callable[[], Network]
    domain: Domain
    degradation: Degradation | None
    loss: Loss
    optimizer: Adam | SGD
    schedule: Constant | Drops | Exponential | Cosine
    patch_px: int
    batch_size: int
    num_steps: int
    protocol: ScoringProtocol
    initialize: Callable[[Network], None] | None = None
    augmentation: Literal["none", "mirror", "eight"] = "eight"
    name: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


P = ParamSpec("P")


def recipe(function: Callable[P, Recipe]) -> Callable[P, Recipe]:
    """Make a function a recipe: its keywords are checked against their types, its name is put on the result."""
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Recipe:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        parameters = _validated(name, function, given)
        build = cast(Callable[..., Recipe], function)
        return replace(build(**parameters), name=name, parameters=parameters)

    return checked


def find(name: str, /, **parameters: Any) -> Recipe:
    """The recipe of this name, with some keywords changed.

    Values may be text, as from a command line. Resolves names inside `pellucid.networks` only. Raises
    RecipeError with the nearest names when there is no such recipe or keyword.
    """
    return _function(name)(**_known(name, parameters))


def names() -> list[str]:
    """All recipes, by name."""
    return [f"{module}.{name}" for module in _modules() for name in _recipes_in(module)]


def describe(name: str) -> tuple[str, dict[str, tuple[str, Any]]]:
    """First line of a recipe's docstring, and its keywords: name -> (possible values in words, default)."""
    function = _function(name)
    keywords = {
        key: (_in_words(TypeAdapter(parameter.annotation).json_schema()), parameter.default)
        for key, parameter in inspect.signature(function).parameters.items()
    }
    return (inspect.getdoc(function) or "").partition("\n")[0], keywords


def _in_words(schema: Mapping[str, Any]) -> str:
    """A JSON schema for people: "2, 3, 4", "number from 0 to 255"."""
    if "anyOf" in schema:
        return " or ".join(_in_words(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    low, high = schema.get("minimum"), schema.get("maximum")
    limits = (f" from {low}" if low is not None else "") + (f" to {high}" if high is not None else "")
    return {"boolean": "true, false", "null": "none"}.get(schema["type"], schema["type"]) + limits


def _modules() -> list[str]:
    package = importlib.import_module("pellucid.networks")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def _recipes_in(module: str) -> list[str]:
    loaded = importlib.import_module(f"pellucid.networks.{module}")
    return [name for name, value in vars(loaded).items() if _is_recipe(value, loaded.__name__)]


def _is_recipe(value: object, module: str) -> bool:
    return (
        inspect.isfunction(value)
        and not value.__name__.startswith("_")
        and value.__module__ == module
        and inspect.signature(value).return_annotation is Recipe
    )


def _function(name: str) -> Callable[..., Recipe]:
    # Names come out of files too: nothing but a recipe inside the package may answer to one.
    module, _, function = name.partition(".")
    if re.fullmatch(r"[a-z_0-9]+\.[a-z_0-9]+", name) and module in _modules() and function in _recipes_in(module):
        loaded = importlib.import_module(f"pellucid.networks.{module}")
        return cast(Callable[..., Recipe], getattr(loaded, function))
    raise RecipeError(f"no recipe {name[:80]!r}; {suggest(name, names())}")


def _known(name: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    known = inspect.signature(_function(name)).parameters
    for key in parameters:
        if key not in known:
            raise RecipeError(f"{name} has no keyword {key[:80]!r}; {suggest(key, known)}")
    return parameters


def _validated(name: str, function: Callable[..., Recipe], given: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {}
    for key, parameter in inspect.signature(function).parameters.items():
        value = _parsed(given.get(key, parameter.default))
        config = ConfigDict(allow_inf_nan=False)
        try:
            parameters[key] = TypeAdapter(parameter.annotation, config=config).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Input ")
            raise RecipeError(f"{name}: {key}={_shown(value)} is not possible: it {reason}") from error
    return parameters


def _parsed(value: Any) -> Any:
    """Text as the number or truth value it spells, as from a command line."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value.lower().replace("none", "null"))
    except (ValueError, RecursionError):
        return value


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
