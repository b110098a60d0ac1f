"""Streams of lossless JPEG, written by libjpeg-turbo and liblj92 (imagecodecs), and damaged."""

import functools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pellucid.pictures.camera import lossless_jpeg

imagecodecs = pytest.importorskip("imagecodecs", reason="imagecodecs writes lossless JPEG")


def frame(height: int, width: int, channels: int = 1) -> NDArray[np.uint16]:
    rows, cols = np.mgrid[:height, :width]
    smooth = 3000 + 2000 * np.sin(cols / 50) * np.cos(rows / 70)
    noise = np.random.default_rng(height * width).normal(0, 60, (height, width, channels))
    return np.clip(smooth[..., None] + noise, 0, 16383).astype(np.uint16).squeeze()


def turbo(samples: NDArray[np.uint16], **options: Any) -> bytes:
    content: bytes = imagecodecs.jpeg8_encode(samples, lossless=True, bitspersample=16, **options)
    return content


STREAMS: dict[str, Callable[[], bytes]] = {
    "one pixel": lambda: turbo(np.full((1, 1), 7, np.uint16)),
    "odd size": lambda: turbo(frame(37, 61)),
    "larger than a block": lambda: turbo(frame(500, 400)),
    "liblj92": lambda: imagecodecs.ljpeg_encode(frame(193, 256), bitspersample=14),
    "three values a group": lambda: turbo(frame(40, 50, 3), colorspace="rgb", outcolorspace="rgb"),
    "flat: many equal codes": lambda: turbo(np.full((300, 300), 16383, np.uint16)),
    "noise: long codes": lambda: turbo(np.random.default_rng(0).integers(0, 65536, (90, 90)).astype(np.uint16)),
    **{f"predictor {n}": functools.partial(turbo, frame(37, 61), predictor=n) for n in range(1, 8)},
}


def check(stream: bytes) -> None:
    lossless_jpeg.check_values(stream, lossless_jpeg.parse_markers(stream))


@pytest.mark.parametrize("kind", STREAMS)
def test_complete_streams_pass(kind: str) -> None:
    stream = STREAMS[kind]()
    header = lossless_jpeg.parse_markers(stream)
    assert header.is_lossless
    assert header.num_values == imagecodecs.jpeg8_decode(stream).size
    lossless_jpeg.check_values(stream, header)
    lossless_jpeg.check_values(stream + bytes(100), header)  # strips may be longer than their stream


def start_of_stream(height: int, width: int, *, category: int, interval: int = 0) -> bytes:
    """What precedes the values of a gray picture whose only Huffman code, the bit 0, is that of a category."""
    frame = struct.pack(">BHHB", 16, height, width, 1) + b"\1\x11\0"
    table = b"\0" + bytes([1, *[0] * 15, category])
    segments = ((0xC3, frame), (0xC4, table), (0xDD, struct.pack(">H", interval)), (0xDA, b"\1\1\0\1\0\0"))
    parts = (struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in segments)
    return b"\xff\xd8" + b"".join(parts)


def test_all_eight_restart_markers_are_passed() -> None:
    """A flat picture of ten rows of eight values, which restarts after each row."""
    restarts = b"".join(bytes([0, 0xFF, 0xD0 + row % 8]) for row in range(9))
    stream = start_of_stream(10, 8, category=0, interval=8) + restarts + b"\0\xff\xd9"
    assert np.unique(imagecodecs.jpeg8_decode(stream)).size == 1
    check(stream)
    with pytest.raises(ValueError, match="cut short"):
        check(stream[:-10])


@pytest.mark.parametrize("bits_after_16", [0, 16])
def test_bits_after_differences_of_16_bits_depend_on_the_version_of_dng(bits_after_16: int) -> None:
    """T.81, table H.2: no bits follow category 16; before DNG 1.1, 16 bits did."""
    start = start_of_stream(2, 4, category=16)
    header = lossless_jpeg.parse_markers(start, bits_after_16=bits_after_16)
    num_bytes = header.num_values * (1 + bits_after_16) // 8
    lossless_jpeg.check_values(start + bytes(num_bytes), header)
    with pytest.raises(ValueError, match="cut short"):
        lossless_jpeg.check_values(start + bytes(num_bytes - 1), header)


@functools.cache
def intact() -> bytes:
    return turbo(frame(64, 80))


@given(st.floats(0, 0.99))
def test_a_cut_anywhere_is_found(part: float) -> None:
    with pytest.raises(ValueError, match="JPEG"):
        check(intact()[: int(part * (len(intact()) - 3))])


@given(st.floats(0, 0.98), st.sampled_from([0, 0xAA]))
def test_a_blank_end_is_found(part: float, value: int) -> None:
    stream = intact()
    start = int(part * len(stream))
    with pytest.raises(ValueError, match="JPEG"):
        check(stream[:start] + bytes([value]) * (len(stream) - start))


@given(st.floats(0.1, 0.9), st.integers(100, 1000))
def test_a_blank_part_is_found(place: float, length: int) -> None:
    stream = intact()
    start = int(place * (len(stream) - length))
    with pytest.raises(ValueError, match="JPEG"):
        check(stream[:start] + bytes(length) + stream[start + length :])


def test_other_streams_are_told_apart() -> None:
    lossy = imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint8))
    assert not lossless_jpeg.parse_markers(lossy).is_lossless
    for content in (
        b"",
        bytes(100),
        b"\xff\xd8",
        b"\xff\xd8\xff\xc4\0\x03\xff",
        b"\xff\xd8\xff\xda\0\x02" + bytes(9),
    ):
        with pytest.raises(ValueError, match="JPEG"):
            lossless_jpeg.parse_markers(content)
