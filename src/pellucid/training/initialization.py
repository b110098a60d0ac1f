"""The network before its first step: newly initialized, or with the weights of a model."""

from collections.abc import Callable
from pathlib import Path

import torch

from pellucid.errors import WeightsError
from pellucid.recipes.network import Network
from pellucid.recipes.recipe import Recipe
from pellucid.training.optimization import TensorsByName
from pellucid.weights import checkpoint, models

Log = Callable[[str], None]
"""Called with a line of text for each event."""


def load_pretrained(start_from: str | Path | None, recipe: Recipe) -> TensorsByName | None:
    """The weights of a model, by its name or the path of its file; None without one.

    Without batch norm, if the network of the recipe is the model's with batch norm folded into other layers.
    Raises WeightsError if no tensor fits.
    """
    if start_from is None:
        return None
    network, own = checkpoint.load(models.find_model(start_from)).network, recipe.network().state_dict()
    chosen, folded = network.state_dict(), network.optimize_for_inference().state_dict()
    if chosen.keys() != own.keys() and folded.keys() == own.keys():
        chosen = folded
    if not _select_fitting(chosen, own):
        raise WeightsError(
            "none of the weights to start from fits the recipe",
            hint="{start_from} needs weights of the same network",
        )
    return chosen


def build_network(recipe: Recipe, seed: int, pretrained: TensorsByName | None, log: Log) -> Network:
    """The network before its first step. pretrained: weights to start from, as far as they fit."""
    torch.manual_seed(seed % 2**64)  # larger ones are an error in PyTorch
    network = recipe.network()
    if recipe.initialize is not None:
        recipe.initialize(network)
    if pretrained is not None:
        _load_fitting(network, pretrained, log)
    return network


def _select_fitting(pretrained: TensorsByName, own: TensorsByName) -> TensorsByName:
    return {name: t for name, t in pretrained.items() if name in own and own[name].shape == t.shape}


def _load_fitting(network: Network, pretrained: TensorsByName, log: Log) -> None:
    """Load the tensors that fit by name and shape, and log which do not."""
    own = network.state_dict()
    fitting = _select_fitting(pretrained, own)
    network.load_state_dict(fitting, strict=False)
    ignored, new = sorted(pretrained.keys() - fitting.keys()), sorted(own.keys() - fitting.keys())
    if ignored or new:
        log(
            f"weights to start from: {len(fitting)} tensors loaded; ignored: {_abbreviate(ignored)}; "
            f"newly initialized: {_abbreviate(new)}"
        )


def _abbreviate(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "none"
