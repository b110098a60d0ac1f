"""The command line as users see it: results, exit codes, and one-line errors."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from child_processes import interruptible
from pellucid import cli
from pellucid.backends import benchmark
from pellucid.commands import models
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.restoration import entries
from pellucid.system import control_groups
from pellucid.weights import checkpoint


@dataclass
class Result:
    code: int
    out: str
    err: str


class Terminal:
    """Runs `pellucid ARGUMENTS` in a temporary folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, command: str) -> Result:
        self._monkeypatch.setattr(sys, "argv", ["pellucid", *command.split()])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = self._capsys.readouterr()
        return Result(int(stop.value.code or 0), printed.out, printed.err)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], album: None, tiny: None
) -> Terminal:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal(monkeypatch, capsys)


@pytest.fixture
def album(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("photo.png", "album/a.png", "album/deep/b.tif"):
        images.write(Picture(rng.integers(0, 256, (24, 31, 3), np.uint8)), tmp_path / name)
    (tmp_path / "broken.png").write_bytes((tmp_path / "photo.png").read_bytes()[:400])
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.png").write_text("no picture at all")
    (tmp_path / "frame.arw").write_bytes(b"II*\0 raw")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "weights.pth").write_bytes(b"\x80\x04junk")


@pytest.fixture
def tiny(tmp_path: Path) -> None:
    for name, parameters in (("dncnn.gaussian", {"depth": 3, "width": 4}), ("mimo_unet.gopro", {"num_blocks": 1})):
        torch.manual_seed(0)
        chosen = registry.find(name, **parameters)
        metadata = checkpoint.WeightsMetadata(chosen.name, chosen.parameters, "random", "CC0")
        checkpoint.save(tmp_path / "models" / f"tiny-{name[:4]}.safetensors", chosen.network(), metadata)


