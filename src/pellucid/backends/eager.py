"""Runs a network with PyTorch in eager mode, on any device that PyTorch supports."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pellucid.backends.activation_memory import ActivationMemory
from pellucid.backends.backend import Shape, allocation, find_device
from pellucid.backends.fixed_shape import FixedShape
from pellucid.errors import PellucidError
from pellucid.recipes.network import Network
from pellucid.weights.checkpoint import fingerprint

# On CPUs, PyTorch does not use oneDNN for a float32 batch of one with up to 20480 samples and kernels up to 3 x 3.
SMALL_SAMPLES, SMALL_KERNEL_PX = 20480, 3

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions in which PyTorch computes."""


class TorchBackend:
    """PyTorch as a `Backend`. The network may be converted in place.

    device: "auto" for the accelerator if there is one, otherwise the CPU; or a name, e.g. "cpu" or "cuda:1".
    precision: of the layers, one of DTYPES.

    Raises PellucidError for another precision, and for a device that cannot be used.
    """

    def __init__(self, network: Network, device: str = "auto", *, precision: str = "float32") -> None:
        if precision not in DTYPES:
            raise PellucidError(f"torch computes in {', '.join(DTYPES)}; {precision} is only for exported files")
        self.scale, self.multiple, self.halo = network.scale, network.multiple, network.halo
        self.fixed_shape: FixedShape | None = None
        self.precision, self._dtype = precision, DTYPES[precision]
        self.device = find_device(device)
        self.frees_activations = self.device.type == "cpu"
        if self.device.type == "cuda":
            # TF32 has a mantissa of 10 bits: scores would change, and tiles would differ from the whole picture.
            torch.backends.cudnn.allow_tf32 = False
        # Folded and channels last: 1.2 to 1.8 times faster on CPUs, with fewer size-dependent kernels.
        self._network = network.eval().optimize_for_inference().to(self.device, self._dtype)
        nn.utils.convert_conv2d_weight_memory_format(self._network, torch.channels_last)
        self._memory = ActivationMemory(self._network)

    @property
    def network(self) -> Network:
        """The network as it runs: optimized for inference, on its device and in its precision."""
        return self._network

    @torch.inference_mode()
    def __call__(self, degraded: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', scale * H, scale * W)."""
        height, width = degraded.shape[-2:]
        with allocation(f"a tile of {width} x {height} px with its halo"):
            degraded = degraded.to(self.device, self._dtype).contiguous(memory_format=torch.channels_last)
            return self._run(degraded).float()

    @property
    def note(self) -> None:
        """PyTorch computes in every precision that it accepts."""
        return None

    @property
    def name(self) -> str:
        return f"torch {self.precision} on {self.device}"

    def working_bytes(self, shape: Shape, *, available_bytes: int = 0) -> int:
        """An upper bound of the main memory for a call; on another device, only the input and the output."""
        if self.device.type != "cpu":
            count, channels, height, width = shape
            return 4 * count * height * width * (channels + 3 * self.scale**2)
        with force_onednn():
            return self._memory.working_bytes(shape, available_bytes=available_bytes)

    def device_bytes(self, shape: Shape, *, available_bytes: int = 0) -> int:
        """An upper bound of the device's own memory for a call; 0 for the CPU."""
        if self.device.type == "cpu":
            return 0
        return self._memory.working_bytes(shape, available_bytes=available_bytes)

    def fingerprint(self) -> str:
        """Differs if the weights or the precision differ."""
        return fingerprint(self._network.state_dict())

    def _run(self, degraded: Tensor) -> Tensor:
        if self.device.type != "cpu":
            return self._network(degraded)
        with force_onednn():
            return self._network(degraded)


def force_onednn() -> AbstractContextManager[object]:
    """Run all convolutions inside with oneDNN, and none with a kernel that reads memory that nobody wrote.

    PyTorch's other kernels sum in another order, so the last bits of a small tile would differ.
    """
    return _ReliableConvolutions()


class _ReliableConvolutions(TorchFunctionMode):
    """Changes what two kinds of convolutions compute with, and drops what that adds to the result.

    A small batch of one, which PyTorch would not give to oneDNN, is repeated. This is decided layer by layer,
    which is cheap: in DnCNN on 64 x 64 pixels, only the first layer, with one input channel, runs twice.

    In half precision, a result of a single column gets a second one where the stride leaves columns over: oneDNN's
    kernel for AMX reads beyond the picture there, and multiplies what it finds, even NaN, by zero.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and _reads_beyond(*args):
            return func(F.pad(args[0], (0, args[3][1])), *args[1:], **(kwargs or {}))[..., :1]
        if func in (torch.conv2d, torch.conv_transpose2d) and _avoids_onednn(*args[:2]):
            return func(args[0].expand(2, -1, -1, -1), *args[1:], **(kwargs or {}))[:1]
        return func(*args, **(kwargs or {}))


def _avoids_onednn(features: Tensor, weight: Tensor) -> bool:
    is_small = features.numel() <= SMALL_SAMPLES and min(weight.shape[2:]) <= SMALL_KERNEL_PX
    return is_small and len(features) == 1 and features.dtype == torch.float32


def _reads_beyond(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: str | Sequence[int],
    *_: object,
) -> bool:
    if features.dtype == torch.float32 or stride[1] == 1 or isinstance(padding, str):
        return False
    return features.shape[-1] + 2 * padding[1] - weight.shape[-1] < stride[1]
