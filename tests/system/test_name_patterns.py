"""Patterns for the names of results."""

import pytest

from pellucid.errors import ArgumentError
from pellucid.system.name_patterns import check_visible, fill_pattern


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{stem}-{model}{suffix}", "a-x2.png"),
        ("new", "new"),
        ("{{{stem}}}", "{a}"),
    ],
)
def test_patterns_are_filled(pattern: str, expected: str) -> None:
    assert fill_pattern(pattern, "a", ".png", "x2") == expected


@pytest.mark.parametrize("pattern", ["{stem", "}", "{x}", "{0}", "{}", "{stem!r}", "{stem:9}", "{stem.__class__}"])
def test_other_fields_are_refused(pattern: str) -> None:
    with pytest.raises(ArgumentError, match="is not a pattern for names; it can contain"):
        fill_pattern(pattern, "a", ".png", "x2")


@pytest.mark.parametrize("name", ["../a.png", "b/a.png", "b\\a.png", ".a.png", "a\0.png"])
def test_names_in_other_folders_are_refused(name: str) -> None:
    check_visible("{stem}", "a.png")
    with pytest.raises(ArgumentError, match="does not give names of visible files; out is for folders"):
        check_visible(name, name)
