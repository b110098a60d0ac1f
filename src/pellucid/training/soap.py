"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024, arXiv:2409.11321, Algorithm 3.
Neighboring pixels are correlated, so the inputs of a convolution vary mostly along a few directions. Adam scales
each weight separately and is slow along the other directions; in the eigenbasis it scales each direction.

Differences from the authors' code: the first gradient counts fully in L and R, their bases start from power
iteration instead of `eigh`, both are damped before QR, weight decay precedes the update as in AdamW, and a
convolution's weight is one matrix (output channels x all others), not a tensor with a basis for each of its four
dimensions.

The mean gradient M is kept in the eigenbasis, and rotated when the basis changes: the authors' code projects it in
each step, a fourth of all matrix products.

Weights of one shape are stepped together, and sums that need no matrix product run over all weights at once: on a
GPU, a step is bound by the number of kernels, not by their work.
"""

from collections.abc import Callable, Iterable, Sequence
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
SIDES = {"output": -2, "input": -1}
"""The two preconditioned dimensions of a matrix."""
ALIGNMENT = 64
"""Each shape starts at a multiple of this number of values, so that matrix products may read whole cache lines."""

State = dict[str, Tensor]


class SoapOptimizer(torch.optim.Optimizer):
    """Updates weights as matrices (first dimension x all others) by SOAP, those of one dimension by Adam.

    betas: decay of the mean gradient, and of its mean square, L and R. weight_decay: decoupled, as in AdamW.
    precondition_frequency: steps between updates of the eigenbases. The first step only initializes the
    preconditioner; it does not change the weights.

    State of each parameter, by its names in checkpoints, and what the paper calls it: `projected_mean` Q_L^T M Q_R
    (older checkpoints have `mean` M), `square` V, `output_products` L, `input_products` R, `output_basis` Q_L,
    `input_basis` Q_R; `step` is a count. The tensors are views of larger ones.
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
        self._batches: list[_Batch] = []
        self._batched: list[Tensor] = []

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._batches, self._batched = [], []

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no loss to return
        assert closure is None, "the loss is computed once for each step"
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        known = [parameter for parameter in parameters if self.state[parameter]]
        if len(known) < len(parameters):
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter] = _init_state(parameter)
        if list(map(id, known)) != list(map(id, self._batched)):
            self._batches, self._batched = self._arrange(known), known
        is_skipped: Tensor | None = getattr(self, "found_inf", None)  # as in PyTorch's fused optimizers
        for batch in self._batches:
            batch.update(None if is_skipped is None else is_skipped > 0)

    def forget_step(self) -> None:
        """Count one step less, because `found_inf` was true in the last one."""
        for batch in self._batches:
            batch.count(-1)

    def _arrange(self, parameters: Sequence[Tensor]) -> "list[_Batch]":
        """The parameters in batches: of one group, device and type, and with equal numbers of steps."""
        members: dict[Any, list[Tensor]] = {}
        groups = {id(parameter): i for i, group in enumerate(self.param_groups) for parameter in group["params"]}
        for parameter in parameters:
            num_steps = int(self.state[parameter]["step"])
            key = groups[id(parameter)], parameter.device, parameter.dtype, num_steps
            members.setdefault(key, []).append(parameter)
        return [
            _Batch(self.param_groups[i], batch, [self.state[parameter] for parameter in batch], num_steps)
            for (i, _, _, num_steps), batch in members.items()
        ]


