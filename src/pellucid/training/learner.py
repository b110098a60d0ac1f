"""One step of training: loss -> backward -> clip -> step -> average. All that a checkpoint must hold is here.

A step is a function of the learner, the batch and (seed, step): dropout is drawn from these too. A batch whose
loss or gradient is not finite changes nothing but the count of such batches, and the loss scale.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.recipes.network import Loss, Network
from pellucid.recipes.recipe import Recipe
from pellucid.training import optimization
from pellucid.training.distributed import Group, share_batch_norms
from pellucid.training.optimization import LossScale, TensorsByName


@dataclass(frozen=True)
class ExecutionMode:
    """How the same mathematics is run. precision: of the layers; weights and losses stay float32.

    tf32: whether CUDA may round float32 to ten bits of mantissa in convolutions.
    graphs: of what is compiled, whether CUDA replays a recorded graph of kernels, as every batch has one shape.
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
    """A network in training, with its optimizer, its average and its loss scale."""

    def __init__(
        self, recipe: Recipe, network: Network, choice: ExecutionMode, *, seed: int, group: Group
    ) -> None:
        self.recipe, self.choice, self.device = recipe, choice, group.device
        self._seed, self._group = seed, group
        self.step = 0
        """How many steps are done."""
        self.num_skipped = 0
        """How many of them changed nothing, as their numbers were not finite."""
        self.num_skipped_in_a_row = 0
        self._network = network.to(group.device).train()
        if choice.channels_last:
            nn.utils.convert_conv2d_weight_memory_format(self._network, torch.channels_last)
        if group.world_size > 1:
            share_batch_norms(self._network)
        self._parameters = list(self._network.parameters())
        self._buffers = list(self._network.buffers())
        self._optimizer = optimization.build(recipe.optimizer, self._network)
        self._scale = LossScale.of(choice.precision)
        self._average = _copied(self._network.state_dict()) if recipe.ema_decay else {}
        self._loss = _runnable(_LossOf(recipe.loss, self._network), choice, group)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.recipe.optimizer.lr * self.recipe.schedule.factor(self.step, self.recipe.num_steps)

    def learn(self, degraded: Tensor, target: Tensor) -> float:
        """Take one step; returns the loss before it."""
        optimization.set_lr(self._optimizer, self.lr)
        torch.manual_seed(chance_of(self._seed, self.step, self._group.rank))
        before = [buffer.clone() for buffer in self._buffers]

        with self._arithmetic():
            loss = self._loss(*(self._laid_out(planes) for planes in (degraded, target)))
        self._optimizer.zero_grad()
        (loss * self._scale.scale).backward()
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        self._scale.unscale(gradients)
        norm = optimization.clip(
            gradients, max_norm=self.recipe.clip_norm, max_norm_each=self.recipe.clip_tensor_norm
        )
        value, finite = self._group.mean(loss.item(), float(norm.isfinite()))
        if finite == 1 and math.isfinite(value):
            self._accept()
        else:
            self._refuse(before)
        self.step += 1
        return value

    def _accept(self) -> None:
        self._optimizer.step()
        self._scale.passed()
        self.num_skipped_in_a_row = 0
        if self._average:
            optimization.average(self._average, self._network, decay=self.recipe.ema_decay, step=self.step)

    @torch.no_grad()
    def _refuse(self, buffers: list[Tensor]) -> None:
        for buffer, before in zip(self._buffers, buffers, strict=True):
            buffer.copy_(before)  # batch norm has already taken in what it saw
        self._scale.overflowed()
        self.num_skipped += 1
        self.num_skipped_in_a_row += 1

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        device, precision = self.device.type, self.choice.precision
        if device == "cuda":  # each time, as restoring in between forbids it
            torch.backends.cudnn.allow_tf32 = self.choice.tf32
        lower: AbstractContextManager[Any] = nullcontext()
        if precision != "float32":
            lower = torch.autocast(device, getattr(torch, precision))
        with lower:
            yield

    def _laid_out(self, planes: Tensor) -> Tensor:
        return planes.contiguous(memory_format=torch.channels_last) if self.choice.channels_last else planes

    def weights(self) -> TensorsByName:
        """A copy of the weights to use: the averaged ones, where the recipe averages."""
        return _copied(self._average or self._network.state_dict(), device="cpu")

    def is_finite(self) -> bool:
        """Whether all weights are."""
        return all(bool(tensor.isfinite().all()) for tensor in self._network.state_dict().values())

    def tensors(self) -> TensorsByName:
        """All that goes on from here, apart from `facts`."""
        return {
            **_prefixed("network", self._network.state_dict()),
            **_prefixed("average", self._average),
            **_prefixed("optimizer", optimization.optimizer_tensors(self._optimizer)),
        }

    def facts(self) -> dict[str, Any]:
        return {
            "num_skipped": self.num_skipped,
            "num_skipped_in_a_row": self.num_skipped_in_a_row,
            "loss_scale": asdict(self._scale),
        }

    def go_on_from(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Become what `tensors` and `facts` were after so many steps."""
        self._network.load_state_dict(_below("network", tensors))
        for name, tensor in _below("average", tensors).items():
            self._average[name].copy_(tensor)
        optimization.set_optimizer_tensors(self._optimizer, _below("optimizer", tensors))
        self.step = step
        self.num_skipped, self.num_skipped_in_a_row = facts["num_skipped"], facts["num_skipped_in_a_row"]
        self._scale = LossScale(**facts["loss_scale"])


class _LossOf(nn.Module):
    """The loss as a module that holds its network, as compiling and DistributedDataParallel want it."""

    def __init__(self, loss: Loss, network: Network) -> None:
        super().__init__()
        self.loss, self.network = loss, network

    def forward(self, degraded: Tensor, target: Tensor) -> Tensor:
        return self.loss(self.network, degraded, target)


def _runnable(module: nn.Module, choice: ExecutionMode, group: Group) -> nn.Module:
    if choice.compiled:
        module.compile(dynamic=False, mode="reduce-overhead" if choice.graphs else None)
    return group.parallel(module)


def chance_of(seed: int, step: int, rank: int) -> int:
    """A seed for PyTorch's generators, so that dropout depends on nothing else."""
    digest = blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _copied(tensors: Mapping[str, Tensor], device: str | None = None) -> TensorsByName:
    return {name: tensor.detach().to(device, copy=True) for name, tensor in tensors.items()}


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> TensorsByName:
    # Row by row in the file, whatever the memory format here.
    return {f"{prefix}/{name}": tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> TensorsByName:
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}
