from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import PictureError
from pellucid.pictures.camera.packing import (
    BAYER,
    XTRANS,
    align,
    apply_gains,
    find_phase,
    pack_bayer,
    pack_xtrans,
    pad_to_blocks,
    unpack_bayer,
)
from pellucid.pictures.picture import Mosaic

# (row, column) in the 6 x 6 pixels of an X-Trans block for each packed plane, at the packed pixels (even, even),
# (even, odd), (odd, even), (odd, odd): as in the released code of the paper.
XTRANS_TABLE = [
    ("R", [(0, 0), (0, 4), (3, 1), (3, 3)]),
    ("G", [(0, 2), (0, 5), (3, 2), (3, 5)]),
    ("B", [(0, 1), (0, 3), (3, 0), (3, 4)]),
    ("R", [(1, 2), (2, 5), (5, 2), (4, 5)]),
    ("B", [(2, 2), (1, 5), (4, 2), (5, 5)]),
    ("G", [(1, 0), (1, 3), (4, 0), (4, 3)]),
    ("G", [(1, 1), (1, 4), (4, 1), (4, 4)]),
    ("G", [(2, 0), (2, 3), (5, 0), (5, 3)]),
    ("G", [(2, 1), (2, 4), (5, 1), (5, 4)]),
]


def numbered(height: int, width: int) -> torch.Tensor:
    return torch.arange(float(height * width)).reshape(1, 1, height, width)


def roll(pattern: tuple[str, ...], down: int, right: int) -> tuple[str, ...]:
    """The pattern when it starts at another pixel."""
    period = len(pattern)
    return tuple(
        "".join(pattern[(row + down) % period][(col + right) % period] for col in range(period))
        for row in range(period)
    )


def sensor(pattern: tuple[str, ...], height: int, width: int, *, down: int, right: int) -> Mosaic:
    """A mosaic that starts at pixel (down, right). Samples and black levels are numbered by their origin."""
    period = len(pattern)
    rows, cols = np.mgrid[down : down + height, right : right + width]
    site = rows % period * period + cols % period
    return Mosaic(
        samples=(1000 + site).astype(np.uint16),
        pattern=roll(pattern, down, right),
        black_level=tuple(
            tuple(float((down + row) % period * period + (right + col) % period) for col in range(period))
            for row in range(period)
        ),
        white_level=5000,
        exposure_ratio=7,
        metadata={"camera": "A"},
    )


def test_bayer_packing() -> None:
    mosaic = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]], dtype=torch.float32)[
        None, None
    ]
    red = [[0, 2], [8, 10]]
    green_of_red_rows = [[1, 3], [9, 11]]
    blue = [[5, 7], [13, 15]]
    green_of_blue_rows = [[4, 6], [12, 14]]
    assert pack_bayer(mosaic)[0].tolist() == [red, green_of_red_rows, blue, green_of_blue_rows]


def test_xtrans_packing_follows_the_table() -> None:
    packed = pack_xtrans(numbered(6, 6))
    assert packed.shape == (1, 9, 2, 2)
    for plane, (_, sites) in zip(packed[0], XTRANS_TABLE, strict=True):
        assert plane.flatten().tolist() == [6 * row + col for row, col in sites]


