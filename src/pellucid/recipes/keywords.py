"""Keywords of recipes: their types, their validation, and their description for people.

A keyword's description and limits are part of its type: `Annotated[float, Field(ge=0, description="...")]`.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pellucid.errors import RecipeError

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


def validate(name: str, key: str, annotation: Any, value: Any) -> Any:
    """A keyword's value as its type wants it; text is parsed, as from a command line.

    name: of the recipe, for the message. Raises RecipeError, in one line, for a value that is not possible.
    """
    try:
        return TypeAdapter(annotation, config=_CONFIG).validate_python(_parse(value))
    except ValidationError as error:
        first = error.errors()[0]
        reason = _TUPLE_REASONS.get(first["type"], first["msg"].removeprefix("Input "))
        raise RecipeError(f"{name}: {key}={_shorten(_parse(value))} is not possible: it {reason}") from error


def describe_values(annotation: Any) -> str:
    """The possible values of a type, e.g. "2, 3, 4" or "number from 0 to 255"."""
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
    limits = [("from", low), ("above", above), ("to", high), ("below", below)]
    kind = _TYPE_WORDS.get(schema["type"], schema["type"])
    return " ".join([kind, *(f"{word} {limit}" for word, limit in limits if limit is not None)])


def _parse(value: Any) -> Any:
    """Text as the number or truth value that it spells; other text and other values unchanged."""
    if not isinstance(value, str):
        return value
    text = value.lower().replace("none", "null")
    try:
        return json.loads(f"[{text}]" if "," in text and "[" not in text else text)
    except (ValueError, RecursionError):
        return value


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
