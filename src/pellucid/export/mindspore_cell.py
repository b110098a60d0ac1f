"""A captured graph as the source of a MindSpore cell: the same layers one by one, with the weights of the network.

MindSpore reads `construct` as text, so text is what is written here: one class, `Network`, a line a layer. One
translation serves all networks, since it starts at their graphs. MindSpore itself is not needed for it.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from pellucid.errors import PellucidError

aten = torch.ops.aten

_SIGNS = {operator.add: "+", operator.sub: "-", operator.mul: "*", operator.floordiv: "//"}

_HEAD = '''"""A network of pellucid as a MindSpore cell."""

import mindspore
from mindspore import Tensor, nn, ops


class Network(nn.Cell):
    def __init__(self, weights):
        super().__init__()
'''


@dataclass(frozen=True)
class Cell:
    """source: of a module whose class `Network` takes the weights, by name, as NumPy arrays."""

    source: str
    weights: Mapping[str, Tensor]


def translate(program: ExportedProgram) -> Cell:
    """The graph as a cell. Raises PellucidError where it has an operation that is not in the table below."""
    writer = _Writer(program)
    for node in program.graph.nodes:
        writer.take(node)
    return Cell(writer.source(), writer.weights)


class _Writer:
    """Collects the lines of one class, in the order of the graph."""

    def __init__(self, program: ExportedProgram) -> None:
        signature = program.graph_signature
        self._of_weights = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._state = program.state_dict
        self.weights: dict[str, Tensor] = {}
        self._inputs: list[str] = []
        self._fields: dict[str, str] = {}
        self._lines: list[str] = []
        self._sizes: dict[Any, str] = {}

    def take(self, node: Node) -> None:
        """Write what a node does; of sizes only where they are used."""
        if node.op == "placeholder":
            if node.name in self._of_weights:
                return
            self._inputs.append(node.name)
        elif node.op == "output":
            (results,) = node.args
            assert isinstance(results, list | tuple) and len(results) == 1
            self._lines.append(f"return {results[0]}")
            return
        elif _is_size(node) or node.target is aten._assert_tensor_metadata.default:
            return
        else:
            if node.target not in _TRANSLATIONS:
                raise _refusal(node)
            self._lines.append(f"{node.name} = {_TRANSLATIONS[node.target](self, node)}")
        self._note_sizes(node)

    def source(self) -> str:
        """All of the module."""
        fields = [f"self.{name} = {definition}" for name, definition in self._fields.items()]
        indented = "".join(f"        {line}\n" for line in fields)
        body = "".join(f"        {line}\n" for line in self._lines)
        return f"{_HEAD}{indented}\n    def construct(self, {', '.join(self._inputs)}):\n{body}"

    def field(self, name: str, definition: str) -> str:
        """A member of the class, the same one for the same definition."""
        for number in range(len(self._fields) + 1):
            numbered = f"{name}_{number}" if number else name
            if self._fields.setdefault(numbered, definition) == definition:
                break
        return f"self.{numbered}"

    def weight(self, node: Node) -> str:
        """A weight as an argument, and so among those the cell takes."""
        name = self._of_weights[node.name]
        self.weights[name] = self._state[name].detach()
        return f'Tensor(weights["{name}"])'

    def layer(self, node: Node) -> str:
        """What the layer that holds this weight is called."""
        return self._of_weights[node.name].rpartition(".")[0].replace(".", "_")

    def value(self, value: object) -> str:
        """An argument: a tensor by its name, a size as below, a number as it is."""
        return value.name if isinstance(value, Node) and not _is_size(value) else self.size(value)

    def size(self, value: Any) -> str:
        """A size: of a tensor that has it where there is one, since MindSpore has no min() of free sizes."""
        known = value.meta["val"] if isinstance(value, Node) else value
        if not isinstance(known, torch.SymInt):
            return repr(known)
        if known.node.expr in self._sizes:
            return self._sizes[known.node.expr]
        if not isinstance(value, Node) or value.target not in _SIGNS:
            raise _refusal(value)
        left, right = map(self.size, value.args)
        return f"({left} {_SIGNS[value.target]} {right})"

    def _note_sizes(self, node: Node) -> None:
        for axis, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt):
                self._sizes.setdefault(size.node.expr, f"{node.name}.shape[{axis}]")


def _refusal(node: object) -> PellucidError:
    what = node.target if isinstance(node, Node) else f"the size {node}"
    return PellucidError(f"MindSpore cells have no translation of {what}; export to onnx or openvino")


def _is_size(node: Node) -> bool:
    return isinstance(node.meta.get("val"), int | torch.SymInt)


def _arguments(node: Node) -> dict[str, Any]:
    """All arguments of an operation by name, those left out as well."""
    operation: Any = node.target
    arguments = operation._schema.arguments
    given = dict(zip((argument.name for argument in arguments), node.args, strict=False))
    return {argument.name: argument.default_value for argument in arguments} | given | node.kwargs


def _shape(node: Node) -> tuple[Any, ...]:
    return tuple(node.meta["val"].shape)


def _axis(node: Node, axis: int) -> int:
    return axis % len(_shape(node))


# Layers with weights


def _conv(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    outputs, inputs, *kernel = _shape(given["weight"])
    padding = given["padding"]
    if padding == "same":
        # PyTorch's "same" is only of stride 1, and puts an odd one at the end.
        both = [step * (side - 1) for step, side in zip(given["dilation"], kernel, strict=True)]
        sides = [part for total in both for part in (total // 2, total - total // 2)]
    elif padding == "valid":
        sides = [0, 0, 0, 0]
    else:
        sides = [part for side in padding for part in (side, side)]
    sizes = f"{inputs * given['groups']}, {outputs}, {tuple(kernel)}"
    options = f"pad_mode='pad', padding={tuple(sides)}"
    return _weighted(writer, node, f"nn.Conv2d({sizes}, {options}")


def _conv_transposed(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    inputs, outputs, *kernel = _shape(given["weight"])
    sides = tuple(part for side in given["padding"] for part in (side, side))
    if any(given["output_padding"]):
        raise _refusal(node)
    sizes = f"{inputs}, {outputs * given['groups']}, {tuple(kernel)}"
    return _weighted(writer, node, f"nn.Conv2dTranspose({sizes}, pad_mode='pad', padding={sides}")


def _weighted(writer: _Writer, node: Node, head: str) -> str:
    given = _arguments(node)
    options = [f"{name}={tuple(given[name])}" for name in ("stride", "dilation") if set(given[name]) != {1}]
    if given["groups"] != 1:
        options.append(f"group={given['groups']}")
    if (dtype := node.meta["val"].dtype) != torch.float32:
        options.append(f"dtype={_dtype(dtype)}")
    options.append(f"has_bias={given['bias'] is not None}, weight_init={writer.weight(given['weight'])}")
    if given["bias"] is not None:
        options.append(f"bias_init={writer.weight(given['bias'])}")
    layer = writer.field(writer.layer(given["weight"]), f"{head}, {', '.join(options)})")
    return f"{layer}({given['input']})"


# Values


def _sum(writer: _Writer, node: Node) -> str:
    return _with_sign("+", writer, node)


def _difference(writer: _Writer, node: Node) -> str:
    return _with_sign("-", writer, node)


def _product(writer: _Writer, node: Node) -> str:
    return _with_sign("*", writer, node)


def _quotient(writer: _Writer, node: Node) -> str:
    return _with_sign("/", writer, node)


def _with_sign(sign: str, writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    if given.get("alpha", 1) != 1:
        raise _refusal(node)
    return f"{writer.value(given['self'])} {sign} {writer.value(given['other'])}"


def _reverse_difference(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    if given["alpha"] != 1:
        raise _refusal(node)
    return f"{writer.value(given['other'])} - {given['self']}"


def _absolute(writer: _Writer, node: Node) -> str:
    return f"ops.abs({node.args[0]})"


def _clamped(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    text = str(given["self"])
    for name, bound in (("maximum", given["min"]), ("minimum", given["max"])):
        text = text if bound is None else f"ops.{name}({text}, {writer.value(bound)})"
    return text


def _relu(writer: _Writer, node: Node) -> str:
    return f"ops.relu({node.args[0]})"


def _leaky_relu(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    layer = writer.field("leaky_relu", f"nn.LeakyReLU({given['negative_slope']})")
    return f"{layer}({given['self']})"


def _as_it_is(writer: _Writer, node: Node) -> str:
    return str(node.args[0])


def _not_in_training(writer: _Writer, node: Node) -> str:
    if _arguments(node)["train"]:
        raise _refusal(node)
    return _as_it_is(writer, node)


def _cast(writer: _Writer, node: Node) -> str:
    return f"ops.cast({node.args[0]}, {_dtype(node.meta['val'].dtype)})"


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).replace("torch.", "mindspore.")


def _counted(writer: _Writer, node: Node) -> str:
    """0, 1, ..., end - 1."""
    return f"{writer.field('count', 'ops.Range()')}(0, {writer.size(node.args[0])}, 1)"


# Places


def _selected(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    return f"ops.gather({given['self']}, {given['index']}, {_axis(given['self'], given['dim'])})"


def _sliced(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    start, end, step = (given[name] for name in ("start", "end", "step"))
    # PyTorch writes the largest number for "to the end".
    to_end = end is None or (isinstance(end, int) and end == torch.iinfo(torch.int64).max)
    text = f"{writer.size(start) if start else ''}:{'' if to_end else writer.size(end)}"
    return _at(given["self"], given["dim"], text if step == 1 else f"{text}:{step}")


def _narrowed(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    start = writer.size(given["start"])
    return _at(given["self"], given["dim"], f"{start}:{start} + {writer.size(given['length'])}")


def _at(tensor: Node, axis: int, text: str) -> str:
    return f"{tensor}[{':, ' * _axis(tensor, axis)}{text}]"


def _joined(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    parts = ", ".join(map(str, given["tensors"]))
    return f"ops.concat([{parts}], {_axis(given['tensors'][0], given['dim'])})"


def _reshaped(writer: _Writer, node: Node) -> str:
    """Also of `flatten`: into the shape that the graph knows the result to have."""
    return f"ops.reshape({node.args[0]}, ({', '.join(map(writer.size, _shape(node)))}))"


def _turned(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    order = list(range(len(_shape(node))))
    first, second = (_axis(given["self"], given[name]) for name in ("dim0", "dim1"))
    order[first], order[second] = order[second], order[first]
    return f"ops.transpose({given['self']}, {tuple(order)})"


def _padded(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    ways = {"replicate": ("ops.PadV3(mode='edge')", ""), "constant": ("ops.PadV3()", ", 0.0")}
    if given["mode"] not in ways or given.get("value"):
        raise _refusal(node)
    if not any(given["pad"]):
        return str(given["self"])
    layer, beyond = ways[given["mode"]]
    return f"{writer.field('pad', layer)}({given['self']}, {tuple(given['pad'])}{beyond})"


def _pooled(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    kernel, stride = (list(given[name]) for name in ("kernel_size", "stride"))
    if kernel != [2, 2] or stride not in ([], kernel) or any(given["padding"]) or given["dilation"] != [1, 1]:
        raise _refusal(node)
    # With windows of two, "same" is what PyTorch calls ceil_mode: an odd row or column by itself, at the end.
    mode = "same" if given["ceil_mode"] else "valid"
    return f"{writer.field('pool', f'nn.MaxPool2d(2, 2, pad_mode={mode!r})')}({given['self']})"


def _enlarged(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    tensor, factors = given["input"], given["scale_factors"]
    if factors is None or any(factor != int(factor) for factor in factors):
        raise _refusal(node)
    sizes = ", ".join(
        f"{tensor}.shape[{axis}] * {int(factor)}" for axis, factor in zip((2, 3), factors, strict=True)
    )
    return f"{writer.field('nearest', 'ops.ResizeNearestNeighborV2()')}({tensor}, ({sizes}))"


def _shuffled(writer: _Writer, node: Node) -> str:
    given = _arguments(node)
    return f"ops.pixel_shuffle({given['self']}, {given['upscale_factor']})"


_TRANSLATIONS: dict[Any, Callable[[_Writer, Node], str]] = {
    aten.conv2d.default: _conv,
    aten.conv2d.padding: _conv,
    aten.conv_transpose2d.input: _conv_transposed,
    aten.add.Tensor: _sum,
    aten.sub.Tensor: _difference,
    aten.rsub.Scalar: _reverse_difference,
    aten.mul.Tensor: _product,
    aten.div.Tensor: _quotient,
    aten.abs.default: _absolute,
    aten.clamp.default: _clamped,
    aten.relu.default: _relu,
    aten.leaky_relu.default: _leaky_relu,
    aten.feature_dropout.default: _not_in_training,
    aten.alias.default: _as_it_is,  # a cut that takes all, where sizes are fixed
    aten.to.dtype: _cast,
    aten._to_copy.default: _cast,
    aten.arange.default: _counted,
    aten.index_select.default: _selected,
    aten.slice.Tensor: _sliced,
    aten.narrow.default: _narrowed,
    aten.cat.default: _joined,
    aten.reshape.default: _reshaped,
    aten.flatten.using_ints: _reshaped,
    aten.transpose.int: _turned,
    aten.pad.default: _padded,
    aten.max_pool2d.default: _pooled,
    aten.upsample_nearest2d.vec: _enlarged,
    aten.pixel_shuffle.default: _shuffled,
}
"""What all four networks are made of, in all their variants."""
