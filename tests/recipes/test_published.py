"""Recipes as published: the papers' numbers, and those of the code that released weights come from."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, is_dataclass
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn

from pellucid.degradations.degradation import OneOf
from pellucid.degradations.raw_synthesis import SyntheticRaw
from pellucid.degradations.standard import GaussianNoise, Jpeg, Shrink, ShrinkAndEnlarge
from pellucid.domains import RGB, Gray, Luma, PackedRaw
from pellucid.errors import RecipeError
from pellucid.networks.srcnn import SRCNN, inner_squares
from pellucid.recipes import registry
from pellucid.recipes.losses import half_sum_of_squares, mean_absolute
from pellucid.recipes.optimizers import SGD, Adam
from pellucid.recipes.recipe import Recipe, ScoringProtocol


def lr_at(found: Recipe, step: int) -> float:
    return found.optimizer.lr * found.schedule.factor(step, found.num_steps)


# Zhang et al. 2017, Section IV-A


@pytest.mark.parametrize(
    ("name", "patch_px", "steps_per_epoch", "depth"),
    [
        ("dncnn.gaussian", 40, 1600, 17),
        ("dncnn.blind", 50, 3000, 20),
        ("dncnn.three_tasks", 50, 8000, 20),
    ],
)
def test_dncnn_as_published(name: str, patch_px: int, steps_per_epoch: int, depth: int) -> None:
    found = registry.find(name)
    assert found.loss is half_sum_of_squares
    assert found.optimizer == Adam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    assert (found.patch_px, found.batch_size) == (patch_px, 128)
    assert found.num_steps == 50 * steps_per_epoch
    assert lr_at(found, 0) == 1e-3
    assert lr_at(found, 30 * steps_per_epoch - 1) == 1e-3
    assert lr_at(found, 30 * steps_per_epoch) == pytest.approx(1e-4)
    assert lr_at(found, found.num_steps - 1) == pytest.approx(1e-4)
    assert found.parameters["depth"] == depth


def test_dncnn_degradations_as_published() -> None:
    assert registry.find("dncnn.gaussian", sigma_255=15).degradation == GaussianNoise(15)
    assert registry.find("dncnn.gaussian", sigma_255=15).protocol == ScoringProtocol(GaussianNoise(15))
    assert registry.find("dncnn.blind", sigma_255=15).degradation == GaussianNoise((0, 55))
    assert registry.find("dncnn.blind", sigma_255=15).protocol == ScoringProtocol(GaussianNoise(15))
    mixed = OneOf((GaussianNoise((0, 55)), ShrinkAndEnlarge((2, 3, 4)), Jpeg((5, 99))))
    assert registry.find("dncnn.three_tasks", quality=10).degradation == mixed


def test_dncnn_domains() -> None:
    assert registry.find("dncnn.gaussian").domain == Gray()
    assert registry.find("dncnn.gaussian", channels=3).domain == RGB()
    assert registry.find("dncnn.blind", channels=3).domain == RGB()
    assert registry.find("dncnn.three_tasks").domain == Luma(1)
    assert registry.find("dncnn.three_tasks", scale=3).domain == Luma(3)


def test_three_tasks_are_scored_one_at_a_time() -> None:
    def protocol(**task: Any) -> ScoringProtocol:
        return registry.find("dncnn.three_tasks", **task).protocol

    assert protocol() == ScoringProtocol(GaussianNoise(25))
    assert protocol(sigma_255=0) == ScoringProtocol(GaussianNoise(0))
    assert protocol(quality=10) == ScoringProtocol(Jpeg(10), rounds=True)
    assert protocol(scale=3) == ScoringProtocol(Shrink(3), crop_multiple=3, border_px=3, rounds=True)


def test_only_one_of_three_tasks_can_be_given() -> None:
    with pytest.raises(RecipeError, match="exclude each other; give one"):
        registry.find("dncnn.three_tasks", scale=2, quality=10)


def test_dncnn_gains_start_near_zero() -> None:
    torch.manual_seed(0)
    found = registry.find("dncnn.gaussian")
    network = found.network()
    assert found.initialize is not None
    assert isinstance(network, nn.Module)
    found.initialize(network)
    gains = torch.cat([m.weight.detach() for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
    assert gains.abs().max() == pytest.approx(0.025)
    # Drawn with deviation sqrt(2 / 576) = 0.0589: two thirds are cut to the limits.
    assert (gains.abs() == gains.abs().max()).float().mean().item() == pytest.approx(0.671, abs=0.05)
    inner = next(m for m in network.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 64)
    assert inner.weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.03)


def test_dncnn_can_start_as_the_identity() -> None:
    found = registry.find("dncnn.gaussian", depth=3, width=4, initialize="zero-last")
    network = found.network()
    assert found.initialize is not None
    found.initialize(network)
    noisy = torch.rand(2, 1, 8, 8)
    assert torch.equal(network(noisy), noisy)


# Dong et al. 2016, Sections 3.3 and 4.1


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_srcnn_as_published(scale: int) -> None:
    found = registry.find("srcnn.paper", scale=scale)
    assert found.domain == Luma(scale)
    assert found.degradation == Shrink(scale)
    assert found.loss is inner_squares
    # 1e-4, and 1e-5 for the last layer (Section 3.3).
    assert found.optimizer == SGD(lr=1e-4, momentum=0.9, slower=("reconstruct", 0.1))
    assert lr_at(found, found.num_steps - 1) == 1e-4
    assert found.batch_size * found.num_steps == 8 * 10**8
    assert found.patch_px % scale == 0
    assert 33 - scale < found.patch_px <= 33
    assert found.protocol == ScoringProtocol(Shrink(scale), crop_multiple=scale, border_px=scale, rounds=True)


def test_srcnn_starts_small() -> None:
    torch.manual_seed(0)
    found = registry.find("srcnn.paper")
    network = found.network()
    assert found.initialize is not None
    assert isinstance(network, SRCNN)
    found.initialize(network)
    assert network.extract.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert network.extract.bias is not None
    assert not network.extract.bias.any()


# Cho et al. 2021, and the released code


@pytest.mark.parametrize("name", ["mimo_unet.gopro", "mimo_unet.gopro_plus"])
def test_mimo_as_published(name: str) -> None:
    found = registry.find(name)
    assert found.domain == RGB()
    assert found.degradation is None
    assert found.optimizer == Adam(lr=1e-4, betas=(0.9, 0.999), eps=1e-8)
    assert (found.patch_px, found.batch_size) == (256, 4)
    # 2103 pairs, 4 a step, the last short; 3000 epochs; halved every 500.
    assert found.num_steps == 526 * 3000
    assert [lr_at(found, 526 * epoch - 1) for epoch in (500, 1000)] == pytest.approx([1e-4, 0.5e-4])
    assert [lr_at(found, 526 * epoch) for epoch in (500, 1000, 2999)] == pytest.approx(
        [0.5e-4, 0.25e-4, 1e-4 / 32]
    )
    assert found.protocol == ScoringProtocol(None)


def test_mimo_plus_has_20_blocks_and_dropout() -> None:
    network = registry.find("mimo_unet.gopro_plus").network()
    assert isinstance(network, nn.Module)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout2d)] == [0.1]
    assert any(key.startswith("encoder1.19.") for key in network.state_dict())
    assert not any(key.startswith("encoder1.20.") for key in network.state_dict())
    assert [m.p for m in _modules("mimo_unet.gopro") if isinstance(m, nn.Dropout2d)] == [0]


def _modules(name: str) -> list[nn.Module]:
    network = registry.find(name).network()
    assert isinstance(network, nn.Module)
    return list(network.modules())


def test_mimo_for_synthetic_blur_starts_as_the_identity() -> None:
    found = registry.find("mimo_unet.synthetic", num_blocks=1, width=8)
    network = found.network()
    assert found.initialize is not None
    found.initialize(network)
    picture = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(picture), picture)


# Chen et al. 2018, Section 4.2, and the released code


@pytest.mark.parametrize(
    ("name", "num_scenes", "patch_px", "sensor"),
    [("sid_unet.sony", 161, 1024, "bayer"), ("sid_unet.fuji", 135, 1536, "xtrans")],
)
def test_sid_as_published(name: str, num_scenes: int, patch_px: int, sensor: str) -> None:
    found = registry.find(name)
    assert isinstance(found.domain, PackedRaw)
    assert found.domain.sensor == sensor
    assert found.loss is mean_absolute
    assert found.optimizer == Adam(lr=1e-4, betas=(0.9, 0.999), eps=1e-8)
    assert found.batch_size == 1
    assert found.patch_px == patch_px  # 512 packed pixels
    assert found.num_steps == 4001 * num_scenes
    # 1e-5 for epochs above 2000, which are counted from 0.
    assert lr_at(found, 2001 * num_scenes - 1) == 1e-4
    assert lr_at(found, 2001 * num_scenes) == pytest.approx(1e-5)


def test_any_camera_is_trained_on_what_restoration_gives_it() -> None:
    """The mosaic of a picture's exposure, in the white balance of its file, is what the network is trained on."""
    found = registry.find("sid_unet.any_camera")
    exposed = found.degradation
    assert isinstance(exposed, SyntheticRaw) and found.protocol.degradation == exposed
    clean = torch.rand(1, 3, 1, 1, generator=torch.Generator().manual_seed(1)).expand(-1, -1, 8, 12)
    for seed in range(4):
        learned = found.domain.encode(exposed(clean, torch.Generator().manual_seed(seed)))
        mosaic = exposed.mosaic(clean, torch.Generator().manual_seed(seed))
        assert mosaic.white_balance != (1, 1, 1) and 50 <= mosaic.exposure_ratio <= 300
        torch.testing.assert_close(found.domain.to_input(mosaic), learned, rtol=0, atol=2e-5)


