"""One training step: loss -> backward -> clip -> step -> average. A checkpoint contains all of its state.

A step is a deterministic function of the learner, the batch and (seed, step), which also seed dropout. A batch
whose loss or gradient is not finite is skipped: only the loss scale and the counters of skipped batches change.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.recipes.network import Loss, Network
from pellucid.recipes.recipe import Recipe
from pellucid.training import optimization
from pellucid.training.distributed import Group, share_batch_norms
from pellucid.training.optimization import TensorsByName


@dataclass(frozen=True)
class ExecutionMode:
    """How a training is executed. All modes compute the same, except for rounding.

    precision: of the layers (autocast): "float32", "bfloat16" or "float16"; weights and losses stay float32.
    channels_last: memory format. compiled: by torch.compile.
    tf32: whether CUDA may round float32 to a 10-bit mantissa in convolutions.
    graphs: whether the compiled code is replayed as CUDA graphs, because all batches have the same shape.
    """

    precision: str = "float32"
    channels_last: bool = False
    compiled: bool = False
    tf32: bool = False
    graphs: bool = False

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "channels first"
        tf32 = ", TF32" if self.tf32 else ""
        graphs = " with CUDA graphs" if self.graphs else ""
        return f"{self.precision}{tf32}, {layout}, {'compiled' if self.compiled else 'not compiled'}{graphs}"


class Learner:
    """A network with its optimizer, weight average and loss scale; takes training steps.

    network: has the initial weights; it is moved to the device of the group and trained in place.
    """

    def __init__(self, recipe: Recipe, network: Network, mode: ExecutionMode, *, seed: int, group: Group) -> None:
        self.recipe, self.mode, self.device = recipe, mode, group.device
        self._seed, self._group = seed, group
        self.step = 0
        """Number of steps done, including skipped ones."""
        self.num_skipped = 0
        """Number of steps that were skipped because the loss or a gradient was not finite."""
        self.num_skipped_in_a_row = 0
        self._network = network.to(group.device).train()
        if mode.channels_last:
            nn.utils.convert_conv2d_weight_memory_format(self._network, torch.channels_last)
        if group.world_size > 1:
            share_batch_norms(self._network)
        self._parameters = list(self._network.parameters())
        self._buffers = list(self._network.buffers())
        self._optimizer = optimization.build(recipe.optimizer, self._network)
        self._scaler = optimization.build_scaler(mode.precision, group.device)
        self._average = _copy(self._network.state_dict()) if recipe.ema_decay else {}
        self._loss = _prepare(_LossModule(recipe.loss, self._network), mode, group)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.recipe.optimizer.lr * self.recipe.schedule.factor(self.step, self.recipe.num_steps)

    def learn(self, degraded: Tensor, target: Tensor) -> float:
        """Do one step on this process's part of a batch. Returns the loss before it, over all processes."""
        optimization.set_lr(self._optimizer, self.lr)
        torch.manual_seed(dropout_seed(self._seed, self.step, self._group.rank))
        buffers_before = [buffer.clone() for buffer in self._buffers]

        with self._autocast():
            loss = self._loss(*(self._to_layout(planes) for planes in (degraded, target)))
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        norm = optimization.clip(
            self._parameters, max_norm=self.recipe.clip_norm, max_tensor_norm=self.recipe.clip_tensor_norm
        )
        value, finite_fraction = self._group.mean(loss.item(), float(norm.isfinite()))
        if finite_fraction == 1 and math.isfinite(value):
            self._update_weights()
        else:
            self._skip(buffers_before)
        self._scaler.update()
        self.step += 1
        return value

    def _update_weights(self) -> None:
        self._scaler.step(self._optimizer)
        self.num_skipped_in_a_row = 0
        if self._average:
            optimization.average(self._average, self._network, decay=self.recipe.ema_decay, step=self.step)

    @torch.no_grad()
    def _skip(self, buffers_before: list[Tensor]) -> None:
        for buffer, before in zip(self._buffers, buffers_before, strict=True):
            buffer.copy_(before)  # the forward pass has already updated the statistics of batch norm
        self.num_skipped += 1
        self.num_skipped_in_a_row += 1

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        device, precision = self.device.type, self.mode.precision
        if device == "cuda":  # set in each step, because validation turns TF32 off
            torch.backends.cudnn.allow_tf32 = self.mode.tf32
        autocast: AbstractContextManager[Any] = nullcontext()
        if precision != "float32":
            autocast = torch.autocast(device, getattr(torch, precision))
        with autocast:
            yield

    def _to_layout(self, planes: Tensor) -> Tensor:
        return planes.contiguous(memory_format=torch.channels_last) if self.mode.channels_last else planes

    def weights(self) -> TensorsByName:
        """A copy of the resulting weights, on the CPU: the averaged ones if the recipe averages."""
        return _copy(self._average or self._network.state_dict(), device="cpu")

    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        return all(bool(tensor.isfinite().all()) for tensor in self._network.state_dict().values())

    def tensors(self) -> TensorsByName:
        """The tensors of a checkpoint; together with `metadata` and the step, they are enough to resume."""
        return {
            **_add_prefix("network", self._network.state_dict()),
            **_add_prefix("average", self._average),
            **_add_prefix("optimizer", optimization.optimizer_tensors(self._optimizer)),
        }

    def metadata(self) -> dict[str, Any]:
        """The scalars of a checkpoint."""
        return {
            "num_skipped": self.num_skipped,
            "num_skipped_in_a_row": self.num_skipped_in_a_row,
            "loss_scale": optimization.scaler_metadata(self._scaler),
        }

    def load(self, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Resume after `step` steps, from what `tensors` and `metadata` returned then."""
        self._network.load_state_dict(_take_prefix("network", tensors))
        for name, tensor in _take_prefix("average", tensors).items():
            self._average[name].copy_(tensor)
        optimization.load_optimizer_tensors(self._optimizer, _take_prefix("optimizer", tensors))
        self.step = step
        self.num_skipped = metadata["num_skipped"]
        self.num_skipped_in_a_row = metadata["num_skipped_in_a_row"]
        optimization.load_scaler_metadata(self._scaler, metadata["loss_scale"])


class _LossModule(nn.Module):
    """The loss as a module that contains its network, which torch.compile and DistributedDataParallel need."""

    def __init__(self, loss: Loss, network: Network) -> None:
        super().__init__()
        self.loss, self.network = loss, network

    def forward(self, degraded: Tensor, target: Tensor) -> Tensor:
        return self.loss(self.network, degraded, target)


def _prepare(module: nn.Module, mode: ExecutionMode, group: Group) -> nn.Module:
    if mode.compiled:
        module.compile(dynamic=False, mode="reduce-overhead" if mode.graphs else None)
    return group.parallelize(module)


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """A seed for PyTorch's global generator, so that dropout depends on nothing else."""
    digest = blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _copy(tensors: Mapping[str, Tensor], device: str | None = None) -> TensorsByName:
    return {name: tensor.detach().to(device, copy=True) for name, tensor in tensors.items()}


def _add_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> TensorsByName:
    # Contiguous in the file, whatever the memory format here.
    return {f"{prefix}/{name}": tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _take_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> TensorsByName:
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}
