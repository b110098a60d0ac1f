"""Single training steps: precision, the loss scale, batches that are not finite, and waits for a device."""

from collections.abc import Collection
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from device_waits import ForbidWaits
from pellucid.pictures.camera.packing import unpack_bayer
from pellucid.recipes import registry
from pellucid.recipes.recipe import Recipe
from pellucid.system import devices
from pellucid.training.distributed import Group
from pellucid.training.learner import ExecutionMode, Learner, StepResult, dropout_seed


def tiny(**keywords: Any) -> Recipe:
    """Stepped by SGD, since Adam would hide a factor on all gradients."""
    small = {"depth": 3, "width": 4, "batch_size": 2, "num_steps": 100, "schedule": "constant"}
    return registry.find("dncnn.gaussian", optimizer="sgd", lr=1e-3, momentum=0, **small, **keywords)


def build(recipe: Recipe, precision: str, *, channels_last: bool = False) -> Learner:
    torch.manual_seed(0)
    mode = ExecutionMode(precision, channels_last)
    return Learner(recipe, recipe.network(), mode, seed=0, group=Group(torch.device("cpu")))


def batches(num: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    targets = [torch.rand(2, 1, 16, 16, generator=generator) for _ in range(num)]
    return [(target + 0.1 * torch.randn(target.shape, generator=generator), target) for target in targets]


def is_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_seeds_of_dropout_differ_and_fit_every_generator() -> None:
    """Those of some devices take 63 bits."""
    seeds = [dropout_seed(*numbers) for numbers in product((0, 1, 2**64), range(20), range(3))]
    assert len(set(seeds)) == len(seeds) and min(seeds) >= 0
    assert 2**62 < max(seeds) < 2**63


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_float16_steps_equal_float32_steps(clip_norm: float | None) -> None:
    recipe = replace(tiny(), clip_norm=clip_norm)
    half, full = build(recipe, "float16"), build(recipe, "float32")
    half.load(
        0, half.tensors(), {**half.metadata(), "loss_scale": {"scale": 256.0, "num_clean": 0, "doubles": True}}
    )
    start = full.weights()
    for batch in batches(3):
        (one,), (other,) = half.learn(*batch), full.learn(*batch)
        assert one.loss == pytest.approx(other.loss, rel=1e-2)
    assert half.num_skipped == 0
    moved = [(full.weights()[name] - start[name]).flatten() for name, _ in recipe.network().named_parameters()]
    difference = [
        (half.weights()[name] - full.weights()[name]).flatten() for name, _ in recipe.network().named_parameters()
    ]
    assert torch.cat(difference).norm() < 0.02 * torch.cat(moved).norm()


def test_an_overflow_skips_the_batch_and_halves_the_scale() -> None:
    learner = build(tiny(ema_decay=0.9), "float16")
    first, second = batches(2)
    before, scale = learner.weights(), {"scale": 2.0**40, "num_clean": 7, "doubles": True}
    learner.load(0, learner.tensors(), {**learner.metadata(), "loss_scale": scale})
    learner.learn(*first)
    assert learner.metadata() == {
        "num_skipped": 1,
        "num_skipped_in_a_row": 1,
        "loss_scale": {"scale": 2.0**39, "num_clean": 0, "doubles": True},
    }
    assert is_same(before, learner.weights()) and learner.step == 1
    learner.load(1, learner.tensors(), {**learner.metadata(), "loss_scale": {**scale, "scale": 256.0}})
    learner.learn(*second)
    assert learner.metadata() == {
        "num_skipped": 1,
        "num_skipped_in_a_row": 0,
        "loss_scale": {"scale": 256.0, "num_clean": 8, "doubles": True},
    }
    assert not is_same(before, learner.weights())


def test_the_scale_doubles_after_2000_finite_steps() -> None:
    learner = build(tiny(), "float16")
    scale = {"scale": 256.0, "num_clean": 1998, "doubles": True}
    learner.load(0, learner.tensors(), {**learner.metadata(), "loss_scale": scale})
    scales = []
    for batch in batches(2):
        learner.learn(*batch)
        scales.append(learner.metadata()["loss_scale"]["scale"])
    assert scales == [256.0, 512.0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_batch_that_is_not_finite_changes_no_tensor(precision: str) -> None:
    learner = build(tiny(ema_decay=0.9), precision)
    first, second = batches(2)
    learner.learn(*first)
    before = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    learner.learn(second[0] * float("nan"), second[1])
    assert is_same(before, learner.tensors())
    assert learner.step == 2 and learner.num_skipped_in_a_row > 0


# ---- without waiting for a GPU, shown on the CPU -----------------------------------------


@pytest.fixture
def asynchronous(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "is_asynchronous", lambda device: True)


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "weight_decay": 0.1},
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "sgd without momentum": {"optimizer": "sgd", "momentum": 0},
    "soap": {"optimizer": "soap", "precondition_frequency": 3, "weight_decay": 0.1},
}


