"""The contract of every network: its attributes are measured, and tiles equal the whole."""

from copy import deepcopy
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.domains import PackedRaw, StableRaw
from pellucid.networks.dncnn import DnCNN
from pellucid.networks.mimo_unet import MIMOUNet
from pellucid.networks.sid_unet import SIDUNet
from pellucid.networks.srcnn import SRCNN
from pellucid.recipes import registry
from pellucid.recipes.network import Network
from pellucid.recipes.recipe import Recipe
from pellucid.restoration.tiling import plan, span

NAMES = registry.list_names()
FAR = 100  # networks with a larger halo are tested on thin pictures, and less often

COUNTS = [
    ("srcnn.paper", {}, 57_281),
    ("srcnn.tuned", {}, 57_281),
    ("srcnn.paper", {"bias": False}, 57_184),
    ("srcnn.paper", {"mapping_px": 1}, 8_129),
    ("dncnn.gaussian", {"bias": False}, 556_032),
    ("dncnn.gaussian", {}, 556_032 + 64 + 1),
    ("dncnn.gaussian", {"batch_norm": False}, 555_137),
    ("dncnn.blind", {"bias": False}, 667_008),
    ("dncnn.blind", {"batch_norm": False}, 665_921),
    ("dncnn.three_tasks", {"bias": False}, 667_008),
    ("dncnn.three_tasks", {"batch_norm": False}, 665_921),
    ("mimo_unet.gopro", {}, 6_807_171),
    ("mimo_unet.gopro", {"upsampling": "asymmetric"}, 6_807_171),
    ("mimo_unet.gopro_plus", {}, 16_107_651),
    ("mimo_unet.synthetic", {}, 6_807_171),
    ("sid_unet.sony", {}, 7_760_268),
    ("sid_unet.sony", {"up_bias": True}, 7_760_748),
    ("sid_unet.sony", {"conv_bias": False}, 7_757_312),
    ("sid_unet.fuji", {}, 7_762_203),
    ("sid_unet.any_camera", {}, 7_760_268),
    # Not published: 5 * 9 * 32 + 32, ten times 32 * 9 * 32 + 32, and 32 * 9 * 4 + 4.
    ("dncnn.raw", {}, 1_472 + 10 * 9_248 + 1_156),
]

EQUAL_TO_THE_BIT = {"srcnn.paper", "srcnn.tuned", "dncnn.gaussian", "dncnn.blind", "dncnn.three_tasks"}
"""Recipes whose tiles have the same bits as the whole picture; of others, only rounding may differ."""

# Recipes, and those of their keywords that change the halo.
REACHES = [
    *((name, {}) for name in NAMES),
    ("srcnn.paper", {"scale": 3}),
    ("srcnn.paper", {"scale": 4, "mapping_px": 1}),
    ("srcnn.paper", {"mapping_px": 3, "padding": "zeros"}),
    ("dncnn.gaussian", {"depth": 2}),
    ("dncnn.three_tasks", {"scale": 3}),
    ("mimo_unet.gopro", {"num_blocks": 1, "upsampling": "asymmetric"}),
    ("mimo_unet.synthetic", {"num_blocks": 2, "width": 8}),
    ("sid_unet.any_camera", {"width": 8}),
]


def built(name: str, **parameters: Any) -> tuple[Recipe, Network]:
    """A recipe and its network, in evaluation mode."""
    torch.manual_seed(0)
    found = registry.find(name, **parameters)
    return found, found.network().eval().requires_grad_(False)


def planes_of(found: Recipe) -> int:
    """How many planes the recipe's domain gives its network."""
    return found.domain.num_planes


def picture(planes: int, height: int, width: int, seed: int = 0) -> Tensor:
    """A random picture in the memory layout that restoration uses."""
    drawn = torch.rand(1, planes, height, width, generator=torch.Generator().manual_seed(seed))
    return drawn.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(("name", "parameters", "expected"), COUNTS)
def test_the_number_of_parameters_is_the_published_one(
    name: str, parameters: dict[str, Any], expected: int
) -> None:
    _, network = built(name, **parameters)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize(("name", "width"), [("mimo_unet.synthetic", 16), ("sid_unet.any_camera", 8)])
