"""Many processes, one training: each takes its share of every batch, and all take the same step.

`torchrun --nproc-per-node 8 -m pellucid train ...` starts them; gradients are averaged by
DistributedDataParallel, over gloo on CPUs and what PyTorch names for the device elsewhere.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pellucid.backends.backend import find_device
from pellucid.errors import PellucidError

T = TypeVar("T")
PATIENCE = timedelta(hours=2)
"""How long processes wait for one that validates."""


@dataclass(frozen=True)
class Group:
    """The processes of a training, seen from one of them."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """The first process alone writes, validates and prints."""
        return self.rank == 0

    def mean(self, *values: float) -> list[float]:
        """The mean over all processes, of each value."""
        if self.world_size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(shared)
        return cast(list[float], (shared / self.world_size).tolist())

    def any(self, value: bool) -> bool:
        """Whether it is so in any process."""
        return self.mean(float(value))[0] > 0

    def from_first(self, value: T) -> T:
        """The first process's value."""
        if self.world_size == 1:
            return value
        shared: list[Any] = [value]
        dist.broadcast_object_list(shared, src=0, device=self.device)
        return cast(T, shared[0])

    def wait(self) -> None:
        """Until all processes are here."""
        self.mean(0.0)

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module with gradients that are means over all processes."""
        if self.world_size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)


@contextmanager
def join_group(device: str) -> Iterator[Group]:
    """Join the processes that torchrun started, or be alone."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Group(find_device(device))
        return
    found = _of_this_process(find_device(device))
    if found.type != "cpu":
        torch.accelerator.set_device_index(found.index or 0)
    dist.init_process_group(dist.get_default_backend_for_device(found), timeout=PATIENCE)
    # gloo's destructor joins its threads while it holds Python's lock, for which a thread that still lets go of
    # the last gradients waits forever. Asleep, this one leaves the lock to it.
    rest_s = 0.2
    try:
        yield Group(found, dist.get_rank(), world_size)
    except PellucidError:
        rest_s = 0.0  # torchrun soon ends those that are left, and the reason is to be read first
        raise
    finally:
        time.sleep(rest_s)
        dist.destroy_process_group()


@contextmanager
def name_lost_processes(group: Group) -> Iterator[None]:
    """What PyTorch raises when another process is gone, as one line."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or "connection" in str(error).lower()
        if group.world_size == 1 or not lost:
            raise
        raise PellucidError(
            "another process of this training has ended; the same command goes on from the last checkpoint"
        ) from error


def _of_this_process(device: torch.device) -> torch.device:
    """Each process of a machine has an accelerator of its own."""
    if device.type == "cpu" or ":" in str(device):
        return device
    return torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the shares of all processes, so that their number changes nothing; on any device.

    Shares are of equal size. Eval mode is that of torch.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        mean = _mean_of_all(input.float().mean((0, 2, 3)))
        centered = input - mean.reshape(1, -1, 1, 1)
        variance = _mean_of_all(centered.float().square().mean((0, 2, 3)))
        self._remember(mean.detach(), variance.detach(), input.numel() // input.shape[1] * dist.get_world_size())
        gain = self.weight * (variance + self.eps).rsqrt()
        return (centered * gain.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)).to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / max(1, count - 1), self.momentum)


def share_batch_norms(network: nn.Module) -> None:
    """Replace each batch norm by one over all processes, with the same parameters and names."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
                shared.weight, shared.bias = child.weight, child.bias
                shared.running_mean, shared.running_var = child.running_mean, child.running_var
                shared.num_batches_tracked = child.num_batches_tracked
                setattr(parent, name, shared)


class _Sum(torch.autograd.Function):
    """Over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].clone()
        dist.all_reduce(summed)
        return summed


def _mean_of_all(values: Tensor) -> Tensor:
    summed: Callable[[Tensor], Tensor] = _Sum.apply
    return summed(values) / dist.get_world_size()