def test_every_xtrans_block_is_packed_in_the_same_way() -> None:
    packed = pack_xtrans(numbered(12, 12))
    assert packed.shape == (1, 9, 4, 4)
    for plane, (_, sites) in zip(packed[0], XTRANS_TABLE, strict=True):
        for i, (row, col) in enumerate(sites):
            expected = [[12 * (6 * y + row) + 6 * x + col for x in range(2)] for y in range(2)]
            assert plane[i // 2 :: 2, i % 2 :: 2].tolist() == expected


def test_each_plane_of_the_table_has_one_color() -> None:
    for color, sites in XTRANS_TABLE:
        assert {XTRANS[row][col] for row, col in sites} == {color}


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 2))
def test_every_site_is_used_once(high: int, wide: int, count: int) -> None:
    for pack, period, cell, planes in ((pack_bayer, 2, 2, 4), (pack_xtrans, 6, 3, 9)):
        height, width = high * period, wide * period
        packed = pack(numbered(height, width).expand(count, -1, -1, -1))
        assert packed.shape == (count, planes, height // cell, width // cell)
        for one in packed:
            assert sorted(one.flatten().tolist()) == list(range(height * width))


def test_the_patterns_are_those_of_the_cameras() -> None:
    assert BAYER == ("RG", "GB")
    # X-Trans: all colors in every row and column; in total 20 green, 8 red and 8 blue.
    text = "".join(XTRANS)
    assert [text.count(color) for color in "RGB"] == [8, 20, 8]
    columns = ["".join(column) for column in zip(*XTRANS, strict=True)]
    assert all(set(line) == set("RGB") for line in (*XTRANS, *columns))


@pytest.mark.parametrize(("pattern", "num_sites"), [(BAYER, 2), (XTRANS, 6)])
@given(data=st.data())
def test_any_phase_is_cropped_to_the_pattern(
    pattern: tuple[str, ...], num_sites: int, data: st.DataObject
) -> None:
    down, right = data.draw(st.integers(0, num_sites - 1)), data.draw(st.integers(0, num_sites - 1))
    height, width = data.draw(st.integers(12, 30)), data.draw(st.integers(12, 30))
    given_mosaic = sensor(pattern, height, width, down=down, right=right)
    aligned = align(given_mosaic, pattern)
    assert aligned.pattern == pattern
    assert aligned.height % num_sites == 0
    assert aligned.width % num_sites == 0
    assert height - 2 * num_sites < aligned.height <= height
    assert width - 2 * num_sites < aligned.width <= width
    assert np.shares_memory(aligned.samples, given_mosaic.samples)
    # Sample and black level have the number of the same site, so they still belong together ...
    assert (aligned.to_tensor().numpy() > 0).all()
    black = np.array(aligned.black_level)
    np.testing.assert_array_equal(aligned.samples[:num_sites, :num_sites] - 1000, black)
    # ... and the colors match the pattern.
    for row in range(num_sites):
        for col in range(num_sites):
            site = int(black[row, col])
            assert pattern[site // num_sites][site % num_sites] == aligned.pattern[row][col]
    assert (aligned.exposure_ratio, aligned.metadata) == (7, {"camera": "A"})


@pytest.mark.parametrize(
    ("pattern", "top", "left"),
    [(("RG", "GB"), 0, 0), (("GR", "BG"), 0, 1), (("GB", "RG"), 1, 0), (("BG", "GR"), 1, 1)],
)
def test_the_four_bayer_phases(pattern: tuple[str, ...], top: int, left: int) -> None:
    samples = np.arange(25, dtype=np.uint16).reshape(5, 5)
    aligned = align(Mosaic(samples, pattern, ((1.0, 2.0), (3.0, 4.0)), 100), BAYER)
    np.testing.assert_array_equal(aligned.samples, samples[top : top + 4, left : left + 4])
    black = {
        (0, 0): ((1, 2), (3, 4)),
        (0, 1): ((2, 1), (4, 3)),
        (1, 0): ((3, 4), (1, 2)),
        (1, 1): ((4, 3), (2, 1)),
    }
    assert aligned.black_level == black[top, left]


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
@given(data=st.data())
def test_the_phase_is_found(pattern: tuple[str, ...], data: st.DataObject) -> None:
    sites = st.integers(0, len(pattern) - 1)
    found = roll(pattern, data.draw(sites), data.draw(sites))
    offset = find_phase(found, pattern)
    assert offset is not None
    assert roll(found, *offset) == pattern
    assert find_phase(found, ("RR", "GB")) is None


def test_one_black_level_stays_one() -> None:
    assert align(Mosaic(np.ones((4, 4), np.uint16), ("GB", "RG"), 0, 9), BAYER).black_level == 0


def test_an_aligned_mosaic_is_unchanged() -> None:
    aligned = align(sensor(XTRANS, 12, 18, down=0, right=0), XTRANS)
    assert (aligned.height, aligned.width) == (12, 18)


@pytest.mark.parametrize(
    ("given_pattern", "wanted"),
    [(BAYER, XTRANS), (XTRANS, BAYER), (("RR", "GB"), BAYER), (("R",), BAYER), (("RGB", "GBR", "BRG"), BAYER)],
)
def test_other_sensors_are_refused(given_pattern: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    mosaic = Mosaic(np.ones((12, 12), np.uint16), given_pattern, 0, 9)
    with pytest.raises(PictureError, match=f"{'/'.join(given_pattern)}; this recipe needs {'/'.join(wanted)}"):
        align(mosaic, wanted)


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (2, 2)])
def test_less_than_a_block_is_refused(shape: tuple[int, int]) -> None:
    mosaic: Any = Mosaic(np.ones(shape, np.uint16), ("BG", "GR"), 0, 9)
    with pytest.raises(PictureError, match="at least 2 x 2"):
        align(mosaic, BAYER)


def test_gains_multiply_their_filters() -> None:
    gains = torch.tensor([[2.0, 1.0, 1.5], [0.5, 1.0, 0.75]])
    result = apply_gains(torch.ones(2, 1, 3, 5), gains, BAYER)
    assert result[0, 0].tolist() == [[2, 1, 2, 1, 2], [1, 1.5, 1, 1.5, 1], [2, 1, 2, 1, 2]]
    assert result[1, 0].tolist() == [[1, 2, 1, 2, 1], [2, 1.5, 2, 1.5, 2], [1, 2, 1, 2, 1]]  # the smallest is 1
    wide = apply_gains(torch.ones(1, 1, 7, 7), gains[:1], XTRANS)[0, 0]
    assert all(
        wide[row, col] == {"R": 2, "G": 1, "B": 1.5}[XTRANS[row % 6][col % 6]]
        for row in range(7)
        for col in range(7)
    )


def test_gains_of_1_change_no_bit() -> None:
    planes = torch.rand(1, 1, 6, 6)
    assert torch.equal(apply_gains(planes, torch.ones(1, 3), BAYER), planes)


@pytest.mark.parametrize("pattern", [("RG", "GB"), ("GR", "BG"), ("GB", "RG"), ("BG", "GR")])
@pytest.mark.parametrize("size", [(2, 2), (5, 8), (6, 7)])
def test_padding_completes_blocks_with_mirrored_samples(pattern: tuple[str, ...], size: tuple[int, int]) -> None:
    samples = np.arange(size[0] * size[1], dtype=np.uint16).reshape(size)
    black = ((1.0, 2.0), (3.0, 4.0))
    padded = pad_to_blocks(Mosaic(samples, pattern, black, 1000.0), BAYER)
    down, right = find_phase(pattern, BAYER) or (0, 0)
    assert padded.pattern == BAYER and padded.height % 2 == padded.width % 2 == 0
    inner = slice(down, down + size[0]), slice(right, right + size[1])
    np.testing.assert_array_equal(padded.samples[inner], samples)
    # Each sample, also a mirrored one, has the black level of its filter.
    levels = np.tile(padded.site_black_levels, (padded.height // 2, padded.width // 2))[inner]
    repeats = (-(-size[0] // 2), -(-size[1] // 2))
    np.testing.assert_array_equal(levels, np.tile(black, repeats)[: size[0], : size[1]])
    if down:
        np.testing.assert_array_equal(padded.samples[0], padded.samples[2])
    if right:
        np.testing.assert_array_equal(padded.samples[:, 0], padded.samples[:, 2])


def test_other_filters_and_single_rows_cannot_be_padded() -> None:
    fuji = Mosaic(np.zeros((12, 12), np.uint16), XTRANS, 0.0, 1000.0)
    with pytest.raises(PictureError, match="this recipe needs RG/GB"):
        pad_to_blocks(fuji, BAYER)
    with pytest.raises(PictureError, match="at least 2 x 2"):
        pad_to_blocks(Mosaic(np.zeros((1, 12), np.uint16), BAYER, 0.0, 1000.0), BAYER)


def test_unpacking_inverts_packing() -> None:
    mosaic = torch.rand(2, 1, 6, 8)
    assert torch.equal(unpack_bayer(pack_bayer(mosaic)), mosaic)
