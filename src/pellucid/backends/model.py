"""A model: weights and recipe, loaded and ready for any backend."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.export import ExportedProgram

from pellucid.backends import graphs
from pellucid.backends.eager import DTYPES
from pellucid.backends.metadata import GraphMetadata
from pellucid.recipes.network import Network
from pellucid.recipes.recipe import Recipe
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import WeightsMetadata

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Model:
    """What is to be written. pictures: the user's, as the network takes them; int8 is calibrated on these."""

    network: Network
    recipe: Recipe
    facts: GraphMetadata
    pictures: Sequence[Tensor] = ()

    @classmethod
    def of(cls, network: Network, recipe: Recipe, card: WeightsMetadata) -> "Model":
        """A float32 file for inputs of any size."""
        digest = checkpoint.fingerprint(network.state_dict())
        return cls(network, recipe, GraphMetadata.of(network, recipe, card, weights_sha256=digest))

    @cached_property
    def shadow(self) -> Network:
        """The network without weights, which tells how much memory it takes."""
        return copy.deepcopy(self.network.folded()).to("meta")

    def copy(self) -> "Model":
        """With a network of its own, which may be converted."""
        return replace(self, network=copy.deepcopy(self.network))

    def onnx(self, precision: str | None = None) -> "ModelProto":
        """The network as an ONNX graph that computes in a precision, or in float32 where that is int8."""
        dtype = DTYPES.get(precision or self.facts.precision, torch.float32)
        return graphs.to_onnx(self.captured(dtype))

    def captured(self, dtype: torch.dtype | None = None) -> ExportedProgram:
        """The network as a graph that computes in a type, or in that of the precision."""
        dtype = dtype or DTYPES[self.facts.precision]
        return graphs.capture(self.network, self.facts.num_planes, dtype=dtype, shape=self.facts.shape)


def load_model(path: Path, /, **parameters: object) -> tuple[Model, WeightsMetadata]:
    """What is to be written of a weight file, and its card as it stands there; the plan's own has the changes.

    parameters: recipe keywords to change. Raises as `checkpoint.load`.
    """
    network, recipe, card = checkpoint.load(path, **parameters)
    return Model.of(network, recipe, card), card
