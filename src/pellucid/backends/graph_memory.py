"""How much memory an ONNX graph needs for each pixel of its input, from the sizes of its features."""

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

from pellucid.system.optional_packages import import_optional

_SIDE_PX = 192
_UNKNOWN_CHANNELS = 64
"""Features whose size ONNX cannot infer count like this many planes, or like the largest ones that are known."""


def count_bytes_per_pixel(path: Path) -> float:
    """The features of one picture that exist at the same time, in float32. path: of a graph with one input."""
    graph, given = _infer_shapes(path)
    values = (*graph.value_info, *graph.output, *graph.input)
    sizes = {value.name: prod(_read_shape(value)) for value in values}
    unknown = max([_UNKNOWN_CHANNELS * _SIDE_PX**2, *sizes.values()])
    outputs = _names(graph.output)
    last_use = {name: i for i, node in enumerate(graph.node) for name in node.input}
    alive, peak = {given: sizes[given]}, 0
    for i, node in enumerate(graph.node):
        alive |= {name: sizes.get(name) or unknown for name in node.output}
        peak = max(peak, sum(alive.values()))
        finished = [name for name in alive if last_use.get(name, -1) <= i and name not in outputs]
        for name in finished:
            del alive[name]
    return 4 * peak / _SIDE_PX**2


def _infer_shapes(path: Path) -> tuple[Any, str]:
    """(the graph for a picture of _SIDE_PX, the name of its input)"""
    onnx = import_optional("onnx")
    model = onnx.load(str(path), load_external_data=False)
    weights = _names(model.graph.initializer)
    (given,) = (value for value in model.graph.input if value.name not in weights)
    for axis, size in zip(given.type.tensor_type.shape.dim, (1, None, None, None), strict=True):
        if not axis.HasField("dim_value"):
            axis.dim_value = size or _SIDE_PX
    del model.graph.value_info[:]  # sizes that the other program wrote, with names for those of the input
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model, data_prop=True).graph, given.name


def _read_shape(value: Any) -> list[int]:
    return [axis.dim_value for axis in value.type.tensor_type.shape.dim]


def _names(values: Iterable[Any]) -> set[str]:
    return {value.name for value in values}
