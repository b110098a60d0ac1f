"""What an exported file says about itself: how to run it, and the card of its weights.

Every format keeps a table of texts beside its graph; the facts stand there, one a key, so that programs in any
language read them. Numbers and lists are JSON. Nothing in them is run: a recipe's name resolves inside the
package only, and what the file says of its network must be what the recipe says.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pellucid import __version__
from pellucid.backends.backend import Shape
from pellucid.errors import RecipeError, WeightsError
from pellucid.recipes.network import Network
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import find
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import WeightsMetadata

PREFIX = "pellucid"
"""Of the keys, where a format has one table for everybody."""

PRECISIONS = ("float32", "bfloat16", "float16", "int8")

_RANGE = "black is 0, white is 1"
_INPUTS = {
    "gray": "gray",
    "y": "BT.601 luma (16..235 of 255), a gray picture as it is; enlarged bicubically where the recipe enlarges",
    "rgb": "RGB",
}


@dataclass(frozen=True)
class GraphMetadata:
    """How to run a graph, and whose weights it holds.

    scale, multiple, halo: as `Network` states them. num_planes: C of its input, (N, C, H, W).
    precision: in which it computes. weights_sha256: of the float32 weights it was made of.
    shape: the only (N, C, H, W) that it takes; any where None.
    """

    card: WeightsMetadata
    scale: int
    multiple: int
    halo: int
    num_planes: int
    weights_sha256: str
    precision: str = "float32"
    shape: Shape | None = None

    @classmethod
    def of(
        cls, network: Network, recipe: Recipe, card: WeightsMetadata, *, weights_sha256: str
    ) -> "GraphMetadata":
        """Of weights as they were trained."""
        card = replace(card, recipe=recipe.name, parameters=recipe.parameters)
        num_planes = recipe.domain.num_planes
        return cls(card, network.scale, network.multiple, network.halo, num_planes, weights_sha256)

    def to_metadata(self) -> dict[str, str]:
        """Key -> text, as every format can hold it."""
        recipe = find(self.card.recipe, **self.card.parameters)
        texts = {
            "format": checkpoint.FORMAT,
            "recipe": self.card.recipe,
            "parameters": dict(self.card.parameters),
            "provenance": self.card.provenance,
            "license": self.card.license,
            "scores": [dict(score) for score in self.card.scores],
            "scale": self.scale,
            "multiple": self.multiple,
            "halo": self.halo,
            "num_planes": self.num_planes,
            "weights_sha256": self.weights_sha256,
            "precision": self.precision,
            "shape": self.shape,
            "input": f"{_input_in_words(recipe)}; {_RANGE}",
            "output": f"{'RGB' if recipe.domain.takes_mosaic else 'the same'}, {self.scale}x the size; {_RANGE}",
            "made_by": f"pellucid {__version__}",
        }
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in texts.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, source: str | Path) -> "GraphMetadata":
        """The facts that stand in a file. Raises WeightsError when there are none, or none of ours."""
        if "recipe" not in metadata:
            raise WeightsError(f"{source} says nothing about itself; `pellucid export` writes files that do")
        try:
            header = {**metadata, **{key: json.loads(metadata[key]) for key in _OF_JSON}}
            precision = metadata["precision"]
            if precision not in PRECISIONS:
                raise ValueError(f"precision {precision[:20]}")
            scale, multiple, halo, num_planes = map(_count, map(header.__getitem__, _COUNTS))
            shape = None if header["shape"] is None else _shape(header["shape"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise WeightsError(f"{source}: its facts are not pellucid's ({repr(error)[:80]})") from error
        card = checkpoint.parse_metadata(header, source=source)
        weights = metadata.get("weights_sha256", "")
        return cls(card, scale, multiple, halo, num_planes, weights, precision, shape)

    def recipe(self, *, source: str | Path, **parameters: Any) -> tuple[Recipe, Network]:
        """The recipe, and its network without weights, which tells how much memory it takes.

        parameters: recipe keywords to change. Raises WeightsError where the recipe's network is another.
        """
        try:
            recipe = find(self.card.recipe, **{**self.card.parameters, **parameters})
        except RecipeError as error:
            raise WeightsError(f"{source}: {error}") from error
        with torch.device("meta"):
            network = recipe.network().eval().folded()
        found = (self.scale, self.multiple, self.halo, self.num_planes)
        wanted = (network.scale, network.multiple, network.halo, recipe.domain.num_planes)
        if found != wanted:
            raise WeightsError(
                f"{source} has scale, multiple, halo and planes {found}, but {recipe.name} has {wanted}; "
                f"export it anew"
            )
        return recipe, network


_COUNTS = ("scale", "multiple", "halo", "num_planes")
_OF_JSON = ("format", "parameters", "scores", "shape", *_COUNTS)


def _shape(value: list[object]) -> Shape:
    count, planes, height, width = map(_count, value)
    return count, planes, height, width


def _count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**20:
        raise ValueError(f"{str(value)[:20]} is no count")
    return value


def _input_in_words(recipe: Recipe) -> str:
    if recipe.domain.takes_mosaic:
        return "a camera mosaic, one plane a filter site, times its exposure ratio, cut off at white"
    return _INPUTS[recipe.domain.colors]
