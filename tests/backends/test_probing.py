"""What is found about networks whose scale, grid and halo are known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.backends.probing import Reach, draw_planes, measure_reach
from pellucid.errors import PellucidError, WeightsError


class Strided(nn.Module):
    """Two strided levels. The farthest pixel on which an output depends is 11 px away.

    The output at 4 k + 4 sees, through the last convolution, the cell of 4 px that ends before it; through that of
    the inner level, the cell before; then 2 px through that of the middle level, and 1 through the first one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.inner, self.last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.down, self.down_again = (nn.Conv2d(3, 3, 2, 2) for _ in range(2))
        self.up, self.up_again = (nn.ConvTranspose2d(3, 3, 2, 2) for _ in range(2))

    def forward(self, planes: Tensor) -> Tensor:
        outer = self.first(planes)
        middle = self.middle(self.down(outer))
        middle = middle + self.up(self.inner(self.down_again(middle)))
        return self.last(outer + self.up_again(middle))


class Padded(nn.Module):
    """Takes any size: sides are padded to a multiple of this many pixels."""

    def __init__(self, network: nn.Module, multiple: int) -> None:
        super().__init__()
        self.network, self.multiple = network, multiple

    def forward(self, planes: Tensor) -> Tensor:
        height, width = planes.shape[-2:]
        padded = F.pad(planes, (0, -width % self.multiple, 0, -height % self.multiple), mode="reflect")
        return self.network(padded)[..., :height, :width]


class Pooled(nn.Module):
    def forward(self, planes: Tensor) -> Tensor:
        return planes * planes.mean(dim=(2, 3), keepdim=True)


class Windows(nn.Module):
    """Each pixel depends on all of its window, and on nothing else."""

    def forward(self, planes: Tensor) -> Tensor:
        means = F.avg_pool2d(planes, 8)
        return planes + F.interpolate(means, scale_factor=8, mode="nearest")


def _conv(inputs: int, outputs: int, size: int, dilation: int = 1) -> nn.Module:
    return nn.Conv2d(inputs, outputs, size, padding=dilation * (size // 2), dilation=dilation)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Reach]] = {
    "identity": (nn.Identity, Reach(1, 1, 1, 0)),
    "convolutions": (lambda: nn.Sequential(_conv(3, 8, 3), nn.ReLU(), _conv(8, 3, 5)), Reach(1, 1, 1, 3)),
    "dilated": (lambda: nn.Sequential(_conv(3, 8, 3, 60), nn.ReLU(), _conv(8, 3, 3)), Reach(1, 1, 1, 61)),
    "enlarging": (
        lambda: nn.Sequential(_conv(3, 8, 3), nn.ReLU(), _conv(8, 48, 3), nn.PixelShuffle(4)),
        Reach(4, 1, 1, 2),
    ),
    "windows": (Windows, Reach(1, 8, 8, 7)),
    "global": (Pooled, Reach(1, 1, 1, None)),
}


def _run(network: nn.Module) -> Callable[[Tensor], Tensor]:
    def run(planes: Tensor) -> Tensor:
        try:
            with torch.inference_mode():
                return network.eval()(planes)
        except RuntimeError as error:  # as the backend translates what a runtime raises
            raise PellucidError(str(error)) from error

    return run


@pytest.mark.parametrize("name", NETWORKS)
def test_scale_grid_and_halo_are_found(name: str) -> None:
    torch.manual_seed(0)
    build, expected = NETWORKS[name]
    assert measure_reach(_run(build()), 3, name=name) == expected


@pytest.mark.parametrize("pads", [False, True])
def test_the_halo_of_strided_layers_is_at_least_the_true_one(pads: bool) -> None:
    torch.manual_seed(0)
    network: nn.Module = Padded(Strided(), 4) if pads else Strided()
    found = measure_reach(_run(network), 3, name="strided")
    assert (found.scale, found.multiple, found.size_px) == (1, 4, 1 if pads else 4)
    assert found.halo is not None and 11 <= found.halo <= 11 + 3


def test_other_outputs_than_pictures_are_refused() -> None:
    given = "for 3 x 65 x 66"
    cases: list[tuple[nn.Module, str]] = [
        (nn.AvgPool2d(2), f"3 x 32 x 33 {given}"),
        (nn.Conv2d(3, 5, 1), f"5 x 65 x 66 {given}"),
        (nn.Flatten(), f"{3 * 65 * 66} {given}"),
        (nn.Conv2d(3, 3, 3), f"3 x 63 x 64 {given}"),
        (nn.Upsample(scale_factor=1.5), f"3 x 97 x 99 {given}"),
    ]
    for network, found in cases:
        with pytest.raises(WeightsError, match=f"thing returns {found} .*as many channels are needed"):
            measure_reach(_run(network), 3, name="thing")
    with pytest.raises(WeightsError, match="thing accepts none of the sizes that were tried: .*channels"):
        measure_reach(_run(nn.Conv2d(5, 5, 1)), 3, name="thing")


def test_synthetic_pictures_fill_their_range() -> None:
    for kind in ("photo", "noise"):
        planes = draw_planes(3, 50, 70, kind=kind)
        assert planes.shape == (1, 3, 50, 70)
        assert 0 <= planes.min() < 0.2 and 0.8 < planes.max() <= 1
