"""The names and layouts of others, brought to ours.

How a file stores its network (biases, batch norm, the order of output channels) is told from its names and
comes back as recipe parameters. What a recipe's user decides (depth, channels, scale) is not: a file that is
of another size fails when its tensors are put into the network.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

from torch import Tensor

from pellucid.errors import WeightsError
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import list_names, own_keywords
from pellucid.weights.foreign import Foreign

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Scheme:
    """How one code base names a network's layers.

    layers: theirs -> ours; * is a number. variant: recipe parameters that go with this code base.
    """

    origin: str
    layers: Mapping[str, str]
    variant: Mapping[str, Any] = field(default_factory=dict)

    def our_name(self, name: str) -> str | None:
        """`FAM1.merge.main.0.bias` -> `attend4.merge.0.bias`; None where it is no name of theirs."""
        layer, _, leaf = name.rpartition(".")
        for theirs, ours in self.layers.items():
            match = re.fullmatch(re.escape(theirs).replace(r"\*", r"(\d{1,4})"), layer)
            if match:
                return f"{ours.replace('*', ''.join(match.groups()))}.{leaf}"
        return None


def translate(foreign: Foreign, recipe: Recipe) -> tuple[dict[str, Any], Tensors]:
    """Recipe parameters that the file's way of storing needs, and its tensors under our names.

    Tensors that are not known keep their names. Raises WeightsError when no name is known, or when the recipe
    has no keyword for what the file needs.
    """
    variant, tensors = NETWORKS[recipe.name.partition(".")[0]](foreign)
    return _accepted(foreign, variant, recipe), tensors


# What a network is where its recipe has no such keyword.
BUILT_IN = {
    "padding": "replicate",
    "bias": True,
    "batch_norm": True,
    "upsampling": "nearest",
    "conv_bias": True,
    "up_bias": False,
    "channel_order": "position-major",
}


def _accepted(foreign: Foreign, variant: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    for key, value in variant.items():
        if key not in recipe.parameters and value != BUILT_IN[key]:
            family = recipe.name.partition(".")[0]
            able = [name for name in list_names() if name.startswith(f"{family}.") and key in own_keywords(name)]
            raise WeightsError(
                f"{foreign.path} needs {key}={value}, which {recipe.name} does not have; "
                f"{' and '.join(able)} {'has' if len(able) == 1 else 'have'} it"
            )
    return {key: value for key, value in variant.items() if key in recipe.parameters}


def _renamed(foreign: Foreign, tensors: Tensors, schemes: Sequence[Scheme]) -> tuple[Scheme, Tensors]:
    """By the scheme that knows the most names; some share many of them."""
    best = max(schemes, key=lambda scheme: sum(scheme.our_name(name) is not None for name in tensors))
    renamed = {best.our_name(name) or name: tensor for name, tensor in tensors.items()}
    if renamed.keys() == tensors.keys():
        raise _unrecognized(foreign, [scheme.origin for scheme in schemes])
    return best, renamed


def _unrecognized(foreign: Foreign, origins: Sequence[str]) -> WeightsError:
    found = ", ".join(name[:60] for name in list(foreign.tensors)[:3])
    return WeightsError(
        f"{foreign.path} holds {len(foreign.tensors)} tensors ({found}, ...) with none of the names that are "
        f"known for this network: {'; '.join(origins)}"
    )


# SRCNN

SRCNN = Scheme(
    "conv1, conv2, conv3 (yjn870, MindSpore) or weights_conv1, biases_conv1, ... (Dong, MATLAB)",
    {"conv1": "extract", "conv2": "map", "conv3": "reconstruct"},
)


def _srcnn(foreign: Foreign) -> tuple[dict[str, Any], Tensors]:
    tensors: Tensors = {}
    for name, tensor in foreign.tensors.items():
        if name in ("weights_conv1", "weights_conv2", "weights_conv3"):
            tensors[f"{name.removeprefix('weights_')}.weight"] = _filters(tensor, outputs_first=name[-1] == "3")
        elif name in ("biases_conv1", "biases_conv2", "biases_conv3"):
            tensors[f"{name.removeprefix('biases_')}.bias"] = tensor.flatten()
        else:
            tensors[name] = tensor
    _, renamed = _renamed(foreign, tensors, [SRCNN])
    # Dong's test code repeats the edge; the networks that train with padding know zeros.
    padding = "replicate" if "weights_conv1" in foreign.tensors else "zeros"
    return {"padding": padding, "bias": _any_ends(renamed, ".bias")}, renamed


def _filters(columns: Tensor, *, outputs_first: bool) -> Tensor:
    """Filters as (outputs, inputs, height, width), out of what MATLAB holds as rows and columns.

    columns: (pixels, outputs), (inputs, pixels, outputs) or, for the one output of the last layer, (inputs,
    pixels). The pixels of a filter run down its columns; it is not flipped (`imfilter`).
    """
    if columns.ndim not in (2, 3):
        return columns  # its shape is told when it does not fit
    filters = columns.unsqueeze(0) if columns.ndim == 2 else columns
    if not outputs_first:
        filters = filters.permute(2, 0, 1)
    num_outputs, num_inputs, num_pixels = filters.shape
    size = isqrt(num_pixels)
    if size**2 != num_pixels:
        return columns
    return filters.reshape(num_outputs, num_inputs, size, size).transpose(-1, -2).contiguous()


# DnCNN

DNCNN_ORIGINS = (
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


def _dncnn(foreign: Foreign) -> tuple[dict[str, Any], Tensors]:
    """Layers are numbered with their activations: what has four axes is a convolution, the rest its norm."""
    modules: dict[int, Tensors] = {}
    state: Tensors = {}
    for name, tensor in foreign.tensors.items():
        match = re.fullmatch(r"(?:dncnn|model|net\.layers)\.(\d{1,4})\.(\w+)", name)
        if match:
            modules.setdefault(int(match[1]), {})[match[2]] = tensor
        else:
            state[name] = tensor
    if not modules:
        raise _unrecognized(foreign, DNCNN_ORIGINS)
    for place, leaves in _placed(modules):
        state |= {f"{place}.{leaf}": tensor for leaf, tensor in leaves.items()}
    if any(name.startswith("model.") for name in foreign.tensors):
        _change_epsilon(state, KAIR_EPSILON)
    _fold_biases(state)
    variant = {"batch_norm": any(".norm." in name for name in state), "bias": _any_ends(state, ".conv.bias")}
    return variant, state


def _placed(modules: Mapping[int, Tensors]) -> list[tuple[str, Tensors]]:
    placed: list[tuple[str, Tensors]] = []
    num_convs = 0
    for number, leaves in sorted(modules.items()):
        if "weight" in leaves and leaves["weight"].ndim == 4:
            placed.append((f"layers.{num_convs}.conv", leaves))
            num_convs += 1
        elif placed and placed[-1][0].endswith(".conv"):
            placed.append((f"layers.{num_convs - 1}.norm", _norm(leaves)))
        else:  # nothing that a DnCNN has
            placed.append((f"module {number}", leaves))
    return placed


def _norm(leaves: Tensors) -> Tensors:
    leaves = {NORM_LEAVES.get(leaf, leaf): tensor for leaf, tensor in leaves.items()}
    if "moments" in leaves and leaves["moments"].ndim == 2 and len(leaves["moments"]) == 2:
        # MatConvNet's: mean and deviation, which includes its epsilon.
        mean, deviation = leaves.pop("moments").double()
        leaves["running_mean"] = mean.float()
        leaves["running_var"] = (deviation.square() - EPSILON).float()
    return leaves


def _change_epsilon(state: Tensors, theirs: float) -> None:
    for name in state:
        if name.endswith(".norm.running_var"):
            state[name] = state[name] + (theirs - EPSILON)


def _fold_biases(state: Tensors) -> None:
    """A bias before batch norm moves into the mean: (W x + b) - mean = W x - (mean - b)."""
    for name in [name for name in state if name.endswith(".conv.bias")]:
        mean = name.replace(".conv.bias", ".norm.running_mean")
        if mean in state and state[mean].shape == state[name].shape:
            state[mean] = state[mean] - state.pop(name)


# MIMO-UNet

MIMO_UNET = Scheme(
    "feat_extract, Encoder, Decoder, Convs, ConvsOut, AFFs, FAM1, SCM1 (Cho, MindSpore)",
    {
        "feat_extract.0.main.0": "enter1.0",
        "feat_extract.1.main.0": "enter2.0",
        "feat_extract.2.main.0": "enter4.0",
        "feat_extract.3.main.0": "up4.0",
        "feat_extract.4.main.0": "up2.0",
        "feat_extract.5.main.0": "leave1.0",
        "Encoder.0.layers.*.main.0.main.0": "encoder1.*.first.0",
        "Encoder.0.layers.*.main.1.main.0": "encoder1.*.second.0",
        "Encoder.1.layers.*.main.0.main.0": "encoder2.*.first.0",
        "Encoder.1.layers.*.main.1.main.0": "encoder2.*.second.0",
        "Encoder.2.layers.*.main.0.main.0": "encoder4.*.first.0",
        "Encoder.2.layers.*.main.1.main.0": "encoder4.*.second.0",
        "Decoder.0.layers.*.main.0.main.0": "decoder4.*.first.0",
        "Decoder.0.layers.*.main.1.main.0": "decoder4.*.second.0",
        "Decoder.1.layers.*.main.0.main.0": "decoder2.*.first.0",
        "Decoder.1.layers.*.main.1.main.0": "decoder2.*.second.0",
        "Decoder.2.layers.*.main.0.main.0": "decoder1.*.first.0",
        "Decoder.2.layers.*.main.1.main.0": "decoder1.*.second.0",
        "Convs.0.main.0": "join2.0",
        "Convs.1.main.0": "join1.0",
        "ConvsOut.0.main.0": "leave4.0",
        "ConvsOut.1.main.0": "leave2.0",
        "AFFs.0.conv.*.main.0": "fuse1.layers.*.0",
        "AFFs.1.conv.*.main.0": "fuse2.layers.*.0",
        "FAM1.merge.main.0": "attend4.merge.0",
        "FAM2.merge.main.0": "attend2.merge.0",
        "SCM1.main.*.main.0": "shallow4.layers.*.0",
        "SCM1.conv.main.0": "shallow4.mix.0",
        "SCM2.main.*.main.0": "shallow2.layers.*.0",
        "SCM2.conv.main.0": "shallow2.mix.0",
    },
)


def _mimo_unet(foreign: Foreign) -> tuple[dict[str, Any], Tensors]:
    _, renamed = _renamed(foreign, dict(foreign.tensors), [MIMO_UNET])
    # The names are the same everywhere; MindSpore's version enlarges features otherwise.
    return {"upsampling": "asymmetric" if foreign.framework == "MindSpore" else "nearest"}, renamed


# The U-Net of "Learning to See in the Dark"


def _sid_layers(pairs: Sequence[str], up: Sequence[str], head: str, *, ends: tuple[str, str]) -> dict[str, str]:
    """pairs: nine, from the first to the last; ends: of the names of the two convolutions of a pair."""
    ours = [*(f"encoder.{stage}" for stage in range(5)), *(f"decoder.{stage}" for stage in range(4))]
    layers = {head: "head"} | {theirs: f"up.{stage}" for stage, theirs in enumerate(up)}
    for theirs, place in zip(pairs, ours, strict=True):
        layers |= {f"{theirs}{ends[0]}": f"{place}.first", f"{theirs}{ends[1]}": f"{place}.second"}
    return layers


CONVS = [f"conv{stage}" for stage in range(1, 10)]
UPS = [f"up{stage}" for stage in range(6, 10)]

SID_UNET = (
    Scheme(
        "conv1_1, up6, conv10 (cydonia999)",
        _sid_layers(CONVS, UPS, "conv10", ends=("_1", "_2")),
        {"channel_order": "position-major"},
    ),
    Scheme(
        "conv1_1, upv6, conv10_1 (lavi135246)",
        _sid_layers(CONVS, [f"upv{stage}" for stage in range(6, 10)], "conv10_1", ends=("_1", "_2")),
        {"channel_order": "color-major"},
    ),
    Scheme(
        "conv1.conv.0, up6, conv10 (PaddlePaddle)",
        _sid_layers(CONVS, UPS, "conv10", ends=(".conv.0", ".conv.2")),
        {"channel_order": "color-major"},
    ),
    Scheme(
        "inc.double_conv.0, up1.up, outc.conv (MindSpore)",
        _sid_layers(
            ["inc", *(f"down{n}.maxpool_conv.1" for n in range(1, 5)), *(f"up{n}.conv" for n in range(1, 5))],
            [f"up{n}.up" for n in range(1, 5)],
            "outc.conv",
            ends=(".double_conv.0", ".double_conv.2"),
        ),
        {"channel_order": "position-major"},
    ),
)


def _sid_unet(foreign: Foreign) -> tuple[dict[str, Any], Tensors]:
    scheme, renamed = _renamed(foreign, dict(foreign.tensors), SID_UNET)
    biases = [name for name in renamed if name.endswith(".bias")]
    up_bias = any(name.startswith("up.") for name in biases)
    conv_bias = any(name.startswith(("encoder.", "decoder.", "head.")) for name in biases)
    return {"conv_bias": conv_bias, "up_bias": up_bias, **scheme.variant}, renamed


def _any_ends(tensors: Tensors, end: str) -> bool:
    return any(name.endswith(end) for name in tensors)


NETWORKS: dict[str, Callable[[Foreign], tuple[dict[str, Any], Tensors]]] = {
    "srcnn": _srcnn,
    "dncnn": _dncnn,
    "mimo_unet": _mimo_unet,
    "sid_unet": _sid_unet,
}
