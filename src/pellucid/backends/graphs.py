"""Captures a network as a graph for inputs of any size, and writes it as ONNX."""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pellucid.backends.backend import Shape
from pellucid.backends.metadata import INPUT, OPSET, OUTPUT, PREFIX, STORED_WEIGHTS, hash_onnx_weights
from pellucid.recipes.network import Network
from pellucid.system.optional_packages import import_optional

if TYPE_CHECKING:
    from onnx import ModelProto

# Example input for capturing. Its size is odd at every level of a U-Net, so that crops are captured; its batch has
# two pictures, as PyTorch treats a batch size of 1 as a constant.
EXAMPLE_COUNT, EXAMPLE_SIZE = 2, (33, 49)

Dimensions = tuple[str | None, ...]
"""A name for each free dimension of a tensor, None for each fixed one."""

DIMENSIONS: Dimensions = ("count", None, "height", "width")


class _Cast(nn.Module):
    """A network that computes in another type; input and output stay float32."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype

    def forward(self, degraded: Tensor) -> Tensor:
        return self.network(degraded.to(self.dtype)).float()


def capture(
    network: Network, num_planes: int, *, dtype: torch.dtype = torch.float32, shape: Shape | None = None
) -> ExportedProgram:
    """The optimized network as a graph with float32 input and output. The network itself is not changed.

    dtype: in which the graph computes.
    shape: the only input shape (N, C, H, W) that it accepts; any number and size of pictures if None.
    """
    example = torch.zeros(shape or (EXAMPLE_COUNT, num_planes, *EXAMPLE_SIZE))
    return trace(freeze(network, dtype), {INPUT: example}, {} if shape else {INPUT: DIMENSIONS})


def freeze(network: Network, dtype: torch.dtype) -> nn.Module:
    """A copy of the network, optimized, with float32 input and output, that computes in `dtype`."""
    network = copy.deepcopy(network).eval().optimize_for_inference().cpu().float().requires_grad_(False)
    for parameter in network.parameters():
        # Contiguous, even after channels last. `Tensor.contiguous` may keep the strides of 1 x 1 kernels.
        parameter.data = torch.empty(parameter.shape).copy_(parameter.data)
    return network if dtype == torch.float32 else _Cast(network, dtype)


def trace(
    module: nn.Module,
    examples: Mapping[str, Tensor],
    dimensions: Mapping[str, Dimensions],
    *,
    block_px: int = 1,
) -> ExportedProgram:
    """A module as a graph.

    examples: its inputs, in order. dimensions: those of each input that are free.
    block_px: height and width are multiples of this.
    """
    names = sorted({name for each in dimensions.values() for name in each if name is not None})
    free: dict[str, Any] = {name: Dim(name, min=1) for name in names}
    if block_px > 1:
        free.update({name: block_px * Dim(f"blocks_{name}", min=1) for name in ("height", "width")})
    sizes = tuple(
        {axis: free[name] for axis, name in enumerate(dimensions.get(key, ())) if name is not None}
        for key in examples
    )
    symbolic: Any = import_module("torch.fx.experimental._config")
    # Size oblivious: otherwise guesses from the example's sizes, e.g. width > 1, become conditions on the input.
    with quiet(), symbolic.patch(backed_size_oblivious=True):
        program = torch.export.export(
            module,
            tuple(examples.values()),
            dynamic_shapes=sizes if dimensions else None,
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    return _remove_asserts(program)


def _remove_asserts(program: ExportedProgram) -> ExportedProgram:
    """Without assertions that sizes relate to each other like those of the example.

    They are about the memory layout of tensors, on which no layer depends. The parity check of every export shows
    that the graph is correct at other sizes, including 1 x 1.
    """
    graph = program.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def to_onnx(program: ExportedProgram, dimensions: Mapping[str, Dimensions] | None = None) -> "ModelProto":
    """The graph as an ONNX model with weights. Raises MissingExtraError without onnx and onnxscript.

    dimensions: names of the inputs, in order, and of the output, each with names for its free dimensions; those of
        a network if None.
    """
    onnx = import_optional("onnx")
    import_optional("onnxscript")  # torch.onnx needs it
    if dimensions is None:
        dimensions = {INPUT: DIMENSIONS, OUTPUT: ("count", None, "restored_height", "restored_width")}
    with quiet():
        exported = torch.onnx.export(
            program,
            args=program.example_inputs[0] if program.example_inputs else (),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(dimensions)[:-1],
            output_names=[OUTPUT],
            verbose=False,
        )
    assert exported is not None
    model: ModelProto = exported.model_proto
    _name_sizes(model, dimensions)
    _pool_by_padding(model)
    _drop_stack_traces(model)
    onnx.checker.check_model(model)
    return model


def annotate(model: "ModelProto", entries: Mapping[str, str]) -> None:
    """Write metadata, as of `GraphMetadata.to_entries`, and the hash of the weights into the model's own table."""
    onnx = import_optional("onnx")
    entries = {**entries, STORED_WEIGHTS: hash_onnx_weights(model)}
    onnx.helper.set_model_props(model, {f"{PREFIX}.{key}": value for key, value in entries.items()})


def _name_sizes(model: "ModelProto", dimensions: Mapping[str, Dimensions]) -> None:
    """Give free sizes names; PyTorch numbers them."""
    for value in (*model.graph.input, *model.graph.output):
        shape = value.type.tensor_type.shape.dim
        for dimension, name in zip(shape, dimensions[value.name], strict=True):
            if name is not None and not dimension.HasField("dim_value"):
                dimension.dim_param = name
    # Runtimes infer the sizes of intermediate values themselves.
    del model.graph.value_info[:]


def _drop_stack_traces(model: "ModelProto") -> None:
    """Remove what PyTorch notes about each node: stack traces with the paths of this computer's folders."""
    for node in model.graph.node:
        del node.metadata_props[:]


def _pool_by_padding(model: "ModelProto") -> None:
    """Pad pooling by one row and column at the end instead of rounding the size up, which gives the same result.

    OpenVINO does not accept a window that is larger than the input; with padding, 1 x 1 works too.
    """
    for node in model.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "MaxPool" and attributes["ceil_mode"].i == 1:
            assert list(attributes["kernel_shape"].ints) == list(attributes["strides"].ints) == [2, 2]
            attributes["ceil_mode"].i = 0
            attributes["pads"].ints[:] = [0, 0, 1, 1]


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warnings that PyTorch's exporter and compiler give about PyTorch itself."""
    registration: Any = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # it warns that torchvision, which is not needed, is not installed
    try:
        with warnings.catch_warnings():
            # They use deprecated parts of PyTorch.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            warnings.filterwarnings("ignore", r"`torch.jit.script", DeprecationWarning)
            yield
    finally:
        registration.setLevel(level)
