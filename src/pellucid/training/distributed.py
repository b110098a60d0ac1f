"""Training with several processes: each computes its part of every batch, and all take the same step.

`torchrun --nproc-per-node 8 -m pellucid train ...` starts them. DistributedDataParallel averages the gradients,
over gloo on CPUs and PyTorch's default backend on other devices.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from threading import Timer
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pellucid.backends.backend import find_device
from pellucid.errors import PellucidError

T = TypeVar("T")
TIMEOUT = timedelta(hours=2)
"""How long processes wait for the first one, which may be validating."""
PATIENCE_S = 10.0
"""After this time, a process that waits for the others reports it."""


@dataclass(frozen=True)
class Group:
    """The processes of a training, as one of them sees it."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the first process, the only one that writes, validates and prints."""
        return self.rank == 0

    def mean(self, *values: float) -> list[float]:
        """The mean of each value over all processes."""
        if self.world_size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        return cast(list[float], self.average(shared).tolist())

    def average(self, values: Tensor) -> Tensor:
        """The mean of each value over all processes, on their device; does not wait for it."""
        if self.world_size == 1:
            return values
        shared = values.double()
        dist.all_reduce(shared)
        return shared / self.world_size

    def any(self, value: bool) -> bool:
        """Whether the value is true in any process."""
        return self.mean(float(value))[0] > 0

    def broadcast(self, value: T) -> T:
        """The value of the first process."""
        if self.world_size == 1:
            return value
        shared: list[Any] = [value]
        dist.broadcast_object_list(shared, src=0, device=self.device)
        return cast(T, shared[0])

    def wait(self) -> None:
        """Wait until all processes call this."""
        self.mean(0.0)

    def parallelize(self, module: nn.Module) -> nn.Module:
        """The module, with gradients averaged over all processes."""
        if self.world_size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, **_NO_SYNC)


# The second is the name before PyTorch 2.13.
_NAMES_OF_SYNC = "forward_sync_buffers", "broadcast_buffers"
_PARAMETERS = signature(nn.parallel.DistributedDataParallel).parameters
_NO_SYNC: dict[str, Any] = {name: False for name in [name for name in _NAMES_OF_SYNC if name in _PARAMETERS][:1]}
"""Buffers, e.g. the statistics of batch norm, are the same in all processes anyway."""


@contextmanager
def join_group(device: str, log: Callable[[str], object] = lambda _: None) -> Iterator[Group]:
    """Join the processes that torchrun started; without torchrun, a group of one.

    device: "auto", "cpu", "cuda", ...; each process of a machine takes an accelerator of its own.
    log: called with one line if the other processes have not started after `PATIENCE_S`.
    Raises PellucidError if the environment variables of torchrun are not complete, or no group can be made.
    """
    world_size = _read_world_size()
    if world_size == 1:
        yield Group(find_device(device))
        return
    own_device = _own_device(find_device(device))
    if own_device.type != "cpu":
        torch.accelerator.set_device_index(own_device.index or 0)
    try:
        with _explain_wait(world_size, log):
            dist.init_process_group(dist.get_default_backend_for_device(own_device), timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise PellucidError(f"the {world_size} processes of this training cannot connect: {reason}") from error
    # gloo's destructor joins its threads while it holds the GIL, and a thread that is still freeing the last
    # gradients would wait for the GIL forever. Sleeping releases the GIL, so that thread can finish.
    delay_s = 0.2
    try:
        yield Group(own_device, dist.get_rank(), world_size)
    except PellucidError:
        delay_s = 0.0  # torchrun soon ends the remaining processes; the error must be printed before
        raise
    finally:
        time.sleep(delay_s)
        dist.destroy_process_group()


@contextmanager
def _explain_wait(world_size: int, log: Callable[[str], object]) -> Iterator[None]:
    address = ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))
    text = f"waiting for the {world_size} processes of this training at {address}"
    timer = Timer(PATIENCE_S, log, [text])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _read_world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    if "WORLD_SIZE" not in os.environ:
        return 1
    hint = "start it with torchrun, or unset WORLD_SIZE"
    numbers = {name: os.environ.get(name, "0") for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT")}
    for name, value in numbers.items():
        if not re.fullmatch(r"\d{1,9}", value, re.ASCII):
            raise PellucidError(f"the environment variable {name} is {value[:40]!r}, not a number", hint=hint)
    world_size = int(numbers["WORLD_SIZE"])
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if world_size > 1 and missing:
        raise PellucidError(f"WORLD_SIZE is {world_size}, but {missing[0]} is not set", hint=hint)
    if world_size > 1 and int(numbers["RANK"]) >= world_size:  # PyTorch would wait for half an hour
        raise PellucidError(f"RANK is {numbers['RANK']}, but WORLD_SIZE is {world_size}", hint=hint)
    return max(1, world_size)


@contextmanager
def explain_lost_processes(group: Group) -> Iterator[None]:
    """Turn the errors that PyTorch raises when another process has ended into a PellucidError."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or "connection" in str(error).lower()
        if group.world_size == 1 or not lost:
            raise
        raise PellucidError(
            "another process of this training has ended", hint="run it again to resume from the last checkpoint"
        ) from error


def _own_device(device: torch.device) -> torch.device:
    if device.type == "cpu" or ":" in str(device):
        return device
    return torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the whole batch of all processes, so that their number does not matter; on any device.

    (torch.nn.SyncBatchNorm runs on GPUs only.) All processes have parts of the same size. Eval mode is unchanged.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        mean = _mean_over_processes(input.float().mean((0, 2, 3)))
        centered = input - mean.reshape(1, -1, 1, 1)
        variance = _mean_over_processes(centered.float().square().mean((0, 2, 3)))
        self._update_statistics(
            mean.detach(), variance.detach(), input.numel() // input.shape[1] * dist.get_world_size()
        )
        gain = self.weight * (variance + self.eps).rsqrt()
        return (centered * gain.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)).to(input.dtype)

    def _update_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / max(1, count - 1), self.momentum)


def share_batch_norms(network: nn.Module) -> None:
    """Replace each batch norm by a SharedBatchNorm2d with the same parameters, buffers and names."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
                shared.weight, shared.bias = child.weight, child.bias
                shared.running_mean, shared.running_var = child.running_mean, child.running_var
                shared.num_batches_tracked = child.num_batches_tracked
                setattr(parent, name, shared)


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of the gradients."""

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


def _mean_over_processes(values: Tensor) -> Tensor:
    summed: Callable[[Tensor], Tensor] = _Sum.apply
    return summed(values) / dist.get_world_size()
