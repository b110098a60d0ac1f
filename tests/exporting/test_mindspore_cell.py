"""Graphs become the source of MindSpore cells, line by line; unsupported operations are named."""

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import small_models
from pellucid.backends import graphs
from pellucid.backends.backend import Shape
from pellucid.backends.model import load_model
from pellucid.errors import PellucidError
from pellucid.exporting import mindspore_cell, whole
from pellucid.recipes.network import Network

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *small_models.RECIPES.items(),
    ("srcnn.paper", {"padding": "zeros", "bias": False}),
    ("mimo_unet.gopro", {"num_blocks": 1, "upsampling": "asymmetric", "dropout": 0.1}),
    ("sid_unet.sony", {"up_bias": True, "conv_bias": False}),
    ("sid_unet.fuji", {"channel_order": "color-major"}),
]


def translate(name: str, *, shape: Shape | None = None, **parameters: Any) -> tuple[mindspore_cell.Cell, Network]:
    chosen, network = small_models.build(name, **parameters)
    program = graphs.capture(network, chosen.domain.num_planes, shape=shape)
    return mindspore_cell.translate(program), network.optimize_for_inference()


@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
def test_a_cell_uses_every_weight_once(name: str, parameters: dict[str, Any]) -> None:
    cell, network = translate(name, **parameters)
    # MIMO-UNet's outputs at smaller scales are only for its loss.
    needed = {key: weight for key, weight in network.state_dict().items() if key[:6] not in ("leave2", "leave4")}
    assert cell.weights.keys() == needed.keys()
    for key, weight in needed.items():
        assert torch.equal(cell.weights[key], weight)
        assert cell.source.count(f'weights["{key}"]') == 1
    (network_class,) = (node for node in ast.parse(cell.source).body if isinstance(node, ast.ClassDef))
    assert network_class.name == "Network"


@pytest.mark.parametrize("name", small_models.RECIPES)
def test_a_fixed_shape_is_translated(name: str) -> None:
    planes = small_models.build(name)[0].domain.num_planes
    cell, _ = translate(name, shape=(1, planes, 32, 17))
    assert ".shape[0]" not in cell.source


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("name", [*small_models.RECIPES, "sid_unet.any_camera", "dncnn.raw"])
def test_whole_graphs_are_translated(name: str, layout: str, tmp_path: Path) -> None:
    """The source is run by MindSpore in `test_mindspore.py`; here, MindSpore need not be installed."""
    weights = small_models.save_weights(tmp_path, name, **small_models.RECIPES.get(name, {"width": 4}))
    model, _ = load_model(weights)
    form = whole.choose_form(model.recipe.domain, None, layout, None)
    names = whole.name_all_dimensions(model.recipe.domain, form)
    for shape in (None, (2, 24, 24, whole.count_input_channels(model.recipe.domain, form))):
        if shape is not None and layout == "nchw":
            shape = (shape[0], shape[3], *shape[1:3])
        cell = mindspore_cell.translate(whole.capture_whole(model, form, shape=shape))
        ast.parse(cell.source)
        assert f"def construct(self, {', '.join(list(names)[:-1])}):" in cell.source
        assert cell.inputs[0].dtype == form.samples
        assert all((None in one.shape) == (shape is None) for one in cell.inputs)


def test_a_cell_has_the_layers_of_the_network() -> None:
    cell, _ = translate("dncnn.gaussian", depth=2, width=8)
    layers = (
        f"        self.layers_{i}_conv = nn.Conv2d({sizes}, (3, 3), pad_mode='pad', padding=(1, 1, 1, 1), "
        f'has_bias=True, weight_init=Tensor(weights["layers.{i}.conv.weight"]), '
        f'bias_init=Tensor(weights["layers.{i}.conv.bias"]))\n'
        for i, sizes in enumerate(("1, 8", "8, 1"))
    )
    assert cell.source.split("super().__init__()\n")[1] == "".join(layers) + (
        "\n"
        "    def construct(self, degraded):\n"
        "        conv2d = self.layers_0_conv(degraded)\n"
        "        relu = ops.relu(conv2d)\n"
        "        conv2d_1 = self.layers_1_conv(relu)\n"
        "        sub = degraded - conv2d_1\n"
        "        return sub\n"
    )


def test_free_sizes_are_read_from_tensors() -> None:
    """PyTorch's graph contains the minimum of two sizes, which MindSpore cannot express."""
    cell, _ = translate("sid_unet.sony")
    assert "slice_1 = conv_transpose2d[:, :, :max_pool2d_2.shape[2]]" in cell.source
    assert "ops.reshape(conv2d_18, (packed.shape[0], 4, 3, slice_7.shape[2], slice_8.shape[3]))" in cell.source


def test_other_sizes_are_computed() -> None:
    cell, _ = translate("mimo_unet.gopro")
    assert "arange = self.count(0, ((((degraded.shape[2] + 4) - 1) // 4) * 4), 1)" in cell.source


def test_half_precision_casts_input_and_output() -> None:
    chosen, network = small_models.build("dncnn.gaussian")
    cell = mindspore_cell.translate(graphs.capture(network, chosen.domain.num_planes, dtype=torch.float16))
    assert "ops.cast(degraded, mindspore.float16)" in cell.source
    assert cell.source.count("dtype=mindspore.float16") == 4
    assert {weight.dtype for weight in cell.weights.values()} == {torch.float16}
    assert "mindspore.float32)\n        return" in cell.source


class Other(Network):
    scale, multiple, halo = 1, 1, 0

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, degraded: Tensor) -> Tensor:
        return self.layer(degraded)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda x: x[:, :, 1:3], "degraded[:, :, 1:3]"),
        (lambda x: x[:, :, 1:], "degraded[:, :, 1:]"),
        (lambda x: x[..., :7:2], "degraded[:, :, :, :7:2]"),
        (lambda x: x[..., ::2], "degraded[:, :, :, ::2]"),
    ],
)
def test_slices_keep_their_ends(layer: Any, text: str) -> None:
    cell = mindspore_cell.translate(graphs.capture(Other(layer), 1, shape=(1, 1, 9, 9)))
    assert f" = {text}\n" in cell.source


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (F.gelu, "aten.gelu.default"),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "aten.pad.default"),
        (lambda x: F.pad(x, (1, 1, 1, 1), value=1.0), "aten.pad.default"),
        (lambda x: F.max_pool2d(x, 3, padding=1), "aten.max_pool2d.default"),
        (lambda x: F.interpolate(x, scale_factor=1.5, mode="nearest"), "aten.upsample_nearest2d.vec"),
        (lambda x: torch.add(x, x, alpha=2), "aten.add.Tensor"),
    ],
)
def test_an_unsupported_operation_is_named(layer: Any, named: str) -> None:
    program = graphs.capture(Other(layer), 1)
    with pytest.raises(
        PellucidError, match=rf"^{named} cannot be translated to a MindSpore cell; format can be onnx"
    ):
        mindspore_cell.translate(program)
