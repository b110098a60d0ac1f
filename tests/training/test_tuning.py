"""Tuning: which modes are tried, and that the fastest one is used."""

from typing import Any

import pytest
import torch

from pellucid.recipes import registry
from pellucid.recipes.recipe import Recipe
from pellucid.training import tuning
from pellucid.training.learner import ExecutionMode

CPU = torch.device("cpu")
LONG = 10**6
"""Steps of a training that is worth compiling."""


def tune(
    monkeypatch: pytest.MonkeyPatch, recipe: Recipe, times_s: dict[str, float]
) -> tuple[ExecutionMode, list[str]]:
    """The mode that is found, and the log, if each step takes the product of these times for what it uses."""

    def measure(_: Recipe, mode: ExecutionMode, *__: Any) -> float:
        step_s = 1.0
        for name, factor in times_s.items():
            step_s *= factor if getattr(mode, name) not in (False, "float32") else 1.0
        if step_s == float("inf"):
            raise RuntimeError("cannot\ncompile")
        return step_s

    monkeypatch.setattr(tuning, "measure_step_s", measure)
    log: list[str] = []
    batch = torch.zeros(1), torch.zeros(1)
    return tuning.tune(recipe, batch, CPU, log.append), log


@pytest.mark.parametrize(
    ("times_s", "expected"),
    [
        ({}, ExecutionMode()),
        ({"channels_last": 0.5}, ExecutionMode(channels_last=True)),
        ({"channels_last": 2.0}, ExecutionMode()),
        ({"precision": 0.5, "compiled": 2.0}, ExecutionMode("bfloat16")),
        ({"channels_last": 0.9, "precision": 0.9, "compiled": 0.9}, ExecutionMode("bfloat16", True, True)),
        ({"channels_last": 0.97, "precision": 0.97, "compiled": 0.97}, ExecutionMode()),
    ],
)
def test_the_fastest_mode_is_used(
    times_s: dict[str, float], expected: ExecutionMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = registry.find("dncnn.gaussian", num_steps=LONG)
    mode, log = tune(monkeypatch, recipe, times_s)
    assert mode == expected
    assert log[-1] == f"tuned: {expected}"
    assert len(log) == 5  # float32, three changes, the result


def test_the_precision_of_the_recipe_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = registry.find("dncnn.gaussian", num_steps=LONG, precision="float16")
    mode, _ = tune(monkeypatch, recipe, {"precision": 5.0, "channels_last": 0.5})
    assert mode == ExecutionMode("float16", channels_last=True)


def test_a_mode_that_does_not_run_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = registry.find("dncnn.gaussian", num_steps=LONG)
    mode, log = tune(monkeypatch, recipe, {"channels_last": 0.5, "compiled": float("inf")})
    assert mode == ExecutionMode(channels_last=True)
    assert log[-2].endswith("does not run here (cannot compile)")


def test_short_trainings_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = registry.find("dncnn.gaussian", num_steps=500)
    mode, log = tune(monkeypatch, recipe, {"compiled": 0.1})
    assert mode == ExecutionMode()
    assert log[-2] == "tuning: compilation not tried: the training takes only about 500 s"


def test_cuda_graphs_are_tried_only_on_cuda() -> None:
    recipe = registry.find("dncnn.gaussian")
    assert {"compiled": True, "graphs": True} in tuning._changes(recipe, torch.device("cuda"))
    assert not any("graphs" in change for change in tuning._changes(recipe, CPU))
    assert str(ExecutionMode(compiled=True, graphs=True)).endswith("compiled with CUDA graphs")
