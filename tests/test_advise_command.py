"""`pellucid advise`: the table, JSON, sheets, and files that cannot be read."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from test_cli import Terminal
from test_cli import album as album  # fixtures
from test_cli import run as run
from test_cli import tiny as tiny


@pytest.fixture
def noisy(run: Terminal) -> None:
    """A noisy picture and a clean one; also in a folder."""
    Path("scans").mkdir()
    flat = np.full((80, 100, 3), 128.0)
    noise = np.random.default_rng(0).normal(0, 20, flat.shape)
    Image.fromarray((flat + noise).round().astype(np.uint8)).save("scans/noisy.png")
    Image.fromarray(flat.astype(np.uint8)).resize((1000, 700)).save("scans/clean.png")


def test_a_table_names_problem_model_and_reason(run: Terminal, noisy: None) -> None:
    result = run("advise scans")
    assert result.code == 0
    lines = result.out.splitlines()
    (found,) = (line for line in lines if line.startswith("noisy.png"))
    assert "dncnn-color-blind" in found and "noise of about 19 (white is 255)" in found
    (clean,) = (line for line in lines if line.startswith("clean.png"))
    assert "none found" in clean
    assert lines[-1] == "e.g.  pellucid restore scans/noisy.png --model dncnn-color-blind"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_example_names_files_whose_names_are_not_text(run: Terminal, noisy: None) -> None:
    name = os.fsdecode(b"scans/a\xff'\\\n.png")
    Path("scans/noisy.png").rename(name)
    line = run("advise scans").out.splitlines()[-1]
    quoted = line.removeprefix("e.g.  pellucid restore ").partition(" --model")[0]
    assert quoted.isascii()
    assert subprocess.run(["bash", "-c", f"cat {quoted}"], capture_output=True).stdout == Path(name).read_bytes()


def test_the_example_can_be_pasted_into_a_shell(run: Terminal, noisy: None) -> None:
    name = "scans/Ann's $HOME.png"
    Path("scans/noisy.png").rename(name)
    example = run("advise scans").out.splitlines()[-1].removeprefix("e.g.  ")
    assert shlex.split(example) == ["pellucid", "restore", name, "--model", "dncnn-color-blind"]


def test_json_has_the_same_without_the_table(run: Terminal, noisy: None) -> None:
    clean, found = json.loads(run("advise scans --json -").out)
    assert clean == {"picture": "scans/clean.png", "advice": []}
    assert [(one["problem"], one["model"]) for one in found["advice"]] == [
        ("noise", "dncnn-color-blind"),
        ("too small", "srcnn-x2"),
    ]


def test_sheets_are_drawn_of_pictures_with_a_problem(run: Terminal, noisy: None) -> None:
    result = run("advise scans --try sheets")
    assert result.code == 0 and result.out.splitlines()[-1] == "sheets/noisy.png-advice.png"
    assert [path.name for path in Path("sheets").iterdir()] == ["noisy.png-advice.png"]
    with Image.open("sheets/noisy.png-advice.png") as sheet:
        assert sheet.width > 400


def test_pictures_of_the_same_name_are_told_apart(run: Terminal, noisy: None) -> None:
    Path("more").mkdir()
    shutil.copy("scans/noisy.png", "more/noisy.png")
    result = run("advise scans/noisy.png more --try sheets")
    assert result.code == 0 and "scans/noisy.png" in result.out and "more/noisy.png" in result.out
    sheets = [path.relative_to("sheets").as_posix() for path in Path("sheets").rglob("*.png")]
    assert sorted(sheets) == ["more/noisy.png-advice.png", "scans/noisy.png-advice.png"]


def test_sheets_of_pictures_in_other_folders_stay_in_theirs(
    run: Terminal, noisy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy("scans/noisy.png", "noisy.png")
    monkeypatch.chdir("scans")
    result = run("advise noisy.png ../noisy.png --try sheets")
    assert result.code == 0 and len([*Path("sheets").rglob("*.png-advice.png")]) == 2


def test_a_file_that_cannot_be_read_stops_no_others(run: Terminal, noisy: None) -> None:
    result = run("advise broken.png gone.png scans/noisy.png")
    assert result.code == 1 and "noisy.png" in result.out
    assert sorted(line.split()[1] for line in result.err.splitlines()) == ["broken.png", "gone.png"]


def test_patterns_match_and_each_picture_is_listed_once(run: Terminal, noisy: None) -> None:
    result = run("advise scans/n*.png scans/../scans scans/noisy.png --json -")
    assert result.code == 0
    assert [one["picture"] for one in json.loads(result.out)] == ["scans/noisy.png", "scans/../scans/clean.png"]


def test_the_name_of_a_picture_is_not_an_option_of_the_example(run: Terminal, noisy: None) -> None:
    Path("scans/noisy.png").rename("-x.png")
    assert run("advise -- -x.png").out.splitlines()[-1].startswith("e.g.  pellucid restore ./-x.png --model")


def test_other_files_of_a_folder_are_counted(run: Terminal, noisy: None) -> None:
    Path("scans/notes.txt").write_text("no picture")
    assert "not pictures, ignored: 1 .txt" in run("advise scans").err


def test_a_folder_without_pictures_is_an_error(run: Terminal) -> None:
    Path("empty").mkdir()
    result = run("advise empty")
    assert result.code == 1 and "empty contains no pictures" in result.err


def test_auto_restores_each_picture_by_the_advised_model(run: Terminal, noisy: None) -> None:
    with Image.open("scans/noisy.png") as picture:
        picture.save("scans/blocky.jpg", quality=10)
    result = run("restore scans --model auto --out out --json report.json")
    assert result.code == 0
    assert sorted(path.name for path in Path("out").glob("*.*") if path.suffix != ".jsonl") == [
        "blocky.jpg",
        "noisy.png",
    ]
    assert "scans/clean.png: nothing found to correct, so it is not restored" in result.err
    assert "scans/noisy.png: noise of about 19 (white is 255), so dncnn-color-blind restores it" in result.err
    report = json.loads(Path("report.json").read_text())
    models = {Path(entry["source"]).name: entry["model"] for entry in report["pictures"]}
    assert models["noisy.png"] == "dncnn-color-blind" and models["blocky.jpg"] != models["noisy.png"]
    run("restore scans/noisy.png --model dncnn-color-blind --out same.png")
    assert Path("same.png").read_bytes() == Path("out/noisy.png").read_bytes()
    again = run("restore scans --model auto --out out --json report.json")
    assert again.code == 0 and "already exist" in again.out
    statuses = [entry["status"] for entry in json.loads(Path("report.json").read_text())["pictures"]]
    assert statuses == ["left alone"] * 3


def test_auto_with_nothing_to_correct_writes_nothing(run: Terminal, noisy: None) -> None:
    """A folder has other pictures; the result of a single one is expected, so that it is an error there."""
    result = run("restore scans --include clean.png --model auto --out out --json report.json")
    assert result.code == 0 and "clean.png: nothing found to correct, so it is not restored" in result.err
    (entry,) = json.loads(Path("report.json").read_text())["pictures"]
    assert (entry["status"], entry["target"], entry["model"]) == ("left alone", None, None)
    assert entry["source"] == "scans/clean.png" and "nothing found to correct" in entry["notes"][0]
    alone = run("restore scans/clean.png --model auto --out clean.png")
    assert alone.code == 1 and not Path("clean.png").exists()
    assert alone.err.endswith("scans/clean.png: nothing found to correct; choose --model NAME\n")


def test_sheets_go_to_a_folder(run: Terminal, noisy: None) -> None:
    result = run("advise scans --try photo.png")
    assert result.code == 2 and "--try photo.png is a file" in result.err


def test_auto_names_files_that_cannot_be_read(run: Terminal, noisy: None) -> None:
    result = run("restore broken.png scans/noisy.png --model auto --out out")
    assert result.code == 1 and "broken.png" in result.err and Path("out/noisy.png").exists()


@pytest.mark.parametrize("options", ["--scale 2", "--preview", "--shard 1/2", "--model srcnn-x2 --preview"])
def test_auto_refuses_options_that_need_one_model(run: Terminal, noisy: None, options: str) -> None:
    result = run(f"restore scans --model auto --out out {options}")
    assert result.code == 2 and "--model auto" in result.err


def test_auto_reads_pictures_as_the_options_say(run: Terminal, noisy: None) -> None:
    refused = run("restore scans/noisy.png --model auto --max-pixels 5000 --out a.png")
    assert refused.code == 1 and "at most 5,000 are allowed" in refused.err and not Path("a.png").exists()
    absent = run("restore scans/noisy.png --model auto --page 2 --out a.png")
    assert absent.code == 1 and "page" in absent.err and not Path("a.png").exists()
