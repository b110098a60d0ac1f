import inspect
import pickle

import pytest

from pellucid import errors
from pellucid.commands.terminal import word_as_option
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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not MissingExtraError])
def test_an_error_keeps_its_class_on_the_way_up(kind: type[PellucidError]) -> None:
    error = kind("it exists", hint="{overwrite} replaces it", overwrite=True)
    above = error.about("a.png")
    assert type(above) is kind and str(above) == "a.png: it exists; overwrite=True replaces it"
    assert str(error) == "it exists; overwrite=True replaces it"
    assert above.about("a.png") is above
    again = pickle.loads(pickle.dumps(above))  # as from another process
    assert type(again) is kind and str(again) == str(above)


def test_a_missing_package_keeps_its_class_too() -> None:
    above = MissingExtraError("reading MATLAB files", "convert").about("w.mat")
    assert isinstance(above, MissingExtraError) and str(above).startswith("w.mat: reading MATLAB files needs")
    assert isinstance(pickle.loads(pickle.dumps(above)), MissingExtraError)


def test_a_hint_is_worded_by_who_shows_it() -> None:
    error = PellucidError(
        "800 MB are needed", hint="{memory_bytes} is enough, or another {out}", memory_bytes=8 * 10**8
    )
    assert str(error) == "800 MB are needed; memory_bytes=800000000 is enough, or another out"
    assert error.describe(word_as_option) == "800 MB are needed; --memory 800MB is enough, or another --out"


def test_braces_that_name_nothing_special_stay_readable() -> None:
    assert str(PellucidError("{odd} {name")) == "{odd} {name"


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
