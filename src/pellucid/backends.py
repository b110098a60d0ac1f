"""What runs a network: PyTorch, on any device it knows."""

import warnings

import torch
from torch import Tensor, nn

from pellucid.errors import PellucidError
from pellucid.recipe import Network

# PyTorch leaves oneDNN for feature maps of up to 20480 samples when they come alone, and its other kernels add
# in another order: a small tile would differ from the whole in the last bit. Two at once stay with oneDNN. The
# smallest features of our networks hold a sample for every five pixels read, or more.
SMALL_PX = 2**17


class TorchBackend:
    """A network on a device, called with tensors on the CPU and answering on the CPU.

    device: "auto" is the accelerator PyTorch finds, else the CPU; or a name such as "cpu" or "cuda:1".
    """

    def __init__(self, network: Network, device: str = "auto") -> None:
        self.scale, self.multiple, self.halo = network.scale, network.multiple, network.halo
        self.device = find_device(device)
        if self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # ten bits of mantissa: neither scores nor tiles would hold
        # 1.2 to 1.8 times faster on CPUs, and fewer kernels whose rounding depends on the size.
        self._network = network.eval().folded().to(self.device)
        nn.utils.convert_conv2d_weight_memory_format(self._network, torch.channels_last)

    @torch.inference_mode()
    def __call__(self, degraded: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', scale * H, scale * W)."""
        try:
            return self._run(degraded.to(self.device).contiguous(memory_format=torch.channels_last)).cpu()
        except RuntimeError as error:  # what torch raises on every device, of no class of its own on CPUs
            if "memory" not in str(error):
                raise
            height, width = degraded.shape[-2:]
            raise PellucidError(
                f"not enough memory for a tile of {width} x {height} px with its halo; take smaller tiles"
            ) from error

    def _run(self, degraded: Tensor) -> Tensor:
        height, width = degraded.shape[-2:]
        if len(degraded) == 1 and height * width <= SMALL_PX and self.device.type == "cpu":
            return self._network(degraded.expand(2, -1, -1, -1))[:1]
        return self._network(degraded)


def find_device(name: str) -> torch.device:
    """The device of this name, or for "auto" the best there is. Raises PellucidError where it cannot be used."""
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        with warnings.catch_warnings(action="ignore"):  # of device types on their way out
            device = torch.device(name)
            torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        best = torch.accelerator.current_accelerator(check_available=True)
        available = "cpu" if best is None else f"cpu, {best}"
        raise PellucidError(f"device {name!r} cannot be used here; available: {available}") from error
    if device.type == "meta":
        raise PellucidError("device 'meta' computes nothing; use cpu or auto")
    return device