def learn_all(learner: Learner, skipped: Collection[int] = ()) -> list[StepResult]:
    """The results of 50 steps, those numbered in `skipped` with NaN or infinite values."""
    results = []
    for i, (degraded, target) in enumerate(batches(50)):
        factor = 1.0 if i not in skipped else float("nan") if i % 2 else float("inf")
        results += learner.learn(degraded * factor, target)
        if i in (9, 30):  # as for a checkpoint
            results += learner.settle()
    return results + learner.settle()


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("layout", ["channels first", "channels last"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_results_that_are_read_one_step_late_are_the_same(
    optimizer: str, layout: str, precision: str, request: pytest.FixtureRequest
) -> None:
    small = {"depth": 4, "width": 4, "batch_size": 2, "num_steps": 100, "ema_decay": 0.9, "clip_norm": 1.0}
    recipe = registry.find("dncnn.gaussian", **small, lr=1e-3, **OPTIMIZERS[optimizer])

    def run() -> tuple[Learner, list[StepResult]]:
        learner = build(recipe, precision, channels_last=layout == "channels last")
        scale = {"scale": 256.0, "num_clean": 0, "doubles": True}
        learner.load(0, learner.tensors(), {**learner.metadata(), "loss_scale": scale})
        return learner, learn_all(learner, skipped=(0, 5, 6, 7, 9, 18, 49))

    at_once, expected = run()
    request.getfixturevalue("asynchronous")
    late, results = run()
    assert [result.step for result in results] == list(range(1, 51))
    assert list(map(repr, results)) == list(map(repr, expected))  # NaN differs from itself
    assert results[-1].num_skipped == 7 and results[7].num_skipped_in_a_row == 3
    assert late.metadata() == at_once.metadata()
    assert late.tensors().keys() == at_once.tensors().keys()
    assert is_same(at_once.tensors(), late.tensors()) and is_same(at_once.weights(), late.weights())


@pytest.mark.usefixtures("asynchronous")
def test_a_late_result_is_that_of_the_step_before() -> None:
    learner = build(tiny(), "float32")
    counts = [[result.step for result in learner.learn(*batch)] for batch in batches(4)]
    assert counts == [[], [1], [2], [3]] and [result.step for result in learner.settle()] == [4]
    assert learner.settle() == []
    learner.learn(*batches(1)[0])
    with pytest.raises(AssertionError):
        learner.metadata()  # which would not know whether that step was skipped


@pytest.mark.usefixtures("asynchronous")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_step_waits_for_the_device(optimizer: str, precision: str) -> None:
    small = {"depth": 4, "width": 4, "batch_size": 2, "num_steps": 100, "ema_decay": 0.9}
    clipping = {"clip_norm": 1.0, "clip_tensor_norm": 0.5}
    learner = build(registry.find("dncnn.gaussian", **small, **clipping, **OPTIMIZERS[optimizer]), precision)
    *first, third, fourth, fifth = batches(5)
    for batch in first:  # which initialize the optimizer; SOAP's counts are on the CPU anyway
        learner.learn(*batch)
    with ForbidWaits():
        for batch in (third, fourth, fifth):
            learner.learn(*batch)
    with pytest.raises(AssertionError, match="_local_scalar_dense"), ForbidWaits():
        learner.is_finite()  # which waits


LOSSES: dict[str, dict[str, Any]] = {
    "srcnn.tuned": {},
    "dncnn.three_tasks": {"depth": 3, "width": 4},
    "dncnn.raw": {"width": 4},
    "mimo_unet.gopro": {"num_blocks": 1, "width": 4, "dropout": 0.2},
    "sid_unet.any_camera": {"width": 4},
}


@pytest.mark.usefixtures("asynchronous")
@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_waits_for_the_device(name: str) -> None:
    recipe = registry.find(name, **LOSSES[name])
    learner = build(recipe, "float32")
    degraded = torch.rand(2, recipe.domain.num_planes, 32, 32)
    with torch.no_grad():
        target = torch.rand_like(recipe.network().eval()(degraded))
    if recipe.domain.gives_mosaic:
        target = unpack_bayer(target)
    for _ in range(2):
        learner.learn(degraded, target)
    with ForbidWaits():
        learner.learn(degraded, target)