def test_exposure_ratios_must_be_in_order() -> None:
    assert registry.find("sid_unet.any_camera", exposure_ratio="10,10").parameters["exposure_ratio"] == (10, 10)
    with pytest.raises(RecipeError, match="the lowest must come first"):
        registry.find("sid_unet.any_camera", exposure_ratio=(300, 50))


# All recipes


def parts_of(value: object) -> Iterator[Any]:
    """All dataclasses in a value, with itself."""
    if is_dataclass(value):
        yield value
        value = tuple(vars(value).values())
    if isinstance(value, tuple):
        for part in value:
            yield from parts_of(part)


@pytest.mark.parametrize("name", registry.list_names())
def test_no_part_of_a_recipe_can_be_changed(name: str) -> None:
    parts = list(parts_of(registry.find(name)))
    assert len(parts) >= 5  # the recipe, its domain, optimizer, schedule and protocol
    for part in parts:
        with pytest.raises(FrozenInstanceError):
            part.any = 1


@pytest.mark.parametrize("name", registry.list_names())
def test_patches_fit_the_network(name: str) -> None:
    found = registry.find(name)
    side = Fraction(found.patch_px)
    if found.degradation is not None and isinstance(found.degradation, Shrink):
        side /= found.degradation.scale
    packed = side * found.domain.rate
    assert packed.denominator == 1
    assert packed % found.network().multiple == 0
