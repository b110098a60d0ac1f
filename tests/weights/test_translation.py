"""Translation to our names: networks written here with the authors' names give the same pictures as ours."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.ndimage import correlate
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.errors import WeightsError
from pellucid.networks.dncnn import DnCNN
from pellucid.networks.mimo_unet import MIMOUNet
from pellucid.recipes.network import Network
from pellucid.recipes.registry import find
from pellucid.weights import checkpoint
from pellucid.weights.foreign import reading
from pellucid.weights.foreign.reading import ForeignWeights
from pellucid.weights.translation.translate import translate

FIXTURES = Path(__file__).parent / "foreign"
WEIGHTS = Path(os.environ.get("PELLUCID_DATA", "")) / "weights"

needs_data = pytest.mark.skipif("PELLUCID_DATA" not in os.environ, reason="needs PELLUCID_DATA")

State = dict[str, Tensor]


def fit(theirs: ForeignWeights, name: str, **given: Any) -> tuple[dict[str, Any], Network]:
    """Translate and load weights as `convert` does."""
    keywords, tensors = translate(theirs, find(name, **given), given.keys())
    return keywords, checkpoint.fill(find(name, **{**given, **keywords}), tensors, source=str(theirs.path))


def foreign(tensors: Mapping[str, Tensor], framework: str = "PyTorch") -> ForeignWeights:
    return ForeignWeights(Path("theirs"), framework, tensors)


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def randomize(network: nn.Module) -> nn.Module:
    """All tensors random; variances positive, and weights small enough that values stay near 1."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim == 4:
                drawn = drawn / tensor[0].numel() ** 0.5
            tensor.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return network.eval().requires_grad_(False)


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


# SRCNN


