"""Single training steps: precision, the loss scale, and batches that are not finite."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid.recipes import registry
from pellucid.recipes.recipe import Recipe
from pellucid.training.distributed import Group
from pellucid.training.learner import ExecutionMode, Learner, dropout_seed


def tiny(**keywords: Any) -> Recipe:
    """Stepped by SGD, since Adam would hide a factor on all gradients."""
    small = {"depth": 3, "width": 4, "batch_size": 2, "num_steps": 100, "schedule": "constant"}
    return registry.find("dncnn.gaussian", optimizer="sgd", lr=1e-3, momentum=0, **small, **keywords)


def build(recipe: Recipe, precision: str) -> Learner:
    torch.manual_seed(0)
    return Learner(recipe, recipe.network(), ExecutionMode(precision), seed=0, group=Group(torch.device("cpu")))


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
        assert half.learn(*batch) == pytest.approx(full.learn(*batch), rel=1e-2)
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
