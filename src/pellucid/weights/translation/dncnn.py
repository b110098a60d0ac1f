"""DnCNN: PyTorch and MindSpore ports, KAIR, and Zhang's MatConvNet files."""

import re
from collections.abc import Mapping
from typing import Any

from pellucid.weights.foreign.reading import ForeignWeights
from pellucid.weights.translation.scheme import Tensors, any_ends_with, unknown_names

ORIGINS = (
    "dncnn.0 (SaoYan, MindSpore)",
    "model.0 (KAIR)",
    "net.layers.1 (Zhang, MatConvNet)",
)
NORM_LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
EPSILON = 1e-5  # of our batch norm
KAIR_EPSILON = 1e-4


def translate_tensors(foreign: ForeignWeights) -> tuple[dict[str, Any], Tensors]:
    """All code bases number layers and activations together: a layer with 4-D weights is a convolution."""
    modules: dict[int, Tensors] = {}
    state: Tensors = {}
    for name, tensor in foreign.tensors.items():
        match = re.fullmatch(r"(?:(?:dncnn|model|layers|net|net\.layers)\.)?(\d{1,4})\.(\w+)", name)
        if match:
            modules.setdefault(int(match[1]), {})[match[2]] = tensor
        else:
            state[name] = tensor
    if not modules:
        raise unknown_names(foreign, ORIGINS)
    for place, leaves in _place(modules):
        state |= {f"{place}.{leaf}": tensor for leaf, tensor in leaves.items()}
    if any(name.startswith("model.") for name in foreign.tensors):
        _change_epsilon(state, KAIR_EPSILON)
    _fold_biases(state)
    keywords = {
        "batch_norm": any(".norm." in name for name in state),
        "bias": any_ends_with(state, ".conv.bias"),
        **_find_size(state),
    }
    return keywords, state


def _find_size(state: Tensors) -> dict[str, Any]:
    """Depth, width and channels; nothing if the first tensor is not that of a convolution."""
    depth = sum(name.endswith(".conv.weight") for name in state)
    first = state.get("layers.0.conv.weight")
    if first is None or depth < 2:
        return {}
    width, channels = first.shape[:2]
    return {"depth": depth, "width": width, "channels": channels}


def _place(modules: Mapping[int, Tensors]) -> list[tuple[str, Tensors]]:
    """Our name for each module, and its tensors."""
    placed: list[tuple[str, Tensors]] = []
    num_convs = 0
    for number, leaves in sorted(modules.items()):
        if "weight" in leaves and leaves["weight"].ndim == 4:
            placed.append((f"layers.{num_convs}.conv", leaves))
            num_convs += 1
        elif placed and placed[-1][0].endswith(".conv"):
            placed.append((f"layers.{num_convs - 1}.norm", _translate_norm(leaves)))
        else:  # not a part of any DnCNN
            placed.append((f"module {number}", leaves))
    return placed


def _translate_norm(leaves: Tensors) -> Tensors:
    leaves = {NORM_LEAVES.get(leaf, leaf): tensor for leaf, tensor in leaves.items()}
    if "moments" in leaves and leaves["moments"].ndim == 2 and len(leaves["moments"]) == 2:
        # MatConvNet's mean and standard deviation, which includes its epsilon.
        mean, deviation = leaves.pop("moments").double()
        leaves["running_mean"] = mean.float()
        leaves["running_var"] = (deviation.square() - EPSILON).float()
    return leaves


def _change_epsilon(state: Tensors, theirs: float) -> None:
    for name in state:
        if name.endswith(".norm.running_var"):
            state[name] = state[name] + (theirs - EPSILON)


def _fold_biases(state: Tensors) -> None:
    """Fold a bias before batch norm into the mean: (W x + b) - mean = W x - (mean - b)."""
    for name in [name for name in state if name.endswith(".conv.bias")]:
        mean = name.replace(".conv.bias", ".norm.running_mean")
        if mean in state and state[mean].shape == state[name].shape:
            state[mean] = state[mean] - state.pop(name)