def srcnn(bias: bool, mapping_px: int) -> nn.Module:
    network = nn.Sequential()
    network.add_module("conv1", nn.Conv2d(1, 64, 9, padding=4, bias=bias))
    network.add_module("relu1", nn.ReLU())
    network.add_module("conv2", nn.Conv2d(64, 32, mapping_px, padding=mapping_px // 2, bias=bias))
    network.add_module("relu2", nn.ReLU())
    network.add_module("conv3", nn.Conv2d(32, 1, 5, padding=2, bias=bias))
    return randomize(network)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mapping_px", [1, 5])
def test_srcnn_of_pytorch_and_mindspore(bias: bool, mapping_px: int) -> None:
    theirs = srcnn(bias, mapping_px)
    keywords, ours = fit(foreign(theirs.state_dict()), "srcnn.paper")
    assert keywords == {"padding": "zeros", "bias": bias, "mapping_px": mapping_px}
    assert_equal(ours(uniform(1, 1, 20, 24)), theirs(uniform(1, 1, 20, 24)))


def srcnn_as_in_matlab(weights: dict[str, NDArray[np.float64]], picture: NDArray[Any]) -> NDArray[Any]:
    """The authors' loops: reshape a column to a filter, column by column, and correlate."""

    def filtered(plane: NDArray[Any], column: NDArray[Any]) -> NDArray[Any]:
        size = round(len(column) ** 0.5)
        return correlate(plane, column.reshape(size, size, order="F"), mode="nearest")

    features: list[NDArray[Any]] = [
        np.maximum(filtered(picture, weights["weights_conv1"][:, i]) + weights["biases_conv1"][i], 0)
        for i in range(64)
    ]
    mapped = []
    for j in range(32):
        parts = [filtered(features[i], weights["weights_conv2"][i, :, j]) for i in range(64)]
        mapped.append(np.maximum(np.sum(parts, axis=0) + weights["biases_conv2"][j], 0))
    summed = np.sum([filtered(mapped[i], weights["weights_conv3"][i, :]) for i in range(32)], axis=0)
    return np.asarray(summed + weights["biases_conv3"][0])


def assert_as_in_matlab(path: Path, mapping_px: int, **given: Any) -> None:
    keywords, ours = fit(reading.read(path), "srcnn.paper", **given)
    assert keywords == {"padding": "replicate", "bias": True, "mapping_px": mapping_px}
    picture = uniform(26, 30).numpy()
    expected = srcnn_as_in_matlab(loadmat(path), picture.astype(float))
    restored = ours(torch.from_numpy(picture)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(restored, expected, atol=1e-5)


@needs_data
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("mapping_px", "folder"), [(1, "9-1-5_91_images"), (5, "9-5-5_ImageNet")])
def test_srcnn_of_the_authors(mapping_px: int, folder: str, scale: int) -> None:
    assert_as_in_matlab(WEIGHTS / "srcnn" / folder / f"x{scale}.mat", mapping_px, scale=scale)


def test_srcnn_of_matlab(tmp_path: Path) -> None:
    from scipy.io import savemat

    shapes = {"conv1": ((81, 64), 64), "conv2": ((64, 9, 32), 32), "conv3": ((32, 25), 1)}
    rng = np.random.default_rng(0)
    arrays = {}
    for layer, (shape, outputs) in shapes.items():
        arrays[f"weights_{layer}"] = rng.normal(size=shape, scale=0.1)
        arrays[f"biases_{layer}"] = rng.normal(size=(outputs, 1))
    savemat(tmp_path / "x2.mat", arrays)
    assert_as_in_matlab(tmp_path / "x2.mat", 3)


def test_srcnn_of_another_size_does_not_fit() -> None:
    with pytest.raises(WeightsError, match=r"theirs has mapping_px=1, not 5; omit mapping_px"):
        fit(foreign(srcnn(True, 1).state_dict()), "srcnn.paper", mapping_px=5)
    for shape in [(), (81,), (80, 64), (1, 1, 1, 1)]:
        with pytest.raises(WeightsError, match=r"extract.weight is \("):
            fit(foreign({"weights_conv1": torch.zeros(shape)}), "srcnn.paper")


def test_a_recipe_without_the_keyword_that_a_file_needs() -> None:
    theirs = srcnn(True, 5).state_dict()
    matlab = {
        "weights_conv1": theirs["conv1.weight"].reshape(64, 81).T,
        "weights_conv2": theirs["conv2.weight"].reshape(32, 64, 25).permute(1, 2, 0),
        "weights_conv3": theirs["conv3.weight"].reshape(32, 25),
        "biases_conv1": theirs["conv1.bias"],
        "biases_conv2": theirs["conv2.bias"],
        "biases_conv3": theirs["conv3.bias"],
    }
    assert fit(foreign(matlab, "MATLAB"), "srcnn.tuned")[0] == {"mapping_px": 5}
    with pytest.raises(
        WeightsError, match=r"needs padding=zeros, which srcnn.tuned does not have; srcnn.paper has it"
    ):
        fit(foreign(theirs), "srcnn.tuned")


# DnCNN


def dncnn(bias: tuple[bool, bool, bool], epsilon: float | None, depth: int = 5) -> nn.Sequential:
    """bias: of the first, inner and last convolution; epsilon: of batch norm, None without."""
    layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, padding=1, bias=bias[0]), nn.ReLU()]
    for _ in range(depth - 2):
        layers.append(nn.Conv2d(8, 8, 3, padding=1, bias=bias[1]))
        layers += [nn.BatchNorm2d(8, eps=epsilon)] if epsilon else []
        layers.append(nn.ReLU())
    network = nn.Sequential(*layers, nn.Conv2d(8, 1, 3, padding=1, bias=bias[2]))
    randomize(network)
    return network


def prefixed(prefix: str, network: nn.Module) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize(
    ("prefix", "bias", "epsilon", "keywords"),
    [
        ("dncnn.", (False, False, False), 1e-5, {"batch_norm": True, "bias": False}),
        ("dncnn.", (True, True, True), 1e-5, {"batch_norm": True, "bias": True}),
        ("model.", (True, True, True), None, {"batch_norm": False, "bias": True}),
        ("model.", (True, True, True), 1e-4, {"batch_norm": True, "bias": True}),
    ],
    ids=["SaoYan", "biases before norm", "KAIR", "KAIR before folding"],
)
def test_dncnn_of_pytorch(
    prefix: str,
    bias: tuple[bool, bool, bool],
    epsilon: float | None,
    keywords: dict[str, bool],
    counters: bool,
) -> None:
    theirs = dncnn(bias, epsilon)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):  # so small that a wrong epsilon shows
            assert module.running_var is not None
            module.running_var.mul_(1e-3)
    state = prefixed(prefix, theirs)
    if not counters:
        state = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    found, ours = fit(foreign(state), "dncnn.gaussian")
    assert found == keywords | {"depth": 5, "width": 8, "channels": 1}
    noisy = uniform(1, 1, 20, 24)
    assert_equal(noisy - ours(noisy), theirs(noisy))


