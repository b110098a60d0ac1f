"""Training keywords: the same recipe, trained differently."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pellucid.errors import RecipeError
from pellucid.recipes import overrides, registry
from pellucid.recipes.optimizers import SGD, SOAP, Adam, Optimizer
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.schedules import Cosine, Drops, Exponential


def lr_at(found: Recipe, step: int) -> float:
    return found.optimizer.lr * found.schedule.factor(step, found.num_steps)


def test_every_recipe_accepts_training_keywords_and_finds_itself_again() -> None:
    given = {"lr": "2e-4", "batch_size": "3", "betas": "0.8,0.9", "ema_decay": "0.99", "clip_tensor_norm": "5"}
    for name in registry.list_names():
        changes = {key: value for key, value in given.items() if not (name == "srcnn.paper" and key == "betas")}
        found = registry.find(name, **changes)
        assert (found.optimizer.lr, found.batch_size, found.ema_decay) == (2e-4, 3, 0.99)
        again = registry.find(found.name, **json.loads(json.dumps(found.parameters)))
        assert again.parameters == found.parameters
        assert (again.optimizer, again.schedule) == (found.optimizer, found.schedule)


def test_other_values_do_not_change() -> None:
    found = registry.find("dncnn.gaussian", lr=1e-4)
    assert found.optimizer == Adam(lr=1e-4)
    assert found.schedule == registry.find("dncnn.gaussian").schedule
    assert set(found.parameters) - set(registry.find("dncnn.gaussian").parameters) == {"lr"}


def test_optimizers_and_schedules_can_be_changed() -> None:
    found = registry.find("srcnn.paper", optimizer="adam", schedule="drops", at_steps="10,20", gamma="0.5,0.1")
    assert found.optimizer == Adam(lr=1e-4, slower=("reconstruct", 0.1))
    assert found.schedule == Drops((10, 20), (0.5, 0.1))
    assert [lr_at(found, step) for step in (9, 10, 20)] == pytest.approx([1e-4, 5e-5, 5e-6])
    warmed = registry.find("dncnn.gaussian", warmup_steps=4)
    assert [lr_at(warmed, step) for step in (0, 3, 4)] == pytest.approx([2.5e-4, 1e-3, 1e-3])
    assert registry.find("dncnn.gaussian", schedule="cosine", warmup_steps=4).schedule == Cosine(4)


def test_another_optimizer_keeps_the_values_that_both_have_except_betas() -> None:
    adam = registry.find("dncnn.gaussian", betas="0.8,0.9", weight_decay=0.01, eps=1e-6)
    soap = overrides.override(adam, optimizer="soap")
    assert soap.optimizer == SOAP(lr=1e-3, weight_decay=0.01, eps=1e-6)
    assert overrides.override(adam, optimizer="sgd").optimizer == SGD(lr=1e-3, weight_decay=0.01)
    assert overrides.override(adam, optimizer="adam", lr=1).optimizer == Adam(1, (0.8, 0.9), 1e-6, 0.01)


def test_another_schedule_keeps_the_warmup() -> None:
    warmed = registry.find("srcnn.tuned", schedule="exponential", last=0.1)
    assert warmed.schedule == Exponential(0.1, warmup_steps=100)


def test_none_keeps_the_value_of_the_recipe() -> None:
    found = registry.find("dncnn.gaussian")
    assert overrides.override(found, lr=None, optimizer="none", clip_norm=None) == found


def test_no_augmentation_can_be_asked_for_by_text() -> None:
    assert registry.find("dncnn.gaussian", augmentation="none").augmentation == "none"


def test_training_keywords_are_the_described_fields() -> None:
    keywords = overrides.training_keywords()
    assert {"num_steps", "optimizer", "lr", "momentum", "schedule", "gamma", "warmup_steps"} <= keywords.keys()
    assert not keywords.keys() & {"slower", "network", "domain", "protocol", "name", "parameters"}


def test_drops_are_rescaled_with_the_number_of_steps() -> None:
    found = registry.find("dncnn.gaussian", num_steps=100)
    assert found.schedule == Drops((60,), 0.1)  # 30 of 50 epochs
    assert registry.find("srcnn.tuned", num_steps=100).schedule == Cosine(100)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": 1}, "has no keyword 'learning_rate'; "),
        ({"batchsize": 1}, "did you mean batch_size"),
        ({"recipe": 1}, "has no keyword 'recipe'"),
        ({"lr": 0}, "lr=0 is not possible; expected a number above 0"),
        ({"lr": "nan"}, "lr=nan is not possible"),
        ({"ema_decay": 1}, "ema_decay=1 is not possible"),
        ({"precision": "int8"}, "precision=int8 is not possible"),
        ({"momentum": 0.5}, "momentum does not belong to adam, which has lr, betas, eps, weight_decay"),
        ({"last": 0.5}, "last does not belong to drops"),
        ({"schedule": "exponential"}, "exponential needs last="),
        ({"at_steps": "1,2", "gamma": "0.1,0.2,0.3"}, "3 values of gamma for 2 at_steps"),
    ],
)
def test_the_error_for_a_wrong_training_keyword_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        registry.find("dncnn.gaussian", **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"at_steps": "5,3"}, "at_steps=5,3 is not possible; expected steps that ascend"),
        ({"at_steps": "5,5"}, "at_steps=5,5 is not possible; expected steps that ascend"),
        ({"at_steps": "10"}, "at_steps=10 is not possible with num_steps=10; expected less"),
        ({"warmup_steps": 10}, "warmup_steps=10 is not possible with num_steps=10; expected less"),
    ],
)
def test_steps_that_a_training_cannot_reach_are_refused_when_it_starts(
    given: dict[str, Any], message: str
) -> None:
    found = registry.find("dncnn.gaussian", num_steps=10, **given)  # trained weights with such steps can be read
    with pytest.raises(RecipeError, match=message):
        overrides.check_steps(found)


def test_steps_within_a_training_are_accepted() -> None:
    overrides.check_steps(registry.find("dncnn.gaussian", num_steps=1))  # a drop that is rescaled, not given
    overrides.check_steps(registry.find("dncnn.gaussian", num_steps=10, at_steps="3,9", warmup_steps=9))


@pytest.mark.parametrize("name", registry.list_names())
def test_training_keywords_are_described_with_the_values_of_the_recipe(name: str) -> None:
    found = registry.find(name)
    described = registry.describe_training(found)
    assert described["lr"].default == found.optimizer.lr
    assert described["num_steps"].default == found.num_steps
    assert described["ema_decay"].values == "number from 0 below 1"


@pytest.mark.parametrize("name", registry.list_names())
def test_a_recipe_has_values_that_its_keywords_can_have(name: str) -> None:
    found = registry.find(name)
    again = overrides.override(found, **overrides.training_values(found))
    assert replace(again, parameters=found.parameters) == found


@pytest.mark.parametrize("optimizer", overrides.OPTIMIZERS.values())
def test_no_optimizer_pulls_weights_to_zero_unless_asked(optimizer: Callable[..., Optimizer]) -> None:
    assert optimizer(lr=1e-3).weight_decay == 0


def test_a_former_name_of_a_keyword_is_accepted() -> None:
    found = registry.find("srcnn.tuned", basis_steps=7)
    assert found.optimizer == SOAP(lr=3e-3, precondition_frequency=7)
    assert found.parameters["precondition_frequency"] == 7 and "basis_steps" not in found.parameters


def test_former_names_are_for_hashes() -> None:
    keywords = {"lr": 1e-3, "precondition_frequency": 7}
    former = overrides.former_keywords(keywords)
    assert former == {"lr": 1e-3, "basis_steps": 7}
    assert overrides.rename_keywords(former) == overrides.rename_keywords(keywords) == keywords
