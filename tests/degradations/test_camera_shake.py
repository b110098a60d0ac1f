from itertools import pairwise

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from pellucid.degradations.camera_shake import CameraShake, MeasuredShake, Shake, _follow


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def measured(count: int = 3, seed: int = 0) -> list[np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Blurred spots of several sizes."""
    rng = np.random.default_rng(seed)
    return [scipy.ndimage.gaussian_filter(rng.random((9 + 2 * i, 13)) ** 9, 0.8) for i in range(count)]


def moments(kernels: Tensor) -> tuple[Tensor, Tensor]:
    """Center of mass (N, 2) and mean square distance from the middle (N,)."""
    places = torch.arange(kernels.shape[-1]) - kernels.shape[-1] // 2
    masses = torch.stack([kernels.sum(dim=2), kernels.sum(dim=1)], dim=1)
    return (masses * places).sum(dim=-1), (masses * places**2).sum(dim=(-1, -2))


SHAKES = [
    CameraShake((5.0, 25.0)),
    CameraShake((0.0, 127.0), 15),
    CameraShake(60.0, 31, (0.0, 0.01)),
    MeasuredShake(measured()),
    MeasuredShake(measured(), (0.4, 1.0), 9),
]


@pytest.mark.parametrize("shake", SHAKES, ids=repr)
def test_kernels_are_centered_and_have_a_sum_of_1(shake: Shake) -> None:
    kernels = shake.kernels(200, seeded(0))
    assert kernels.shape == (200, shake.kernel_px, shake.kernel_px)
    assert kernels.min() >= 0
    torch.testing.assert_close(kernels.sum(dim=(1, 2)), torch.ones(200))
    assert moments(kernels)[0].abs().max() < 1e-4


@pytest.mark.parametrize("shake", SHAKES, ids=repr)
def test_the_same_seed_gives_the_same_kernels(shake: Shake) -> None:
    assert torch.equal(shake.kernels(9, seeded(4)), shake.kernels(9, seeded(4)))
    assert not torch.equal(shake.kernels(9, seeded(4)), shake.kernels(9, seeded(5)))


def test_trajectories_differ() -> None:
    assert len({kernel.numpy().tobytes() for kernel in CameraShake().kernels(50, seeded(0))}) == 50


@pytest.mark.parametrize("length_px", [0.0, 0.3, 7.7, 60.0])
@pytest.mark.parametrize("anxiety", [0.0, 0.1])
def test_trajectories_have_the_given_length(length_px: float, anxiety: float) -> None:
    trajectories = CameraShake(length_px, anxiety=anxiety).trajectories(20, seeded(1))
    lengths = trajectories.diff(dim=1).norm(dim=-1).sum(dim=1)
    torch.testing.assert_close(lengths, torch.full((20,), length_px), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length_px", [0.0, 0.25, 0.5, 1.0, 1.5, 4.0, 20.0])
def test_straight_trajectories_have_the_variance_of_a_line(length_px: float) -> None:
    """A uniform line has the variance length^2 / 12, also for fractions of a pixel. Distributing points over their
    pixels adds (x - floor)(1 - x + floor) in each direction, a quarter of a pixel at most."""
    _, square = moments(CameraShake(length_px, anxiety=0.0).kernels(300, seeded(2)))
    line = length_px**2 / 12
    assert square.min() > line * 0.99 - 1e-4
    assert square.max() < line * 1.03 + 0.5
    if length_px <= 1:  # points near the middle are spread by their distance from it
        assert square.max() < line * 1.03 + length_px / 2 + 1e-4


def test_kernels_grow_with_each_fraction_of_a_pixel() -> None:
    spreads = [moments(CameraShake(x / 4, anxiety=0.0).kernels(300, seeded(3)))[1].mean() for x in range(12)]
    assert all(shorter < longer for shorter, longer in pairwise(spreads))


def test_anxiety_makes_trajectories_wind() -> None:
    calm, anxious = (moments(CameraShake(60.0, 61, a).kernels(300, seeded(0)))[1].mean() for a in (0.005, 0.1))
    assert calm > 4 * anxious


def test_a_jerk_is_added_to_the_reversed_direction() -> None:
    """Jerks of 0 change nothing: down by 1 px, then back and to the right."""
    still, one = np.zeros((4, 1), complex), np.ones(1)
    jerks = still.copy()
    jerks[2] = 1j
    path = _follow(one, one.astype(complex), still, jerks, 0 * one)
    diagonal = (-1 + 1j) / np.sqrt(2)
    assert path[0] == pytest.approx([0, 1, 1 + diagonal, 1 + 2 * diagonal])


def test_trajectories_that_do_not_fit_are_scaled_down() -> None:
    kernels = CameraShake(100.0, 9, 0.0).kernels(50, seeded(0))
    assert moments(kernels)[0].abs().max() < 1e-4
    filled = (kernels > 0).any(dim=1).sum(dim=1).maximum((kernels > 0).any(dim=2).sum(dim=1))
    assert (filled == 9).all()  # from edge to edge, without clipping there
    assert kernels.amax() < 0.25


def test_lines_have_no_gaps() -> None:
    kernels = CameraShake(100.0, 101, 0.0).kernels(50, seeded(0))
    along = torch.stack([kernels.sum(dim=1), kernels.sum(dim=2)]).amax(dim=0)
    assert ((along > 1e-4).sum(dim=1) > 70).all()
    for kernel in kernels:
        rows, cols = torch.nonzero(kernel.sum(dim=1) > 1e-5)[:, 0], torch.nonzero(kernel.sum(dim=0) > 1e-5)[:, 0]
        assert len(rows) == rows.max() - rows.min() + 1
        assert len(cols) == cols.max() - cols.min() + 1


def test_measured_kernels_are_rotated_and_mirrored_in_all_eight_ways() -> None:
    """An asymmetric kernel whose center of mass is in the middle of a pixel, against NumPy's rotations."""
    shape = np.zeros((5, 5))
    shape[0, 1], shape[4, 2], shape[3, 3] = 2, 1, 2
    ways = [np.rot90(flipped, k) / shape.sum() for flipped in (shape, shape[::-1]) for k in range(4)]
    kernels = MeasuredShake([shape], kernel_px=5).kernels(60, seeded(0)).numpy()
    found = [[np.abs(way - kernel).max() < 1e-6 for way in ways].index(True) for kernel in kernels]
    assert set(found) == set(range(8))


def test_every_measured_kernel_is_drawn() -> None:
    flat = [np.ones((1, 2 * i + 1)) for i in range(3)]
    peaks = MeasuredShake(flat).kernels(60, seeded(0)).amax(dim=(1, 2))
    assert sorted({round(peak, 3) for peak in peaks.tolist()}) == [0.2, 0.333, 1.0]


def test_zoomed_kernels_have_a_smaller_variance() -> None:
    whole, half = (
        moments(MeasuredShake(measured(), zoom).kernels(300, seeded(0)))[1].mean() for zoom in (1.0, 0.5)
    )
    assert half.item() == pytest.approx(whole.item() / 4, rel=0.15)
