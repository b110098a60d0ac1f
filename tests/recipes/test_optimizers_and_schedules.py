"""Learning rate schedules by hand, and the layers that optimizers treat differently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.recipes import registry
from pellucid.recipes.schedules import Constant, Cosine, Drops, Exponential


def test_constant_stays() -> None:
    assert [Constant().factor(step, 10) for step in (0, 5, 9)] == [1, 1, 1]


def test_drops_multiply_at_their_steps() -> None:
    drops = Drops(at_steps=(2, 4), gamma=0.5)
    assert [drops.factor(step, 6) for step in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_drops_may_have_a_gamma_for_each_step() -> None:
    drops = Drops(at_steps=(1, 3), gamma=(0.5, 0.1))
    assert [drops.factor(step, 4) for step in range(4)] == pytest.approx([1, 0.5, 0.5, 0.05])


def test_warmup_multiplies_every_schedule() -> None:
    schedules = (Constant(2), Drops((9,), 0.5, 2), Exponential(1, 2), Cosine(2))
    assert [schedule.factor(0, 10) for schedule in schedules] == pytest.approx([0.5] * 4)
    assert [schedule.factor(1, 10) for schedule in schedules] == pytest.approx([1] * 4)


def test_warmup_multiplies_the_product_of_all_drops() -> None:
    """In this order, so that runs of earlier versions resume with the same bits."""
    assert Drops((1, 2), (0.7, 0.1), 10).factor(2, 10) == 3 / 10 * (0.7 * 0.1) != 3 / 10 * 0.7 * 0.1


def test_exponential_falls_evenly() -> None:
    fall = Exponential(last=0.01)
    assert [fall.factor(step, 5) for step in range(5)] == pytest.approx([1, 10**-0.5, 0.1, 10**-1.5, 0.01])
    assert fall.factor(0, 1) == 1


def test_cosine_warms_up_and_falls_to_zero() -> None:
    cosine = Cosine(warmup_steps=4)
    assert [cosine.factor(step, 12) for step in (0, 1, 3, 4, 8, 12)] == pytest.approx([0.25, 0.5, 1, 1, 0.5, 0])


@given(st.integers(0, 50), st.integers(1, 100))
def test_factors_are_between_zero_and_one(warmup: int, num_steps: int) -> None:
    schedules = (Cosine(warmup), Exponential(0.1), Drops((3, 7), 0.5), Constant())
    for schedule in schedules:
        assert all(0 <= schedule.factor(step, num_steps) <= 1 for step in range(num_steps))


@pytest.mark.parametrize("name", registry.list_names())
def test_slower_layers_are_layers_of_the_network(name: str) -> None:
    found = registry.find(name)
    if found.optimizer.slower is not None:
        prefix, _ = found.optimizer.slower
        assert any(key.startswith(f"{prefix}.") for key in found.network().state_dict())