def test_narrow_networks_have_fewer_weights_by_the_square(name: str, width: int) -> None:
    (_, wide), (_, narrow) = built(name), built(name, width=width)
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (wide, narrow)]
    assert counts[1] / counts[0] == pytest.approx((width / 32) ** 2, rel=0.02)


@pytest.mark.parametrize(("depth", "expected"), [(17, 1_920), (20, 2_304)])
def test_the_number_of_statistics_is_the_published_one(depth: int, expected: int) -> None:
    assert sum(buffer.numel() for buffer in DnCNN(depth=depth).buffers() if buffer.ndim) == expected


@pytest.mark.parametrize("name", NAMES)
def test_any_size_is_restored_at_scale_times_the_size(name: str) -> None:
    found, network = built(name)
    with torch.inference_mode():
        for height, width in [(1, 1), (1, 2), (3, 1), (2, 5), (7, 4), (17, 33)]:
            result = network(picture(planes_of(found), height, width))
            channels = found.domain.num_results
            assert result.shape == (1, channels, height * network.scale, width * network.scale)
            assert result.dtype == torch.float32
            assert result.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_a_batch_do_not_influence_each_other(name: str) -> None:
    found, network = built(name)
    pictures = torch.cat([picture(planes_of(found), 18, 22, seed) for seed in range(2)])
    with torch.inference_mode():
        together = network(pictures)
        changed = network(torch.stack([pictures[0], torch.zeros_like(pictures[1])]))
    torch.testing.assert_close(changed[0], together[0], rtol=0, atol=1e-6)


def pool_by_averaging(features: Tensor, kernel_px: int, *, ceil_mode: bool = False) -> Tensor:
    # Max pooling sends the gradient to one pixel of four; an average has the same reach and sends it to all.
    return F.avg_pool2d(features, kernel_px, ceil_mode=ceil_mode)


