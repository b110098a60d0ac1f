"""`pellucid evaluate`: several models, results without a model, files for scripts, and interruptions."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import small_models
from child_processes import interruptible
from pellucid.cli import app
from pellucid.pictures import images
from pellucid.pictures.picture import Picture


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with pictures and two trainings whose weight files have the same name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    for i in range(3):
        samples = np.random.default_rng(i).integers(0, 256, (24, 31, 1), np.uint8)
        images.write(Picture(samples), tmp_path / "clean" / f"{i}.png")
    for run, width in (("one", 4), ("two", 5)):
        path = small_models.save_weights(tmp_path, "dncnn.gaussian", depth=3, width=width)
        (tmp_path / run).mkdir()
        path.rename(tmp_path / run / "weights.safetensors")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", *arguments], env={"COLUMNS": "120"})


BOTH = ("--model", "one/weights.safetensors", "--model", "two/weights.safetensors", "--data", "clean")


def test_several_models_are_in_one_table() -> None:
    result = run(*BOTH, "sigma_255=20", "--json", "out.json", "--csv", "out.csv")
    assert result.exit_code == 0, result.output
    header = next(line for line in result.stdout.splitlines() if "PSNR dB" in line)
    assert header.split() == ["PSNR", "dB", "one/weights.safetensors", "two/weights.safetensors"]
    reports = json.loads(Path("out.json").read_text())
    assert [report["model"] for report in reports] == ["one/weights.safetensors", "two/weights.safetensors"]
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert len(rows) == 6 and rows[0]["picture"] == "0.png"
    for report in reports:
        found = [float(row["psnr_db"]) for row in rows if row["model"] == report["model"]]
        assert np.mean(found) == pytest.approx(report["mean"]["psnr_db"])
        assert f"{report['mean']['psnr_db']:.2f}" in result.stdout


def test_protocols_that_differ_are_a_warning() -> None:
    small_models.save_weights(Path(), "srcnn.paper", mapping_px=1)
    result = run(*BOTH[:2], "--model", "srcnn.paper.safetensors", "--data", "clean")
    assert result.exit_code == 0 and "these scores cannot be compared, because protocols differ" in result.stderr


def test_results_are_scored_without_a_model() -> None:
    assert run(*BOTH[:2], "--data", "clean", "--save", "saved", "--json", "model.json").exit_code == 0
    result = run("--data", "saved", "--target", "clean", "--json", "-")
    assert result.exit_code == 0, result.output
    found, expected = json.loads(result.stdout), json.loads(Path("model.json").read_text())
    assert found["recipe"] is None and found["model"] == "saved"
    assert found["mean"]["psnr_db"] == pytest.approx(expected["mean"]["psnr_db"], abs=0.05)


def test_standard_output_contains_only_what_was_asked_for() -> None:
    result = run(*BOTH, "--csv", "-")
    assert len(list(csv.DictReader(io.StringIO(result.stdout)))) == 6
    assert run(*BOTH, "--csv", "-", "--json", "-").exit_code == 2


def test_seeds_give_a_mean_and_its_confidence() -> None:
    result = run(*BOTH[:2], "--data", "clean", "--seeds", "3", "--json", "-")
    report = json.loads(result.stdout)
    assert len(set(report["seeds"]["psnr_db"])) == 3 and report["protocol"]["noise_seed"] == "0 to 2"
    assert report["mean"]["psnr_db"] == pytest.approx(np.mean(report["seeds"]["psnr_db"]))
    shown = run(*BOTH[:2], "--data", "clean", "--seeds", "3").stdout
    assert f"± {report['seeds']['psnr_db_confidence_95']:.3f}" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "clean"], "a MODEL is needed, or --target"),
        (["--data", "clean", "--target", "clean", "sigma_255=3"], "sigma_255= is a keyword of a recipe"),
        (["--data", "clean", "--target", "clean", "--save", "saved"], "--save needs a MODEL"),
        (["--data", "clean", "--target", "clean", "--seeds", "2"], "--seeds needs a MODEL"),
        (["--data", "clean", "--target", "clean", "--device", "cpu"], "--device needs a MODEL"),
    ],
)
def test_options_that_cannot_act_are_usage_errors(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2 and message in " ".join(result.output.replace("│", " ").split())


def test_seeds_and_colors_that_cannot_act_are_errors() -> None:
    result = run(*BOTH[:2], "--data", "clean", "--target", "clean", "--seeds", "2")
    assert "no noise is drawn for these scores, so that seeds have no effect" in str(result.exception)
    result = run(*BOTH[:2], "--data", "clean", "--colors", "rgb")
    assert "only pairs of pictures can be scored in other colors; omit colors" in str(result.exception)


def test_a_cache_that_cannot_be_written_does_not_stop_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv("PELLUCID_CACHE", "file/cache")
    result = run(*BOTH)
    assert result.exit_code == 0 and "if interrupted, this evaluation starts again" in result.stderr


def test_an_interrupted_command_resumes(folder: Path) -> None:
    for i in range(3, 60):
        samples = np.random.default_rng(i).integers(0, 256, (200, 200, 1), np.uint8)
        images.write(Picture(samples), folder / "clean" / f"{i}.png")
    command = [sys.executable, "-m", "pellucid", "evaluate", *BOTH]
    process = subprocess.Popen(interruptible(command), stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    deadline_s = time.monotonic() + 60
    while not any(path.read_text().count("\n") > 1 for path in folder.glob("cache/evaluations/*")):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command resumes" in err, err
    result = run(*BOTH)
    assert result.exit_code == 0 and "from earlier runs: " in result.stderr
    assert not list(folder.glob("cache/evaluations/*"))
    assert "interrupted evaluation" not in run(*BOTH).stderr
