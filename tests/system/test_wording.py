import pytest

from pellucid.system.wording import format_count


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 pictures"), (1, "1 picture"), (2, "2 pictures"), (12_000, "12,000 pictures")]
)
def test_a_noun_agrees_with_its_number(count: int, text: str) -> None:
    assert format_count(count, "picture") == text


def test_an_irregular_plural_is_given() -> None:
    assert [format_count(count, "axis", "axes") for count in (1, 2)] == ["1 axis", "2 axes"]
