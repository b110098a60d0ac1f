"""SRCNN: PyTorch and MindSpore ports, and Dong's MATLAB files."""

from math import isqrt
from typing import Any

from torch import Tensor

from pellucid.weights.foreign.reading import ForeignWeights
from pellucid.weights.translation.scheme import Scheme, Tensors, any_ends_with, rename

PORTS = Scheme(
    "conv1, conv2, conv3 (yjn870, MindSpore) or weights_conv1, biases_conv1, ... (Dong, MATLAB)",
    {"conv1": "extract", "conv2": "map", "conv3": "reconstruct"},
)


def translate_tensors(foreign: ForeignWeights) -> tuple[dict[str, Any], Tensors]:
    tensors: Tensors = {}
    for name, tensor in foreign.tensors.items():
        if name in ("weights_conv1", "weights_conv2", "weights_conv3"):
            filters = _reshape_filters(tensor, outputs_first=name == "weights_conv3")
            tensors[f"{name.removeprefix('weights_')}.weight"] = filters
        elif name in ("biases_conv1", "biases_conv2", "biases_conv3"):
            tensors[f"{name.removeprefix('biases_')}.bias"] = tensor.flatten()
        else:
            tensors[name] = tensor
    _, renamed = rename(foreign, tensors, [PORTS])
    # Dong's test code repeats the edge; the ports train with zero padding.
    padding = "replicate" if "weights_conv1" in foreign.tensors else "zeros"
    middle = renamed.get("map.weight")
    size = {"mapping_px": middle.shape[-1]} if middle is not None and middle.ndim == 4 else {}
    return {"padding": padding, "bias": any_ends_with(renamed, ".bias"), **size}, renamed


def _reshape_filters(columns: Tensor, *, outputs_first: bool) -> Tensor:
    """MATLAB's rows and columns as filters of shape (outputs, inputs, height, width).

    columns: (pixels, outputs), (inputs, pixels, outputs) or, in the last layer, which has one output, (inputs,
    pixels). The pixels of a filter run down its columns; filters are not flipped (`imfilter` correlates).
    """
    if columns.ndim not in (2, 3):
        return columns  # it does not fit the network, which reports its shape
    filters = columns.unsqueeze(0) if columns.ndim == 2 else columns
    if not outputs_first:
        filters = filters.permute(2, 0, 1)
    num_outputs, num_inputs, num_pixels = filters.shape
    size_px = isqrt(num_pixels)
    if size_px**2 != num_pixels:
        return columns
    return filters.reshape(num_outputs, num_inputs, size_px, size_px).transpose(-1, -2).contiguous()
