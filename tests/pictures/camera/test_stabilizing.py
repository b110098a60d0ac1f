"""The scale on which noise is equally strong everywhere."""

import pytest
import torch

from pellucid.pictures.camera.stabilizing import find_deviation, stabilize, unstabilize

LEVELS = [(1e-5, 1e-8), (1e-3, 1e-6), (1e-2, 1e-3), (0.0, 1e-4), (1e-3, 0.0)]


@pytest.mark.parametrize(("shot", "read"), LEVELS)
def test_black_and_white_stay_and_the_way_back_is_exact(shot: float, read: float) -> None:
    linear = torch.cat([torch.linspace(-0.1, 1.2, 1301, dtype=torch.float64), torch.tensor([0.0, 1.0]).double()])
    levels = torch.tensor(shot).double(), torch.tensor(read).double()
    stable = stabilize(linear, *levels)
    torch.testing.assert_close(stable[-2:], linear[-2:])
    assert (stable[:1301].diff() > 0).all()
    torch.testing.assert_close(unstabilize(stable, *levels), linear, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.01, 0.1, 0.9])
def test_the_noise_has_the_stated_deviation_everywhere(level: float) -> None:
    shot, read = torch.tensor(1e-3), torch.tensor(4e-6)
    generator = torch.Generator().manual_seed(0)
    electrons = torch.poisson(torch.full((200_000,), level) / shot, generator=generator)
    noisy = shot * electrons + read.sqrt() * torch.randn(200_000, generator=generator)
    deviation = stabilize(noisy, shot, read).std()
    assert deviation.item() == pytest.approx(find_deviation(shot, read).item(), rel=0.1)
