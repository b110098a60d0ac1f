from typing import Any

import pytest
import pytorch_optimizer
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from pellucid.recipes import registry
from pellucid.recipes.optimizers import SGD, SOAP, Adam, Optimizer
from pellucid.recipes.schedules import Constant, Cosine, Drops
from pellucid.training import optimization, soap


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
def test_optimizers_equal_those_of_torch(spec: Optimizer, expected: Any) -> None:
    ours, torchs = network(), network()
    learn(ours, optimization.build(spec, ours), 5)
    learn(torchs, expected(torchs.parameters()), 5)
    for one, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_soap_is_faster_than_adam_on_correlated_inputs() -> None:
    """Neighboring pixels are such inputs. Least squares, whose exact solution is known."""
    generator = torch.Generator().manual_seed(1)
    rotation, _ = torch.linalg.qr(torch.randn(16, 16, generator=generator))
    spread = rotation * 10 ** torch.linspace(0, -2, 16)
    solution = torch.randn(4, 16, generator=generator)

    def error(spec: Optimizer) -> float:
        layer = nn.Linear(16, 4, bias=False)
        nn.init.zeros_(layer.weight)
        optimizer = optimization.build(spec, layer)
        for step in range(300):
            optimization.set_lr(optimizer, spec.lr * (1 - step / 300))
            optimizer.zero_grad()
            inputs = torch.randn(32, 16, generator=torch.Generator().manual_seed(step)) @ spread.T
            (layer(inputs) - inputs @ solution.T).square().sum().backward()
            optimizer.step()
        return ((layer.weight.detach() - solution) @ spread).square().sum().item()

    rates = (0.01, 0.03, 0.1)
    assert min(error(SOAP(lr, precondition_frequency=5)) for lr in rates) < 0.01 * min(
        error(Adam(lr)) for lr in rates
    )


@pytest.mark.parametrize("frequency", [1, 3])
@pytest.mark.parametrize("shape", [(4, 4), (3, 6)])
def test_soap_equals_a_published_implementation(
    frequency: int, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of pytorch_optimizer, step by step.

    Two documented differences are taken out: our damping is set to 0, and the other one starts from our L, R and
    their bases, where it would have (1 - beta) L, (1 - beta) R and eigenvectors from `eigh`.
    """
    monkeypatch.setattr(soap, "DAMPING", 0.0)
    generator = torch.Generator().manual_seed(0)
    scales = 10 ** torch.linspace(0, -1, shape[1])
    gradients = [torch.randn(shape, generator=generator) * scales for _ in range(10)]
    layers = [nn.Linear(shape[1], shape[0]) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    ours = optimization.build(SOAP(0.05, (0.9, 0.8), precondition_frequency=frequency), layers[0])
    other = pytorch_optimizer.SOAP(
        layers[1].parameters(), 0.05, (0.9, 0.8), weight_decay=0, precondition_frequency=frequency
    )
    before = layers[0].weight.detach().clone()
    for step, gradient in enumerate(gradients):
        for layer in layers:
            layer.weight.grad, layer.bias.grad = gradient.clone(), gradient[:, 0].clone()
        ours.step()
        other.step()
        if step == 0:
            assert torch.equal(layers[0].weight, before)  # the first step only initializes, in both
            state = ours.state[layers[0].weight]
            shared = {
                "GG": [state["output_products"].clone(), state["input_products"].clone()],
                "Q": [state["output_basis"].clone(), state["input_basis"].clone()],
            }
            other.state[layers[1].weight].update(shared)
        torch.testing.assert_close(layers[0].weight, layers[1].weight, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(layers[0].bias, layers[1].bias, rtol=1e-4, atol=1e-5)
    assert (layers[0].weight - before).abs().min() > 1e-3


def test_soap_starts_near_the_eigenvectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against LAPACK's, of a gradient with well separated eigenvalues: 100, 1 and 0.01."""
    monkeypatch.setattr(soap, "DAMPING", 0.0)
    left, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))
    right, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))
    layer = nn.Linear(3, 3, bias=False)
    layer.weight.grad = left @ torch.diag(torch.tensor([10.0, 1.0, 0.1])) @ right.T
    optimizer = optimization.build(SOAP(1e-2), layer)
    optimizer.step()
    for side in ("output", "input"):
        state = optimizer.state[layer.weight]
        eigenvectors = torch.linalg.eigh(state[f"{side}_products"].double())[1].flip(1)
        cosines = (eigenvectors.T @ state[f"{side}_basis"].double()).abs()
        torch.testing.assert_close(cosines, torch.eye(3).double(), rtol=0, atol=0.01)


