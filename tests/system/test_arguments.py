"""Arguments are checked by the annotations of functions and dataclasses."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from pellucid.errors import ArgumentError
from pellucid.system.arguments import check_fields, check_number, checks_types, describe_type


class PosixLike:
    """Another kind of path, e.g. of pytest or of a package for other file systems."""

    def __fspath__(self) -> str:
        return "a"


ANNOTATED: list[tuple[Any, list[Any], list[tuple[Any, str]]]] = [
    (
        bool,
        [True, False, np.bool_(True)],
        [(1, "x is 1; True or False is needed"), ("no", "x is 'no'; True or")],
    ),
    (int, [1, np.int64(3)], [(True, "x is True; a whole number is needed"), (2.0, "x is 2.0"), ("3", "x is '3'")]),
    (float, [1, 2.5, np.float32(1)], [(False, "x is False; a number is needed"), ("1", "x is '1'")]),
    (str, ["", "a"], [(b"a", "x is of type bytes; text is needed"), (None, "x is None; text is needed")]),
    (bytes, [b""], [("a", "x is 'a'; bytes is needed")]),
    (int | None, [None, 3], [("3", "x is '3'; a whole number is needed")]),
    (
        str | Path,
        ["a", Path("a"), PosixLike()],
        [(3, "x is 3; a path is needed"), ("", "x is ''; a path is needed")],
    ),
    (Callable[[int], None], [print, list], [(3, "x is 3; a function is needed")]),
    (Literal["auto"] | float, ["auto", 1], [("other", "x is 'other'; 'auto' or a number is needed")]),
    (
        Sequence[str | Path],
        [[], ["a", Path("b")], ("a",)],
        [
            ("ab", "x is 'ab'; a list of paths is needed"),
            (["a", 3], r"x\[1\] is 3; a path is needed"),
            ({"a"}, "x is of type set; a list of paths is needed"),
        ],
    ),
    (Iterable[int] | int, [[1], {2}, iter(["not consumed"]), 3], [([1, "2"], r"x\[1\] is '2'; a whole number")]),
    (
        tuple[int, int] | None,
        [(1, 2), [1, 2], None, (1, 2, 3)],  # functions check the number of entries
        [((1, 2.5), r"x\[1\] is 2.5; a whole number"), (3, "x is 3; a list of 2 whole numbers is needed")],
    ),
    (
        tuple[int, ...],
        [(), (1,), (1, 2), (1, 2, 3), np.zeros(2)],
        [
            ((1, "b"), r"x\[1\] is 'b'; a whole number"),
            (("a",), r"x\[0\] is 'a'"),
            ((1, 2, 3.5), r"x\[2\] is 3.5"),
        ],
    ),
    (Iterable[int], [{1: "not checked"}], []),
    (
        Mapping[str, float],
        [{}, {"a": 1}],
        [
            ({"a": "b"}, r"x\['a'\] is 'b'; a number is needed"),
            ({1: 2.0}, "a key of x is 1; text is needed"),
            ([], "x is of type list; a dictionary is needed"),
        ],
    ),
    (np.ndarray | Path, [np.zeros(1), Path()], [([1], "x is of type list; an array or a pathlib.Path is needed")]),
    (ArgumentError, [ArgumentError("")], [(3, "x is 3; a pellucid.ArgumentError is needed")]),
    (Any, [3, None, "a"], []),
]


@pytest.mark.parametrize(("annotation", "possible", "wrong"), ANNOTATED, ids=lambda value: str(value)[:30])
def test_values_fit_their_annotation(annotation: Any, possible: list[Any], wrong: list[tuple[Any, str]]) -> None:
    def function(x: Any) -> Any:
        return x

    function.__annotations__["x"] = annotation
    checked = checks_types()(function)
    for value in possible:
        assert checked(value) is value and checked(x=value) is value
    for value, message in wrong:
        with pytest.raises(ArgumentError, match=f"^{message}"):
            checked(value)


def test_a_checked_function_runs_only_with_fitting_arguments() -> None:
    calls: list[object] = []

    @checks_types(except_for=["own"])
    def function(first: int, own: int = 0, *, last: str = "", **others: int) -> None:
        """Its own description."""
        calls.append((first, own, last, others))

    function(1, "unchecked", last="c", other="unchecked")  # type: ignore[arg-type]  # as a user may call it
    assert calls == [(1, "unchecked", "c", {"other": "unchecked"})]
    assert function.__doc__ == "Its own description."
    with pytest.raises(ArgumentError, match="last is 3; text is needed"):
        function(1, last=3)  # type: ignore[arg-type]  # as a user may call it
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'first'"):
        function()  # type: ignore[call-arg]  # as a user may call it
    assert len(calls) == 1


def test_fields_of_dataclasses_are_checked() -> None:
    @dataclass(frozen=True)
    class Size:
        width: int
        name: str | None = None

        def __post_init__(self) -> None:
            check_fields(self)

    assert Size(3, "a") == Size(3, "a")
    with pytest.raises(ArgumentError, match="width is 2.5; a whole number is needed"):
        Size(2.5)  # type: ignore[arg-type]  # as a user may call it


def test_long_texts_are_cut_in_messages() -> None:
    @checks_types()
    def function(x: int) -> None:
        pass

    with pytest.raises(ArgumentError) as error:
        function("a" * 1000)  # type: ignore[arg-type]  # as a user may call it
    assert len(str(error.value)) < 150


@pytest.mark.parametrize("value", [2, 0, np.int64(1)])
def test_possible_numbers(value: object) -> None:
    check_number("x", value, 0, 2)


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (3, {}, "3 is not possible; x can be a whole number from 0 to 2"),
        (-1, {}, "-1 is not possible"),
        (1.5, {}, "1.5 is not possible"),
        (0, {"is_whole": False, "is_above": True}, "0 is not possible"),
        (float("nan"), {"is_whole": False}, "nan is not possible; x can be a number from 0 to 2"),
        (True, {}, "True is not possible"),
        (10**400, {"is_whole": False}, "is not possible"),
    ],
)
def test_impossible_numbers(value: object, options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        check_number("x", value, 0, 2, **options)


def test_annotations_in_words() -> None:
    assert describe_type(str | Path | None) == "a path"
    assert describe_type(Sequence[int | str]) == "a list of whole numbers or texts"
    assert describe_type(list) == "a list"
