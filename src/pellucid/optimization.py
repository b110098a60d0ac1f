"""How weights are stepped: optimizers and schedules as values, clipping, averaging, loss scaling.

Values stand in recipes; the functions below them turn a value into what PyTorch runs. All state of a training
is tensors by name and plain numbers, so that a checkpoint needs no pickle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi
from typing import Any, cast

import torch
from torch import Tensor, nn

from pellucid.soap import SoapOptimizer

TensorsByName = dict[str, Tensor]


@dataclass(frozen=True)
class Adam:
    """Adam. `slower` names a layer (a prefix of its parameters) and the factor on its learning rate.

    weight_decay: apart from the gradient, as in AdamW.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    slower: tuple[str, float] | None = None


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum. `slower` as with Adam."""

    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    slower: tuple[str, float] | None = None


@dataclass(frozen=True)
class SOAP:
    """Adam in the axes along which a layer's gradients vary, made anew every `basis_steps`; see `soap`."""

    lr: float
    betas: tuple[float, float] = (0.95, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    basis_steps: int = 25
    slower: tuple[str, float] | None = None


@dataclass(frozen=True)
class Constant:
    """The learning rate stays."""

    def factor(self, step: int, num_steps: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Drops:
    """The learning rate is multiplied by `gamma` at each of these steps; several gammas are one a step."""

    at_steps: tuple[int, ...]
    gamma: float | tuple[float, ...]

    def factor(self, step: int, num_steps: int) -> float:
        gammas = self.gamma if isinstance(self.gamma, tuple) else (self.gamma,) * len(self.at_steps)
        factor = 1.0
        for at_step, gamma in zip(self.at_steps, gammas, strict=True):
            factor *= gamma if step >= at_step else 1
        return factor


@dataclass(frozen=True)
class Exponential:
    """The learning rate falls evenly on a logarithmic scale, to `last` times what it was."""

    last: float

    def factor(self, step: int, num_steps: int) -> float:
        return cast(float, self.last ** (step / max(1, num_steps - 1)))


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine down to zero."""

    warmup_steps: int = 0

    def factor(self, step: int, num_steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return 0.5 + 0.5 * cos(pi * (step - self.warmup_steps) / max(1, num_steps - self.warmup_steps))


@dataclass(frozen=True)
class Warmup:
    """A linear rise over the first steps of another schedule."""

    warmup_steps: int
    then: Constant | Drops | Exponential | Cosine

    def factor(self, step: int, num_steps: int) -> float:
        return min(1.0, (step + 1) / max(1, self.warmup_steps)) * self.then.factor(step, num_steps)


Optimizer = Adam | SGD | SOAP
Schedule = Constant | Drops | Exponential | Cosine | Warmup


def build(spec: Optimizer, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a network; each group's "factor" is that of its learning rate."""
    prefix, factor = spec.slower or ("", 1.0)
    usual = [item for item in network.named_parameters() if spec.slower is None or not item[0].startswith(prefix)]
    slower = [item for item in network.named_parameters() if spec.slower and item[0].startswith(prefix)]
    groups: list[dict[str, Any]] = [{"params": usual, "factor": 1.0}, {"params": slower, "factor": factor}]
    groups = [group for group in groups if group["params"]]
    if isinstance(spec, SOAP):
        return SoapOptimizer(groups, spec.lr, spec.betas, spec.eps, spec.weight_decay, spec.basis_steps)
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in network.parameters())
    if isinstance(spec, SGD):
        return torch.optim.SGD(
            groups, spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=fused or None
        )
    return torch.optim.AdamW(
        groups, spec.lr, spec.betas, spec.eps, weight_decay=spec.weight_decay, fused=fused or None
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> TensorsByName:
    """What an optimizer remembers, as "PARAMETER/QUANTITY"."""
    names = _parameter_names(optimizer)
    return {
        f"{names[i]}/{quantity}": value
        for i, remembered in optimizer.state_dict()["state"].items()
        for quantity, value in remembered.items()
        if value is not None
    }


def set_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    index = {name: i for i, name in enumerate(_parameter_names(optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        name, _, quantity = full_name.rpartition("/")
        state.setdefault(index[name], {})[quantity] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, remembered in optimizer.state.items():
        for quantity, value in remembered.items():
            # As it was, or the last bits would differ: in the parameter's memory format, and in memory of its own,
            # since products of matrices that begin at an odd address of a file are summed in another order.
            place = torch.empty_like(parameter if value.shape == parameter.shape else value)
            remembered[quantity] = place.copy_(value)


def _parameter_names(optimizer: torch.optim.Optimizer) -> list[str]:
    return [name for group in optimizer.state_dict()["param_groups"] for name in group["param_names"]]


def clip(gradients: list[Tensor], *, max_norm: float | None, max_norm_each: float | None) -> Tensor:
    """Clip gradients in place, each tensor's L2 norm first, then that of all. Returns the norm before.

    A norm that is not finite says that a gradient is not.
    """
    norms = torch.stack(torch._foreach_norm(gradients))
    total = norms.norm()
    if max_norm_each is not None:
        factors = (max_norm_each / (norms + 1e-6)).clamp(max=1)
        torch._foreach_mul_(gradients, list(factors.unbind()))
    if max_norm is not None:
        clipped = norms if max_norm_each is None else norms.clamp(max=max_norm_each)
        torch._foreach_mul_(gradients, (max_norm / (clipped.norm() + 1e-6)).clamp(max=1))
    return total


@dataclass
class LossScale:
    """Keeps float16 gradients from vanishing: halved when one overflows, doubled after 2000 clean steps."""

    scale: float = 1.0
    num_clean: int = 0
    doubles: bool = False

    @classmethod
    def of(cls, precision: str) -> "LossScale":
        return cls(2.0**16, doubles=True) if precision == "float16" else cls()

    def unscale(self, gradients: list[Tensor]) -> None:
        if self.scale != 1:
            torch._foreach_mul_(gradients, 1 / self.scale)

    def passed(self) -> None:
        self.num_clean += 1
        if self.doubles and self.num_clean == 2000:
            self.scale, self.num_clean = 2 * self.scale, 0

    def overflowed(self) -> None:
        if self.doubles:
            self.scale, self.num_clean = self.scale / 2, 0


def average(averaged: Mapping[str, Tensor], network: nn.Module, *, decay: float, step: int) -> None:
    """Move an exponential moving average of all of a network's tensors, in place.

    The first steps count for more, (step + 1) / (step + 10), so that the random start is soon forgotten.
    """
    decay = min(decay, (step + 1) / (step + 10))
    current = network.state_dict()
    floats = [name for name, tensor in averaged.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([averaged[name] for name in floats], [current[name] for name in floats], 1 - decay)
    for name in averaged.keys() - set(floats):
        averaged[name].copy_(current[name])
