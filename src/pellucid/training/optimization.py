"""How weights are stepped: optimizers and schedules as values, clipping, averaging, loss scaling.

Values stand in recipes; the functions below them turn a value into what PyTorch runs. All state of a training
is tensors by name and plain numbers, so that a checkpoint needs no pickle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.recipes.optimizers import SGD, SOAP, Optimizer
from pellucid.training.soap import SoapOptimizer

TensorsByName = dict[str, Tensor]


def build(spec: Optimizer, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a network; each group's "factor" is that of its learning rate."""
    prefix, factor = spec.slower or ("", 1.0)
    usual = [item for item in network.named_parameters() if spec.slower is None or not item[0].startswith(prefix)]
    slower = [item for item in network.named_parameters() if spec.slower and item[0].startswith(prefix)]
    groups: list[dict[str, Any]] = [{"params": usual, "factor": 1.0}, {"params": slower, "factor": factor}]
    groups = [group for group in groups if group["params"]]
    if isinstance(spec, SOAP):
        return SoapOptimizer(groups, spec.lr, spec.betas, spec.eps, spec.weight_decay, spec.precondition_frequency)
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
