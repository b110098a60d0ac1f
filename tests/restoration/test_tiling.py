import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import PellucidError
from pellucid.restoration.tiling import Span, Tile, plan, span

sizes = st.integers(1, 70)
tile_sizes = st.integers(1, 80)
halos = st.integers(0, 40)
grids = st.sampled_from([1, 2, 3, 4, 6, 16])


@given(sizes, sizes, tile_sizes, st.integers(1, 3))
def test_every_pixel_is_kept_once(height: int, width: int, tile_px: int, scale: int) -> None:
    counts = np.zeros((height * scale, width * scale), int)
    for tile in plan(height, width, tile_px=tile_px):
        counts[tile.placed(scale)] += 1
    assert (counts == 1).all()


@given(sizes, sizes, tile_sizes, halos, grids, st.integers(1, 3))
def test_copying_tiles_gives_the_picture(
    height: int, width: int, tile_px: int, halo_px: int, grid_px: int, scale: int
) -> None:
    picture = np.arange(height * width).reshape(height, width)
    expected = picture.repeat(scale, 0).repeat(scale, 1)
    result = np.full_like(expected, -1)
    for tile in plan(height, width, tile_px=tile_px):
        rows = span(tile.top, tile.bottom, height, halo_px=halo_px, grid_px=grid_px)
        cols = span(tile.left, tile.right, width, halo_px=halo_px, grid_px=grid_px)
        read = picture[rows.read, cols.read].repeat(scale, 0).repeat(scale, 1)
        result[tile.placed(scale)] = read[rows.kept(scale), cols.kept(scale)]
    assert (result == expected).all()


@given(sizes, st.data(), halos, grids)
def test_area_that_is_read_starts_on_the_grid_and_contains_the_halo(
    size: int, draw: st.DataObject, halo_px: int, grid_px: int
) -> None:
    start = draw.draw(st.integers(0, size - 1))
    side = span(start, draw.draw(st.integers(start + 1, size)), size, halo_px=halo_px, grid_px=grid_px)
    assert side.read_start % grid_px == 0
    assert side.read_stop % grid_px == 0 or side.read_stop == size
    assert 0 <= side.read_start <= side.start < side.stop <= side.read_stop <= size
    assert side.read_start == 0 or side.start - side.read_start >= halo_px
    assert side.read_stop == size or side.read_stop - side.stop >= halo_px
    # ... and not a whole grid step more than that.
    assert side.start - side.read_start < halo_px + grid_px
    assert side.read_stop - side.stop < halo_px + grid_px


@given(sizes, sizes, tile_sizes)
def test_parts_are_nearly_equal_and_not_too_large(height: int, width: int, tile_px: int) -> None:
    tiles = plan(height, width, tile_px=tile_px)
    for lengths in ({tile.bottom - tile.top for tile in tiles}, {tile.right - tile.left for tile in tiles}):
        assert max(lengths) <= tile_px
        assert max(lengths) - min(lengths) <= 1
    assert len(tiles) == -(-height // tile_px) * -(-width // tile_px)  # no more than it takes


@given(sizes, sizes, tile_sizes, tile_sizes)
def test_parts_of_a_tile_cover_it(height: int, width: int, tile_px: int, smaller_px: int) -> None:
    counts = np.zeros((height, width), int)
    for tile in plan(height, width, tile_px=tile_px):
        for part in tile.cut(smaller_px):
            assert part.longer_side_px <= smaller_px
            counts[part.placed(1)] += 1
    assert (counts == 1).all()


def test_row_computed_by_hand() -> None:
    tiles = plan(4, 10, tile_px=5)
    assert tiles == [Tile(0, 4, 0, 5), Tile(0, 4, 5, 10)]
    assert [tile.num_pixels for tile in tiles] == [20, 20]
    assert tiles[1].placed(2) == (slice(0, 8), slice(10, 20))
    cols = [span(tile.left, tile.right, 10, halo_px=2, grid_px=4) for tile in tiles]
    assert cols == [Span(0, 5, 0, 8), Span(5, 10, 0, 10)]
    assert cols[1].kept(2) == slice(10, 20)


def test_tiles_go_row_by_row() -> None:
    assert [(tile.top, tile.left) for tile in plan(4, 6, tile_px=3)] == [(0, 0), (0, 3), (2, 0), (2, 3)]


@given(sizes, st.data(), halos, grids)
def test_mirrored_twice_is_the_same(size: int, draw: st.DataObject, halo_px: int, grid_px: int) -> None:
    start = draw.draw(st.integers(0, size - 1))
    stop = draw.draw(st.integers(start + 1, size))
    side = span(start, stop, size, halo_px=halo_px, grid_px=grid_px)
    mirror = side.mirrored(size)
    pixels = list(range(size))
    assert mirror.mirrored(size) == side
    assert pixels[mirror.read] == [size - 1 - pixel for pixel in reversed(pixels[side.read])]
    kept = [size - 1 - pixel for pixel in reversed(pixels[start:stop])]
    assert pixels[mirror.read][mirror.kept()] == pixels[mirror.start : mirror.stop] == kept


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(PellucidError, match="tile of 0 px"):
        plan(9, 9, tile_px=0)
    with pytest.raises(PellucidError, match="halo of -1 px"):
        span(0, 5, 9, halo_px=-1, grid_px=1)