class _Batch:
    """Parameters that are stepped together; their M and V are parts of one flat tensor each.

    states: of the parameters; their tensors are replaced by views of those here.
    """

    def __init__(
        self, group: dict[str, Any], parameters: Sequence[Tensor], states: Sequence[State], num_steps: int
    ) -> None:
        self._group, self._num_steps = group, num_steps
        by_shape: dict[Any, list[int]] = {}
        for i, parameter in enumerate(parameters):
            by_shape.setdefault((parameter.shape, _is_channels_last(parameter)), []).append(i)
        self._stacks: list[_Stack] = []
        start = 0
        for members in by_shape.values():
            stack = _Stack([parameters[i] for i in members], [states[i] for i in members], start)
            start = -(-stack.stop // ALIGNMENT) * ALIGNMENT
            self._stacks.append(stack)
        self._parameters = [parameter for stack in self._stacks for parameter in stack.parameters]
        self._steps = torch.full((len(states),), float(num_steps))
        self._mean, self._square = parameters[0].new_zeros(start), parameters[0].new_zeros(start)
        for stack in self._stacks:
            stack.project_means()
            stack.move_state("projected_mean", stack.of(self._mean))
            stack.move_state("square", stack.of(self._square))
        for state, step in zip(states, self._steps, strict=True):
            state["step"] = step

    def count(self, num_steps: int) -> None:
        """Count that many steps more."""
        self._num_steps += num_steps
        self._steps += num_steps

    def update(self, is_skipped: Tensor | None) -> None:
        """One step of all parameters. is_skipped: whether nothing changes but the counts; None if it is not."""
        group: dict[str, Any] = self._group
        beta_mean, beta_square = group["betas"]
        self.count(1)
        before = [tensor.clone() for tensor in self._list_changed()] if is_skipped is not None else []
        gradient = self._gather_gradients()
        projected = self._project(gradient)
        self._mean.lerp_(projected, 1 - beta_mean)
        self._square.mul_(beta_square).addcmul_(projected, projected, value=1 - beta_square)
        deviation = (self._square / (1 - beta_square**self._num_steps)).sqrt_().add_(group["eps"])
        update = self._mean / deviation
        kept = 1 - group["lr"] * group["weight_decay"]
        if is_skipped is not None:  # `torch.where` with a number would wait for the device
            update = update.masked_fill(is_skipped, 0)
            kept = torch.full_like(is_skipped, kept, dtype=update.dtype).masked_fill(is_skipped, 1)
        updates = [tensor for stack in self._stacks for tensor in stack.project_back(update)]
        if group["weight_decay"]:
            torch._foreach_mul_(self._parameters, kept)
        torch._foreach_sub_(self._parameters, updates, alpha=group["lr"] / (1 - beta_mean**self._num_steps))
        for stack in self._stacks:
            stack.update_products(gradient, 1 - beta_square)
            if self._is_basis_step():
                stack.update_bases(self._mean, self._square)
        if is_skipped is not None:
            for tensor, old in zip(self._list_changed(), before, strict=True):
                torch.where(is_skipped, old, tensor, out=tensor)

    def _is_basis_step(self) -> bool:
        return self._num_steps % int(self._group["precondition_frequency"]) == 0

    def _list_changed(self) -> list[Tensor]:
        """The tensors that this step changes besides the parameters."""
        with_bases = self._is_basis_step()
        states = [tensor for stack in self._stacks for tensor in stack.list_state(with_bases=with_bases)]
        return [self._mean, self._square, *states]

    def _gather_gradients(self) -> Tensor:
        """All gradients in one flat tensor, as matrices one after the other."""
        parts: list[Tensor] = []
        stop = 0
        for stack in self._stacks:
            parts += [self._mean.new_zeros(stack.start - stop)] if stack.start > stop else []
            parts += stack.flat_gradients()
            stop = stack.stop
        parts += [self._mean.new_zeros(len(self._mean) - stop)]
        gradient = torch.cat(parts)
        for stack in self._stacks:
            stack.reorder(gradient)
        return gradient

    def _project(self, flat: Tensor) -> Tensor:
        projected = flat.clone()
        for stack in self._stacks:
            stack.project(flat, projected)
        return projected


class _Stack:
    """Parameters of one shape and memory format: K matrices of (rows, columns), a part of each flat tensor.

    start, stop: the part. L, R and their bases are (K, size, size), by side.
    """

    def __init__(self, parameters: Sequence[Tensor], states: Sequence[State], start: int) -> None:
        self.parameters, self._states = parameters, states
        first = parameters[0]
        num_rows = len(first) if first.ndim else 1
        self._shape = len(parameters), num_rows, first.numel() // num_rows
        self._is_channels_last = _is_channels_last(first)
        self.start, self.stop = start, start + len(parameters) * first.numel()
        self._products: State = {}
        self._bases: State = {}
        for side in SIDES:
            if f"{side}_basis" in states[0]:
                self._products[side] = torch.stack([state[f"{side}_products"] for state in states])
                self._bases[side] = torch.stack([state[f"{side}_basis"] for state in states])
                self.move_state(f"{side}_products", self._products[side], copied=True)
                self.move_state(f"{side}_basis", self._bases[side], copied=True)

    def of(self, flat: Tensor) -> Tensor:
        """The part of a flat tensor, (K, rows, columns)."""
        return flat[self.start : self.stop].view(self._shape)

    def move_state(self, quantity: str, stacked: Tensor, *, copied: bool = False) -> None:
        """Copy the quantity of each state into `stacked`, unless `copied`, and replace it by that view."""
        for state, view in zip(self._states, stacked, strict=True):
            state[quantity] = view if copied else view.copy_(state[quantity])

    def project_means(self) -> None:
        """Project the M of older checkpoints."""
        for state in self._states:
            if "mean" in state:
                mean = state.pop("mean")
                if "output_basis" in state:
                    mean = state["output_basis"].mT @ mean
                state["projected_mean"] = mean @ state["input_basis"] if "input_basis" in state else mean

    def list_state(self, *, with_bases: bool) -> list[Tensor]:
        """L and R, and their bases if requested."""
        return [*self._products.values(), *(self._bases.values() if with_bases else ())]

    def flat_gradients(self) -> list[Tensor]:
        """The gradients in the order of the memory of their parameters, so that nothing is copied."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self._is_channels_last:
            gradients = [gradient.permute(0, 2, 3, 1) for gradient in gradients]
        return [gradient.reshape(-1) for gradient in gradients]

    def reorder(self, flat: Tensor) -> None:
        """From the order of memory to that of matrices."""
        if self._is_channels_last:
            num_rows, channels, height, width = self.parameters[0].shape
            part = self.of(flat)
            stored = part.view(len(part), num_rows, height, width, channels)
            part.copy_(stored.permute(0, 1, 4, 2, 3).reshape(part.shape))

    def project(self, flat: Tensor, projected: Tensor) -> None:
        """Into the eigenbasis: Q_L^T G Q_R."""
        part, result = self.of(flat), self.of(projected)
        if "output" in self._bases:
            transposed = self._bases["output"].mT
            part = transposed @ part if "input" in self._bases else torch.bmm(transposed, part, out=result)
        if "input" in self._bases:
            torch.bmm(part, self._bases["input"], out=result)

    def project_back(self, flat: Tensor) -> list[Tensor]:
        """Out of the eigenbasis: Q_L N Q_R^T, in the shape and memory format of each parameter."""
        part = self.of(flat)
        if "output" in self._bases:
            part = self._bases["output"] @ part
        if "input" in self._bases:
            part = part @ self._bases["input"].mT
        weights = part.view(len(part), *self.parameters[0].shape)
        if self._is_channels_last:
            weights = weights.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
        return list(weights.unbind())

    def update_products(self, flat_gradient: Tensor, weight: float) -> None:
        """The moving averages L = G G^T and R = G^T G."""
        gradient = self.of(flat_gradient)
        for side, products in self._products.items():
            left, right = (gradient, gradient.mT) if side == "output" else (gradient.mT, gradient)
            products.baddbmm_(left, right, beta=1 - weight, alpha=weight)

    def update_bases(self, flat_mean: Tensor, flat_square: Tensor) -> None:
        """Update Q_L and Q_R from their last values, largest eigenvalue first.

        V is reordered with them, and M, which is in the eigenbasis, is rotated to the new one.
        """
        mean, square = self.of(flat_mean), self.of(flat_square)
        for side, basis in self._bases.items():
            powered = _multiply_damped(self._products[side], basis)
            eigenvalues = (basis * powered).sum(-2)  # all larger by the damping, which does not change their order
            order = eigenvalues.argsort(descending=True, stable=True)
            along = order.unsqueeze(-1 if side == "output" else -2)
            square.copy_(square.take_along_dim(along, SIDES[side]))
            powered, previous = (matrices.take_along_dim(order.unsqueeze(-2), -1) for matrices in (powered, basis))
            updated = _orthonormalize(powered, previous)
            rotation = basis.mT @ updated
            mean.copy_(rotation.mT @ mean if side == "output" else mean @ rotation)
            basis.copy_(updated)


def _is_channels_last(parameter: Tensor) -> bool:
    return (
        parameter.ndim == 4
        and not parameter.is_contiguous()
        and parameter.is_contiguous(memory_format=torch.channels_last)
    )


def _init_state(parameter: Tensor) -> State:
    """M = V = 0; L = G G^T and R = G^T G, each with an orthogonal basis near its eigenvectors (columns)."""
    assert parameter.grad is not None
    gradient = parameter.grad.reshape(len(parameter) if parameter.ndim else 1, -1).contiguous()
    state = {
        "step": torch.zeros(()),
        "projected_mean": torch.zeros_like(gradient),
        "square": torch.zeros_like(gradient),
    }
    if parameter.ndim >= 2:
        for side, products in (("output", gradient @ gradient.T), ("input", gradient.T @ gradient)):
            if len(products) <= MAX_DIM:
                basis = torch.eye(len(products), dtype=products.dtype, device=products.device)
                for _ in range(NUM_FIRST_ITERATIONS):
                    basis = _orthonormalize(_multiply_damped(products, basis), basis)
                state |= {f"{side}_products": products, f"{side}_basis": basis}
    return state


def _multiply_damped(products: Tensor, basis: Tensor) -> Tensor:
    """(L + damping) Q: a step of power iteration before its QR (Algorithm 4 of the paper).

    Both are (..., size, size).
    """
    diagonal = products.diagonal(dim1=-2, dim2=-1)
    return products @ basis + basis * (DAMPING * diagonal.amax(-1))[..., None, None]


def _orthonormalize(columns: Tensor, otherwise: Tensor) -> Tensor:
    """Q of a QR decomposition; on a GPU its columns up to their signs, and `otherwise` for singular matrices."""
    if columns.device.type == "cuda":
        return _orthonormalize_twice(columns, otherwise)
    device = columns.device
    if device.type != "cpu":  # not every accelerator has QR
        columns = columns.cpu()
    # Row-major, as when loaded from a checkpoint: another memory layout would change the last bits.
    return torch.linalg.qr(columns)[0].contiguous().to(device)


def _orthonormalize_twice(columns: Tensor, otherwise: Tensor) -> Tensor:
    """As `_orthonormalize`, by Cholesky decomposition of columns^T columns, twice, in float64.

    The second one removes the rounding errors of the first, whatever the condition of a damped matrix. GPUs do it
    for all matrices at once; QR by Householder reflections takes one large matrix after the other, in many small
    kernels.
    """
    result, is_regular = columns.double(), torch.ones((), dtype=torch.bool, device=columns.device)
    for _ in range(2):
        lower, failed = torch.linalg.cholesky_ex(result.mT @ result)
        result = torch.linalg.solve_triangular(lower.mT, result, upper=True, left=False)
        is_regular = is_regular & (failed == 0)
    return torch.where(is_regular[..., None, None], result.to(columns.dtype), otherwise)