def test_the_help_keeps_its_words_in_a_narrow_terminal(run: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert "--overwrite" in run("restore --help").out
    monkeypatch.setenv("COLUMNS", "100")
    assert max(map(len, run("restore --help").out.splitlines())) > 90


def test_the_result_of_one_picture_is_next_to_it(run: Terminal) -> None:
    result = run("restore photo.png --model tiny-dncn")
    assert (result.code, result.out.strip()) == (0, "photo-restored.png")
    assert images.read("photo-restored.png").samples.shape == (24, 31, 3)


def test_the_same_command_resumes_a_folder(run: Terminal) -> None:
    command = "restore album --model tiny-dncn --out out --ensemble --strength 0.5 --tile 16"
    assert "2 of 2 pictures restored by tiny-dncn" in run(command).out
    Path("out/deep/b.tif").unlink()
    result = run(command)
    assert (result.code, result.err) == (0, "")
    assert "1 of 2 pictures restored by tiny-dncn" in result.out and "1 already exist" in result.out
    assert images.read("out/deep/b.tif").width == 31
    assert "2 of 2" in run(f"{command} --overwrite").out


def test_foreign_files_are_not_overwritten(run: Terminal) -> None:
    images.write(images.read("photo.png"), Path("out/a.png"))
    result = run("restore album --model tiny-dncn --out out")
    assert result.code == 1 and "out/a.png exists; --overwrite replaces it" in result.err
    assert np.array_equal(images.read("out/a.png").samples, images.read("photo.png").samples)
    result = run("restore album --model tiny-dncn --out out --strength 0.5")
    assert result.err.count("exists") == 2 and "with other settings; --overwrite" in result.err


def test_a_report_contains_the_outcome_of_every_picture(run: Terminal) -> None:
    run("restore broken.png photo.png --model tiny-dncn --out out --report report.json")
    report = json.loads(Path("report.json").read_text())
    assert [entry["status"] for entry in report["pictures"]] == ["failed", "restored"]
    assert "broken.png" in report["pictures"][0]["error"] and report["pictures"][1]["megapixels"] > 0
    assert (report["model"], report["recipe"]) == ("tiny-dncn", "dncnn.gaussian")
    assert run("restore broken.png photo.png --model tiny-dncn --out out --report report.json").code == 1
    assert [entry["status"] for entry in json.loads(Path("report.json").read_text())["pictures"]][
        1
    ] == "left alone"
    Path("report.json").write_text("[]")
    result = run("restore photo.png --model tiny-dncn --report report.json")
    assert result.code == 1 and "report.json exists" in result.err


def test_a_report_lists_missing_inputs_even_if_there_are_no_others(run: Terminal) -> None:
    result = run("restore gone.png gone.jpg --model tiny-dncn --json -")
    report = json.loads(result.out)
    assert result.code == 1 and report["pictures"] == [] and report["model"] == "tiny-dncn"
    assert [line.split(";")[0] for line in report["problems"]] == [
        "gone.png does not exist",
        "gone.jpg does not exist",
    ]
    assert result.err.count("does not exist") == 2


def test_a_folder_for_results_that_cannot_be_written_is_one_line(run: Terminal) -> None:
    Path("out", ".pellucid.jsonl").mkdir(parents=True)
    result = run("restore album --model tiny-dncn --out out")
    assert result.code == 1 and result.err.count("\n") == 1
    assert "out/.pellucid.jsonl is a folder" in result.err


def test_the_gain_of_a_model_can_be_printed_in_any_encoding(
    run: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_encoding", lambda: "ascii")
    assert "->" in run("models").out and "→" not in run("models").out
    monkeypatch.setattr(models, "_encoding", lambda: "utf-8")
    assert "→" in run("models").out


@pytest.mark.parametrize(("value", "is_kept"), [("2", True), ("4,2", True), ("0", False), ("many", False)])
def test_a_thread_count_that_is_no_number_is_one_warning(
    run: Terminal, monkeypatch: pytest.MonkeyPatch, value: str, is_kept: bool
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    result = run("recipes --quiet")
    assert ("OMP_NUM_THREADS" in os.environ) == is_kept
    assert result.err == (
        "" if is_kept else f"warning: OMP_NUM_THREADS={value} is not a number of threads and is ignored\n"
    )


@pytest.mark.parametrize(("quota", "given", "expected"), [(3, None, "3"), (3, "2", "2"), (64, None, None)])
def test_threads_are_limited_to_the_processors_of_the_container(
    run: Terminal, monkeypatch: pytest.MonkeyPatch, quota: int, given: str | None, expected: str | None
) -> None:
    monkeypatch.setattr(control_groups, "count_processors", lambda: quota)
    monkeypatch.setattr(control_groups, "count_available_processors", lambda: 64)
    for name in ("OMP_NUM_THREADS", "VIPS_CONCURRENCY"):
        monkeypatch.setenv(name, given or "")
        if given is None:
            monkeypatch.delenv(name)
    run("recipes --quiet")
    assert {os.environ.get(name) for name in ("OMP_NUM_THREADS", "VIPS_CONCURRENCY")} == {expected}


@pytest.mark.parametrize("wrong", ["--memory much", "--memory 2XB", "--exposure-ratio dark", "--exposure-ratio 0"])
def test_invalid_amounts_are_usage_errors(run: Terminal, wrong: str) -> None:
    assert run(f"restore photo.png --model tiny-dncn {wrong}").code == 2


def test_an_error_states_the_smallest_memory_limit_that_works(run: Terminal) -> None:
    result = run("restore photo.png --model tiny-dncn --memory 1MB")
    assert result.code == 1
    assert re.search(r"photo.png needs more than the memory limit of 1 MB; --memory \d+MB is enough", result.err)
    assert run("restore photo.png --model tiny-dncn --memory 4GB").code == 0


def test_a_bad_picture_is_reported_at_the_end_and_stops_no_other(run: Terminal) -> None:
    result = run("restore broken.png photo.png empty.png --model tiny-dncn --out out")
    assert result.code == 1
    assert "1 of 3 pictures restored" in result.out
    assert [line.split()[1] for line in result.err.splitlines()] == ["broken.png", "empty.png"]
    assert sorted(path.name for path in Path("out").glob("[!.]*")) == ["photo.png"]


def test_a_smaller_halo_prints_its_error(run: Terminal) -> None:
    result = run("restore photo.png --model tiny-mimo --halo 4 --tile 12")
    assert result.code == 0
    assert "halo of 4 px instead of 45" in result.err and "of 255" in result.err


def test_an_exposure_for_developed_pictures_prints_a_warning(run: Terminal) -> None:
    result = run("restore photo.png --model tiny-mimo --exposure-ratio 100")
    assert result.code == 0
    assert "the exposure ratio has no effect: tiny-mimo restores developed pictures" in result.err
    assert "--exposure-ratio" not in run("restore photo.png --model tiny-mimo --out again.png").err


def test_evaluate_prints_scores_and_protocol(run: Terminal) -> None:
    result = run("evaluate tiny-dncn sigma_255=10 --data album --json report.json")
    assert result.code == 0
    assert "mean of 2" in result.out and "GaussianNoise(sigma_255=10.0)" in result.out
    assert json.loads(Path("report.json").read_text())["protocol"]["num_pictures"] == 2
    again = run("evaluate tiny-dncn --data album --json report.json")
    assert again.code == 1 and "report.json exists; --overwrite replaces it" in again.err


def test_models_lists_names_recipes_and_licenses(run: Terminal) -> None:
    result = run("models")
    assert result.code == 0 and "tiny-dncn" in result.out and "CC0" in result.out
    listed = json.loads(run("models --json -").out)
    mine = {model["name"]: model for model in listed if not model["ships"]}
    assert mine["tiny-dncn"]["recipe"] == "dncnn.gaussian" and mine["tiny-dncn"]["license"] == "CC0"


def test_the_table_of_models_fits_80_columns_without_broken_words(
    run: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in Path("models").iterdir():
        path.unlink()
    monkeypatch.setattr(benchmark, "measure_speed", lambda path: 12.3)
    for command in ("models", "models --speed"):
        printed = run(command).out.splitlines()
        start = next(i for i, line in enumerate(printed) if "dncnn-color-blind" in line)
        rows = [line for line in printed[start:] if "→" in line]
        assert len(rows) == 15 and max(map(len, (line.rstrip() for line in rows))) <= 80
        assert all(line.rstrip().endswith("Apache-2.0") for line in rows)
    assert "noise up to 55" in printed[start] and " 12 " in printed[start]


def test_models_show_their_recipes_with_long(run: Terminal) -> None:
    printed = run("models --long").out
    assert "dncnn.gaussian" in printed and "srcnn.tuned" in printed and "Set14 32.58" in printed
    assert run("models tiny-dncn --long").code == 2


def test_a_model_says_what_it_is_for(run: Terminal) -> None:
    assert "\nfor: noise of a camera; input: color\n" in run("models dncnn-photo").out
    assert "\nfor: too small, x2; input: any\n" in run("models srcnn-x2").out


def test_a_damaged_model_is_listed_with_its_error(run: Terminal) -> None:
    Path("models/bad.safetensors").write_bytes(b"junk")
    result = run("models")
    assert result.code == 0 and re.search(r"^ ?bad  +cannot be read", result.out, re.MULTILINE)
    assert "warning: bad: " in result.err and result.err.count("\n") == 1
    (error,) = [model["error"] for model in json.loads(run("models --json -").out) if "error" in model]
    assert "bad.safetensors is not a complete safetensors file" in error


def test_recipes_lists_names_and_keywords(run: Terminal) -> None:
    assert "dncnn.three_tasks" in run("recipes").out
    assert "number from 0 to 255" in run("recipes dncnn.gaussian").out


def test_convert_writes_a_file_with_its_metadata(run: Terminal) -> None:
    weights = {
        f"conv{i}.weight": torch.randn(shape)
        for i, shape in enumerate([(64, 1, 9, 9), (32, 64, 5, 5), (1, 32, 5, 5)], start=1)
    }
    torch.save(weights, "theirs.pth")
    result = run("convert theirs.pth --recipe srcnn.paper scale=3 --out ours.safetensors --license MIT")
    assert result.code == 0 and "srcnn.paper scale=3" in result.out
    assert checkpoint.read_metadata(Path("ours.safetensors")).license == "MIT"
    assert run("restore photo.png --model ours.safetensors").code == 0
    assert images.read("photo-restored.png").width == 93


WRONG = [
    ("restore missing.png --model tiny-dncn", "missing.png does not exist"),
    ("restore empty.png --model tiny-dncn", "empty.png is empty"),
    ("restore broken.png --model tiny-dncn", "broken.png is damaged"),
    ("restore notes.png --model tiny-dncn", "notes.png is not a PNG"),
    ("restore frame.arw --model tiny-dncn", "frame.arw is damaged, truncated or of an unsupported type"),
    ("restore nothing --model tiny-dncn", "nothing contains no pictures"),
    ("restore photo.png --model tiny-dnc", "did you mean tiny-dncn"),
    ("restore photo.png --model tiny-dncn --out .png", ".png is only the suffix of a name"),
    ("advise gone*.png", "no file matches gone*.png; check the pattern"),
    ("restore photo.png --model missing.safetensors", "missing.safetensors does not exist"),
    ("restore photo.png --model weights.pth", "pellucid convert"),
    ("restore photo.png --model nothing/", "is a folder"),
    ("prepare folder album --out s --json s/index.json --overwrite", "pellucid's own records"),
    ("models nothing", "nothing is a folder, not a weight file"),
    ("prepare folder album --out s --min-px 9999", "0 of 2 items could be stored"),
    ("restore album --model tiny-dncn --out s --on ray://127.0.0.1:1", "nothing answers at ray://127.0.0.1:1"),
    ("restore photo.png --model nothing", "nothing is a folder, not a weight file"),
    (
        "restore photo.png --model tiny-dncn --report .pellucid.jsonl --overwrite",
        "pellucid's own records",
    ),
    (
        "restore photo.png --model tiny-dncn --device toaster",
        "device 'toaster' cannot be used here; available: cpu",
    ),
    ("restore photo.png --model tiny-dncn --out photo.png --overwrite", "photo.png is one of the inputs"),
    ("restore photo.png --model tiny-dncn --out album/a.png", "album/a.png exists; --overwrite replaces it"),
    ("restore photo.png --model tiny-dncn --out notes.png/x.png", "notes.png is a file; a folder is needed"),
    ("restore photo.png album/a.png --model tiny-dncn --out broken.png", "broken.png is a file; --out must"),
    ("restore photo.png --model tiny-dncn --set depth=17", "does not fit dncnn.gaussian"),
    ("export tiny-dncn+tiny-mimo --out x.onnx", "tiny-dncn+tiny-mimo does not exist; one model is needed here"),
    ("bench tiny-dncn+tiny-mimo", "tiny-dncn+tiny-mimo does not exist; one model is needed here"),
    ("export tiny-dncn --out x.onnx --data gone", "gone does not exist"),
    ("export tiny-dncn --out photo.png/x.onnx", "photo.png is a file; a folder is needed"),
    ("prepare folder album --out s --against gone", "gone is not a folder"),
    ("evaluate tiny-dncn --data nothing", "nothing contains no pictures"),
    ("evaluate tiny-dncn --data gone", "gone does not exist"),
    ("train srcnn.paper --data nothing --out run", "nothing contains no pictures"),
    ("prepare folder photo.png --out s", "photo.png is a single file; a folder, zip or tar is needed"),
    ("evaluate tiny-mimo --data album", "its clean pictures as --target"),
    ("evaluate tiny-mimo --data album --target nothing", "nothing contains no pictures"),
    ("evaluate tiny-dncn --data album --save album --overwrite", "one of the pictures to score"),
    ("convert weights.pth --recipe dncnn.gaussian --out x.safetensors", "weights.pth"),
    ("convert photo.png --recipe dncnn.gaussian --out x.safetensors", "photo.png"),
    ("convert gone.mat --recipe dncnn.gaussian --out x.safetensors", "gone.mat does not exist"),
]


@pytest.mark.parametrize(("command", "message"), WRONG, ids=[command for command, _ in WRONG])
def test_errors_that_users_can_fix_are_one_line_and_exit_code_1(run: Terminal, command: str, message: str) -> None:
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    result = run(command)
    assert result.code == 1
    (line,) = result.err.strip().splitlines()
    assert line.startswith("pellucid: ") and message in line
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("convert weights.pth --recipe dncnn.gaussian --out x.pt", "x.pt does not end in .safetensors"),
        ("export tiny-dncn --out x.xml --format onnx", "x.xml does not end in .onnx"),
        ("plot run --out x.txt", "x.txt is not a .png, .pdf or .svg file"),
        ("restore photo.png --model tiny-dncn --set sigma=3", "did you mean sigma_255"),
        ("restore photo.png --model tiny-dncn --set sigma_255=900", "sigma_255=900 is not possible"),
        ("evaluate tiny-dncn --data album sigma_255=loud", "sigma_255=loud is not possible"),
        ("evaluate tiny-dncn --data album name=3", "dncnn.gaussian has no keyword 'name'"),
        (
            "restore photo.png --model tiny-dncn --set lr=1",
            "lr is a keyword of training, which has no effect on trained weights",
        ),
        ("evaluate tiny-dncn --data album num_steps=1", "num_steps is a keyword of training"),
        ("evaluate srcnn-x2 --data album num_steps=1", "num_steps is a keyword of training"),
        (
            "restore photo.png --model tiny-dncn --exposure-ratio 1e300",
            "auto or a number above 0, at most",
        ),
        (
            "train mimo_unet.synthetic --data album --out run patch_px=10",
            "needs a multiple of 4",
        ),
        ("train dncnn.gaussian --data album --out run patch_px=1 batch_size=1", "a batch of one pixel"),
        ("train srcnn.paper --data album --out run patch_px=16", "patch_px=16: srcnn.paper needs 17 or more"),
        ("export tiny-dncn --out x.xml --json x.bin", "--json x.bin is the file for the weights of x.xml"),
        ("prepare check album --out s --min-px 5", "check only reads a store; omit --out, --min-px"),
        ("prepare folder --against album", "without a SOURCE, the keywords of KIND are printed; omit --against"),
        ("prepare check album --overwrite", "--overwrite only replaces the file of --json"),
        ("models tiny-dncn --overwrite", "--overwrite only replaces the file of --json"),
        ("models --overwrite --json -", "--overwrite only replaces the file of --json"),
        ("recipes --overwrite", "--overwrite only replaces the file of --json"),
        ("bench tiny-dncn --overwrite", "--overwrite only replaces the file of --json"),
        ("train srcnn.paper --data album --out r --overwrite", "--overwrite only replaces the file of --json"),
        ("advise photo.png --overwrite", "--overwrite only replaces the file of --json or --try"),
        ("status album --overwrite", "--overwrite only replaces the file of --json or --report"),
        ("evaluate tiny-dncn --data album --overwrite", "the file of --json or --csv or --save"),
        ("restore photo.png --model tiny-dncn --set path=3", "dncnn.gaussian has no keyword 'path'"),
        ("restore photo.png --model tiny-dncn --backend x", "no backend 'x'"),
        ("evaluate tiny-dncn --data album --precision x", "no precision 'x'"),
        ("evaluate tiny-dncn --data album --target album --colors lab", "colors 'lab' are unknown"),
        ("export tiny-dncn --out x.onnx --format x", "no format 'x'"),
        ("export tiny-dncn --out x.zip", "does not belong to an export format"),
        ("bench tiny-dncn --megapixels nan", "nan megapixels cannot be timed"),
        ("prepare x album --out s", "no data set 'x'"),
        ("prepare folder album --out s --set x=1", "folder has no keyword 'x'"),
        ("recipes dncn.gausian", "did you mean dncnn.gaussian"),
        ("convert weights.pth --recipe os.system --out x.safetensors", "no recipe 'os.system'"),
        ("restore photo.png", "Missing option '--model'"),
        ("restore --model tiny-dncn", "Missing argument 'INPUT'"),
        ("restore photo.png --model tiny-dncn --tile 0", "--tile"),
        ("restore photo.png --model tiny-dncn --strength 2", "--strength"),
        ("restore photo.png --model tiny-dncn --set sigma", "does not have the form KEY=VALUE"),
        ("evaluate tiny-dncn", "Missing option '--data'"),
        ("evaluate tiny-dncn --data album sigma", "'sigma' is not a keyword, KEY=VALUE; --model adds another"),
        ("restore photo.png --model auto+srcnn-x2", "it cannot be part of a chain"),
        ("evaluate tiny-dncn --data album device=cpu", "use --device"),
        ("restor photo.png", "restore"),
        ("--nonsense", "No such option"),
        (
            "restore photo.png --model tiny-dncn --out new.gif",
            "new.gif cannot be written, because the suffix .gif",
        ),
        ("restore photo.png album --model tiny-dncn --out o.png", "o.png is the name of a file; --out must"),
        ("restore album --model tiny-dncn --out out --name {stem}", "gives names like a, without the suffix"),
        ("evaluate tiny-dncn --data album --target album --seeds 2", "seeds have no effect; omit --seeds"),
    ],
)
def test_command_lines_that_cannot_be_meant_are_one_line_and_exit_code_2(
    run: Terminal, command: str, message: str
) -> None:
    result = run(command)
    assert result.code == 2 and result.out == ""
    (line,) = result.err.strip().splitlines()
    assert line.startswith("pellucid: ") and message in line


def test_a_recipe_that_differs_from_the_weights_prints_a_warning(run: Terminal) -> None:
    message = "sigma_255=50.0, but the weights were trained with sigma_255=25.0"
    result = run("evaluate tiny-dncn sigma_255=50 --data album --json report.json")
    assert result.code == 0 and message in result.err
    assert message in json.loads(Path("report.json").read_text())["changes"][0]
    assert message in run("restore photo.png --model tiny-dncn --set sigma_255=50").err


def test_a_missing_name_does_not_stop_the_others(run: Terminal) -> None:
    result = run("restore gone.png photo.png nothing --model tiny-dncn --out out --json -")
    assert result.code == 1 and Path("out/photo.png").exists()
    assert (
        result.err == "pellucid: gone.png does not exist; check the name\npellucid: nothing contains no pictures\n"
    )
    report = json.loads(result.out)
    assert report["problems"] == ["gone.png does not exist; check the name", "nothing contains no pictures"]
    assert [entry["status"] for entry in report["pictures"]] == ["restored"]


@pytest.mark.parametrize("delay_s", [0.3, 0.5, 0.7])
def test_ctrl_c_during_start_is_not_lost(run: Terminal, delay_s: float) -> None:
    process = _restoring_many_pictures()
    time.sleep(delay_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    is_early = process.returncode == -signal.SIGINT and err == ""  # on a busy machine, before Python runs
    assert (process.returncode == 130 or is_early) and "Traceback" not in err


def test_file_names_can_contain_anything(run: Terminal) -> None:
    for name in ("[red]x[b].png", "two\nlines.png", "\udcff.png", "ä ö.png"):
        images.write(images.read("photo.png"), Path("odd") / name)
        images.write(images.read("photo.png"), Path("bad") / name)
        (Path("bad") / name).write_bytes(b"junk")
    assert run("restore odd --model tiny-dncn").code == 0
    assert len(list(Path("odd-restored").glob("[!.]*"))) == 4
    result = run("evaluate tiny-dncn --data odd")
    assert result.code == 0 and "[red]x[b].png" in result.out
    result = run("restore bad --model tiny-dncn")
    assert result.code == 1 and len(result.err.splitlines()) == 4


TINY_TRAINING = "train dncnn.gaussian depth=3 width=4 patch_px=16 batch_size=2 --device cpu --tune off"


def test_train_then_evaluate_restore_and_plot(run: Terminal) -> None:
    result = run(f"{TINY_TRAINING} --steps 4 --data album --out runs/a --val album --limit 1")
    assert (result.code, result.out.strip()) == (0, "runs/a/weights.safetensors")
    assert "step 4/4: loss" in result.err and "dB, lr" in result.err and "images/s" in result.err
    assert run("evaluate runs/a/weights.safetensors --data album").code == 0
    assert run("restore photo.png --model runs/a/weights.safetensors").code == 0
    assert run("plot runs/a --out curves.png").out.strip().endswith("\ncurves.png")
    again = run(f"{TINY_TRAINING} --steps 4 --data album --out runs/a --val album --limit 1")
    assert again.code == 0 and "all steps are done (4)" in again.err
    other = run(f"{TINY_TRAINING} --steps 5 --data album --out runs/a --val album --limit 1")
    assert (
        other.code == 1 and "with num_steps=4, not num_steps=5" in other.err and len(other.err.splitlines()) == 1
    )


def test_train_on_pairs(run: Terminal) -> None:
    images.write(images.read("album/a.png"), Path("blur/a.png"))
    command = "train mimo_unet.gopro num_blocks=1 patch_px=8 batch_size=1 num_steps=1 --device cpu --tune off"
    assert "pairs of degraded and clean pictures" in run(f"{command} --data blur --out runs/p").err
    result = run(f"{command} --data blur --target album --out runs/p --val blur --val-target album")
    assert (result.code, result.out.strip()) == (0, "runs/p/weights.safetensors"), result.err


def test_measure_prints_the_speed(run: Terminal) -> None:
    result = run(f"{TINY_TRAINING} --data album --measure 4")
    assert result.code == 0 and "images/s" in result.out and "waiting for data (float32" in result.out
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data album --out r validate_every=2", "validate_every needs --val"),
        ("--data album --measure 2 --val album --profile", "only measures the speed .*; omit --val, --profile"),
        ("--data album --measure 2 --from tiny-dncn --tensorboard", "omit --from, --tensorboard"),
        (
            "--data album --out r --steps 4 at_steps=3,2",
            "at_steps=3,2 is not possible; expected steps that ascend",
        ),
        ("--data album", "--out RUN is needed"),
        ("--data album --out r --val-target album", "--val-target needs --val"),
    ],
)
def test_invalid_combinations_of_train_options_are_usage_errors(run: Terminal, options: str, message: str) -> None:
    result = run(f"{TINY_TRAINING} {options}")
    assert result.code == 2 and re.search(message, " ".join(result.err.split()))


def test_recipes_lists_the_training_keywords(run: Terminal) -> None:
    printed = run("recipes srcnn.tuned").out
    assert "mapping_px" in printed and "ema_decay" in printed
    assert len(re.findall("^ *num_steps", printed, re.MULTILINE)) == 1


def test_help_and_version(run: Terminal) -> None:
    for command in (
        "--help",
        "restore --help",
        "evaluate --help",
        "train --help",
        "plot --help",
        "models --help",
        "convert --help",
        "recipes -h",
    ):
        result = run(command)
        assert result.code == 0 and "Usage" in result.out
    assert "*.tif or scans/*" in run("restore --help").out  # stars are not emphasis
    assert run("--version").out.startswith("pellucid ")


def _restoring_many_pictures() -> subprocess.Popen[str]:
    """A child process that works for some seconds."""
    for i in range(30):
        samples = np.random.default_rng(i).integers(0, 256, (300, 300, 3), np.uint8)
        images.write(Picture(samples), Path("many") / f"{i:02}.png", overwrite=True)
    command = [sys.executable, "-m", "pellucid", "restore", "many", "--model", "tiny-dncn", "--ensemble"]
    return subprocess.Popen(interruptible(command), stderr=subprocess.PIPE, text=True, env=dict(os.environ))


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_after_a_stop_files_are_whole_and_the_same_command_resumes(run: Terminal, stop: signal.Signals) -> None:
    process = _restoring_many_pictures()
    deadline_s = time.monotonic() + 60
    while not list(Path().glob("many-restored/*.png")) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + stop and "the same command resumes" in err, err
    assert [path.name for path in Path("many-restored").glob(".*")] == [entries.NAME]
    done = [path for path in Path("many-restored").glob("[!.]*") if images.read(path).width == 300]
    result = run("restore many --model tiny-dncn --ensemble")
    assert result.code == 0 and f"{len(done)} already exist" in result.out


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("convert weights.pth --recipe srcnn.paper --out a.safetensors --json weights.pth", "an input"),
        ("export tiny-dncn --out a.onnx --json ./a.onnx", "--out"),
        ("evaluate tiny-dncn --data album --csv a.txt --json a.txt", "--json"),
    ],
)
def test_a_report_never_replaces_what_another_option_names(run: Terminal, command: str, option: str) -> None:
    before = Path("weights.pth").read_bytes()
    result = run(f"{command} --overwrite")
    assert result.code == 2 and f"is also {option}; choose another name for the report\n" in result.err
    assert Path("weights.pth").read_bytes() == before and not Path("a.txt").exists()


