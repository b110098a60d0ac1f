"""Typed keywords of recipes and data sets: their validation, and their descriptions for users.

A keyword's description and limits are part of its type: `Annotated[float, Field(ge=0, description="...")]`.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pellucid.errors import PellucidError

Count = Annotated[int, Field(ge=1, le=10**9)]
WholeNumber = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

_CONFIG = ConfigDict(allow_inf_nan=False)
_TYPE_WORDS = {"boolean": "true, false", "null": "none"}


def validate(owner: str, key: str, annotation: Any, value: Any, *, error: type[PellucidError]) -> Any:
    """The value of a keyword, converted to its type. Text is parsed: "3", "0.5,1", "true", "none".

    owner: the recipe or data set, for the message. Raises an `error` of one line if the value is not possible.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=_CONFIG)
    schema = adapter.json_schema()
    parsed = _parse(value, annotation) if isinstance(value, str) else value
    is_list = _find_list(schema) is not None
    candidates = [parsed]
    if parsed is not value and not (is_list and isinstance(parsed, list)):
        candidates.append(value)  # text that only looks like a number, e.g. a folder "2024"
    if is_list and not isinstance(parsed, list | tuple):
        candidates.append([parsed])
    for candidate in candidates:
        if _contains_bool(candidate) and "boolean" not in str(schema):
            continue  # for pydantic, True is the number 1
        with suppress(ValidationError):
            return adapter.validate_python(candidate)
    raise error(f"{owner}: {key}={shorten(value)} is not possible; expected {_expect(schema)}")


def describe_invalid(entry: Mapping[str, Any]) -> str:
    """An entry of `ValidationError.errors()` in words: what is missing, or what is expected in its place."""
    kind, limits = entry["type"], entry.get("ctx", {})
    name = ".".join(map(str, entry["loc"]))
    if kind == "missing":
        return f"{name} is missing"
    if kind == "json_invalid":
        return "it is not JSON"
    if not name:
        return "it is not a JSON object"
    expected = {
        "string_too_long": "at most {max_length} characters",
        "string_too_short": "{min_length} or more characters",
        "too_long": "at most {max_length} entries",
        "too_short": "{min_length} or more entries",
        "greater_than_equal": "a number of {ge} or more",
        "greater_than": "a number above {gt}",
        "less_than_equal": "a number of {le} or less",
        "less_than": "a number below {lt}",
        "bool_parsing": "true or false",
        "bool_type": "true or false",
        "int_parsing": "a whole number",
        "float_parsing": "a number",
    }.get(kind, "")
    expected = expected.format(
        **{name: _format_limit(limit) if isinstance(limit, float) else limit for name, limit in limits.items()}
    )
    expected = expected or entry["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{name}={shorten(entry['input'])} is not possible; expected {expected}"


def describe_number(
    *,
    is_whole: bool,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    step: float | None = None,
    is_plural: bool = False,
) -> str:
    """A range in a sentence, e.g. "a whole number from 1 to 100" or "numbers above 0"."""
    if low is not None and high is not None:
        limits, low, high = [f"from {_format_limit(low)} to {_format_limit(high)}"], None, None
    else:
        limits = []
    limits += [f"of {_format_limit(low)} or more"] if low is not None else []
    limits += [f"above {_format_limit(above)}"] if above is not None else []
    limits += [f"of {_format_limit(high)} or less"] if high is not None else []
    limits += [f"below {_format_limit(below)}"] if below is not None else []
    noun = "whole number" if is_whole else "number"
    words = [
        f"{noun}s" if is_plural else f"a {noun}",
        " and ".join(limits),
        f"in steps of {step:,}" if step else "",
    ]
    return " ".join(filter(None, words))


def _format_limit(limit: float) -> str:
    return f"{int(limit):,}" if float(limit).is_integer() else f"{limit:,}"


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


def _expect(schema: Mapping[str, Any], *, is_plural: bool = False) -> str:
    """The possible values in a sentence: found X; expected ..."""
    if "anyOf" in schema:
        return " or ".join(_expect(choice) for choice in schema["anyOf"] if choice.get("type") != "null")
    if "enum" in schema:
        *others, last = map(str, schema["enum"])
        return f"{', '.join(others)} or {last}" if others else last
    if schema["type"] == "array":
        item = schema.get("items") or schema["prefixItems"][0]
        count = schema.get("minItems", 0)
        is_exact = count > 0 and count == schema.get("maxItems")
        return f"{f'{count} ' if is_exact else ''}{_expect(item, is_plural=True)}, with commas in between"
    if schema["type"] in ("number", "integer"):
        return describe_number(
            is_whole=schema["type"] == "integer",
            low=schema.get("minimum"),
            high=schema.get("maximum"),
            above=schema.get("exclusiveMinimum"),
            below=schema.get("exclusiveMaximum"),
            step=schema.get("multipleOf"),
            is_plural=is_plural,
        )
    return {"boolean": "true or false", "string": "a text", "path": "a path"}.get(
        schema.get("format", schema["type"]), _describe_schema(schema)
    )


def _find_list(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The part of a schema that is a list, also within a union."""
    choices = (schema, *schema.get("anyOf", ()))
    return next((choice for choice in choices if choice.get("type") == "array"), None)


def _contains_bool(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_contains_bool, value)))


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


def shorten(value: Any) -> str:
    """A value in a message: 80 characters of it at most."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
