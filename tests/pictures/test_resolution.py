"""Resolution in the unit of each format."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.pictures import resolution


@given(x=st.integers(1, 100_000), y=st.integers(1, 100_000), unit=st.sampled_from(["inch", "cm", "m", "none"]))
def test_numbers_of_the_file_come_back(x: int, y: int, unit: str) -> None:
    found = resolution.from_metadata(resolution.to_metadata(x / 10, y / 10, unit))
    assert found == resolution.Resolution(x / 10, y / 10, unit)


def test_units_are_converted() -> None:
    metadata = resolution.to_metadata(300, 150, "inch")
    assert (metadata["xres"], metadata["yres"]) == pytest.approx((300 / 25.4, 150 / 25.4))
    found = resolution.from_metadata(metadata)
    assert found is not None
    assert found.to("cm") == pytest.approx((300 / 2.54, 150 / 2.54))
    assert found.to("m") == pytest.approx((300 / 0.0254, 150 / 0.0254))


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1e300])
def test_impossible_numbers_are_no_resolution(value: float) -> None:
    assert resolution.to_metadata(value, 1, "inch") == resolution.to_metadata(1, value, "none") == {}
    assert resolution.from_metadata({"xres": value, "yres": 1.0}) is None


@pytest.mark.parametrize("metadata", [{}, {"xres": 1.0}, {"xres": "1", "yres": 2}, {"yres": 3}])
def test_half_a_resolution_is_none(metadata: dict[str, object]) -> None:
    assert resolution.from_metadata(metadata) is None


@given(st.floats(1e-3, 4e9))
def test_ratios_fit_into_32_bits(value: float) -> None:
    numerator, denominator = resolution.to_ratio(value)
    assert 0 <= numerator < 2**32 and 0 < denominator < 2**32
    assert numerator / denominator == pytest.approx(value, rel=1e-3)
