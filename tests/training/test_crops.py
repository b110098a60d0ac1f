"""Square crops, compared with padding and slicing in NumPy."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.pictures.samples import PEAKS, Samples
from pellucid.training.crops import Numbers, Pictures, Placement, augment, augment_corner, crop_inner

CPU = torch.device("cpu")
KINDS = st.sampled_from([("uint8", 1), ("uint8", 3), ("uint16", 1), ("uint16", 3)])
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))


def noise(height: int, width: int, kind: tuple[str, int], seed: int = 0) -> Samples:
    dtype, channels = kind
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype)


def numbers(*values: int) -> Numbers:
    return np.array(values, np.int64)


@pytest.mark.parametrize("resident", [False, True])
@given(
    kinds=st.lists(st.tuples(SIZES, KINDS), min_size=1, max_size=4),
    places=st.lists(st.tuples(st.integers(0, 3), st.integers(-40, 40), st.integers(-40, 40)), min_size=1),
    size=st.integers(1, 30),
)
def test_crops_equal_those_of_padded_pictures(
    kinds: list[tuple[tuple[int, int], tuple[str, int]]],
    places: list[tuple[int, int, int]],
    size: int,
    resident: bool,
) -> None:
    arrays = [noise(*sizes, kind, seed=i) for i, (sizes, kind) in enumerate(kinds)]
    pictures = Pictures(arrays.__getitem__, range(len(arrays)), Placement(CPU, resident))
    places = [(i % len(arrays), top, left) for i, top, left in places]
    which, top, left = (numbers(*column) for column in zip(*places, strict=True))
    found = pictures.crop(which, top, left, size, lambda planes: planes.expand(-1, 3, -1, -1))
    assert found.dtype == torch.float32
    for square, (i, first_row, first_col) in zip(found, places, strict=True):
        wide = np.pad(arrays[i], ((80, 80), (80, 80), (0, 0)), "symmetric")
        expected = wide[80 + first_row :, 80 + first_col :][:size, :size].astype(np.float32)
        expected /= np.float32(PEAKS[arrays[i].dtype.name])
        np.testing.assert_array_equal(square.permute(1, 2, 0).numpy(), np.broadcast_to(expected, (size, size, 3)))


def test_pictures_with_equal_keys_are_on_the_device_once() -> None:
    shared, other = noise(5, 6, ("uint16", 3)), noise(4, 7, ("uint16", 3), seed=1)
    arrays = [shared, other, shared]
    pictures = Pictures(arrays.__getitem__, ["a", "b", "a"], Placement(CPU, True))
    cut = pictures.crop(numbers(0, 1, 2), numbers(1, 0, 1), numbers(2, 0, 2), 3, lambda planes: planes)
    assert torch.equal(cut[0], cut[2]) and not torch.equal(cut[0], cut[1])
    row = pictures._crop.__self__._pixels["uint16", 3]  # type: ignore[attr-defined]
    assert len(row) == 5 * 6 + 4 * 7


def test_pictures_stay_memory_mapped_on_a_cpu() -> None:
    assert not Placement(CPU, None).is_on_device(1)
    assert Placement(CPU, True).is_on_device(1)


def test_all_eight_transforms_differ_and_equal_single_ones() -> None:
    square = torch.rand(1, 2, 5, 5)
    together = augment(square.expand(8, -1, -1, -1), np.arange(8))
    alone = [augment(square, numbers(transform))[0] for transform in range(8)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    assert all(not torch.equal(alone[i], alone[j]) for i in range(8) for j in range(i))
    assert torch.equal(alone[0], square[0])
    assert torch.equal(alone[1], square[0].flip(-1))  # the one of `mirror`
    rotations = {alone[i].numpy().tobytes() for i in range(8)}
    assert rotations >= {square[0].rot90(k, (-2, -1)).numpy().tobytes() for k in range(4)}


@given(
    places=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=9),
    rate=st.sampled_from([Fraction(1), Fraction(2), Fraction(1, 3)]),
)
def test_a_corner_moves_with_its_augmented_square(places: list[tuple[int, int, int]], rate: Fraction) -> None:
    top, left, transforms = (numbers(*column) for column in zip(*places, strict=True))
    top, left = top * rate.denominator, left * rate.denominator
    side, patch = 9 * rate.denominator, 4 * rate.denominator
    planes = torch.rand(len(places), 2, 9 * rate.numerator, 9 * rate.numerator)
    new_top, new_left = augment_corner(top, left, transforms, side - patch)
    expected = augment(crop_inner(planes, top, left, patch, rate), transforms)
    assert expected.shape[-1] == 4 * rate.numerator
    assert torch.equal(crop_inner(augment(planes, transforms), new_top, new_left, patch, rate), expected)


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("top", [-1, 0, 1, 4, 5])
@pytest.mark.parametrize("left", [-1, 0, 1, 6, 7])
def test_crops_may_exceed_any_edge_by_one_pixel(top: int, left: int, resident: bool) -> None:
    array = noise(9, 11, ("uint8", 1))
    pictures = Pictures([array].__getitem__, range(1), Placement(CPU, resident))
    ((_, found),) = pictures.samples(numbers(0), numbers(top), numbers(left), 5)
    padded = np.pad(array, ((1, 1), (1, 1), (0, 0)), mode="symmetric")
    expected = padded[top + 1 : top + 6, left + 1 : left + 6]
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), expected)