@pytest.mark.parametrize(
    "command",
    [
        f"{TINY_TRAINING} --data album --out run --steps 1 --json photo.png",
        "bench tiny-dncn --megapixels 0.001 --json photo.png",
        "export tiny-dncn --out a.onnx --json photo.png",
        "convert gone.pth --recipe srcnn.paper --out b.safetensors --json photo.png",
        "convert gone.pth --recipe srcnn.paper --out models/tiny-dncn.safetensors",
    ],
)
def test_files_that_exist_are_reported_before_any_work(run: Terminal, command: str) -> None:
    result = run(command)
    name = "models/tiny-dncn.safetensors" if "tiny-dncn.s" in command else "photo.png"
    assert (result.code, result.err) == (1, f"pellucid: {name} exists; --overwrite replaces it\n")
    assert not {"run", "a.onnx", "b.safetensors"} & {path.name for path in Path().iterdir()}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("restore photo.png --model tiny-dncn --out out.png --report photo.png", "photo.png"),
        ("restore album --model tiny-dncn --out out --report album/a.png", "album/a.png"),
        ("restore photo.png --model tiny-dncn --out out.png --report out.png", "out.png"),
        ("evaluate tiny-dncn --data album --json album/a.png", "album/a.png"),
    ],
)
def test_a_report_never_replaces_a_picture(run: Terminal, tmp_path: Path, command: str, name: str) -> None:
    images.write(images.read("photo.png"), tmp_path / "out.png")
    before = (tmp_path / name).read_bytes()
    result = run(f"{command} --overwrite")
    assert result.code == (2 if "is also" in result.err else 1) and result.err.count("\n") == 1
    assert re.match(
        f"pellucid: {name} is (one of the pictures|also .*|a file, but not a report); "
        "choose another name for the report",
        result.err,
    )
    assert (tmp_path / name).read_bytes() == before


