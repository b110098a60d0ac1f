"""Graphs without their weights, which ship with the package, so that the first use of a model need not export it.

Models of one architecture differ only in their weights. Each template is an ONNX graph whose weights were removed;
inserting those of a model takes milliseconds, exporting takes seconds. `tools/graph_templates.py` writes them.

The name of a template contains a hash of everything that determines the graph, including the source code of the
network, and a hash of its content. So a network that was changed, or that is not from the package, has no
template, and a damaged template is never used.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pellucid.backends import graphs
from pellucid.backends.metadata import OPSET
from pellucid.recipes.network import Network
from pellucid.recipes.network_files import PACKAGE, packaged_networks
from pellucid.system.optional_packages import import_optional

if TYPE_CHECKING:
    from onnx import ModelProto

FOLDER = Path(__file__).parent / "graph_templates"

_MAX_CONSTANT_BYTES = 64
"""Graphs contain sizes and factors; anything larger must be a weight, or was computed from weights."""

_LAYERS = "torch.nn.modules."
"""Layers of PyTorch are described by their class and `extra_repr`, so that a template fits every version of it."""


def build_graph(network: Network, num_planes: int) -> "ModelProto | None":
    """The optimized network as an ONNX model with weights, in float32; None if there is no template for it.

    Equals `graphs.to_onnx(graphs.capture(network, num_planes))`. num_planes: C of the input.
    Raises MissingExtraError without onnx.
    """
    frozen = graphs.freeze(network, torch.float32)
    path = find_template(frozen, num_planes)
    template = None if path is None else _read(path)
    return None if template is None else fill_template(template, frozen.state_dict())


def find_template(frozen: nn.Module, num_planes: int) -> Path | None:
    """The template for a network of `graphs.freeze`; None if there is none. Its content is not checked."""
    signature = hash_architecture(frozen, num_planes)
    return None if signature is None else next(FOLDER.glob(f"*-{signature}-*.onnx"), None)


def may_have_template(network: nn.Module) -> bool:
    """Whether all layers are of the package or of PyTorch. Others might not even be copied."""
    return all(
        _is_packaged(type(layer)) or type(layer).__module__.startswith(_LAYERS) for layer in network.modules()
    )


def name_template(stem: str, signature: str, content: bytes) -> str:
    """The file name of a template. stem: for people; signature: of `hash_architecture`."""
    return f"{stem}-{signature}-{_hash(content)}.onnx"


def make_template(model: "ModelProto", tensors: Mapping[str, Tensor]) -> "ModelProto":
    """A copy of a graph without its weights.

    tensors: the state of the frozen network, float32; random, because the exporter may merge equal tensors and
        omit zeros. Raises ValueError if the graph contains other constants that are as large as weights.
    """
    template = type(model)()
    template.CopyFrom(model)
    for initializer in template.graph.initializer:
        content = initializer.raw_data
        tensor = tensors.get(initializer.name)
        if tensor is not None and (tuple(initializer.dims), content) == (tuple(tensor.shape), _to_bytes(tensor)):
            initializer.ClearField("raw_data")
        elif tensor is not None or not 0 < len(content) <= _MAX_CONSTANT_BYTES:
            raise ValueError(f"{initializer.name} is neither a small constant nor a tensor of the network")
    return template


def fill_template(template: "ModelProto", tensors: Mapping[str, Tensor]) -> "ModelProto":
    """Insert weights into a template, in place.

    tensors: the state of the frozen network, float32. Raises ValueError if one is missing or has another shape.
    """
    for initializer in template.graph.initializer:
        if initializer.HasField("raw_data"):
            continue
        tensor = tensors.get(initializer.name)
        if tensor is None or tuple(tensor.shape) != tuple(initializer.dims):
            raise ValueError(f"the network has no tensor {initializer.name} {list(initializer.dims)}")
        initializer.raw_data = _to_bytes(tensor)
    return template


def hash_architecture(frozen: nn.Module, num_planes: int) -> str | None:
    """A hash of everything that determines the graph of a network of `graphs.freeze`, but for its weights.

    None if the network may have properties that the hash cannot contain: layers that are neither of PyTorch nor of
    the networks in the package, attributes other than plain values, hooks, or buffers that are not saved.
    """
    parts: list[object] = [OPSET, num_planes]
    parts += [getattr(frozen, name, None) for name in ("scale", "multiple", "halo")]
    parts += [(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in frozen.state_dict().items()]
    classes: set[type] = set()
    for name, module in frozen.named_modules(remove_duplicate=False):
        kind = type(module)
        attributes = _list_attributes(module)
        is_own = _is_packaged(kind)
        if attributes is None or not (is_own or kind.__module__.startswith(_LAYERS)):
            return None
        if is_own:
            classes.add(kind)
        # PyTorch's own layers may have other attributes in other versions.
        state = attributes if is_own else [("training", module.training)]
        parts.append((name, kind.__module__ if is_own else "torch", kind.__qualname__, module.extra_repr(), state))
    try:
        parts += _read_sources(classes)
    except (OSError, SyntaxError):  # an installation without source code
        return None
    return _hash(repr(parts).encode())


def _list_attributes(module: nn.Module) -> list[tuple[str, object]] | None:
    """The attributes of a layer in the order of names; None if it has any that its hash cannot contain."""
    values = vars(module)
    has_hooks = any(value for name, value in values.items() if name.endswith("_hooks"))
    attributes = sorted((name, value) for name, value in values.items() if name not in _MODULE_ATTRIBUTES)
    if has_hooks or values["_non_persistent_buffers_set"] or not all(_is_plain(value) for _, value in attributes):
        return None
    return attributes


_MODULE_ATTRIBUTES = vars(nn.Module()).keys() - {"training"}


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _is_packaged(kind: type) -> bool:
    """Whether a class is from a network file of the package, not from one that the user added."""
    package, _, name = kind.__module__.rpartition(".")
    found = getattr(sys.modules.get(kind.__module__), kind.__qualname__, None)
    return package == PACKAGE and name in packaged_networks() and found is kind


def _read_sources(classes: set[type]) -> Iterator[str]:
    """The source code of classes, and of all that they use in their files."""
    for module in sorted({kind.__module__ for kind in classes}):
        path = Path(str(sys.modules[module].__file__))
        names = {kind.__qualname__ for kind in classes if kind.__module__ == module}
        yield select_source(path.read_text(encoding="utf-8"), names)


def select_source(source: str, names: set[str]) -> str:
    """The definitions of these names in a source file, and of all names that they use; e.g. no recipes.

    Equal for all versions of Python.
    """
    lines = source.splitlines()
    wanted, nodes = set(names), ast.parse(source).body
    selected: set[int] = set()
    while added := [i for i, node in enumerate(nodes) if i not in selected and _defines(node, wanted)]:
        selected.update(added)
        wanted |= {found.id for i in added for found in ast.walk(nodes[i]) if isinstance(found, ast.Name)}
    return "\n".join("\n".join(lines[_first_line(nodes[i]) - 1 : nodes[i].end_lineno]) for i in sorted(selected))


def _defines(node: ast.stmt, names: set[str]) -> bool:
    """Whether a statement defines one of the names, or may do so."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return node.name in names
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any((alias.asname or alias.name.partition(".")[0]) in names for alias in node.names)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(not isinstance(target, ast.Name) or target.id in names for target in targets)
    return not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))  # a docstring


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _read(path: Path) -> "ModelProto | None":
    """A template; None if it cannot be read, or is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if not path.stem.endswith(f"-{_hash(content)}"):
        return None
    template: ModelProto = import_optional("onnx").ModelProto.FromString(content)
    return template


def _to_bytes(tensor: Tensor) -> bytes:
    """Values as in ONNX: float32, little-endian."""
    return tensor.numpy().astype("<f4", copy=False).tobytes()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
