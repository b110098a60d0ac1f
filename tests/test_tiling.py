import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import PellucidError
from pellucid.tiling import Span, plan, span

sizes = st.integers(1, 70)
tile_sizes = st.integers(1, 80)
halos = st.integers(0, 40)
grids = st.sampled_from([1, 2, 3, 4, 6, 16])


@given(sizes, sizes, tile_sizes, halos, grids, st.integers(1, 3))
def test_every_pixel_is_kept_once(
    height: int, width: int, tile_px: int, halo_px: int, grid_px: int, scale: int
) -> None:
    counts = np.zeros((height * scale, width * scale), int)
    for tile in plan(height, width, tile_px=tile_px, halo_px=halo_px, grid_px=grid_px):
        counts[tile.rows.placed(scale), tile.cols.placed(scale)] += 1
    assert (counts == 1).all()


@given(sizes, sizes, tile_sizes, halos, grids, st.integers(1, 3))
def test_copying_tiles_gives_the_picture(
    height: int, width: int, tile_px: int, halo_px: int, grid_px: int, scale: int
) -> None:
    picture = np.arange(height * width).reshape(height, width)
    expected = picture.repeat(scale, 0).repeat(scale, 1)
    result = np.full_like(expected, -1)
    for tile in plan(height, width, tile_px=tile_px, halo_px=halo_px, grid_px=grid_px):
        read = picture[tile.rows.read, tile.cols.read].repeat(scale, 0).repeat(scale, 1)
        result[tile.rows.placed(scale), tile.cols.placed(scale)] = read[
            tile.rows.kept(scale), tile.cols.kept(scale)
        ]
    assert (result == expected).all()


@given(sizes, tile_sizes, halos, grids)
def test_what_is_read_starts_on_the_grid_and_holds_the_halo(
    size: int, tile_px: int, halo_px: int, grid_px: int
) -> None:
    for tile in plan(size, size, tile_px=tile_px, halo_px=halo_px, grid_px=grid_px):
        for side in (tile.rows, tile.cols):
            assert side.read_start % grid_px == 0
            assert side.read_stop % grid_px == 0 or side.read_stop == size
            assert 0 <= side.read_start <= side.start < side.stop <= side.read_stop <= size
            assert side.read_start == 0 or side.start - side.read_start >= halo_px
            assert side.read_stop == size or side.read_stop - side.stop >= halo_px
            # ... and not a whole grid step more than that.
            assert side.start - side.read_start < halo_px + grid_px
            assert side.read_stop - side.stop < halo_px + grid_px


@given(sizes, sizes, tile_sizes)
def test_parts_are_nearly_equal_and_none_too_large(height: int, width: int, tile_px: int) -> None:
    tiles = plan(height, width, tile_px=tile_px, halo_px=0, grid_px=1)
    for lengths in (
        {tile.rows.stop - tile.rows.start for tile in tiles},
        {tile.cols.stop - tile.cols.start for tile in tiles},
    ):
        assert max(lengths) <= tile_px
        assert max(lengths) - min(lengths) <= 1
    assert len(tiles) == -(-height // tile_px) * -(-width // tile_px)  # no more than it takes


def test_a_row_worked_by_hand() -> None:
    tiles = plan(4, 10, tile_px=5, halo_px=2, grid_px=4)
    assert [tile.rows for tile in tiles] == [Span(0, 4, 0, 4)] * 2
    assert [tile.cols for tile in tiles] == [Span(0, 5, 0, 8), Span(5, 10, 0, 10)]
    assert tiles[1].cols.kept(2) == slice(10, 20)
    assert tiles[1].cols.placed(2) == slice(10, 20)


def test_tiles_go_row_by_row() -> None:
    tiles = plan(4, 6, tile_px=3, halo_px=0, grid_px=1)
    assert [(tile.rows.start, tile.cols.start) for tile in tiles] == [(0, 0), (0, 3), (2, 0), (2, 3)]


@given(sizes, st.data(), halos, grids)
def test_mirrored_twice_is_the_same(size: int, draw: st.DataObject, halo_px: int, grid_px: int) -> None:
    start = draw.draw(st.integers(0, size - 1))
    stop = draw.draw(st.integers(start + 1, size))
    side = span(start, stop, size, halo_px=halo_px, grid_px=grid_px)
    mirror = side.mirrored(size)
    pixels = list(range(size))
    assert mirror.mirrored(size) == side
    assert pixels[mirror.read] == [size - 1 - pixel for pixel in reversed(pixels[side.read])]
    assert pixels[mirror.placed()] == [size - 1 - pixel for pixel in reversed(pixels[side.placed()])]
    assert pixels[mirror.read][mirror.kept()] == pixels[mirror.placed()]


@pytest.mark.parametrize(("tile_px", "halo_px", "fault"), [(0, 0, "tile of 0 px"), (5, -1, "halo of -1 px")])
def test_impossible_plans_are_refused(tile_px: int, halo_px: int, fault: str) -> None:
    with pytest.raises(PellucidError, match=fault):
        plan(9, 9, tile_px=tile_px, halo_px=halo_px, grid_px=1)
