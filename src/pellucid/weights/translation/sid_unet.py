"""The U-Net of "Learning to See in the Dark": the authors' TensorFlow code, two PyTorch ports,
PaddlePaddle's and MindSpore's.
"""

from collections.abc import Sequence
from math import isqrt
from typing import Any

from pellucid.weights.foreign.reading import ForeignWeights
from pellucid.weights.translation.scheme import Scheme, Tensors, rename


def _name_layers(pairs: Sequence[str], up: Sequence[str], head: str, *, ends: tuple[str, str]) -> dict[str, str]:
    """Their name -> our name of each layer.

    pairs: the nine pairs of convolutions, in order. ends: added to a pair's name for its first and second one.
    up: the four transposed convolutions. head: the last convolution.
    """
    ours = [*(f"encoder.{stage}" for stage in range(5)), *(f"decoder.{stage}" for stage in range(4))]
    layers = {head: "head"} | {theirs: f"up.{stage}" for stage, theirs in enumerate(up)}
    for theirs, place in zip(pairs, ours, strict=True):
        layers |= {f"{theirs}{ends[0]}": f"{place}.first", f"{theirs}{ends[1]}": f"{place}.second"}
    return layers


CONVS = [f"conv{stage}" for stage in range(1, 10)]
UPS = [f"up{stage}" for stage in range(6, 10)]

SCHEMES = (
    Scheme(
        "g_conv1_1, Variable, g_conv10 (Chen, TensorFlow)",
        _name_layers(
            [f"g_{name}" for name in CONVS],
            ["Variable", "Variable_1", "Variable_2", "Variable_3"],
            "g_conv10",
            ends=("_1", "_2"),
        ),
        {"channel_order": "position-major"},
    ),
    Scheme(
        "conv1_1, up6, conv10 (cydonia999)",
        _name_layers(CONVS, UPS, "conv10", ends=("_1", "_2")),
        {"channel_order": "position-major"},
    ),
    Scheme(
        "conv1_1, upv6, conv10_1 (lavi135246)",
        _name_layers(CONVS, [f"upv{stage}" for stage in range(6, 10)], "conv10_1", ends=("_1", "_2")),
        {"channel_order": "color-major"},
    ),
    Scheme(
        "conv1.conv.0, up6, conv10 (PaddlePaddle)",
        _name_layers(CONVS, UPS, "conv10", ends=(".conv.0", ".conv.2")),
        {"channel_order": "color-major"},
    ),
    Scheme(
        "inc.double_conv.0, up1.up, outc.conv (MindSpore)",
        _name_layers(
            ["inc", *(f"down{n}.maxpool_conv.1" for n in range(1, 5)), *(f"up{n}.conv" for n in range(1, 5))],
            [f"up{n}.up" for n in range(1, 5)],
            "outc.conv",
            ends=(".double_conv.0", ".double_conv.2"),
        ),
        {"channel_order": "position-major"},
    ),
)


def translate_tensors(foreign: ForeignWeights) -> tuple[dict[str, Any], Tensors]:
    scheme, renamed = rename(foreign, dict(foreign.tensors), SCHEMES)
    biases = [name for name in renamed if name.endswith(".bias")]
    up_bias = any(name.startswith("up.") for name in biases)
    conv_bias = any(name.startswith(("encoder.", "decoder.", "head.")) for name in biases)
    return {"conv_bias": conv_bias, "up_bias": up_bias, **scheme.keywords, **_find_size(renamed)}, renamed


def _find_size(tensors: Tensors) -> dict[str, Any]:
    """Planes of the packed mosaic, width and scale; nothing if the first or last convolution is missing."""
    first, head = tensors.get("encoder.0.first.weight"), tensors.get("head.weight")
    if first is None or head is None or first.ndim != 4 or head.ndim != 4:
        return {}
    return {"planes": first.shape[1], "width": len(first), "scale": isqrt(len(head) // 3)}
