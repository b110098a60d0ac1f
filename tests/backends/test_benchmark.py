"""Timings compare the ways to run weights; what they take is not tested, as it differs from run to run."""

import json
import math
from pathlib import Path

import pytest
from torch import Tensor
from typer.testing import CliRunner

import small_models
from pellucid.backends import benchmark, selection
from pellucid.cli import app
from pellucid.errors import PellucidError, WeightsError

SMALL = 0.002


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["dncnn.gaussian", "sid_unet.sony"])
def test_every_way_is_timed_and_agrees(name: str, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    weights = small_models.save_weights(tmp_path, name)
    plain, *others = benchmark.bench(
        weights, megapixels=SMALL, device="cpu", progress=lambda *call: calls.append(call)
    )
    assert (plain.backend, plain.precision, plain.speedup, plain.psnr_db) == ("plain", "float32", 1, None)
    assert [(other.backend, other.precision) for other in others] == list(selection.list_options("cpu"))
    for other in others:
        assert other.failure is None and other.speedup is not None and other.megapixels_per_s is not None
        assert math.isclose(other.megapixels_per_s / other.speedup, plain.megapixels_per_s or 0, rel_tol=1e-6)
        assert other.psnr_db is not None and other.psnr_db > (100 if other.precision == "float32" else 30)
    num_runs = benchmark.NUM_ROUNDS * (1 + len(others))
    assert calls == [(turn, num_runs) for turn in range(num_runs)]


def test_a_way_that_fails_is_told_and_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(plan: object, backend: str, precision: str, device: str) -> object:
        def broken(degraded: Tensor) -> Tensor:
            raise PellucidError("the processor is on fire")

        return broken

    monkeypatch.setattr(selection, "build", build)
    plain, *others = benchmark.bench(
        small_models.save_weights(tmp_path, "dncnn.gaussian"), megapixels=SMALL, device="cpu"
    )
    assert plain.megapixels_per_s is not None
    assert {other.failure for other in others} == {"the processor is on fire"}


def test_only_sizes_that_fit_and_weights_are_timed(tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match=r"100 megapixels; 0.001 to 4 can be timed"):
        benchmark.bench(small_models.save_weights(tmp_path, "dncnn.gaussian"), megapixels=100)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(WeightsError, match="bench compares those of a weight file"):
        benchmark.bench(tmp_path / "model.onnx")


def test_the_command_prints_a_row_for_each_way(tmp_path: Path) -> None:
    weights = str(small_models.save_weights(tmp_path, "dncnn.gaussian"))
    command = ["bench", weights, "--megapixels", str(SMALL), "--device", "cpu"]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    rows = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
    for row in rows:
        assert f"{row['backend']} " in shown.output
    assert rows[0]["backend"] == "plain" and rows[0]["psnr_db"] is None
