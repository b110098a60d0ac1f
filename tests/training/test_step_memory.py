"""Whether a step fits the memory: against what layers keep, counted by hand, and against a real step."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from pellucid.errors import NotEnoughMemoryError
from pellucid.recipes.registry import find
from pellucid.system import memory
from pellucid.training.step_memory import check_memory, count_saved_bytes

MEASURE = """
import pellucid, torch
from pellucid.training import tuning
from pellucid.training.distributed import Group
from pellucid.training.learner import Learner
from pellucid.training.step_memory import count_saved_bytes
from pellucid.system.heap import _peak_bytes

recipe = pellucid.find("dncnn.gaussian")
network = recipe.network()
patches = torch.rand(32, 1, 64, 64)
counted = count_saved_bytes(recipe.loss, network, patches, patches)
learner = Learner(recipe, network, tuning.default_mode(recipe), seed=0, group=Group(torch.device("cpu")))
learner.learn(patches[:1], patches[:1])
before = _peak_bytes()
learner.learn(patches, patches)
learner.settle()
print((_peak_bytes() - before) / counted)
"""


def mean_square(network: nn.Module, degraded: Tensor, target: Tensor) -> Tensor:
    return (network(degraded) - target).square().mean()


def test_what_layers_keep_is_counted_once() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    degraded, target = torch.rand(2, 1, 10, 10), torch.rand(2, 1, 10, 10)
    plane_bytes = 4 * degraded.numel()
    # Inputs of both convolutions (the second is the result of the ReLU, which keeps it, too), and the difference.
    expected = plane_bytes + 8 * plane_bytes + plane_bytes
    assert count_saved_bytes(mean_square, network, degraded, target) == expected  # type: ignore[arg-type]  # no Network


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_step_takes_at_least_what_is_counted() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=200, check=True)
    assert 0.9 < float(done.stdout) < 2


@pytest.mark.parametrize(
    ("free_bytes", "is_half", "fits"), [(10**8, False, True), (3 * 10**6, False, False), (3 * 10**6, True, True)]
)
def test_a_step_that_does_not_fit_is_refused(
    free_bytes: int, is_half: bool, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = find("dncnn.gaussian", depth=4, width=8)
    network, patches = recipe.network(), torch.rand(16, 1, 40, 40)
    assert count_saved_bytes(recipe.loss, network, patches, patches) == 4_403_456
    monkeypatch.setattr(memory, "free_bytes", lambda: free_bytes)
    if fits:
        check_memory(recipe.loss, network, patches, patches, is_half=is_half)
    else:
        with pytest.raises(NotEnoughMemoryError, match="16 patches of 40 px needs more than 4 MB; 3 MB are free"):
            check_memory(recipe.loss, network, patches, patches, is_half=is_half)


def test_losses_that_need_samples_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(network: nn.Module, degraded: Tensor, target: Tensor) -> Tensor:
        return mean_square(network, degraded, target) * float(target.mean())

    recipe = find("dncnn.gaussian", depth=4, width=8)
    monkeypatch.setattr(memory, "free_bytes", lambda: 0)
    check_memory(loss, recipe.network(), torch.rand(2, 1, 9, 9), torch.rand(2, 1, 9, 9), is_half=False)
