"""Running a network on a device."""

import pytest
import torch

from pellucid.backends import TorchBackend
from pellucid.errors import PellucidError
from pellucid.networks.dncnn import DnCNN


def test_answers_like_the_network_itself() -> None:
    torch.manual_seed(0)
    network = DnCNN(depth=3, width=4).eval()
    degraded = torch.rand(2, 1, 9, 7)
    with torch.inference_mode():
        expected = network(degraded)
    backend = TorchBackend(network, "cpu")
    torch.testing.assert_close(backend(degraded), expected)
    assert (backend.scale, backend.multiple, backend.halo) == (1, 1, 3)


def test_auto_takes_a_device_that_works() -> None:
    assert TorchBackend(DnCNN(depth=2, width=1))(torch.rand(1, 1, 4, 4)).device.type == "cpu"


@pytest.mark.parametrize("device", ["toaster", "cuda:99", "meta", "cpu:x", ""])
def test_an_unknown_device_is_named(device: str) -> None:
    with pytest.raises(PellucidError, match="device"):
        TorchBackend(DnCNN(depth=2, width=1), device)


class Greedy(DnCNN):
    """Asks for more memory than there is."""

    def forward(self, degraded: torch.Tensor) -> torch.Tensor:
        return torch.empty(2**60, device=degraded.device)


def test_too_little_memory_says_what_helps() -> None:
    with pytest.raises(PellucidError, match=r"not enough memory for a tile of 7 x 9 px .* smaller tiles"):
        TorchBackend(Greedy(depth=2, width=1), "cpu")(torch.rand(1, 1, 9, 7))