def test_a_report_replaces_no_file_that_is_not_one(run: Terminal, tmp_path: Path) -> None:
    """Not even with --overwrite: also a picture, weights or a store that the command does not name."""
    assert run("models --json models.json").code == 0
    (tmp_path / "index.json").write_text("{}")
    for name in ("photo.png", "index.json"):
        before = (tmp_path / name).read_bytes()
        result = run(f"models --json {name} --overwrite")
        assert result.code == 1 and result.err.count("\n") == 1 and "choose another name" in result.err
        assert (tmp_path / name).read_bytes() == before
    assert run("models --json models.json --overwrite").code == 0


def test_results_keep_the_name_of_their_model_if_those_of_the_other_one_are_gone(
    run: Terminal, tmp_path: Path
) -> None:
    for name in ("tiny-dncn", "tiny-mimo"):
        run(f"restore photo.png --model {name} --out both")
    assert sorted(path.name for path in (tmp_path / "both").glob("*.png")) == ["photo-tiny-mimo.png", "photo.png"]
    (tmp_path / "both" / "photo.png").unlink()
    assert "photo-tiny-mimo.png already exists" in run("restore photo.png --model tiny-mimo --out both").out
    assert not (tmp_path / "both" / "photo.png").exists()


def test_a_report_replaces_only_the_one_of_the_same_results(run: Terminal) -> None:
    assert run("restore photo.png --model tiny-mimo --out one --json r.json").code == 0
    assert run("restore photo.png --model tiny-mimo --out one --json r.json").code == 0
    before = Path("r.json").read_bytes()
    other = run("restore photo.png --model tiny-mimo --out two --json r.json")
    assert other.code == 1 and "r.json exists; --overwrite replaces it" in other.err
    assert Path("r.json").read_bytes() == before and not Path("two").exists()
    assert run("restore photo.png --model tiny-mimo --out two --json r.json --overwrite").code == 0


