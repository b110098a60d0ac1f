"""Values of keywords are parsed, validated and described by their types."""

from typing import Annotated, Any, Literal

import pytest
from pellucid.recipes.keywords import Count, Share, describe_meaning, describe_values, validate
from pydantic import Field

from pellucid.errors import RecipeError
from pellucid.recipes import registry


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("dncnn.gaussian", {"sigma_255": "15"}, {"sigma_255": 15.0}),
        ("dncnn.gaussian", {"sigma_255": "12.5", "depth": "20"}, {"sigma_255": 12.5, "depth": 20}),
        ("dncnn.gaussian", {"bias": "false"}, {"bias": False}),
        ("dncnn.gaussian", {"channels": "3"}, {"channels": 3}),
        ("srcnn.paper", {"scale": "4", "mapping_px": "1"}, {"scale": 4, "mapping_px": 1}),
        ("srcnn.tuned", {"num_steps": "10"}, {"num_steps": 10}),
        ("dncnn.three_tasks", {"quality": "10"}, {"quality": 10, "scale": None}),
        ("dncnn.three_tasks", {"scale": "3"}, {"scale": 3, "quality": None}),
        ("mimo_unet.gopro", {"upsampling": "asymmetric"}, {"upsampling": "asymmetric"}),
        ("sid_unet.sony", {"up_bias": "true"}, {"up_bias": True}),
    ],
)
def test_values_may_be_text(name: str, text: dict[str, str], expected: dict[str, Any]) -> None:
    parameters = registry.find(name, **text).parameters
    assert {key: parameters[key] for key in expected} == expected
    assert [type(parameters[key]) for key in expected] == [type(value) for value in expected.values()]


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
    assert validate("x.y", "key", annotation, text) == expected


@pytest.mark.parametrize(
    ("value", "reason"), [("1,2,3", "fewer numbers"), ("[1]", "more numbers"), ("1", "be numbers")]
)
def test_the_error_for_a_tuple_has_an_example(value: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=rf"it should (have )?{reason}, e\.g\. 50,300"):
        validate("x.y", "key", tuple[float, float], value)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("dncnn.gaussian", "sigma_255", -1),
        ("dncnn.gaussian", "sigma_255", 256),
        ("dncnn.gaussian", "sigma_255", float("nan")),
        ("dncnn.gaussian", "sigma_255", "much"),
        ("dncnn.gaussian", "sigma_255", None),
        ("dncnn.gaussian", "sigma_255", "two\nlines"),
        ("dncnn.gaussian", "sigma_255", "9" * 10_000),
        ("dncnn.gaussian", "sigma_255", [1] * 10_000),
        ("dncnn.gaussian", "channels", 2),
        ("dncnn.gaussian", "channels", "2"),
        ("dncnn.gaussian", "depth", 1),
        ("dncnn.gaussian", "depth", 10**6),
        ("dncnn.gaussian", "depth", 17.5),
        ("dncnn.gaussian", "width", 0),
        ("dncnn.gaussian", "bias", "perhaps"),
        ("dncnn.three_tasks", "scale", 5),
        ("dncnn.three_tasks", "quality", 0),
        ("srcnn.paper", "scale", 1),
        ("srcnn.paper", "scale", True),
        ("srcnn.paper", "mapping_px", 7),
        ("srcnn.tuned", "num_steps", 0),
        ("mimo_unet.gopro", "upsampling", "bilinear"),
        ("mimo_unet.gopro", "dropout", 1),
        ("mimo_unet.gopro", "frequency_weight", -0.1),
        ("sid_unet.sony", "channel_order", "planar"),
    ],
)
def test_the_error_for_a_wrong_value_is_one_line_with_recipe_and_keyword(name: str, key: str, value: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        registry.find(name, **{key: value})
    message = str(caught.value)
    assert "\n" not in message and len(message) < 450
    assert name in message
    assert key in message


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
