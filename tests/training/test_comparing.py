"""Trainings next to each other: differences, progress, time and scores."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pellucid.cli import app
from pellucid.errors import OutputError
from pellucid.pictures import images
from pellucid.training.comparing import compare_runs
from pellucid.training.plotting import plot


def make_run(folder: Path, *lines: dict[str, Any], **identity: Any) -> Path:
    folder.mkdir(parents=True)
    description = {
        "format": 1,
        "identity": {"recipe": "dncnn.gaussian", "seed": 0, **identity},
        "training": {"num_steps": 300, "batch_size": 36},
        "starts": [{"device": "cpu"}],
    }
    (folder / "run.json").write_text(json.dumps(description))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    one = make_run(
        tmp_path / "one",
        {"step": 100, "loss": 3.0, "images_per_s": 1.0},
        {"step": 100, "psnr_db": 31.0},
        {"step": 200, "loss": 2.0, "images_per_s": 2.0},
        {"step": 200, "psnr_db": 30.0},
        lr=0.1,
    )
    return one, make_run(tmp_path / "two", {"step": 50, "loss": 1.0, "images_per_s": 1.0}, lr=0.2)


def test_a_summary_has_what_differs_and_what_was_reached(runs: tuple[Path, Path]) -> None:
    one, two = compare_runs(runs)
    assert (one.name, one.differences, one.step, one.num_steps) == ("one", {"lr": 0.1}, 200, 300)
    assert one.hours == pytest.approx(1.5)  # 100 steps of 36 s, and 100 of 18 s
    assert (one.loss, one.psnr_db, one.best_psnr_db, one.best_step) == (2.0, 30.0, 31.0, 100)
    assert (two.differences, two.best_psnr_db, two.hours) == ({"lr": 0.2}, None, 0.5)


def test_runs_of_the_same_name_are_called_by_their_paths(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / parent / "run", {"step": 1, "loss": 1.0}) for parent in ("a", "b")]
    assert [run.name for run in compare_runs(folders)] == list(map(str, folders))
    assert [run.hours for run in compare_runs(folders)] == [None, None]


def test_damaged_metrics_are_ignored(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run", {"step": 1, "loss": 3.0}, {"step": 2, "loss": "high"}, {"step": 3, "loss": [1]}
    )
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'null\n[1]\n"step"\n{"loss": 1}\n\xff\xfe\n{"step": 4, "lo')
    (summary,) = compare_runs([run])
    assert (summary.step, summary.loss) == (3, 3.0)
    plot([run], tmp_path / "curves.svg")


def test_a_run_without_metrics_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="has no metrics yet"):
        compare_runs([make_run(tmp_path / "new")])


def test_the_command_prints_a_table_and_plots_against_time(runs: tuple[Path, Path], tmp_path: Path) -> None:
    one, two, out = str(runs[0]), str(runs[1]), str(tmp_path / "c.png")
    result = CliRunner().invoke(app, ["plot", one, two, "--against", "time", "--out", out], env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["one", "dncnn.gaussian", "lr=0.1", "200/300", "1.50", "2", "30.00", "31.00", "at", "100"] in lines
    assert images.read(out).width > 1000
    printed = CliRunner().invoke(app, ["plot", one, two, "--json", "-"]).stdout
    assert [run["step"] for run in json.loads(printed)] == [200, 50]


def test_damaged_lines_of_metrics_are_counted(runs: tuple[Path, Path]) -> None:
    metrics = runs[0] / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{bad\nnull\n{"step": 300, "lo')  # the last one is cut off by a crash
    result = CliRunner().invoke(app, ["plot", str(runs[0])])
    assert result.exit_code == 0 and "metrics.jsonl: 2 damaged lines left out" in result.output