def test_dncnn_of_mindspore() -> None:
    found, ours = fit(reading.read(FIXTURES / "dncnn.ckpt"), "dncnn.gaussian")
    assert found == {"batch_norm": True, "bias": False, "depth": 4, "width": 8, "channels": 1}
    with np.load(FIXTURES / "dncnn.npz") as values:
        noisy, noise = torch.from_numpy(values["x"]), torch.from_numpy(values["y"])
    assert_equal(noisy - ours(noisy), noise)


def test_dncnn_of_matconvnet() -> None:
    theirs = dncnn((True, True, True), 1e-5, depth=3)
    state: State = {}
    for number, module in enumerate(theirs, start=1):
        for leaf, tensor in module.named_parameters():
            state[f"net.layers.{number}.{leaf}"] = tensor.detach()
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            deviation = (module.running_var + 1e-5).sqrt()
            state[f"net.layers.{number}.moments"] = torch.stack([module.running_mean, deviation])
    found, ours = fit(foreign(state, "MATLAB"), "dncnn.gaussian")
    assert found == {"batch_norm": True, "bias": True, "depth": 3, "width": 8, "channels": 1}
    noisy = uniform(1, 1, 20, 24)
    assert_equal(noisy - ours(noisy), theirs(noisy))


@needs_data
def test_dncnn_of_the_authors_with_batch_norm_is_its_folded_twin() -> None:
    folder = WEIGHTS / "dncnn"
    norm, with_norm = fit(reading.read(folder / "gray_sigma_25_with_batchnorm.mat"), "dncnn.gaussian")
    plain, folded = fit(reading.read(folder / "gray_sigma_25.mat"), "dncnn.gaussian")
    size = {"depth": 17, "width": 64, "channels": 1}
    assert norm == {"batch_norm": True, "bias": True, **size}
    assert plain == {"batch_norm": False, "bias": True, **size}
    assert isinstance(with_norm, DnCNN)
    clean = torch.linspace(0, 1, 48).expand(1, 1, 40, 48)
    noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    restored = folded(noisy)
    assert (restored - with_norm(noisy)).abs().max() < 1e-3
    assert (restored - with_norm.optimize_for_inference()(noisy)).abs().max() < 1e-3
    assert (restored - clean).std() < 0.2 * (noisy - clean).std()


@needs_data
@pytest.mark.parametrize(
    ("file", "recipe", "given"),
    [
        ("dncnn/gray_sigma_15.mat", "dncnn.gaussian", {}),
        ("dncnn/gray_sigma_50.mat", "dncnn.gaussian", {}),
        ("dncnn/gray_blind.mat", "dncnn.blind", {}),
        ("dncnn/three_tasks.mat", "dncnn.three_tasks", {}),
        ("dncnn/color_sigma_25.mat", "dncnn.gaussian", {"channels": 3, "depth": 20}),
        ("dncnn/color_blind.mat", "dncnn.blind", {"channels": 3}),
        ("dncnn_pytorch/DnCNN-S-15.pth", "dncnn.gaussian", {}),
        ("dncnn_pytorch/DnCNN-S-25.pth", "dncnn.gaussian", {}),
        ("dncnn_pytorch/DnCNN-S-50.pth", "dncnn.gaussian", {}),
        ("dncnn_pytorch/DnCNN-B.pth", "dncnn.blind", {}),
    ],
)
def test_dncnn_of_the_authors_denoises(file: str, recipe: str, given: dict[str, Any]) -> None:
    keywords, ours = fit(reading.read(WEIGHTS / file), recipe, **given)
    pytorch = file.endswith(".pth")
    assert (keywords["batch_norm"], keywords["bias"]) == (pytorch, not pytorch)
    assert keywords.get("channels", 1) == given.get("channels", 1)
    clean = torch.linspace(0, 1, 48).expand(1, given.get("channels", 1), 40, 48)
    noisy = clean + 15 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    assert (ours(noisy) - clean).std() < 0.4 * (noisy - clean).std()


