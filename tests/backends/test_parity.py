"""Agreement is computed over all samples, on realistic pictures."""

import math

import pytest
import torch

from pellucid.backends import parity
from pellucid.errors import PellucidError
from pellucid.pictures.metrics import psnr
from pellucid.recipes import registry


def test_equal_results_are_exact() -> None:
    agreement = parity.compare(torch.relu, torch.relu, [torch.rand(1, 1, 2, 3)])
    assert (agreement.max_error, agreement.psnr_db, agreement.num_inputs) == (0, math.inf, 1)
    assert str(agreement) == "exact, largest error 0.0e+00 of white, 1 input"


def test_agreement_is_computed_over_all_samples() -> None:
    inputs = [torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 4)]
    off = [torch.full((1, 1, 2, 2), 0.1), torch.zeros(1, 1, 2, 4)]
    found = iter(off)
    agreement = parity.compare(lambda _: next(found), lambda degraded: degraded, inputs)
    both = (torch.cat([part.flatten() for part in parts]) for parts in (off, inputs))
    assert agreement.psnr_db == pytest.approx(psnr(*both))
    assert agreement.max_error == pytest.approx(0.1)


def test_nan_and_other_shapes_do_not_agree() -> None:
    agreement = parity.compare(lambda x: x * math.nan, lambda x: x, [torch.rand(1, 1, 2, 3)])
    assert agreement.psnr_db == -math.inf
    with pytest.raises(PellucidError, match=r"input of \(1, 1, 2, 3\), the result has shape \(1, 1, 2, 2\)"):
        parity.compare(lambda x: x[..., :2], lambda x: x, [torch.rand(1, 1, 2, 3)])


@pytest.mark.parametrize("name", registry.list_names())
def test_synthetic_inputs_fit_the_network(name: str) -> None:
    found = registry.find(name)
    degraded = parity.synthetic_inputs(found, 48)
    assert degraded.shape == (2, found.domain.num_planes, 48, 48)
    assert degraded.std() > 0.05 and degraded.isfinite().all()


def test_dead_leaves_have_the_spectrum_of_photographs() -> None:
    """Power falls roughly like 1 / f^2: between noise (0) and a smooth gradient (4)."""
    picture = parity.dead_leaves(192, torch.Generator().manual_seed(0))
    power = torch.fft.fft2(picture - picture.mean((1, 2), keepdim=True)).abs().square().mean(0)
    frequency = torch.fft.fftfreq(192).square()
    frequency = (frequency[:, None] + frequency[None, :]).sqrt()
    low, high = (power[(frequency > f / 1.5) & (frequency < f * 1.5)].mean().log2() for f in (1 / 32, 1 / 8))
    assert 1.2 < (low - high) / 2 < 3


def test_edges_of_dead_leaves_have_no_preferred_direction() -> None:
    """They are the edges of discs."""
    pictures = torch.stack([parity.dead_leaves(96, torch.Generator().manual_seed(seed)) for seed in range(6)])
    down, right = (pictures.diff(dim=dim).square().mean() for dim in (-2, -1))
    assert 0.8 < down / right < 1.25


def test_sizes_leave_every_remainder_of_the_grid_of_mimo_unet() -> None:
    """Each remainder is padded in another way."""
    grid = registry.find("mimo_unet.gopro").network().multiple
    for sides in zip(*parity.SIZES, strict=True):
        assert {side % grid for side in sides} == set(range(grid))


def test_crops_are_not_larger_than_the_input() -> None:
    assert [tuple(part.shape[-2:]) for part in parity.crop_inputs(torch.zeros(1, 1, 9, 7), [(1, 1), (20, 5)])] == [
        (1, 1),
        (9, 5),
    ]
