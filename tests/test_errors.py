import inspect
import json
import pickle
from collections.abc import Callable

import pytest

from pellucid import errors
from pellucid.commands import terminal
from pellucid.commands.terminal import word_as_option
from pellucid.errors import MissingExtraError, PellucidError, describe_damage, suggest

ERROR_CLASSES = [
    error_class
    for _, error_class in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error_class, Exception) and error_class is not PellucidError
]


def test_every_error_is_a_pellucid_error() -> None:
    assert len(ERROR_CLASSES) >= 6
    assert all(issubclass(error_class, PellucidError) for error_class in ERROR_CLASSES)


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
def test_the_tree_in_the_docstring_names_every_error(error_class: type[Exception]) -> None:
    assert errors.__doc__ is not None
    assert f"── {error_class.__name__} " in errors.__doc__


def test_a_missing_package_comes_with_its_pip_command() -> None:
    assert "pip install 'pellucid[convert]'" in str(MissingExtraError("reading MATLAB files", "convert"))


@pytest.mark.parametrize(
    "error_class", [error_class for error_class in ERROR_CLASSES if error_class is not MissingExtraError]
)
def test_about_and_pickle_keep_the_class(error_class: type[PellucidError]) -> None:
    error = error_class("it exists", hint="{overwrite} replaces it", overwrite=True)
    above = error.about("a.png")
    assert type(above) is error_class and str(above) == "a.png: it exists; overwrite=True replaces it"
    assert str(error) == "it exists; overwrite=True replaces it"
    assert str(above.about("a.png")) == str(above) and above.about("a.png") is not above
    above.__cause__ = ValueError("1")
    assert above.about("a.png").__cause__ is above.__cause__
    copy = pickle.loads(pickle.dumps(above))  # as from another process
    assert type(copy) is error_class and str(copy) == str(above)


def test_about_and_pickle_keep_a_missing_extra_error() -> None:
    above = MissingExtraError("reading MATLAB files", "convert").about("w.mat")
    assert isinstance(above, MissingExtraError) and str(above).startswith("w.mat: reading MATLAB files needs")
    assert isinstance(pickle.loads(pickle.dumps(above)), MissingExtraError)


def test_values_in_hints_are_not_filled_in_again() -> None:
    error = PellucidError("no", hint="use {out} and {tile_px}", out="a{tile_px}b", tile_px=3)
    assert str(error) == "no; use out='a{tile_px}b' and tile_px=3"


def test_hints_name_no_option_that_the_command_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    error = PellucidError("a.tif has 3 pages; one is needed", hint="{page} chooses one", page=1)
    monkeypatch.setattr(terminal, "_options_of_command", [None])
    for options, hint in ((["--data"], ""), (["--page"], "; --page 1 chooses one")):
        terminal.remember_options(options)
        with errors.use_wording(terminal.word_for_command):  # as in reports, and in lists of what was left out
            assert str(error) == f"a.tif has 3 pages; one is needed{hint}" == terminal.describe_error(error)


def test_hints_are_worded_as_arguments_or_options() -> None:
    error = PellucidError(
        "800 MB are needed", hint="{memory_bytes} is enough, or another {out}", memory_bytes=8 * 10**8
    )
    assert str(error) == "800 MB are needed; memory_bytes=800000000 is enough, or another out"
    assert error.describe(word_as_option) == "800 MB are needed; --memory 800MB is enough, or another --out"


def test_braces_in_facts_are_kept() -> None:
    assert str(PellucidError("{odd} {name")) == "{odd} {name"


def test_suggest_names_the_most_similar() -> None:
    assert suggest("sgima", ["sigma", "depth", "width"]) == "did you mean sigma?"
    assert suggest("SIGMA", ["sigma", "depth", "width"]) == "did you mean sigma?"


def test_suggest_orders_equally_similar_names_as_given() -> None:
    assert suggest("net-x5", ["net-x2", "net-x3", "net-x2"]) == "did you mean net-x2 or net-x3?"


def test_suggest_lists_all_names_if_none_is_similar() -> None:
    assert suggest("zzz", ["sigma", "depth"]) == "known: sigma, depth"
    assert suggest("colors", ["clip_norm", "lr"]) == "known: clip_norm, lr"


def test_suggest_without_names() -> None:
    assert suggest("sigma", []) == "known: none"


def test_suggest_takes_an_iterator() -> None:
    assert suggest("zzz", iter(["sigma"])) == "known: sigma"


def test_damage_is_described_without_names_of_exceptions() -> None:
    def nest() -> None:
        nest()

    broken: list[tuple[Callable[[], object], str]] = [
        (lambda: dict[str, int]()["recipe"], "'recipe' is missing"),
        (lambda: json.loads("{"), "it is not JSON, from line 1, character 2 on"),
        (lambda: len(None), "an entry has the wrong type"),  # type: ignore[arg-type]
        (nest, "it is nested too deeply"),
    ]
    for cause, expected in broken:
        with pytest.raises((KeyError, ValueError, TypeError, RecursionError)) as raised:
            cause()
        text = describe_damage(raised.value)
        assert text.startswith(expected) and "Error" not in text


def test_no_error_becomes_its_own_cause() -> None:
    """The command line prints all causes, one after the other."""
    error = PellucidError("a.raw is truncated")
    with pytest.raises(PellucidError) as caught:
        raise error.about("a.raw") from error
    assert caught.value.__cause__ is error and error.__cause__ is None