def middle(found: Recipe, network: Network) -> tuple[int, int]:
    """A column of the network's input that is further than the halo from the border, and its grid.

    The grid is that of the network's strided layers and of the picture's pixels.
    """
    grid = network.multiple * found.domain.rate.numerator
    return (network.halo // grid + 4) * grid, grid


@lru_cache
def seen(name: str, *parameters: tuple[str, Any]) -> Tensor:
    """The part of the network's input that output pixels in the middle see: (phases, planes, height, width).

    All phases of the grid and of `scale` in order, from the column that `middle` returns.
    """
    found, network = built(name, **dict(parameters))
    for parameter in network.parameters():
        # Positive, so that no ReLU is closed and nothing cancels, and small, so that nothing overflows.
        parameter.fill_(0.1 if parameter.ndim < 2 else 0.1 / parameter[0].numel())
    start, grid = middle(found, network)
    num_phases = grid * network.scale
    strip = torch.full((num_phases, planes_of(found), grid, 2 * start + grid), 0.5, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "max_pool2d", pool_by_averaging)
        output = network(strip)
    assert output.isfinite().all()
    # NaN goes wherever a gradient goes, however faint: 3 ^ -240 is 0 in float32, NaN stays NaN.
    gradient = torch.zeros_like(output)
    for phase in range(num_phases):
        gradient[phase, :, 0, start * network.scale + phase] = torch.nan
    return torch.autograd.grad(output, strip, gradient)[0].isnan()


def reaches(columns: Tensor, places: list[int]) -> list[int]:
    """The largest distance from its own position that each phase sees; columns: (phases, width)."""
    found = []
    for row, place in zip(columns, places, strict=True):
        positions = row.nonzero().flatten()
        assert positions.min() > 0  # the visible part ends inside the picture
        assert positions.max() < len(row) - 1
        found.append(int((positions - place).abs().max()))
    return found


@pytest.mark.parametrize(("name", "parameters"), REACHES)
def test_the_halo_is_the_distance_that_an_output_pixel_sees(name: str, parameters: dict[str, Any]) -> None:
    found, network = built(name, **parameters)
    columns = seen(name, *parameters.items()).any(dim=(1, 2))
    start, _ = middle(found, network)
    places = [start + phase // network.scale for phase in range(len(columns))]
    assert max(reaches(columns, places)) == network.halo


@pytest.mark.parametrize(
    ("name", "nearest", "farthest"),
    # The reference's tables: MIMO-UNet sees 235 to 241 pixels by phase, MIMO-UNet+ 571 to 577.
    [("mimo_unet.gopro", 235, 241), ("mimo_unet.gopro_plus", 571, 577), ("sid_unet.sony", 92, 107)],
)
def test_phases_see_the_distances_of_the_reference(name: str, nearest: int, farthest: int) -> None:
    found, network = built(name)
    columns = seen(name).any(dim=(1, 2))
    start, _ = middle(found, network)
    sides = []
    for phase, row in enumerate(columns):
        positions = row.nonzero().flatten() - (start + phase // network.scale)
        sides += [-int(positions.min()), int(positions.max())]
    assert (min(sides), max(sides)) == (nearest, farthest)


@pytest.mark.parametrize(("name", "parameters"), REACHES)
def test_the_domain_converts_the_halo_to_the_picture(name: str, parameters: dict[str, Any]) -> None:
    found, network = built(name, **parameters)
    mask = seen(name, *parameters.items())
    rate = found.domain.rate
    width = int(mask.shape[-1] / rate)
    height = int(mask.shape[-2] / rate)
    channels = {PackedRaw: 1, StableRaw: 3}.get(type(found.domain), mask.shape[1])
    degraded = torch.full((len(mask), channels, height, width), 0.5, dtype=torch.float64, requires_grad=True)
    # Random factors, so that bicubic weights of opposite signs do not cancel.
    factors = 1 + torch.rand(mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(found.domain.encode(degraded), degraded, mask * factors)
    # The output has rate * scale pixels for each of the degraded picture.
    per_pixel = rate * network.scale
    start, _ = middle(found, network)
    places = [int((start * network.scale + phase) / per_pixel) for phase in range(len(mask))]
    columns = (gradient != 0).any(dim=1).any(dim=1)
    assert max(reaches(columns, places)) == found.domain.halo_px(network.halo)


def tiled(network: Network, whole: Tensor, tile_px: int, *, halo_px: int | None = None) -> Tensor:
    """The network's result for a picture, assembled from tiles."""
    height, width = whole.shape[-2:]
    scale = network.scale
    result: Tensor | None = None
    halo_px = network.halo if halo_px is None else halo_px
    for tile in plan(height, width, tile_px=tile_px):
        rows = span(tile.top, tile.bottom, height, halo_px=halo_px, grid_px=network.multiple)
        cols = span(tile.left, tile.right, width, halo_px=halo_px, grid_px=network.multiple)
        part = whole[..., rows.read, cols.read].contiguous(memory_format=torch.channels_last)
        kept = network(part)[..., rows.kept(scale), cols.kept(scale)]
        if result is None:
            result = kept.new_full((1, kept.shape[1], height * scale, width * scale), torch.nan)
        result[..., *tile.placed(scale)] = kept
    assert result is not None
    return result


def assert_tiles_equal_whole(name: str, height: int, width: int, tile_px: int, seed: int) -> None:
    found, network = lively(name)
    whole = picture(planes_of(found), height, width, seed)
    with torch.inference_mode():
        expected, result = network(whole), tiled(network, whole, tile_px)
    difference = float((result - expected).abs().max())
    if name in EQUAL_TO_THE_BIT and min(height, width) >= 16:
        assert difference == 0
        return
    # oneDNN uses other kernels for other sizes, e.g. for very small maps inside U-Nets, and those sum in another
    # order. It does not compute in double precision, where the results agree.
    assert difference <= 5e-5
    network, whole = deepcopy(network).double(), whole.double()
    with torch.inference_mode():
        difference = float((tiled(network, whole, tile_px) - network(whole)).abs().max())
    assert difference <= 1e-12


@lru_cache
def lively(name: str) -> tuple[Recipe, Network]:
    """A recipe and its network, with weights for which every layer matters.

    With the usual initialization, the deep layers of a U-Net change its output by less than rounding does, so that
    errors would not show. Here the output of every convolution has a standard deviation of 1.
    """

    def normalize(layer: nn.Module, _: object, output: Tensor) -> Tensor:
        deviation = output.std()
        for parameter in layer.parameters():
            parameter.div_(deviation)
        return output / deviation

    found, network = built(name)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [convolution.register_forward_hook(normalize) for convolution in convolutions]
    network(picture(planes_of(found), 32, 32))
    for hook in hooks:
        hook.remove()
    return found, network


@pytest.mark.parametrize("name", [name for name in NAMES if built(name)[1].halo < FAR])
@settings(max_examples=12)
@given(height=st.integers(1, 60), width=st.integers(1, 60), tile_px=st.integers(1, 64), seed=st.integers(0, 99))
def test_tiles_equal_whole(name: str, height: int, width: int, tile_px: int, seed: int) -> None:
    assume(-(-height // tile_px) * -(-width // tile_px) <= 12)
    assert_tiles_equal_whole(name, height, width, tile_px, seed)


@pytest.mark.parametrize("name", [name for name in NAMES if FAR <= built(name)[1].halo < 500])
@settings(max_examples=6)
@given(thin=st.integers(1, 8), more=st.integers(1, 16), upright=st.booleans(), seed=st.integers(0, 99))
def test_tiles_of_a_strip_equal_the_whole(name: str, thin: int, more: int, upright: bool, seed: int) -> None:
    """Just long enough that neither of the two tiles sees the other end."""
    _, network = lively(name)
    long = 2 * (network.halo + network.multiple + more)
    height, width = (long, thin) if upright else (thin, long)
    assert_tiles_equal_whole(name, height, width, -(-long // 2), seed)


@pytest.mark.parametrize("name", [name for name in NAMES if built(name)[1].halo >= 500])
def test_tiles_of_a_long_strip_equal_the_whole(name: str) -> None:
    _, network = lively(name)
    long = 2 * network.halo + 27  # odd, and not a multiple of the grid
    assert_tiles_equal_whole(name, 3, long, -(-long // 2), seed=0)


@pytest.mark.parametrize("name", [name for name in NAMES if built(name)[1].halo >= FAR])
@settings(max_examples=6)
@given(height=st.integers(1, 30), width=st.integers(1, 30), tile_px=st.integers(12, 30))
def test_small_tiles_equal_the_whole(name: str, height: int, width: int, tile_px: int) -> None:
    assert_tiles_equal_whole(name, height, width, tile_px, seed=1)


@pytest.mark.parametrize("name", ["dncnn.gaussian", "srcnn.paper"])
def test_a_halo_that_is_one_pixel_too_small_is_detected(name: str) -> None:
    """The tests above can fail."""
    found, network = built(name)
    for parameter in network.parameters():
        parameter.abs_()  # so that the faint outermost pixel is not lost in rounding
        if parameter.ndim > 1:
            parameter.div_(parameter[0].sum() / 2)
    whole = picture(planes_of(found), 40, 90)
    with torch.inference_mode():
        expected = network(whole)
        assert torch.equal(tiled(network, whole, 45), expected)
        assert not torch.equal(tiled(network, whole, 45, halo_px=network.halo - 1), expected)


@pytest.mark.parametrize("name", [name for name in NAMES if built(name)[1].multiple > 1])
def test_multiple_is_the_finest_grid(name: str) -> None:
    """Far from the cut, a picture without its first grid step has the same result; without half of it, another."""
    found, network = lively(name)
    multiple, scale = network.multiple, network.scale
    far = -(-network.halo // multiple) * multiple + multiple
    whole = picture(planes_of(found), multiple, far + 2 * multiple)
    with torch.inference_mode():
        expected = network(whole)[..., far * scale :]
        on_grid, off_grid = (
            network(whole[..., start:])[..., (far - start) * scale :] for start in (multiple, multiple // 2)
        )
    assert (on_grid - expected).abs().max() <= 5e-5
    assert (off_grid - expected).abs().max() > 1e-2


def test_tiles_off_the_grid_are_detected() -> None:
    found, network = lively("sid_unet.sony")
    whole = picture(planes_of(found), 16, 400)
    cols = span(200, 400, 400, halo_px=network.halo, grid_px=1)
    assert cols.read_start % network.multiple
    with torch.inference_mode():
        expected = network(whole)[..., 400:]
        off_grid = network(whole[..., cols.read])[..., cols.kept(2)]
    assert (off_grid - expected).abs().max() > 1e-2


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_folding_batch_norm_changes_nothing(channels: int, bias: bool) -> None:
    torch.manual_seed(0)
    network = DnCNN(channels, bias=bias)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
            layer.eps = 0.01  # large enough that ignoring it would show
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
    network.eval()
    folded = network.optimize_for_inference()
    assert sum(p.numel() for p in folded.parameters()) == 555_137 + (channels - 1) * (64 * 9 * 2 + 1)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    with torch.inference_mode():
        noisy = picture(channels, 30, 25)
        expected = network(noisy)
        assert (expected - noisy).abs().max() > 1e-3
        torch.testing.assert_close(folded(noisy), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(folded.optimize_for_inference()(noisy), folded(noisy), rtol=0, atol=0)


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (30, 25), (32, 28)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_folding_srcnn_changes_nothing(
    padding: Literal["zeros", "replicate"], bias: bool, size: tuple[int, int], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    network = SRCNN(5, padding, bias).eval().to(dtype)
    rng_state = torch.get_rng_state()
    folded, degraded = network.optimize_for_inference(), picture(1, *size).to(dtype)
    assert torch.equal(torch.get_rng_state(), rng_state)
    with torch.inference_mode():
        expected = network(degraded)
        assert expected.abs().max() > 1e-5
        torch.testing.assert_close(folded(degraded), expected, rtol=0, atol=1e-6)
        assert folded.optimize_for_inference() is folded
        assert torch.equal(network(degraded), expected)  # it has not changed


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_srcnn_starts_at_the_enlarged_picture(scale: int) -> None:
    tuned = registry.find("srcnn.tuned", scale=scale)
    network = tuned.network()
    assert tuned.initialize is not None
    tuned.initialize(network)
    degraded = picture(1, 20, 17)
    torch.testing.assert_close(network(degraded), degraded, rtol=0, atol=1e-7)
    network(degraded).sum().backward()
    assert isinstance(network, SRCNN)
    assert network.reconstruct.weight.grad is not None
    assert (network.reconstruct.weight.grad[:, 1:] != 0).any()  # the other features can be learned


def test_dncnn_subtracts_what_it_predicts() -> None:
    network = DnCNN(depth=2, width=1, batch_norm=False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.get_parameter("layers.1.conv.bias").fill_(0.25)
    assert torch.equal(network(torch.ones(1, 1, 2, 2)), torch.full((1, 1, 2, 2), 0.75))


@pytest.mark.parametrize(("padding", "mode"), [("zeros", "constant"), ("replicate", "edge")])
@pytest.mark.parametrize("mapping_px", [1, 3, 5])
def test_srcnn_is_three_convolutions(mapping_px: int, padding: Literal["zeros", "replicate"], mode: Any) -> None:
    def layer(features: Tensor, conv: nn.Conv2d) -> Tensor:
        margin = conv.weight.shape[-1] // 2
        padded = np.pad(features.numpy(), ((0, 0), (0, 0), (margin, margin), (margin, margin)), mode)
        return F.conv2d(torch.from_numpy(padded), conv.weight, conv.bias)

    torch.manual_seed(0)
    network = SRCNN(mapping_px, padding).requires_grad_(False)
    enlarged = picture(1, 20, 23)
    features = F.relu(layer(F.relu(layer(enlarged, network.extract)), network.map))
    expected = layer(features, network.reconstruct)
    torch.testing.assert_close(network(enlarged), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("planes", "scale"), [(4, 2), (9, 3)])
def test_sid_agrees_with_its_table_of_layers(planes: int, scale: int) -> None:
    torch.manual_seed(0)
    network = SIDUNet(planes, scale).requires_grad_(False)
    state = network.state_dict()

    def pair(features: Tensor, name: str) -> Tensor:
        for layer in ("first", "second"):
            weight, bias = state[f"{name}.{layer}.weight"], state[f"{name}.{layer}.bias"]
            convolved = F.conv2d(features, weight, bias, padding=1)
            features = torch.maximum(0.2 * convolved, convolved)
        return features

    packed = picture(planes, 13, 22)
    features, skips = packed, []
    for level in range(4):
        skips.append(pair(features, f"encoder.{level}"))
        rows, cols = (-n % 2 for n in skips[-1].shape[-2:])
        features = F.max_pool2d(F.pad(skips[-1], (0, cols, 0, rows), value=-torch.inf), 2)
    features = pair(features, "encoder.4")
    for level in range(4):
        skip = skips[3 - level]
        enlarged = F.conv_transpose2d(features, state[f"up.{level}.weight"], stride=2)
        # Upsampled features come first.
        joined = torch.cat([enlarged[..., : skip.shape[-2], : skip.shape[-1]], skip], dim=1)
        features = pair(joined, f"decoder.{level}")
    channels = F.conv2d(features, state["head.weight"], state["head.bias"])
    expected = torch.empty(1, 3, 13 * scale, 22 * scale)
    for i in range(scale):
        for j in range(scale):
            first = (i * scale + j) * 3
            expected[..., i::scale, j::scale] = channels[:, first : first + 3]
    torch.testing.assert_close(network(packed), expected, rtol=0, atol=1e-6)


def test_mimo_agrees_with_its_table_of_layers() -> None:
    torch.manual_seed(0)
    network = MIMOUNet(num_blocks=2).requires_grad_(False).eval()
    state = network.state_dict()

    def conv(features: Tensor, name: str, *, stride: int = 1, relu: bool = True) -> Tensor:
        weight, bias = state[f"{name}.0.weight"], state[f"{name}.0.bias"]
        features = F.conv2d(features, weight, bias, stride, weight.shape[-1] // 2)
        return F.relu(features) if relu else features

    def up(features: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.0.weight"], state[f"{name}.0.bias"]
        return F.relu(F.conv_transpose2d(features, weight, bias, stride=2, padding=1))

    def blocks(features: Tensor, name: str) -> Tensor:
        for i in range(2):
            inner = conv(features, f"{name}.{i}.first")
            features = features + conv(inner, f"{name}.{i}.second", relu=False)
        return features

    def scm(reduced: Tensor, name: str) -> Tensor:
        features = reduced
        for i in range(4):
            features = conv(features, f"{name}.layers.{i}")
        return conv(torch.cat([reduced, features], 1), f"{name}.mix", relu=False)

    def fam(features: Tensor, other: Tensor, name: str) -> Tensor:
        return features + conv(features * other, f"{name}.merge", relu=False)

    def aff(parts: list[Tensor], name: str) -> Tensor:
        return conv(conv(torch.cat(parts, 1), f"{name}.layers.0"), f"{name}.layers.1", relu=False)

    def twice(features: Tensor) -> Tensor:
        return features.repeat_interleave(2, -1).repeat_interleave(2, -2)

    x = picture(3, 12, 20)
    x2, x4 = x[..., ::2, ::2], x[..., ::4, ::4]
    r1 = blocks(conv(x, "enter1"), "encoder1")
    r2 = blocks(fam(conv(r1, "enter2", stride=2), scm(x2, "shallow2"), "attend2"), "encoder2")
    z = blocks(fam(conv(r2, "enter4", stride=2), scm(x4, "shallow4"), "attend4"), "encoder4")
    z42 = twice(z)
    fused2 = aff([r1[..., ::2, ::2], r2, z42], "fuse2")
    fused1 = aff([r1, twice(r2), twice(z42)], "fuse1")
    z = blocks(z, "decoder4")
    out4 = conv(z, "leave4", relu=False) + x4
    z = blocks(conv(torch.cat([up(z, "up4"), fused2], 1), "join2"), "decoder2")
    out2 = conv(z, "leave2", relu=False) + x2
    z = blocks(conv(torch.cat([up(z, "up2"), fused1], 1), "join1"), "decoder1")
    out1 = conv(z, "leave1", relu=False) + x
    for restored, expected in zip(network.restore_scales(x), (out4, out2, out1), strict=True):
        torch.testing.assert_close(restored, expected, rtol=0, atol=1e-5)


# The order of TensorFlow's depth_to_space, as an index list: new[k] = old[list[k]] for pixel_shuffle.
INTO_COLOR_MAJOR = {
    2: [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11],
    3: [0, 3, 6, 9, 12, 15, 18, 21, 24, 1, 4, 7, 10, 13, 16, 19, 22, 25, 2, 5, 8, 11, 14, 17, 20, 23, 26],
}


@pytest.mark.parametrize(("planes", "scale"), [(4, 2), (9, 3)])
def test_sub_pixels_in_either_order(planes: int, scale: Literal[2, 3]) -> None:
    torch.manual_seed(0)
    position = SIDUNet(planes, scale, channel_order="position-major").eval()
    color = SIDUNet(planes, scale, channel_order="color-major").eval()
    order = INTO_COLOR_MAJOR[scale]
    state = position.state_dict()
    state |= {name: state[name][order] for name in ("head.weight", "head.bias")}
    color.load_state_dict(state)
    packed = picture(planes, 6, 5)
    with torch.inference_mode():
        torch.testing.assert_close(color(packed), position(packed), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3])
def test_position_major_is_depth_to_space(scale: int) -> None:
    """Channel (i * scale + j) * 3 + c is color c of the sub-pixel in row i, column j."""
    network = SIDUNet(4, scale)
    channels = torch.arange(3.0 * scale**2).reshape(1, -1, 1, 1)
    unpacked = network._unpack(channels)[0]
    for color in range(3):
        for i in range(scale):
            for j in range(scale):
                assert unpacked[color, i, j] == (i * scale + j) * 3 + color


def test_midway_upsampling_is_bilinear_at_half_the_index() -> None:
    """Output i is at i / 2 of the input (half_pixel_centers off), the last value repeated beyond the end."""
    features = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given_features = features.numpy()

    def at(axis: int, i: int) -> Any:
        size = given_features.shape[axis]
        low, share = i // 2, i / 2 - i // 2
        return (1 - share) * np.take(values, low, axis) + share * np.take(values, min(low + 1, size - 1), axis)

    values = given_features
    values = np.stack([at(3, i) for i in range(10)], axis=3)
    values = np.stack([at(2, i) for i in range(8)], axis=2)
    enlarged = MIMOUNet(1, upsampling="asymmetric")._enlarge(features)
    np.testing.assert_allclose(enlarged.numpy(), values, atol=1e-15)


def test_nearest_upsampling_repeats() -> None:
    features = torch.arange(4.0).reshape(1, 1, 2, 2)
    expected = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert MIMOUNet(1)._enlarge(features)[0, 0].tolist() == expected


@given(height=st.integers(1, 12), width=st.integers(1, 12))
@settings(max_examples=6)
def test_mimo_mirrors_to_a_multiple_of_4(height: int, width: int) -> None:
    _, network = built_small_mimo()
    degraded = picture(3, height, width)
    missing = (-height % 4, -width % 4)
    # numpy mirrors without repeating the border; where there is too little to mirror, the first pixel stays.
    rows, cols = (
        [i if i < n else max(0, 2 * (n - 1) - i) for i in range(n + m)]
        for n, m in zip((height, width), missing, strict=True)
    )
    filled = degraded[:, :, rows][..., cols]
    with torch.inference_mode():
        expected = network(filled)[..., :height, :width]
        torch.testing.assert_close(network(degraded), expected, rtol=0, atol=1e-6)


@lru_cache
def built_small_mimo() -> tuple[Recipe, Network]:
    return built("mimo_unet.gopro", num_blocks=1)


def test_mimo_restores_three_scales() -> None:
    _, network = built_small_mimo()
    assert isinstance(network, MIMOUNet)
    degraded = picture(3, 8, 12)
    quarter, half, full = network.restore_scales(degraded)
    assert [tuple(scale.shape) for scale in (quarter, half, full)] == [(1, 3, 2, 3), (1, 3, 4, 6), (1, 3, 8, 12)]
    torch.testing.assert_close(network(degraded), full, rtol=0, atol=1e-6)
    for parameter in network.parameters():
        parameter.zero_()
    # Each scale adds to the reduced picture, which is every second and fourth pixel.
    quarter, half, full = network.restore_scales(degraded)
    assert torch.equal(quarter, degraded[..., ::4, ::4])
    assert torch.equal(half, degraded[..., ::2, ::2])
    assert torch.equal(full, degraded)


def test_sid_starts_like_the_released_code() -> None:
    """Xavier uniform: sqrt(2 / (inputs + outputs)). A Gaussian that is cut at 2 deviations has 0.88 of one."""
    recipe = registry.find("sid_unet.sony")
    network = recipe.network()
    assert recipe.initialize is not None
    recipe.initialize(network)
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d):
            assert module.weight.abs().max() <= 0.04
            assert module.weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.05)
        elif isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            fans = module.weight[0, 0].numel() * (module.in_channels + module.out_channels)
            assert module.weight.std().item() == pytest.approx((2 / fans) ** 0.5, rel=0.05)
