"""Small relatives of every network, with random weights, as weight files."""

from pathlib import Path
from typing import Any

import torch

from pellucid.backends import parity
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.recipes.network import Network
from pellucid.recipes.recipe import Recipe
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import WeightsMetadata

SMALL: dict[str, dict[str, Any]] = {
    "srcnn.paper": {"mapping_px": 1},
    "dncnn.gaussian": {"depth": 4, "width": 8},
    "mimo_unet.gopro": {"num_blocks": 1},
    "sid_unet.sony": {},
}


def built(name: str, **parameters: Any) -> tuple[Recipe, Network]:
    torch.manual_seed(0)
    chosen = registry.find(name, **(parameters or SMALL[name]))
    network = chosen.network().eval().requires_grad_(False)
    for module in network.modules():  # as after training, so that folding has something to do
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            assert module.running_var is not None
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return chosen, network


def weights(folder: Path, name: str, **parameters: Any) -> Path:
    """A weight file, named as its recipe."""
    chosen, network = built(name, **parameters)
    path = folder / f"{name}.safetensors"
    scores = ({"data": "Set5", "keywords": {}, "psnr_db": 33.5},)
    checkpoint.save(
        path, network, WeightsMetadata(chosen.name, chosen.parameters, "drawn by chance", "CC0", scores)
    )
    return path


def picture(channels: int) -> Picture:
    """61 x 90 pixels of 8 bit, with the statistics of a natural one."""
    chosen, _ = built("mimo_unet.gopro")
    planes = parity.synthetic_inputs(chosen, 96)[:1, :channels, :61, :90]
    return Picture.from_tensor(planes.clamp(0, 1)).as_depth("uint8")
