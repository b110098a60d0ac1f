"""Graphs from templates equal exported ones, and only networks of the package have templates."""

import re
import shutil
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import graph_templates
import numpy as np
import pytest
import torch
from torch import nn

from pellucid.backends import graphs, selection, templates
from pellucid.backends.metadata import INPUT
from pellucid.backends.model import Model, load_model
from pellucid.networks import srcnn
from pellucid.recipes import network_files, registry
from pellucid.recipes.network import Network
from pellucid.weights.models import find_model, list_models

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
SHIPPED = [model.name for model in list_models() if model.is_shipped]
ARCHITECTURES = sorted(path.stem.rsplit("-", 2)[0] for path in templates.FOLDER.glob("*.onnx"))
"""The first model of each."""

LARGE = ("dncnn-color-blind", "dncnn-gray-blind", "mimo-unet")
"""Of the same code as smaller ones; their export takes much longer."""

TOLERANCE = 1e-4
"""The sums of white noise are larger than those of pictures, and so are their last bits."""

REMEDY = "run `python tools/graph_templates.py`"


def load(name: str) -> Model:
    return load_model(find_model(name))[0]


def find(network: Network, num_planes: int = 1) -> Path | None:
    return templates.find_template(graphs.freeze(network, torch.float32), num_planes)


def describe(network: Network, num_planes: int = 1) -> str | None:
    return templates.hash_architecture(graphs.freeze(network, torch.float32), num_planes)


def build(network: Network, num_planes: int) -> Any:
    model = templates.build_graph(network, num_planes)
    assert model is not None, REMEDY
    return model


def draw(num_planes: int, size: tuple[int, int]) -> torch.Tensor:
    return torch.rand(2, num_planes, *size, generator=torch.Generator().manual_seed(0))


def run(model: Any, degraded: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {INPUT: degraded.numpy()})[0]
    return result


@cache
def has_expected_versions() -> bool:
    """Whether the packages that write graphs are those by which the templates were made."""
    wanted = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    names = ("torch", "onnx", "onnxscript", "onnx-ir")
    return all(version(name).partition("+")[0] == wanted[name] for name in names)


# Templates of the models that ship


def test_every_shipped_model_has_a_template_and_no_other_exists() -> None:
    found: dict[str, str] = {}
    for name in SHIPPED:
        model = load(name)
        path = find(model.network, model.metadata.num_planes)
        assert path is not None, f"{name}: its network was changed, or is new: {REMEDY}"
        found.setdefault(path.name, name)
    assert found == {path.name: path.stem.rsplit("-", 2)[0] for path in templates.FOLDER.iterdir()}, REMEDY


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in ARCHITECTURES],
)
def test_a_filled_template_equals_a_new_export(name: str) -> None:
    model = load(name)
    num_planes = model.metadata.num_planes
    found = build(model.network, num_planes)
    wanted = graphs.to_onnx(graphs.capture(model.network, num_planes))
    wanted.producer_version = found.producer_version  # that of the file ends in e.g. +cpu
    if has_expected_versions():
        assert found.SerializeToString() == wanted.SerializeToString(), REMEDY
    for size in ((1, 1), (18, 35)):
        degraded = draw(num_planes, size)
        np.testing.assert_array_equal(run(found, degraded), run(wanted, degraded))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_filled_template_computes_what_the_network_does(name: str) -> None:
    model = load(name)
    found = build(model.network, model.metadata.num_planes)
    onnx.checker.check_model(found)
    degraded = draw(model.metadata.num_planes, (13, 18))
    np.testing.assert_allclose(run(found, degraded), model.network(degraded), rtol=0, atol=TOLERANCE)


def test_the_weights_are_those_of_the_network() -> None:
    network = load("srcnn-x2").network
    degraded = draw(1, (20, 20))
    earlier = run(build(network, 1), degraded)
    network.get_parameter("map.bias")[3] += 0.5
    found = run(build(network, 1), degraded)
    assert np.abs(found - earlier).max() > 1e-3
    np.testing.assert_allclose(found, network(degraded), rtol=0, atol=TOLERANCE)


