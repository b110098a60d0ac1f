"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024, arXiv:2409.11321, Algorithm 3.
Neighboring pixels are correlated, so the inputs of a convolution vary mostly along a few directions. Adam scales
each weight separately and is slow along the other directions; in the eigenbasis it scales each direction.

Differences from the authors' code: the first gradient counts fully in L and R, their bases start from power
iteration instead of `eigh`, both are damped before QR, weight decay precedes the update as in AdamW, and a
convolution's weight is one matrix (output channels x all others), not a tensor with a basis for each of its four
dimensions.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

MAX_DIM = 2048
"""A longer side of a weight matrix is not preconditioned: its basis would cost more than it gains."""
NUM_FIRST_ITERATIONS = 3
"""Power iterations from the identity for the first basis: a single gradient has a low rank, and LAPACK's `eigh`
may not converge on its products."""
DAMPING = 1e-3
"""Added to the diagonal of L and R for QR, relative to its largest entry. After a few gradients most eigenvalues
are only rounding errors; without damping their eigenvectors would differ between processors."""


class SoapOptimizer(torch.optim.Optimizer):
    """Updates weights as matrices (first dimension x all others) by SOAP, those of one dimension by Adam.

    betas: decay of the mean gradient, and of its mean square, L and R. weight_decay: decoupled, as in AdamW.
    precondition_frequency: steps between updates of the eigenbases. The first step only initializes the
    preconditioner; it does not change the weights.

    State of each parameter, by its names in checkpoints, and what the paper calls it: `mean` M, `square` V,
    `output_products` L, `input_products` R, `output_basis` Q_L, `input_basis` Q_R; `step` is a count.
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
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no loss to return
        assert closure is None, "the loss is computed once for each step"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, group)

    def _step_one(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = _to_matrix(parameter.grad)  # G
        state = self.state[parameter]
        if not state:
            state |= {
                "step": torch.zeros(()),
                "mean": torch.zeros_like(gradient),
                "square": torch.zeros_like(gradient),
                **_init_preconditioner(gradient, parameter.ndim),
            }
            return
        beta_mean, beta_square = group["betas"]
        state["step"] += 1
        step = int(state["step"])
        projected = _project(gradient, state)
        state["mean"].lerp_(gradient, 1 - beta_mean)
        state["square"].lerp_(projected.square(), 1 - beta_square)
        deviation = (state["square"] / (1 - beta_square**step)).sqrt() + group["eps"]
        update = _project(state["mean"], state) / (1 - beta_mean**step) / deviation
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(group["lr"] * _project_back(update, state).reshape(parameter.shape))
        _update_products(gradient, state, 1 - beta_square)
        if step % group["precondition_frequency"] == 0:
            _update_bases(state)


def _to_matrix(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient.reshape(len(gradient), -1).contiguous() if gradient.ndim else gradient.reshape(1, 1)


def _init_preconditioner(gradient: Tensor, num_dims: int) -> dict[str, Tensor]:
    """L = G G^T and R = G^T G, each with an orthogonal basis near its eigenvectors (columns)."""
    state: dict[str, Tensor] = {}
    if num_dims >= 2:
        for side, products in (("output", gradient @ gradient.T), ("input", gradient.T @ gradient)):
            if len(products) <= MAX_DIM:
                basis = torch.eye(len(products), dtype=products.dtype, device=products.device)
                for _ in range(NUM_FIRST_ITERATIONS):
                    basis = _power_iteration(basis, products)
                state |= {f"{side}_products": products, f"{side}_basis": basis}
    return state


def _power_iteration(basis: Tensor, products: Tensor) -> Tensor:
    """One step of power iteration and QR, Algorithm 4 of the paper: a basis nearer to the eigenvectors."""
    products = products + DAMPING * products.diagonal().max() * torch.eye(len(products)).to(products)
    powered = products @ basis
    if powered.device.type not in ("cpu", "cuda"):  # not every accelerator has QR
        powered = powered.cpu()
    # Row-major, as when loaded from a checkpoint: another memory layout would change the last bits.
    return torch.linalg.qr(powered)[0].contiguous().to(basis.device)


def _project(gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Into the eigenbasis: Q_L^T G Q_R."""
    if "output_basis" in state:
        gradient = state["output_basis"].T @ gradient
    return gradient @ state["input_basis"] if "input_basis" in state else gradient


def _project_back(update: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Out of the eigenbasis: Q_L N Q_R^T."""
    if "output_basis" in state:
        update = state["output_basis"] @ update
    return update @ state["input_basis"].T if "input_basis" in state else update


def _update_products(gradient: Tensor, state: dict[str, Tensor], weight: float) -> None:
    """The moving averages L and R."""
    if "output_products" in state:
        state["output_products"].lerp_(gradient @ gradient.T, weight)
    if "input_products" in state:
        state["input_products"].lerp_(gradient.T @ gradient, weight)


def _update_bases(state: dict[str, Tensor]) -> None:
    """Update Q_L and Q_R from their last values, largest eigenvalue first; V is reordered with them."""
    for side, dim in (("output", 0), ("input", 1)):
        if f"{side}_basis" in state:
            basis, products = state[f"{side}_basis"], state[f"{side}_products"]
            order = (basis.T @ products @ basis).diagonal().argsort(descending=True, stable=True)
            state["square"].copy_(state["square"].index_select(dim, order))
            basis.copy_(_power_iteration(basis[:, order], products))
