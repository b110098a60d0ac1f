"""Two processes on one machine, started like a user starts them."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from pellucid.commands.terminal import is_first_process
from pellucid.data.store_writer import Planned, Stamp, StoreWriter
from pellucid.errors import PellucidError
from pellucid.recipes import registry
from pellucid.recipes.overrides import override
from pellucid.recipes.recipe import Recipe
from pellucid.training import distributed, run_folder
from pellucid.training.distributed import (
    Group,
    SharedBatchNorm2d,
    explain_lost_processes,
    join_group,
    share_batch_norms,
)
from pellucid.training.train import train
from pellucid.weights import checkpoint

SRCNN = registry.find("srcnn.tuned", batch_size=8, patch_px=24, num_steps=20)
DNCNN = registry.find("dncnn.gaussian", depth=4, width=4, batch_size=8, patch_px=16, ema_decay=0.9, num_steps=20)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "clean"
    with StoreWriter(folder, {}) as writer:
        for i in range(3):
            smooth = np.cumsum(np.random.default_rng(i).normal(0, 3, (40, 44, 1)), axis=1) + 128
            writer.put(f"{i}.png", Stamp(1, 2, "3"), smooth.clip(0, 255).astype("uint8"))
        writer.finish("clean", [Planned(key, key) for key in writer.records], [])
    return folder


def start_two(made: Recipe, store: Path, out: Path) -> subprocess.Popen[str]:
    keywords = [f"{key}={value}" for key, value in made.parameters.items()]
    command = (
        "-m torch.distributed.run --nproc-per-node 2 -m pellucid train --tune off --device cpu --save-every 0.1"
    )
    return subprocess.Popen(
        [sys.executable, *command.split(), made.name, *keywords, "--data", str(store), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in run_folder.read_metrics(folder) if "loss" in line]


@pytest.mark.parametrize(("made", "tolerance"), [(SRCNN, 1e-3), (DNCNN, 1e-4)], ids=["SRCNN", "DnCNN"])
def test_two_processes_train_like_one(made: Recipe, tolerance: float, store: Path, tmp_path: Path) -> None:
    # Sums in another order differ in the last bits, and batch norm and SOAP amplify this in each step: to 2e-4
    # after 20 steps of SOAP. Gradients that are not averaged would change the first digits.
    process = start_two(made, store, tmp_path / "2")
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed
    assert printed.count("weights.safetensors") == 1, "printed once"
    train(made, store, tmp_path / "1", device="cpu", tune=False)
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert len(one) == 20
    np.testing.assert_allclose(two, one, rtol=tolerance)
    assert run_folder.describe_run(tmp_path / "2")["starts"][0]["num_processes"] == 2


def test_a_run_with_a_lost_process_ends_and_can_be_resumed(store: Path, tmp_path: Path) -> None:
    made = override(DNCNN, num_steps=400)
    process = start_two(made, store, tmp_path / "run")
    assert process.stdout is not None
    while "step 20/" not in process.stdout.readline():
        assert process.poll() is None
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    next(worker for worker in workers if worker.environ()["RANK"] == "1").kill()
    printed, _ = process.communicate(timeout=240)
    assert process.returncode != 0
    assert "pellucid: another process of this training has ended; run it again" in printed
    # With a single process: the number of processes may change.
    log: list[str] = []
    weights = train(made, store, tmp_path / "run", device="cpu", tune=False, log=log.append)
    assert "resuming from step" in log[0] and "step 0" not in log[0]
    assert checkpoint.read_metadata(weights).recipe == "dncnn.gaussian"


def test_shared_batch_norm_equals_that_of_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a group of one, where both must agree."""
    for name, value in {"RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29731"}.items():
        monkeypatch.setenv(name, value)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        ours, torchs = nn.Sequential(nn.BatchNorm2d(3)), nn.Sequential(nn.BatchNorm2d(3))
        share_batch_norms(ours)
        assert isinstance(ours[0], SharedBatchNorm2d) and ours.state_dict().keys() == torchs.state_dict().keys()
        torch.manual_seed(0)
        for _ in range(3):
            features = 3 + 2 * torch.randn(4, 3, 5, 6)
            grads = []
            for network in (ours, torchs):
                given = features.clone().requires_grad_()
                (network(given) ** 3).sum().backward()
                assert given.grad is not None
                grads.append(given.grad)
            torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-3)
        for (name, tensor), expected in zip(ours.state_dict().items(), torchs.state_dict().values(), strict=True):
            torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6, msg=name)
        ours.eval(), torchs.eval()
        torch.testing.assert_close(ours(features), torchs(features), rtol=1e-5, atol=1e-5)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("world_size", "error", "is_lost"),
    [
        (2, RuntimeError("Connection reset by peer"), True),
        (2, torch.distributed.DistNetworkError("timed out"), True),
        (2, RuntimeError("shapes differ"), False),
        (1, RuntimeError("Connection reset by peer"), False),
    ],
)
def test_a_lost_process_is_named_if_there_is_another(world_size: int, error: Exception, is_lost: bool) -> None:
    group = Group(torch.device("cpu"), 0, world_size)
    with pytest.raises(PellucidError if is_lost else type(error)) as caught, explain_lost_processes(group):
        raise error
    assert ("another process of this training has ended; run it again" in str(caught.value)) == is_lost


def test_a_group_of_one_shares_nothing() -> None:
    with join_group("cpu") as group:
        assert group == Group(torch.device("cpu"))
        assert group.mean(1.0, 2.0) == [1.0, 2.0] and group.any(True) and not group.any(False)
        assert group.broadcast("x") == "x"
        module = nn.Linear(1, 1)
        assert group.parallelize(module) is module


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "3"}, "WORLD_SIZE is 3, but RANK is not set; start it with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK is 'x', not a number"),
        (
            {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"},
            "RANK is 2, but WORLD_SIZE is 2; start it with torchrun",
        ),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE is 'many', not a number"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "999999"},
            "cannot connect: ",
        ),
    ],
)
def test_variables_that_torchrun_does_not_set_are_one_line(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PellucidError, match=message) as raised, join_group("cpu"):
        pass
    assert "\n" not in str(raised.value)


def test_waiting_for_processes_that_do_not_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "PATIENCE_S", 0.1)
    monkeypatch.setattr(distributed, "TIMEOUT", timedelta(seconds=2))
    lines: list[str] = []
    with pytest.raises(PellucidError, match="cannot connect"), join_group("cpu", lines.append):
        pass
    assert lines == ["waiting for the 2 processes of this training at 127.0.0.1:0"]


def test_without_torchrun_the_only_process_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "5")  # of another launcher
    assert is_first_process()