@pytest.mark.skipif(not has_expected_versions(), reason="other versions may write other files")
def test_the_tool_writes_the_same_templates() -> None:
    frozen = graphs.freeze(load("srcnn-x4").network, torch.float32)
    assert isinstance(frozen, Network)
    path = templates.find_template(frozen, 1)
    assert path is not None and graph_templates.make(frozen, 1) == path.read_bytes()


# Networks without a template


class Sharper(srcnn.SRCNN):
    def forward(self, degraded: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(degraded)


class Undocumented(srcnn.SRCNN):
    """Claims to be from the package."""

    __module__, __qualname__ = srcnn.SRCNN.__module__, "SRCNN"


@pytest.mark.parametrize(
    ("recipe", "parameters", "num_planes"),
    [
        ("dncnn.gaussian", {"width": 32}, 1),
        ("dncnn.gaussian", {"depth": 16}, 1),
        ("srcnn.paper", {"padding": "zeros"}, 1),
        # The names and shapes of the tensors are those of models that ship.
        ("mimo_unet.gopro", {"upsampling": "asymmetric"}, 3),
        ("sid_unet.any_camera", {"channel_order": "color-major"}, 4),
    ],
)
def test_another_architecture_has_no_template(recipe: str, parameters: dict[str, Any], num_planes: int) -> None:
    usual, other = registry.find(recipe).network(), registry.find(recipe, **parameters).network()
    assert find(usual, num_planes) is not None and find(other, num_planes) is None
    assert describe(usual, num_planes) != describe(other, num_planes)


def test_another_number_of_planes_is_another_architecture() -> None:
    assert describe(srcnn.SRCNN(), 1) != describe(srcnn.SRCNN(), 2)


@pytest.mark.parametrize("kind", [Sharper, Undocumented])
def test_a_class_of_other_code_has_no_template(kind: type[Network]) -> None:
    assert describe(srcnn.SRCNN()) is not None
    assert describe(kind()) is None


def test_a_network_file_of_the_user_has_no_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_files, "_added", {})
    path = shutil.copy(str(srcnn.__file__), tmp_path / "mine.py")
    added = network_files.add_network(path)
    name = added.module.__name__
    monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))  # removed after the test
    assert describe(registry.find("mine.paper").network()) is None


def _replace_forward(network: Network) -> None:
    network.forward = lambda degraded: degraded  # what a user may do in a notebook


def _replace_forward_of_a_layer(network: Network) -> None:
    network.get_submodule("map").forward = torch.zeros_like


def _add_hook(network: Network) -> None:
    network.get_submodule("map").register_forward_hook(lambda layer, inputs, result: 2 * result)


def _add_buffer(network: Network) -> None:
    network.register_buffer("gain", torch.ones(1), persistent=False)


def _add_own_layer(network: Network) -> None:
    network.map = nn.Sequential(network.get_submodule("map"), _Doubled())


