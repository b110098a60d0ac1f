"""PyTorch runs a network, as it is, on any device it knows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pellucid.backends.activation_memory import ActivationMemory
from pellucid.backends.backend import Shape, allocation, find_device
from pellucid.errors import PellucidError
from pellucid.recipes.network import Network
from pellucid.weights.checkpoint import fingerprint

# PyTorch leaves oneDNN for float32 features of up to 20480 samples that come alone to kernels of up to 3 x 3.
SMALL_SAMPLES, SMALL_KERNEL_PX = 20480, 3

# What kernels and the allocator take beyond the tensors: measured 1.0 times in all for SRCNN and DnCNN, 1.1 for
# MIMO-UNet and 1.45 for SID U-Net, whose transposed convolutions need room (benchmarks/memory.py). ONNX Runtime
# takes 0.7 to 1.25 times, OpenVINO 0.7 to 1.1.
OVERHEAD = 1.5

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions in which PyTorch computes."""


class TorchBackend:
    """A network on a device, called with tensors on the CPU and answering on the CPU.

    device: "auto" is the accelerator PyTorch finds, else the CPU; or a name such as "cpu" or "cuda:1".
    precision: of the layers, one of DTYPES.
    """

    def __init__(self, network: Network, device: str = "auto", *, precision: str = "float32") -> None:
        if precision not in DTYPES:
            raise PellucidError(f"torch computes in {', '.join(DTYPES)}; {precision} is for exported files")
        self.scale, self.multiple, self.halo = network.scale, network.multiple, network.halo
        self.precision, self._dtype = precision, DTYPES[precision]
        self.device = find_device(device)
        if self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # ten bits of mantissa: neither scores nor tiles would hold
        # 1.2 to 1.8 times faster on CPUs, and fewer kernels whose rounding depends on the size.
        self._network = network.eval().folded().to(self.device, self._dtype)
        nn.utils.convert_conv2d_weight_memory_format(self._network, torch.channels_last)
        self._footprint = ActivationMemory(self._network)

    @torch.inference_mode()
    def __call__(self, degraded: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', scale * H, scale * W)."""
        height, width = degraded.shape[-2:]
        with allocation(f"a tile of {width} x {height} px with its halo"):
            degraded = degraded.to(self.device, self._dtype).contiguous(memory_format=torch.channels_last)
            return self._run(degraded).cpu().float()

    @property
    def name(self) -> str:
        return f"torch {self.precision} on {self.device}"

    def working_bytes(self, shape: Shape, *, room: int = 0) -> int:
        """Memory of this machine that a call with (N, C, H, W) takes, at most; on another device, its result's."""
        if self.device.type != "cpu":
            count, channels, height, width = shape
            return 4 * count * height * width * (channels + 3 * self.scale**2)
        with _InCompany():
            return int(OVERHEAD * self._footprint.activation_bytes(shape, room=room / OVERHEAD))

    def fingerprint(self) -> str:
        """Tells one set of weights, and another precision, from another."""
        return fingerprint(self._network.state_dict())

    def _run(self, degraded: Tensor) -> Tensor:
        if self.device.type != "cpu":
            return self._network(degraded)
        with _InCompany():
            return self._network(degraded)


class _InCompany(TorchFunctionMode):
    """Keeps convolutions in oneDNN on the CPU: small features that come alone are given a twin, dropped behind.

    PyTorch's other kernels add in another order, so that a small tile would differ from the whole in the last bit.
    Layer by layer, since that is cheap: of DnCNN on 64 x 64 pixels only the first, which has one channel to read.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (torch.conv2d, torch.conv_transpose2d) and _leaves_onednn(*args[:2]):
            return func(args[0].expand(2, -1, -1, -1), *args[1:], **(kwargs or {}))[:1]
        return func(*args, **(kwargs or {}))


def _leaves_onednn(features: Tensor, weight: Tensor) -> bool:
    is_small = features.numel() <= SMALL_SAMPLES and min(weight.shape[2:]) <= SMALL_KERNEL_PX
    return is_small and len(features) == 1 and features.dtype == torch.float32
