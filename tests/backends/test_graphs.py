"""Graphs hold the network for every size, and say what they are."""

import sys

import numpy as np
import pytest
import torch
from torch.export import ExportedProgram

import small_models
from pellucid import errors
from pellucid.backends import graphs, parity
from pellucid.backends.backend import Shape
from pellucid.backends.eager import TorchBackend

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnxruntime")


def captured(
    name: str, *, dtype: torch.dtype = torch.float32, shape: Shape | None = None
) -> tuple[ExportedProgram, torch.nn.Module, torch.Tensor]:
    chosen, network = small_models.build(name)
    program = graphs.capture(network, chosen.domain.num_planes, dtype=dtype, shape=shape)
    return program, network, parity.synthetic_inputs(chosen, 48)


@pytest.mark.parametrize("name", small_models.RECIPES)
def test_a_graph_is_the_network_at_every_size(name: str) -> None:
    chosen, network = small_models.build(name)
    TorchBackend(network, "cpu")  # which turns the weights about
    program, degraded = graphs.capture(network, chosen.domain.num_planes), parity.synthetic_inputs(chosen, 48)
    module = program.module()
    for part in parity.crop_inputs(degraded, [(1, 1), (1, 2), (2, 3), (17, 31), (32, 48), (33, 48)]):
        torch.testing.assert_close(module(part), network(part), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["mimo_unet.gopro", "sid_unet.sony"])
def test_a_graph_of_half_precision_takes_every_size(name: str) -> None:
    program, network, degraded = captured(name, dtype=torch.bfloat16)
    module = program.module()
    for part in parity.crop_inputs(degraded, [(1, 1), (17, 31)]):
        found = module(part)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, network(part), rtol=0, atol=0.1)
        assert not torch.equal(found, network(part))


def test_a_network_is_left_as_it_was() -> None:
    _, network, _ = captured("dncnn.gaussian", dtype=torch.float16)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_onnx_is_one_file_with_named_free_sizes_and_facts() -> None:
    program, _, _ = captured("sid_unet.sony")
    model = graphs.to_onnx(program)
    graphs.annotate(model, {"scale": "2", "license": "CC0"})
    assert graphs.metadata_of({entry.key: entry.value for entry in model.metadata_props}) == {
        "scale": "2",
        "license": "CC0",
    }
    sizes = [
        [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    ]
    assert sizes == [["count", 4, "height", "width"], ["count", 3, "restored_height", "restored_width"]]
    assert model.opset_import[0].version == graphs.OPSET
    assert not any(
        attribute.i
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "MaxPool" and attribute.name == "ceil_mode"
    )


def test_a_fixed_size_is_fixed() -> None:
    program, network, _ = captured("dncnn.gaussian", shape=(1, 1, 20, 30))
    model = graphs.to_onnx(program)
    sizes = [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == [1, 1, 20, 30]
    degraded = torch.rand(1, 1, 20, 30)
    session = reference.InferenceSession(model.SerializeToString())
    found = session.run(None, {graphs.INPUT: degraded.numpy()})[0]
    np.testing.assert_allclose(found, network(degraded).numpy(), atol=1e-5)


def test_without_the_packages_the_pip_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    program, _, _ = captured("dncnn.gaussian")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(errors.MissingExtraError, match=r"pip install 'pellucid\[onnx\]'"):
        graphs.to_onnx(program)
