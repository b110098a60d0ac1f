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
    ("annotation", "value", "message"),
    [
        (Count, "0", "key=0 is not possible; expected a whole number from 1 to 1,000,000,000"),
        (Annotated[float, Field(gt=0)], "1e400", "key=1e400 is not possible; expected a number above 0"),
        (Annotated[float, Field(gt=0)], "true", "key=true is not possible; expected a number above 0"),
        (Annotated[float, Field(gt=0)], True, "key=True is not possible; expected a number above 0"),
        (Share, "", "key= is not possible; expected a number of 0 or more and below 1"),
        (Annotated[int, Field(ge=4, multiple_of=4)], "6", "expected a whole number of 4 or more in steps of 4"),
        (int, "9" * 5000, "expected a whole number"),
        (bool, "perhaps", "expected true or false"),
        (Literal["adam", "sgd", "soap"] | None, "adamw", "expected adam, sgd or soap"),
        (tuple[float, float], "1,2,3", "key=1,2,3 is not possible; expected 2 numbers, with commas in between"),
        (tuple[float, float], "1", "expected 2 numbers, with commas in between"),
        (tuple[float, float], "true,false", "expected 2 numbers, with commas in between"),
        (tuple[Count, ...], "a", "expected whole numbers from 1 to 1,000,000,000, with commas in between"),
    ],
)
def test_an_error_has_what_was_found_and_what_was_expected(annotation: Any, value: object, message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        validate("x.y", "key", annotation, value, error=RecipeError)
    assert str(raised.value).startswith("x.y: key=") and str(raised.value).endswith(message)


def test_one_number_is_a_list_of_one() -> None:
    assert validate("x.y", "key", tuple[Count, ...], "5", error=RecipeError) == (5,)
    assert validate("x.y", "key", tuple[Count, ...] | None, 5, error=RecipeError) == (5,)
    assert validate("x.y", "key", float | tuple[float, ...], "0.5", error=RecipeError) == 0.5


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