def test_a_report_of_an_interrupted_run_or_of_missing_pictures_is_replaced(run: Terminal) -> None:
    command = "restore new.png --model tiny-mimo --out one.png --json r.json"
    assert run(command).code == 1
    Path("r.json").write_text(json.dumps({"model": "", "recipe": "", "parameters": {}, "pictures": []}))
    Path("new.png").write_bytes(Path("photo.png").read_bytes())
    assert run(command).code == 0 and json.loads(Path("r.json").read_text())["pictures"]


def test_shards_do_not_replace_reports_of_each_other(run: Terminal) -> None:
    codes = [run(f"restore album --model tiny-dncn --out o --shard {n}/2 --json r.json") for n in (1, 2)]
    num_targets = len(json.loads(Path("r.json").read_text())["pictures"])
    assert num_targets < 2 or [one.code for one in codes] == [0, 1]
    if num_targets == 1:
        assert "r.json exists; --overwrite replaces it" in codes[1].err and len(list(Path("o").glob("*.png"))) == 1


def test_no_memory_is_one_line(run: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("pellucid.restoration.restorer.load", fail)
    result = run("restore photo.png --model tiny-mimo")
    assert (
        result.code == 1
        and result.err == "pellucid: not enough memory; smaller tiles need less, e.g. --tile 256\n"
    )


def test_export_of_an_enormous_shape_is_one_line(run: Terminal) -> None:
    result = run("export tiny-dncn --out x.onnx --shape 1,1,10000000,10000000")
    assert result.code == 1 and result.err.count("\n") == 1
    assert "not enough memory for an input of this size; choose a smaller --shape" in result.err