def test_dncnn_of_another_depth_or_with_other_layers_does_not_fit() -> None:
    state = prefixed("dncnn.", dncnn((False, False, False), 1e-5))
    with pytest.raises(WeightsError, match="theirs has depth=5, not 20; omit depth"):
        fit(foreign(state), "dncnn.gaussian", depth=20)
    color = {**state, "dncnn.0.weight": torch.ones(8, 3, 3, 3), "dncnn.11.weight": torch.ones(3, 8, 3, 3)}
    with pytest.raises(WeightsError, match=r"needs channels=3, .*three_tasks does not have; dncnn.gaussian and"):
        fit(foreign(color), "dncnn.three_tasks")
    slope = {"dncnn.1.weight": torch.ones(1), "dncnn.98.moments": torch.ones(3), "x.y": torch.ones(1)}
    with pytest.raises(WeightsError, match=r"layers.0.norm.weight \(1,\) unknown"):
        fit(foreign({**state, **slope}), "dncnn.gaussian")
    with pytest.raises(WeightsError, match=r"x.y \(1,\) unknown"):
        fit(foreign({**state, "x.y": torch.ones(1)}), "dncnn.gaussian")


# MIMO-UNet: the authors' modules, written from the paper and their parameter names


class Conv(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.main(x)
        return x.relu() if self.relu else x


class Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.main(x))


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(Conv(channels, channels, 3), Conv(channels, channels, 3, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


class Blocks(nn.Module):
    def __init__(self, channels: int, num: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Block(channels) for _ in range(num)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class SCM(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            Conv(3, c // 4, 3), Conv(c // 4, c // 2, 1), Conv(c // 2, c // 2, 3), Conv(c // 2, c - 3, 1)
        )
        self.conv = Conv(c, c, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([x, self.main(x)], 1))


class FAM(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.merge = Conv(c, c, 3, relu=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + self.merge(a * b)


class AFF(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(Conv(224, c, 1), Conv(c, c, 3, relu=False))

    def forward(self, *features: Tensor) -> Tensor:
        return self.conv(torch.cat(features, 1))


class AuthorsMIMOUNet(nn.Module):
    def __init__(self, num_blocks: int, enlarge: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.enlarge = enlarge
        self.feat_extract = nn.ModuleList(
            [
                Conv(3, 32, 3),
                Conv(32, 64, 3, stride=2),
                Conv(64, 128, 3, stride=2),
                Up(128, 64),
                Up(64, 32),
                Conv(32, 3, 3, relu=False),
            ]
        )
        self.Encoder = nn.ModuleList(Blocks(c, num_blocks) for c in (32, 64, 128))
        self.Decoder = nn.ModuleList(Blocks(c, num_blocks) for c in (128, 64, 32))
        self.Convs = nn.ModuleList([Conv(128, 64, 1), Conv(64, 32, 1)])
        self.ConvsOut = nn.ModuleList([Conv(128, 3, 3, relu=False), Conv(64, 3, 3, relu=False)])
        self.AFFs = nn.ModuleList([AFF(32), AFF(64)])
        self.FAM1, self.FAM2, self.SCM1, self.SCM2 = FAM(128), FAM(64), SCM(128), SCM(64)

    def forward(self, x: Tensor) -> list[Tensor]:
        x2, x4 = x[..., ::2, ::2], x[..., ::4, ::4]
        r1 = self.Encoder[0](self.feat_extract[0](x))
        r2 = self.Encoder[1](self.FAM2(self.feat_extract[1](r1), self.SCM2(x2)))
        z = self.Encoder[2](self.FAM1(self.feat_extract[2](r2), self.SCM1(x4)))
        z21, z42 = self.enlarge(r2), self.enlarge(z)
        skip2 = self.AFFs[1](r1[..., ::2, ::2], r2, z42)
        skip1 = self.AFFs[0](r1, z21, self.enlarge(z42))
        z = self.Decoder[0](z)
        out4 = self.ConvsOut[0](z) + x4
        z = self.Decoder[1](self.Convs[0](torch.cat([self.feat_extract[3](z), skip2], 1)))
        out2 = self.ConvsOut[1](z) + x2
        z = self.Decoder[2](self.Convs[1](torch.cat([self.feat_extract[4](z), skip1], 1)))
        return [out4, out2, self.feat_extract[5](z) + x]


def nearest(features: Tensor) -> Tensor:
    return features.repeat_interleave(2, -1).repeat_interleave(2, -2)


def asymmetric(features: Tensor) -> Tensor:
    """Bilinear with source = i / 2, the last row and column repeated."""
    for axis in (-1, -2):
        size = features.shape[axis]
        source = torch.arange(2 * size) / 2
        low = source.long()
        weight = (source - low).unsqueeze(-1) if axis == -2 else source - low
        a, b = features.index_select(axis, low), features.index_select(axis, (low + 1).clamp(max=size - 1))
        features = a + (b - a) * weight
    return features


def test_the_mimo_unet_above_has_the_published_names() -> None:
    shapes = {name: tuple(t.shape) for name, t in AuthorsMIMOUNet(8, nearest).state_dict().items()}
    assert len(shapes) == 244
    assert sum(np.prod(shape, dtype=int) for shape in shapes.values()) == 6_807_171
    published = {
        "Encoder.0.layers.0.main.0.main.0.weight": (32, 32, 3, 3),
        "Encoder.0.layers.0.main.1.main.0.bias": (32,),
        "feat_extract.3.main.0.weight": (128, 64, 4, 4),
        "AFFs.0.conv.0.main.0.weight": (32, 224, 1, 1),
        "AFFs.0.conv.1.main.0.weight": (32, 32, 3, 3),
        "FAM1.merge.main.0.weight": (128, 128, 3, 3),
        "SCM1.main.0.main.0.weight": (32, 3, 3, 3),
        "SCM1.main.3.main.0.weight": (125, 64, 1, 1),
        "SCM1.conv.main.0.weight": (128, 128, 1, 1),
        "SCM2.main.3.main.0.weight": (61, 32, 1, 1),
        "ConvsOut.0.main.0.weight": (3, 128, 3, 3),
        "Convs.0.main.0.weight": (64, 128, 1, 1),
    }
    assert published.items() <= shapes.items()


@pytest.mark.parametrize(
    ("framework", "upsampling", "enlarge"),
    [("PyTorch", "nearest", nearest), ("MindSpore", "asymmetric", asymmetric)],
)
def test_mimo_unet(framework: str, upsampling: str, enlarge: Callable[[Tensor], Tensor]) -> None:
    theirs = randomize(AuthorsMIMOUNet(2, enlarge))
    found, ours = fit(foreign(theirs.state_dict(), framework), "mimo_unet.gopro")
    assert found == {"upsampling": upsampling, "num_blocks": 2, "width": 32}
    blurred = uniform(1, 3, 24, 32)
    assert isinstance(ours, MIMOUNet)
    for mine, wanted in zip(ours.restore_scales(blurred), theirs(blurred), strict=True):
        assert_equal(mine, wanted)


def test_mimo_unet_plus() -> None:
    state = AuthorsMIMOUNet(20, nearest).state_dict()
    assert len(state) == 532
    assert fit(foreign(state), "mimo_unet.gopro_plus")[0] == {}
    with pytest.raises(
        WeightsError, match=r"needs upsampling=asymmetric, .*gopro_plus does not have; mimo_unet.gopro has it"
    ):
        fit(foreign(state, "MindSpore"), "mimo_unet.gopro_plus")
    assert fit(foreign(state), "mimo_unet.gopro")[0]["num_blocks"] == 20
    chosen = fit(foreign(state, "MindSpore"), "mimo_unet.gopro", upsampling="nearest")[0]
    assert "upsampling" not in chosen  # what the tensors do not show is the user's choice


# The U-Net of "Learning to See in the Dark"

WIDTHS = (32, 64, 128, 256, 512, 256, 128, 64, 32)
ORIGINS = {
    "TensorFlow": {
        "pairs": [f"g_conv{k}_{{}}" for k in range(1, 10)],
        "ends": ("1", "2"),
        "up": ["Variable", "Variable_1", "Variable_2", "Variable_3"],
        "head": "g_conv10",
    },
    # convK_1, convK_2 for K = 1, 2..5, 6..9; up; conv10
    "cydonia999": {
        "pairs": [f"conv{k}_{{}}" for k in range(1, 10)],
        "ends": ("1", "2"),
        "up": ["up6", "up7", "up8", "up9"],
        "head": "conv10",
    },
    "lavi135246": {
        "pairs": [f"conv{k}_{{}}" for k in range(1, 10)],
        "ends": ("1", "2"),
        "up": ["upv6", "upv7", "upv8", "upv9"],
        "head": "conv10_1",
    },
    "PaddlePaddle": {
        "pairs": [f"conv{k}.conv.{{}}" for k in range(1, 10)],
        "ends": ("0", "2"),
        "up": ["up6", "up7", "up8", "up9"],
        "head": "conv10",
    },
    "MindSpore": {
        "pairs": [
            "inc.double_conv.{}",
            "down1.maxpool_conv.1.double_conv.{}",
            "down2.maxpool_conv.1.double_conv.{}",
            "down3.maxpool_conv.1.double_conv.{}",
            "down4.maxpool_conv.1.double_conv.{}",
            "up1.conv.double_conv.{}",
            "up2.conv.double_conv.{}",
            "up3.conv.double_conv.{}",
            "up4.conv.double_conv.{}",
        ],
        "ends": ("0", "2"),
        "up": ["up1.up", "up2.up", "up3.up", "up4.up"],
        "head": "outc.conv",
    },
}


def sid_state(origin: str, planes: int, *, conv_bias: bool, up_bias: bool) -> State:
    names: dict[str, Any] = ORIGINS[origin]
    generator = torch.Generator().manual_seed(2)
    state: State = {}

    def put(name: str, shape: tuple[int, ...], outputs: int, bias: bool) -> None:
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) / (shape[1] * shape[2] ** 2) ** 0.5
        if bias:
            state[f"{name}.bias"] = torch.randn(outputs, generator=generator)

    inputs = planes
    for place, (pair, width) in enumerate(zip(names["pairs"], WIDTHS, strict=True)):
        if place > 4:
            put(names["up"][place - 5], (2 * width, width, 2, 2), width, up_bias)
            inputs = 2 * width
        put(pair.format(names["ends"][0]), (width, inputs, 3, 3), width, conv_bias)
        put(pair.format(names["ends"][1]), (width, width, 3, 3), width, conv_bias)
        inputs = width
    outputs = {4: 12, 9: 27}[planes]
    put(names["head"], (outputs, 32, 1, 1), outputs, conv_bias)
    return state


def sid_forward(origin: str, state: State, x: Tensor) -> Tensor:
    """The channels before they become pixels."""
    names: dict[str, Any] = ORIGINS[origin]

    def pair(place: int, x: Tensor) -> Tensor:
        for end in names["ends"]:
            name = names["pairs"][place].format(end)
            x = F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), padding=1)
            x = torch.maximum(0.2 * x, x)
        return x

    skips = []
    for place in range(4):
        skips.append(pair(place, x))
        x = F.max_pool2d(skips[-1], 2)
    x = pair(4, x)
    for place, name in enumerate(names["up"], start=5):
        x = F.conv_transpose2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride=2)
        x = pair(place, torch.cat([x, skips.pop()], 1))
    return F.conv2d(x, state[f"{names['head']}.weight"], state.get(f"{names['head']}.bias"))


@pytest.mark.parametrize(
    ("origin", "framework", "conv_bias", "up_bias", "channel_order"),
    [
        ("TensorFlow", "TensorFlow", True, False, "position-major"),
        ("cydonia999", "PyTorch", True, False, "position-major"),
        ("lavi135246", "PyTorch", True, True, "color-major"),
        ("PaddlePaddle", "PaddlePaddle", True, True, "color-major"),
        ("MindSpore", "MindSpore", False, False, "position-major"),
    ],
)
@pytest.mark.parametrize(("recipe", "planes", "scale"), [("sid_unet.sony", 4, 2), ("sid_unet.fuji", 9, 3)])
def test_sid_unet(
    origin: str,
    framework: str,
    conv_bias: bool,
    up_bias: bool,
    channel_order: str,
    recipe: str,
    planes: int,
    scale: int,
) -> None:
    state = sid_state(origin, planes, conv_bias=conv_bias, up_bias=up_bias)
    found, ours = fit(foreign(state, framework), recipe)
    assert found == {"conv_bias": conv_bias, "up_bias": up_bias, "channel_order": channel_order}
    packed = uniform(1, planes, 16, 32)
    channels = sid_forward(origin, state, packed)
    developed = ours(packed)
    for color in range(3):
        for row in range(scale):
            for column in range(scale):
                place = row * scale + column
                index = place * 3 + color if channel_order == "position-major" else color * scale**2 + place
                assert_equal(developed[:, color, row::scale, column::scale], channels[:, index])


@pytest.mark.parametrize(
    ("origin", "conv_bias", "up_bias", "num_parameters"),
    [
        ("cydonia999", True, False, 7_760_268),
        ("PaddlePaddle", True, True, 7_760_748),
        ("MindSpore", False, False, 7_757_312),
    ],
)
def test_the_sid_unet_above_has_the_published_size(
    origin: str, conv_bias: bool, up_bias: bool, num_parameters: int
) -> None:
    state = sid_state(origin, 4, conv_bias=conv_bias, up_bias=up_bias)
    assert sum(tensor.numel() for tensor in state.values()) == num_parameters


def test_weights_for_another_sensor_name_their_recipe() -> None:
    state = sid_state("TensorFlow", 9, conv_bias=True, up_bias=False)
    with pytest.raises(
        WeightsError, match=r"needs planes=9, which sid_unet.sony does not have; sid_unet.fuji has"
    ):
        fit(foreign(state), "sid_unet.sony")


def test_a_paddle_file_without_all_layers_does_not_fit() -> None:
    theirs = reading.read(FIXTURES / "sid_protocol4.pdparams")
    with pytest.raises(WeightsError, match=r"needs width=4, which sid_unet.sony does not have"):
        translate(theirs, find("sid_unet.sony"))
    narrow = find("sid_unet.any_camera", width=4)
    with pytest.raises(WeightsError, match=r"needs up_bias=True, which sid_unet.any_camera does not have"):
        translate(theirs, narrow)
    without = {name: tensor for name, tensor in theirs.tensors.items() if name != "up6.bias"}
    keywords, tensors = translate(replace(theirs, tensors=without), narrow)
    assert keywords == {"channel_order": "color-major", "width": 4}
    assert tensors["encoder.0.second.bias"] is theirs.tensors["conv1.conv.2.bias"]
    with pytest.raises(WeightsError, match=r"does not fit sid_unet\.any_camera"):
        checkpoint.fill(narrow, tensors, source="theirs")


# Unknown names


@pytest.mark.parametrize(
    ("recipe", "known"),
    [
        ("srcnn.paper", "conv1, conv2, conv3"),
        ("dncnn.gaussian", "model.0"),
        ("mimo_unet.gopro", "feat_extract"),
        ("sid_unet.sony", "inc.double_conv.0"),
    ],
)
def test_unknown_names_are_refused(recipe: str, known: str) -> None:
    tensors = {f"backbone.{index}.weight": torch.ones(1) for index in range(5)}
    with pytest.raises(WeightsError) as caught:
        translate(foreign(tensors), find(recipe))
    message = str(caught.value)
    assert message.startswith("theirs has 5 tensors (backbone.0.weight, backbone.1.weight, ")
    assert known in message


def test_a_network_without_a_translation_is_refused() -> None:
    unknown = replace(find("srcnn.paper"), name="unsharp.paper")
    with pytest.raises(WeightsError, match=r"no foreign weights are known for unsharp"):
        translate(foreign({}), unknown)
