"""Graphs equal the network at every size, and contain metadata."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.export import ExportedProgram

import small_models
from pellucid import errors
from pellucid.backends import graphs, parity
from pellucid.backends.backend import Shape
from pellucid.backends.eager import TorchBackend
from pellucid.backends.metadata import INPUT, OPSET

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnxruntime")


def capture(
    name: str, *, dtype: torch.dtype = torch.float32, shape: Shape | None = None
) -> tuple[ExportedProgram, torch.nn.Module, torch.Tensor]:
    chosen, network = small_models.build(name)
    program = graphs.capture(network, chosen.domain.num_planes, dtype=dtype, shape=shape)
    return program, network, parity.synthetic_inputs(chosen, 48)


@pytest.mark.parametrize("name", small_models.RECIPES)
def test_a_graph_equals_the_network_at_every_size(name: str) -> None:
    chosen, network = small_models.build(name)
    TorchBackend(network, "cpu")  # changes the memory layout of the weights
    program, degraded = graphs.capture(network, chosen.domain.num_planes), parity.synthetic_inputs(chosen, 48)
    module = program.module()
    for part in parity.crop_inputs(degraded, [(1, 1), (1, 2), (2, 3), (17, 31), (32, 48), (33, 48)]):
        torch.testing.assert_close(module(part), network(part), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["mimo_unet.gopro", "sid_unet.sony"])
def test_a_graph_in_half_precision_accepts_every_size(name: str) -> None:
    program, network, degraded = capture(name, dtype=torch.bfloat16)
    module = program.module()
    for part in parity.crop_inputs(degraded, [(1, 1), (17, 31)]):
        found = module(part)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, network(part), rtol=0, atol=0.1)
        assert not torch.equal(found, network(part))


def test_capturing_does_not_change_the_network() -> None:
    _, network, _ = capture("dncnn.gaussian", dtype=torch.float16)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_onnx_has_named_free_sizes_and_metadata() -> None:
    program, _, _ = capture("sid_unet.sony")
    model = graphs.to_onnx(program)
    graphs.annotate(model, {"scale": "2", "license": "CC0"})
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert len(found.pop("pellucid.stored_weights_sha256")) == 64
    assert found == {"pellucid.scale": "2", "pellucid.license": "CC0"}
    sizes = [
        [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    ]
    assert sizes == [["count", 4, "height", "width"], ["count", 3, "restored_height", "restored_width"]]
    assert model.opset_import[0].version == OPSET
    assert not any(
        attribute.i
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "MaxPool" and attribute.name == "ceil_mode"
    )


def test_a_fixed_shape_is_fixed() -> None:
    program, network, _ = capture("dncnn.gaussian", shape=(1, 1, 20, 30))
    model = graphs.to_onnx(program)
    sizes = [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == [1, 1, 20, 30]
    degraded = torch.rand(1, 1, 20, 30)
    session = reference.InferenceSession(model.SerializeToString())
    found = session.run(None, {INPUT: degraded.numpy()})[0]
    np.testing.assert_allclose(found, network(degraded).numpy(), atol=1e-5)


def test_a_missing_package_is_named_with_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    program, _, _ = capture("dncnn.gaussian")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(errors.MissingExtraError, match=r"pip install 'pellucid\[onnx\]'"):
        graphs.to_onnx(program)


def test_an_onnx_model_does_not_contain_paths_of_this_computer() -> None:
    program, _, _ = capture("dncnn.gaussian")
    content = graphs.to_onnx(program).SerializeToString()
    for module in (torch, graphs):
        assert module.__file__ is not None
        assert str(Path(module.__file__).parent).encode() not in content