@pytest.mark.parametrize(("damping", "is_stable"), [(soap.DAMPING, True), (0.0, False)])
def test_damping_keeps_rounding_out_of_the_basis(
    damping: float, is_stable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient of rank 1, whose other eigenvectors are rounding errors, summed by two processors."""
    monkeypatch.setattr(soap, "DAMPING", damping)
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(6, 1, generator=generator) @ torch.randn(1, 6, generator=generator)
    bases = []
    for error in (0.0, 1e-6):
        layer = nn.Linear(6, 6, bias=False)
        layer.weight.grad = gradient * (1 + error * torch.randn(6, 6, generator=generator))
        optimizer = optimization.build(SOAP(1e-2), layer)
        optimizer.step()
        bases.append(optimizer.state[layer.weight]["input_basis"])
    assert ((bases[0] - bases[1]).abs().max() < 1e-2) == is_stable


@pytest.mark.parametrize("shape", [(4, 6), (6, 2100), (2100, 6)])
def test_soap_resumes_from_older_checkpoints(shape: tuple[int, int]) -> None:
    """Their mean gradient is not in the eigenbasis."""
    generator = torch.Generator().manual_seed(0)
    layers = [nn.Linear(shape[1], shape[0]) for _ in range(2)]
    gradients = [torch.randn(shape, generator=generator) for _ in range(9)]
    optimizers = [optimization.build(SOAP(0.05, precondition_frequency=2), layer) for layer in layers]

    def step(number: int, gradient: Tensor) -> None:
        layers[number].weight.grad, layers[number].bias.grad = gradient.clone(), gradient[:, 0].clone()
        optimizers[number].step()

    for gradient in gradients[:5]:
        step(0, gradient)
    layers[1].load_state_dict(layers[0].state_dict())
    older = optimization.optimizer_tensors(optimizers[0])
    for name in ("weight", "bias"):
        state = {
            quantity: older[f"{name}/{quantity}"] for quantity in optimizers[0].state[getattr(layers[0], name)]
        }
        mean = older.pop(f"{name}/projected_mean")
        if "output_basis" in state:
            mean = state["output_basis"] @ mean
        if "input_basis" in state:
            mean = mean @ state["input_basis"].T
        older[f"{name}/mean"] = mean
    expected = sum(0.95 ** (4 - i) * 0.05 * gradients[i] for i in range(1, 5))
    torch.testing.assert_close(older["weight/mean"], expected, rtol=1e-4, atol=1e-5)
    optimization.load_optimizer_tensors(optimizers[1], older)
    for gradient in gradients[5:]:
        for number in range(2):
            step(number, gradient)
        torch.testing.assert_close(layers[0].weight, layers[1].weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layers[0].bias, layers[1].bias, rtol=1e-4, atol=1e-5)
    assert "weight/mean" not in optimization.optimizer_tensors(optimizers[1])


def test_soap_without_a_preconditioner_equals_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soap, "MAX_DIM", 0)
    ours, torchs = network(), network()
    optimizer = optimization.build(SOAP(1e-2, (0.9, 0.999), weight_decay=0.1), ours)
    learn(ours, optimizer, 1, first=100)  # which only initializes
    learn(ours, optimizer, 5)
    learn(torchs, torch.optim.AdamW(torchs.parameters(), 1e-2, weight_decay=0.1), 5)
    for one, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_soap_steps_on_gradients_of_low_rank() -> None:
    """The gradient of a single picture has a low rank, and LAPACK's `eigh` may not converge on its products."""
    layer = nn.Conv2d(64, 32, 5)
    optimizer = optimization.build(SOAP(1e-2, precondition_frequency=1), layer)
    for _ in range(3):
        layer.weight.grad = torch.zeros_like(layer.weight)
        layer.weight.grad[0, :2] = 1e-6
        optimizer.step()
    assert layer.weight.isfinite().all()


def step_with_gradients(
    parameters: list[nn.Parameter], optimizers: list[torch.optim.Optimizer], seed: int
) -> None:
    """Every third parameter has a gradient only in every second step."""
    generator = torch.Generator().manual_seed(seed)
    for i, parameter in enumerate(parameters):
        gradient = torch.randn(parameter.shape, generator=generator) * (1 + torch.arange(parameter.shape[-1]))
        parameter.grad = None if i % 3 == 2 and seed % 2 else torch.empty_like(parameter).copy_(gradient)
    for optimizer in optimizers:
        optimizer.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_soap_steps_weights_together_as_it_steps_each_alone(layout: torch.memory_format) -> None:
    shapes = [
        (4, 3, 3, 2),
        (4, 3, 3, 2),
        (5,),
        (4, 3, 3, 2),
        (2, 6),
        (5,),
        (3, 1, 2, 2),
        (1, 3, 1, 1),
        (4, 3, 3, 2),
    ]
    torch.manual_seed(0)
    together, alone = ([nn.Parameter(torch.randn(shape)) for shape in shapes] for _ in range(2))
    for one, other in zip(together, alone, strict=True):
        if one.ndim == 4:
            one.data = one.data.contiguous(memory_format=layout)
        other.data = one.detach().contiguous().clone()
    options: Any = {"betas": (0.9, 0.8), "eps": 1e-8, "weight_decay": 0.1, "precondition_frequency": 3}
    all_at_once = soap.SoapOptimizer(together, 1e-2, **options)
    one_each = [soap.SoapOptimizer([parameter], 1e-2, **options) for parameter in alone]
    start = [parameter.detach().clone() for parameter in alone]
    for seed in range(10):
        step_with_gradients(together, [all_at_once], seed)
        step_with_gradients(alone, list(one_each), seed)
    for one, other, before in zip(together, alone, start, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert (other - before).abs().max() > 1e-2
    assert [int(all_at_once.state[p]["step"]) for p in together] == [9, 9, 4, 9, 9, 4, 9, 9, 4]


class CountKernels(TorchDispatchMode):
    """Counts the operations that compute something; on a GPU, each is one kernel, or two."""

    num = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returns_view = func.is_view or func.__name__.partition(".")[0] in ("_unsafe_view", "empty_like", "unbind")
        self.num += not returns_view
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_step_of_soap_needs_few_kernels(layout: torch.memory_format) -> None:
    """Each takes a GPU as long as the work of many layers: one for each weight would be 800."""
    made = to_layout(registry.find("dncnn.gaussian").network(), layout)
    optimizer = optimization.build(SOAP(1e-3), made)
    for parameter in made.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.step()  # arranges the weights
    with CountKernels() as kernels:  # type: ignore[no-untyped-call]  # that of torch has no types
        optimizer.step()
    assert kernels.num < 60


def test_bases_for_gpus_are_those_of_qr() -> None:
    """Up to the signs of columns, which cancel. The second matrix has a condition of 1e5, the last one is zero."""
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 20, 20, generator=generator, dtype=torch.float64)
    matrices[1] = torch.linalg.qr(matrices[1])[0] * torch.logspace(0, -5, 20) @ torch.linalg.qr(matrices[0])[0]
    matrices[2] = 0
    before = torch.eye(20).expand(3, -1, -1)
    found = soap._orthonormalize_twice(matrices.float(), before)
    expected = torch.linalg.qr(matrices.float().double())[0].float()
    signs = (found * expected).sum(-2, keepdim=True).sign()
    torch.testing.assert_close(found[:2], (expected * signs)[:2], rtol=0, atol=1e-5)
    assert torch.equal(found[2], before[2])


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


def to_layout(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return network


@pytest.mark.parametrize(
    "spec", [Adam(1e-2), SGD(1e-3), SGD(1e-3, momentum=0), SOAP(1e-2, precondition_frequency=2)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_restored_optimizer_continues_bit_exactly(spec: Optimizer, layout: torch.memory_format) -> None:
    whole, broken = to_layout(network(), layout), to_layout(network(), layout)
    learn(whole, optimization.build(spec, whole), 7)
    first = optimization.build(spec, broken)
    learn(broken, first, 3)
    saved = {name: t.contiguous().clone() for name, t in optimization.optimizer_tensors(first).items()}
    again = optimization.build(spec, broken)
    optimization.load_optimizer_tensors(again, saved)
    learn(broken, again, 4, first=3)
    for one, other in zip(whole.parameters(), broken.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(name.startswith(("0.", "2.")) for name in saved)


def parameters_with(gradients: list[Tensor]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    return parameters


@given(st.integers(0, 99), st.floats(0.01, 100), st.none() | st.floats(0.01, 100))
def test_clipping_equals_that_of_torch(seed: int, max_norm: float, max_tensor_norm: float | None) -> None:
    """Ours clips all tensors at once; here torch clips one after the other, and measures the total norm again."""
    generator = torch.Generator().manual_seed(seed)
    gradients = [10 * torch.randn(shape, generator=generator) for shape in [(3, 4), (5,), (2, 2, 2)]]
    ours, torchs = parameters_with(gradients), parameters_with(gradients)
    expected = nn.utils.get_total_norm(gradients)
    if max_tensor_norm is not None:
        for parameter in torchs:
            nn.utils.clip_grad_norm_(parameter, max_tensor_norm)
    nn.utils.clip_grad_norm_(torchs, max_norm)
    total = optimization.clip(ours, max_norm=max_norm, max_tensor_norm=max_tensor_norm)
    torch.testing.assert_close(total, expected)
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_clipping_each_tensor_keeps_small_ones() -> None:
    given = parameters_with([torch.tensor([3.0, 4.0]), torch.tensor([0.3])])
    total = optimization.clip(given, max_norm=None, max_tensor_norm=2.5)
    assert total == pytest.approx((25 + 0.09) ** 0.5)
    torch.testing.assert_close([p.grad for p in given], [torch.tensor([1.5, 2.0]), torch.tensor([0.3])])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_norm_is_not_finite_if_a_gradient_is_not(bad: float) -> None:
    given = parameters_with([torch.ones(3), torch.tensor([1.0, bad])])
    assert not optimization.clip(given, max_norm=1.0, max_tensor_norm=None).isfinite()


def test_the_average_soon_forgets_its_start() -> None:
    """From 0 toward 1; by hand: 0.9 of the way in the first step, 9/11 of the rest in the second."""
    made = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(made.weight)
    averaged = {"weight": torch.zeros(1, 1, 1, 1)}
    optimization.average(averaged, made, decay=0.99, step=0)
    assert averaged["weight"].item() == pytest.approx(0.9)
    optimization.average(averaged, made, decay=0.99, step=1)
    assert averaged["weight"].item() == pytest.approx(1 - 0.1 * 2 / 11)


def test_the_later_average_equals_that_of_torch() -> None:
    made = network()
    averaged = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    torchs = AveragedModel(made, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    torchs.update_parameters(made)  # which only copies
    optimizer = torch.optim.SGD(made.parameters(), 1e-2)
    for step in range(1000, 1010):
        learn(made, optimizer, 1, first=step)
        optimization.average(averaged, made, decay=0.9, step=step)
        torchs.update_parameters(made)
    for name, tensor in torchs.module.state_dict().items():
        torch.testing.assert_close(averaged[name], tensor, rtol=1e-5, atol=1e-7)


def test_the_average_of_a_batch_norm_counts_its_batches() -> None:
    made = nn.BatchNorm2d(2)
    averaged = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    made(torch.rand(2, 2, 3, 3))
    optimization.average(averaged, made, decay=0.9, step=0)
    assert averaged["num_batches_tracked"] == 1


def test_checkpoints_of_earlier_versions_restore_the_loss_scale() -> None:
    scaler = optimization.build_scaler("float16", torch.device("cpu"))
    assert optimization.scaler_metadata(scaler) == {"scale": 65536.0, "num_clean": 0, "doubles": True}
    stored = {"scale": 512.0, "num_clean": 1999, "doubles": True}
    optimization.load_scaler_metadata(scaler, stored)
    assert optimization.scaler_metadata(scaler) == stored
    disabled = optimization.build_scaler("bfloat16", torch.device("cpu"))
    optimization.load_scaler_metadata(disabled, {"scale": 1.0, "num_clean": 37, "doubles": False})
    assert optimization.scaler_metadata(disabled) == {"scale": 1.0, "num_clean": 0, "doubles": False}


def test_a_warm_up_rises_and_then_follows_the_schedule() -> None:
    warmed = Drops((6,), 0.5, warmup_steps=4)
    assert [warmed.factor(step, 9) for step in (0, 1, 3, 4, 6)] == [0.25, 0.5, 1, 1, 0.5]
    assert Constant(0).factor(0, 9) == 1
    assert Drops((2, 4), (0.5, 0.1)).factor(4, 9) == pytest.approx(0.05)
    assert Cosine(0).factor(0, 9) == 1
