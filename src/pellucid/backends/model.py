"""A model: a network with weights, its recipe and its metadata, ready for any backend."""

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pellucid.backends.metadata import GraphMetadata
from pellucid.recipes.network import Network
from pellucid.recipes.recipe import Recipe
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import WeightsMetadata


@dataclass(frozen=True)
class Model:
    """network: with weights, in float32. metadata: what every graph of it reports about itself."""

    network: Network
    recipe: Recipe
    metadata: GraphMetadata

    @classmethod
    def of(
        cls, network: Network, recipe: Recipe, weights: WeightsMetadata, *, sha256: str | None = None
    ) -> "Model":
        """sha256: `checkpoint.fingerprint` of the network if known; None computes it."""
        sha256 = sha256 or checkpoint.fingerprint(network.state_dict())
        return cls(network, recipe, GraphMetadata.of(network, recipe, weights, weights_sha256=sha256))

    @cached_property
    def meta_network(self) -> Network:
        """The optimized network on PyTorch's meta device: shapes without weights, for its memory."""
        return copy.deepcopy(self.network).eval().optimize_for_inference().to("meta")

    def copy(self) -> "Model":
        """A model with its own network: `TorchBackend` may convert a network in place."""
        return replace(self, network=copy.deepcopy(self.network))


def load_model(path: Path, /, **parameters: object) -> tuple[Model, WeightsMetadata]:
    """The model in a weight file, and the metadata in the file; that of the model has the changed keywords.

    parameters: recipe keywords to change. Raises the errors of `checkpoint.load`.
    """
    loaded = checkpoint.load(path, **parameters)
    return Model.of(loaded.network, loaded.recipe, loaded.metadata, sha256=loaded.sha256), loaded.metadata
