"""Large pictures are resized a few rows at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.pictures.picture import Picture
from pellucid.pictures.resize import resize_to
from pellucid.restoration import resizing
from pellucid.restoration.resizing import resize_picture


@given(*(st.integers(1, 40) for _ in range(4)), st.integers(1, 200))
def test_strips_equal_the_whole(height: int, width: int, new_height: int, new_width: int, strip: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resizing, "_STRIP_SAMPLES", strip)
        picture = Picture(np.random.default_rng(0).random((height, width, 3), np.float32))
        found = resize_picture(picture, new_height, new_width)
    expected = resize_to(picture.to_tensor(), new_height, new_width)
    np.testing.assert_allclose(found.to_tensor().numpy(), expected.numpy(), rtol=0, atol=1e-6)


def test_all_planes_are_resized_in_the_depth_asked_for() -> None:
    rng = np.random.default_rng(0)
    planes = rng.random((30, 40, 6), np.float32)
    picture = Picture(planes[..., :3], planes[..., 3:4], extra=planes[..., 4:])
    small = resize_picture(picture, 10, 11, "uint16")
    assert (small.dtype, small.height, small.width) == ("uint16", 10, 11)
    assert small.alpha is not None and small.extra is not None and small.extra.shape == (10, 11, 2)
    flat = Picture(np.full((30, 40, 1), 77, np.uint8))
    assert (resize_picture(flat, 7, 9, "uint8").samples == 77).all()
