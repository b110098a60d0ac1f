"""One training step: loss -> backward -> clip -> step -> average. A checkpoint contains all of its state.

A step is a deterministic function of the learner, the batch and (seed, step), which also seed dropout. A batch
whose loss or gradient is not finite is skipped: only the loss scale and the counters of skipped batches change.

On a GPU, the CPU does not wait for a step before it starts the next one: the GPU itself skips a batch, and the
loss is read one step later.
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
from pellucid.system import devices, heap
from pellucid.system.devices import Download
from pellucid.training import optimization
from pellucid.training.distributed import Group, share_batch_norms
from pellucid.training.optimization import TensorsByName, choose
from pellucid.training.step_memory import check_memory


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


@dataclass(frozen=True)
class StepResult:
    """What is known after a step."""

    step: int
    """Number of steps done."""
    lr: float
    loss: float
    """Before the step, over all processes; not finite if the batch was skipped."""
    num_skipped: int
    num_skipped_in_a_row: int

    @property
    def is_skipped(self) -> bool:
        return self.num_skipped_in_a_row > 0


@dataclass(frozen=True)
class _PendingStep:
    """A step that the device may not have done yet.

    facts: the loss, and the fraction of processes whose gradients are finite.
    """

    step: int
    lr: float
    facts: Download


class Learner:
    """A network with its optimizer, weight average and loss scale; takes training steps.

    network: has the initial weights; it is moved to the device of the group and trained in place.
    """

    def __init__(self, recipe: Recipe, network: Network, mode: ExecutionMode, *, seed: int, group: Group) -> None:
        self.recipe, self.mode, self.device = recipe, mode, group.device
        self._seed, self._group = seed, group
        self.step = 0
        """Number of steps done or started, including skipped ones."""
        self.num_skipped = 0
        """Number of steps that were skipped because the loss or a gradient was not finite."""
        self.num_skipped_in_a_row = 0
        self._pending: _PendingStep | None = None
        self._is_new = True
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

    def learn(self, degraded: Tensor, target: Tensor) -> list[StepResult]:
        """Do one step on this process's part of a batch, or start it on a GPU.

        Returns the results of the steps that have become known: of this one, or on a GPU of the one before.
        Raises NotEnoughMemoryError if the first step does not fit the memory.
        """
        if self._is_new and self.device.type == "cpu":
            self._check_memory(degraded, target)
        lr = self.lr
        optimization.set_lr(self._optimizer, lr)
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
        facts = self._group.average(torch.stack([loss.detach().float(), norm.isfinite().float()]))
        results = self.settle()  # of the step before, while the device works on this one
        self._pending = _PendingStep(self.step + 1, lr, Download(facts))
        if devices.is_asynchronous(self.device) and optimization.is_initialized(self._optimizer):
            is_skipped = (facts[1] != 1) | ~facts[0].isfinite()
            self._restore_buffers(buffers_before, is_skipped)
            self._update_weights(is_skipped)
        else:
            results.append(self._read_result(self._pending))
            self._pending = None
            if results[-1].is_skipped:
                self._restore_buffers(buffers_before)
            else:
                self._update_weights()
        self._scaler.update()
        self.step += 1
        self._reuse_memory()
        return results

    def _check_memory(self, degraded: Tensor, target: Tensor) -> None:
        """Only in a single process: the batch norms of several would wait for each other."""
        if self._group.world_size == 1:
            is_half = self.mode.precision != "float32"
            check_memory(self.recipe.loss, self._network, degraded, target, is_half=is_half)

    def _reuse_memory(self) -> None:
        """On a CPU, keep the memory of the activations for the next step."""
        if self.device.type != "cpu":
            return
        if self._is_new:  # what a step takes is known only after the first
            heap.keep_freed(self._group.world_size)
            self._is_new = False
        heap.limit_kept()

    def settle(self) -> list[StepResult]:
        """Wait for the step whose result is not known yet, if there is one; returns its result."""
        if self._pending is None:
            return []
        result, self._pending = self._read_result(self._pending), None
        if result.is_skipped:
            optimization.forget_step(self._optimizer)
        return [result]

    def _read_result(self, pending: _PendingStep) -> StepResult:
        loss, finite_fraction = pending.facts.wait().tolist()
        is_skipped = finite_fraction != 1 or not math.isfinite(loss)
        self.num_skipped += is_skipped
        self.num_skipped_in_a_row = self.num_skipped_in_a_row + 1 if is_skipped else 0
        return StepResult(pending.step, pending.lr, loss, self.num_skipped, self.num_skipped_in_a_row)

    def _update_weights(self, is_skipped: Tensor | None = None) -> None:
        optimization.step(self._optimizer, is_skipped)
        if self._average:
            optimization.average(
                self._average,
                self._network,
                decay=self.recipe.ema_decay,
                step=self.step,
                is_skipped=is_skipped,
            )

    @torch.no_grad()
    def _restore_buffers(self, before: list[Tensor], is_skipped: Tensor | None = None) -> None:
        """Undo what the forward pass has done to the statistics of batch norm, if the step is skipped."""
        for dtype in {buffer.dtype for buffer in self._buffers}:
            old, buffers = ([b for b in some if b.dtype == dtype] for some in (before, self._buffers))
            torch._foreach_copy_(buffers, old if is_skipped is None else choose(is_skipped, old, buffers))

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
        """The scalars of a checkpoint. There must be no step whose result is not known, see `settle`."""
        assert self._pending is None
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
