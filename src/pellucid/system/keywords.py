"""Typed keywords of recipes and data sets: their validation, and their descriptions for users.

A keyword's description and limits are part of its type: `Annotated[float, Field(ge=0, description="...")]`.
"""

import json
import math
import operator
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pellucid.errors import ArgumentError, PellucidError

Count = Annotated[int, Field(ge=1, le=10**9)]
WholeNumber = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

_CONFIG = ConfigDict(allow_inf_nan=False)
_TUPLE_REASONS = {
    "tuple_type": "should be numbers, e.g. 50,300",
    "missing": "should have more numbers, e.g. 50,300",
    "too_long": "should have fewer numbers, e.g. 50,300",
}
_TYPE_WORDS = {"boolean": "true, false", "null": "none"}


def validate(owner: str, key: str, annotation: Any, value: Any, *, error: type[PellucidError]) -> Any:
    """The value of a keyword, converted to its type. Text is parsed: "3", "0.5,1", "true", "none".

    owner: the recipe or data set, for the message. Raises an `error` of one line if the value is not possible.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=_CONFIG)
    parsed = _parse(value, annotation) if isinstance(value, str) else value
    try:
        return adapter.validate_python(parsed)
    except ValidationError as invalid:
        if parsed is not value:
            with suppress(ValidationError):
                return adapter.validate_python(value)  # text that only looks like a number, e.g. a folder "2024"
        first = invalid.errors()[0]
        reason = _TUPLE_REASONS.get(first["type"], first["msg"].removeprefix("Input "))
        raise error(f"{owner}: {key}={_shorten(parsed)} is not possible: it {reason}") from invalid


def check_number(
    parameter: str, value: object, low: float, high: float = math.inf, *, is_whole: bool = True
) -> None:
    """Raise ArgumentError unless an argument is a number in this range."""
    try:
        number: float = operator.index(value) if is_whole else float(value)  # type: ignore[arg-type]  # they check the type
        is_possible = low <= number <= high and not isinstance(value, str | bytes)
    except (TypeError, ValueError, OverflowError):
        is_possible = False
    if not is_possible:
        kind = "a whole number" if is_whole else "a number"
        limit = f"from {low:g} to {high:g}" if high < math.inf else f"of {low:g} or more"
        raise ArgumentError(f"{_shorten(value)} is not possible", hint=f"{{{parameter}}} can be {kind} {limit}")


class Keyword(NamedTuple):
    """A keyword as shown to users. values: the possible ones, in words. default: its own. meaning: one line."""

    values: str
    default: Any
    meaning: str


def describe(annotation: Any, default: Any) -> Keyword:
    """A keyword of this type and default, described for users."""
    return Keyword(describe_values(annotation), default, describe_meaning(annotation))


def describe_values(annotation: Any) -> str:
    """The possible values of a type in words, e.g. "2, 3, 4" or "number from 0 to 255"."""
    return _describe_schema(TypeAdapter(annotation).json_schema())


def describe_meaning(annotation: Any) -> str:
    """The description in a type, or in one of the types of a union; empty if there is none."""
    schema = TypeAdapter(annotation).json_schema()
    choices = [schema, *schema.get("anyOf", ())]
    return next((choice["description"] for choice in choices if "description" in choice), "")


def _describe_schema(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_describe_schema, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema["type"] == "array":
        return "numbers, e.g. 1,2"
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    step = schema.get("multipleOf")
    limits = [("from", low), ("above", above), ("to", high), ("below", below), ("in steps of", step)]
    kind = schema.get("format", schema["type"])  # a path is a string of the format "path"
    kind = _TYPE_WORDS.get(kind, kind)
    return " ".join([kind, *(f"{word} {limit}" for word, limit in limits if limit is not None)])


def _parse(text: str, annotation: Any) -> Any:
    """The number, truth value, None or list that a text spells; other texts and the type's choices unchanged."""
    if text in _list_choices(annotation):  # e.g. "none", if that is one of them
        return text
    json_text = text.lower().replace("none", "null")
    try:
        return json.loads(f"[{json_text}]" if "," in json_text and "[" not in json_text else json_text)
    except (ValueError, RecursionError):
        return text


def _list_choices(annotation: Any) -> list[Any]:
    """The values of a Literal, also within a union."""
    schema = TypeAdapter(annotation).json_schema()
    return [choice for part in (schema, *schema.get("anyOf", ())) for choice in part.get("enum", ())]


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
