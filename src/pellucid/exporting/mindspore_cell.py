"""Translates a captured graph to the source code of a MindSpore cell with the same layers and weights.

MindSpore compiles the source of `construct`, so this module generates source: one class, `Network`, with one line
for each layer. It translates graphs, so it works for all networks. MindSpore itself is not needed.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from pellucid.errors import PellucidError

aten = torch.ops.aten

_OPERATORS = {operator.add: "+", operator.sub: "-", operator.mul: "*", operator.floordiv: "//"}

_HEADER = '''"""A network of pellucid as a MindSpore cell."""

import mindspore
from mindspore import Tensor, nn, ops


class Network(nn.Cell):
    def __init__(self, weights):
        super().__init__()
'''


@dataclass(frozen=True)
class Input:
    """An input of the cell. shape: None for each free size. dtype: by its name in MindSpore and NumPy."""

    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Cell:
    """source: of a module with the class `Network(weights)`. weights: by name, for `Network` as NumPy arrays."""

    source: str
    weights: Mapping[str, Tensor]
    inputs: Sequence[Input]


def translate(program: ExportedProgram) -> Cell:
    """The graph as a cell. Raises PellucidError for an operation that is not in `_WRITERS`."""
    writer = _Writer(program)
    for node in program.graph.nodes:
        writer.add(node)
    return Cell(writer.source(), writer.weights, writer.inputs)


class _Writer:
    """Collects the lines of one class, in the order of the graph."""

    def __init__(self, program: ExportedProgram) -> None:
        signature = program.graph_signature
        self._constant_names = signature.inputs_to_lifted_tensor_constants
        self._weight_names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._state: dict[str, Any] = {**program.state_dict, **program.constants}
        self.weights: dict[str, Tensor] = {}
        self.inputs: list[Input] = []
        self._input_names: list[str] = []
        self._fields: dict[str, str] = {}
        self._lines: list[str] = []
        self._sizes: dict[Any, str] = {}

    def add(self, node: Node) -> None:
        """Write the line of a node. Sizes are written where they are used."""
        if node.op == "placeholder":
            if node.name in self._weight_names:
                return
            self._add_constant(node) if node.name in self._constant_names else self._add_input(node)
        elif node.op == "output":
            (results,) = node.args
            assert isinstance(results, list | tuple) and len(results) == 1
            self._lines.append(f"return {results[0]}")
            return
        elif _is_size(node) or node.target in _UNWRITTEN:
            return
        else:
            if node.target not in _WRITERS:
                raise _unsupported(node)
            self._lines.append(f"{node.name} = {_WRITERS[node.target](self, node)}")
        self._record_sizes(node)

    def source(self) -> str:
        """The source of the module."""
        fields = [f"self.{name} = {definition}" for name, definition in self._fields.items()]
        indented = "".join(f"        {line}\n" for line in fields)
        body = "".join(f"        {line}\n" for line in self._lines)
        return f"{_HEADER}{indented}\n    def construct(self, {', '.join(self._input_names)}):\n{body}"

    def field(self, name: str, definition: str) -> str:
        """A member of the class; equal definitions share one member."""
        for number in range(len(self._fields) + 1):
            numbered = f"{name}_{number}" if number else name
            if self._fields.setdefault(numbered, definition) == definition:
                break
        return f"self.{numbered}"

    def weight(self, node: Node) -> str:
        """A weight as an argument; it becomes one of the weights of the cell."""
        return self._keep(self._weight_names[node.name])

    def layer(self, node: Node) -> str:
        """The name of the layer with this weight."""
        return self._weight_names[node.name].rpartition(".")[0].replace(".", "_")

    def value(self, value: object) -> str:
        """An argument: a tensor by its name, a size by `size`, a number unchanged."""
        return value.name if isinstance(value, Node) and not _is_size(value) else self.size(value)

    def size(self, value: Any) -> str:
        """A size: an axis of a tensor if one has this size, otherwise the computation of it.

        MindSpore cannot compute min() of sizes that are not fixed.
        """
        known = value.meta["val"] if isinstance(value, Node) else value
        if not isinstance(known, torch.SymInt):
            return repr(known)
        if known.node.expr in self._sizes:
            return self._sizes[known.node.expr]
        if not isinstance(value, Node) or value.target not in _OPERATORS:
            return self._write_expression(known.node.expr)
        left, right = map(self.size, value.args)
        return f"({left} {_OPERATORS[value.target]} {right})"

    def _write_expression(self, expression: Any) -> str:
        """Sums and products of known sizes, as SymPy represents them."""
        if expression.is_Integer or expression in self._sizes:
            return self._sizes.get(expression, str(expression))
        if not (expression.is_Add or expression.is_Mul):
            raise _unsupported(expression)
        sign = " + " if expression.is_Add else " * "
        return f"({sign.join(map(self._write_expression, expression.args))})"

    def _add_input(self, node: Node) -> None:
        shape = tuple(size if isinstance(size, int) else None for size in _shape(node))
        self._input_names.append(node.name)
        self.inputs.append(Input(shape, str(node.meta["val"].dtype).removeprefix("torch.")))

    def _add_constant(self, node: Node) -> None:
        self._lines.append(f"{node.name} = {self.field(node.name, self._keep(self._constant_names[node.name]))}")

    def _keep(self, name: str) -> str:
        self.weights[name] = self._state[name].detach()
        return f'Tensor(weights["{name}"])'

    def _record_sizes(self, node: Node) -> None:
        for axis, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt):
                self._sizes.setdefault(size.node.expr, f"{node.name}.shape[{axis}]")


def _unsupported(node: object) -> PellucidError:
    what = node.target if isinstance(node, Node) else f"the size {node}"
    return PellucidError(
        f"{what} cannot be translated to a MindSpore cell", hint="{format} can be onnx or openvino"
    )


def _is_size(node: Node) -> bool:
    return isinstance(node.meta.get("val"), int | torch.SymInt)


def _find_arguments(node: Node) -> dict[str, Any]:
    """All arguments of an operation by name, defaults included."""
    operation: Any = node.target
    schema = operation._schema.arguments
    positional = dict(zip((argument.name for argument in schema), node.args, strict=False))
    return {argument.name: argument.default_value for argument in schema} | positional | node.kwargs


def _shape(node: Node) -> tuple[Any, ...]:
    return tuple(node.meta["val"].shape)


def _axis(node: Node, axis: int) -> int:
    return axis % len(_shape(node))


# Layers with weights


def _write_conv(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    outputs, inputs, *kernel = _shape(arguments["weight"])
    padding = arguments["padding"]
    if padding == "same":
        # PyTorch allows "same" only with stride 1, and puts an odd padding at the end.
        both = [step * (side - 1) for step, side in zip(arguments["dilation"], kernel, strict=True)]
        sides = [part for total in both for part in (total // 2, total - total // 2)]
    elif padding == "valid":
        sides = [0, 0, 0, 0]
    else:
        sides = [part for side in padding for part in (side, side)]
    sizes = f"{inputs * arguments['groups']}, {outputs}, {tuple(kernel)}"
    options = f"pad_mode='pad', padding={tuple(sides)}"
    return _write_layer(writer, node, f"nn.Conv2d({sizes}, {options}")


def _write_conv_transposed(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    inputs, outputs, *kernel = _shape(arguments["weight"])
    sides = tuple(part for side in arguments["padding"] for part in (side, side))
    if any(arguments["output_padding"]):
        raise _unsupported(node)
    sizes = f"{inputs}, {outputs * arguments['groups']}, {tuple(kernel)}"
    return _write_layer(writer, node, f"nn.Conv2dTranspose({sizes}, pad_mode='pad', padding={sides}")


def _write_layer(writer: _Writer, node: Node, head: str) -> str:
    arguments = _find_arguments(node)
    options = [
        f"{name}={tuple(arguments[name])}" for name in ("stride", "dilation") if set(arguments[name]) != {1}
    ]
    if arguments["groups"] != 1:
        options.append(f"group={arguments['groups']}")
    if (dtype := node.meta["val"].dtype) != torch.float32:
        options.append(f"dtype={_name_dtype(dtype)}")
    options.append(f"has_bias={arguments['bias'] is not None}, weight_init={writer.weight(arguments['weight'])}")
    if arguments["bias"] is not None:
        options.append(f"bias_init={writer.weight(arguments['bias'])}")
    layer = writer.field(writer.layer(arguments["weight"]), f"{head}, {', '.join(options)})")
    return f"{layer}({arguments['input']})"


# Values


def _write_operator(sign: str, writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    if arguments.get("alpha", 1) != 1:
        raise _unsupported(node)
    return f"{writer.value(arguments['self'])} {sign} {writer.value(arguments['other'])}"


def _write_function(name: str, writer: _Writer, node: Node) -> str:
    return f"{name}({node.args[0]})"


def _write_rsub(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    if arguments["alpha"] != 1:
        raise _unsupported(node)
    return f"{writer.value(arguments['other'])} - {arguments['self']}"


def _write_remainder(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    return f"ops.floor_mod({arguments['self']}, {writer.value(arguments['other'])})"


def _write_where(writer: _Writer, node: Node) -> str:
    return f"ops.where({', '.join(map(writer.value, node.args))})"


def _write_all(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    layer = writer.field("all", f"ops.ReduceAll(keep_dims={arguments['keepdim']})")
    return f"{layer}({arguments['self']}, {_axis(arguments['self'], arguments['dim'])})"


def _write_min(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    layer = writer.field("min", f"ops.ReduceMin(keep_dims={arguments['keepdim']})")
    return f"{layer}({arguments['self']}, {tuple(arguments['dim'])})"


def _write_clamp(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    text = str(arguments["self"])
    for name, bound in (("maximum", arguments["min"]), ("minimum", arguments["max"])):
        text = text if bound is None else f"ops.{name}({text}, {writer.value(bound)})"
    return text


def _write_leaky_relu(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    layer = writer.field("leaky_relu", f"nn.LeakyReLU({arguments['negative_slope']})")
    return f"{layer}({arguments['self']})"


def _pass_through(writer: _Writer, node: Node) -> str:
    return str(node.args[0])


def _write_dropout(writer: _Writer, node: Node) -> str:
    if _find_arguments(node)["train"]:
        raise _unsupported(node)
    return _pass_through(writer, node)


def _write_cast(writer: _Writer, node: Node) -> str:
    return f"ops.cast({node.args[0]}, {_name_dtype(node.meta['val'].dtype)})"


def _name_dtype(dtype: torch.dtype) -> str:
    return str(dtype).replace("torch.", "mindspore.")


def _write_arange(writer: _Writer, node: Node) -> str:
    """start, ..., end - 1. start: 0 if there is only one argument."""
    start, end = ("0", *map(writer.size, node.args))[-2:]
    return f"{writer.field('count', 'ops.Range()')}({start}, {end}, 1)"


def _write_full(writer: _Writer, node: Node) -> str:
    """A number: no network needs more."""
    if node.args[0]:
        raise _unsupported(node)
    return writer.size(node.args[1])


def _write_ones(writer: _Writer, node: Node) -> str:
    return f"ops.ones({_shape(node)}, {_name_dtype(node.meta['val'].dtype)})"


# Positions


def _write_index_select(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    return f"ops.gather({arguments['self']}, {arguments['index']}, {_axis(arguments['self'], arguments['dim'])})"


def _write_index(writer: _Writer, node: Node) -> str:
    """For positions along one axis."""
    arguments = _find_arguments(node)
    given = [(axis, index) for axis, index in enumerate(arguments["indices"]) if index is not None]
    if len(given) != 1:
        raise _unsupported(node)
    ((axis, index),) = given
    return f"ops.gather({arguments['self']}, {index}, {axis})"


def _write_item(writer: _Writer, node: Node) -> str:
    """One of the parts of `unbind` or `split`."""
    parts, number = node.args
    if not isinstance(parts, Node) or not isinstance(number, int) or parts.target not in _PARTS:
        raise _unsupported(node)
    arguments = _find_arguments(parts)
    text, size = str(number), arguments.get("split_size")
    if size is not None:
        if not isinstance(size, int):
            raise _unsupported(parts)
        text = f"{number * size}:{(number + 1) * size}"
    return _index_axis(arguments["self"], arguments["dim"], text)


def _write_select(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    return _index_axis(arguments["self"], arguments["dim"], writer.size(arguments["index"]))


def _write_slice(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    start, end, step = (arguments[name] for name in ("start", "end", "step"))
    # In PyTorch, the largest integer means "to the end".
    to_end = end is None or (isinstance(end, int) and end == torch.iinfo(torch.int64).max)
    text = f"{writer.size(start) if start else ''}:{'' if to_end else writer.size(end)}"
    return _index_axis(arguments["self"], arguments["dim"], text if step == 1 else f"{text}:{step}")


def _write_narrow(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    start = writer.size(arguments["start"])
    return _index_axis(
        arguments["self"], arguments["dim"], f"{start}:{start} + {writer.size(arguments['length'])}"
    )


def _index_axis(tensor: Node, axis: int, text: str) -> str:
    return f"{tensor}[{':, ' * _axis(tensor, axis)}{text}]"


def _write_cat(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    parts = ", ".join(map(str, arguments["tensors"]))
    return f"ops.concat([{parts}], {_axis(arguments['tensors'][0], arguments['dim'])})"


def _write_stack(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    axis = arguments["dim"] % (len(_shape(arguments["tensors"][0])) + 1)
    return f"ops.stack([{', '.join(map(str, arguments['tensors']))}], {axis})"


def _write_unsqueeze(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    return f"ops.expand_dims({arguments['self']}, {arguments['dim'] % len(_shape(node))})"


def _write_expand(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    return f"ops.broadcast_to({arguments['self']}, ({', '.join(map(writer.size, arguments['size']))}))"


def _write_repeat(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    return f"ops.tile({arguments['self']}, ({', '.join(map(writer.size, arguments['repeats']))}))"


def _write_reshape(writer: _Writer, node: Node) -> str:
    """Also for `flatten` and `unflatten`: the graph contains the shape of the result."""
    return f"ops.reshape({node.args[0]}, ({', '.join(map(writer.size, _shape(node)))}))"


def _write_transpose(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    order = list(range(len(_shape(node))))
    first, second = (_axis(arguments["self"], arguments[name]) for name in ("dim0", "dim1"))
    order[first], order[second] = order[second], order[first]
    return f"ops.transpose({arguments['self']}, {tuple(order)})"


def _write_movedim(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    tensor = arguments["self"]
    order = list(range(len(_shape(tensor))))
    order.insert(_axis(tensor, arguments["destination"]), order.pop(_axis(tensor, arguments["source"])))
    return f"ops.transpose({tensor}, {tuple(order)})"


def _write_pad(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    modes = {"replicate": ("ops.PadV3(mode='edge')", ""), "constant": ("ops.PadV3()", ", 0.0")}
    if arguments["mode"] not in modes or arguments.get("value"):
        raise _unsupported(node)
    if not any(arguments["pad"]):
        return str(arguments["self"])
    layer, fill = modes[arguments["mode"]]
    return f"{writer.field('pad', layer)}({arguments['self']}, {tuple(arguments['pad'])}{fill})"


def _write_max_pool(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    kernel, stride = (list(arguments[name]) for name in ("kernel_size", "stride"))
    if (
        kernel != [2, 2]
        or stride not in ([], kernel)
        or any(arguments["padding"])
        or arguments["dilation"] != [1, 1]
    ):
        raise _unsupported(node)
    # With 2 x 2 windows, "same" equals PyTorch's ceil_mode: an odd row or column at the end is pooled alone.
    mode = "same" if arguments["ceil_mode"] else "valid"
    return f"{writer.field('pool', f'nn.MaxPool2d(2, 2, pad_mode={mode!r})')}({arguments['self']})"


def _write_upsample(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    tensor, factors = arguments["input"], arguments["scale_factors"]
    if factors is None or any(factor != int(factor) for factor in factors):
        raise _unsupported(node)
    sizes = ", ".join(
        f"{tensor}.shape[{axis}] * {int(factor)}" for axis, factor in zip((2, 3), factors, strict=True)
    )
    return f"{writer.field('nearest', 'ops.ResizeNearestNeighborV2()')}({tensor}, ({sizes}))"


def _write_pixel_shuffle(writer: _Writer, node: Node) -> str:
    arguments = _find_arguments(node)
    return f"ops.pixel_shuffle({arguments['self']}, {arguments['upscale_factor']})"


_PARTS = (aten.unbind.int, aten.split.Tensor)

_UNWRITTEN = (aten._assert_tensor_metadata.default, *_PARTS)
"""Checks, and what is written where it is used."""

_WRITERS: dict[Any, Callable[[_Writer, Node], str]] = {
    aten.conv2d.default: _write_conv,
    aten.conv2d.padding: _write_conv,
    aten.conv_transpose2d.input: _write_conv_transposed,
    aten.add.Tensor: partial(_write_operator, "+"),
    aten.sub.Tensor: partial(_write_operator, "-"),
    aten.rsub.Scalar: _write_rsub,
    aten.mul.Tensor: partial(_write_operator, "*"),
    aten.div.Tensor: partial(_write_operator, "/"),
    aten.remainder.Tensor: _write_remainder,
    aten.lt.Scalar: partial(_write_operator, "<"),
    aten.gt.Scalar: partial(_write_operator, ">"),
    aten.ge.Tensor: partial(_write_operator, ">="),
    aten.ge.Scalar: partial(_write_operator, ">="),
    aten.where.self: _write_where,
    aten.all.dim: _write_all,
    aten.amin.default: _write_min,
    aten.abs.default: partial(_write_function, "ops.abs"),
    aten.floor.default: partial(_write_function, "ops.floor"),
    aten.sqrt.default: partial(_write_function, "ops.sqrt"),
    aten.square.default: partial(_write_function, "ops.square"),
    aten.clamp.default: _write_clamp,
    aten.relu.default: partial(_write_function, "ops.relu"),
    aten.leaky_relu.default: _write_leaky_relu,
    aten.feature_dropout.default: _write_dropout,
    aten.alias.default: _pass_through,  # a slice that keeps everything, if sizes are fixed
    aten.lift_fresh_copy.default: _pass_through,
    aten.detach_.default: _pass_through,
    aten.to.dtype: _write_cast,
    aten.to.dtype_layout: _write_cast,
    aten._to_copy.default: _write_cast,
    aten.arange.default: _write_arange,
    aten.arange.start: _write_arange,
    aten.full.default: _write_full,
    aten.new_ones.default: _write_ones,
    aten.index_select.default: _write_index_select,
    aten.index.Tensor: _write_index,
    operator.getitem: _write_item,
    aten.select.int: _write_select,
    aten.slice.Tensor: _write_slice,
    aten.narrow.default: _write_narrow,
    aten.cat.default: _write_cat,
    aten.stack.default: _write_stack,
    aten.unsqueeze.default: _write_unsqueeze,
    aten.expand.default: _write_expand,
    aten.repeat.default: _write_repeat,
    aten.reshape.default: _write_reshape,
    aten.flatten.using_ints: _write_reshape,
    aten.unflatten.int: _write_reshape,
    aten.transpose.int: _write_transpose,
    aten.movedim.int: _write_movedim,
    aten.pad.default: _write_pad,
    aten.max_pool2d.default: _write_max_pool,
    aten.upsample_nearest2d.vec: _write_upsample,
    aten.pixel_shuffle.default: _write_pixel_shuffle,
}
"""The operations of all networks and their variants, and of whole graphs."""
