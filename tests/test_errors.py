import inspect

import pytest

from pellucid import errors
from pellucid.errors import MissingExtraError, PellucidError, suggest

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Exception) and kind is not PellucidError
]


def test_one_except_catches_everything() -> None:
    assert len(KINDS) >= 6
    assert all(issubclass(kind, PellucidError) for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_drawn_tree_names_every_error(kind: type[Exception]) -> None:
    assert errors.__doc__ is not None
    assert f"── {kind.__name__} " in errors.__doc__


def test_a_missing_package_comes_with_the_command_that_brings_it() -> None:
    assert "pip install 'pellucid[convert]'" in str(MissingExtraError("reading MATLAB files", "convert"))


def test_a_slip_is_answered_with_the_nearest_name() -> None:
    assert suggest("sgima", ["sigma", "depth", "width"]) == "did you mean sigma?"


def test_several_near_names_keep_their_order() -> None:
    assert suggest("net-x5", ["net-x2", "net-x3", "net-x2"]) == "did you mean net-x2 or net-x3?"


def test_a_strange_name_is_answered_with_all_known() -> None:
    assert suggest("zzz", ["sigma", "depth"]) == "known: sigma, depth"


def test_nothing_known_is_said() -> None:
    assert suggest("sigma", []) == "known: none"


def test_an_iterator_of_names_is_used_once() -> None:
    assert suggest("zzz", iter(["sigma"])) == "known: sigma"
