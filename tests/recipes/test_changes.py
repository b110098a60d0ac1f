import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.degradations.degradation import OneOf
from pellucid.degradations.standard import GaussianNoise, Jpeg
from pellucid.errors import RecipeError
from pellucid.recipes.changes import describe_changes, describe_part
from pellucid.recipes.registry import list_names


@dataclass
class Haze:
    depth: float
    kernel: Any = None
    steps: tuple[Any, ...] = field(default=())


class Fog(Haze):
    def __init__(self, density: float) -> None:
        super().__init__(1)
        self.density = density


class Rain:
    def __init__(self, drops: int) -> None:
        self.drops = drops

    def fall(self) -> None: ...


class Drop:
    __slots__ = ("missing", "size")

    def __init__(self, size: Any) -> None:
        self.size = size


def blur(width_px: int = 3) -> None: ...


def scale(factor: float) -> Callable[[float], float]:
    return lambda value: value * factor


@pytest.mark.parametrize("name", list_names())
def test_a_recipe_as_it_was_found_has_no_changes(name: str) -> None:
    assert describe_changes(pellucid.find(name)) == {}
    assert describe_changes(pellucid.find(name, num_steps=100, lr=1e-3, batch_size=3)) == {}


def test_changes_are_described_by_field() -> None:
    changed = replace(pellucid.find("dncnn.gaussian"), degradation=GaussianNoise(3.0), batch_size=7)
    assert describe_changes(changed) == {"degradation": "GaussianNoise(sigma_255=3)", "batch_size": "7"}


def test_an_equal_part_is_not_a_change() -> None:
    made = pellucid.find("dncnn.gaussian")
    assert describe_changes(replace(made, degradation=GaussianNoise(25.0), num_steps=made.num_steps)) == {}


def test_recipes_without_a_name_are_refused() -> None:
    with pytest.raises(RecipeError, match="name '' cannot be found again; .*`pellucid.add_network` adds"):
        describe_changes(replace(pellucid.find("dncnn.gaussian"), name=""))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (OneOf((GaussianNoise(1.5), Jpeg(40))), "OneOf(choices=(GaussianNoise(sigma_255=1.5), Jpeg(q"),
        (
            Haze(0.5, steps=([1, 2], {"a": None})),
            "test_changes.Haze(depth=0.5, kernel=None, steps=((1, 2), {a=None}))",
        ),
        (Fog(0.5), "test_changes.Fog(depth=1, kernel=None, steps=(), density=0.5)"),
        (Rain(3), "test_changes.Rain(drops=3)"),
        (Rain(3).fall, "test_changes.Rain(drops=3).fall"),
        ({3, 1, 2}, "(1, 2, 3)"),
        (partial(round, 3.5, ndigits=0), "round(3.5, ndigits=0)"),
        (scale(2.0), "test_changes.scale.<locals>.<lambda>(2)"),
        (Rain, "test_changes.Rain"),
        (Drop(2), "test_changes.Drop(size=2)"),
        (Drop(np.float32(2)), "test_changes.Drop(size=2)"),
        (np.float64(0.5), "0.5"),
        (Path("kernels"), "PosixPath('kernels')" if os.name == "posix" else "WindowsPath"),
        (Fraction(1, 3), "Fraction(1, 3)"),
        (range(3), "range(0, 3)"),
        (random, "module random"),
        (torch.bfloat16, "torch.bfloat16"),
        (torch.ones(2, dtype=torch.bfloat16), "bfloat16[2] (SHA-256 "),
        (torch.ones(2, device="meta"), "float32[2]"),
        (np.array([{"a": 1}, None]), "({a=1}, None)"),
        (blur, "test_changes.blur(3)"),
        (Random(1), "random.Random("),
    ],
    ids=lambda value: value[:9] if isinstance(value, str) else "",
)
def test_descriptions_have_no_addresses(value: object, text: str) -> None:
    assert describe_part(value).startswith(text)


def test_arrays_are_told_apart_by_their_values() -> None:
    ones, others = np.ones((50, 60)), np.ones((50, 60))
    others[30, 30] = 0
    assert describe_part(Haze(1, ones)) == describe_part(Haze(1, ones.copy()))
    assert describe_part(Haze(1, ones)) != describe_part(Haze(1, others))
    assert describe_part(torch.ones(2)) != describe_part(torch.zeros(2)) != describe_part(torch.zeros(2, 1))
    assert describe_part(ones).startswith("float64[50, 60] (SHA-256 ")


def test_long_descriptions_end_with_a_hash() -> None:
    one, other = (describe_part((*range(500), last)) for last in (1, 2))
    assert one != other and one[:150] == other[:150] and len(one) <= 200


def test_objects_that_contain_themselves_are_described() -> None:
    loop = Rain(1)
    vars(loop)["again"] = loop
    assert describe_part(loop).startswith("test_changes.Rain(drops=1, again=test_changes.Rain(drops=1, again=")


def test_objects_that_all_know_each_other_are_described_in_time() -> None:
    known = [Rain(number) for number in range(60)]
    for one in known:
        vars(one)["others"] = known
    assert describe_part(known).startswith("(test_changes.Rain(drops=0, others=(")


def test_a_variable_that_is_not_set_yet_is_left_out() -> None:
    def use() -> object:
        return later

    assert describe_part(use).startswith("test_changes.test_a_variable")
    later = 1
    assert describe_part(use).endswith("(1)")


def test_an_own_class_with_the_name_of_one_of_pellucid_is_a_change() -> None:
    own = type("GaussianNoise", (GaussianNoise,), {"__module__": "mine"})(25.0)
    changed = replace(pellucid.find("dncnn.gaussian"), degradation=own)
    assert describe_changes(changed) == {"degradation": "mine.GaussianNoise(sigma_255=25)"}


def test_whole_numbers_are_equal_to_others() -> None:
    made = pellucid.find("dncnn.gaussian")
    numbers: tuple[Any, ...] = 25, np.float64(25), np.int64(25)
    for sigma_255 in numbers:
        assert describe_changes(replace(made, degradation=GaussianNoise(sigma_255))) == {}
    assert describe_changes(replace(made, degradation=GaussianNoise(float(np.float32(50)))))


RANDOM = """
import torch
from fractions import Fraction
from functools import partial
from pathlib import Path
from random import Random
from pellucid.networks import dncnn
from pellucid.recipes.recipe import recipe, Recipe
from dataclasses import replace

def loss(features, network, degraded, target):
    return dncnn.gaussian().loss(network, degraded, target)

@recipe
def small() -> Recipe:
    return replace(dncnn.gaussian(depth=3, width=4), loss=partial(loss, torch.rand(3)))
"""


def test_parts_that_are_random_are_not_changes(tmp_path: Path) -> None:
    path = tmp_path / "random_loss.py"
    path.write_text(RANDOM)
    pellucid.add_network(path)
    made = pellucid.find("random_loss.small")
    assert describe_changes(made) == {}
    assert describe_changes(replace(made, degradation=GaussianNoise(3.0))) == {
        "degradation": "GaussianNoise(sigma_255=3)"
    }
