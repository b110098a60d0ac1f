"""Values of keywords are parsed, validated and described by their types."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from pellucid.errors import RecipeError
from pellucid.system.keywords import Count, Share, describe_meaning, describe_values, validate


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (int, "3", 3),
        (float, "1e-4", 1e-4),
        (bool, "True", True),
        (int | None, "None", None),
        (tuple[float, float], "0.5,1", (0.5, 1.0)),
        (tuple[float, float], "[0.5, 1]", (0.5, 1.0)),
        (Literal["none", "mirror"], "none", "none"),
        (Literal["none", "mirror"], "mirror", "mirror"),
    ],
)
def test_text_is_parsed_by_the_type(annotation: Any, text: str, expected: Any) -> None:
    assert validate("x.y", "key", annotation, text, error=RecipeError) == expected


@pytest.mark.parametrize(
    ("value", "reason"), [("1,2,3", "fewer numbers"), ("[1]", "more numbers"), ("1", "be numbers")]
)
def test_the_error_for_a_tuple_has_an_example(value: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=rf"it should (have )?{reason}, e\.g\. 50,300"):
        validate("x.y", "key", tuple[float, float], value, error=RecipeError)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Literal[2, 3, 4], "2, 3, 4"),
        (Annotated[float, Field(ge=0, le=255)], "number from 0 to 255"),
        (Annotated[int, Field(ge=4, multiple_of=4)], "integer from 4 in steps of 4"),
        (Share, "number from 0 below 1"),
        (Count | None, "integer from 1 to 1000000000 or none"),
        (bool, "true, false"),
        (tuple[float, float], "numbers, e.g. 1,2"),
    ],
)
def test_possible_values_are_described(annotation: Any, expected: str) -> None:
    assert describe_values(annotation) == expected


def test_a_type_without_description_has_no_meaning() -> None:
    assert describe_meaning(int) == ""


def test_the_meaning_is_the_description_in_a_type() -> None:
    described = Annotated[int, Field(description="number of layers")]
    assert describe_meaning(described) == describe_meaning(described | None) == "number of layers"
