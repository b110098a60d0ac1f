"""The memory of a network is counted without running it, and equals sums made by hand."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from pellucid.backends.activation_memory import ActivationMemory
from pellucid.backends.eager import TorchBackend
from pellucid.recipes import registry
from pellucid.recipes.network import Network


class Widening(Network):
    """One channel to eight and back: the input, the eight channels and the output exist at the same time."""

    scale, multiple, halo = 1, 1, 2

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, degraded: Tensor) -> Tensor:
        return self.narrow(self.widen(degraded))


def test_equals_a_sum_by_hand() -> None:
    assert ActivationMemory(Widening()).activation_bytes((2, 1, 30, 40)) == 4 * 2 * 30 * 40 * (1 + 8 + 1)


@pytest.mark.parametrize("name", [name for name in registry.list_names() if name != "mimo_unet.gopro_plus"])
def test_grows_with_the_area(name: str) -> None:
    network = registry.find(name).network()
    planes = next(parameter.shape[1] for parameter in network.parameters() if parameter.ndim == 4)
    if name.startswith("mimo"):
        planes = 3
    memory = ActivationMemory(network)
    small, large = (memory.activation_bytes((1, planes, side, side)) for side in (64, 128))
    assert 3.9 < large / small < 4.1


@pytest.mark.parametrize("name", registry.list_names())
def test_the_rough_bound_is_returned_if_it_is_available(name: str) -> None:
    chosen = registry.find(name)
    backend = TorchBackend(chosen.network(), "cpu")
    for height, width in ((1, 1), (1, 90), (2, 3), (7, 5), (33, 40), (64, 64), (143, 140), (200, 300)):
        shape = (1, chosen.domain.num_planes, height, width)
        exact, rough = backend.working_bytes(shape), backend.working_bytes(shape, available_bytes=10**12)
        assert exact < rough
        assert backend.working_bytes(shape, available_bytes=rough - 10) == exact


RESTORE_SMALL_PICTURE = """
import sys
from pellucid.restoration import restorer
from pellucid.pictures.picture import Picture
import numpy as np
restorer.load("dncnn-gray-25").restore(Picture(np.zeros((30, 40, 3), np.uint8)))
assert "torch._dynamo" not in sys.modules
"""


def test_a_small_picture_does_not_load_the_compiler() -> None:
    """That takes as long as loading everything else."""
    subprocess.run([sys.executable, "-c", RESTORE_SMALL_PICTURE], check=True)


def test_layers_that_run_twice_count_twice() -> None:
    """At 100 x 100 pixels, the first layer, with eight output channels, runs twice, the second layer once."""
    backend = TorchBackend(Widening(), "cpu")
    assert backend.working_bytes((1, 1, 100, 100)) == 1.5 * 4 * 100 * 100 * (1 + 2 * 8 + 1)
    assert backend.working_bytes((2, 1, 100, 100)) == 1.5 * 4 * 2 * 100 * 100 * (1 + 8 + 1)
    assert backend.working_bytes((1, 1, 200, 200)) == 1.5 * 4 * 200 * 200 * (1 + 8 + 1)


def test_half_precision_counts_as_float32() -> None:
    """An upper bound, as kernels may convert features to float32."""
    full, half = (TorchBackend(Widening(), "cpu", precision=precision) for precision in ("float32", "bfloat16"))
    assert half.working_bytes((2, 1, 100, 100)) == full.working_bytes((2, 1, 100, 100))


def test_activations_are_in_the_memory_of_the_device() -> None:
    shape = (2, 1, 100, 100)
    backend = TorchBackend(Widening(), "cpu")
    assert backend.device_bytes(shape) == 0
    expected = backend.working_bytes(shape)
    backend.device = torch.device("meta")
    assert backend.device_bytes(shape) == expected > backend.working_bytes(shape)


def test_the_rough_bound_includes_the_overhead() -> None:
    """It is 4 times the outputs of both layers and the input, padded by 3 pixels."""
    memory = ActivationMemory(Widening())
    rough_bytes = 4 * 4 * 103 * 103 * (1 + 8 + 1)
    assert memory.activation_bytes((1, 1, 100, 100), available_bytes=rough_bytes) == rough_bytes
    assert memory.working_bytes((1, 1, 100, 100), available_bytes=rough_bytes * 3 // 2) == rough_bytes * 3 // 2
    exact_bytes = 1.5 * 4 * 100 * 100 * (1 + 8 + 1)
    assert memory.working_bytes((1, 1, 100, 100), available_bytes=rough_bytes * 3 // 2 - 1) == exact_bytes
