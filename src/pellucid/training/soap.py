"""SOAP: Adam in the axes along which a layer's gradients vary.

Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024, arXiv:2409.11321, Algorithm 3.
Neighbouring pixels are alike, so that the inputs of a convolution lie nearly along a few directions; Adam, which
scales each weight by itself, walks slowly there.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

MAX_AXES = 2048
"""A side of a weight matrix that is longer is left as it is: its basis would cost more than it gives."""
FIRST_TURNS = 3
"""Of power iteration, from the axes of the weights themselves: LAPACK's eigenvectors of a single gradient, which
is of low rank, may not converge."""
DAMPING = 1e-3
"""Against the longest axis; what is shorter stays where it is."""


class SoapOptimizer(torch.optim.Optimizer):
    """Steps weights of two axes and more, as matrices of their first axis by all others, by SOAP; others by Adam.

    betas: how long it remembers the gradient, and its square and products. weight_decay: apart from the gradient.
    precondition_frequency: how often the axes are made anew. The first step only looks.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        precondition_frequency: int,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_frequency": precondition_frequency,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # nothing to return
        assert closure is None, "the loss is looked at once a step"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, group)

    def _step_one(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = _matrix(parameter.grad)
        state = self.state[parameter]
        if not state:
            state |= {
                "step": torch.zeros(()),
                "mean": torch.zeros_like(gradient),
                "square": torch.zeros_like(gradient),
                **_axes_of(gradient, parameter.ndim),
            }
            return
        beta_mean, beta_square = group["betas"]
        state["step"] += 1
        step = int(state["step"])
        turned = _turn(gradient, state)
        state["mean"].lerp_(gradient, 1 - beta_mean)
        state["square"].lerp_(turned.square(), 1 - beta_square)
        deviation = (state["square"] / (1 - beta_square**step)).sqrt() + group["eps"]
        scaled = _turn(state["mean"], state) / (1 - beta_mean**step) / deviation
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(group["lr"] * _turn_back(scaled, state).reshape(parameter.shape))
        _remember_products(gradient, state, 1 - beta_square)
        if step % group["precondition_frequency"] == 0:
            _turn_axes(state)


def _matrix(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient.reshape(len(gradient), -1).contiguous() if gradient.ndim else gradient.reshape(1, 1)


def _axes_of(gradient: Tensor, num_axes: int) -> dict[str, Tensor]:
    """Products of gradients over each side of the matrix, and nearly their eigenvectors, columns of a basis."""
    made: dict[str, Tensor] = {}
    if num_axes >= 2:
        for side, products in (("output", gradient @ gradient.T), ("input", gradient.T @ gradient)):
            if len(products) <= MAX_AXES:
                basis = torch.eye(len(products), dtype=products.dtype, device=products.device)
                for _ in range(FIRST_TURNS):
                    basis = _turned_once(basis, products)
                made |= {f"{side}_products": products, f"{side}_basis": basis}
    return made


def _turned_once(basis: Tensor, products: Tensor) -> Tensor:
    """One step of power iteration."""
    # Of a few gradients most axes are but rounding, and would be other ones on another processor.
    products = products + DAMPING * products.diagonal().max() * torch.eye(len(products)).to(products)
    powered = products @ basis
    if powered.device.type not in ("cpu", "cuda"):  # not every accelerator factors matrices
        powered = powered.cpu()
    # Row by row, as a checkpoint gives it back, to the last bit.
    return torch.linalg.qr(powered)[0].contiguous().to(basis.device)


def _turn(gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Into the axes."""
    if "output_basis" in state:
        gradient = state["output_basis"].T @ gradient
    return gradient @ state["input_basis"] if "input_basis" in state else gradient


def _turn_back(turned: Tensor, state: dict[str, Tensor]) -> Tensor:
    if "output_basis" in state:
        turned = state["output_basis"] @ turned
    return turned @ state["input_basis"].T if "input_basis" in state else turned


def _remember_products(gradient: Tensor, state: dict[str, Tensor], share: float) -> None:
    if "output_products" in state:
        state["output_products"].lerp_(gradient @ gradient.T, share)
    if "input_products" in state:
        state["input_products"].lerp_(gradient.T @ gradient, share)


def _turn_axes(state: dict[str, Tensor]) -> None:
    """From the old axes, the strongest first; what is remembered of them goes along."""
    for side, axis in (("output", 0), ("input", 1)):
        if f"{side}_basis" in state:
            basis, products = state[f"{side}_basis"], state[f"{side}_products"]
            strongest = (basis.T @ products @ basis).diagonal().argsort(descending=True, stable=True)
            state["square"].copy_(state["square"].index_select(axis, strongest))
            basis.copy_(_turned_once(basis[:, strongest], products))
