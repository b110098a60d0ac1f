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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, Self, TypeVar, cast

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from pellucid.degradations.degradation import Degradation
from pellucid.domains import Domain
from pellucid.errors import RecipeError, suggest
from pellucid.optimization import (
    SGD,
    SOAP,
    Adam,
    Constant,
    Cosine,
    Drops,
    Exponential,
    Optimizer,
    Schedule,
    Warmup,
)


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


Augmentation = Literal["none", "mirror", "eight"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Count = Annotated[int, Field(ge=1, le=10**9)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

Loss = Callable[[Network, Tensor, Tensor], Tensor]
"""(network, degraded, target) -> a scalar. The loss calls the network."""


@dataclass(frozen=True)
class ScoringProtocol:
    """How pictures are degraded and scored, so that a number can be compared.

    degradation: applied to each clean picture; None where degraded pictures are given.
    crop_multiple: clean pictures are first cut, at the bottom and right, to multiples of this.
    border_px: not scored on each side.
    rounds: the restored picture is rounded to 8 bit before it is scored.
    seed: of the noise, the same for each picture, so that no score depends on other pictures or their order.
    seed_by_name: each picture has a seed of its own, made of `seed` and its name; for what is drawn once a
        picture, as the way of a camera or its noise level, of which many are to be scored.
    """

    degradation: Degradation | None
    crop_multiple: int = 1
    border_px: int = 0
    rounds: bool = False
    seed: int = 0
    seed_by_name: bool = False

    def generator(self, name: str) -> torch.Generator:
        """The chance by which the picture of this name is degraded."""
        seed = self.seed
        if self.seed_by_name:
            seed = int.from_bytes(sha256(f"{self.seed} {name}".encode()).digest()[:7])
        return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that is published about one result.

    network: builds it, untrained. initialize: draws its first weights, where the framework's are not meant.
    degradation: makes training pairs out of clean patches; None where the data set has pairs.
    patch_px: side of a training patch of the target. num_steps: of training, with batch_size each.
    augmentation: patches as they are, mirrored left to right half of the time, or in any of the eight ways to
        mirror and turn them.
    clip_norm, clip_tensor_norm: largest L2 norm of the gradient, of all and of each tensor.
    precision: of the layers in training; "auto" is float32 or bfloat16, whichever `pellucid train` finds faster.
    ema_decay: of the moving average of the weights that is validated and kept; 0 keeps the weights as they are.
    validate_every: steps; a fiftieth of the training where None.
    name, parameters: how to find this recipe again; set by `recipe`.
    """

    network: Callable[[], Network]
    domain: Domain
    degradation: Degradation | None
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    patch_px: int
    batch_size: int
    num_steps: int
    protocol: ScoringProtocol
    initialize: Callable[[Network], None] | None = None
    augmentation: Augmentation = "eight"
    clip_norm: float | None = None
    clip_tensor_norm: float | None = None
    precision: Precision = "auto"
    ema_decay: float = 0.0
    validate_every: int | None = None
    name: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def with_training(self, **keywords: Any) -> "Recipe":
        """The same recipe, trained otherwise: `lr`, `batch_size`, ... as `training_keywords` lists them.

        They go into `parameters`, so that `find` knows them again. Raises RecipeError for an unknown keyword,
        a value out of range, or one that does not go with the optimizer or the schedule.
        """
        known = training_keywords(self)
        for key in keywords:
            if key not in known:
                raise RecipeError(f"{self.name} has no keyword {key[:80]!r}; {suggest(key, known)}")
        checked = _validated(self.name, partial(_trained_otherwise, self), keywords)
        given = {key: value for key, value in checked.items() if key in keywords and value is not None}
        changed = _trained_otherwise(self, **checked)
        return replace(changed, name=self.name, parameters={**self.parameters, **given})


P = ParamSpec("P")
T = TypeVar("T")


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

    parameters: keywords of the recipe and of `Recipe.with_training`; values may be text, as from a command
    line. Resolves names inside `pellucid.networks` only. Raises RecipeError with the nearest names when there
    is no such recipe or keyword.
    """
    function = _function(name)
    own = inspect.signature(function).parameters
    general = inspect.signature(_trained_otherwise).parameters
    for key in parameters:
        if key not in own and (key not in general or key == "recipe"):
            raise RecipeError(f"{name} has no keyword {key[:80]!r}; {suggest(key, [*own, *list(general)[1:]])}")
    found = function(**{key: value for key, value in parameters.items() if key in own})
    otherwise = {key: value for key, value in parameters.items() if key not in own}
    return found.with_training(**otherwise) if otherwise else found


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


def meanings(name: str) -> dict[str, str]:
    """What the keywords of a recipe, its own and those of training, mean: a line for each that has one."""
    own = {
        key: _description(TypeAdapter(parameter.annotation).json_schema())
        for key, parameter in inspect.signature(_function(name)).parameters.items()
    }
    return {**TRAINING_MEANINGS, **{key: meaning for key, meaning in own.items() if meaning}}


def _description(schema: Mapping[str, Any]) -> str:
    """What `Field(description=...)` says of a type, or of one of several it may be."""
    choices = [schema, *schema.get("anyOf", ())]
    return next((choice["description"] for choice in choices if "description" in choice), "")


TRAINING_MEANINGS: Mapping[str, str] = {
    "num_steps": "length of the training; drops of the learning rate move along",
    "batch_size": "patches a step, over all processes",
    "patch_px": "side of a training patch of the target",
    "augmentation": "patches as they are, mirrored half of the time, or mirrored and turned",
    "optimizer": "how weights are stepped",
    "lr": "learning rate, before the schedule",
    "betas": "of adam and soap: how long it remembers the gradient, and its square",
    "basis_steps": "of soap: how often it looks for the axes along which gradients vary",
    "eps": "of adam and soap: added to what it divides by",
    "momentum": "of sgd: how long it remembers the gradient",
    "weight_decay": "pulls weights toward zero; with adam and soap apart from the gradient, as in AdamW",
    "schedule": "how the learning rate falls",
    "at_steps": "of drops: when",
    "gamma": "of drops: times what; one number, or one for each of at_steps",
    "last": "of exponential: times what at the end",
    "warmup_steps": "the learning rate rises over so many steps first",
    "clip_norm": "largest norm of the whole gradient",
    "clip_tensor_norm": "largest norm of each tensor's gradient",
    "precision": "of the layers; auto: float32, or bfloat16 where tuning finds it faster",
    "ema_decay": "of an average of the weights, which is what is scored and kept; 0: none",
    "validate_every": "steps between validations; a fiftieth of the training where not given",
}


def training_keywords(recipe: Recipe) -> dict[str, tuple[str, Any]]:
    """What every recipe takes beside its own keywords: name -> (possible values in words, the recipe's value)."""
    current = {
        **_fields(recipe.schedule),
        **_fields(recipe.optimizer),
        **_fields(recipe),
        "optimizer": type(recipe.optimizer).__name__.lower(),
        "schedule": type(_without_warmup(recipe.schedule)).__name__.lower(),
    }
    parameters = inspect.signature(partial(_trained_otherwise, recipe)).parameters
    return {
        key: (
            _in_words(TypeAdapter(parameter.annotation).json_schema()).removesuffix(" or none"),
            current.get(key),
        )
        for key, parameter in parameters.items()
    }


OPTIMIZERS: Mapping[str, type[Optimizer]] = {"adam": Adam, "sgd": SGD, "soap": SOAP}
SCHEDULES: Mapping[str, type[Constant | Drops | Exponential | Cosine]] = {
    "constant": Constant,
    "drops": Drops,
    "exponential": Exponential,
    "cosine": Cosine,
}


def _trained_otherwise(
    recipe: Recipe,
    *,
    num_steps: Count | None = None,
    batch_size: Count | None = None,
    patch_px: Count | None = None,
    augmentation: Augmentation | None = None,
    optimizer: Literal["adam", "sgd", "soap"] | None = None,
    lr: Positive | None = None,
    betas: tuple[Share, Share] | None = None,
    eps: Positive | None = None,
    momentum: Share | None = None,
    weight_decay: Annotated[float, Field(ge=0)] | None = None,
    basis_steps: Count | None = None,
    schedule: Literal["constant", "drops", "exponential", "cosine"] | None = None,
    at_steps: tuple[Count, ...] | None = None,
    gamma: Positive | tuple[Positive, ...] | None = None,
    last: Positive | None = None,
    warmup_steps: Annotated[int, Field(ge=0)] | None = None,
    clip_norm: Positive | None = None,
    clip_tensor_norm: Positive | None = None,
    precision: Precision | None = None,
    ema_decay: Share | None = None,
    validate_every: Count | None = None,
) -> Recipe:
    if num_steps is not None:  # the shape of the schedule stays
        recipe = replace(recipe, num_steps=num_steps, schedule=_stretched(recipe, num_steps))
    fields = {
        "batch_size": batch_size,
        "patch_px": patch_px,
        "augmentation": augmentation,
        "clip_norm": clip_norm,
        "clip_tensor_norm": clip_tensor_norm,
        "precision": precision,
        "ema_decay": ema_decay,
        "validate_every": validate_every,
    }
    steps = {
        "lr": lr,
        "betas": betas,
        "eps": eps,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "basis_steps": basis_steps,
    }
    falls = {"at_steps": at_steps, "gamma": gamma, "last": last}
    optimizer_kind = OPTIMIZERS[optimizer] if optimizer else type(recipe.optimizer)
    return replace(
        recipe,
        **_given(fields),
        optimizer=_changed(recipe, recipe.optimizer, optimizer_kind, _given(steps)),
        schedule=_rescheduled(recipe, schedule, warmup_steps, _given(falls)),
    )


def _stretched(recipe: Recipe, num_steps: int) -> Schedule:
    """The recipe's schedule over another number of steps; what counts in shares of the whole needs no change."""
    schedule, plain = recipe.schedule, _without_warmup(recipe.schedule)
    if not isinstance(plain, Drops):
        return schedule
    at_steps = tuple(max(1, round(at * num_steps / recipe.num_steps)) for at in plain.at_steps)
    drops = replace(plain, at_steps=at_steps)
    return replace(schedule, then=drops) if isinstance(schedule, Warmup) else drops


def _rescheduled(recipe: Recipe, name: str | None, warmup_steps: int | None, falls: Mapping[str, Any]) -> Schedule:
    before = _without_warmup(recipe.schedule)
    if warmup_steps is None:
        warmup_steps = _fields(recipe.schedule).get("warmup_steps", 0)
    kind = SCHEDULES[name] if name else type(before)
    if kind is Cosine:
        return _changed(recipe, before, Cosine, {**falls, "warmup_steps": warmup_steps})
    plain = _changed(recipe, before, kind, falls)
    if isinstance(plain, Drops) and isinstance(plain.gamma, tuple) and len(plain.gamma) != len(plain.at_steps):
        raise RecipeError(
            f"{recipe.name}: {len(plain.gamma)} values of gamma for {len(plain.at_steps)} at_steps; "
            f"give one for all, or one each"
        )
    return Warmup(warmup_steps, plain) if warmup_steps else plain


def _changed(recipe: Recipe, before: object, kind: type[T], given: Mapping[str, Any]) -> T:
    """One of `kind` with the given fields, others from the value before, where it has them."""
    known = inspect.signature(kind).parameters
    for key in given:
        if key not in known:
            raise RecipeError(
                f"{recipe.name}: {key} does not go with {kind.__name__.lower()}, which has {_listed(known)}"
            )
    kept = {key: value for key, value in _fields(before).items() if key in known}
    if not isinstance(before, kind):  # how long to remember is a matter of each optimizer
        kept.pop("betas", None)
    values = {**kept, **given}
    for key, parameter in known.items():
        if key not in values and parameter.default is parameter.empty:
            raise RecipeError(f"{recipe.name}: {kind.__name__.lower()} needs {key}=")
    return kind(**values)


def _without_warmup(schedule: Schedule) -> Constant | Drops | Exponential | Cosine:
    return schedule.then if isinstance(schedule, Warmup) else schedule


def _fields(value: object) -> dict[str, Any]:
    inner = _fields(value.then) if isinstance(value, Warmup) else {}
    return {**inner, **vars(value)}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name for name in names if name != "slower") or "none"


def _in_words(schema: Mapping[str, Any]) -> str:
    """A JSON schema for people: "2, 3, 4", "number from 0 to 255"."""
    if "anyOf" in schema:
        return " or ".join(_in_words(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema["type"] == "array":
        return "numbers, as 1,2"
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    limits = [("from", low), ("above", above), ("to", high), ("below", below)]
    kind = {"boolean": "true, false", "null": "none"}.get(schema["type"], schema["type"])
    return " ".join([kind, *(f"{word} {limit}" for word, limit in limits if limit is not None)])


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


def _validated(name: str, function: Callable[..., Recipe], given: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {}
    for key, parameter in inspect.signature(function).parameters.items():
        value = _parsed(given.get(key, parameter.default))
        config = ConfigDict(allow_inf_nan=False)
        try:
            parameters[key] = TypeAdapter(parameter.annotation, config=config).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            reason = _OF_TUPLES.get(first["type"], first["msg"].removeprefix("Input "))
            raise RecipeError(f"{name}: {key}={_shown(value)} is not possible: it {reason}") from error
    return parameters


_OF_TUPLES = {
    "tuple_type": "should be numbers, as 50,300",
    "missing": "should have more numbers, as 50,300",
    "too_long": "should have fewer numbers, as 50,300",
}


def _parsed(value: Any) -> Any:
    """Text as the number or truth value it spells, as from a command line."""
    if not isinstance(value, str):
        return value
    text = value.lower().replace("none", "null")
    try:
        return json.loads(f"[{text}]" if "," in text and "[" not in text else text)
    except (ValueError, RecursionError):
        return value


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
