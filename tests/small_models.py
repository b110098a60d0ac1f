"""Small variants of every network with random weights, as weight files."""

from pathlib import Path
from typing import Any

import torch

from pellucid.backends import parity
from pellucid.backends.eager import TorchBackend
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.recipes.network import Network
from pellucid.recipes.recipe import Recipe
from pellucid.restoration.restorer import Restorer
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import WeightsMetadata

RECIPES: dict[str, dict[str, Any]] = {
    "srcnn.paper": {"mapping_px": 1},
    "dncnn.gaussian": {"depth": 4, "width": 8},
    "mimo_unet.gopro": {"num_blocks": 1},
    "sid_unet.sony": {},
}
"""Name of a recipe -> keywords that make its network small."""


def build(name: str, **parameters: Any) -> tuple[Recipe, Network]:
    torch.manual_seed(0)
    recipe = registry.find(name, **(parameters or RECIPES[name]))
    network = recipe.network().eval().requires_grad_(False)
    for module in network.modules():  # as if trained, so that folding changes something
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            assert module.running_var is not None
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return recipe, network


def build_restorer(recipe: str, **parameters: Any) -> Restorer:
    """A restorer of a new network with the name of its recipe's file."""
    torch.manual_seed(0)
    chosen = registry.find(recipe, **parameters)
    return Restorer(recipe.partition(".")[0], chosen, TorchBackend(chosen.network(), "cpu"))


def save_weights(folder: Path, name: str, **parameters: Any) -> Path:
    """A weight file with the name of its recipe."""
    recipe, network = build(name, **parameters)
    path = folder / f"{name}.safetensors"
    scores = ({"data": "Set5", "keywords": {}, "psnr_db": 33.5},)
    metadata = WeightsMetadata(recipe.name, recipe.parameters, "random", "CC0", scores)
    checkpoint.save(path, network, metadata)
    return path


def make_picture(channels: int) -> Picture:
    """61 x 90 pixels of 8 bit, with the statistics of a natural picture."""
    recipe, _ = build("mimo_unet.gopro")
    planes = parity.synthetic_inputs(recipe, 96)[:1, :channels, :61, :90]
    return Picture.from_tensor(planes.clamp(0, 1)).as_depth("uint8")
