from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
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


class Rain:
    def __init__(self, drops: int) -> None:
        self.drops = drops

    def fall(self) -> None: ...


def scale(factor: float) -> Callable[[float], float]:
    return lambda value: value * factor


@pytest.mark.parametrize("name", list_names())
def test_a_recipe_as_it_was_found_has_no_changes(name: str) -> None:
    assert describe_changes(pellucid.find(name)) == {}
    assert describe_changes(pellucid.find(name, num_steps=100, lr=1e-3, batch_size=3)) == {}


def test_changes_are_described_by_field() -> None:
    changed = replace(pellucid.find("dncnn.gaussian"), degradation=GaussianNoise(3.0), batch_size=7)
    assert describe_changes(changed) == {"degradation": "GaussianNoise(sigma_255=3.0)", "batch_size": "7"}


def test_an_equal_part_is_not_a_change() -> None:
    made = pellucid.find("dncnn.gaussian")
    assert describe_changes(replace(made, degradation=GaussianNoise(25.0), num_steps=made.num_steps)) == {}


def test_recipes_without_a_name_are_refused() -> None:
    with pytest.raises(RecipeError, match="no recipe ''"):
        describe_changes(replace(pellucid.find("dncnn.gaussian"), name=""))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (OneOf((GaussianNoise(1.0), Jpeg(40))), "OneOf(choices=(GaussianNoise(sigma_255=1.0), Jpeg(q"),
        (Haze(0.5, steps=([1, 2], {"a": None})), "Haze(depth=0.5, kernel=None, steps=((1, 2), {a=None}))"),
        (Rain(3), "Rain(drops=3)"),
        (Rain(3).fall, "Rain.fall"),
        ({3, 1, 2}, "(1, 2, 3)"),
        (partial(round, 3.5, ndigits=0), "round(3.5, ndigits=0)"),
        (scale(2.0), "scale.<locals>.<lambda>(2.0)"),
        (Rain, "Rain"),
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
    assert describe_part(loop).startswith("Rain(drops=1, again=Rain(drops=1, again=")
