from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from pellucid.recipes.optimizers import SGD, SOAP, Adam, Optimizer
from pellucid.recipes.schedules import Constant, Cosine, Drops
from pellucid.training import optimization
from pellucid.training.optimization import LossScale

Matrix = NDArray[np.float64]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 1, 3))


def learn(trained: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int, first: int = 0) -> None:
    for step in range(first, first + num_steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        trained(torch.rand(2, 1, 8, 8)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (Adam(1e-2), lambda p: torch.optim.Adam(p, 1e-2)),
        (Adam(1e-2, (0.5, 0.9), 1e-4), lambda p: torch.optim.Adam(p, 1e-2, (0.5, 0.9), 1e-4)),
        (Adam(1e-2, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.1)),
        (SGD(1e-3), lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9)),
        (SGD(1e-3, momentum=0, weight_decay=0.1), lambda p: torch.optim.SGD(p, 1e-3, weight_decay=0.1)),
    ],
)
def test_optimizers_are_those_of_torch(spec: Optimizer, expected: Any) -> None:
    ours, torchs = network(), network()
    learn(ours, optimization.build(spec, ours), 5)
    learn(torchs, expected(torchs.parameters()), 5)
    for one, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_soap_goes_far_where_inputs_lie_along_few_directions() -> None:
    """As neighbouring pixels do. Least squares, whose error is known without noise."""
    chance = torch.Generator().manual_seed(1)
    turn, _ = torch.linalg.qr(torch.randn(16, 16, generator=chance))
    spread = turn * 10 ** torch.linspace(0, -2, 16)
    wanted = torch.randn(4, 16, generator=chance)

    def error(spec: Optimizer) -> float:
        layer = nn.Linear(16, 4, bias=False)
        nn.init.zeros_(layer.weight)
        optimizer = optimization.build(spec, layer)
        for step in range(300):
            optimization.set_lr(optimizer, spec.lr * (1 - step / 300))
            optimizer.zero_grad()
            inputs = torch.randn(32, 16, generator=torch.Generator().manual_seed(step)) @ spread.T
            (layer(inputs) - inputs @ wanted.T).square().sum().backward()
            optimizer.step()
        return ((layer.weight.detach() - wanted) @ spread).square().sum().item()

    rates = (0.01, 0.03, 0.1)
    assert min(error(SOAP(lr, precondition_frequency=5)) for lr in rates) < 0.01 * min(
        error(Adam(lr)) for lr in rates
    )


def test_soap_is_algorithm_3() -> None:
    """Of arXiv:2409.11321, in NumPy and float64; the first axes are power iteration's, as the later ones."""
    betas, eps, lr, damping = (0.9, 0.8), 1e-8, 0.1, 1e-3
    chance = np.random.default_rng(0)
    gradients = chance.normal(size=(8, 3, 5)) * np.array([1, 3, 0.1, 1, 2])
    layer = nn.Linear(5, 3, bias=False)
    expected = layer.weight.detach().double().numpy()
    optimizer = optimization.build(SOAP(lr, betas, eps, precondition_frequency=2), layer)

    def turned(basis: Matrix, products: Matrix) -> Matrix:
        damped = products + damping * products.diagonal().max() * np.eye(len(products))
        return np.linalg.qr(damped @ basis)[0]

    left, right = gradients[0] @ gradients[0].T, gradients[0].T @ gradients[0]
    q_left, q_right = np.eye(3), np.eye(5)
    for _ in range(3):
        q_left, q_right = turned(q_left, left), turned(q_right, right)
    mean, square = np.zeros((3, 5)), np.zeros((3, 5))
    for step, gradient in enumerate(gradients):
        layer.weight.grad = torch.from_numpy(gradient).float()
        optimizer.step()
        if step == 0:  # which only looks
            continue
        mean = betas[0] * mean + (1 - betas[0]) * gradient
        square = betas[1] * square + (1 - betas[1]) * (q_left.T @ gradient @ q_right) ** 2
        deviation = np.sqrt(square / (1 - betas[1] ** step)) + eps
        scaled = (q_left.T @ mean @ q_right) / (1 - betas[0] ** step) / deviation
        expected = expected - lr * q_left @ scaled @ q_right.T
        left = betas[1] * left + (1 - betas[1]) * gradient @ gradient.T
        right = betas[1] * right + (1 - betas[1]) * gradient.T @ gradient
        if step % 2 == 0:
            rows = np.argsort(-np.diag(q_left.T @ left @ q_left), kind="stable")
            cols = np.argsort(-np.diag(q_right.T @ right @ q_right), kind="stable")
            square = square[rows][:, cols]
            q_left, q_right = turned(q_left[:, rows], left), turned(q_right[:, cols], right)
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected, rtol=1e-3, atol=1e-4)


def test_soap_in_axes_it_may_not_turn_is_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.training.soap.MAX_AXES", 0)
    ours, torchs = network(), network()
    optimizer = optimization.build(SOAP(1e-2, (0.9, 0.999)), ours)
    learn(ours, optimizer, 1, first=100)  # which only looks
    learn(ours, optimizer, 5)
    learn(torchs, torch.optim.Adam(torchs.parameters(), 1e-2), 5)
    for one, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_soap_steps_where_gradients_have_few_directions() -> None:
    """One picture's gradient is of low rank, and LAPACK's eigenvectors of such may not converge."""
    layer = nn.Conv2d(64, 32, 5)
    optimizer = optimization.build(SOAP(1e-2, precondition_frequency=1), layer)
    for _ in range(3):
        layer.weight.grad = torch.zeros_like(layer.weight)
        layer.weight.grad[0, :2] = 1e-6
        optimizer.step()
    assert layer.weight.isfinite().all()


