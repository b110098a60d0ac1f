"""`pellucid prepare`, and what `pellucid evaluate` reports about training data."""

from pathlib import Path
from typing import Any

import pytest
from data_sources import write_pictures
from test_leaks import photo
from typer.testing import CliRunner

from pellucid.cli import app
from pellucid.data import preparing, registry
from pellucid.data.preparing import prepare
from pellucid.errors import ArgumentError
from pellucid.pictures import images
from pellucid.pictures.picture import Picture


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


def test_the_command_prepares_and_checks(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in")
    (folder / "bad.png").write_text("hello")
    result = run("prepare", "folder", folder, "--out", tmp_path / "s", "--against", folder)
    assert result.exit_code == 0
    assert "3 clean pictures" in result.output and "left out: bad.png:" in result.output
    assert "3 pictures of" in result.output and "warning: deep/0.png is deep/0.png" in result.output
    assert run("prepare", "check", tmp_path / "s").exit_code == 0
    shard = tmp_path / "s" / "samples-00000.bin"
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)
    result = run("prepare", "check", tmp_path / "s")
    assert result.exit_code == 1 and "the stored samples of " in result.output
    assert ".png are damaged; prepare the store again" in result.output
    result = run("prepare", "folder", folder)
    assert result.exit_code == 2 and "--out" in result.output


@pytest.mark.parametrize(("count", "is_counted"), [(20, False), (21, True)])
def test_of_many_files_that_are_left_out_twenty_are_named(count: int, is_counted: bool, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in")
    for number in range(count):
        (folder / f"bad{number}.png").write_text("hello")
    output = run("prepare", "folder", folder, "--out", tmp_path / "s").output
    assert output.count("left out: bad") == 20
    assert (
        f"{count} left out in all; 'pellucid prepare check {tmp_path / 's'}' lists them" in output
    ) == is_counted


def test_evaluate_warns_of_leaks(tmp_path: Path) -> None:
    for i in range(2):
        images.write(Picture(photo(48, 48, i)), tmp_path / "train" / f"{i}.png")
        images.write(Picture(photo(48, 48, 2 * i)), tmp_path / "test" / f"{2 * i}.png")
    prepare("folder", [tmp_path / "train"], tmp_path / "s")
    result = run("evaluate", "srcnn-x2", "--data", tmp_path / "test", "--train-data", tmp_path / "s")
    assert result.exit_code == 0
    assert "warning: 0.png is 0.png of the training data" in result.output
    assert "1 picture of" in result.output
    prepare("folder", [tmp_path / "test"], tmp_path / "t")
    result = run("evaluate", "srcnn-x2", "--data", tmp_path / "t", "--train-data", tmp_path / "s")
    assert "warning: 0.png is 0.png of the training data" in result.output


def test_evaluate_looks_for_leaks_in_each_of_several_stores(tmp_path: Path) -> None:
    for i in range(3):
        images.write(Picture(photo(48, 48, i)), tmp_path / "test" / f"{i}.png")
        images.write(Picture(photo(48, 48, i)), tmp_path / f"in{i}" / f"train{i}.png")
        prepare("folder", [tmp_path / f"in{i}"], tmp_path / f"s{i}")
    stores = [argument for i in (0, 2) for argument in ("--train-data", tmp_path / f"s{i}")]
    result = run("evaluate", "srcnn-x2", "--data", tmp_path / "test", *stores)
    assert result.exit_code == 0
    for i in range(3):
        assert (f"warning: {i}.png is train{i}.png of the training data" in result.output) == (i != 1)


def test_ctrl_c_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "prepare", interrupted)
    result = run("prepare", "folder", tmp_path, "--out", tmp_path / "s")
    assert result.exit_code == 130 and "the same command resumes" in result.output


def test_the_command_passes_keywords_on(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for folder in ("blur", "sharp"):
            write_pictures(tmp_path / "in" / split / folder, 1 + (split == "test"))
    result = run("prepare", "gopro", tmp_path / "in", "--out", tmp_path / "s", "--set", "split=test")
    assert "2 pairs" in result.output
    result = run("prepare", "gopro", tmp_path / "in", "--out", tmp_path / "t", "--set", "workers=2")
    assert result.exit_code == 1 and isinstance(result.exception, ArgumentError)
    assert "gopro has no keyword 'workers'" in str(result.exception)


@pytest.mark.parametrize("kind", registry.list_kinds())
def test_the_command_describes_every_data_set(kind: str) -> None:
    assert kind in " ".join(run("prepare", "--help").output.replace("│", " ").split())
    described = run("prepare", kind).output
    assert described.startswith(f"{kind}: {registry.summarize(kind)}")
    assert all(key in described for key in registry.own_keywords(kind))


def test_a_missing_source_is_a_usage_error(tmp_path: Path) -> None:
    """E.g. of a script whose list of sources is empty: exit status 0 would mean that there is a store."""
    result = run("prepare", "check")
    assert result.exit_code == 2 and "check needs the path of a store" in result.output
    result = run("prepare", "folder", "--out", tmp_path / "s")
    assert result.exit_code == 2 and "folder needs a SOURCE" in result.output