class _Doubled(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return 2 * features


@pytest.mark.parametrize(
    "change", [_replace_forward, _replace_forward_of_a_layer, _add_own_layer, _add_hook, _add_buffer]
)
def test_a_network_that_was_changed_has_no_template(change: Callable[[Network], None]) -> None:
    network = srcnn.SRCNN()
    change(network)
    assert describe(network) is None


def test_a_network_of_changed_source_code_has_no_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(str(srcnn.__file__)).read_text()
    usual, changed = describe(srcnn.SRCNN()), tmp_path / "srcnn.py"
    monkeypatch.setattr(srcnn, "__file__", str(changed))
    for old, new, is_same in (
        ("lr=3e-3", "lr=3e-4", True),  # in a recipe
        ("features = F.relu(self.map(features))", "features = self.map(features)", False),
        ("block_px = 4", "block_px = 2", False),  # in another class, which the first one uses
        ("    return 9 // 2", "    return 8 // 2", False),  # in a function
    ):
        assert source.count(old) >= 1
        changed.write_text(source.replace(old, new))
        assert (describe(srcnn.SRCNN()) == usual) == is_same, old
    changed.unlink()
    assert describe(srcnn.SRCNN()) is None


SOURCE = '''"""Text."""
import math
from a import b, c

SIZE = 3
OTHER = 4

@b
def used(x):
    return SIZE * x

def unused(x):
    return OTHER * math.pi

class Layer:
    """Words."""

    def forward(self, x):
        return used(x)
'''


def test_the_selected_source_is_what_a_class_uses() -> None:
    selected = templates.select_source(SOURCE, {"Layer"})
    without_unused = re.sub(r"def unused.*?\n\n", "", SOURCE, flags=re.DOTALL)
    lines = [line for line in without_unused.splitlines() if line and line not in ("import math", "OTHER = 4")]
    assert [line for line in selected.splitlines() if line] == lines[1:]


# Files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the templates, which is used instead of them; and an empty cache."""
    shutil.copytree(templates.FOLDER, tmp_path / "templates")
    monkeypatch.setattr(templates, "FOLDER", tmp_path / "templates")
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "templates"


@pytest.mark.usefixtures("folder")
def test_a_template_needs_no_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "capture", None)  # calling it would fail
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    model = load("srcnn-x2")
    entries = {entry.key: entry.value for entry in onnx.load(selection.cache_graph(model)).metadata_props}
    assert entries["pellucid.weights_sha256"] == model.metadata.weights_sha256


def _remove(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _change(path: Path) -> None:
    """A graph that is valid, but computes something else."""
    content = path.read_bytes()
    assert content.count(b"Relu") > 1
    path.write_bytes(content.replace(b"Relu", b"Tanh"))


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [_remove, _truncate, _change, _replace_by_folder])
def test_a_damaged_template_is_not_used(folder: Path, damage: Callable[[Path], None]) -> None:
    model = load("srcnn-x2")
    assert templates.build_graph(model.network, 1) is not None
    damage(next(folder.glob("srcnn-*")))
    assert templates.build_graph(model.network, 1) is None


def test_without_a_template_the_network_is_exported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, degraded = load("srcnn-x2"), draw(1, (20, 20))
    capture = Mock(wraps=graphs.capture)
    monkeypatch.setattr(graphs, "capture", capture)
    _change(next(folder.glob("srcnn-*")))
    found = onnx.load(selection.cache_graph(model))
    capture.assert_called_once()
    np.testing.assert_allclose(run(found, degraded), model.network(degraded), rtol=0, atol=TOLERANCE)


def test_a_template_contains_no_other_weights() -> None:
    model = build(srcnn.SRCNN(), 1)
    tensors, others = _tensors(model), _tensors(build(load("srcnn-x2").network, 1))
    assert templates.fill_template(templates.make_template(model, tensors), others) == build(
        load("srcnn-x2").network, 1
    )
    with pytest.raises(ValueError, match=r"extract.weight is neither a small constant nor a tensor"):
        templates.make_template(model, others)
    with pytest.raises(ValueError, match=r"reconstruct.bias is neither a small constant nor a tensor"):
        templates.make_template(model, tensors | {"reconstruct.bias": torch.zeros(16)})
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(17, np.float32), "folded"))
    with pytest.raises(ValueError, match=r"folded is neither a small constant nor a tensor"):
        templates.make_template(model, tensors)


def test_weights_that_do_not_fit_raise() -> None:
    model = build(srcnn.SRCNN(), 1)
    tensors = _tensors(model)
    template = templates.make_template(model, tensors)
    del tensors["map.bias"]
    with pytest.raises(ValueError, match=r"no tensor map.bias \[32\]"):
        templates.fill_template(template, tensors)


def _tensors(model: Any) -> dict[str, torch.Tensor]:
    """The weights in a graph."""
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items() if array.dtype == np.float32}
