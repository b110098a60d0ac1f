"""Tuning: which modes are tried, and that the fastest one is used."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.recipes import registry
from pellucid.recipes.optimizers import SGD
from pellucid.recipes.recipe import Recipe
from pellucid.system.other_load import OtherLoad
from pellucid.training import tuning
from pellucid.training.learner import ExecutionMode
from pellucid.training.tuning import Measurement

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
COMPILING_S = 100.0
LONG = 10**6
"""Steps of a training that is worth compiling."""


def tune(
    monkeypatch: pytest.MonkeyPatch, recipe: Recipe, times_s: dict[str, float], device: torch.device = CPU
) -> tuple[ExecutionMode, list[str]]:
    """The mode that is found, and the log, if each step takes the product of these times for what it uses."""

    def measure(_: Recipe, mode: ExecutionMode, *__: Any) -> Measurement:
        step_s = 1.0
        for name, factor in times_s.items():
            step_s *= factor if getattr(mode, name) not in (False, "float32") else 1.0
        if step_s == float("inf"):
            raise RuntimeError("cannot\ncompile")
        return Measurement(step_s, COMPILING_S if mode.compiled else 0.0)

    monkeypatch.setattr(tuning, "measure_mode", measure)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    log: list[str] = []
    batch = torch.zeros(1), torch.zeros(1)
    return tuning.tune(recipe, batch, device, log.append), log


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(OtherLoad, "share", lambda self: 0.1)
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tuning.json"


def test_what_was_measured_next_to_other_programs_is_not_remembered(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = registry.find("dncnn.gaussian", num_steps=LONG)
    monkeypatch.setattr(OtherLoad, "share", lambda self: 0.4)
    for _ in range(2):
        mode, log = tune(monkeypatch, recipe, {"channels_last": 0.5})
        assert mode == ExecutionMode(channels_last=True) and not cache.exists()
        assert log[-2:] == ["tuning: not remembered, other programs used 40% of the processors", f"tuned: {mode}"]
        assert not any("before" in line for line in log)
    tune(monkeypatch, recipe, {"channels_last": 0.5}, CUDA)  # which does not depend on them
    assert cache.exists()


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
    recipe = registry.find("dncnn.gaussian", num_steps=2000)
    mode, log = tune(monkeypatch, recipe, {"compiled": 0.1})
    assert mode == ExecutionMode()
    expected = "compiled: not tried, tuning would take 70 s in all, more than 3% of the training's 2e+03 s"
    assert log[-2].endswith(expected)


def test_trainings_of_a_few_steps_are_not_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = registry.find("dncnn.gaussian", num_steps=333)
    mode, log = tune(monkeypatch, recipe, {"channels_last": 0.1})
    assert mode == ExecutionMode()
    assert log == ["tuning: not tried in a training of 333 steps", f"tuned: {mode}"]


@pytest.mark.parametrize(
    ("times_s", "expected", "num_tried"),
    [
        # Alone, neither bfloat16 nor channels last gain anything; compiled code needs graphs.
        (
            {"precision": 0.9, "channels_last": 0.6, "compiled": 1.5, "graphs": 0.3},
            ("bfloat16", True, True, True),
            3,
        ),
        ({"precision": 2.0, "tf32": 0.5, "graphs": 2.0, "compiled": 0.9}, ("float32", True, True, False), 5),
        ({"precision": float("inf"), "channels_last": 2.0}, ("float32", False, False, False), 6),
    ],
)
def test_a_gpu_is_tried_with_what_goes_together(
    times_s: dict[str, float],
    expected: tuple[str, bool, bool, bool],
    num_tried: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = registry.find("dncnn.gaussian", num_steps=LONG)
    mode, log = tune(monkeypatch, recipe, times_s, CUDA)
    assert (mode.precision, mode.channels_last, mode.compiled, mode.graphs) == expected
    assert len(log) == num_tried + 1


def test_cuda_graphs_are_tried_only_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    _, log = tune(monkeypatch, registry.find("dncnn.gaussian", num_steps=LONG), {"compiled": 0.5})
    assert not any("graphs" in line for line in log)
    assert str(ExecutionMode(compiled=True, graphs=True)).endswith("compiled with CUDA graphs")


def test_measurements_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    times_s = {"channels_last": 0.5, "compiled": 0.5}
    recipe = registry.find("dncnn.gaussian", num_steps=LONG)
    first, _ = tune(monkeypatch, recipe, times_s)
    again, log = tune(monkeypatch, replace(recipe, num_steps=2 * LONG), {"channels_last": 2.0})
    assert again == first and all("measured before" in line for line in log[:-1])
    other, _ = tune(monkeypatch, replace(recipe, optimizer=SGD(lr=0.1)), {"channels_last": 2.0})
    assert other == ExecutionMode()


def test_compiling_takes_as_long_as_the_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = registry.find("dncnn.gaussian", num_steps=LONG)
    tune(monkeypatch, recipe, {"compiled": 0.5})
    short = replace(recipe, num_steps=150)  # compiling takes 100 s, and gains 75 s
    monkeypatch.setattr(tuning, "MAX_SHARE", 1.0)
    mode, log = tune(monkeypatch, short, {})
    assert mode == ExecutionMode()
    assert log[-2].endswith("compiled: 500 ms per step when it was measured before, not used")


def test_a_remembered_mode_that_does_not_run_any_more_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = registry.find("dncnn.gaussian", num_steps=LONG)
    first, _ = tune(monkeypatch, recipe, {"channels_last": 0.5, "compiled": 0.5})
    assert first == ExecutionMode(channels_last=True, compiled=True)
    mode, log = tune(monkeypatch, recipe, {"channels_last": 0.5, "compiled": float("inf")})
    assert mode == ExecutionMode(channels_last=True)
    assert any("does not run any more (cannot compile)" in line for line in log)


def test_another_type_of_device_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = registry.find("dncnn.gaussian", num_steps=LONG)
    tune(monkeypatch, recipe, {"channels_last": 0.5})
    mode, _ = tune(monkeypatch, recipe, {"channels_last": 2.0}, torch.device("mps"))
    assert mode == ExecutionMode()


def test_failures_count_as_time_of_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count(0.0, 50.0)  # each measurement takes 50 s
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    recipe = registry.find("dncnn.gaussian", num_steps=3500)  # 3 % are 105 s
    _, log = tune(monkeypatch, recipe, {"channels_last": float("inf")})
    assert "does not run here" in log[1] and "more than 3% of the training's" in log[2]


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "\xff"])
def test_a_damaged_memory_is_replaced(content: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.mkdir()
    cache.write_text(content, "latin-1")
    recipe = registry.find("dncnn.gaussian", num_steps=LONG)
    mode, _ = tune(monkeypatch, recipe, {"channels_last": 0.5})
    assert mode == ExecutionMode(channels_last=True)
    assert "channels last" in cache.read_text()
