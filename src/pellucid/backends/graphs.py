"""A network as a graph that other programs run: captured once, for every size, and written as ONNX."""

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
from pellucid.backends.metadata import PREFIX
from pellucid.recipes.network import Network
from pellucid.system.optional_packages import import_optional

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT, OUTPUT = "degraded", "restored"

OPSET = 18
"""The oldest that PyTorch writes: more runtimes take it, and no network needs a newer one."""

# What a graph is captured with. Odd at every level of a U-Net, so that cutting to size is captured, and two
# pictures, since PyTorch takes a single one for a constant.
_EXAMPLE_COUNT, _EXAMPLE_SIZE = 2, (33, 49)


class _InOtherPrecision(nn.Module):
    """A network that computes in another type between float32 and float32."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype

    def forward(self, degraded: Tensor) -> Tensor:
        return self.network(degraded.to(self.dtype)).float()


def capture(
    network: Network, num_planes: int, *, dtype: torch.dtype = torch.float32, shape: Shape | None = None
) -> ExportedProgram:
    """The network, folded, as a graph from float32 to float32.

    dtype: in which it computes. shape: the only (N, C, H, W) that it shall take; any number and size where None.
    """
    network = copy.deepcopy(network).eval().folded().cpu().float().requires_grad_(False)
    for parameter in network.parameters():
        # As files hold them: backends turn them about, and 1 x 1 kernels keep strides that look like either way.
        parameter.data = torch.empty(parameter.shape).copy_(parameter.data)
    module = network if dtype == torch.float32 else _InOtherPrecision(network, dtype)
    example = torch.zeros(shape or (_EXAMPLE_COUNT, num_planes, *_EXAMPLE_SIZE))
    sizes = None if shape else ({0: Dim("count", min=1), 2: Dim("height", min=1), 3: Dim("width", min=1)},)
    symbolic: Any = import_module("torch.fx.experimental._config")
    # Oblivious: or guesses from the example's sizes (that a map is wider than 1) become conditions on the input.
    with quiet(), symbolic.patch(backed_size_oblivious=True):
        program = torch.export.export(
            module,
            (example,),
            dynamic_shapes=sizes,
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    return _without_asserts(program)


def _without_asserts(program: ExportedProgram) -> ExportedProgram:
    """Without checks that sizes relate as the example's did.

    They are about how tensors lie in memory, on which our layers do not depend: that the graph is right for
    other sizes, 1 x 1 among them, is what the parity check of every export shows.
    """
    graph = program.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def to_onnx(program: ExportedProgram) -> "ModelProto":
    """The graph as ONNX, its weights inside. Raises MissingExtraError without the packages."""
    onnx = import_optional("onnx")
    import_optional("onnxscript")  # what torch.onnx writes with
    with quiet():
        exported = torch.onnx.export(
            program,
            args=program.example_inputs[0] if program.example_inputs else (),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    assert exported is not None
    model: ModelProto = exported.model_proto
    _name_sizes(model)
    _pool_by_padding(model)
    onnx.checker.check_model(model)
    return model


def annotate(model: "ModelProto", metadata: Mapping[str, str]) -> None:
    """Write the facts into the model's own table."""
    onnx = import_optional("onnx")
    onnx.helper.set_model_props(model, {f"{PREFIX}.{key}": value for key, value in metadata.items()})


def metadata_of(properties: Mapping[str, str]) -> dict[str, str]:
    """The facts out of a table of everybody's."""
    head = f"{PREFIX}."
    return {key.removeprefix(head): value for key, value in properties.items() if key.startswith(head)}


def _name_sizes(model: "ModelProto") -> None:
    """Call free sizes by what they are, where PyTorch numbers them."""
    for value in (*model.graph.input, *model.graph.output):
        scale = "" if value.name == INPUT else "restored_"
        names = ("count", None, f"{scale}height", f"{scale}width")
        for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if name is not None and not dimension.HasField("dim_value"):
                dimension.dim_param = name
    # Of what is in between, runtimes infer the sizes themselves.
    del model.graph.value_info[:]


def _pool_by_padding(model: "ModelProto") -> None:
    """Pool odd sizes by one row and column of nothing more at the end, which is the same as rounding up.

    OpenVINO takes no window that is larger than the picture; with padding, 1 x 1 passes as well.
    """
    for node in model.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "MaxPool" and attributes["ceil_mode"].i == 1:
            assert list(attributes["kernel_shape"].ints) == list(attributes["strides"].ints) == [2, 2]
            attributes["ceil_mode"].i = 0
            attributes["pads"].ints[:] = [0, 0, 1, 1]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what PyTorch says to itself while it exports."""
    registration: Any = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # that torchvision, which nothing here needs, is not installed
    try:
        with warnings.catch_warnings():
            # PyTorch's exporter and its compiler use what PyTorch deprecates.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            warnings.filterwarnings("ignore", r"`torch.jit.script", DeprecationWarning)
            yield
    finally:
        registration.setLevel(level)
