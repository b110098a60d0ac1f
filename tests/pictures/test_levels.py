"""Stretching is rounding of the exact fraction."""

from fractions import Fraction
from math import floor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pellucid.pictures.levels import stretch


@given(white=st.integers(1, 65535), data=st.data())
def test_samples_are_the_nearest_of_the_full_range(white: int, data: st.DataObject) -> None:
    value = data.draw(st.integers(0, white))
    peak = 255 if white <= 255 else 65535
    (found,) = stretch(np.array([value], np.uint16), white)
    assert found == floor(Fraction(value * peak, white) + Fraction(1, 2))
    assert found.dtype == (np.uint8 if peak == 255 else np.uint16)
