"""How weights are updated: optimizers, gradient clipping, weight averaging and the loss scale of float16.

Recipes hold optimizers as values; the functions here turn them into what PyTorch runs. The whole state of a
training is tensors by name and plain numbers, so a checkpoint needs no pickle.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.recipes.optimizers import SGD, SOAP, Optimizer
from pellucid.training.soap import SoapOptimizer

TensorsByName = dict[str, Tensor]


def build(spec: Optimizer, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a network. Each group has a "factor" on its learning rate, see `set_lr`."""
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


def step(optimizer: torch.optim.Optimizer, is_skipped: Tensor | None = None) -> None:
    """Update the weights.

    is_skipped: on the device; if it is true there, weights and state stay as they are. The CPU does not need to
        know, but `is_initialized` must be true, and `forget_step` must follow before the next step.
    """
    if is_skipped is None:
        optimizer.step()
        return
    # PyTorch's fused optimizers look for these attributes, which its GradScaler sets.
    optimizer.found_inf, optimizer.grad_scale = is_skipped.float(), None  # type: ignore[attr-defined]
    optimizer.step()
    del optimizer.found_inf, optimizer.grad_scale  # type: ignore[attr-defined]


def is_initialized(optimizer: torch.optim.Optimizer) -> bool:
    """Whether all gradients belong to weights that have a state, or do not need one."""
    return all(
        parameter.grad is None or parameter in optimizer.state or group.get("momentum") == 0
        for group in optimizer.param_groups
        for parameter in group["params"]
    )


def forget_step(optimizer: torch.optim.Optimizer) -> None:
    """Count one step less, after one that was skipped on the device: SOAP's are counted by the CPU."""
    if isinstance(optimizer, SoapOptimizer):
        optimizer.forget_step()


def choose(condition: Tensor, if_true: Sequence[Tensor], if_false: Sequence[Tensor]) -> list[Tensor]:
    """`torch.where` for many tensors of one type, in three kernels. Pairs have the same shape and layout."""
    if not if_true:
        return []
    flat_true, flat_false = (torch.cat([_flatten(tensor) for tensor in all]) for all in (if_true, if_false))
    chosen: Tensor = torch.where(condition, flat_true, flat_false)
    parts = chosen.split([tensor.numel() for tensor in if_true])
    return [
        part.as_strided(tensor.shape, tensor.stride(), part.storage_offset())
        for part, tensor in zip(parts, if_true, strict=True)
    ]


def _flatten(tensor: Tensor) -> Tensor:
    """All values in the order of the memory, as a view."""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of each group: lr times the factor of the group."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> TensorsByName:
    """The state of an optimizer, as "PARAMETER/QUANTITY"."""
    names = _parameter_names(optimizer)
    return {
        f"{names[i]}/{quantity}": value
        for i, state in optimizer.state_dict()["state"].items()
        for quantity, value in state.items()
        if value is not None
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the state that `optimizer_tensors` returned."""
    index = {name: i for i, name in enumerate(_parameter_names(optimizer))}
    states: dict[int, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        name, _, quantity = full_name.rpartition("/")
        states.setdefault(index[name], {})[quantity] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, state in optimizer.state.items():
        for quantity, value in state.items():
            # For bit-exact results the layout must be as before: the parameter's memory format, and memory of its
            # own, because matrix products from an unaligned address of a file are summed in another order.
            copy = torch.empty_like(parameter if value.shape == parameter.shape else value)
            state[quantity] = copy.copy_(value)


def _parameter_names(optimizer: torch.optim.Optimizer) -> list[str]:
    return [name for group in optimizer.state_dict()["param_groups"] for name in group["param_names"]]


def clip(parameters: Sequence[Tensor], *, max_norm: float | None, max_tensor_norm: float | None) -> Tensor:
    """Clip the gradients in place: the L2 norm of each tensor, then that of all. Returns the total norm before.

    The norm is not finite if a gradient is not.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    total = norms.norm()
    if max_tensor_norm is not None:
        # All tensors at once. `clip_grad_norm_` for each one gives the same bits, but takes seven times as long
        # (DnCNN on one CPU core: 2.2 ms, not 0.3).
        torch._foreach_mul_(gradients, list((max_tensor_norm / (norms + 1e-6)).clamp(max=1).unbind()))
        norms = norms.clamp(max=max_tensor_norm)
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norms.norm())
    return total


def build_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Scales the loss so that float16 gradients do not vanish; does nothing at other precisions.

    The scale is halved when a gradient overflows, and doubled after 2000 finite steps in a row.
    """
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")


def scaler_metadata(scaler: torch.amp.GradScaler) -> dict[str, Any]:
    """The state of a scaler, by its names in checkpoints."""
    num_clean = scaler.state_dict().get("_growth_tracker", 0)
    return {"scale": scaler.get_scale(), "num_clean": num_clean, "doubles": scaler.is_enabled()}


def load_scaler_metadata(scaler: torch.amp.GradScaler, metadata: Mapping[str, Any]) -> None:
    """Load the state that `scaler_metadata` returned."""
    state = {"scale": metadata["scale"], "_growth_tracker": metadata["num_clean"]}
    scaler.load_state_dict({**scaler.state_dict(), **state})


def average(
    averaged: Mapping[str, Tensor],
    network: nn.Module,
    *,
    decay: float,
    step: int,
    is_skipped: Tensor | None = None,
) -> None:
    """Update an exponential moving average (EMA) of all tensors of a network, in place.

    The decay is at most (step + 1) / (step + 10), so that the random start soon loses its weight.
    is_skipped: as in `step`.
    """
    decay = min(decay, (step + 1) / (step + 10))
    current = network.state_dict()
    floats = [name for name, tensor in averaged.items() if tensor.is_floating_point()]
    means, values = [averaged[name] for name in floats], [current[name] for name in floats]
    if is_skipped is not None:
        values = choose(is_skipped, means, values)
    torch._foreach_lerp_(means, values, 1 - decay)
    for name in averaged.keys() - set(floats):  # counts, which a skipped step has not changed
        averaged[name].copy_(current[name])
