"""Profiles for gray as profiles for RGB; their colors are compared in containers/test_webp.py."""

import io

from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageCms

import format_matrix
from pellucid.pictures.records import icc


def test_the_kind_of_a_profile_is_read() -> None:
    assert icc.num_channels(format_matrix.PROFILE) == 3
    assert icc.num_channels(format_matrix.GRAY_PROFILE) == 1
    assert icc.num_channels(b"") == icc.num_channels(bytes(200)) == 0


def test_littlecms_accepts_the_converted_profile() -> None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc.to_rgb(format_matrix.GRAY_PROFILE))).profile
    assert profile.xcolor_space.strip() == "RGB"
    assert profile.profile_description == "gray"


def test_profiles_without_a_curve_are_not_converted() -> None:
    assert icc.to_rgb(format_matrix.PROFILE) == b""
    assert icc.to_rgb(format_matrix.GRAY_PROFILE.replace(b"kTRC", b"A2B0")) == b""


@given(
    place=st.integers(0, len(format_matrix.GRAY_PROFILE) - 1), byte=st.integers(0, 255), cut=st.integers(0, 400)
)
def test_damaged_profiles_never_raise(place: int, byte: int, cut: int) -> None:
    damaged = bytearray(format_matrix.GRAY_PROFILE)
    damaged[place] = byte
    icc.to_rgb(bytes(damaged))
    icc.to_rgb(bytes(damaged[:cut]))