def test_a_slower_layer_has_its_own_learning_rate() -> None:
    made = network()
    before = [parameter.detach().clone() for parameter in made.parameters()]
    optimizer = optimization.build(SGD(1.0, momentum=0, slower=("2", 0.1)), made)
    optimization.set_lr(optimizer, 1e-3)
    learn(made, optimizer, 1)
    for i, (parameter, old) in enumerate(zip(made.parameters(), before, strict=True)):
        assert parameter.grad is not None
        lr = 1e-3 if i < 2 else 1e-4
        torch.testing.assert_close(parameter.detach(), old - lr * parameter.grad)


def laid_out(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return network


@pytest.mark.parametrize(
    "spec", [Adam(1e-2), SGD(1e-3), SGD(1e-3, momentum=0), SOAP(1e-2, precondition_frequency=2)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_optimizer_goes_on_to_the_last_bit(spec: Optimizer, layout: torch.memory_format) -> None:
    whole, broken = laid_out(network(), layout), laid_out(network(), layout)
    learn(whole, optimization.build(spec, whole), 7)
    first = optimization.build(spec, broken)
    learn(broken, first, 3)
    saved = {name: t.contiguous().clone() for name, t in optimization.optimizer_tensors(first).items()}
    again = optimization.build(spec, broken)
    optimization.set_optimizer_tensors(again, saved)
    learn(broken, again, 4, first=3)
    for one, other in zip(whole.parameters(), broken.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(name.startswith(("0.", "2.")) for name in saved)


def gradients(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [10 * torch.randn(shape, generator=generator) for shape in [(3, 4), (5,), (2, 2, 2)]]


@given(st.integers(0, 99), st.floats(0.01, 100))
def test_clipping_the_norm_of_all_is_that_of_torch(seed: int, max_norm: float) -> None:
    ours, parameters = gradients(seed), [nn.Parameter(torch.zeros_like(g)) for g in gradients(seed)]
    for parameter, gradient in zip(parameters, gradients(seed), strict=True):
        parameter.grad = gradient
    expected = nn.utils.clip_grad_norm_(parameters, max_norm)
    total = optimization.clip(ours, max_norm=max_norm, max_norm_each=None)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(ours, [parameter.grad for parameter in parameters])


def test_clipping_each_tensor_leaves_small_ones() -> None:
    given = [torch.tensor([3.0, 4.0]), torch.tensor([0.3])]
    total = optimization.clip(given, max_norm=None, max_norm_each=2.5)
    assert total == pytest.approx((25 + 0.09) ** 0.5)
    torch.testing.assert_close(given, [torch.tensor([1.5, 2.0]), torch.tensor([0.3])])
    optimization.clip(given, max_norm=1.0, max_norm_each=2.5)
    assert sum(float(g.square().sum()) for g in given) ** 0.5 == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_norm_tells_of_a_gradient_that_is_not_finite(bad: float) -> None:
    given = [torch.ones(3), torch.tensor([1.0, bad])]
    assert not optimization.clip(given, max_norm=1.0, max_norm_each=None).isfinite()


def test_the_average_forgets_its_start() -> None:
    made = nn.Conv2d(1, 1, 1, bias=False)
    averaged = {"weight": torch.zeros(1, 1, 1, 1)}
    nn.init.ones_(made.weight)
    expected = 0.0
    for step in range(50):
        decay = min(0.9, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay)
        optimization.average(averaged, made, decay=0.9, step=step)
    assert averaged["weight"].item() == pytest.approx(expected, rel=1e-5)


def test_the_average_of_a_batch_norm_counts_its_batches() -> None:
    made = nn.BatchNorm2d(2)
    averaged = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    made(torch.rand(2, 2, 3, 3))
    optimization.average(averaged, made, decay=0.9, step=0)
    assert averaged["num_batches_tracked"] == 1


def test_the_loss_scale_falls_at_once_and_rises_slowly() -> None:
    scale = LossScale.of("float16")
    assert scale.scale == 2**16
    scale.overflowed()
    assert scale.scale == 2**15
    for _ in range(1999):
        scale.passed()
    assert scale.scale == 2**15
    scale.passed()
    assert (scale.scale, scale.num_clean) == (2**16, 0)
    still = LossScale.of("bfloat16")
    still.overflowed()
    assert still.scale == 1


def test_a_warm_up_rises_and_then_leaves_the_schedule_alone() -> None:
    warmed = Drops((6,), 0.5, warmup_steps=4)
    assert [warmed.factor(step, 9) for step in (0, 1, 3, 4, 6)] == [0.25, 0.5, 1, 1, 0.5]
    assert Constant(0).factor(0, 9) == 1
    assert Drops((2, 4), (0.5, 0.1)).factor(4, 9) == pytest.approx(0.05)
    assert Cosine(0).factor(0, 9) == 1
