"""ONNX files as other programs write them: graphs of convolutions, without pellucid's metadata."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Adds layers to a graph; each method takes and returns the names of features."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._rng = np.random.default_rng(0)

    def conv(
        self, source: str, inputs: int, outputs: int, size: int = 3, *, stride: int = 1, dilation: int = 1
    ) -> str:
        """A convolution that keeps the size, divided by the stride, and nearly keeps the colors."""
        values = 0.1 * self._draw(outputs, inputs, size, size)
        channels = np.arange(outputs)
        values[channels, channels * inputs // outputs] += 0.9 * self._draw(outputs, size, size)
        pad = 0 if stride > 1 else dilation * (size // 2)
        options = {"pads": [pad] * 4, "strides": [stride] * 2, "dilations": [dilation] * 2}
        return self.node("Conv", source, self.constant(values), **options)

    def rise(self, source: str, inputs: int, outputs: int, factor: int) -> str:
        """A transposed convolution of this size and stride."""
        values = 0.02 * self._rng.random((inputs, outputs, factor, factor)).astype(np.float32)
        channels = np.arange(inputs)
        values[channels, channels * outputs // inputs] += 0.95
        return self.node("ConvTranspose", source, self.constant(values), strides=[factor] * 2)

    def _draw(self, outputs: int, *shape: int) -> NDArray[np.float32]:
        """Random weights whose sum for each output is 1."""
        values = self._rng.random((outputs, *shape)).astype(np.float32)
        return values / values.reshape(outputs, -1).sum(axis=1).reshape(-1, *[1] * len(shape))

    def constant(self, values: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind: str, *sources: str, **options: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, sources, [name], **options))
        return name

    def save(
        self,
        path: Path,
        output: str,
        *,
        shape: Sequence[int | str] = ("n", 3, "h", "w"),
        dtype: int = TensorProto.FLOAT,
        more_inputs: Sequence[str] = (),
    ) -> Path:
        names = ["x", *more_inputs]
        inputs = [helper.make_tensor_value_info(name, dtype, shape) for name in names]
        outputs = [helper.make_tensor_value_info(output, dtype, ["a", "b", "c", "d"])]
        graph = helper.make_graph(self.nodes, "graph", inputs, outputs, self.weights)
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        return path


def save_smoothing(path: Path, *, planes: int = 3, **options: Any) -> Path:
    """Convolutions of 3, 5 and 3 px: sees 4 px far."""
    graph = Graph()
    features = graph.node("Relu", graph.conv("x", planes, 6))
    features = graph.node("Relu", graph.conv(features, 6, 6, 5))
    return graph.save(path, graph.conv(features, 6, planes), shape=("n", planes, "h", "w"), **options)


def save_enlarging(path: Path, *, planes: int = 3, scale: int = 4) -> Path:
    """Convolutions of 3 px and a pixel shuffle: sees 2 px far."""
    graph = Graph()
    features = graph.node("Relu", graph.conv("x", planes, 6))
    features = graph.conv(features, 6, planes * scale**2)
    shuffled = graph.node("DepthToSpace", features, blocksize=scale, mode="CRD")
    return graph.save(path, shuffled, shape=("n", planes, "h", "w"))


def save_strided(path: Path) -> Path:
    """Two strided levels: takes multiples of 4 px, and an output depends on pixels up to 11 px away."""
    graph = Graph()
    outer = graph.node("Relu", graph.conv("x", 3, 6))
    middle = graph.node("Relu", graph.conv(graph.conv(outer, 6, 6, 2, stride=2), 6, 6))
    inner = graph.node("Relu", graph.conv(graph.conv(middle, 6, 6, 2, stride=2), 6, 6))
    middle = graph.node("Add", middle, graph.rise(inner, 6, 6, 2))
    outer = graph.node("Add", outer, graph.rise(middle, 6, 6, 2))
    half = graph.node("Mul", outer, graph.constant(np.float32(1 / 3)))
    return graph.save(path, graph.conv(half, 6, 3))


def save_global(path: Path) -> Path:
    """Each pixel is multiplied by a weight from the mean of the whole picture."""
    graph = Graph()
    features = graph.conv("x", 3, 3)
    weights = graph.node("Sigmoid", graph.node("GlobalAveragePool", features))
    scaled = graph.node("Mul", features, weights)
    return graph.save(path, graph.node("Mul", scaled, graph.constant(np.float32(1.6))))
