"""Timings compare backends; their values are not tested, as they differ from run to run."""

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
def test_every_backend_is_timed_and_agrees(name: str, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    weights = small_models.save_weights(tmp_path, name)
    eager, *others = benchmark.bench(
        weights, megapixels=SMALL, device="cpu", progress=lambda *call: calls.append(call)
    )
    assert (eager.backend, eager.precision, eager.speedup, eager.psnr_db) == ("eager", "float32", 1, None)
    assert [(other.backend, other.precision) for other in others] == list(selection.list_candidates("cpu"))
    for other in others:
        assert other.failure is None and other.speedup is not None and other.megapixels_per_s is not None
        assert math.isclose(other.megapixels_per_s / other.speedup, eager.megapixels_per_s or 0, rel_tol=1e-6)
        assert other.psnr_db is not None and other.psnr_db > (100 if other.precision == "float32" else 30)
    num_runs = benchmark.NUM_ROUNDS * (1 + len(others))
    assert calls == [(turn, num_runs) for turn in range(num_runs)]


def test_a_backend_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(model: object, backend: str, precision: str, device: str) -> object:
        def fail(degraded: Tensor) -> Tensor:
            raise PellucidError("the processor is on fire")

        return fail

    monkeypatch.setattr(selection, "build_backend", build)
    eager, *others = benchmark.bench(
        small_models.save_weights(tmp_path, "dncnn.gaussian"), megapixels=SMALL, device="cpu"
    )
    assert eager.megapixels_per_s is not None
    assert {other.failure for other in others} == {"the processor is on fire"}


def test_only_weight_files_and_some_sizes_can_be_timed(tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match=r"100 megapixels cannot be timed; megapixels can be 0.001 to 4"):
        benchmark.bench(small_models.save_weights(tmp_path, "dncnn.gaussian"), megapixels=100)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(WeightsError, match="is an exported model, not a weight file"):
        benchmark.bench(tmp_path / "model.onnx")


def test_the_command_prints_a_row_for_each_backend(tmp_path: Path) -> None:
    weights = str(small_models.save_weights(tmp_path, "dncnn.gaussian"))
    command = ["bench", weights, "--megapixels", str(SMALL), "--device", "cpu"]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    rows = json.loads(CliRunner().invoke(app, [*command, "--json", "-"]).output)
    for row in rows:
        assert f"{row['backend']} " in shown.output
    assert rows[0]["backend"] == "eager" and rows[0]["psnr_db"] is None


def test_the_speed_of_a_weight_file_is_measured(tmp_path: Path) -> None:
    path = small_models.save_weights(tmp_path, "dncnn.gaussian", depth=3, width=4)
    assert benchmark.measure_speed(path, megapixels=0.001, device="cpu") > 0
