"""Running a network with PyTorch on a device."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from pellucid.backends.eager import TorchBackend
from pellucid.errors import PellucidError
from pellucid.networks.dncnn import DnCNN
from pellucid.networks.mimo_unet import MIMOUNet
from pellucid.networks.srcnn import SRCNN
from pellucid.recipes.network import Network


def test_equals_the_network() -> None:
    torch.manual_seed(0)
    network = DnCNN(depth=3, width=4).eval()
    degraded = torch.rand(2, 1, 9, 7)
    with torch.inference_mode():
        expected = network(degraded)
    backend = TorchBackend(network, "cpu")
    torch.testing.assert_close(backend(degraded), expected)
    assert (backend.scale, backend.multiple, backend.halo) == (1, 1, 3)


NETWORKS: list[Callable[[], Network]] = [
    lambda: DnCNN(depth=5, width=8),
    lambda: DnCNN(channels=3, depth=3, width=20),
    lambda: SRCNN(mapping_px=1),
    lambda: SRCNN(mapping_px=3),
    lambda: SRCNN(mapping_px=5),
]


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@given(height=st.integers(1, 200), width=st.integers(1, 200), seed=st.integers(0, 99))
@example(height=143, width=143, seed=0)  # 20449 samples, and 20592: PyTorch switches kernels in between
@example(height=144, width=143, seed=0)
def test_a_single_picture_equals_itself_in_a_batch(
    build: Callable[[], Network], precision: str, height: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    network = build()
    pictures = torch.rand(3, next(network.parameters()).shape[1], height, width)
    backend = TorchBackend(network, "cpu", precision=precision)
    assert torch.equal(backend(pictures[:1]), backend(pictures)[:1])


@pytest.mark.parametrize(
    ("build", "channels", "height", "width"),
    [(lambda: SRCNN(mapping_px=1), 1, 159, 3), (lambda: MIMOUNet(width=64, num_blocks=1), 3, 112, 4)],
)
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_narrow_pictures_do_not_depend_on_what_was_in_memory(
    build: Callable[[], Network], channels: int, height: int, width: int, precision: str
) -> None:
    backend = TorchBackend(build(), "cpu", precision=precision)
    picture = torch.rand(1, channels, height, width)
    for _ in range(20):  # freed memory is used again
        [torch.full((size,), torch.nan) for size in torch.randint(1, 300_000, [5])]
        assert torch.isfinite(backend(picture)).all()


class BatchSizes(TorchFunctionMode):
    """Records the batch size of each convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.conv2d:
            self.counts.append(len(args[0]))
        return func(*args, **(kwargs or {}))


def _batch_sizes(backend: TorchBackend, *shape: int) -> list[int]:
    with BatchSizes() as modes:
        backend(torch.rand(*shape))
    return modes.counts


def test_only_small_features_of_a_single_picture_run_twice() -> None:
    backend = TorchBackend(DnCNN(depth=4, width=8), "cpu")
    assert _batch_sizes(backend, 1, 1, 64, 64) == [2, 1, 1, 1]  # 1 x 4096 samples, then 8 x 4096
    assert _batch_sizes(backend, 1, 1, 144, 143) == [1, 1, 1, 1]
    assert _batch_sizes(backend, 1, 1, 20, 20) == [2, 2, 2, 2]
    assert _batch_sizes(backend, 3, 1, 20, 20) == [3, 3, 3, 3]
    assert _batch_sizes(TorchBackend(SRCNN(mapping_px=3), "cpu"), 1, 1, 15, 15) == [
        1,
        2,
        1,
    ]  # 9 x 9 and 5 x 5 do not


def test_auto_finds_a_device() -> None:
    assert TorchBackend(DnCNN(depth=2, width=1))(torch.rand(1, 1, 4, 4)).device.type == "cpu"


@pytest.mark.parametrize("device", ["toaster", "cuda:99", "meta", "cpu:x", "cpu:7", ""])
def test_an_unknown_device_is_an_error(device: str) -> None:
    with pytest.raises(PellucidError, match="device"):
        TorchBackend(DnCNN(depth=2, width=1), device)


class Greedy(DnCNN):
    """Allocates more memory than there is."""

    def forward(self, degraded: torch.Tensor) -> torch.Tensor:
        return torch.empty(2**60, device=degraded.device)


def test_running_out_of_memory_has_a_hint() -> None:
    with pytest.raises(
        PellucidError, match=r"not enough memory for a tile of 7 x 9 px .*; use smaller tiles \(tile_px\)"
    ):
        TorchBackend(Greedy(depth=2, width=1), "cpu")(torch.rand(1, 1, 9, 7))
